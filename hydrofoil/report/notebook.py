"""What a notebook shows of each value, as HTML for its cell.

Everything is inlined; colors follow JupyterLab's theme where there is one, and otherwise the
browser's.

Axes: N images, C channels, H rows, W columns.
"""

import base64
import io
from collections.abc import Sequence

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from hydrofoil.check.result import Check, levels_line
from hydrofoil.compare.several import Comparisons
from hydrofoil.compare.verdict import Comparison
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import PARTS, Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.evaluate.result import Epoch, TestResult
from hydrofoil.recipe.changes import RESOLVED, changed_fields, original
from hydrofoil.recipe.derive import Choice
from hydrofoil.recipe.schema import Recipe, dotted
from hydrofoil.report import text, words
from hydrofoil.report.charts import tag
from hydrofoil.report.check_text import shown_text
from hydrofoil.report.figure import Figure
from hydrofoil.report.gather import Gathered
from hydrofoil.report.sections import curve_charts
from hydrofoil.report.sheet import as_image, scale_of
from hydrofoil.report.tune_text import conclusion, values_text
from hydrofoil.run.folder import Run
from hydrofoil.ship.predict import Prediction
from hydrofoil.tune.result import Tuning
from hydrofoil.wording import by, interval, percent, percent_range, sentence

MOST_CLASSES, A_CLASS, SIDE = 20, 12, 36  # rows, columns and pixels of the grid of images
MOST_ROWS = 100  # of a table of classes
INK, SOFT, LINE = "var(--jp-content-font-color1, inherit)", "#768390", "#8c959f55"
BLUE, ORANGE, PURPLE = "#2f81f7", "#db6d28", "#a371f7"  # readable on white and on black
STYLE = Markup(f"""<style>
.hydrofoil svg {{ width: 27rem; max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }}
.hydrofoil svg text {{ fill: var(--jp-content-font-color1, currentColor); }}
.hydrofoil {{ color: {INK}; }}
.hydrofoil svg .tick, .hydrofoil svg .name, .hydrofoil .soft {{ fill: {SOFT}; color: {SOFT}; }}
.hydrofoil .grid {{ stroke: {LINE}; fill: none; }}
.hydrofoil .mark {{ stroke: {SOFT}; stroke-dasharray: 4 4; fill: none; }}
.hydrofoil .line {{ fill: none; stroke-width: 2; }} .hydrofoil svg .label {{ font-weight: 600; }}
.hydrofoil .line.train {{ stroke: {BLUE}; stroke-dasharray: 6 4; }}
.hydrofoil svg .dot.train, .hydrofoil svg .label.train {{ fill: {BLUE}; }}
.hydrofoil .line.valid {{ stroke: {ORANGE}; }}
.hydrofoil .line.averaged {{ stroke: {PURPLE}; }}
.hydrofoil svg .dot.averaged, .hydrofoil svg .label.averaged {{ fill: {PURPLE}; }}
.hydrofoil svg .dot.valid, .hydrofoil svg .label.valid {{ fill: {ORANGE}; }}
.hydrofoil td, .hydrofoil th {{ text-align: right; padding: 1px 8px; }}
.hydrofoil table {{ font-variant-numeric: tabular-nums; }}
.hydrofoil td:first-child, .hydrofoil th:first-child {{ text-align: left; }}
.hydrofoil .best {{ font-weight: 600; }}
.hydrofoil img {{ image-rendering: pixelated; max-width: 100%; vertical-align: middle; }}
.hydrofoil .bar {{ background: {BLUE}; height: .7em; display: inline-block; }}
</style>""")


def pictures_html(pictures: Pictures) -> Markup:
    """Show a row of images for each class, beside its name and how many there are of it."""
    heading = (
        f"{pictures.source}: {len(pictures):,} images of {by(pictures.shape)}, {pictures.K} classes"
    )
    if not len(pictures):
        return _box(tag("b", heading))
    counts = pictures.counts(torch.arange(len(pictures)))
    columns = A_CLASS if pictures.shape[0] == 1 else 2 * A_CLASS // 3
    shown = [k for k in range(pictures.K) if counts[k]][:MOST_CLASSES]
    first = [(pictures.labels_N == k).nonzero()[:columns, 0] for k in shown]
    rows = [pictures.pictures_NCHW[index_N].cpu() for index_N in first]
    height, png = _mosaic(rows, columns)
    names = [
        tag("div", f"{pictures.classes[k]} ", tag("span", f"{counts[k]:,}", class_="soft"),
            style=f"height: {height}px; line-height: {height}px; white-space: nowrap")
        for k in shown
    ]  # fmt: skip
    grid = tag(
        "div",
        tag("div", *names, style="margin-right: 8px; text-align: right"),
        tag("img", src=_uri(png), alt=heading, style="max-width: none"),
        style="display: flex; overflow-x: auto",
    )
    left = pictures.K - len(shown)
    more = [tag("div", f"and {left:,} more classes", class_="soft")] if left else []
    return _box(tag("b", heading), grid, *more)


def _mosaic(rows: Sequence[Tensor], columns: int) -> tuple[int, bytes]:
    """Return the height of a row in pixels, and rows of images on a transparent ground as PNG."""
    _, _, H, W = rows[0].shape
    scale = scale_of((H, W), SIDE)
    right, down = W * scale + 3, H * scale + 3
    sheet = Image.new("RGBA", (right * columns, down * len(rows)), (0, 0, 0, 0))
    for row, pictures_NCHW in enumerate(rows):
        for column, picture_CHW in enumerate(pictures_NCHW):
            image = as_image(picture_CHW).resize((W * scale, H * scale), Image.Resampling.NEAREST)
            sheet.paste(image.convert("RGB"), (column * right, row * down))
    file = io.BytesIO()
    # 256 colors are plenty for a thumbnail, and a third of the bytes.
    sheet.quantize(256, Image.Quantize.FASTOCTREE).save(file, "png", optimize=True)
    return down, file.getvalue()


def check_html(check: Check) -> Markup:
    """Show the level and the title of each finding of a check."""
    rows = [[finding.level, shown_text(finding.title)] for finding in check.findings]
    head = f"{check.pictures.source}: {levels_line(check)}"
    return _box(tag("b", head), *([_table(["level", "finding"], rows)] if rows else []))


def split_html(split: Split) -> Markup:
    """Show how many images each part has, and how many of each class where that is known."""
    parts = [(part, getattr(split, part)) for part in PARTS]
    head = ["", *(part for part, _ in parts)]
    total = ["all classes", *(f"{len(index_N):,}" for _, index_N in parts)]
    rows: list[list[str]] = []
    if split.labels_N is not None:
        labels_N, K = split.labels_N.cpu(), len(split.classes)
        columns = [torch.bincount(labels_N[at], minlength=K).tolist() for _, at in parts]
        rows = [
            [n, *(f"{c:,}" for c in row)] for n, *row in zip(split.classes, *columns, strict=True)
        ]
    return _box(tag("b", "split"), _table(head, [total, *rows[:MOST_ROWS]]), *_cut(len(rows)))


def scores_html(scores: Scores) -> Markup:
    """Show an accuracy with its interval, and the loss."""
    accuracy = percent(scores.accuracy) if scores.count else "–"
    head = f"{accuracy} of {scores.count:,}, {percent_range(scores.interval)}"
    return _box(tag("b", head), tag("div", f"loss {scores.loss:.4f}"))


def epoch_html(epoch: Epoch) -> Markup:
    """Show an epoch as a row of the table that a training shows."""
    rate = f"learning rate {epoch.learning_rate:g}, {epoch.seconds:.2f} s"
    return _box(epochs_table([epoch]), tag("div", rate, class_="soft"))


def epochs_table(epochs: Sequence[Epoch], best: int | None = None, hidden: int = 0) -> Markup:
    """Return a table of epochs: losses and accuracies, the best epoch marked.

    Args:
        epochs: Those that are shown.
        best: The best epoch; default: the last that was the best so far.
        hidden: How many more there are; where numbers are left out, a row says so.
    """
    if best is None:
        best = next((epoch.number for epoch in reversed(epochs) if epoch.best), None)
    averaged = any(epoch.averaged for epoch in epochs)
    more = ["averaged weights", "accuracy"] if averaged else []
    head = ["epoch", "train loss", "accuracy", "validation loss", "accuracy", *more, ""]
    rows, before = [tag("tr", *(tag("th", cell) for cell in head))], 0
    for epoch in epochs:
        if hidden and epoch.number > before + 1 and before:
            rows.append(tag("tr", tag("td", "…", colspan=len(head))))
        cells = [str(epoch.number), f"{epoch.train.loss:.4f}", percent(epoch.train.accuracy)]
        for scores in (epoch.valid, *([epoch.averaged] if averaged else [])):
            cells += [f"{scores.loss:.4f}", percent(scores.accuracy)] if scores else ["–", "–"]
        mark = epoch.number == best
        row = (tag("td", cell) for cell in [*cells, "best" if mark else ""])
        rows.append(tag("tr", *row, class_="best") if mark else tag("tr", *row))
        before = epoch.number
    return tag("table", *rows)


def training_html(
    title: str,
    bar: Markup,
    line: str,
    epochs: Sequence[Epoch],
    notes: Sequence[str],
    hidden: int,
    choices: Sequence[Choice] = (),
) -> Markup:
    """Show a training: its title, a bar, what is left, notes, and its epochs.

    Why a derived recipe is as it is stands folded below the notes.
    """
    head = tag("div", tag("b", title), " ", bar, " ", line)
    said = [tag("div", f"note: {note}", class_="soft") for note in notes]
    if choices:
        rows = [tag("tr", *(tag("td", cell) for cell in choice.row)) for choice in choices]
        said.append(tag("details", tag("summary", "why this recipe"), tag("table", *rows)))
    best = next((epoch.number for epoch in reversed(epochs) if epoch.best), None)
    table = [epochs_table(epochs, best, hidden)] if epochs else []
    return _box(head, *said, *table)


def progress_html(progress: object) -> Markup:
    """Show where in an epoch a training is."""
    return _box(tag("code", repr(progress)))


def recipe_html(recipe: Recipe) -> Markup:
    """Show what a recipe trains, what differs from the shipped one, and, folded, every field."""
    base = original(recipe)
    found = changed_fields(base, recipe) if base else {}
    changed = {name: values for name, values in found.items() if name not in RESOLVED}
    fields = dotted(recipe.model_dump(mode="json", exclude_none=True))
    rows = [
        tag(
            "tr", tag("td", name), tag("td", _value(value)),
            tag("td", f"was {_value(changed[name][0])}" if name in changed else ""),
            **({"class_": "best"} if name in changed else {}),
        )
        for name, value in fields.items()
        if name not in ("name", "about")
    ]  # fmt: skip
    lines = [tag("div", line) for line in text.recipe_lines(recipe).split("\n")[1:]]
    folded = tag("details", tag("summary", "all fields"), tag("table", *rows))
    about = f": {recipe.about}" if recipe.about else ""
    return _box(tag("b", recipe.name), about, *lines, folded)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)  # pyright: ignore


def prediction_html(prediction: Prediction) -> Markup:
    """Show the image that the network saw, and the most probable classes as bars."""
    label = prediction.label or f"none of these (most probable: {prediction.most_probable})"
    rows = [
        tag(
            "tr", tag("td", name), tag("td", percent(share, 1)),
            tag("td", tag("span", class_="bar", style=f"width: {100 * share:.0f}px"),
                style="text-align: left"),
        )
        for name, share in list(prediction.probabilities.items())[:5]
    ]  # fmt: skip
    parts: list[Markup] = []
    if prediction.picture_CHW is not None:
        png = _mosaic([prediction.picture_CHW[None]], 1)[1]
        parts.append(tag("img", src=_uri(png), alt="the image as the network saw it", width=96))
    parts.append(tag("table", *rows))
    notes = [tag("div", note, class_="soft") for note in (*prediction.done, *prediction.notes)]
    both = tag("div", *parts, style="display: flex; gap: 16px; align-items: center")
    return _box(tag("b", label), both, *notes)


def comparison_html(comparison: Comparison | Comparisons) -> Markup:
    """Show a comparison's verdict, and each side's mean over its seeds."""
    sides = [
        [f"{side.letter}: {side.label or side.name}", percent(side.mean),
         percent_range(side.interval) if side.interval else "–", str(len(side.seeds))]
        for side in comparison.sides
    ]  # fmt: skip
    table = _table(["side", "mean accuracy", "95% interval", "seeds"], sides)
    return _box(tag("b", comparison.verdict.sentence), table)


def tuning_html(found: Tuning) -> Markup:
    """Show what became of the winner of a search, and the best trials."""
    sign = -1 if found.goal.direction == "maximize" else 1
    done = [trial for trial in found.trials if trial.state == "complete"]
    best = sorted(done, key=lambda trial: sign * (trial.value or 0.0))[:5]
    rows = [
        [str(trial.number), found.goal.shown(trial.value), percent(trial.accuracy),
         values_text(trial.values)]
        for trial in best
    ]  # fmt: skip
    verdict = found.comparison.verdict.sentence if found.comparison else ""
    table = _table(["trial", found.goal.metric, "accuracy", "values"], rows)
    return _box(tag("b", sentence(f"{verdict} {conclusion(found)}".strip())), table)


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
            f"{interval(test.interval)}; balanced accuracy {percent(test.balanced_accuracy)}"
        )
    seen = Gathered(run.path, run.recipe, epochs=epochs, best_epoch=best)
    charts = [chart for _, chart in curve_charts([seen], [""])] if epochs else []
    return _box(
        tag("b", str(run.path)), *(tag("div", line) for line in lines), _side_by_side(charts)
    )


def figure_html(figure: Figure) -> Markup:
    """Show a figure's charts."""
    return _box(tag("b", figure.title), _side_by_side(figure.charts))


def result_html(test: TestResult) -> Markup:
    """Show a test's accuracy with its interval, its warnings, and folded the classes."""
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
    accuracy = f"{percent(test.accuracy)} of {test.count:,}, {percent_range(test.interval)}"
    notes = [*filter(None, [words.averaging_line(test)]), *test.warnings]
    if test.opened > 1:
        notes.append(f"This run has opened its test split {test.opened} times.")
    said = [tag("div", line) for line in notes]
    what = f" test accuracy with its 95% interval; {text.weights_of(test.epoch)}"
    balanced = (
        f"Balanced accuracy (mean recall) {percent(test.balanced_accuracy)}, "
        f"{percent_range(test.balanced_interval)}"
    )
    summary = tag("summary", f"{len(rows):,} classes")
    folded = tag("details", summary, _table(head, rows[:MOST_ROWS]), *_cut(len(rows)))
    return _box(tag("b", accuracy), what, tag("div", balanced), *said, folded)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table; every cell is escaped."""
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("table", tag("tr", *(tag("th", cell) for cell in head)), *body)


def _side_by_side(charts: Sequence[Markup]) -> Markup:
    return tag("div", *charts, style="display: flex; flex-wrap: wrap")


def _cut(rows: int) -> list[Markup]:
    """Say how many rows a table leaves out."""
    more = rows - MOST_ROWS
    return [tag("div", f"and {more:,} more classes", class_="soft")] if more > 0 else []


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _box(*parts: object) -> Markup:
    """Return parts under each other, with their style."""
    return tag("div", STYLE, *parts, class_="hydrofoil")
