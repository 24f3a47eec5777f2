"""What a name or path stands for: a recipe, or images from which one is derived.

Axes: N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hydrofoil.data.convert import as_pictures, as_split
from hydrofoil.data.listing import shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.source import load
from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.code import Network, with_network
from hydrofoil.models.mirror import mirrored
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.recipe.changes import base_of, optimizer_notes
from hydrofoil.recipe.derive import Choice, Derived, Facts, derive
from hydrofoil.recipe.read import (
    overridden,
    read_recipe,
    recipe_from,
    recipe_text,
    source_of,
)
from hydrofoil.recipe.schema import Data, Recipe
from hydrofoil.recipe.source import TEST, VALID, is_path, known_as
from hydrofoil.timing import CPU, Stopwatch


@dataclass(frozen=True)
class Named:
    """What a name or path stands for.

    Args:
        recipe: Read, or derived from images, with overrides.
        notes: For the user.
        choices: Those of a derived recipe, with reasons.
        pictures: The images; None: they are not read yet, since a recipe needs none.
        seconds: That reading them took.
        given: The images, if they were given in memory.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    pictures: Pictures | None = None
    seconds: float = 0.0
    given: Pictures | None = None


def recipe_of(
    name: str,
    overrides: Sequence[str] = (),
    *,
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    network: Network | None = None,
) -> Named:
    """Return the recipe that a name or path stands for, or one derived from the images there.

    Args:
        name: A shipped recipe's name, a recipe file, a published dataset or the user's own images.
        overrides: As `read_recipe` takes them.
        data_root: Where the published datasets are.
        watcher: Follows a download or decoding, and takes notes.
        network: The user's own network.

    Raises:
        HydrofoilError: Nothing has that name, or an override does not fit.
    """
    source = source_of(name)
    if not source:
        recipe = read_recipe(name, overrides)
        return Named(recipe, tuple(optimizer_notes(base_of(name), recipe, overrides)))
    data, clock = section_of(source, overrides), Stopwatch(CPU)
    pictures = load(data, data_root or data.root, watcher)
    seconds = clock.seconds()
    found = derived_from(pictures, overrides, source=source, network=network)
    return Named(found.recipe, (), found.choices, pictures, seconds)


def new_recipe(
    name: str,
    overrides: Sequence[str] = (),
    *,
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    network: Network | None = None,
) -> Derived:
    """Return a recipe derived from images, also where a recipe has the dataset's name.

    Args:
        name: A published dataset or the user's own images.
        overrides: As `read_recipe` takes them.
        data_root: Where the published datasets are.
        watcher: Follows a download or decoding, and takes notes.
        network: The user's own network.

    Raises:
        HydrofoilError: There are no such images, or an override does not fit.
    """
    source = known_as(name) or source_of(name)
    if not source:
        recipe_text(name)  # for its error
        raise HydrofoilError(
            f"{shown(name)}: a recipe, where images were expected.\n"
            f"Print it with: hydrofoil recipes {shown(name)}"
        )
    data = section_of(source, overrides)
    pictures = load(data, data_root or data.root, watcher)
    return derived_from(pictures, overrides, source=source, network=network)


def derived_from(
    pictures: Any,
    overrides: Sequence[str] = (),
    *,
    source: str = "",
    split: Any = None,
    network: Network | None = None,
) -> Derived:
    """Return a recipe derived from images.

    Args:
        pictures: As `hf.Pictures` takes them.
        overrides: As `read_recipe` takes them.
        source: What the recipe calls them; default: where they came from.
        split: Which of them train, validate and test, where that is decided.
        network: The user's own network.

    Raises:
        HydrofoilError: An override does not fit, or the network does not fit the images.
    """
    images = as_pictures(pictures)
    source = source or images.source
    data = section_of(source, overrides)
    training = None if split is None else len(as_split(split, images).train)
    facts = _facts(images, data, data_fields(overrides), training)
    if "augment.flip" not in overridden(overrides):
        facts = replace(facts, flip=_flip(images, data, split))

    def multiply_adds(recipe: Recipe) -> int:
        recipe = with_network(recipe, network)
        made = build(recipe, images.shape, images.classes, network).network
        return total_multiply_adds(made, images.shape)

    name = Path(source).expanduser().resolve().name if is_path(source) else source
    return derive(
        source, facts, overrides,
        multiply_adds=multiply_adds, own_network=network is not None, name=name,
    )  # fmt: skip


def _flip(pictures: Pictures, data: Data, split: Any) -> tuple[str, str]:
    """Choose augment.flip by whether mirrored images are recognized; given test images stay out."""
    held_out = 0 if data.merge else pictures.published_test + pictures.published_valid
    index_N = torch.arange(len(pictures) - held_out)
    if split is not None:
        index_N = as_split(split, pictures).train.sort().values
    found = mirrored(pictures, index_N)
    return found.flip, found.reason


def section_of(source: str, overrides: Sequence[str]) -> Data:
    """Return the section [data] that the overrides give for a source.

    Raises:
        HydrofoilError: They name another source, or a value does not fit.
    """
    if "data.source" in overridden(overrides):
        raise HydrofoilError(
            f"data.source: given twice: the recipe is derived from {shown(source)}.\n"
            "Give one source, or the name of a recipe before data.source=…"
        )
    document = {
        "name": "any",
        "data": {"source": source},
        "model": {"name": "mlp"},
        "train": {"epochs": 1, "batch_size": 1},
        "optimizer": {"name": "sgd"},
    }
    of_data = [text for text in overrides if overridden([text]) & data_fields(overrides)]
    return recipe_from(document, of_data, shown(source)).data


def data_fields(overrides: Sequence[str]) -> set[str]:
    """Return the fields of [data] that overrides set, by dotted name."""
    return {name for name in overridden(overrides) if name.startswith("data.")}


def _facts(pictures: Pictures, data: Data, given: set[str], training: int | None) -> Facts:
    """Return what a recipe is derived from; it does not depend on the seed.

    Args:
        pictures: The set.
        data: What the user gives of [data].
        given: The dotted names of those fields.
        training: How many images train, where a split is given.
    """
    own = {} if data.merge else {"valid": pictures.published_valid, "test": pictures.published_test}
    rest = len(pictures) - sum(own.values())
    parts: dict[str, float] = {}
    for part, usual in (("valid", VALID), ("test", TEST)):
        chosen = usual if round(usual * rest) and not own.get(part) and training is None else 0.0
        parts[part] = (getattr(data, part) or 0.0) if f"data.{part}" in given else chosen
    images = rest - sum(round(share * rest) for share in parts.values())
    if training is not None:
        images = training
    elif data.train != "all":
        images = round(images * data.train) if data.train < 1 else min(images, int(data.train))
    counts = [count for count in pictures.counts(torch.arange(rest)) if count] or [1]
    why = next((note for note in pictures.notes if note.startswith("size ")), "")
    return Facts(
        shape=pictures.shape,
        classes=pictures.K,
        images=max(1, images),
        parts=parts,
        why_size=why.partition(": ")[2],
        imbalance=max(counts) / min(counts),
        normalization=None if is_path(data.source) else _normalization(pictures),
    )


def _normalization(pictures: Pictures) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation of all but the test images."""
    return pictures.normalization(torch.arange(len(pictures) - pictures.published_test))
