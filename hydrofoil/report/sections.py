"""The values of a page's sections, made from what `gather` read and `inspect` computed.

Axes: N images, C channels, H rows, W columns.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image
from torch import Tensor

from hydrofoil.data.split import PARTS
from hydrofoil.evaluate.result import Example, TestResult
from hydrofoil.evaluate.test import data_warnings
from hydrofoil.report import charts, explanations, sheet, words
from hydrofoil.report.explain import heat_line, hidden_line
from hydrofoil.report.gather import Gathered
from hydrofoil.report.inspection import ExplainedMistake, Inspection
from hydrofoil.run.commands import command, command_line
from hydrofoil.run.events import (
    DataLoaded,
    ExecutorChosen,
    ImagesChecked,
    Kept,
    RecipeDerived,
    Tested,
    Trained,
)
from hydrofoil.wording import plural, sentence

PIXELATED = 64  # images up to this many pixels wide or high stay lossless
THUMBNAIL = 160  # larger ones are reduced to this size
UNFOLDED = 10  # example images of each kind; the rest is folded
KINDS = {
    "random": ("Random sample", "A random sample of the test images."),
    "highest_loss": (
        "Highest loss",
        "The true class got the lowest probability: unusual images, wrong labels, blind spots.",
    ),
    "most_confident_mistakes": (
        "Most confident mistakes",
        "Misclassified with high confidence: the most harmful mistakes in use.",
    ),
    "least_confident_correct": (
        "Least confident correct predictions",
        "Barely correct: likely to change when retrained.",
    ),
}


def run_values(run: Gathered, inspection: Inspection) -> dict[str, Any]:
    """Return the values of a run's template."""
    test = run.test
    return {
        "name": run.name,
        "run": run,
        "test": test,
        "about": run.recipe.about if run.recipe else "",
        "best_valid": run.best.selected if run.best else None,
        "selected": bool(run.recipe and (run.recipe.train.select or "").startswith("valid")),
        "findings": words.findings(test) if test else [],
        "warnings": _warnings(run),
        "pictures": _pictures(run),
        "most_pictures": UNFOLDED,
        "copies": words.COPIES,
        "curves": curve_charts([run], [""]),
        "diagnosis": run.diagnosis,
        "classes_chart": _classes_chart(test) if test else "",
        "shades": _shades(test.confusion) if test else [],
        "reliability_chart": _reliability_chart(test) if test else "",
        "mistakes": [_explanation(mistake, run) for mistake in inspection.mistakes],
        "no_grad_cam": inspection.no_grad_cam,
        "network_pictures": _network_pictures(inspection),
        "data": _data(run),
        "checked": run.last(ImagesChecked),
        "check_command": command("check", run.path),
        "choices": derived.choices if (derived := run.last(RecipeDerived)) else (),
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
    if kept := run.last(Kept):
        found.append(str(kept))
    if run.test and run.test.opened > 1:
        found.append(
            f"This run has opened its test split {run.test.opened} times. "
            "It is no longer an unbiased test of anything changed after looking at it."
        )
    return found


# ── images ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Inlined:
    """An image on the page.

    Args:
        uri: Its file, inlined.
        alt: Its description.
        width: In pixels of the page.
        height: Likewise.
    """

    uri: str
    alt: str
    width: int
    height: int


def as_uri(content: bytes, kind: str = "png") -> str:
    """Return an image file as the address of an inlined image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def inlined(picture_CHW: Tensor, alt: str) -> Inlined:
    """Inline a uint8 image: a small one enlarged as PNG, a large one reduced as JPEG."""
    image = sheet.as_image(picture_CHW)
    file = io.BytesIO()
    if max(image.size) <= PIXELATED:
        image.save(file, "png", optimize=True)
        scale = max(1, round(96 / max(image.size)))
        return Inlined(as_uri(file.getvalue()), alt, image.width * scale, image.height * scale)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    image.save(file, "jpeg", quality=85)
    return Inlined(as_uri(file.getvalue(), "jpeg"), alt, image.width, image.height)


def _figure(png: bytes, alt: str) -> Inlined:
    with Image.open(io.BytesIO(png)) as image:
        return Inlined(as_uri(png), alt, *image.size)


def _alt(example: Example) -> str:
    outcome = "correct" if example.correct else f"predicted as {example.predicted}"
    return f"Image {example.index:,} of the dataset: {example.label}, {outcome}"


def _pictures(run: Gathered) -> list[dict[str, Any]]:
    """Return each group of example images: heading, description, and numbered images."""
    if run.test is None:
        return []
    return [
        {
            "kind": kind,
            "heading": KINDS[kind][0],
            "description": KINDS[kind][1],
            "pictures": [
                (number, example, inlined(run.shown[example.index], _alt(example)))
                for number, example in enumerate(examples)
                if example.index in run.shown
            ],
        }
        for kind, examples in run.test.examples.all().items()
        if examples
    ]


def _explanation(mistake: ExplainedMistake, run: Gathered) -> dict[str, Any]:
    """Return a mistake's image, Grad-CAM and occlusion as panels, and their descriptions."""
    example, picture_CHW, predicted = (
        mistake.example,
        mistake.picture_CHW,
        mistake.example.predicted,
    )
    scale = max(1, round(96 / max(picture_CHW.shape[1:])))
    panels, descriptions = [("image", inlined(picture_CHW, _alt(example)))], list[str]()
    if mistake.cam is not None:
        heat = explanations.heat_overlay(picture_CHW, mistake.cam.heat_NHW[0], scale=scale)
        descriptions.append(heat_line(mistake.cam, predicted))
        panels.append(("Grad-CAM", _figure(heat, f"Grad-CAM for {predicted}: {descriptions[-1]}")))
    drops_HW = mistake.hidden.drops_HW / max(float(mistake.hidden.drops_HW.abs().max()), 0.01)
    drops = explanations.heat_overlay(picture_CHW, drops_HW, signed=True, scale=scale)
    classes = run.model.classes if run.model else ()
    descriptions.append(hidden_line(mistake.hidden, classes, predicted))
    panels.append(("occlusion", _figure(drops, f"Occlusion for {predicted}: {descriptions[-1]}")))
    return {
        "example": example,
        "panels": panels,
        "descriptions": [sentence(description) for description in descriptions[::-1]],
    }


def _network_pictures(inspection: Inspection) -> list[tuple[str, Inlined]]:
    """Draw the first layer's filters, and the feature maps of one image."""
    found: list[tuple[str, Inlined]] = []
    if filters := inspection.filters:
        png = explanations.filters(filters, f"filters of {filters.layer}")
        caption = f"The filters of the first layer, {filters.layer}."
        found.append((caption, _figure(png, caption)))
    if inspection.layers and (example := inspection.example):
        png = explanations.feature_maps(inspection.layers)
        caption = f"Feature maps of image {example.index:,} ({example.label})."
        found.append((caption, _figure(png, f"Feature maps. {_alt(example)}")))
    return found


# ── charts ───────────────────────────────────────────────────────────────────────────────────────


def curve_charts(runs: Sequence[Gathered], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a chart of loss and one of accuracy; the lines of several runs are named by a legend.

    Training is dashed beside validation.
    """
    found: list[tuple[str, Markup]] = []
    for field, unit, scale in (("loss", "nats per image", 1), ("accuracy", "%", 100)):
        lines = [
            line
            for number, (run, name) in enumerate(zip(runs, names, strict=True))
            for line in _lines(run, field, scale, name, "" if len(runs) == 1 else f"s{number % 8}")
        ]
        if lines:
            title = f"{field.capitalize()} by epoch, {', '.join(line.name for line in lines)}"
            mark = runs[0].best_epoch or None if len(runs) == 1 else None
            named = len(runs) == 1
            chart = charts.curves(lines, title, f"{field} ({unit})", mark, named=named)
            found.append((field, chart))
    return found


def _lines(run: Gathered, field: str, scale: int, name: str, color: str) -> list[charts.Line]:
    """Return a run's lines with a finite point: training, validation, averaged weights."""
    found: list[charts.Line] = []
    kinds = {"train": f"{color} training", "valid": color, "averaged": color} if color else {}
    parts = (("train", "training"), ("valid", "validation"), ("averaged", "averaged weights"))
    for part, full in parts:
        scores = [(epoch.number, getattr(epoch, part)) for epoch in run.epochs]
        points = [(n, getattr(one, field) * scale if one else math.nan) for n, one in scores]
        if any(math.isfinite(value) for _, value in points):
            full_name = f"{name} {full}" if name else full
            found.append(charts.Line(full_name, kinds.get(part, part), points))
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
    """Return each cell's count, its percentage of the row, and its shade from 0 to 10."""
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


# ── data, time, environment, commands ────────────────────────────────────────────────────────────


def _data(run: Gathered) -> dict[str, Any]:
    """Return the images per class and split, as far as the log and the test say."""
    loaded = run.last(DataLoaded)
    counts = loaded.counts if loaded else {}
    classes = [one.name for one in run.test.classes] if run.test else []
    if not classes and run.model:
        classes = list(run.model.classes)
    complete = {part: n for part, n in counts.items() if len(n) == len(classes) and sum(n)}
    return {
        "source": run.recipe.data.source if run.recipe else "",
        "warnings": data_warnings(run.recipe, loaded.differs or "" if loaded else "")
        if run.recipe
        else [],
        "sizes": {part: run.sizes.get(part, 0) for part in PARTS if run.sizes.get(part)},
        "counts": complete,
        "classes": classes,
    }


def _time(run: Gathered) -> dict[str, Any]:
    """Return where the seconds of the log went, and what took most of them."""
    train = sum(epoch.train_seconds for epoch in run.epochs)
    valid = sum(epoch.valid_seconds for epoch in run.epochs)
    prepare = sum(event.seconds for event in run.all(ExecutorChosen))
    trained = sum(event.seconds for event in run.all(Trained))
    tested, executor = run.last(Tested), run.last(ExecutorChosen)
    parts = [
        ("loading data", sum(event.seconds for event in run.all(DataLoaded))),
        ("setup and compilation", prepare),
        ("training steps", train),
        ("validation", valid),
        ("testing", tested.seconds if tested else 0.0),
        ("saving and other", max(0.0, trained - prepare - train - valid) if trained else 0.0),
    ]
    parts = [(name, seconds) for name, seconds in parts if seconds > 0]
    pictures = sum(epoch.train.count for epoch in run.epochs)
    if not train or not pictures:
        return {"parts": []}
    total = sum(seconds for _, seconds in parts)
    longest, seconds = max(parts, key=lambda part: part[1])
    flops = 6 * sum(layer.multiply_adds for layer in run.layers) * pictures / train
    threads = f", {plural(executor.threads, 'thread')}" if executor and executor.threads else ""
    return {
        "parts": parts,
        "total": total,
        "chart": charts.shares(parts, "Time by activity"),
        "longest": longest,
        "share": seconds / total,
        "rate": pictures / train,
        "gigaflops": flops / 1e9,
        "executor": f"{executor.name}{threads}" if executor else "",
    }


def _environment(run: Gathered) -> list[tuple[str, str]]:
    return [
        ("torch threads" if name == "threads" else name.replace("_", " "), str(value))
        for name, value in run.environment.items()
        if name != "command" and value not in (None, "")
    ]


def _commands(run: Gathered) -> dict[str, str]:
    """Return the command that made the run, and one that repeats it from its saved recipe."""
    given = run.environment.get("command")
    found = {"given": _shell(given) if isinstance(given, list) else "", "repeat": ""}
    if run.recipe and not run.imported:
        executor = run.last(ExecutorChosen)
        pinned = f" train.execute={executor.name}" if executor else ""
        device = run.environment.get("device")
        pinned += f" --device {_shell([device])}" if isinstance(device, str) else ""
        found["repeat"] = f"{command('train', run.path / 'recipe.toml')}{pinned} --test"
    return found


def _shell(arguments: Sequence[object]) -> str:
    """Return a command line as it would be typed; a leading ~/ stays unquoted."""
    return " ".join(
        word if word.startswith("~/") else command_line([word]) for word in map(str, arguments)
    )


# ── several runs ─────────────────────────────────────────────────────────────────────────────────


def runs_values(runs: Sequence[Gathered]) -> dict[str, Any]:
    """Return the values of the template of several runs: differing fields, classes, curves."""
    names = _distinct([run.name for run in runs])
    recipes = [run.recipe.affecting("weights", "results") if run.recipe else {} for run in runs]
    fields = sorted({field for recipe in recipes for field in recipe})
    rows = [(field, [str(recipe.get(field, "–")) for recipe in recipes]) for field in fields]
    results = [run.test.classes if run.test else () for run in runs]
    classes = dict.fromkeys(one.name for scores in results for one in scores)
    return {
        "names": names,
        "runs": runs,
        "differing": [(field, values) for field, values in rows if len(set(values)) > 1],
        "recalls": [
            (name, [next((one for one in scores if one.name == name), None) for scores in results])
            for name in classes
        ],
        "best": [run.best.selected if run.best else None for run in runs],
        "times": [_time(run) for run in runs],
        "curves": curve_charts(runs, names),
    }


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names, numbered where two are equal."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]
