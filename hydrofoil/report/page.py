"""One HTML file of a run, of several runs or of a comparison.

No script runs on it, nothing is fetched, and every name is escaped. The templates look the figures
of a test up in test.json by their path, so that none can differ from it; `sections` makes the rest.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hydrofoil import __version__, wording
from hydrofoil.compare.statistics import p_words
from hydrofoil.compare.verdict import Comparison
from hydrofoil.models.code import Network
from hydrofoil.report import charts
from hydrofoil.report.comparison import covers_line, differs_line, note_lines
from hydrofoil.report.gather import gather
from hydrofoil.report.inspection import inspect
from hydrofoil.report.sections import run_values, runs_values

FILTERS: dict[str, Callable[..., str]] = {
    "percent": wording.percent,
    "range": wording.percent_range,
    "by": wording.by,
    "isolated": wording.isolated,
    "plural": wording.plural,
    "points": wording.points,
    "sentence": wording.sentence,
    "tenths": lambda share: f"{100 * share:.1f}",  # pyright: ignore[reportUnknownLambdaType]
    "loss": "{:.4f}".format,
    "count": "{:,}".format,
    "two": "{:.2f}".format,
    "signed": "{:+.2f}".format,
    "p_words": p_words,
}


def run_page(path: Path, network: Network | None = None) -> bytes:
    """Return the page of one run, finished or not.

    Raises:
        HydrofoilError: The path is not a run folder.
    """
    run = gather(path, network)
    return _page("run.html", **run_values(run, inspect(run)))


def runs_page(paths: Sequence[Path], network: Network | None = None) -> bytes:
    """Return one page of several runs, side by side.

    Raises:
        HydrofoilError: One of the paths is not a run folder.
    """
    runs = [gather(path, network) for path in paths]
    return _page("runs.html", **runs_values(runs))


def comparison_page(comparison: Comparison) -> bytes:
    """Return the page of a comparison."""
    a, b = comparison.a, comparison.b
    names = [f"A: {a.name}", f"B: {b.name}"]
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
    sides = [[100 * accuracy for accuracy in side.accuracies] for side in (a, b)]
    what = f"Test accuracy of each run of {names[0]} and {names[1]}"
    joined = comparison.paired and bool(comparison.pairs)
    return _page(
        "comparison.html",
        comparison=comparison,
        names=names,
        differs=differs_line(comparison.differs),
        covers=covers_line(comparison),
        notes=note_lines(comparison),
        pairs_chart=charts.pairs(sides[0], sides[1], what, (names[0], names[1]), joined=joined),
        differences=rows,
        differences_chart=charts.differences(rows, "B minus A in points, with each interval")
        if rows
        else "",
    )


def _page(template: str, **values: Any) -> bytes:
    templates = Environment(
        loader=PackageLoader("hydrofoil.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(FILTERS)
    return templates.get_template(template).render(version=__version__, **values).encode()
