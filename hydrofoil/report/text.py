"""Datasets, recipes, epochs, tests and predictions as lines for the terminal; `cli` prints them.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TextIO

from torch import Tensor

from hydrofoil.data.listing import shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download
from hydrofoil.data.source import merges_published_test
from hydrofoil.data.split import PARTS, Split
from hydrofoil.evaluate.result import Epoch, TestResult
from hydrofoil.evaluate.test import MERGED
from hydrofoil.models.summary import LayerSummary
from hydrofoil.recipe.changes import changes_text
from hydrofoil.recipe.derive import Choice
from hydrofoil.recipe.read import documented_fields
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import is_path
from hydrofoil.report import words
from hydrofoil.ship.predict import Prediction
from hydrofoil.terminal import colored, length, shortened, table
from hydrofoil.terminal import columns as terminal_columns
from hydrofoil.wording import by, duration, interval, percent, percent_range, plural

NOTHING_HELD_OUT = (
    "note: there is no validation split, so the last epoch's weights are used, and there is no "
    "estimate of accuracy on unseen images until `hydrofoil test`."
)

DIFFERENT = 0.005  # a balanced accuracy is said in one line where it differs by so much
WEAKEST = 5  # classes in the short table of a test


def set_lines(
    pictures: Pictures,
    counts: Mapping[str, Mapping[str, int]],
    means: Sequence[float],
    deviations: Sequence[float],
) -> str:
    """Describe a dataset: size, hash, channel statistics, and each split's images per class."""
    classes: list[list[object]] = [
        [name, *(part[name] for part in counts.values())] for name in pictures.classes
    ]
    total = ["all", *(sum(part.values()) for part in counts.values())]
    megabytes = pictures.pictures_NCHW.numel() / 1e6
    return "\n".join(
        [
            f"{pictures.source}: {len(pictures):,} images of {by(pictures.shape)}, "
            f"{pictures.K} classes, uint8, {megabytes:.1f} MB",
            f"hash {pictures.hash}",
            f"channel means       {'  '.join(f'{mean:.4f}' for mean in means)}",
            f"channel deviations  {'  '.join(f'{deviation:.4f}' for deviation in deviations)}",
            "                    of training pixels scaled to [0, 1]",
            "",
            table([["class", *counts], *classes, total]),
        ]
    )


def pixel_lines(picture_CHW: Tensor) -> str:
    """Return the values of a small image's pixels below an empty line; nothing if it is too wide.

    Args:
        picture_CHW: uint8.
    """
    width, (channels, _, across) = terminal_columns(), picture_CHW.shape
    if channels > 1 or (width is not None and 4 * across - 1 > width):
        return ""
    rows = picture_CHW[0].tolist()
    return "\n\n" + "\n".join(" ".join(f"{value:3d}" for value in row) for row in rows)


def layer_lines(layers: Sequence[LayerSummary], shape: Sequence[int]) -> str:
    """Return a network's table: each layer's output, parameters and multiply-adds."""
    rows: list[list[object]] = [["layer", "", "output", "size", "parameters", "", "multiply-adds"]]
    rows.append(["images", "", by(shape), "", "", "", ""])
    for layer in layers:
        rows.append(
            [
                layer.name,
                layer.kind,
                by(layer.output),
                layer.arithmetic,
                layer.parameter_arithmetic,
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
            ]
        )
    parameters, multiply_adds = (
        sum(getattr(layer, f) for layer in layers) for f in ("parameters", "multiply_adds")
    )
    rows.append(["all", "", "", "", "", f"{parameters:,}", f"{multiply_adds:,}"])
    full, fitting = (table(rows, left=5, optional=o) for o in ((), (4, 3)))
    if fitting.partition("\n")[0].split() == full.partition("\n")[0].split():
        return fitting
    whole = max(map(length, table(rows, left=5, width=None).split("\n")))
    return (
        f"{fitting}\n(on a terminal of {whole} columns: also how sizes and parameters come about)"
    )


def recipe_lines(recipe: Recipe) -> str:
    """Describe a recipe's training, what was changed of the recipe's file, and its warnings."""
    train, optimizer = recipe.train, recipe.optimizer
    given = optimizer.model_dump(exclude={"name", "lr"}, exclude_defaults=True)
    options = ", ".join(f"{k} {v}" for k, v in {"lr": optimizer.lr, **given}.items())
    balanced = f"; balanced by {train.balance}" if train.balance != "none" else ""
    lines = [
        f"{recipe.name}: {recipe.about}" if recipe.about else recipe.name,
        *([f"  changed: {changed}"] if (changed := changes_text(recipe)) else []),
        f"{optimizer.name}: {options}{_schedule_text(recipe)}; "
        f"{plural(train.epochs, 'epoch')}{_some_of_the_images(recipe)} "
        f"in batches of {train.batch_size}; "
        f"selects {selected_by(recipe)}{balanced}; seed {train.seed}",
    ]
    if merges_published_test(recipe.data.source, recipe.data.merge):
        lines.append(f"warning: {MERGED}")
    if not (recipe.data.valid or is_path(recipe.data.source)):
        lines.append(NOTHING_HELD_OUT)
    return "\n".join(lines)


def choices_table(choices: Sequence[Choice], stream: TextIO | None = None) -> str:
    """Return what was chosen for a derived recipe, and why; for a stream, or standard output."""
    rows = [("field", "value", "reason"), *(choice.row for choice in choices)]
    return table(rows, 3, width=terminal_columns(stream), flows=True)


def _some_of_the_images(recipe: Recipe) -> str:
    """Return how many images train where they are not all of the training split."""
    some = recipe.data.train
    if some == "all":
        return ""
    return f" of {percent(some, 0)} of the images" if some < 1 else f" of {some:,} images"


def _schedule_text(recipe: Recipe) -> str:
    """Return the learning rate's schedule in words; nothing for a constant rate."""
    schedule = recipe.schedule
    options = schedule.model_dump(exclude={"name"}, exclude_defaults=True)
    if schedule.name == "constant" and not options:
        return ""
    given = "".join(f" {name} {value}" for name, value in options.items())
    return f", schedule {schedule.name}{given}"


def selected_by(recipe: Recipe) -> str:
    """Return which epoch's weights are used."""
    epoch = {
        "valid.loss": "the epoch of the lowest validation loss",
        "valid.accuracy": "the epoch of the highest validation accuracy",
    }.get(recipe.train.select or "last", "the last epoch")
    average = recipe.train.average
    return epoch if average == "none" else f"the averaged weights ({average}) of {epoch}"


def field_lines() -> str:
    """Describe every field that a recipe may have, section by section."""
    rows = documented_fields()
    width = max(len(field) for _, field, _, _ in rows)
    lines: list[str] = []
    for section, group in groupby(rows, key=lambda row: row[0]):
        lines += ["", section] if section else []
        for _, field, default, meaning in group:
            given = f" Default: {default}." if default else ""
            row = [f"{field:{width}}", f"{meaning}{given}"]
            lines.append(table([row], 2, flows=True) if field else meaning)
    return "\n".join(lines)


def recipes_lines(abouts: Mapping[str, str]) -> str:
    """List recipes, each with what it trains."""
    return table(list(abouts.items()), 2, flows=True)


def split_line(recipe: Recipe, split: Split) -> str:
    """Return how many images each split has."""
    counts = ", ".join(
        f"{len(getattr(split, part)):,} {part}" for part in PARTS if len(getattr(split, part))
    )
    return f"{recipe.data.source}: {counts}"


def weights_of(epoch: int) -> str:
    """Return the origin of weights: their epoch, or imported for epoch 0.

    >>> weights_of(0), weights_of(3)
    ('imported weights', 'weights of epoch 3')
    """
    return f"weights of epoch {epoch}" if epoch else "imported weights"


EPOCH_HEADING = ("epoch", "train loss", "accuracy", "valid loss", "accuracy", "seconds")
OF_AVERAGE = ("averaged", "accuracy")  # columns after those of validation


def epoch_heading(recipe: Recipe) -> str:
    """Return the heading over the lines of `epoch_line`."""
    return _epoch_row([*EPOCH_HEADING[:5], *_average_columns(recipe), EPOCH_HEADING[5]], recipe)


def epoch_line(epoch: Epoch, recipe: Recipe) -> str:
    """Return one epoch of the log as a line under `epoch_heading`."""
    cells = [f"{epoch.number}/{recipe.train.epochs}"]
    averaged = [epoch.averaged] if _average_columns(recipe) else []
    for scores in (epoch.train, epoch.valid, *averaged):
        cells += [f"{scores.loss:.4f}", percent(scores.accuracy)] if scores else ["–", "–"]
    return _epoch_row([*cells, f"{epoch.seconds:.2f}"], recipe)


def _epoch_row(cells: Sequence[str], recipe: Recipe) -> str:
    """Return cells in columns that are as wide in every epoch, so that a line can come alone."""
    first = max(5, 2 * len(str(recipe.train.epochs)) + 1)
    names = (*EPOCH_HEADING[1:5], *_average_columns(recipe), EPOCH_HEADING[5])
    widths = (first, *map(len, names))
    row = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    if not recipe.data.valid:
        row = [*row[:3], row[5]]
    return "  ".join(row)


def _average_columns(recipe: Recipe) -> tuple[str, ...]:
    """Return the headings of the averaged weights' validation; none: nothing is averaged."""
    return OF_AVERAGE if recipe.train.average != "none" and recipe.data.valid else ()


def epoch_lines(epochs: Sequence[Epoch], recipe: Recipe) -> list[str]:
    """Return all epochs of a run under their heading, the best one marked."""
    best = best_epoch(epochs, recipe)
    lines = [epoch_line(epoch, recipe) + ("  best" if epoch is best else "") for epoch in epochs]
    return [epoch_heading(recipe), *lines] if lines else []


def best_epoch(epochs: Sequence[Epoch], recipe: Recipe) -> Epoch | None:
    """Return the epoch of the best weights; where the last is selected, the last one trained."""
    marked = [epoch for epoch in epochs if epoch.best or recipe.train.select == "last"]
    return marked[-1] if marked else None


def epochs_result(epoch: Epoch) -> str:
    """Return the result of a training that is not tested, in one line."""
    scores, on = (epoch.train, "training")
    if epoch.selected:
        scores, on = epoch.selected, "validation"
    balanced = epoch.valid_balanced_accuracy if epoch.valid and not epoch.averaged else None
    return (
        f"{on} accuracy {percent(scores.accuracy)} ({scores.correct:,} of {scores.count:,}), "
        f"epoch {epoch.number}{balanced_text(scores.accuracy, balanced)}"
    )


def balanced_text(accuracy: float, balanced: float | None) -> str:
    """Return what to add to an accuracy that the balanced accuracy differs from.

    >>> balanced_text(0.95, 0.5), balanced_text(0.95, 0.949)
    ('; balanced 50.00%', '')
    """
    if balanced is None or abs(accuracy - balanced) < DIFFERENT:
        return ""
    return f"; balanced {percent(balanced)}"


def test_result_line(test: TestResult) -> str:
    """Return the result of a test in one line."""
    return (
        f"test accuracy {percent(test.accuracy)} ({test.correct:,} of {test.count:,}), "
        f"{interval(test.interval)}"
        f"{balanced_text(test.accuracy, test.balanced_accuracy)}"
    )


def emphasized(result: str) -> str:
    """Return a result as the last lines of the output show it, bold and colored on a terminal."""
    return colored(result, "bold", "green")


def download_line(download: Download) -> str:
    """Return a download's progress, speed and remaining time.

    >>> download_line(Download("train.gz", "example.org", 30_000_000, 170_000_000, 70_000))
    'train.gz: 30.0 of 170.0 MB, 33:20 left, 70 kB/s, from example.org'
    >>> download_line(Download("decoding", "", 500, 2_000, 100.0, "images"))
    'decoding: 500 of 2,000 images, 0:15 left, 100 images/s'
    """
    return f"{download.name}: {', '.join(download_words(download))}"


def download_words(download: Download) -> list[str]:
    """Return what `download_line` says, the most important first."""
    rate = download.rate
    left = duration((download.total - download.done) / rate) if rate else "–"
    if download.unit != "bytes":
        counted = f"{download.done:,} of {download.total:,} {download.unit}"
        return [counted, f"{left} left", f"{rate:,.0f} {download.unit}/s"]
    return [
        f"{download.done / 1e6:.1f} of {download.total / 1e6:.1f} MB",
        f"{left} left",
        f"{rate / 1e3:,.0f} kB/s",
        f"from {download.host}",
    ]


def test_lines(test: TestResult, *, full: bool) -> str:
    """Describe a test: accuracy with interval and counts, loss, and its weakest classes.

    Args:
        test: The result.
        full: All classes, with precision and F1, and the confusion matrix.
    """
    seen = sum(1 for scores in test.classes if scores.count)
    balanced = (
        f"balanced accuracy {percent(test.balanced_accuracy)} (mean recall of {seen} classes)"
    )
    lines = [
        test_result_line(test),
        f"{balanced}, {interval(test.balanced_interval)}",
        f"test loss {test.loss:.4f}; {weights_of(test.epoch)}",
    ]
    if test.top_5:
        among = f"{percent(test.top_5.accuracy)}, {interval(test.top_5.interval)}"
        lines.append(f"top-5 accuracy {among}")
    lines += [line] if (line := words.averaging_line(test)) else []
    lines += words.expectation(test)
    if test.opened > 1:
        lines.append(
            f"note: this run has opened its test split {test.opened} times. "
            "It is no longer an unbiased test of anything changed after looking at it."
        )
    lines += [f"warning: {warning}" for warning in test.warnings]
    lines += ["", *(_all_classes(test) if full else [_weakest_classes(test)])]
    return "\n".join(lines)


def _weakest_classes(test: TestResult) -> str:
    """Return the classes with the lowest recall, and what each is most often predicted as."""
    known = [(place, scores) for place, scores in enumerate(test.classes) if scores.count]
    known.sort(key=lambda one: one[1].recall or 0.0)
    rows: list[Sequence[object]] = [
        ["weakest classes", "recall", "correct", "95% interval", "confused with"]
    ]
    for place, scores in known[:WEAKEST]:
        others = [0 if other == place else n for other, n in enumerate(test.confusion[place])]
        most = max(others)
        name = test.classes[others.index(most)].name
        rows.append(
            [
                scores.name,
                percent(scores.recall),
                f"{scores.correct:,}/{scores.count:,}",
                percent_range(scores.interval),
                f"{name} ({most:,})" if most else "–",
            ]
        )
    return table(rows, optional=(3, 4))


def _all_classes(test: TestResult) -> list[str]:
    """Return the table of all classes, and the confusion matrix of few ones that fit."""
    rows: list[Sequence[object]] = [
        ["class", "recall", "correct", "count", "95% interval", "precision", "f1"]
    ]
    rows += [
        [
            scores.name,
            percent(scores.recall),
            f"{scores.correct:,}",
            f"{scores.count:,}",
            percent_range(scores.interval) if scores.count else "–",
            percent(scores.precision),
            percent(scores.f1),
        ]
        for scores in test.classes
    ]
    confusion = _confusion(test) if len(test.classes) <= 12 else ""
    return [table(rows, optional=(4, 3)), *(["", confusion] if confusion else [])]


def _confusion(test: TestResult) -> str:
    """Return the confusion matrix, with names as long as the terminal's width allows."""
    corner, names = "truth ↓  predicted →", [scores.name for scores in test.classes]
    digits = max(len(str(count)) for row in test.confusion for count in row)
    width, first = terminal_columns(), max(map(length, (corner, *names)))
    room = 6 if width is None else (width - min(first, 20)) // len(names) - 2
    cell = min(6, max(room, digits))
    rows: list[Sequence[object]] = [[corner, *(shortened(name, cell) for name in names)]]
    rows += [[name, *row] for name, row in zip(names, test.confusion, strict=True)]
    drawn = table(rows)
    fits = width is None or max(map(length, drawn.split("\n"))) <= width
    return drawn if fits else ""


def prediction_lines(path: str, prediction: Prediction, most: int = 5) -> str:
    """Describe a prediction: label, the most probable classes, and how the image was prepared."""
    ranked = list(prediction.probabilities.items())[:most]
    probabilities = "  ".join(f"{name} {percent(probability, 1)}" for name, probability in ranked)
    label = prediction.label or f"none of these (most probable: {prediction.most_probable})"
    lines = [f"{shown(path)}: {label}", f"  {probabilities}"]
    lines += [f"  {'; '.join(prediction.done)}"] if prediction.done else []
    return "\n".join([*lines, *(f"  note: {note}" for note in prediction.notes)])


def prediction_line(path: str, prediction: Prediction) -> str:
    """Describe a prediction in one line: label, probability and notes."""
    label = prediction.label or f"none of these (most probable: {prediction.most_probable})"
    notes = "".join(f"  note: {note}" for note in prediction.notes)
    return f"{shown(path)}: {label}  {percent(prediction.probability, 1)}{notes}"
