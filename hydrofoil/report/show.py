"""Describes a dataset, a recipe or a run as text, JSON and a figure, for `show`.

Axes: N images, C channels, H rows, W columns.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.source import describe, load
from hydrofoil.data.split import PARTS, draw_split
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.models import build
from hydrofoil.models.code import Network, with_network
from hydrofoil.models.derived import recipe_of
from hydrofoil.models.summary import summarize
from hydrofoil.recipe.read import shipped_recipes
from hydrofoil.recipe.schema import why_early
from hydrofoil.recipe.source import is_path, known_as
from hydrofoil.report import figures, text
from hydrofoil.report.curves import learning_curves
from hydrofoil.run.commands import command
from hydrofoil.run.diagnosis import diverged, of_log, sentences
from hydrofoil.run.events import Imported, Kept
from hydrofoil.run.find import run_path
from hydrofoil.run.folder import Run
from hydrofoil.wording import plural


@dataclass(frozen=True)
class Shown:
    """The description of a dataset, recipe or run.

    Args:
        text: For the terminal.
        content: For JSON.
        png: A figure; empty if there is none.
        path: The figure's default path.
    """

    text: str
    content: dict[str, Any] = field(default_factory=dict[str, Any])
    png: bytes = b""
    path: Path = Path()


def show(
    what: str,
    overrides: Sequence[str] = (),
    data_root: str = "",
    class_name: str = "",
    pixels: int | None = None,
    watcher: Watcher | None = None,
    network: Network | None = None,
    full: bool = False,
) -> list[Shown]:
    """Describe a dataset, a recipe or a run folder; `digits` is both a dataset and a recipe.

    Args:
        what: The name, or a path.
        overrides: Of a recipe's fields.
        data_root: The datasets' folder.
        class_name: Show this class of a dataset.
        pixels: Show the pixel values of this image of a dataset.
        watcher: Follows a download.
        network: Takes the place of a recipe's model.
        full: All tables of a run's test.

    Raises:
        HydrofoilError: Nothing has that name, or the options do not fit it.
    """
    of_a_set = bool(class_name) or pixels is not None
    dataset = "" if overrides else _dataset(what)
    is_file = Path(what).is_file() and not dataset
    is_recipe = what in shipped_recipes() or what.endswith(".toml") or is_file
    is_recipe = is_recipe or bool(overrides and _dataset(what))
    if of_a_set and not _dataset(what):
        raise HydrofoilError(
            f"--class and --pixels show the images of a dataset, and '{what}' is not one."
        )
    if class_name and pixels is not None:
        raise HydrofoilError("--class and --pixels: expected one of them.")
    if overrides and not is_recipe:
        raise HydrofoilError(
            f"'{overrides[0]}' overrides a field of a recipe, and '{what}' is not one."
        )
    if dataset and pixels is not None:
        return [show_pixels(dataset, data_root, pixels, watcher)]
    shown = [show_set(dataset, data_root, class_name, watcher)] if dataset else []
    if is_recipe and not of_a_set:
        shown.append(show_recipe(what, overrides, network, data_root, watcher))
    if not shown and run_path(what).is_dir():
        shown.append(show_run(run_path(what), full=full))
    if not shown:
        known = {*SOURCES, *shipped_recipes()}
        raise HydrofoilError(f"unknown dataset, recipe or run '{what}'. {nearest(what, known)}")
    return shown


def _dataset(what: str) -> str:
    """Return the source of the dataset that a name or path stands for; empty if it is none."""
    if known := known_as(what):
        return known
    path = Path(what).expanduser()
    if what.endswith(".toml") or not path.exists() or (path / "recipe.toml").is_file():
        return ""
    return what if is_path(what) else f"./{what}"


def show_set(
    name: str, data_root: str, class_name: str = "", watcher: Watcher | None = None
) -> Shown:
    """Describe a dataset: sizes, counts per class and split, channel statistics, example images.

    Raises:
        HydrofoilError: The dataset or class is unknown, or its files are missing.
    """
    pictures = load(name, data_root, watcher)
    split = draw_split(pictures)
    means, deviations = pictures.channel_statistics(split.train)
    parts = {part: getattr(split, part) for part in PARTS if len(getattr(split, part))}
    if (
        not pictures.published_test and not pictures.published_valid
    ):  # a recipe draws its test split from these
        parts = {"all": split.train}
    counts = {
        part: dict(zip(pictures.classes, pictures.counts(at), strict=True))
        for part, at in parts.items()
    }
    content = {
        "source": name,
        "shape": list(pictures.shape),
        "hash": pictures.hash,
        "differs": pictures.differs,
        "counts": counts,
        "mean": means,
        "std": deviations,
    }
    # A tenth of the dataset fills every row, in the dataset's order.
    first_N = split.train[: max(len(split.train) // 10, 40 * pictures.K)]
    if is_path(name):  # whose images are sorted by class
        first_N = _first_of_each(pictures, split.train)
    path, png = figure_path(name), b""
    if class_name:
        path, png = (
            figure_path(name, class_name),
            _one_class(pictures, split.train, class_name),
        )
    else:
        labels_N = pictures.labels_N[first_N]
        png = figures.class_rows(
            pictures.pictures_NCHW[first_N],
            labels_N,
            pictures.classes,
            f"{name}: {'images' if 'all' in parts else 'training images'}",
        )
    return Shown(text.set_lines(pictures, counts, means, deviations), content, png, path)


def figure_path(name: str, *more: str) -> Path:
    """Return where the figure of a dataset is saved: in this folder, whatever its names hold."""
    stem = Path(name).resolve().name if is_path(name) else name
    return Path("-".join(re.sub(r"[^\w. -]", "-", part) for part in (stem, *more)) + ".png")


def _first_of_each(pictures: Pictures, index_N: Tensor) -> Tensor:
    """Return the indices of the first 40 images of each class."""
    labels_N = pictures.labels_N[index_N]
    return torch.cat([index_N[labels_N == label][:40] for label in range(pictures.K)])


def _one_class(pictures: Pictures, index_N: Any, class_name: str) -> bytes:
    """Draw the first hundred images of a class, each with its index in the dataset."""
    if class_name not in pictures.classes:
        raise HydrofoilError(
            f"unknown class '{class_name}' of {pictures.source}. "
            f"{nearest(class_name, pictures.classes)}"
        )
    wanted = pictures.labels_N[index_N] == pictures.classes.index(class_name)
    first_N = index_N[wanted][:100]
    numbers = [str(number) for number in first_N.tolist()]
    heading = f"{pictures.source}: {class_name}, by index"
    return figures.picture_grid(pictures.pictures_NCHW[first_N], numbers, heading=heading)


def show_pixels(name: str, data_root: str, number: int, watcher: Watcher | None = None) -> Shown:
    """Draw one image enlarged, with every pixel's value in its cell.

    Raises:
        HydrofoilError: The dataset has no image of that index.
    """
    pictures = load(name, data_root, watcher)
    if number >= len(pictures):
        raise HydrofoilError(
            f"--pixels {number}: expected an image of {name}, 0 to {len(pictures) - 1}."
        )
    label = pictures.classes[int(pictures.labels_N[number])]
    title = f"{name}, image {number}: class {label}"
    png = figures.pixel_values(pictures.pictures_NCHW[number], title)
    content = {"source": name, "picture": number, "class": label}
    picture_CHW = pictures.pictures_NCHW[number]
    lines = f"{title}{text.pixel_lines(picture_CHW)}"
    return Shown(lines, content, png, figure_path(name, "pixels", str(number)))


def show_recipe(
    name: str,
    overrides: Sequence[str] = (),
    given: Network | None = None,
    data_root: str = "",
    watcher: Watcher | None = None,
) -> Shown:
    """Describe a recipe and its network, layer by layer; data is loaded only to derive a recipe.

    Raises:
        HydrofoilError: The recipe is unknown or invalid, or its model does not fit its images.
    """
    read = recipe_of(name, overrides, data_root=data_root, watcher=watcher, network=given)
    recipe, images = with_network(read.recipe, given), read.pictures
    shape, classes = (images.shape, images.K) if images else describe(recipe.data)
    network = build(recipe, shape, [""] * classes, given).network
    layers = summarize(network, shape)
    said = "\n".join([text.recipe_lines(recipe), *(f"note: {line}" for line in read.notes)])
    said += f"\n\n{text.choices_table(read.choices)}" if read.choices else ""
    lines = f"{said}\n\n{text.layer_lines(layers, shape)}"
    content = {
        "recipe": recipe.model_dump(mode="json"),
        "notes": list(read.notes),
        "choices": [vars(choice) for choice in read.choices],
        "layers": [asdict(layer) for layer in layers],
    }
    return Shown(lines, content)


def step_line(content: dict[str, Any]) -> str:
    """Return what a step of a recipe costs, from the JSON of `show_recipe`."""
    image = sum(layer["multiply_adds"] for layer in content["layers"])
    batch = content["recipe"]["train"]["batch_size"]
    return (
        f"  a step of {batch:,} images: {image:,} multiply-adds × {batch:,} = {image * batch:,} "
        "forward, and about twice as many backward"
    )


def show_run(path: Path, *, full: bool = False) -> Shown:
    """Describe a run: its recipe, epochs and test, and draw its learning curves.

    Raises:
        HydrofoilError: The path is not a run folder, or the run is damaged.
    """
    run = Run.open(path)
    events, test, recipe = run.log.events(), run.results.test(), run.recipe
    epochs = run.epochs(events)
    imported = any(isinstance(event, Imported) for event in events)
    kept = next((event for event in events if isinstance(event, Kept)), None)
    lines = [text.recipe_lines(recipe)]
    lines += [text.split_line(recipe, run.split())] if run.has_split() else []
    lines += ["imported weights"] if imported else [str(kept)] if kept else []
    lines += [""]
    lines += text.epoch_lines(epochs, recipe)
    best = text.best_epoch(epochs, recipe)
    early = why_early(recipe.train, len(epochs), best.number if best else 0)
    missing = 0 if early else recipe.train.epochs - len(epochs)
    found = [] if imported else of_log(events, epochs, recipe)
    if stopped := diverged(events):
        lines += ["", str(found[0])]
        lines.append(
            f"It stopped in epoch {stopped.epoch} at step {stopped.step}, and resuming would stop "
            "there again: train it again."
        )
    elif missing > 0 and not imported and (kept is None or kept.resumable):
        lines.append(f"{plural(missing, 'epoch')} remaining: {command('resume', path)}")
    lines += ["", f"{early[:1].upper()}{early[1:]}."] if early else []
    said = epochs and not stopped
    lines += ["", *sentences(found, epochs, recipe, ended=False)] if said else []
    if test:
        lines += ["", text.test_lines(test, full=full)]
        lines += ["", text.emphasized(text.test_result_line(test))]
    elif best:
        lines += ["", text.emphasized(text.epochs_result(best))]
    if not test and (path / "best.safetensors").exists():
        lines.append(f"not tested yet: {command('test', path)}")
    content = {
        "run": str(path),
        "recipe": recipe.model_dump(mode="json"),
        "epochs": [epoch.to_dict() for epoch in epochs],
        "diagnosis": [finding.as_dict() for finding in found],
        "test": test.to_dict() if test else None,
    }
    png = learning_curves(epochs, f"{path.name}: learning curves") if epochs else b""
    return Shown("\n".join(lines), content, png, run.path / "figures" / "curves.png")
