"""Fills in what a recipe leaves to the user's images: size, parts, normalization, memory.

The run's recipe then has every field, so that it repeats itself.

Axes: N pictures, C channels, H rows, W columns.
"""

from typing import Any

import torch

from hydrofoil.data.listing import some_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.device import free_memory, on_cuda
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.timm import own_normalization
from hydrofoil.recipe.models import Timm
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import TEST, VALID, is_path
from hydrofoil.timing import CPU
from hydrofoil.wording import gigabytes, percent


def with_parts(recipe: Recipe, pictures: Pictures) -> tuple[Recipe, list[str]]:
    """Return a recipe that says which images validate and test, and notes for the user.

    Raises:
        HydrofoilError: train.select needs validation images, and there are none.
    """
    data = recipe.data
    if not is_path(data.source):
        return recipe, []
    given = (
        {} if data.merge else {"valid": pictures.published_valid, "test": pictures.published_test}
    )
    rest = len(pictures) - sum(given.values())
    changes: dict[str, Any] = {"size": data.size or pictures.shape[1:]}
    notes: list[str] = []
    for name, default in (("valid", VALID), ("test", TEST)):
        asked = getattr(data, name)
        chosen = default if round(default * rest) and not given.get(name) else 0.0
        changes[name] = chosen if asked is None else asked
        if asked is None and chosen:
            notes.append(f"data.{name} = {chosen:g}")
    if notes:
        notes = [f"{' and '.join(notes)}: the images have no such parts of their own"]
    held_out = bool(changes["valid"] or given.get("valid"))
    select = recipe.train.select or ("valid.loss" if held_out else "last")
    if select != "last" and not held_out:
        raise HydrofoilError(
            f'train.select = "{select}": expected "last", since no images are held out for '
            "validation.\nSet train.select=last, or set some aside with data.valid=0.1"
        )
    train = recipe.train.model_copy(update={"select": select})
    return recipe.model_copy(
        update={"data": data.model_copy(update=changes), "train": train}
    ), notes


def with_normalization(recipe: Recipe, pictures: Pictures, split: Split) -> Recipe:
    """Return a recipe with mean and deviation of the training images, unless it has its own.

    A network that starts from timm's weights always takes the one that they were trained with,
    and one that starts from a file (train.init) the recipe's.
    """
    model = recipe.model
    if isinstance(model, Timm) and model.pretrained and not recipe.train.init:
        changes = own_normalization(model, pictures.shape[0])
    elif recipe.data.mean is not None:
        return recipe
    else:
        changes = pictures.normalization(split.train)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def with_window(
    recipe: Recipe, pictures: Pictures, split: Split, device: torch.device
) -> tuple[Recipe, list[str]]:
    """Return a recipe that says how to read a set that does not fit in memory, and a note.

    The windows are part of the recipe because the order of an epoch is drawn within them: a run
    that is resumed with more memory draws the same order.

    Args:
        recipe: Decides by itself where data.resident is true or false.
        pictures: The dataset.
        split: Which images train.
        device: Where to train, so that the images have to fit there.
    """
    data, size = recipe.data, pictures.pictures_NCHW.numel()
    if data.resident:
        return recipe, []
    free = free_memory(device)
    held = device == CPU and not pictures.mapped  # a window would only need more memory
    large = free is not None and size > free / 2 and not held
    if data.resident is None and not large:
        return recipe, []
    window = data.window or _widest(recipe, pictures, split, device)
    changed = data.model_copy(update={"resident": False, "window": window})
    chosen = [] if data.resident is False else ["data.resident = false"]
    chosen += [] if window == data.window else [f"data.window = {window}"]
    why = "as wide as half of the free memory allows"
    if large:
        where = "the GPU's" if on_cuda(device) else "the"
        why = f"the images take {gigabytes(size)}, more than half of {where} free memory "
        why += f"({gigabytes(free or 0)})"
    notes = [f"{' and '.join(chosen)}: {why}"] if chosen else []
    return recipe.model_copy(update={"data": changed}), notes


def _widest(recipe: Recipe, pictures: Pictures, split: Split, device: torch.device) -> int:
    """Return how many images fit into a window, in whole batches; 0: all that train.

    Half of the free memory is for two windows: one is read by steps, and the next is filled. On a
    GPU the first lies there, and the second in the host's memory.
    """
    room = [free // (2 if on_cuda(device) else 4) for place in {device, CPU}
            if (free := free_memory(place)) is not None]  # fmt: skip
    batch_size, picture = recipe.train.batch_size, pictures.pictures_NCHW[0].numel()
    window = max(1, min(room, default=2**62) // (batch_size * picture)) * batch_size
    return window if window < len(split.train) else 0


def split_notes(pictures: Pictures, split: Split) -> list[str]:
    """Name the classes that are too small to be in every part that was drawn."""
    notes: list[str] = []
    given = {"valid": pictures.published_valid, "test": pictures.published_test}
    for part, kind in (("valid", "validation"), ("test", "test")):
        index_N = getattr(split, part)
        if not len(index_N) or given[part]:
            continue
        counts = pictures.counts(index_N)
        missing = [name for name, count in zip(pictures.classes, counts, strict=True) if not count]
        if missing:
            share = percent(len(index_N) / len(pictures), 0)
            notes.append(
                f"too few images for {share} {kind}: none of {some_of(missing)} is in that part"
            )
    return notes
