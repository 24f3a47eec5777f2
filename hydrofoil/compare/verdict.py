"""The comparison of A and B as a whole: all figures, and a one-sentence verdict.

Axes: S seeds, N test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median
from typing import Any, Literal

import numpy as np

from hydrofoil.compare.setup import Setup
from hydrofoil.compare.statistics import (
    ALPHA,
    MOST_SEEDS,
    Difference,
    Outcome,
    Pair,
    Side,
    SideAnswers,
    bootstrap_points,
    mcnemar,
    other_pictures,
    p_words,
    power,
    seed_difference,
    seeds_needed,
    shown_points,
    span,
    summarize_side,
)  # fmt: skip
from hydrofoil.data.split import PART_WORDS
from hydrofoil.display import brief, notebook_html
from hydrofoil.wording import plural

NONE: Outcome = "no significant difference"
Part = Literal["test", "valid"]


@dataclass(frozen=True)
class Verdict:
    """The conclusion.

    Args:
        outcome: B compared with A.
        about: Whether it is about the recipes, or about two trained models only.
        sentence: The conclusion with its figures.
        target_points: The difference that the recommended number of seeds is for: the requested
            one, or the observed one.
        more_seeds: How many more seeds per side detect it with 80% power; 0: these are enough;
            None: unknown, or not needed.
    """

    outcome: Outcome
    about: Literal["recipes", "models"]
    sentence: str
    target_points: float | None = None
    more_seeds: int | None = None


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison of A and B.

    Args:
        a: The baseline.
        b: The side that is judged against it.
        differs: The recipe fields that differ, by dotted name: (A's value, B's value).
        paired: Whether runs are paired by seed, on the same images.
        unpaired_because: The reason where they are not.
        fixed_pictures: Whether every run was tested on the same images; seeds then say nothing
            about new images.
        pairs: The pair of each seed; empty where there are none.
        difference: The difference over seeds.
        bootstrap: Its 95% interval, in points, from resampled seeds.
        other_pictures: Its 95% interval, in points, for new seeds and new images like these.
        mcnemar_median: The median p-value of the pairs.
        shown_points: The difference that this many seeds detect with 80% power.
        seed_counts: The numbers of seeds at which these two were compared, the current one last.
        verdict: The conclusion.
        part: The part of the split that accuracies are of: "test", or "valid" for choices.
        setup: What was trained, and how; None where only answers were compared.
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
    seed_counts: tuple[int, ...]
    verdict: Verdict
    part: Part = "test"
    setup: Setup | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """Both sides."""
        return self.a, self.b

    def __repr__(self) -> str:
        a, b = (brief(side.label or side.name, 24) for side in self.sides)
        return f"Comparison({a} and {b}: {self.verdict.outcome})"

    def _repr_html_(self) -> str:
        """Show the verdict and both sides in a notebook."""
        return notebook_html("comparison", self)

    def as_dict(self) -> dict[str, Any]:
        """Return every figure, ready for JSON."""
        return asdict(self)


def compare(
    a: SideAnswers,
    b: SideAnswers,
    *,
    differs: Mapping[str, tuple[Any, Any]] | None = None,
    target_points: float | None = None,
    seed_counts: Sequence[int] = (),
    part: Part = "test",
) -> Comparison:
    """Compare the test answers of two sides, by seed and by image where they can be paired.

    Args:
        a: The baseline.
        b: The other side, tested on the same dataset.
        differs: The fields in which their recipes differ, reported with the figures.
        target_points: The difference of interest; default: the observed one.
        seed_counts: The numbers of seeds at which these two were compared before.
        part: The part of the split that the answers are to.
    """
    same = _same_pictures(a, b)
    because = _unpaired_because(a, b, same)
    paired = not because
    difference = seed_difference(a.accuracy_S, b.accuracy_S, paired=paired)
    matched = paired or (len(a.seeds) == len(b.seeds) == 1 and same)
    pairs = _pairs(a, b) if matched else ()
    fixed = all(np.array_equal(index_N, a.index_SN[0]) for index_N in (*a.index_SN, *b.index_SN))
    seeds = min(len(a.seeds), len(b.seeds))
    over_pictures = other_pictures(a.correct_SN, b.correct_SN) if paired and fixed else None
    shown = difference.deviation and shown_points(seeds, difference.deviation, difference.freedom)
    sides = summarize_side(a, a.letter or "A"), summarize_side(b, b.letter or "B")
    return Comparison(
        a=sides[0],
        b=sides[1],
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
        seed_counts=(*(count for count in seed_counts if count != seeds), seeds),
        verdict=_Judge(sides, seeds, part).verdict(difference, pairs, target_points, over_pictures),
        part=part,
    )


def _same_pictures(a: SideAnswers, b: SideAnswers) -> bool:
    """Return whether the n-th runs of both sides were tested on the same images, for every n."""
    several = min(len(a.seeds), len(b.seeds))
    return bool(np.array_equal(a.index_SN[:several], b.index_SN[:several]))


def _unpaired_because(a: SideAnswers, b: SideAnswers, same_pictures: bool) -> str:
    """Return why runs cannot be paired by seed; empty if they can."""
    if a.seeds != b.seeds:
        return "the sides have different seeds"
    if not same_pictures:
        return "the sides were tested on different images"
    return ""


def _pairs(a: SideAnswers, b: SideAnswers) -> tuple[Pair, ...]:
    """Return the pair of runs of each seed."""
    return tuple(
        Pair(
            seed,
            100 * float(correct_B_N.mean() - correct_A_N.mean()),
            mcnemar(correct_A_N, correct_B_N),
        )
        for seed, correct_A_N, correct_B_N in zip(a.seeds, a.correct_SN, b.correct_SN, strict=True)
    )


@dataclass(frozen=True)
class _Judge:
    """Writes the verdict on two sides.

    Args:
        sides: A and B.
        seeds: Of the side with fewer.
        part: The part of the split that accuracies are of.
    """

    sides: tuple[Side, Side]
    seeds: int
    part: Part

    @property
    def neither(self) -> str:
        """How a verdict without a difference begins."""
        a, b = self.sides
        return f"no significant difference between {a.called} and {b.called}"

    def verdict(
        self,
        difference: Difference,
        pairs: Sequence[Pair],
        target_points: float | None,
        over_pictures: tuple[float, float] | None,
    ) -> Verdict:
        """Judge the recipes by their seeds, or with a single seed the models by their images."""
        if difference.p is None:
            return self._on_models(difference, pairs)
        points, outcome = difference.points, difference.outcome
        if outcome != NONE:
            a, b = self.sides
            known = f"95% interval {span(difference.interval)}, " if difference.interval else ""
            sentence = (
                f"{b.called} is {outcome} than {a.called}: {points:+.2f} points "
                f"({known}{p_words(difference.p)}, {difference.method} over {self.seeds} seeds)."
            )
            if over_pictures and over_pictures[0] <= 0 <= over_pictures[1]:
                images = f"{PART_WORDS[self.part]} images"
                sentence += f" This may not hold on other {images}: {span(over_pictures)}."
            return Verdict(outcome, "recipes", sentence)
        target = abs(points) if target_points is None else target_points
        return self._no_difference(difference, target)

    def _no_difference(self, difference: Difference, target: float) -> Verdict:
        """Say how many more seeds would detect the difference of interest."""
        start, seeds = self.neither, self.seeds
        if target < 1e-9:
            sentence = (
                f"{start}: their means are equal. Set a difference to look for: --difference 0.5"
            )
            return Verdict(NONE, "recipes", sentence, 0.0)
        if not difference.deviation:
            permuted = difference.method == "permutations"
            ways = [comb(2 * n, n) if permuted else 2**n for n in range(99)]
            needed = next(n for n in range(2, 99) if 2 / ways[n] < ALPHA)
            sentence = (
                f"{start}: {seeds} agreeing seeds can be chance "
                f"({p_words(difference.p or 0.0)}); about {needed - seeds} more would be enough."
            )
            return Verdict(NONE, "recipes", sentence, target, needed - seeds)
        needed = seeds_needed(target, difference.deviation, difference.freedom)
        if needed is None:
            sentence = (
                f"{start}; {MOST_SEEDS:,} seeds are too few to detect a difference of "
                f"{_points(target)}."
            )
            return Verdict(NONE, "recipes", sentence, target)
        if needed <= seeds:
            found = power(seeds, target, difference.deviation, difference.freedom)
            sentence = (
                f"{start}; a difference of {_points(target)} would have been detected in "
                f"{100 * found:.0f} of 100 such comparisons."
            )
            return Verdict(NONE, "recipes", sentence, target, 0)
        sentence = (
            f"{start}; about {plural(needed - seeds, 'more seed')} would detect a difference of "
            f"{_points(target)}."
        )
        return Verdict(NONE, "recipes", sentence, target, needed - seeds)

    def _on_models(self, difference: Difference, pairs: Sequence[Pair]) -> Verdict:
        """Judge two trained models by McNemar's test."""
        takes = "Comparing the recipes takes several seeds of both."
        if len(pairs) != 1:
            return Verdict(NONE, "recipes", f"{self.neither}. {takes}")
        (a, b), found = self.sides, pairs[0].discordant
        figures = (
            f"{found.only_b} images correct in {b.letter} only, {found.only_a} in {a.letter} only; "
            f"{p_words(found.p)}"
        )
        if found.p >= ALPHA:
            sentence = f"no significant difference between these two models ({figures}). {takes}"
            return Verdict(NONE, "models", sentence)
        outcome: Outcome = "better" if difference.points > 0 else "worse"
        sentence = (
            f"this model of {b.called} is {outcome} than this model of {a.called} ({figures}). "
            f"{takes}"
        )
        return Verdict(outcome, "models", sentence)


def _points(points: float) -> str:
    text = f"{points:.2g}"
    return f"{text} point{'' if text == '1' else 's'}"
