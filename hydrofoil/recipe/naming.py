"""What people type for a field, resolved by one rule that comes from the schema.

A dotted name is itself. A last name that only one section has stands for it: ``epochs`` is
``train.epochs``. A section with a name stands for that: ``optimizer=adam`` is
``optimizer.name=adam``. Dashes are underscores, capitals are small letters.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Recipe, members, toml_value

# Other words for a field, each of which can mean nothing else.
ALIASES = {
    "learning_rate": "optimizer.lr",
    "batch": "train.batch_size",
    "decay": "optimizer.weight_decay",
    "dataset": "data.source",
    "data": "data.source",
}


@cache
def field_names() -> tuple[str, ...]:
    """Return the dotted names of all fields of a recipe, whichever model and optimizer it has.

    >>> "train.epochs" in field_names() and "optimizer.betas" in field_names()
    True
    """
    names: dict[str, None] = {}
    for top in Recipe.model_fields:
        inside = [field for member in members(top) for field in member.model_fields]
        names |= dict.fromkeys([f"{top}.{field}" for field in inside] or [top])
    return tuple(names)


@cache
def short_names() -> dict[str, tuple[str, ...]]:
    """Return the dotted names that each short name may stand for; of one, it is a name for it.

    >>> short_names()["epochs"]
    ('train.epochs',)
    """
    homes: dict[str, tuple[str, ...]] = {alias: (name,) for alias, name in ALIASES.items()}
    for name in field_names():
        last = name.rpartition(".")[2]
        homes[last] = (*homes.get(last, ()), name)
    for top in Recipe.model_fields:
        if f"{top}.name" in field_names():
            homes[top] = (f"{top}.name",)
    homes["name"] = ("name",)  # the recipe's own
    return homes


def full_name(typed: str) -> str:
    """Return the dotted name of the field that was typed.

    A dotted name that no recipe has is returned as it is: the schema says what its section knows.

    Raises:
        HydrofoilError: No field has that name, or several sections have it.

    >>> full_name("epochs"), full_name("batch-size"), full_name("optimizer.learning_rate")
    ('train.epochs', 'train.batch_size', 'optimizer.lr')
    """
    name = typed.strip().lower().replace("-", "_")
    if name in field_names():
        return name
    section, _, last = name.rpartition(".")
    homes = short_names().get(last, ())
    if section:
        mine = [home for home in homes if home.startswith(f"{section}.")]
        return mine[0] if mine else name
    if len(homes) == 1:
        return homes[0]
    if homes:
        raise HydrofoilError(f"{typed}: several sections have it. Give one of {', '.join(homes)}.")
    raise HydrofoilError(f"{typed.strip()}: {unknown_field(name)}")


def unknown_field(name: str) -> str:
    """Return the error text for an unknown field."""
    close = get_close_matches(name, short_names(), n=3)
    # Of near names, one of about that length: "epoks" is rather epochs than eps.
    close.sort(key=lambda known: abs(len(known) - len(name)))
    homes = short_names()[close[0]] if close else ()
    hint = f" Did you mean {' or '.join(homes)}?" if homes else ""
    return f"no such field in a recipe.{hint}\nList all fields with: hydrofoil recipes --fields"


def is_field(typed: str) -> bool:
    """Return whether a word names a field of a recipe.

    >>> is_field("lr"), is_field("epoks")
    (True, False)
    """
    name = typed.strip().lower().replace("-", "_")
    return name in field_names() or len(short_names().get(name, ())) == 1


def overrides_of(fields: Mapping[str, Any]) -> list[str]:
    """Return overrides as `read_recipe` takes them, from fields and their values.

    Args:
        fields: Values by dotted or short name: strings, numbers, booleans, lists of them, paths, or
            NumPy's scalars and arrays.

    Raises:
        HydrofoilError: No such field, or a value that no field takes.

    >>> overrides_of({"epochs": 5, "lr": 0.1, "hidden": [64, 64]})
    ['train.epochs=5', 'optimizer.lr=0.1', 'model.hidden=[64, 64]']
    """
    return [f"{full_name(name)}={_text(name, value)}" for name, value in fields.items()]


def _text(name: str, value: object) -> str:
    """Return a Python value as TOML."""
    if isinstance(value, Path):
        value = str(value)
    elif hasattr(value, "tolist"):  # NumPy's and torch's
        value = cast("Any", value).tolist()
    if isinstance(value, tuple):
        value = list(cast("tuple[object, ...]", value))
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float) for item in items):
        raise HydrofoilError(
            f"{name} = {value!r}: expected a string, a number, true or false, or a list of them."
        )
    return toml_value(value)
