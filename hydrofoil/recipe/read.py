"""Read a recipe: TOML by name or path, with fields overridden by their dotted names."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from hydrofoil.errors import HydrofoilError, nearest, reason
from hydrofoil.recipe.errors import explain
from hydrofoil.recipe.naming import all_overrides, full_name, read_value
from hydrofoil.recipe.schema import Expect, Recipe, members, tags_of, toml_value
from hydrofoil.recipe.source import OF_ONE_DATASET, is_path, known_as

# What another model does not take over: sizes, and dropout, which stands elsewhere in each.
OF_ONE_MODEL = {"widths", "hidden", "depth", "stem", "preactivation", "dropout"}


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with hydrofoil.

    >>> "mnist-cnn" in shipped_recipes()
    True
    """
    folder = resources.files("hydrofoil.recipe")
    return sorted(
        file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")
    )


def source_of(name: str) -> str:
    """Return the images that a name or path stands for; empty if it stands for a recipe.

    A shipped recipe comes first, then a published dataset, then a file or folder.

    Raises:
        HydrofoilError: It is a run.

    >>> source_of("digits"), source_of("FashionMNIST"), source_of("./pets"), source_of("a.toml")
    ('', 'fashion-mnist', './pets', '')
    """
    if name in shipped_recipes() or name.endswith(".toml"):
        return ""
    if (Path(name) / "recipe.toml").is_file():
        raise HydrofoilError(
            f"{name}: a run, where a recipe or images were expected.\n"
            f"To train its recipe again: hydrofoil train {Path(name) / 'recipe.toml'}"
        )
    if is_path(name):
        return name
    return known_as(name) or (f"./{name}" if Path(name).exists() else "")


def recipe_text(name: str) -> str:
    """Return the TOML of a shipped recipe, by name, or of a file, by path.

    Raises:
        HydrofoilError: No recipe has that name, or the file cannot be read.
    """
    if name in shipped_recipes():
        return (resources.files("hydrofoil.recipe") / f"{name}.toml").read_text("utf-8")
    path = Path(name)
    if not (name.endswith(".toml") or path.is_dir()):
        raise HydrofoilError(
            f"unknown recipe '{name}'. {nearest(name, shipped_recipes())}\n"
            "Give your own recipe or images by their path: ./my-recipe.toml, ./pets"
        )
    if path.is_dir():
        images = name if is_path(name) else f"./{name}"
        raise HydrofoilError(
            f"{name}: a folder, where a recipe was expected.\n"
            f"To train on images in it: hydrofoil train {images}"
        )
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise HydrofoilError(f"{path}: the recipe cannot be read: {reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise HydrofoilError(f"{path}: expected UTF-8 text: {error.reason}.") from error


def read_recipe(
    name: str, overrides: Sequence[str] | Mapping[str, Any] = (), **fields: Any
) -> Recipe:
    """Read a shipped recipe by name, or a file by path, and override fields by dotted names.

    Args:
        name: A shipped name ("mnist-cnn") or a path ("./mine.toml").
        overrides: Such as "train.epochs=3" or "epochs=3", which `recipe.naming` resolves; values
            are TOML, and bare words are strings. Or values by dotted or short name.
        fields: The same as keywords.

    Raises:
        HydrofoilError: It names the unknown or invalid field, and what was expected.

    >>> read_recipe("mnist-cnn", ["train.epochs=1"]).train.epochs
    1
    >>> read_recipe("mnist-cnn", {"model.activation": "gelu"}, lr=0.1).optimizer.lr
    0.1
    """
    return parse_recipe(recipe_text(name), name, all_overrides(overrides, fields))


def as_recipe(given: Any) -> Recipe:
    """Return a recipe: itself, by name or path, or that of a run.

    Raises:
        HydrofoilError: There is no such recipe, or it is something else.
    """
    given = getattr(given, "recipe", given)
    if isinstance(given, str | Path):
        return read_recipe(str(given))
    if not isinstance(given, Recipe):
        raise HydrofoilError(
            f"recipe: got {type(given).__name__}: expected a name, a path or a Recipe.\n"
            'Type hf.read_recipe("digits"), for example.'
        )
    return given


def parse_recipe(text: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a text in TOML describes, with fields overridden by dotted names.

    Args:
        text: TOML.
        name: The source, for errors.
        overrides: As `read_recipe` takes them.

    Raises:
        HydrofoilError: It names the unknown or invalid field, and what was expected.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a thousand brackets
        raise HydrofoilError(f"{name}: not TOML: {_first_line(error)}.") from error
    return recipe_from(document, overrides, name)


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with fields overridden by dotted names.

    Raises:
        HydrofoilError: It names the unknown or invalid field, and what was expected.

    >>> override(read_recipe("mnist-cnn"), ["train.epochs=1"]).train.epochs
    1
    """
    document = recipe.model_dump(mode="json", exclude_none=True)
    return recipe_from(document, overrides, recipe.name)


def recipe_from(document: dict[str, Any], overrides: Sequence[str], name: str) -> Recipe:
    """Return the recipe of a document, which is changed; `name` is what errors call it."""
    # Names first: another model or optimizer leaves behind the file's fields that it does not know.
    given = [_field_and_value(override) for override in overrides]
    first = (".name", "data.source")
    for field, value in sorted(given, key=lambda pair: not pair[0].endswith(first)):
        _set(document, field, value)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise HydrofoilError(explain(error.errors(), document, name)) from error
    return _without_stale_result(recipe, {field for field, _ in given})


def _without_stale_result(recipe: Recipe, changed: set[str]) -> Recipe:
    """Drop what a recipe of the user's own expects if a field that affects results was changed.

    A shipped recipe keeps it: what was changed can be found out, and is said beside it.
    """
    effects = recipe.effects()
    matters = any(
        effects[field].what != "nothing" and not effects[field].per_run
        for field in (changed & effects.keys()) - {"augment.test_time"}  # beside the plain result
    )
    if not matters or recipe.name in shipped_recipes():
        return recipe
    return recipe.model_copy(update={"expect": Expect()})


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:120]


def _field_and_value(override: str) -> tuple[str, object]:
    """Return the dotted name of the field that an override sets, and the value."""
    typed, equals, text = override.partition("=")
    if not equals or not typed.strip():
        raise HydrofoilError(f"'{override}': expected FIELD=VALUE, such as epochs=3.")
    if any("\ud800" <= letter <= "\udfff" for letter in override):  # bytes that are not UTF-8
        raise HydrofoilError(f"{override!a}: not text in UTF-8: expected FIELD=VALUE.")
    if isinstance(section := read_value("", text), dict):  # as TOML writes one in a line
        return typed.strip(), cast("object", section)
    field = full_name(typed)
    return field, read_value(field, text)


def overridden(overrides: Sequence[str]) -> set[str]:
    """Return the dotted names of the fields that overrides set, those of whole sections included.

    >>> sorted(overridden(["lr=0.1", 'model={name="mlp"}']))
    ['model.name', 'optimizer.lr']
    """
    names: set[str] = set()
    for field, value in map(_field_and_value, overrides):
        names |= {f"{field}.{inner}" for inner in value} if isinstance(value, dict) else {field}
    return names


def _set(document: dict[str, Any], field: str, value: object) -> None:
    """Set one dotted field of a recipe, in place."""
    *sections, last = field.split(".")
    table = document
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise HydrofoilError(
                f"{field}: '{section}' is a field, not a section with fields in it."
            )
    before, table[last] = table.get(last), value
    if field == "data.source" and value != before and is_path(str(value)):
        # What the file says of its own dataset does not describe the user's images.
        for stray in OF_ONE_DATASET:
            table.pop(stray, None)
        for stray in ("about", "expect"):
            document.pop(stray, None)
    if last == "name" and sections in (["model"], ["optimizer"], ["schedule"]) and value != before:
        known = [set(m.model_fields) for m in members(sections[0]) if value in tags_of(m)]
        for stray in set(table) - _kept(sections[0], known[0]) if known else ():
            del table[stray]


def _kept(section: str, known: set[str]) -> set[str]:
    """Return the fields that a section keeps when it gets another name, of those that it has then.

    Another optimizer starts from its own defaults. Two models share fields, but sizes and
    dropout mean something else in each.
    """
    return {"optimizer": {"name"}, "model": known - OF_ONE_MODEL}.get(section, known)


def documented_fields() -> list[tuple[str, str, str, str]]:
    """Return all fields of a recipe: section, field, default as TOML or "", and meaning."""
    rows: list[tuple[str, str, str, str]] = []
    for top, declared in Recipe.model_fields.items():
        if not members(top):
            rows.append(("", top, _default(declared), declared.description or ""))
        for member in members(top):
            names = tags_of(member) if len(members(top)) > 1 else ()
            section = (
                f"[{top}] name = {' or '.join(map(toml_value, names))}" if names else f"[{top}]"
            )
            rows += [
                (section, name, _default(field), field.description or "")
                for name, field in member.model_fields.items()
                if field.description
            ] or [(section, "", "", member.__doc__ or "")]
    return rows


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None:
        return ""
    return toml_value(list(value) if isinstance(value, tuple) else value)
