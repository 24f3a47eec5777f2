"""What people type for a field, resolved by one rule that comes from the schema.

A dotted name is itself. A last name that only one section has stands for it: ``epochs`` is
``train.epochs``. A section with a name stands for that: ``optimizer=adam`` is
``optimizer.name=adam``. Dashes are underscores, capitals are small letters.
"""

import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from hydrofoil.errors import HydrofoilError, closest
from hydrofoil.recipe.schema import Recipe, members, toml_value

# Other words for a field, each of which can mean nothing else.
ALIASES = {
    "learning_rate": "optimizer.lr",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "wd": "optimizer.weight_decay",
    "val": "data.valid",
    "validation": "data.valid",
    "dataset": "data.source",
    "data": "data.source",
}
TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@cache
def declarations() -> dict[str, tuple[FieldInfo, ...]]:
    """Return the declarations of every field, one for each model or optimizer, by dotted name."""
    found: dict[str, tuple[FieldInfo, ...]] = {}
    for top, declared in Recipe.model_fields.items():
        if not members(top):
            found[top] = (declared,)
        for member in members(top):
            for name, field in member.model_fields.items():
                found[f"{top}.{name}"] = (*found.get(f"{top}.{name}", ()), field)
    return found


def field_names() -> tuple[str, ...]:
    """Return the dotted names of all fields of a recipe, whichever model and optimizer it has.

    >>> "train.epochs" in field_names() and "optimizer.betas" in field_names()
    True
    """
    return tuple(declarations())


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
    name = _plain(typed)
    if name in field_names():
        return name
    section, dot, last = name.partition(".")
    if dot and section in Recipe.model_fields:
        mine = [home for home in short_names().get(last, ()) if home.startswith(f"{section}.")]
        return mine[0] if mine else name
    homes = short_names().get(name, ())
    if len(homes) == 1:
        return homes[0]
    if homes:
        raise HydrofoilError(f"{typed}: several sections have it. Give one of {', '.join(homes)}.")
    if name in Recipe.model_fields:
        inside = ", ".join(known for known in field_names() if known.startswith(f"{name}."))
        raise HydrofoilError(f"{name}: a section; expected one of its fields: {inside}.")
    raise HydrofoilError(f"{typed.strip()}: {unknown_field(name)}")


def short_name(dotted: str) -> str:
    """Return the shortest name of a field.

    >>> short_name("optimizer.lr"), short_name("optimizer.name"), short_name("name")
    ('lr', 'optimizer', 'name')
    """
    section, _, last = dotted.rpartition(".")
    short = section if section and last == "name" else last
    return short if short_names().get(short) == (dotted,) else dotted


def unknown_field(name: str) -> str:
    """Return the error text for an unknown field."""
    known = {each: each for each in field_names()}
    known |= {short: homes[0] for short, homes in short_names().items()}
    close = closest(name, known)
    hint = f" Did you mean {known[close]}?" if close else ""
    return f"no such field in a recipe.{hint}\nList all fields with: hydrofoil recipes --fields"


def is_field(typed: str) -> bool:
    """Return whether a word names a field of a recipe, perhaps one of several, or a section.

    >>> is_field("lr"), is_field("train.lr"), is_field("epoks")
    (True, True, False)
    """
    name = _plain(typed)
    section, dot, _ = name.partition(".")
    known = name in short_names() or name in field_names() or name in Recipe.model_fields
    return known or (bool(dot) and section in Recipe.model_fields)


def _plain(typed: str) -> str:
    """Return a name as fields are called; in a keyword of Python, __ stands for the dot."""
    return typed.strip().lower().replace("-", "_").replace("__", ".")


def kinds(dotted: str) -> set[type]:
    """Return the types that a field's value may have: bool, int, float, str, tuple.

    >>> kinds("train.epochs"), kinds("model.norm"), kinds("optimizer.betas")
    ({<class 'int'>}, {<class 'str'>}, {<class 'tuple'>})
    """
    return {kind for field in declarations().get(dotted, ()) for kind in _kinds(field.annotation)}


def _kinds(annotation: Any) -> set[type]:
    origin = get_origin(annotation)
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin is tuple:
        return {tuple}
    if isinstance(annotation, type):
        return {annotation} - {type(None)}
    return {kind for part in get_args(annotation) for kind in _kinds(part)}


def choices(dotted: str) -> list[str]:
    """Return the words among which a field's value is chosen; empty if it is free.

    >>> choices("schedule.name"), choices("train.epochs")
    (['constant', 'step', 'cosine', 'linear', 'one-cycle'], [])
    """
    found = [word for field in declarations().get(dotted, ()) for word in _words(field.annotation)]
    return list(dict.fromkeys(found))


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for part in get_args(annotation) for word in _words(part)]


def example(dotted: str) -> str:
    """Return a value that a field may have: one of its choices, its default, or one of its kind.

    >>> example("schedule.name"), example("train.epochs"), example("optimizer.lr")
    ('constant', '3', '0.001')
    """
    if words := choices(dotted):
        return words[0]
    defaults = (field.default for field in declarations()[dotted] if not field.is_required())
    default = next((value for value in defaults if value is not None and value != ""), None)
    if default is not None:
        return toml_value(list(default) if isinstance(default, tuple) else default).strip('"')
    return {int: "3", float: "0.1"}.get(next(iter(kinds(dotted))), "NAME")


def read_value(dotted: str, text: str) -> object:
    """Return the value that was typed for a field: TOML, or as people write it.

    Bare words are strings; .5 is 0.5; a list needs no brackets; True and yes are true; words to
    choose from may have capitals and underscores.

    >>> read_value("model.widths", "64,64"), read_value("optimizer.nesterov", "True")
    ([64, 64], True)
    >>> read_value("optimizer.lr", ".5"), read_value("data.root", "2024")
    (0.5, '2024')
    >>> read_value("optimizer.name", "Adam"), read_value("model.activation", "leaky_relu")
    ('adam', 'leaky-relu')
    """
    value, wanted = _value(text), kinds(dotted)
    if wanted == {bool}:
        word = str(value).lower()
        return True if word in TRUE else False if word in FALSE else value
    if wanted == {tuple} and isinstance(value, str) and "," in value:
        with suppress(ValueError, RecursionError):
            return tomllib.loads(f"value = [{value}]")["value"]
        return [_value(part.strip()) for part in value.split(",") if part.strip()]
    if wanted == {str} and isinstance(value, int | float) and not isinstance(value, bool):
        return text.strip()
    if isinstance(value, str) and value not in (known := choices(dotted)):
        return next((word for word in known if _folded(word) == _folded(value)), value)
    return value


def _folded(word: str) -> str:
    return word.lower().replace("_", "-")


def _value(text: str) -> object:
    """Read a value as TOML, or in a common short form: .5 for 0.5, cnn3 for "cnn3"."""
    with suppress(ValueError, RecursionError):
        return tomllib.loads(f"value = {text}")["value"]
    with suppress(ValueError):
        return float(text)
    return text


def overrides_of(fields: Mapping[str, Any]) -> list[str]:
    """Return overrides as `read_recipe` takes them, from fields and their values.

    Args:
        fields: Values by dotted or short name: strings, numbers, booleans, lists of them, paths, or
            NumPy's scalars and arrays; or a section's fields and values by its name.

    Raises:
        HydrofoilError: No such field, or a value that no field takes.

    >>> overrides_of({"epochs": 5, "lr": 0.1, "hidden": [64, 64]})
    ['train.epochs=5', 'optimizer.lr=0.1', 'model.hidden=[64, 64]']
    >>> overrides_of({"optimizer": {"name": "adam", "lr": 0.001}, "optimizer__eps": 1e-7})
    ['optimizer.name="adam"', 'optimizer.lr=0.001', 'optimizer.eps=1e-07']
    """
    found: list[str] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            section = cast("Mapping[str, Any]", value)
            found += overrides_of({f"{name}.{field}": each for field, each in section.items()})
        else:
            found.append(f"{full_name(name)}={_text(name, value)}")
    return found


def all_overrides(
    overrides: Sequence[str] | Mapping[str, Any], fields: Mapping[str, Any]
) -> list[str]:
    """Return overrides that are given as texts or as a mapping, then those given as keywords.

    Raises:
        HydrofoilError: As `overrides_of`; or one text, where a list of them was expected.

    >>> all_overrides(["epochs=5"], {"lr": 0.1}), all_overrides({"train.epochs": 5}, {})
    (['epochs=5', 'optimizer.lr=0.1'], ['train.epochs=5'])
    """
    if isinstance(overrides, str):
        raise HydrofoilError(f"overrides = {overrides!r}: expected a list: [{overrides!r}].")
    texts = overrides_of(overrides) if isinstance(overrides, Mapping) else list(overrides)
    return [*texts, *overrides_of(fields)]


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
