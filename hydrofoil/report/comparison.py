"""A comparison as lines of text: every figure, what it covers, and last the verdict."""

from collections.abc import Sequence
from typing import Any

from hydrofoil.compare.statistics import Side, p_words, span
from hydrofoil.compare.verdict import Comparison
from hydrofoil.terminal import table
from hydrofoil.wording import percent, plural


def comparison_lines(comparison: Comparison) -> str:
    """Describe a comparison; the last line is the verdict."""
    sides = {"A": comparison.a, "B": comparison.b}
    lines = [
        *(_side_line(letter, side) for letter, side in sides.items()),
        differs_line(comparison.differs),
        "",
        _seed_table(comparison),
        "",
        *_difference_lines(comparison),
        *_model_lines(comparison),
        "",
        *note_lines(comparison),
        f"verdict: {comparison.verdict.sentence}",
    ]
    return "\n".join(lines)


def differs_line(differs: dict[str, tuple[Any, Any]]) -> str:
    """Name the fields in which B differs from A."""
    if not differs:
        return "B differs from A only in its seeds"
    changes = [f"{name} {_shown(a)} → {_shown(b)}" for name, (a, b) in differs.items()]
    return f"B differs from A in {', '.join(changes)}"


def _shown(value: object) -> str:
    return "(none)" if value is None else str(value)


def _side_line(letter: str, side: Side) -> str:
    """Return a side's mean, interval and counts."""
    interval = (
        f" ± {50 * (side.interval[1] - side.interval[0]):.2f}" if side.interval is not None else ""
    )
    return (
        f"{letter}  {side.name}: {100 * side.mean:.2f}{interval}% of {side.pictures:,} "
        f"test images, mean of {plural(len(side.seeds), 'seed')}"
    )


def _seed_table(comparison: Comparison) -> str:
    """Return the accuracy of every run, and the difference and discordant images of each pair."""
    a, b = comparison.a, comparison.b
    if not comparison.pairs:
        rows: list[Sequence[object]] = [["", "seed", "accuracy"]]
        for letter, side in (("A", a), ("B", b)):
            for seed, accuracy in zip(side.seeds, side.accuracies, strict=True):
                rows.append([letter, seed, percent(accuracy)])
        return table(rows)
    rows = [["seed", "A", "B", "B − A", "correct in A only", "in B only", "McNemar's p"]]
    for pair, accuracy_a, accuracy_b in zip(
        comparison.pairs, a.accuracies, b.accuracies, strict=True
    ):
        discordant = pair.discordant
        rows.append(
            [
                pair.seed,
                percent(accuracy_a),
                percent(accuracy_b),
                f"{pair.points:+.2f}",
                discordant.only_a,
                discordant.only_b,
                p_words(discordant.p).removeprefix("p = ").removeprefix("p "),
            ]
        )
    return table(rows)


def _difference_lines(comparison: Comparison) -> list[str]:
    """Return the difference with each of its intervals."""
    found = comparison.difference
    how = "paired by seed" if comparison.paired else f"not paired: {comparison.unpaired_because}"
    lines = [f"B − A: {found.points:+.2f} points, {how}"]
    if found.p is None:
        return lines
    rows: list[Sequence[object]] = []
    if found.interval:
        rows.append([f"{found.method} over seeds", span(found.interval), p_words(found.p)])
    else:
        rows.append([f"exact, by {found.method}", "no spread", p_words(found.p)])
    if comparison.bootstrap:
        few = min(len(comparison.a.seeds), len(comparison.b.seeds)) < 10
        rows.append(
            [
                "bootstrap over seeds",
                span(comparison.bootstrap),
                "too narrow with so few seeds" if few else "",
            ]
        )
    if comparison.other_pictures:
        rows.append(["over seeds and images", span(comparison.other_pictures), ""])
    lines += [f"  {line}" for line in table(rows, left=3).splitlines()]
    lines.append(covers_line(comparison))
    if comparison.shown_points and found.outcome == "no significant difference":
        lines.append(
            f"With these seeds, a true difference of {comparison.shown_points:.2g} points is "
            "detected with 80% power."
        )
    return lines


def covers_line(comparison: Comparison) -> str:
    """Say what the intervals cover."""
    if not comparison.fixed_pictures:
        return (
            "The seed intervals cover retraining and resplitting this dataset, not new test images."
        )
    more = " The interval over seeds and images\nalso covers new test images like these."
    more = more if comparison.other_pictures else ""
    return (
        "The seed intervals cover retraining (initial weights, order, dropout, validation split)\n"
        f"on these {comparison.a.pictures:,} test images.{more}"
    )


def _model_lines(comparison: Comparison) -> list[str]:
    """Return the median of McNemar's p-values, and what it is about."""
    if comparison.mcnemar_median is None:
        if comparison.unpaired_because and comparison.difference.method != "none":
            return [f"Not compared image by image: {comparison.unpaired_because}."]
        return ["Not compared image by image."]
    return [
        f"McNemar, median {p_words(comparison.mcnemar_median)}: about the two models of a seed, "
        "not about the recipes."
    ]


def note_lines(comparison: Comparison) -> list[str]:
    """Return what limits the verdict."""
    notes = [f"warning: {text}" for text in (*comparison.a.warnings, *comparison.b.warnings)]
    lines = list(dict.fromkeys(notes))
    opened = (*comparison.a.opened, *comparison.b.opened)
    if max(opened, default=1) > 1:
        lines.append(f"note: at least one run opened its test split {max(opened)} times.")
    if len(comparison.seed_counts) > 1:
        before = ", ".join(map(str, comparison.seed_counts[:-1]))
        lines.append(
            f"note: also compared after {before} seeds. Adding seeds until the result looks good "
            "inflates\n      the 5% error rate: choose the number of seeds first."
        )
    return lines
