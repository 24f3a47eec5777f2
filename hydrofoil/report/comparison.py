"""A comparison as lines of text: every figure, what it covers, and the verdict last."""

from collections.abc import Sequence
from typing import Any

from hydrofoil.compare.statistics import Comparison, Side, p_words, span
from hydrofoil.report.text import percent, plural, table


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
    """Say in which fields B differs from A."""
    if not differs:
        return "B differs from A in its seeds alone"
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
        f"{letter}  {side.name}: {100 * side.mean:.2f}{interval} % of {side.pictures:,} "
        f"test pictures, mean of {plural(len(side.seeds), 'seed')}"
    )


def _seed_table(comparison: Comparison) -> str:
    """Return every run's accuracy, and each pair's difference and discordant pictures."""
    a, b = comparison.a, comparison.b
    if not comparison.pairs:
        rows: list[Sequence[object]] = [["", "seed", "accuracy"]]
        for letter, side in (("A", a), ("B", b)):
            for seed, accuracy in zip(side.seeds, side.accuracies, strict=True):
                rows.append([letter, seed, percent(accuracy)])
        return table(rows)
    rows = [["seed", "A", "B", "B − A", "right in A alone", "in B alone", "McNemar's p"]]
    for pair, right_a, right_b in zip(comparison.pairs, a.accuracies, b.accuracies, strict=True):
        parted = pair.discordant
        rows.append(
            [
                pair.seed,
                percent(right_a),
                percent(right_b),
                f"{pair.points:+.2f}",
                parted.only_a,
                parted.only_b,
                p_words(parted.p).removeprefix("p = ").removeprefix("p "),
            ]
        )
    return table(rows)


def _difference_lines(comparison: Comparison) -> list[str]:
    """Return the difference with each interval, and what varies in it."""
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
        rows.append(["over seeds and pictures", span(comparison.other_pictures), ""])
    lines += [f"  {line}" for line in table(rows, left=3).splitlines()]
    lines.append(covers_line(comparison))
    if comparison.shown_points and found.word == "not told apart":
        lines.append(
            f"These seeds show a true difference of {comparison.shown_points:.2g} points "
            "four times out of five."
        )
    return lines


def covers_line(comparison: Comparison) -> str:
    """Say which chance the intervals over seeds cover."""
    if not comparison.fixed_pictures:
        return (
            "Over seeds: for other trainings and other draws of the split from this set's "
            "pictures;\nnot for other pictures."
        )
    more = "\nOver seeds and pictures: for other pictures like these too."
    return (
        f"Over seeds: for other trainings (first weights, order, dropout, validation pictures) on\n"
        f"these {comparison.a.pictures:,} test pictures.{more if comparison.other_pictures else ''}"
    )


def _model_lines(comparison: Comparison) -> list[str]:
    """Return McNemar's median, and what it answers."""
    if comparison.mcnemar_median is None:
        if comparison.unpaired_because and comparison.difference.method != "none":
            return [f"Not compared picture by picture: {comparison.unpaired_because}."]
        return ["Not compared picture by picture."]
    return [
        f"McNemar, median {p_words(comparison.mcnemar_median)}: whether a seed's two trained "
        "models differ,\nnot whether the recipes do."
    ]


def note_lines(comparison: Comparison) -> list[str]:
    """Return what weakens the verdict."""
    notes = [f"warning: {text}" for text in (*comparison.a.warnings, *comparison.b.warnings)]
    lines = list(dict.fromkeys(notes))
    opened = (*comparison.a.opened, *comparison.b.opened)
    if max(opened, default=1) > 1:
        lines.append(f"note: a run here opened its test split {max(opened)} times.")
    if len(comparison.looked) > 1:
        before = ", ".join(map(str, comparison.looked[:-1]))
        lines.append(
            f"note: looked at after {before} seeds too. Whoever adds seeds until the verdict "
            "pleases is\n      wrong more often than 5 times in 100: choose their number first."
        )
    return lines
