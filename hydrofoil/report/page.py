"""One HTML file of a run: no script, nothing fetched, all that a class name says is escaped.

The templates say what stands where; here each section's values are made from what `gather` read.
Figures of the test are looked up in test.json by the template, by their path, so that none can
differ from it.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from hydrofoil import __version__
from hydrofoil.compare.statistics import p_words
from hydrofoil.compare.verdict import Comparison
from hydrofoil.data.split import PARTS
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.explain import GradCam, feature_maps, grad_cam, occlusion
from hydrofoil.evaluate.result import Example, TestResult
from hydrofoil.evaluate.test import data_warnings
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.report import charts, explanations, sheet, text, words
from hydrofoil.report.comparison import covers_line, differs_line, note_lines
from hydrofoil.report.explain import filters_figure, heat_line, hidden_line
from hydrofoil.report.gather import Gathered, gather
from hydrofoil.run.commands import command
from hydrofoil.run.events import DataLoaded, ExecutorChosen, Tested, Trained

EXPLAINED = 6  # pictures: each costs a pass over some two hundred covered copies
PIXELATED = 64  # pictures up to so many pixels keep each one; larger ones are made this large
SIDE = 160  # of larger ones
KINDS = {
    "random": "Random sample",
    "highest_loss": "Highest loss",
    "most_confident_mistakes": "Most confident mistakes",
    "least_confident_correct": "Least confident correct predictions",
}
KINDS_SAID = {
    "random": "A random sample of the test images.",
    "highest_loss": "The true class was given the lowest probability: "
    "unusual images, wrong labels, blind spots.",
    "most_confident_mistakes": "Misclassified with high confidence: "
    "the most harmful mistakes in use.",
    "least_confident_correct": "Barely correct: likely to change when retrained.",
}


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} points"


def _bounds(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.2f}–{100 * interval[1]:.2f} %"


FILTERS: dict[str, Callable[..., str]] = {
    "percent": text.percent,
    "by": text.by,
    "isolated": text.isolated,
    "plural": text.plural,
    "points": _points,
    "bounds": _bounds,
    "loss": "{:.4f}".format,
    "count": "{:,}".format,
    "two": "{:.2f}".format,
    "signed": "{:+.2f}".format,
    "p_words": p_words,
    "hundredfold": lambda share: f"{100 * share:.2f}",  # pyright: ignore[reportUnknownLambdaType]
}


def run_page(path: Path, network: Network | None = None) -> bytes:
    """Return the page of one run, finished or not.

    Raises:
        HydrofoilError: It is no run folder.
    """
    return _page("run.html", **_run_values(gather(path, network)))


def runs_page(paths: Sequence[Path], network: Network | None = None) -> bytes:
    """Return one page of several runs, side by side.

    Raises:
        HydrofoilError: One of them is no run folder.
    """
    runs = [gather(path, network) for path in paths]
    names = _distinct([run.name for run in runs])
    return _page("runs.html", names=names, runs=runs, **_side_by_side(runs, names))


def comparison_page(comparison: Comparison) -> bytes:
    """Return the page of a comparison."""
    a, b = comparison.a, comparison.b
    names = [f"A: {a.name}", f"B: {b.name}"]
    found = comparison.difference
    rows = [
        (said, found.points, interval[0], interval[1])
        for said, interval in (
            (f"{found.method} over seeds", found.interval),
            ("bootstrap over seeds", comparison.bootstrap),
            ("over seeds and pictures", comparison.other_pictures),
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


# ── one run ──────────────────────────────────────────────────────────────────────────────────────


def _run_values(run: Gathered) -> dict[str, Any]:
    """Return what the template of a run is filled with."""
    test = run.test
    return {
        "name": run.name,
        "run": run,
        "test": test,
        "about": run.recipe.about if run.recipe else "",
        "best_valid": run.best.valid if run.best else None,
        "chosen": bool(run.recipe and (run.recipe.train.select or "").startswith("valid")),
        "findings": words.findings(test) if test else [],
        "warnings": _warnings(run),
        "pictures": _pictures(run),
        "curves": curve_charts([run], [""]),
        "curve_words": words.of_curves(run.epochs, run.recipe.train.epochs) if run.recipe else [],
        "classes_chart": _classes_chart(test) if test else "",
        "shades": _shades(test.confusion) if test else [],
        "reliability_chart": _reliability_chart(test) if test else "",
        "explanations": _explanations(run),
        "network_pictures": _network_pictures(run),
        "data": _data(run),
        "layers": run.layers,
        "time": _time(run),
        "environment": _environment(run),
        "commands": _commands(run),
        "recipe_text": run.recipe.toml() if run.recipe else "",
    }


def _warnings(run: Gathered) -> list[str]:
    merged = data_warnings(run.recipe, "") if run.recipe else []
    found = list(run.test.warnings) if run.test else merged
    if run.imported:
        found.append(
            "The weights were imported: they may have been trained on images of this test or "
            "validation split. If so, both accuracy and calibration are overestimated."
        )
    if run.test is None:
        return found
    if run.test.opened > 1:
        found.append(
            f"This run has opened its test split {run.test.opened} times. "
            "It is no longer an unbiased test of anything changed after looking at it."
        )
    return found


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Args:
        uri: The picture, inlined.
        alt: What it is, in words.
        width: In pixels of the page.
        height: Likewise.
    """

    uri: str
    alt: str
    width: int
    height: int


def _inline(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _shown(picture_CHW: Tensor, alt: str) -> Shown:
    """Inline a uint8 picture: small ones whole, as PNG, larger ones made smaller, as JPEG."""
    image = sheet.as_image(picture_CHW)
    file = io.BytesIO()
    if max(image.size) <= PIXELATED:
        image.save(file, "png", optimize=True)
        scale = max(1, round(96 / max(image.size)))
        return Shown(_inline(file.getvalue()), alt, image.width * scale, image.height * scale)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    image.save(file, "jpeg", quality=85)
    return Shown(_inline(file.getvalue(), "jpeg"), alt, image.width, image.height)


def _figure(png: bytes, alt: str) -> Shown:
    with Image.open(io.BytesIO(png)) as image:
        return Shown(_inline(png), alt, *image.size)


def _alt(one: Example) -> str:
    outcome = "correct" if one.correct else f"predicted as {one.predicted}"
    return f"Image {one.index:,} of the dataset: {one.label}, {outcome}"


def _pictures(run: Gathered) -> list[dict[str, Any]]:
    """Return the groups of pictures: heading, what it is, and each picture with its numbers."""
    if run.test is None:
        return []
    return [
        {
            "kind": kind,
            "heading": KINDS[kind],
            "said": KINDS_SAID[kind],
            "pictures": [
                (number, one, _shown(run.shown[one.index], _alt(one)))
                for number, one in enumerate(examples)
                if one.index in run.shown
            ],
        }
        for kind, examples in run.test.examples.all().items()
        if examples
    ]


def curve_charts(runs: Sequence[Gathered], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a chart of loss and one of accuracy; of several runs, the validation's alone."""
    found: list[tuple[str, Markup]] = []
    for field, unit, scale in (("loss", "nats a picture", 1), ("accuracy", "%", 100)):
        lines: list[charts.Line] = []
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            parts = ("train", "valid") if len(runs) == 1 else ("valid",)
            for part in parts:
                scores = [(epoch.number, getattr(epoch, part)) for epoch in run.epochs]
                points = [
                    (number, getattr(one, field) * scale if one else math.nan)
                    for number, one in scores
                ]
                if any(math.isfinite(value) for _, value in points):
                    kind = part if len(runs) == 1 else f"s{number % 8}"
                    said = {"train": "training", "valid": "validation"}[part]
                    lines.append(charts.Line(name or said, kind, points))
        if lines:
            what = f"{field.capitalize()} by epoch, {', '.join(line.name for line in lines)}"
            mark = runs[0].best_epoch or None if len(runs) == 1 else None
            found.append((field, charts.curves(lines, what, f"{field} ({unit})", mark)))
    return found


def _classes_chart(test: TestResult) -> Markup:
    """Draw recall by class, the weakest first; of many classes, both ends."""
    known = sorted((one for one in test.classes if one.count), key=lambda one: one.recall or 0.0)
    chosen = known if len(known) <= 30 else known[:15] + known[-15:]
    rows = [(one.name, one.recall or 0.0, *one.interval) for one in chosen]
    which = "" if chosen is known else ", of the fifteen weakest and the fifteen strongest"
    title = f"Recall of each class, with its 95% interval{which}"
    return charts.intervals(rows, title, test.accuracy)


def _shades(confusion: Sequence[Sequence[int]]) -> list[list[tuple[int, float, int]]]:
    """Return each cell's count, its per cent of the row, and its shade from 0 to 10."""
    return [
        [
            (count, 100 * count / max(sum(row), 1), round(10 * count / max(sum(row), 1)))
            for count in row
        ]
        for row in confusion
    ]


def _reliability_chart(test: TestResult) -> Markup:
    columns = [
        charts.Column(one.count, one.confidence or 0.0, one.accuracy or 0.0, *one.interval)
        for one in test.calibration.equal_width.bins
        if one.count
    ]
    title = "Accuracy against confidence, in bins of equal width"
    return charts.reliability(columns, title)


def _explanations(run: Gathered) -> dict[str, Any]:
    """Explain the most confident mistakes: Grad-CAM and occlusion for the predicted class.

    Returns each one's "panels" and sentences, and why there is no Grad-CAM, where there is none.
    """
    model, test = run.model, run.test
    found: list[dict[str, Any]] = []
    content: dict[str, Any] = {"explained": found, "without": ""}
    for one in test.examples.most_confident_mistakes[:EXPLAINED] if test and model else ():
        picture_CHW = run.shown.get(one.index)
        if model is None or picture_CHW is None or one.predicted not in model.classes:
            continue
        if tuple(picture_CHW.shape) != model.shape:
            continue
        try:
            cam = grad_cam(model, picture_CHW)
        except HydrofoilError as error:
            cam, content["without"] = None, str(error).splitlines()[0]
        found.append(_explanation(model, picture_CHW, one, cam))
    return content


def _explanation(
    model: Classifier, picture_CHW: Tensor, one: Example, cam: GradCam | None
) -> dict[str, Any]:
    """Return a picture, what Grad-CAM and occlusion show of it, and the same in sentences."""
    answer = one.predicted
    scale = max(1, round(96 / max(picture_CHW.shape[1:])))
    panels, said = [("picture", _shown(picture_CHW, _alt(one)))], list[str]()
    if cam is not None:
        heat = explanations.heat_overlay(picture_CHW, cam.heat_NHW[0], scale=scale)
        said.append(heat_line(cam, answer))
        panels.append(("Grad-CAM", _figure(heat, f"Grad-CAM for {answer}: {said[-1]}")))
    hidden = occlusion(model, picture_CHW, model.classes.index(answer))
    largest = max(float(hidden.drops_HW.abs().max()), 0.01)
    drops = explanations.heat_overlay(
        picture_CHW, hidden.drops_HW / largest, signed=True, scale=scale
    )
    said.append(hidden_line(hidden, model.classes, answer))
    panels.append(("occlusion", _figure(drops, f"Occlusion for {answer}: {said[-1]}")))
    return {"one": one, "panels": panels, "said": said[::-1]}


def _network_pictures(run: Gathered) -> list[tuple[str, Shown]]:
    """Draw the first layer's filters, and the feature maps of one picture."""
    model = run.model
    if model is None:
        return []
    found: list[tuple[str, Shown]] = []
    try:
        layer, png = filters_figure(model)
        caption = f"What the first layer, {layer}, looks for: its filters."
        found.append((caption, _figure(png, f"The filters of {layer}")))
    except HydrofoilError:
        pass  # the first weights look at no pixels: there is nothing to draw
    for one in run.test.examples.random[:1] if run.test else ():
        picture_CHW = run.shown.get(one.index)
        if picture_CHW is not None and tuple(picture_CHW.shape) == model.shape:
            layers = feature_maps(model, picture_CHW)
            if layers:
                png = explanations.feature_maps(layers)
                which = f"{one.label}, number {one.index:,}"
                caption = f"One picture ({which}) on its way through the layers."
                found.append((caption, _figure(png, f"Feature maps. {_alt(one)}")))
    return found


def _data(run: Gathered) -> dict[str, Any]:
    """Return how many pictures of each class each part has, as far as the log and the test tell."""
    loaded = run.last(DataLoaded)
    counts = loaded.counts if loaded else {}
    classes = [one.name for one in run.test.classes] if run.test else []
    if not classes and run.model:
        classes = list(run.model.classes)
    whole = {part: n for part, n in counts.items() if len(n) == len(classes) and sum(n)}
    return {
        "source": run.recipe.data.source if run.recipe else "",
        "warnings": data_warnings(run.recipe, loaded.differs or "" if loaded else "")
        if run.recipe
        else [],
        "sizes": {part: run.sizes.get(part, 0) for part in PARTS if run.sizes.get(part)},
        "counts": whole,
        "classes": classes,
    }


def _time(run: Gathered) -> dict[str, Any]:
    """Return where the seconds went, as the log tells, and what took most of them."""
    train = sum(epoch.train_seconds for epoch in run.epochs)
    valid = sum(epoch.valid_seconds for epoch in run.epochs)
    prepare = sum(event.seconds for event in run.all(ExecutorChosen))
    trained = sum(event.seconds for event in run.all(Trained))
    tested, executor = run.last(Tested), run.last(ExecutorChosen)
    parts = [
        ("reading the data", sum(event.seconds for event in run.all(DataLoaded))),
        ("preparing and compiling", prepare),
        ("training steps", train),
        ("validation", valid),
        ("testing", tested.seconds if tested else 0.0),
        ("saving and the rest", max(0.0, trained - prepare - train - valid) if trained else 0.0),
    ]
    parts = [(name, seconds) for name, seconds in parts if seconds > 0]
    pictures = sum(epoch.train.count for epoch in run.epochs)
    if not train or not pictures:
        return {"parts": []}
    total = sum(seconds for _, seconds in parts)
    longest, seconds = max(parts, key=lambda part: part[1])
    flops = 6 * sum(layer.multiply_adds for layer in run.layers) * pictures / train
    return {
        "parts": parts,
        "total": total,
        "chart": charts.shares(parts, "Where the seconds went"),
        "longest": longest,
        "share": seconds / total,
        "rate": pictures / train,
        "gigaflops": flops / 1e9,
        "executor": executor.name if executor else "",
        "threads": executor.threads if executor else None,
    }


def _environment(run: Gathered) -> list[tuple[str, str]]:
    return [
        ("torch threads" if name == "threads" else name.replace("_", " "), str(value))
        for name, value in run.environment.items()
        if name != "command" and value not in (None, "")
    ]


def _commands(run: Gathered) -> dict[str, str]:
    """Return the command that made the run, and the one that repeats it from what it keeps."""
    given = run.environment.get("command")
    found = {"given": text.shell(given) if isinstance(given, list) else "", "repeat": ""}
    if run.recipe and not run.imported:
        executor = run.last(ExecutorChosen)
        pinned = f" train.execute={executor.name}" if executor else ""
        device = run.environment.get("device")
        pinned += f" --device {text.shell([device])}" if isinstance(device, str) else ""
        found["repeat"] = f"{command('train', run.path / 'recipe.toml')}{pinned} --test"
    return found


# ── several runs ─────────────────────────────────────────────────────────────────────────────────


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names, numbered where two are the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _side_by_side(runs: Sequence[Gathered], names: Sequence[str]) -> dict[str, Any]:
    """Return what a page of several runs compares: fields that differ, classes, curves."""
    recipes = [run.recipe.affecting("weights", "results") if run.recipe else {} for run in runs]
    fields = sorted({field for recipe in recipes for field in recipe})
    rows = [(field, [str(recipe.get(field, "–")) for recipe in recipes]) for field in fields]
    differing = [(field, values) for field, values in rows if len(set(values)) > 1]
    classes = list(dict.fromkeys(one.name for run in runs if run.test for one in run.test.classes))
    recalls = [
        (
            name,
            [
                next((one for one in run.test.classes if one.name == name), None)
                if run.test
                else None
                for run in runs
            ],
        )
        for name in classes
    ]
    best = [run.best.valid if run.best else None for run in runs]
    return {
        "differing": differing,
        "recalls": recalls,
        "best": best,
        "times": [_time(run) for run in runs],
        "curves": curve_charts(runs, names),
    }
