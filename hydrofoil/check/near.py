"""Finds images that show the same photograph or drawing, changed a little.

Two stages: for each image, its nearest others by color thumbnails of 8×8 pixels, also mirrored;
then the correlation of blurred gradients over shifts. What counts as the same depends on the set:
any two photographs of a set differ more than any two handwritten ones.

Axes: N images, Q those that are searched for, K candidates of each, C channels, H rows, W columns,
D numbers of an image's description, S shifts, P pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, pad

from hydrofoil.data.statistics import LUMA

SIDE = 32  # larger images are reduced to it
LEAST_SIDE = 16  # of smaller images, any two of a class look alike
THUMBNAIL = 8  # with larger thumbnails fewer copies are among the candidates
CANDIDATES = 20  # of each image, and as many of its mirrored version
BLUR = 1.0  # pixels
SHIFT = 8  # images are shifted by up to an eighth of their side
CHUNK = 256  # images at once: 50,000 similarities of each are 50 MB

# Correlations r are compared as atanh(r), whose spread does not depend on r.
POSSIBLE = 1.31  # r = 0.865: of such pairs of CIFAR-10, 93 in 100 are the same photograph
CERTAIN = 1.38  # r = 0.88, and apart from the image's other candidates as well
DRAWN_CERTAIN = 2.9  # r = 0.994, of drawings
IDENTICAL = 3.45  # r = 0.998: the same image, whatever the others look like
OTHERS = 5  # the candidate whose correlation stands for "unrelated": the best may be copies
WEIGHT = 1.25  # of that correlation
APART, DRAWN_APART = 0.8, 1.05  # what must remain of the correlation
DRAWN, DRAWN_QUANTILE = 0.9, 0.25  # a set of which three quarters correlate more is of drawings
LEVEL_QUANTILE = 0.9  # images with many copies take the set's level of "unrelated"
FLAT = 12.0  # standard deviation of the border's pixels below which an image has a background
INK = 20.0  # gray values between background and content
ON_BACKGROUND = 0.5  # of a set: then thumbnails are of the centered content
SAMPLE = 1000  # images that say so
WINDOWED = 16  # images whose shifted windows are made at once: 6 MB of 32×32
LEAST_LENGTH = 1e-3  # of gradients, so that blank images correlate with nothing
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images that look the same, the most similar first.

    Args:
        first_P: Index of one image, int64.
        second_P: Of the other.
        correlation_P: Of their blurred gradients, at the best shift; float32.
        mirrored_P: Whether one has to be mirrored for it.
        certain_P: Whether they stand apart from all other images of the set; the others may be of
            the same kind only.
    """

    first_P: Tensor
    second_P: Tensor
    correlation_P: Tensor
    mirrored_P: Tensor
    certain_P: Tensor

    def __len__(self) -> int:
        return len(self.first_P)

    def where(self, chosen_P: Tensor) -> "Pairs":
        """Return some of the pairs: by a mask, or by indices and in their order."""
        return Pairs(
            self.first_P[chosen_P],
            self.second_P[chosen_P],
            self.correlation_P[chosen_P],
            self.mirrored_P[chosen_P],
            self.certain_P[chosen_P],
        )

    def best(self) -> "Pairs":
        """Return one pair for each first image: the most similar."""
        seen: dict[int, int] = {}
        for at, first in enumerate(self.first_P.tolist()):
            seen.setdefault(first, at)
        return self.where(torch.tensor(list(seen.values()), dtype=torch.int64))


def joined(several: list[Pairs]) -> Pairs:
    """Return the pairs of several searches, each pair once, the most similar first."""
    tables = [
        torch.cat([getattr(pairs, name) for pairs in several])
        for name in ("first_P", "second_P", "correlation_P", "mirrored_P", "certain_P")
    ]
    pairs = Pairs(*tables)
    order_P = pairs.correlation_P.argsort(descending=True, stable=True)
    order_P = order_P[pairs.certain_P[order_P].int().argsort(descending=True, stable=True)]
    kept: dict[tuple[int, int], int] = {}
    for at in order_P.tolist():
        kept.setdefault((int(pairs.first_P[at]), int(pairs.second_P[at])), at)
    return pairs.where(torch.tensor(list(kept.values()), dtype=torch.int64))


def near_pairs(
    pictures_NCHW: Tensor,
    search_Q: Tensor,
    among_N: Tensor | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Return the pairs of images that look the same: one of `search_Q`, one of `among_N`.

    5.5 s for 10,000 images among 50,000 of 3×32×32 on two cores, and 26 s for 50,000 among
    themselves, measured once. Of images with a side below 16 pixels it returns none.

    Args:
        pictures_NCHW: All images, uint8.
        search_Q: Indices of the images that are searched for.
        among_N: Indices of those among which; default: the same, each pair once.
        progress: Called with how many images are done and how many there are.
    """
    within = among_N is None
    found_N = search_Q if among_N is None else among_N
    if not len(search_Q) or len(found_N) <= within or min(pictures_NCHW.shape[2:]) < LEAST_SIDE:
        return no_pairs()
    database = _Database(pictures_NCHW, found_N)
    found = [
        database.candidates(search_Q[start : start + CHUNK], start if within else None)
        for start in _chunks(len(search_Q), progress)
    ]
    which_QK, mirrored_QK, level_QK = (torch.cat(table) for table in zip(*found, strict=True))
    possible_QK, certain_QK = _judged(level_QK)
    query_P, at_P = possible_QK.nonzero(as_tuple=True)
    pairs = Pairs(
        search_Q[query_P],
        found_N[which_QK[query_P, at_P]],
        level_QK[query_P, at_P].tanh(),
        mirrored_QK[query_P, at_P],
        certain_QK[query_P, at_P],
    )
    if within:  # a pair is found from both sides as a rule
        low_P = torch.minimum(pairs.first_P, pairs.second_P)
        high_P = torch.maximum(pairs.first_P, pairs.second_P)
        pairs = replace(pairs, first_P=low_P, second_P=high_P)
    return joined([pairs])


def _chunks(count: int, progress: Progress | None) -> Iterator[int]:
    for start in range(0, count, CHUNK):
        yield start
        if progress:
            progress(min(start + CHUNK, count), count)


def _judged(level_QK: Tensor) -> tuple[Tensor, Tensor]:
    """Return which candidates show possibly the same as the image they were found for, and surely.

    Args:
        level_QK: atanh of the correlations.
    """
    drawn = float(level_QK.amax(1).quantile(DRAWN_QUANTILE)) > DRAWN
    rank = min(OTHERS + 1, level_QK.shape[1])
    other_Q = level_QK.topk(rank, 1).values[:, -1]
    other_Q = other_Q.clamp(max=float(_quantile(other_Q, LEVEL_QUANTILE)))
    apart_QK = level_QK - WEIGHT * other_Q[:, None] > (DRAWN_APART if drawn else APART)
    certain_QK = apart_QK & (level_QK > (DRAWN_CERTAIN if drawn else CERTAIN))
    certain_QK |= level_QK > IDENTICAL
    return (certain_QK if drawn else level_QK > POSSIBLE), certain_QK


def _quantile(values_N: Tensor, quantile: float) -> Tensor:
    """Return a quantile; torch's own takes at most 16 million values."""
    return values_N.kthvalue(1 + int(quantile * (len(values_N) - 1))).values


class _Database:
    """The descriptions of the images among which others are searched.

    Args:
        pictures_NCHW: All images, uint8.
        index_N: Those of the database.
    """

    def __init__(self, pictures_NCHW: Tensor, index_N: Tensor) -> None:
        self.pictures_NCHW, self.index_N = pictures_NCHW, index_N
        some = index_N[:: max(1, len(index_N) // SAMPLE)]
        flat = _border(_gray(_reduced(pictures_NCHW[some]))).std(1) < FLAT
        self.centered = float(flat.double().mean()) >= ON_BACKGROUND
        thumbnails: list[Tensor] = []
        centers: list[Tensor] = []
        for start in range(0, len(index_N), CHUNK):
            images = _reduced(pictures_NCHW[index_N[start : start + CHUNK]])
            thumbnails.append(_thumbnails(images, centered=self.centered))
            gradients = _gradients(images)
            margin = _margin(gradients)
            height, width = gradients.shape[2:]
            inner = gradients[:, :, margin : height - margin, margin : width - margin]
            centers.append(_unit(inner.flatten(1)))
        self.thumbnails_ND, self.centers_ND = torch.cat(thumbnails), torch.cat(centers)

    def candidates(self, search_Q: Tensor, own: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidates of some images: positions, whether mirrored, atanh of correlations.

        Args:
            search_Q: Indices of the images.
            own: The position of the first in the database, if they are part of it.
        """
        plain = _reduced(self.pictures_NCHW[search_Q])
        count = min(CANDIDATES, len(self.index_N) - (own is not None))
        which: list[Tensor] = []
        levels: list[Tensor] = []
        for images in (plain, plain.flip(3)):
            near_QN = _thumbnails(images, centered=self.centered) @ self.thumbnails_ND.T
            if own is not None:
                near_QN[torch.arange(len(images)), torch.arange(own, own + len(images))] = -2
            which.append(near_QN.topk(count, 1).indices)
            levels.append(self._correlations(_gradients(images), which[-1]).clamp(-1, 1 - 1e-6))
        mirrored_QK = (torch.arange(2 * count) >= count).expand(len(search_Q), -1)
        return torch.cat(which, 1), mirrored_QK, torch.cat(levels, 1).atanh()

    def _correlations(self, gradients_QCHW: Tensor, which_QK: Tensor) -> Tensor:
        """Return the largest correlation of each image with each candidate, over the shifts."""
        margin = _margin(gradients_QCHW)
        height, width = (side - 2 * margin for side in gradients_QCHW.shape[2:])
        squares = gradients_QCHW.square().sum(1, keepdim=True)
        mean = avg_pool2d(squares, (height, width), stride=1)
        lengths_QS = (mean.flatten(1) * (height * width)).sqrt().clamp_min(LEAST_LENGTH)
        found: list[Tensor] = []
        for start in range(0, len(which_QK), WINDOWED):
            part = slice(start, start + WINDOWED)
            windows = gradients_QCHW[part].unfold(2, height, 1).unfold(3, width, 1)
            windows_QSD = windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
            products = windows_QSD @ self.centers_ND[which_QK[part]].transpose(1, 2)
            found.append((products / lengths_QS[part][..., None]).amax(1))
        return torch.cat(found)


def no_pairs() -> Pairs:
    """Return no pairs."""
    none = torch.zeros(0, dtype=torch.int64)
    return Pairs(none, none, torch.zeros(0), none.bool(), none.bool())


def _reduced(pictures_NCHW: Tensor) -> Tensor:
    """Return images in float32, of at most 32 pixels a side."""
    height, width = pictures_NCHW.shape[2:]
    images = pictures_NCHW.float()
    if max(height, width) <= SIDE:
        return images
    return adaptive_avg_pool2d(images, (min(height, SIDE), min(width, SIDE)))


def _gray(images_NCHW: Tensor) -> Tensor:
    """Return gray values_NHW."""
    if images_NCHW.shape[1] != 3:
        return images_NCHW.mean(1)
    return (images_NCHW * torch.tensor(LUMA).view(3, 1, 1)).sum(1)


def _border(gray_NHW: Tensor) -> Tensor:
    edges = (gray_NHW[:, 0], gray_NHW[:, -1], gray_NHW[:, :, 0], gray_NHW[:, :, -1])
    return torch.cat(edges, 1)


def _unit(values_D: Tensor) -> Tensor:
    """Return vectors of length 1; of blank images, zeros."""
    return values_D / values_D.norm(dim=-1, keepdim=True).clamp_min(LEAST_LENGTH)


def _margin(gradients_NCHW: Tensor) -> int:
    return max(1, min(gradients_NCHW.shape[2:]) // SHIFT)


def _thumbnails(images_NCHW: Tensor, *, centered: bool) -> Tensor:
    """Return each image's thumbnail as a vector of mean 0 and length 1."""
    small = adaptive_avg_pool2d(_centered(images_NCHW) if centered else images_NCHW, THUMBNAIL)
    values_ND = small.flatten(1)
    return _unit(values_ND - values_ND.mean(1, keepdim=True))


def _centered(images_NCHW: Tensor) -> Tensor:
    """Return images whose content, by its mass, is in the center; the border is repeated."""
    gray_NHW = _gray(images_NCHW)
    ink_NHW = (gray_NHW - _border(gray_NHW).median(1).values[:, None, None]).abs()
    ink_NHW = ink_NHW * (ink_NHW >= INK)
    mass_N = ink_NHW.sum((1, 2)).clamp_min(1e-3)
    at: list[Tensor] = []
    for axis in (1, 2):
        side = ink_NHW.shape[axis]
        places = torch.arange(side)
        off_N = (ink_NHW.sum(3 - axis) @ places.float()) / mass_N - (side - 1) / 2
        at.append((places + off_N.round().long()[:, None]).clamp(0, side - 1))
    number = torch.arange(len(images_NCHW))[:, None, None]
    return images_NCHW[number, :, at[0][:, :, None], at[1][:, None, :]].permute(0, 3, 1, 2)


def _gradients(images_NCHW: Tensor) -> Tensor:
    """Return the gradient of the blurred gray image, as 2 channels."""
    reach = round(3 * BLUR)
    weights = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * BLUR**2)).exp()
    weights /= weights.sum()
    gray = pad(_gray(images_NCHW)[:, None], (reach,) * 4, mode="reflect")
    blurred = conv2d(conv2d(gray, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    wide = pad(blurred, (1,) * 4, mode="replicate")
    across = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return torch.cat([across, down], 1)
