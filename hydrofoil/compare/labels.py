"""What sets the sides of a comparison apart, in a few words: "lr 0.001" against "lr 0.02"."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hydrofoil.compare.jobs import differing
from hydrofoil.recipe.naming import short_name
from hydrofoil.recipe.schema import Recipe

MOST_FIELDS = 3  # in a label; the page lists all
MOST_LETTERS = 48


def labels(given: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """Return a label for each side, no two of them the same.

    Recipes of other names are labeled by their names, recipes of one name by the fields in which
    they differ, and runs that differ in their seeds alone by their folders.

    Args:
        given: What the command names: a recipe, a run folder, a folder of runs, a pattern.
        recipes: The sides' recipes.

    >>> from hydrofoil.recipe.read import read_recipe
    >>> recipes = [read_recipe("digits", [f"lr={lr}"]) for lr in (0.02, 0.05)]
    >>> labels(["digits", "digits"], recipes)
    ['lr 0.02', 'lr 0.05']
    """
    names = [recipe.name for recipe in recipes]
    made: list[str] = []
    for name, recipe in zip(names, recipes, strict=True):
        alike = [other for other in recipes if other.name == name]
        changes = _changes_from_first(recipe, alike) or _changes(recipe, alike)
        first = [name] if len(set(names)) > 1 or not changes else []
        made.append(_shortened(", ".join(dict.fromkeys([*first, *changes]))))
    if len(set(made)) < len(made) and len(set(given)) == len(given):
        folders = _folders(given)
        made = [
            label if made.count(label) == 1 else _shortened(folder)
            for label, folder in zip(made, folders, strict=True)
        ]
    return [
        label if made.count(label) == 1 else f"{label} ({made[: place + 1].count(label)})"
        for place, label in enumerate(made)
    ]


def _changes(recipe: Recipe, alike: Sequence[Recipe]) -> list[str]:
    """Return the fields in which a recipe differs from others of its name, as short text.

    Fields that follow from the name of another model or optimizer are left out.
    """
    table = differing(*alike)
    place = next(number for number, other in enumerate(alike) if other is recipe)
    own = {name: values[place] for name, values in table.items() if not _follows(name, table)}
    own = {n: value for n, value in own.items() if value is not None or not _kinds(n, table)}
    hashes = [name for name in own if name.endswith("sha256")]
    if len(own) > len(hashes):  # a network's name says more than its hash
        own = {name: value for name, value in own.items() if name not in hashes}
    if "model.code" in own:
        own.pop("model.name", None)
    texts = [field_text(name, value) for name, value in own.items()]
    more = len(texts) - MOST_FIELDS
    return texts if more <= 1 else [*texts[:MOST_FIELDS], f"{more} more"]


def _changes_from_first(recipe: Recipe, alike: Sequence[Recipe]) -> list[str]:
    """Return the fields that a side changes of the first, where sides differ in too many to list.

    Of the first side, its name; nothing where all differences fit a label.
    """
    if len(alike) < 3 or all(len(_changes(one, alike)) <= MOST_FIELDS for one in alike):
        return []
    return [recipe.name] if recipe is alike[0] else _changes(recipe, [alike[0], recipe])


def _kinds(name: str, table: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Return each side's optimizer or model for a field of these; empty where it is the same."""
    return table.get(f"{name.partition('.')[0]}.name", ())


def _follows(name: str, table: Mapping[str, Sequence[Any]]) -> bool:
    """Tell whether a field has one value for each optimizer or model; learning rates are shown."""
    kinds = list(map(str, _kinds(name, table)))
    if not kinds or name.endswith((".name", ".code", ".lr")):
        return False
    pairs = set(zip(kinds, map(str, table[name]), strict=True))
    return len(pairs) == len(set(kinds))


def field_text(name: str, value: Any) -> str:
    """Return a field and its value in a few words.

    >>> field_text("optimizer.lr", 0.001), field_text("optimizer.name", "adam")
    ('lr 0.001', 'adam')
    >>> field_text("data.merge", True), field_text("model.widths", [64, 32])
    ('merge', 'widths 64, 32')
    """
    if name.endswith(".name") or name == "model.code":
        return str(value)
    short = short_name(name).replace("_", " ")
    if isinstance(value, bool):
        return short if value else f"no {short}"
    if name.endswith("sha256"):
        return f"{short} {str(value)[:8]}"
    return f"{short} {value_text(value)}"


def value_text(value: Any) -> str:
    """Return a field's value as a label shows it.

    >>> value_text(0.10000000149), value_text([8, 16]), value_text(None), value_text("")
    ('0.1', '8, 16', 'none', 'none')
    """
    if isinstance(value, list | tuple):
        items: Sequence[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(map(value_text, items)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)


def _folders(given: Sequence[str]) -> list[str]:
    """Return what was given without the folders that all of it is in."""
    paths = [os.path.normpath(what) for what in given]
    common = os.path.commonpath(paths) if _all_relative(paths) else ""
    left = [os.path.relpath(path, common) if common else path for path in paths]
    return [path.replace(os.sep, "/") for path in left]


def _all_relative(paths: Sequence[str]) -> bool:
    """Tell whether paths have a common folder that can be left out."""
    return len({PurePath(path).anchor for path in paths}) == 1 and len(set(paths)) > 1


def _shortened(label: str) -> str:
    """Return a label that fits a table: one that is too long loses its middle."""
    if len(label) <= MOST_LETTERS:
        return label
    begin = MOST_LETTERS * 2 // 3
    return f"{label[:begin].rstrip(' ,')}…{label[begin + 1 - MOST_LETTERS :]}"


def slug(label: str) -> str:
    """Return a label as part of a file's name, on every system.

    >>> slug("lr 0.02, widths 64, 32")
    'lr-0.02-widths-64-32'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:40].strip("-.")
