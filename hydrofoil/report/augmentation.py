"""Draws what a network sees of some images with a recipe's augmentation, for `show --augment`.

Axes: N images, C channels, H rows, W columns, A numbers of an image's changes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.augment import augmented, check_size, fill_of, mixed
from hydrofoil.data.changes import draw_changes
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.source import load
from hydrofoil.data.split import draw_split
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.code import Network
from hydrofoil.models.derived import recipe_of
from hydrofoil.recipe.augment import Augment
from hydrofoil.recipe.read import shipped_recipes
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.figures import picture_grid
from hydrofoil.report.show import Shown, figure_path
from hydrofoil.wording import percent, plural

IMAGES, EPOCHS = 8, 8


def show_augmented(
    name: str,
    overrides: Any = (),
    data_root: str = "",
    watcher: Watcher | None = None,
    network: Network | None = None,
) -> Shown:
    """Draw training images as they are and as eight epochs change them: a row for each image.

    Args:
        name: A recipe, or images from which one is derived.
        overrides: Of its fields.
        data_root: The datasets' folder.
        watcher: Follows a download.
        network: The user's own network.

    Raises:
        HydrofoilError: The recipe changes no images, or they are not there.
    """
    read = recipe_of(name, overrides, data_root=data_root, watcher=watcher, network=network)
    recipe, spec = read.recipe, read.recipe.augment
    if not spec.active:
        raise HydrofoilError(
            f"{name}: its section [augment] changes nothing, so there is nothing to show.\n"
            f"Set a field of it: hydrofoil show {name} --augment flip=random shift=2"
        )
    pictures = read.pictures or load(recipe.data, data_root or recipe.data.root, watcher)
    check_size(spec, pictures.shape)
    train_N = draw_split(pictures, **recipe.split_options()).train
    index_N = _one_of_each_class(pictures, train_N)
    mean = recipe.data.mean or pictures.normalization(train_N)["mean"]
    rows, titles = _grid(pictures, index_N, recipe, fill_of(mean, pictures.shape[0]))
    said = ", ".join(settings(spec))
    heading = f"{recipe.name}: {said}"
    png = picture_grid(rows, titles, heading=heading, columns=1 + EPOCHS)
    content = {
        "recipe": recipe.name,
        "augment": spec.model_dump(mode="json"),
        "images": index_N.tolist(),
        "epochs": list(range(1, EPOCHS + 1)),
    }
    line = f"{plural(len(index_N), 'image')} as they are, then as epochs 1 to {EPOCHS} change them"
    path = figure_path(recipe.name if _is_recipe(name) else name, "augmented")
    return Shown(f"{heading}\n{line}", content, png, path)


def _is_recipe(name: str) -> bool:
    return name in shipped_recipes() or Path(name).suffix == ".toml"


def settings(spec: Augment) -> list[str]:
    """Return the fields that change images, as words.

    >>> settings(Augment(flip="random", shift=4, policy="randaugment"))
    ['flip random', 'shift 4', 'policy randaugment (2 operations, magnitude 9)']
    """
    said: list[str] = []
    for name, value in spec.model_dump(exclude={"test_time"}, exclude_defaults=True).items():
        if name == "policy" and value == "randaugment":
            of = f"{plural(spec.policy_operations, 'operation')}, magnitude"
            said.append(f"policy randaugment ({of} {spec.policy_magnitude})")
        elif not name.startswith("policy_"):
            said.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return said


def _one_of_each_class(pictures: Pictures, index_N: Tensor) -> Tensor:
    """Return the first images of up to eight classes; of fewer classes, several of each."""
    labels_N = pictures.labels_N[index_N]
    ranks_N = torch.zeros(len(index_N), dtype=torch.int64)
    for label in range(pictures.K):
        of_class = labels_N == label
        ranks_N[of_class] = torch.arange(int(of_class.sum()))
    order_N = (ranks_N * pictures.K + labels_N).argsort(stable=True)[:IMAGES]
    return index_N[order_N]


def _grid(
    pictures: Pictures, index_N: Tensor, recipe: Recipe, fill_C: Tensor
) -> tuple[Tensor, list[str]]:
    """Return the images row by row, and their titles."""
    spec, count = recipe.augment, len(index_N)
    plain_NCHW = pictures.pictures_NCHW[index_N]
    names = [pictures.classes[label] for label in pictures.labels_N[index_N].tolist()]
    columns, titles = [plain_NCHW], [names]
    for epoch in range(1, EPOCHS + 1):
        changes_NA = draw_changes(spec, recipe.train.seed, epoch, index_N, count, len(pictures))
        if changes_NA is None:
            raise ValueError("nothing is changed")
        made_NCHW = augmented(plain_NCHW, torch.arange(count), changes_NA, spec, fill_C)
        said = [f"epoch {epoch}"] * count
        if spec.mixes:
            made_NCHW, partner_N, share_N = mixed(made_NCHW, changes_NA, count)
            said = [
                f"{percent(share, 0)} {mine} ({percent(1 - share, 0)} {names[other]})"
                for share, mine, other in zip(
                    share_N.tolist(), names, partner_N.tolist(), strict=True
                )
            ]
        columns.append(made_NCHW)
        titles.append(said)
    rows_NCHW = torch.stack(columns, 1).flatten(0, 1)
    return rows_NCHW, [title for row in zip(*titles, strict=True) for title in row]
