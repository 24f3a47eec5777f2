"""How many labels are wrong, by the votes of a person on a random sample.

Axes: N images.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.randomness import generator
from hydrofoil.wording import interval, percent, plural

Vote = Literal["right", "wrong", "unsure"]
VOTES: tuple[Vote, ...] = ("right", "wrong", "unsure")
SIZE = 100  # images of a sample
COVERED = 0.95  # of all samples, the interval contains the true rate
MOST_BYTES = 32 * 2**20  # of a file of votes


@dataclass(frozen=True)
class Stratum:
    """A part of the set, and the images that were drawn from it.

    Args:
        name: all, likely or rest.
        size: Images of the part.
        images: The indices of those drawn, in the order of the draw.
    """

    name: str
    size: int
    images: tuple[int, ...]


@dataclass(frozen=True)
class Review:
    """A random sample of a set, to be voted on.

    Args:
        hash: Of the set.
        seed: What the draw depends on, beside the set.
        strata: The parts that it was drawn from.
        votes: By an image's index; empty before the vote.
    """

    hash: str
    seed: int
    strata: tuple[Stratum, ...]
    votes: Mapping[int, Vote]

    @property
    def images(self) -> list[int]:
        """The images in random order: whoever votes does not know which stratum one is of."""
        together = [image for stratum in self.strata for image in stratum.images]
        order = torch.randperm(len(together), generator=generator(self.seed, "review", 1))
        return [together[at] for at in order.tolist()]

    def as_dict(self) -> dict[str, Any]:
        """Return the review as the file of votes has it."""
        return {
            "hash": self.hash,
            "seed": self.seed,
            "strata": [
                {"name": one.name, "size": one.size, "images": list(one.images)}
                for one in self.strata
            ],
            "votes": {str(image): vote for image, vote in self.votes.items()},
        }


def draw_review(
    pictures: Pictures, size: int = SIZE, *, seed: int = 0, likely: Sequence[int] = ()
) -> Review:
    """Draw the images to vote on: at random from all, or from likely errors and the rest apart.

    With the likely errors as a stratum of their own, of which a third of the sample is drawn, the
    interval is narrower: most errors are in it, and few images have to be looked at for them.

    Args:
        pictures: The set.
        size: Images of the sample; at most all.
        seed: What the draw depends on, beside the set.
        likely: The images of the finding `labels` that are likely errors; empty: one stratum.

    Raises:
        HydrofoilError: The size is below one.

    >>> import hydrofoil as hf
    >>> len(draw_review(hf.load("digits"), 50).images)
    50
    """
    if size < 1:
        raise HydrofoilError(f"--review {size}: expected at least one image to vote on.")
    N = len(pictures)
    size = min(size, N)
    flagged_N = torch.zeros(N, dtype=torch.bool)
    flagged_N[list(likely)] = True
    first = min(int(flagged_N.sum()), size // 3)
    if not first:
        return Review(pictures.hash, seed, (_drawn("all", torch.arange(N), size, seed),), {})
    parts = (flagged_N.nonzero()[:, 0], (~flagged_N).nonzero()[:, 0])
    sizes = first, min(size - first, len(parts[1]))
    strata = [
        _drawn(name, index_N, count, seed)
        for name, index_N, count in zip(("likely", "rest"), parts, sizes, strict=True)
        if len(index_N)
    ]
    return Review(pictures.hash, seed, tuple(strata), {})


def _drawn(name: str, index_N: Tensor, count: int, seed: int) -> Stratum:
    order_N = torch.randperm(len(index_N), generator=generator(seed, "review", 0))
    return Stratum(name, len(index_N), tuple(index_N[order_N[:count]].tolist()))


# ── votes ────────────────────────────────────────────────────────────────────────────────────────


def read_votes(path: Path, pictures: Pictures) -> Review:
    """Return the votes that the review page saved.

    Raises:
        HydrofoilError: The file cannot be read, is something else, or is of another set.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise HydrofoilError(f"{path}: larger than any file of votes.")
        content: Any = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise HydrofoilError(f"{path}: the votes cannot be read: {reason(error)}.") from error
    except (ValueError, RecursionError) as error:
        raise HydrofoilError(f"{path}: not JSON: expected the votes.json of a review.") from error
    review = _as_review(content, path)
    if review.hash != pictures.hash:
        raise HydrofoilError(
            f"{path}: votes on other images or labels than {pictures.source} has now.\n"
            "Vote again: hydrofoil check SOURCE --review"
        )
    last = max((image for stratum in review.strata for image in stratum.images), default=-1)
    if last >= len(pictures):
        raise HydrofoilError(f"{path}: image {last}: expected at most {len(pictures) - 1}.")
    return review


def _as_review(content: Any, path: Path) -> Review:
    """Return a review from what JSON gave, whatever that is."""
    try:
        strata = tuple(
            Stratum(str(one["name"]), _number(one["size"]), tuple(map(_number, one["images"])))
            for one in content["strata"]
        )
        votes = {int(image): vote for image, vote in content["votes"].items()}
        seed, digest = _number(content["seed"]), str(content["hash"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_votes(path) from error
    drawn = [image for stratum in strata for image in stratum.images]
    sound = len(drawn) == len(set(drawn)) and set(votes) <= set(drawn)
    sizes = all(len(stratum.images) <= stratum.size for stratum in strata)
    if not (sound and sizes and set(votes.values()) <= set(VOTES)):
        raise _not_votes(path)
    return Review(digest, seed, strata, cast("dict[int, Vote]", votes))


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("a number from 0 on was expected")
    return value


def _not_votes(path: Path) -> HydrofoilError:
    return HydrofoilError(
        f"{path}: not the votes of a review: expected the votes.json that its page saves.\n"
        "Make the page with hydrofoil check SOURCE --review"
    )


# ── the estimate ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class NoiseEstimate:
    """The fraction of wrong labels in a set, from votes.

    Args:
        rate: The estimate, from 0 to 1.
        interval: Its 95% interval.
        voted: Images that were voted on.
        wrong: Votes for wrong.
        unsure: Votes for unsure; they count as right labels in `rate`.
        rate_with_unsure: The estimate if they count as wrong ones.
        interval_with_unsure: Its 95% interval.
        drawn: Images of the sample.
    """

    rate: float
    interval: tuple[float, float]
    voted: int
    wrong: int
    unsure: int
    rate_with_unsure: float
    interval_with_unsure: tuple[float, float]
    drawn: int

    def lines(self) -> list[str]:
        """Return the estimate in sentences."""
        said = [
            f"{percent(self.rate, 1)} of the labels are wrong ({interval(self.interval)}): "
            f"{self.wrong:,} of {plural(self.voted, 'image')} that were voted on."
        ]
        if self.unsure:
            said.append(
                f"With {plural(self.unsure, 'undecided image')} counted as wrong: "
                f"{percent(self.rate_with_unsure, 1)} ({interval(self.interval_with_unsure)})."
            )
        if self.voted < self.drawn:
            said.append(
                f"{self.drawn - self.voted:,} of {self.drawn:,} images were not voted on. The "
                "interval holds if they were left out for reasons that have nothing to do with "
                "the images: stopping early is fine, skipping difficult images is not."
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }


def noise_estimate(review: Review) -> NoiseEstimate:
    """Return the fraction of wrong labels with its 95% interval.

    Raises:
        HydrofoilError: A stratum has no vote: nothing can be said about the set.
    """
    counts: list[tuple[Stratum, int, int, int]] = []
    for stratum in review.strata:
        votes = [review.votes[image] for image in stratum.images if image in review.votes]
        if stratum.size and not votes:
            raise HydrofoilError(
                "the votes are of too few images: expected one at least from "
                + ("the sample." if len(review.strata) == 1 else "the likely errors and the rest.")
                + "\nOpen the page again and vote on more images; it continues where it was left."
            )
        counts.append((stratum, len(votes), votes.count("wrong"), votes.count("unsure")))
    rate, bounds = stratified([(one.size, voted, wrong) for one, voted, wrong, _ in counts])
    with_unsure = stratified([(one.size, n, wrong + unsure) for one, n, wrong, unsure in counts])
    return NoiseEstimate(
        rate,
        bounds,
        voted=sum(voted for _, voted, _, _ in counts),
        wrong=sum(wrong for _, _, wrong, _ in counts),
        unsure=sum(unsure for _, _, _, unsure in counts),
        rate_with_unsure=with_unsure[0],
        interval_with_unsure=with_unsure[1],
        drawn=sum(len(one.images) for one, _, _, _ in counts),
    )


def stratified(strata: Sequence[tuple[int, int, int]]) -> tuple[float, tuple[float, float]]:
    """Return a share of a finite set with its 95% interval, from a random sample of each stratum.

    With one stratum the interval is exact. Several are combined by the distance of each stratum's
    bounds from its share, squared and weighted (Zou and Donner 2008, Statistics in Medicine 27,
    1693-1702).

    Args:
        strata: Of each: its size, the images of the sample, and how many of these count.

    >>> share, (low, high) = stratified([(1000, 100, 3)])
    >>> share, round(low, 3), round(high, 3)
    (0.03, 0.007, 0.082)
    """
    whole = sum(size for size, _, _ in strata)
    share = below = above = 0.0
    for size, drawn, counted in strata:
        if not size:
            continue
        own, (low, high) = counted / drawn, exact_interval(size, drawn, counted)
        share += size / whole * own
        below += (size / whole * (own - low)) ** 2
        above += (size / whole * (high - own)) ** 2
    return share, (max(0.0, share - sqrt(below)), min(1.0, share + sqrt(above)))


def exact_interval(size: int, drawn: int, counted: int) -> tuple[float, float]:
    """Return the exact 95% interval of the share in a finite set, from a sample of it.

    The shares that a two-sided test of the hypergeometric distribution does not reject (Buonaccorsi
    1987, The American Statistician 41, 215-218); for large sets it is that of Clopper and Pearson.

    Args:
        size: Images of the set.
        drawn: Images of the sample.
        counted: How many of these count.

    >>> exact_interval(100, 100, 7)
    (0.07, 0.07)
    """
    from scipy.stats import hypergeom

    tail = (1 - COVERED) / 2

    def too_few(wrong: int) -> bool:
        """Tell whether so many in the set would give as many in the sample too rarely."""
        return float(hypergeom.sf(counted - 1, size, wrong, drawn)) <= tail

    def not_too_many(wrong: int) -> bool:
        return float(hypergeom.cdf(counted, size, wrong, drawn)) > tail

    low = _first(counted, size - (drawn - counted), lambda wrong: not too_few(wrong))
    high = _first(counted, size - (drawn - counted) + 1, lambda wrong: not not_too_many(wrong)) - 1
    return low / size, max(low, high) / size


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the least number from low on that something holds for; it holds from there on."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
