"""Whether mirrored images are still recognized as their class, for the choice of `augment.flip`.

A small network answers: one layer of convolutions whose filters are patches of the images, pooled,
and a linear layer fitted by least squares (Coates et al. 2011,
https://proceedings.mlr.press/v15/coates11a.html). It is fitted in closed form to images as they
are, in folds, and answers the others as they are and mirrored. It depends on no seed, device or
executor, and takes a second or two.

Axes: N images, C channels, H rows, W columns, F features, K classes.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, one_hot

from hydrofoil.data.pictures import Pictures
from hydrofoil.randomness import generator
from hydrofoil.wording import percent

IMAGES, FOLDS = 1600, 4
FILTERS, PATCH, SIDE, GRID = 96, 5, 32, 3
PART = 100  # images whose convolutions are in memory together
RIDGE = 3e-4  # of the sum of the features' squares
LEAST = 200  # images, below which nothing is known
MOST_LOST = 0.25  # of the accuracy beyond chance: what mirroring may cost
CLASS_LEAST = 10  # recognized images of a class, from which on it can be lost
Z_95 = 1.96


@dataclass(frozen=True)
class Mirrored:
    """How many images are recognized as they are and mirrored.

    Args:
        count: Images.
        correct: Recognized as they are.
        mirrored: Recognized mirrored.
        margin: Half the width of the 95% interval of the difference of the two accuracies.
        chance: The accuracy of always answering the largest class.
        lost: The class of which mirroring loses more than half, the most first; empty: none.
    """

    count: int
    correct: int
    mirrored: int
    margin: float
    chance: float
    lost: str = ""

    @property
    def flip(self) -> str:
        """The choice of augment.flip: random if mirrored images are recognized as their class."""
        beyond = self.correct / max(1, self.count) - self.chance
        most = (self.correct - self.mirrored) / max(1, self.count) + self.margin
        kept = self.count >= LEAST and most < MOST_LOST * beyond
        return "random" if kept and not self.lost else "none"

    @property
    def reason(self) -> str:
        """Why, with the figures."""
        if self.count < LEAST:
            return "too few images to find out whether mirrored ones keep their class"
        plain, mirrored = (percent(n / self.count, 0) for n in (self.correct, self.mirrored))
        said = f"a small network recognizes {plain}, mirrored {mirrored}"
        if self.flip == "random":
            return f"{said}: mirrored images keep their class"
        if self.lost:
            return f"{said}, and loses most of {self.lost}"
        if self.correct / self.count - self.chance <= 2 * self.margin:
            return f"{said}: too little to find out whether mirrored images keep their class"
        return f"{said}: mirrored images may be of another class"


def mirrored(pictures: Pictures, index_N: Tensor) -> Mirrored:
    """Return how many of some images, 1,600 at most, are recognized as they are and mirrored.

    Args:
        pictures: The set.
        index_N: Which of its images may be looked at: not those of a given test split.
    """
    random = generator(0, "mirror")
    some_N = index_N[torch.randperm(len(index_N), generator=random)[:IMAGES]]
    labels_N = pictures.labels_N[some_N.to(pictures.labels_N.device)].cpu()
    count = len(some_N)
    chance = int(labels_N.bincount().max()) / count if count else 1.0
    if count < LEAST or len(labels_N.unique()) < 2:
        return Mirrored(0 if count >= LEAST else count, 0, 0, 0.0, chance)
    images_NCHW = _even(pictures.pictures_NCHW[some_N.to(pictures.pictures_NCHW.device)].cpu())
    filters_FCHW = _filters(images_NCHW, random)
    plain_NF, mirror_NF = (_features(x, filters_FCHW) for x in (images_NCHW, images_NCHW.flip(3)))
    mean_F, std_F = plain_NF.mean(0), plain_NF.std(0).clamp(min=1e-6)
    plain_NF, mirror_NF = ((x - mean_F) / std_F for x in (plain_NF, mirror_NF))
    plain_N, mirror_N = torch.zeros(2, count, dtype=torch.bool)
    fold_N = torch.arange(count) % FOLDS
    for fold in range(FOLDS):
        fitted, held_out = fold_N != fold, fold_N == fold
        weights_FK, bias_K = _fit(plain_NF[fitted], labels_N[fitted], pictures.K)
        for features_NF, correct_N in ((plain_NF, plain_N), (mirror_NF, mirror_N)):
            answer_N = (features_NF[held_out] @ weights_FK + bias_K).argmax(1)
            correct_N[held_out] = answer_N == labels_N[held_out]
    difference_N = plain_N.double() - mirror_N.double()
    return Mirrored(
        count, int(plain_N.sum()), int(mirror_N.sum()),
        Z_95 * sqrt(difference_N.var().item() / count), chance,
        _lost(plain_N, mirror_N, labels_N, pictures.classes),
    )  # fmt: skip


def _even(pictures_NCHW: Tensor) -> Tensor:
    """Return images of at most 32 pixels a side, each with mean 0 and about the same contrast."""
    images_NCHW = pictures_NCHW.to(torch.float32) / 255
    height, width = (min(side, SIDE) for side in images_NCHW.shape[2:])
    images_NCHW = adaptive_avg_pool2d(images_NCHW, (height, width))
    mean_N111 = images_NCHW.mean((1, 2, 3), keepdim=True)
    return (images_NCHW - mean_N111) / (images_NCHW.std((1, 2, 3), keepdim=True) + 0.05)


def _filters(images_NCHW: Tensor, random: torch.Generator) -> Tensor:
    """Return filters_FCHW: random patches of the images, with mean 0 and about the same norm."""
    N, _, H, W = images_NCHW.shape
    side = min(PATCH, H, W)
    places = [
        torch.randint(room, (FILTERS,), generator=random).tolist()
        for room in (N, H - side + 1, W - side + 1)
    ]
    patches_FCHW = torch.stack(
        [images_NCHW[n, :, y : y + side, x : x + side] for n, y, x in zip(*places, strict=True)]
    )
    patches_FCHW = patches_FCHW - patches_FCHW.mean((1, 2, 3), keepdim=True)
    return patches_FCHW / (patches_FCHW.square().sum((1, 2, 3), keepdim=True).sqrt() + 0.1)


def _features(images_NCHW: Tensor, filters_FCHW: Tensor) -> Tensor:
    """Return each filter's mean positive answer in the cells of a grid, features_NF in float64."""
    parts = [
        adaptive_avg_pool2d(conv2d(part_NCHW, filters_FCHW).relu_(), GRID).flatten(1)
        for part_NCHW in images_NCHW.split(PART)
    ]
    return torch.cat(parts).double()


def _fit(features_NF: Tensor, labels_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights_FK and bias_K of the least squares to one-hot labels, with a ridge."""
    target_NK = one_hot(labels_N, classes).double()
    bias_K = target_NK.mean(0)
    product_FF = features_NF.T @ features_NF
    product_FF.diagonal().add_(RIDGE * features_NF.numel())
    return torch.linalg.solve(product_FF, features_NF.T @ (target_NK - bias_K)), bias_K


def _lost(plain_N: Tensor, mirror_N: Tensor, labels_N: Tensor, classes: tuple[str, ...]) -> str:
    """Return the class of which mirroring loses the largest part, if that is more than half."""
    shares: dict[str, float] = {}
    for number, name in enumerate(classes):
        of_class = labels_N == number
        plain, mirror = int(plain_N[of_class].sum()), int(mirror_N[of_class].sum())
        if plain >= CLASS_LEAST and mirror < plain / 2:
            shares[name] = mirror / plain
    return min(shares, key=shares.__getitem__) if shares else ""
