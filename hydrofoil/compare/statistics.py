"""Is B better than A? Tests and intervals over seeds, and over the same test images.

Every share is from 0 to 1; every difference is B minus A, in points: a point is 0.01 of accuracy.
SciPy is imported inside the functions: its import takes a second, which `train` should not pay.

Axes: S seeds, N test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from hydrofoil.randomness import key
from hydrofoil.wording import isolated

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Outcome = Literal["better", "worse", "no significant difference"]

ALPHA = 0.05  # two-sided false positive rate
POWER = 0.8  # of a recommended number of seeds
RESAMPLES = 9999
MOST_SEEDS = 10_000


@dataclass(frozen=True, eq=False)
class SideAnswers:
    """The answers of one side: a recipe's runs, one per seed.

    Args:
        name: The side's name.
        seeds: The S seeds, ascending.
        correct_SN: Whether each run classifies each image correctly.
        index_SN: The images' indices in the dataset.
        runs: The runs' folders.
        warnings: The warnings of `test`.
        opened: How often each run opened its test split.
        letter: The side's letter, such as "A".
        label: What sets the side apart, such as "lr 0.02".
        balanced_accuracies: Each run's balanced accuracy; empty where it is unknown.
    """

    name: str
    seeds: tuple[int, ...]
    correct_SN: Bools
    index_SN: npt.NDArray[np.int64]
    runs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    opened: tuple[int, ...] = ()
    letter: str = ""
    label: str = ""
    balanced_accuracies: tuple[float, ...] = ()

    @property
    def accuracy_S(self) -> Floats:
        """Each run's accuracy."""
        return self.correct_SN.mean(axis=1)


@dataclass(frozen=True)
class Side:
    """The summary of one side.

    Args:
        name: The side's name.
        runs: The run folders, by ascending seed.
        seeds: Their seeds.
        accuracies: Their accuracies, in the same order.
        pictures: The number of images that each run was tested on.
        mean: The mean accuracy.
        interval: The mean's 95% interval over seeds (Student's t); None for a single seed, or
            where all accuracies are equal.
        deviation: The accuracies' sample standard deviation (n - 1); None for a single seed.
        opened: How often each run opened its test split.
        warnings: The warnings of `test`.
        letter: The side's letter, such as "A".
        label: What sets the side apart, such as "lr 0.02"; empty where that is unknown.
        balanced_accuracies: The same, each class counting alike; empty where they are unknown.
    """

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    pictures: int
    mean: float
    interval: tuple[float, float] | None
    deviation: float | None
    opened: tuple[int, ...]
    warnings: tuple[str, ...]
    letter: str = ""
    label: str = ""
    balanced_accuracies: tuple[float, ...] = ()

    @property
    def balanced_mean(self) -> float | None:
        """The mean balanced accuracy, where it is known."""
        known = self.balanced_accuracies
        return sum(known) / len(known) if known else None

    @property
    def called(self) -> str:
        """What sentences call the side: "B (lr 0.05)", or "B" without a label."""
        return f"{self.letter} ({isolated(self.label)})" if self.label else self.letter


@dataclass(frozen=True)
class Discordant:
    """The images that exactly one of two models classifies correctly.

    Args:
        only_a: Correct in A only.
        only_b: Correct in B only.
        p: The two-sided p-value of the exact McNemar test.
    """

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Pair:
    """The two runs of a seed, tested on the same images.

    Args:
        seed: A's seed, and B's where the runs are paired by seed.
        points: B's accuracy minus A's.
        discordant: The images that only one of them classifies correctly.
    """

    seed: int
    points: float
    discordant: Discordant


@dataclass(frozen=True)
class Difference:
    """The mean difference over seeds, and its uncertainty.

    Args:
        points: Mean of B minus mean of A.
        interval: Its 95% interval over seeds, in points; None without any spread over
            seeds.
        deviation: The standard deviation of the differences over seeds; for Welch's test, the
            root of the sum of both variances. None for a single seed.
        p: The two-sided p-value; None where nothing can be tested.
        method: The test that gave p.
        freedom: Degrees of freedom per seed after the first: 1 if paired, 1 to 2 for Welch's.
    """

    points: float
    interval: tuple[float, float] | None
    deviation: float | None
    p: float | None
    method: Literal["paired t", "Welch's t", "sign flips", "permutations", "none"]
    freedom: float = 1.0

    @property
    def outcome(self) -> Outcome:
        """The verdict on the recipes."""
        if self.p is None or self.p >= ALPHA:
            return "no significant difference"
        return "better" if self.points > 0 else "worse"


def seed_difference(
    accuracy_A_S: Floats, accuracy_B_S: Floats, *, paired: bool, alpha: float = ALPHA
) -> Difference:
    """Return mean B minus mean A with Student's interval: of the differences, or Welch's.

    On small test sets accuracies are coarse: with two seeds and 359 images, a recipe compared with
    itself gives two equal nonzero differences in 7 to 11 of 100 experiments, and t is infinite.
    Without any spread the exact sign-flip test (paired) or permutation test decides.

    Args:
        accuracy_A_S: A's accuracies, one per seed.
        accuracy_B_S: B's.
        paired: Whether they are paired by seed.
        alpha: The interval covers the difference in 1 - alpha of all comparisons.
    """
    points = 100 * float(accuracy_B_S.mean() - accuracy_A_S.mean())
    sides = (
        [100 * (accuracy_B_S - accuracy_A_S)]
        if paired
        else [100 * accuracy_A_S, 100 * accuracy_B_S]
    )
    sizes = [len(side) for side in sides]
    if min(sizes) < 2:
        return Difference(points, None, None, None, "none")
    if max(float(np.ptp(side)) for side in sides) < 1e-9:
        ways = 2 ** sizes[0] if paired else comb(sum(sizes), sizes[0])
        p = min(1.0, 2 / ways) if abs(points) > 1e-9 else 1.0
        return Difference(points, None, 0.0, p, "sign flips" if paired else "permutations")
    from scipy.stats import t as student

    parts = [float(side.var(ddof=1)) / size for side, size in zip(sides, sizes, strict=True)]
    error = sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True)
    )
    half = float(student.ppf(1 - alpha / 2, freedom)) * error
    variances = [float(side.var(ddof=1)) for side in sides]
    return Difference(
        points,
        (points - half, points + half),
        sqrt(sum(variances)),
        2 * float(student.sf(abs(points) / error, freedom)),
        "paired t" if paired else "Welch's t",
        sum(variances) ** 2 / sum(variance**2 for variance in variances),
    )


def mcnemar(correct_A_N: Bools, correct_B_N: Bools) -> Discordant:
    """Return the exact test of McNemar (1947) on the images that one model alone gets correct.

    It is about these two trained models, not about the recipes: retraining changes the images.

    >>> mcnemar(np.array([True] * 5 + [False] * 2), np.array([False] * 5 + [True] * 2))
    Discordant(only_a=5, only_b=2, p=0.453125)
    """
    from scipy.stats import binomtest

    only_a, only_b = (
        int((correct_A_N & ~correct_B_N).sum()),
        int((correct_B_N & ~correct_A_N).sum()),
    )
    both = only_a + only_b
    return Discordant(only_a, only_b, float(binomtest(only_b, both).pvalue) if both else 1.0)


def bootstrap_points(
    accuracy_A_S: Floats, accuracy_B_S: Floats, *, paired: bool
) -> tuple[float, float] | None:
    """Return the percentile interval of the difference over resampled seeds, in points.

    It does not assume a normal distribution, but is too narrow with few seeds. None for a single
    seed or without any spread. The same accuracies give the same interval.
    """
    sides = (accuracy_B_S - accuracy_A_S,) if paired else (accuracy_A_S, accuracy_B_S)
    if min(map(len, sides)) < 2 or max(float(np.ptp(side)) for side in sides) < 1e-12:
        return None
    from scipy.stats import bootstrap

    def mean(*resampled: Floats, axis: int = -1) -> Floats:
        return resampled[-1].mean(axis) - (0 if paired else resampled[0].mean(axis))

    found = bootstrap(
        sides,
        mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(key(0, "bootstrap")),
    ).confidence_interval
    return 100 * float(found.low), 100 * float(found.high)


def other_pictures(correct_A_SN: Bools, correct_B_SN: Bools) -> tuple[float, float] | None:
    """Return the 95% interval of the difference for new seeds and new images, in points.

    Seeds and images are crossed random factors, like readers and cases in radiology studies:
    Dorfman, Berbaum and Metz (1992), with the degrees of freedom of Hillis (2007, Statistics in
    Medicine 26, 596-619). None for a single seed or without any spread.
    """
    points_SN = 100.0 * (correct_B_SN.astype(np.int8) - correct_A_SN.astype(np.int8))
    S, N = points_SN.shape
    if S < 2 or N < 2:
        return None
    from scipy.stats import t as student

    mean = float(points_SN.mean())
    mean_S, mean_N = points_SN.mean(1), points_SN.mean(0)
    of_seeds = N * float(mean_S.var(ddof=1))  # mean squares of a two-way ANOVA
    of_pictures = S * float(mean_N.var(ddof=1))
    rest_SN = points_SN - mean_S[:, None] - mean_N + mean
    of_rest = float((rest_SN**2).sum()) / ((S - 1) * (N - 1))
    total = of_seeds + max(of_pictures - of_rest, 0.0)
    if total < 1e-12:
        return None
    freedom = (S - 1) * (total / of_seeds) ** 2 if of_seeds > 1e-12 else np.inf
    half = float(student.ppf(1 - ALPHA / 2, freedom)) * sqrt(total / (S * N))
    # More degrees of freedom can outweigh the added variance; the wider claim must not be narrower.
    of_seeds_alone = float(student.ppf(1 - ALPHA / 2, S - 1)) * sqrt(of_seeds / (S * N))
    half = max(half, of_seeds_alone)
    return mean - half, mean + half


def power(
    seeds: int, points: float, deviation: float, freedom: float = 1.0, alpha: float = ALPHA
) -> float:
    """Return the power to detect a true difference, by the noncentral t distribution.

    Args:
        seeds: The number of seeds per side.
        points: The true difference.
        deviation: The standard deviation of the differences over seeds, as in `Difference`.
        freedom: Degrees of freedom per seed after the first.
        alpha: The level of the two-sided test.
    """
    from scipy.stats import nct
    from scipy.stats import t as student

    degrees, shift = freedom * (seeds - 1), abs(points) / deviation * sqrt(seeds)
    bound = float(student.ppf(1 - alpha / 2, degrees))
    above = float(nct.sf(bound, degrees, shift))
    # Beyond 5 the other tail is under 4e-9, and SciPy's series for it can return NaN.
    return above + (float(nct.cdf(-bound, degrees, shift)) if shift < 5 else 0.0)


def seeds_needed(
    points: float, deviation: float, freedom: float = 1.0, alpha: float = ALPHA
) -> int | None:
    """Return the fewest seeds per side that detect a true difference with 80% power.

    None if MOST_SEEDS are too few.

    >>> seeds_needed(0.5, 1.0)
    34
    """
    low, high = 1, 2
    while power(high, points, deviation, freedom, alpha) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(middle, points, deviation, freedom, alpha) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def shown_points(seeds: int, deviation: float, freedom: float = 1.0) -> float:
    """Return the true difference, in points, that this many seeds detect with 80% power."""
    from scipy.optimize import brentq

    high = deviation
    while power(seeds, high, deviation, freedom) < POWER:
        high *= 2

    def lack(points: float) -> float:
        return POWER - power(seeds, points, deviation, freedom)

    return float(cast("float", brentq(lack, 0.0, high)))


def summarize_side(answers: SideAnswers, letter: str) -> Side:
    """Return a side's mean, Student's interval and standard deviation over seeds."""
    accuracy_S = answers.accuracy_S
    count, mean = len(accuracy_S), float(accuracy_S.mean())
    deviation = float(accuracy_S.std(ddof=1)) if count > 1 else None
    interval = None
    if deviation is not None and float(np.ptp(accuracy_S)) > 1e-12:
        from scipy.stats import t as student

        half = float(student.ppf(1 - ALPHA / 2, count - 1)) * deviation / sqrt(count)
        interval = (mean - half, mean + half)
    return Side(
        name=answers.name,
        runs=answers.runs,
        seeds=answers.seeds,
        accuracies=tuple(map(float, accuracy_S)),
        pictures=answers.correct_SN.shape[1],
        mean=mean,
        interval=interval,
        deviation=deviation,
        opened=answers.opened,
        warnings=answers.warnings,
        letter=letter,
        label=answers.label,
        balanced_accuracies=answers.balanced_accuracies,
    )


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm (1979, Scandinavian Journal of Statistics 6, 65-70).

    Rejecting those under alpha rejects any true hypothesis in at most alpha of all families,
    however the tests depend on each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def p_words(p: float) -> str:
    """Format a p-value.

    >>> p_words(0.0412), p_words(1e-20)
    ('p = 0.041', 'p < 0.0001')
    """
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def span(interval: Sequence[float]) -> str:
    """Format an interval of points, signed.

    >>> span((-0.2, 1.1))
    '-0.20 to +1.10'
    """
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"
