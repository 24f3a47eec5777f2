"""Three or more sides, each compared with each other, with few false differences in all of them.

Of ten comparisons of equal recipes, each at 5%, about one in three finds a difference. So the
p-values of all pairs are adjusted by Holm's method: in at most 5 of 100 such families is any pair
of equal recipes called different, whichever tests gave the p-values and however they depend on each
other. All pairs are tested, not each side against the first, because the question is which is best.
Holm's method is what Demsar (2006, JMLR 7, 1-30) and Garcia and Herrera (2008, JMLR 9, 2677-2694)
recommend for comparing classifiers; Tukey's and Dunnett's tests would assume that all sides vary
alike.

Axes: S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from hydrofoil.compare.setup import Setup
from hydrofoil.compare.statistics import (
    ALPHA,
    Outcome,
    Side,
    SideAnswers,
    holm,
    seed_difference,
    seeds_needed,
    summarize_side,
)
from hydrofoil.compare.verdict import NONE, Comparison, Part, compare
from hydrofoil.display import brief, notebook_html
from hydrofoil.wording import all_of


@dataclass(frozen=True)
class Contrast:
    """Two of several sides.

    Args:
        comparison: All their figures, as if there were only these two.
        p: The p-value of the two alone, over seeds; of two single models, McNemar's; None where
            nothing can be tested.
        adjusted_p: Adjusted by Holm's method for all pairs.
        interval: The 95% interval of the difference that covers all pairs together, in points, by
            Bonferroni's method; None without any spread.
        outcome: The second side compared with the first, by the adjusted p-value.
        more_seeds: How many more seeds per side detect the observed difference among so many pairs
            with 80% power, at Bonferroni's level; 0: these are enough; None: unknown.
    """

    comparison: Comparison
    p: float | None
    adjusted_p: float | None
    interval: tuple[float, float] | None
    outcome: Outcome
    more_seeds: int | None


@dataclass(frozen=True)
class SeveralVerdict:
    """The conclusion about several sides.

    Args:
        best: The letter of the side that is better than every other; "" if none is.
        about: Whether it is about the recipes, or about single trained models only.
        sentence: The conclusion.
    """

    best: str
    about: Literal["recipes", "models"]
    sentence: str


@dataclass(frozen=True)
class Comparisons:
    """All figures of a comparison of three or more sides.

    Args:
        sides: Each side's summary.
        differs: The recipe fields that differ, by dotted name: a value per side.
        contrasts: Each pair of sides, in the order A and B, A and C, B and C.
        seed_counts: The numbers of seeds at which these were compared, the current one last.
        verdict: The conclusion.
        part: The part of the split that accuracies are of: "test", or "valid" for choices.
        setup: What was trained, and how; None where only answers were compared.
    """

    sides: tuple[Side, ...]
    differs: dict[str, tuple[Any, ...]]
    contrasts: tuple[Contrast, ...]
    seed_counts: tuple[int, ...]
    verdict: SeveralVerdict
    part: Part = "test"
    setup: Setup | None = None

    def __repr__(self) -> str:
        return f"Comparisons({brief(self.verdict.sentence, 84)})"

    def _repr_html_(self) -> str:
        """Show the verdict and all sides in a notebook."""
        return notebook_html("comparison", self)

    def as_dict(self) -> dict[str, Any]:
        """Return every figure, ready for JSON; a pair has the letters of its sides."""
        content = asdict(self)
        for contrast in content["contrasts"]:
            pair = contrast.pop("comparison")
            letters = {side: pair.pop(side)["letter"] for side in ("a", "b")}
            for repeated in ("setup", "part", "seed_counts", "verdict", "differs"):
                del pair[repeated]
            contrast |= letters | pair
        return content


def compare_several(
    sides: Sequence[SideAnswers],
    *,
    differs: Mapping[str, tuple[Any, ...]] | None = None,
    target_points: float | None = None,
    seed_counts: Sequence[int] = (),
    part: Part = "test",
) -> Comparisons:
    """Compare each of several sides with each other.

    Args:
        sides: At least three, of one dataset, each with its letter.
        differs: The fields in which their recipes differ, reported with the figures.
        target_points: The difference of interest; default: each pair's observed one.
        seed_counts: The numbers of seeds at which these were compared before.
        part: The part of the split that the answers are to.
    """
    pairs = list(combinations(range(len(sides)), 2))
    compared = [
        compare(sides[a], sides[b], target_points=target_points, part=part) for a, b in pairs
    ]
    p = [_p(found) for found in compared]
    adjusted = iter(holm([value for value in p if value is not None]))
    tested = sum(value is not None for value in p)
    contrasts = tuple(
        _contrast(
            found, value, None if value is None else next(adjusted), ALPHA / max(1, tested),
            (sides[a], sides[b]), target_points,
        )
        for (a, b), found, value in zip(pairs, compared, p, strict=True)
    )  # fmt: skip
    summaries = tuple(summarize_side(side, side.letter) for side in sides)
    seeds = min(len(side.seeds) for side in sides)
    return Comparisons(
        sides=summaries,
        differs=dict(differs or {}),
        contrasts=contrasts,
        seed_counts=(*(count for count in seed_counts if count != seeds), seeds),
        verdict=_verdict(summaries, contrasts),
        part=part,
    )


def _p(found: Comparison) -> float | None:
    """Return what tests two sides: their seeds, or with one seed each their images."""
    if found.difference.p is not None:
        return found.difference.p
    return found.pairs[0].discordant.p if len(found.pairs) == 1 else None


def _contrast(
    found: Comparison,
    p: float | None,
    adjusted_p: float | None,
    level: float,
    sides: tuple[SideAnswers, SideAnswers],
    target_points: float | None,
) -> Contrast:
    """Judge a pair by its adjusted p-value, and widen its interval to cover all pairs together."""
    outcome, difference = NONE, found.difference
    if adjusted_p is not None and adjusted_p < ALPHA:
        outcome = "better" if difference.points > 0 else "worse"
    accuracies = [side.accuracy_S for side in sides]
    wide = seed_difference(*accuracies, paired=found.paired, alpha=level)
    more: int | None = None
    target = abs(difference.points) if target_points is None else target_points
    if outcome == NONE and difference.deviation and target > 1e-9:
        needed = seeds_needed(target, difference.deviation, difference.freedom, level)
        seeds = min(len(side.seeds) for side in sides)
        more = None if needed is None else max(0, needed - seeds)
    return Contrast(found, p, adjusted_p, wide.interval, outcome, more)


def _verdict(sides: Sequence[Side], contrasts: Sequence[Contrast]) -> SeveralVerdict:
    """Say which sides are better than which others."""
    worse: dict[str, list[Side]] = {side.letter: [] for side in sides}  # than this side
    for contrast in contrasts:
        pair = contrast.comparison
        if contrast.outcome != NONE:
            better, other = (pair.b, pair.a) if contrast.outcome == "better" else (pair.a, pair.b)
            worse[better.letter].append(other)
    models = all(contrast.comparison.difference.p is None for contrast in contrasts)
    about: Literal["recipes", "models"] = "models" if models else "recipes"
    best = next((letter for letter, others in worse.items() if len(others) == len(sides) - 1), "")
    sentence = _sentence(sides, worse, best)
    if models:
        sentence += " This is about single trained models: comparing recipes takes several seeds."
    return SeveralVerdict(best, about, sentence)


def _sentence(sides: Sequence[Side], worse: Mapping[str, Sequence[Side]], best: str) -> str:
    """Return the verdict in words: the best first, then the others by their means."""
    ranked = sorted(sides, key=lambda side: -side.mean)
    if not any(worse.values()):
        return (
            f"no significant difference between any two of {len(sides)} sides; "
            f"{ranked[0].called} has the highest mean."
        )
    parts: list[str] = []
    for side in ranked:
        others = sorted(worse[side.letter], key=lambda other: -other.mean)
        if side.letter == best:
            parts.append(f"{side.called} is better than every other side")
        elif others:
            parts.append(
                f"{side.called} is better than {all_of([other.called for other in others])}"
            )
    rest = "" if best else "; no side is better than all others"
    return f"{'; '.join(parts)}{rest}."
