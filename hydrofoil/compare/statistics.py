"""Is B better than A? What several seeds and the same pictures say, and what they cannot say.

Every share is from 0 to 1; every difference is B minus A, in points: a point is 0.01 of accuracy.
SciPy is imported inside the functions: it costs a second, which `train` need not pay.

Axes: S seeds, N test pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from statistics import median
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from hydrofoil.randomness import key

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Word = Literal["better", "worse", "not told apart"]

ALPHA = 0.05  # two-sided: how often equal recipes may be called different
POWER = 0.8  # how often a difference must be found where seeds are recommended for it
RESAMPLES = 9999
MOST_SEEDS = 10_000


@dataclass(frozen=True, eq=False)
class Answered:
    """One side: a recipe's tested runs, one a seed.

    Args:
        name: What it is called.
        seeds: The S seeds, rising.
        right_SN: Which test pictures each run answers right.
        index_SN: Which pictures of the set those are.
        runs: The runs' folders.
        warnings: What `test` warned of.
        opened: How often each run's test split was opened.
    """

    name: str
    seeds: tuple[int, ...]
    right_SN: Bools
    index_SN: npt.NDArray[np.int64]
    runs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    opened: tuple[int, ...] = ()

    @property
    def accuracy_S(self) -> Floats:
        """Each run's accuracy."""
        return self.right_SN.mean(axis=1)


@dataclass(frozen=True)
class Side:
    """What is told of one side.

    Args:
        name: What it is called.
        runs: The runs' folders, by rising seed.
        seeds: Their seeds.
        accuracies: Their accuracies, in the same order.
        pictures: How many test pictures each run answered.
        mean: Of the accuracies.
        interval: The mean's 95 % interval over seeds (Student's t); None for a single seed, or
            where all accuracies are equal.
        deviation: Of the accuracies over seeds (n - 1); None for a single seed.
        opened: How often each run's test split was opened.
        warnings: What `test` warned of.
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


@dataclass(frozen=True)
class Discordant:
    """The pictures that exactly one of two models has right.

    Args:
        only_a: Right in A alone.
        only_b: Right in B alone.
        p: Exact McNemar: how often a fair coin would divide them so unevenly, or more.
    """

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Pair:
    """A seed's two runs, tested on the same pictures.

    Args:
        seed: Of A's run, and of B's where they are paired by seed.
        points: B's accuracy minus A's.
        discordant: How they part, picture by picture.
    """

    seed: int
    points: float
    discordant: Discordant


@dataclass(frozen=True)
class Difference:
    """How much better B is on average over seeds, and how sure that is.

    Args:
        points: Mean of B minus mean of A.
        interval: Its 95 % interval over seeds, in points; None where there is no spread to take
            it from.
        deviation: Of the differences over seeds; of Welch's, the root of the two variances' sum.
            None for a single seed.
        p: Two-sided; None where nothing can be tested.
        method: What gave p.
        freedom: Degrees of freedom for each seed after the first: 1 paired, 1 to 2 for Welch's.
    """

    points: float
    interval: tuple[float, float] | None
    deviation: float | None
    p: float | None
    method: Literal["paired t", "Welch's t", "sign flips", "permutations", "none"]
    freedom: float = 1.0

    @property
    def word(self) -> Word:
        """The verdict on the recipes."""
        if self.p is None or self.p >= ALPHA:
            return "not told apart"
        return "better" if self.points > 0 else "worse"


@dataclass(frozen=True)
class Verdict:
    """What it comes to.

    Args:
        word: What B is, against A.
        about: Whether that is said of the recipes, or of two trained models alone.
        sentence: The same with its figures.
        asked_points: The difference that seeds are counted for: the one asked about, or the
            observed one.
        more_seeds: How many more seeds on each side would show it four times out of five; 0: these
            would have; None: there is no telling, or there is no need.
    """

    word: Word
    about: Literal["recipes", "models"]
    sentence: str
    asked_points: float | None = None
    more_seeds: int | None = None


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison of A and B.

    Args:
        a: The one that is compared with.
        b: The one that is judged.
        differs: The recipe's fields in which they differ, dotted: (A's value, B's value).
        paired: Runs are paired by seed, on the same pictures.
        unpaired_because: Why not, where they are not.
        fixed_pictures: Every run was tested on the same pictures, so seeds say nothing of others.
        pairs: Each seed's pair; empty where none can be made.
        difference: Over seeds.
        bootstrap: The 95 % interval of the difference, in points, from resampled seeds.
        other_pictures: The 95 % interval, in points, for other seeds and other pictures like these.
        mcnemar_median: The median of the pairs' p.
        shown_points: The difference that so many seeds show four times out of five.
        looked: After how many seeds these two were compared, this time last.
        verdict: What it comes to.
    """

    a: Side
    b: Side
    differs: dict[str, tuple[Any, Any]]
    paired: bool
    unpaired_because: str
    fixed_pictures: bool
    pairs: tuple[Pair, ...]
    difference: Difference
    bootstrap: tuple[float, float] | None
    other_pictures: tuple[float, float] | None
    mcnemar_median: float | None
    shown_points: float | None
    looked: tuple[int, ...]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Return every figure, ready for JSON."""
        return asdict(self)


def compare(
    a: Answered,
    b: Answered,
    *,
    differs: Mapping[str, tuple[Any, Any]] | None = None,
    asked_points: float | None = None,
    looked: Sequence[int] = (),
) -> Comparison:
    """Compare two sides' test answers, by seed and by picture where they can be paired.

    Args:
        a: One side.
        b: The other, tested on the same set.
        differs: The fields in which their recipes differ, to be told with the figures.
        asked_points: The difference that a person cares about; default: the observed one.
        looked: After how many seeds these two were compared before.
    """
    same = _same_pictures(a, b)
    because = _unpaired_because(a, b, same)
    paired = not because
    difference = seed_difference(a.accuracy_S, b.accuracy_S, paired=paired)
    matched = paired or (len(a.seeds) == len(b.seeds) == 1 and same)
    pairs = _pairs(a, b) if matched else ()
    fixed = all(np.array_equal(index_N, a.index_SN[0]) for index_N in (*a.index_SN, *b.index_SN))
    seeds = min(len(a.seeds), len(b.seeds))
    over_pictures = other_pictures(a.right_SN, b.right_SN) if paired and fixed else None
    shown = difference.deviation and shown_points(seeds, difference.deviation, difference.freedom)
    return Comparison(
        a=_side(a),
        b=_side(b),
        differs=dict(differs or {}),
        paired=paired,
        unpaired_because=because,
        fixed_pictures=fixed,
        pairs=pairs,
        difference=difference,
        bootstrap=bootstrap_points(a.accuracy_S, b.accuracy_S, paired=paired),
        other_pictures=over_pictures,
        mcnemar_median=median(pair.discordant.p for pair in pairs) if pairs else None,
        shown_points=shown or None,
        looked=(*(count for count in looked if count != seeds), seeds),
        verdict=_verdict(difference, pairs, seeds, asked_points, over_pictures),
    )


def seed_difference(accuracy_A_S: Floats, accuracy_B_S: Floats, *, paired: bool) -> Difference:
    """Return mean B minus mean A with Student's interval: of the differences, or Welch's.

    Small sets give whole pictures: with two seeds of 359 pictures each, a recipe compared with
    itself gives two equal differences that are not nought in 7 to 11 of 100 tries, and t is
    infinite. Where there is no spread, the exact test by flipped signs, or permuted sides, decides.
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
    half = float(student.ppf(1 - ALPHA / 2, freedom)) * error
    variances = [float(side.var(ddof=1)) for side in sides]
    return Difference(
        points,
        (points - half, points + half),
        sqrt(sum(variances)),
        2 * float(student.sf(abs(points) / error, freedom)),
        "paired t" if paired else "Welch's t",
        sum(variances) ** 2 / sum(variance**2 for variance in variances),
    )


def mcnemar(right_A_N: Bools, right_B_N: Bools) -> Discordant:
    """Return the exact test of McNemar 1947 on the pictures that one of two models has right.

    It answers for these two trained models alone: train both again, and other pictures part them.

    >>> mcnemar(np.array([True] * 5 + [False] * 2), np.array([False] * 5 + [True] * 2))
    Discordant(only_a=5, only_b=2, p=0.453125)
    """
    from scipy.stats import binomtest

    only_a, only_b = int((right_A_N & ~right_B_N).sum()), int((right_B_N & ~right_A_N).sum())
    both = only_a + only_b
    return Discordant(only_a, only_b, float(binomtest(only_b, both).pvalue) if both else 1.0)


def bootstrap_points(
    accuracy_A_S: Floats, accuracy_B_S: Floats, *, paired: bool
) -> tuple[float, float] | None:
    """Return the percentile interval of the difference over resampled seeds, in points.

    It assumes no normal distribution, but with few seeds it is too narrow: each often stands in
    for the others.
    None where there is a single seed, or no spread. The same seeds give the same interval.
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


def other_pictures(right_A_SN: Bools, right_B_SN: Bools) -> tuple[float, float] | None:
    """Return the 95 % interval of the difference for other seeds and other pictures, in points.

    Seeds and pictures are crossed and both drawn at random, as readers and cases are where
    radiologists are compared: Dorfman, Berbaum and Metz 1992, with the degrees of freedom of
    Hillis 2007 (Statistics in Medicine 26, 596-619). None for a single seed, or without any spread.
    """
    points_SN = 100.0 * (right_B_SN.astype(np.int8) - right_A_SN.astype(np.int8))
    S, N = points_SN.shape
    if S < 2 or N < 2:
        return None
    from scipy.stats import t as student

    mean = float(points_SN.mean())
    mean_S, mean_N = points_SN.mean(1), points_SN.mean(0)
    of_seeds = N * float(mean_S.var(ddof=1))  # the three mean squares of two-way analysis
    of_pictures = S * float(mean_N.var(ddof=1))
    rest_SN = points_SN - mean_S[:, None] - mean_N + mean
    of_rest = float((rest_SN**2).sum()) / ((S - 1) * (N - 1))
    total = of_seeds + max(of_pictures - of_rest, 0.0)
    if total < 1e-12:
        return None
    freedom = (S - 1) * (total / of_seeds) ** 2 if of_seeds > 1e-12 else np.inf
    half = float(student.ppf(1 - ALPHA / 2, freedom)) * sqrt(total / (S * N))
    # More degrees of freedom may outweigh the added variance; but what covers more is no narrower.
    of_seeds_alone = float(student.ppf(1 - ALPHA / 2, S - 1)) * sqrt(of_seeds / (S * N))
    half = max(half, of_seeds_alone)
    return mean - half, mean + half


def power(seeds: int, points: float, deviation: float, freedom: float = 1.0) -> float:
    """Return how often so many seeds show a true difference: the noncentral t's tails.

    Args:
        seeds: On each side.
        points: The true difference.
        deviation: Of the differences over seeds, as `Difference` has it.
        freedom: Degrees of freedom for each seed after the first.
    """
    from scipy.stats import nct
    from scipy.stats import t as student

    degrees, shift = freedom * (seeds - 1), abs(points) / deviation * sqrt(seeds)
    bound = float(student.ppf(1 - ALPHA / 2, degrees))
    above = float(nct.sf(bound, degrees, shift))
    # Beyond 5 the other tail is under 4e-9, and SciPy's series for it may give nan.
    return above + (float(nct.cdf(-bound, degrees, shift)) if shift < 5 else 0.0)


def seeds_needed(points: float, deviation: float, freedom: float = 1.0) -> int | None:
    """Return the fewest seeds, on each side, that show a true difference four times out of five.

    None if MOST_SEEDS do not.

    >>> seeds_needed(0.5, 1.0)
    34
    """
    low, high = 1, 2
    while power(high, points, deviation, freedom) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(middle, points, deviation, freedom) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def shown_points(seeds: int, deviation: float, freedom: float = 1.0) -> float:
    """Return the true difference, in points, that so many seeds show four times out of five."""
    from scipy.optimize import brentq

    high = deviation
    while power(seeds, high, deviation, freedom) < POWER:
        high *= 2

    def lack(points: float) -> float:
        return POWER - power(seeds, points, deviation, freedom)

    return float(cast("float", brentq(lack, 0.0, high)))


def _side(answered: Answered) -> Side:
    """Return what is told of a side: mean, Student's interval and deviation over seeds."""
    accuracy_S = answered.accuracy_S
    count, mean = len(accuracy_S), float(accuracy_S.mean())
    deviation = float(accuracy_S.std(ddof=1)) if count > 1 else None
    interval = None
    if deviation is not None and float(np.ptp(accuracy_S)) > 1e-12:
        from scipy.stats import t as student

        half = float(student.ppf(1 - ALPHA / 2, count - 1)) * deviation / sqrt(count)
        interval = (mean - half, mean + half)
    return Side(
        name=answered.name,
        runs=answered.runs,
        seeds=answered.seeds,
        accuracies=tuple(map(float, accuracy_S)),
        pictures=answered.right_SN.shape[1],
        mean=mean,
        interval=interval,
        deviation=deviation,
        opened=answered.opened,
        warnings=answered.warnings,
    )


def _same_pictures(a: Answered, b: Answered) -> bool:
    """Tell whether the n-th runs of both sides answered the same pictures, for every n."""
    several = min(len(a.seeds), len(b.seeds))
    return bool(np.array_equal(a.index_SN[:several], b.index_SN[:several]))


def _unpaired_because(a: Answered, b: Answered, same_pictures: bool) -> str:
    """Say why runs cannot be paired by seed; nothing if they can."""
    if a.seeds != b.seeds:
        return "the two sides have other seeds"
    if not same_pictures:
        return "the two sides were tested on other pictures"
    return ""


def _pairs(a: Answered, b: Answered) -> tuple[Pair, ...]:
    """Return each seed's pair of runs."""
    return tuple(
        Pair(seed, 100 * float(right_B_N.mean() - right_A_N.mean()), mcnemar(right_A_N, right_B_N))
        for seed, right_A_N, right_B_N in zip(a.seeds, a.right_SN, b.right_SN, strict=True)
    )


def _verdict(
    difference: Difference,
    pairs: Sequence[Pair],
    seeds: int,
    asked_points: float | None,
    over_pictures: tuple[float, float] | None,
) -> Verdict:
    """Judge the recipes by their seeds, or where there is a single one, two models by pictures."""
    if difference.p is None:
        return _verdict_on_models(difference, pairs)
    points, word = difference.points, difference.word
    if word != "not told apart":
        known = f"95 % interval {span(difference.interval)}, " if difference.interval else ""
        sentence = (
            f"B is {word} than A: {points:+.2f} points "
            f"({known}{p_words(difference.p)}, {difference.method} over {seeds} seeds)."
        )
        if over_pictures and over_pictures[0] <= 0 <= over_pictures[1]:
            sentence += f" On other pictures it may be otherwise: {span(over_pictures)}."
        return Verdict(word, "recipes", sentence)
    asked = abs(points) if asked_points is None else asked_points
    return _not_told_apart(difference, seeds, asked)


def _not_told_apart(difference: Difference, seeds: int, asked: float) -> Verdict:
    """Say how many more seeds would show the difference that is asked about."""
    start, word = "A and B are not told apart", "not told apart"
    if asked < 1e-9:
        sentence = (
            f"{start}: their means are equal. Name a difference to look for: --difference 0.5"
        )
        return Verdict(word, "recipes", sentence, 0.0)
    if not difference.deviation:
        permuted = difference.method == "permutations"
        ways = [comb(2 * n, n) if permuted else 2**n for n in range(99)]
        needed = next(n for n in range(2, 99) if 2 / ways[n] < ALPHA)
        sentence = (
            f"{start}: {seeds} seeds that agree may do so by chance "
            f"({p_words(difference.p or 0.0)}); about {needed - seeds} more would tell."
        )
        return Verdict(word, "recipes", sentence, asked, needed - seeds)
    needed = seeds_needed(asked, difference.deviation, difference.freedom)
    if needed is None:
        sentence = f"{start}; {MOST_SEEDS:,} seeds would not show a difference of {_points(asked)}."
        return Verdict(word, "recipes", sentence, asked)
    if needed <= seeds:
        found = power(seeds, asked, difference.deviation, difference.freedom)
        sentence = (
            f"{start}; a difference of {_points(asked)} would have shown in "
            f"{100 * found:.0f} of 100 such comparisons."
        )
        return Verdict(word, "recipes", sentence, asked, 0)
    more = needed - seeds
    sentence = (
        f"{start}; about {more:,} more seed{'s' if more > 1 else ''} would show a difference of "
        f"{_points(asked)}."
    )
    return Verdict(word, "recipes", sentence, asked, more)


def _verdict_on_models(difference: Difference, pairs: Sequence[Pair]) -> Verdict:
    """Judge two trained models by McNemar, and say what that leaves open."""
    takes = "Telling the recipes apart takes several seeds of both."
    if len(pairs) != 1:
        return Verdict("not told apart", "recipes", f"A and B are not told apart. {takes}")
    found = pairs[0].discordant
    figures = (
        f"{found.only_b} pictures right in B alone, {found.only_a} in A alone; {p_words(found.p)}"
    )
    if found.p >= ALPHA:
        sentence = f"these two trained models are not told apart ({figures}). {takes}"
        return Verdict("not told apart", "models", sentence)
    word: Word = "better" if difference.points > 0 else "worse"
    sentence = f"this trained B is {word} than this trained A ({figures}). {takes}"
    return Verdict(word, "models", sentence)


def _points(points: float) -> str:
    text = f"{points:.2g}"
    return f"{text} point{'' if text == '1' else 's'}"


def p_words(p: float) -> str:
    """Return a p as far as it means anything.

    >>> p_words(0.0412), p_words(1e-20)
    ('p = 0.041', 'p < 0.0001')
    """
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def span(interval: Sequence[float]) -> str:
    """Return an interval of points, signed.

    >>> span((-0.2, 1.1))
    '-0.20 to +1.10'
    """
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"
