"""Datasets, recipes, epochs, tests and predictions as lines for the terminal; `cli` prints them.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download
from hydrofoil.data.source import merges_published_test
from hydrofoil.data.split import PARTS, Split
from hydrofoil.evaluate.result import Epoch, TestResult
from hydrofoil.evaluate.test import MERGED
from hydrofoil.models.summary import LayerSummary
from hydrofoil.recipe.read import documented_fields
from hydrofoil.recipe.schema import Recipe
from hydrofoil.ship.predict import Prediction
from hydrofoil.terminal import table
from hydrofoil.wording import by, interval, percent, percent_range, plural

NOTHING_HELD_OUT = (
    "note: there is no validation split, so the last epoch's weights are used, and there is no\n"
    "      estimate of accuracy on unseen images until `hydrofoil test`."
)


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
    return table(rows, left=5)


def recipe_lines(recipe: Recipe) -> str:
    """Describe a recipe's training in two lines, with its warnings."""
    train, optimizer = recipe.train, recipe.optimizer
    given = optimizer.model_dump(exclude={"name", "lr"}, exclude_defaults=True)
    options = ", ".join(f"{k} {v}" for k, v in {"lr": optimizer.lr, **given}.items())
    lines = [
        f"{recipe.name}: {recipe.about}",
        f"{optimizer.name}: {options}{_schedule_text(recipe)}; "
        f"{plural(train.epochs, 'epoch')}{_some_of_the_images(recipe)} "
        f"in batches of {train.batch_size}; "
        f"selects {selected_by(recipe)}; seed {train.seed}",
    ]
    if merges_published_test(recipe.data.source, recipe.data.merge):
        lines.append(f"warning: {MERGED}")
    if not recipe.data.valid:
        lines.append(NOTHING_HELD_OUT)
    return "\n".join(lines)


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
    return {
        "valid.loss": "the epoch of the lowest validation loss",
        "valid.accuracy": "the epoch of the highest validation accuracy",
    }.get(recipe.train.select or "last", "the last epoch")


def field_lines() -> str:
    """Describe every field that a recipe may have, section by section."""
    rows = documented_fields()
    width = max(len(field) for _, field, _, _ in rows)
    lines: list[str] = []
    for section, group in groupby(rows, key=lambda row: row[0]):
        lines += ["", section] if section else []
        for _, field, default, meaning in group:
            given = f" Default: {default}." if default else ""
            lines.append(f"{field:{width}}  {meaning}{given}" if field else meaning)
    return "\n".join(lines)


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


def epoch_line(epoch: Epoch, recipe: Recipe) -> str:
    """Return one epoch of the log as a line; the star marks the best weights so far.

    Where the recipe selects the last epoch, only that one has the star.
    """
    epochs = recipe.train.epochs
    best = epoch.best and (recipe.train.select != "last" or epoch.number == epochs)
    width = len(str(epochs))
    parts = [f"epoch {epoch.number:{width}d}/{epochs}"]
    for part, scores in (("train", epoch.train), ("valid", epoch.valid)):
        if scores:
            parts.append(f"{part} loss {scores.loss:.4f}  {percent(scores.accuracy):>7}")
    parts.append(f"{epoch.seconds:.2f} s")
    return "   ".join(parts) + ("  * best" if best else "")


def download_line(download: Download) -> str:
    """Return a download's progress, speed and remaining time.

    >>> download_line(Download("train.gz", "example.org", 30_000_000, 170_000_000, 70_000))
    'train.gz: 30.0 of 170.0 MB from example.org, 70 kB/s, 33:20 left'
    """
    left = "–"
    if download.rate:
        minutes, seconds = divmod(round((download.total - download.done) / download.rate), 60)
        left = f"{minutes}:{seconds:02d}"
    return (
        f"{download.name}: {download.done / 1e6:.1f} of {download.total / 1e6:.1f} MB "
        f"from {download.host}, {download.rate / 1e3:,.0f} kB/s, {left} left"
    )


def test_lines(test: TestResult) -> str:
    """Describe a test: accuracy with interval and counts, loss, per class, confusion."""
    lines = [
        f"test accuracy {percent(test.accuracy)} ({test.correct:,} of {test.count:,}), "
        f"{interval(test.interval)}",
        f"test loss {test.loss:.4f}; {weights_of(test.epoch)}",
    ]
    if test.top_5:
        among = f"{percent(test.top_5.accuracy)}, {interval(test.top_5.interval)}"
        lines.append(f"top-5 accuracy {among}")
    if test.expected_accuracy is not None:
        lines.append(f"the recipe expects {percent(test.expected_accuracy)}")
    if test.opened > 1:
        lines.append(
            f"note: this run has opened its test split {test.opened} times. "
            "It is no longer an unbiased test\n"
            "      of anything changed after looking at it."
        )
    lines += [f"warning: {warning}" for warning in test.warnings]
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
    lines += ["", table(rows)]
    if len(test.classes) <= 12:
        names = [scores.name for scores in test.classes]
        confusion: list[Sequence[object]] = [
            ["truth ↓  predicted →", *(name[:6] for name in names)]
        ]
        confusion += [[name, *row] for name, row in zip(names, test.confusion, strict=True)]
        lines += ["", table(confusion)]
    return "\n".join(lines)


def prediction_lines(path: str, prediction: Prediction, most: int = 5) -> str:
    """Describe a prediction: label, the most probable classes, and how the image was prepared."""
    ranked = list(prediction.probabilities.items())[:most]
    probabilities = "  ".join(f"{name} {percent(probability, 1)}" for name, probability in ranked)
    label = prediction.label or f"none of these (most probable: {prediction.most_probable})"
    lines = [f"{path}: {label}", f"  {probabilities}"]
    lines += [f"  {'; '.join(prediction.done)}"] if prediction.done else []
    return "\n".join([*lines, *(f"  note: {note}" for note in prediction.notes)])


def prediction_line(path: str, prediction: Prediction) -> str:
    """Describe a prediction in one line: label, probability and notes."""
    label = prediction.label or f"none of these (most probable: {prediction.most_probable})"
    notes = "".join(f"  note: {note}" for note in prediction.notes)
    return f"{path}: {label}  {percent(prediction.probability, 1)}{notes}"
