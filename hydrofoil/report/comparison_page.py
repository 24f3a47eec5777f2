"""One HTML file of a comparison, complete enough to be handed on alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from hydrofoil.compare.setup import Setup, SideSetup
from hydrofoil.compare.several import Comparisons
from hydrofoil.compare.verdict import Comparison
from hydrofoil.data.split import PART_WORDS
from hydrofoil.report import comparison_charts as charts
from hydrofoil.report.comparison import (
    HOLM,
    bare_p,
    covers_line,
    note_lines,
    optimizer_lines,
    pair_verdict,
    value_shown,
)
from hydrofoil.report.page import render
from hydrofoil.wording import isolated, plural

Fact = tuple[str, str]


def comparison_page(comparison: Comparison | Comparisons) -> bytes:
    """Return the page of a comparison of two or more sides."""
    setup, sides = comparison.setup, comparison.sides
    part = PART_WORDS[comparison.part]
    names = [f"{side.letter}: {isolated(side.label or side.name)}" for side in sides]
    several = isinstance(comparison, Comparisons)
    differs = {
        name: [value_shown(v) for v in values] for name, values in comparison.differs.items()
    }
    joined = len({side.seeds for side in sides}) == 1 and (several or comparison.paired)
    percents = [[100 * accuracy for accuracy in side.accuracies] for side in sides]
    columns = [
        (side.letter, side.label or side.name, accuracies)
        for side, accuracies in zip(sides, percents, strict=True)
    ]
    what = f"Accuracy of each run of {' and of '.join(names)} on the {part} split"
    return render(
        "comparison.html",
        **(_several_values(comparison) if several else _pair_values(comparison)),
        comparison=comparison,
        several=several,
        heading=_heading(comparison),
        lead=_lead(comparison),
        names=names,
        part=part,
        differs=differs,
        optimizer=optimizer_lines(setup.sides) if setup else [],
        notes=note_lines(comparison),
        dots_chart=charts.dots(columns, what, joined=joined),
        joined=joined,
        curves=_curves(setup) if setup else [],
        facts=_facts(setup, part) if setup else [],
        side_facts=_side_facts(setup) if setup else [],
        shared=[(name, value_shown(v)) for name, v in setup.shared.items()] if setup else [],
        commands=_commands(setup) if setup else [],
        one_epoch=setup is not None and all(side.epochs == 1 for side in setup.sides),
        one_seed=max(len(side.seeds) for side in sides) == 1,
    )


def _heading(comparison: Comparison | Comparisons) -> str:
    """Return the question that the page answers."""
    names = [isolated(side.label) or side.letter for side in comparison.sides]
    if any("," in name for name in names):
        names = [side.called for side in comparison.sides]
    if isinstance(comparison, Comparisons):
        heading = f"Which is best: {', '.join(names[:-1])} or {names[-1]}?"
        return heading if len(heading) < 90 else f"Which of {len(names)} is best?"
    return f"Is {names[1]} better than {names[0]}?"


def _lead(comparison: Comparison | Comparisons) -> str:
    """Return in one sentence what was trained, for how long, how often and tested on what."""
    setup, sides = comparison.setup, comparison.sides
    seeds = _range(plural(len(side.seeds), "seed") for side in sides)
    images = _range(f"{side.pictures:,}" for side in sides)
    tested = f"compared on {images} {PART_WORDS[comparison.part]} images"
    if setup is None:
        return f"{seeds} each, {tested}"
    networks = _range(side.network for side in setup.sides)
    epochs = _range(plural(side.epochs, "epoch") for side in setup.sides)
    return f"{setup.dataset}, network {networks}, {epochs}, {seeds} each, {tested}"


def _range(values: Iterable[str]) -> str:
    """Return the different values, in order of appearance."""
    return " or ".join(dict.fromkeys(values))


def _pair_values(comparison: Comparison) -> dict[str, Any]:
    """Return the values of the template's part on two sides."""
    found = comparison.difference
    rows = [
        (name, found.points, interval[0], interval[1])
        for name, interval in (
            (f"{found.method} over seeds", found.interval),
            ("bootstrap over seeds", comparison.bootstrap),
            ("over seeds and images", comparison.other_pictures),
        )
        if interval
    ]
    title = f"{comparison.b.letter} minus {comparison.a.letter} in points, with each interval"
    return {
        "covers": covers_line(comparison) if found.p is not None else "",
        "differences": rows,
        "differences_chart": charts.differences(rows, title) if rows else "",
        "pair_rows": [],
        "holm": "",
    }


def _several_values(comparison: Comparisons) -> dict[str, Any]:
    """Return the values of the template's part on several sides."""
    rows = [
        (f"{one.comparison.b.letter} − {one.comparison.a.letter}",
         one.comparison.difference.points, *one.interval)
        for one in comparison.contrasts
        if one.interval
    ]  # fmt: skip
    pairs = [
        {
            "pair": f"{one.comparison.b.letter}\u00a0−\u00a0{one.comparison.a.letter}",
            "points": one.comparison.difference.points,
            "interval": one.interval,
            "p": bare_p(one.p),
            "adjusted": bare_p(one.adjusted_p),
            "verdict": pair_verdict(one.outcome, one.comparison),
            "method": one.comparison.difference.method
            if one.comparison.difference.p is not None
            else "McNemar (two models)",
            "more": one.more_seeds,
        }
        for one in comparison.contrasts
    ]
    title = "Difference of each pair in points, with intervals that cover all pairs together"
    return {
        "covers": covers_line(comparison.contrasts[0].comparison) if rows else "",
        "differences": rows,
        "differences_chart": charts.differences(rows, title) if rows else "",
        "pair_rows": pairs,
        "holm": HOLM,
    }


def _curves(setup: Setup) -> list[tuple[str, Markup]]:
    """Return a chart of loss and one of accuracy, training dashed and validation solid."""
    found: list[tuple[str, Markup]] = []
    for field, unit, scale in (("loss", "nats per image", 1.0), ("accuracy", "%", 100.0)):
        lines: list[charts.Spread] = []
        for number, side in enumerate(setup.sides):
            valid, train = (
                [_scaled(getattr(curve, f"{part}_{field}"), scale) for curve in side.curves]
                for part in ("valid", "train")
            )
            measured = any(value is not None for run in valid for value in run)
            name = side.letter
            lines.append(charts.Spread(number, "" if measured else name, True, train))
            lines.append(charts.Spread(number, name if measured else "", False, valid))
        if any(line.rows() for line in lines):
            title = f"{field} by epoch of each side: training dashed, validation solid"
            found.append((field, charts.spreads(lines, title.capitalize(), f"{field} ({unit})")))
    return found


def _scaled(values: Sequence[float | None], scale: float) -> list[float | None]:
    return [None if value is None else scale * value for value in values]


def _facts(setup: Setup, part: str) -> list[Fact]:
    """Return what the sides share, and where and when they were compared."""
    versions = {name: " and ".join(values) for name, values in setup.versions.items()}
    software = [
        f"{name} {versions[name]}" for name in ("hydrofoil", "torch", "python", "numpy")
        if name in versions
    ]  # fmt: skip
    machine = [versions[name] for name in ("platform", "cpu", "device_name") if name in versions]
    facts = [
        ("dataset", setup.dataset),
        ("compared on", f"the {part} split"),
        ("overrides on all sides", ", ".join(setup.overrides) or "none"),
        ("software", ", ".join(software)),
        ("revision", versions.get("git", "")),
        ("machine", ", ".join(dict.fromkeys(machine))),
        ("date", setup.date.replace("T", " ").replace("+00:00", " UTC")),
        (
            "time",
            f"{sum(side.seconds for side in setup.sides):.1f} s for all runs, "
            f"{setup.seconds:.1f} s for this comparison of them",
        ),
        ("command", setup.command or "a call in Python"),
    ]
    return [(name, value) for name, value in facts if value]


def _side_facts(setup: Setup) -> list[tuple[str, list[str]]]:
    """Return what each side is: a row per fact, a value per side."""

    def row(name: str, of: Callable[[SideSetup], str]) -> tuple[str, list[str]]:
        return name, [of(side) for side in setup.sides]

    return [
        row("given as", lambda side: side.given),
        row("recipe", lambda side: side.recipe),
        row("overrides of its own", lambda side: ", ".join(side.overrides) or "none"),
        row("network", lambda side: side.network),
        row("epochs", lambda side: f"{side.epochs:,}"),
        row("best epoch", _best_epochs),
        row("seeds", lambda side: ", ".join(map(str, side.seeds))),
        row("images: train, validation, test", _images),
        row("executor", _executor),
        row("seconds, all runs", lambda side: f"{side.seconds:.1f}"),
    ]


def _best_epochs(side: SideSetup) -> str:
    best = sorted({curve.best_epoch for curve in side.curves} - {0})
    return "–" if not best else str(best[0]) if len(best) == 1 else f"{best[0]} to {best[-1]}"


def _images(side: SideSetup) -> str:
    return ", ".join(f"{side.images[part]:,}" for part in ("train", "valid", "test"))


def _executor(side: SideSetup) -> str:
    threads = " or ".join(plural(count, "thread") for count in side.threads)
    return f"{' and '.join(side.executors) or '–'}{f', {threads}' if threads else ''}"


def _commands(setup: Setup) -> list[str]:
    """Return the different commands of the runs, where these are not the comparison's own."""
    commands = dict.fromkeys(text for side in setup.sides for text in side.commands if text)
    return [text for text in commands if text != setup.command]
