"""Images, runs and test results as HTML for a notebook's cell.

Everything is inlined; colors follow JupyterLab's theme where there is one.

Axes: N images, C channels, H rows, W columns.
"""

import base64
from collections.abc import Sequence

import torch
from markupsafe import Markup

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import TestResult
from hydrofoil.report import text
from hydrofoil.report.charts import tag
from hydrofoil.report.figure import Figure
from hydrofoil.report.figures import class_rows
from hydrofoil.report.gather import Gathered
from hydrofoil.report.sections import curve_charts
from hydrofoil.run.folder import Run
from hydrofoil.wording import by, interval, percent, percent_range

MOST_CLASSES, A_CLASS = 20, 12  # rows and columns of the grid of images
INK, SOFT, LINE = "var(--jp-content-font-color1, #1f2328)", "#6e7781", "#8c959f55"
STYLE = Markup(f"""<style>
.hydrofoil svg {{ width: 27rem; max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }}
.hydrofoil svg text {{ fill: {INK}; }}
.hydrofoil svg .tick, .hydrofoil svg .name {{ fill: {SOFT}; }}
.hydrofoil .grid {{ stroke: {LINE}; fill: none; }}
.hydrofoil .mark {{ stroke: {SOFT}; stroke-dasharray: 4 4; fill: none; }}
.hydrofoil .line {{ fill: none; stroke-width: 2; }} .hydrofoil svg .label {{ font-weight: 600; }}
.hydrofoil .line.train {{ stroke: #0969da; stroke-dasharray: 6 4; }}
.hydrofoil svg .dot.train, .hydrofoil svg .label.train {{ fill: #0969da; }}
.hydrofoil .line.valid {{ stroke: #bc4c00; }}
.hydrofoil svg .dot.valid, .hydrofoil svg .label.valid {{ fill: #bc4c00; }}
.hydrofoil td, .hydrofoil th {{ text-align: right; }}
</style>""")


def pictures_html(pictures: Pictures) -> Markup:
    """Show a grid of images, a row for each class, and how many there are of each."""
    index_N = _first_of_each_class(pictures)
    heading = (
        f"{pictures.source}: {len(pictures):,} images of {by(pictures.shape)}, {pictures.K} classes"
    )
    rows = class_rows(
        pictures.pictures_NCHW[index_N].cpu(),
        pictures.labels_N[index_N].cpu(),
        pictures.classes,
        "",
        A_CLASS,
    )
    counts = pictures.counts(torch.arange(len(pictures)))
    named = ", ".join(f"{n} {c:,}" for n, c in zip(pictures.classes, counts, strict=True))
    more = "" if pictures.K <= MOST_CLASSES else f"The first {MOST_CLASSES} classes are shown. "
    image = tag("img", src=_png(rows), alt=heading, style="max-width: 100%")
    return _box(tag("b", heading), tag("div", image), tag("div", f"{more}Images a class: {named}"))


def run_html(run: Run) -> Markup:
    """Show how far a run is, its best epoch and its test, and its learning curves."""
    try:
        epochs, best = run.epochs(), run.weights.epoch()
        test = run.results.test()
    except HydrofoilError as error:
        return _box(tag("b", str(run.path)), tag("div", error))
    lines = [f"{run.recipe.name}: {len(epochs)} of {run.recipe.train.epochs} epochs"]
    lines += [f"best weights: epoch {best}, {text.selected_by(run.recipe)}"] if best else []
    if test is not None:
        lines.append(
            f"test accuracy {percent(test.accuracy)} of {test.count:,} images, "
            f"{interval(test.interval)}"
        )
    seen = Gathered(run.path, run.recipe, epochs=epochs, best_epoch=best)
    charts = [chart for _, chart in curve_charts([seen], [""])] if epochs else []
    return _box(tag("b", str(run.path)), *(tag("div", line) for line in lines), *charts)


def figure_html(figure: Figure) -> Markup:
    """Show a figure's charts."""
    return _box(tag("b", figure.title), *figure.charts)


def result_html(test: TestResult) -> Markup:
    """Show a test's accuracy with its interval, its warnings, and a table of the classes."""
    head = ["class", "recall", "95% interval", "correct", "count", "precision", "F1"]
    rows = [
        [
            one.name,
            percent(one.recall),
            percent_range(one.interval) if one.count else "–",
            f"{one.correct:,}",
            f"{one.count:,}",
            percent(one.precision),
            percent(one.f1),
        ]
        for one in test.classes
    ]
    accuracy = (
        f"test accuracy {percent(test.accuracy)} ({test.correct:,} of {test.count:,}), "
        f"{interval(test.interval)}"
    )
    notes = [*test.warnings]
    if test.opened > 1:
        notes.append(f"This run has opened its test split {test.opened} times.")
    said = [tag("div", line) for line in notes]
    return _box(tag("b", accuracy), *said, _table(head, rows))


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table; every cell is escaped."""
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("table", tag("tr", *(tag("th", cell) for cell in head)), *body)


def _first_of_each_class(pictures: Pictures) -> torch.Tensor:
    """Return index_N of the first images of each class that is shown."""
    found = [
        torch.nonzero(pictures.labels_N == k).flatten()[:A_CLASS]
        for k in range(min(pictures.K, MOST_CLASSES))
    ]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def _png(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _box(*parts: object) -> Markup:
    """Return parts under each other, with the style of the charts."""
    return tag("div", STYLE, *parts, class_="hydrofoil")
