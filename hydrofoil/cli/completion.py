"""What the shell offers on the Tab key; answers without importing torch.

`hydrofoil --install-completion` sets it up for bash, zsh, fish and PowerShell.
"""

import os
from textwrap import shorten
from typing import Any

import typer

from hydrofoil.errors import HydrofoilError

Offer = tuple[str, str]  # a word, and what it means


def recipes(incomplete: str) -> list[Offer]:
    """Offer the shipped recipes."""
    from hydrofoil.recipe.read import read_recipe, shipped_recipes

    return [(name, shorten(read_recipe(name).about, 60)) for name in shipped_recipes()]


def runs(incomplete: str) -> list[Offer]:
    """Offer `last` and the runs in runs/, newest first, by name or as a path."""
    from hydrofoil.run.find import LAST, RUNS, runs_in

    found = runs_in(RUNS)[::-1]
    named = [(path.name, "") for path in found]
    paths = [(path.as_posix(), "") for path in found] if incomplete.startswith("runs") else []
    return ([(LAST, f"the newest run, {found[0]}")] if found else []) + named + paths


def recipes_and_runs(incomplete: str) -> list[Offer]:
    """Offer what `show` and `compare` take."""
    return [*recipes(incomplete), *runs(incomplete)]


def overrides(context: typer.Context, incomplete: str) -> list[Offer]:
    """Offer fields, and the values of a field that was named."""
    words: list[str] = context.meta.get("words", [])
    # bash splits words at =, and does not pass on one that ends the line.
    at_sign = not incomplete and os.environ.get("COMP_WORDS", "").rstrip().endswith("=")
    before = words[:-1] if words[-1:] == ["="] else words
    if before and (before != words or at_sign or _is_option(before)):
        return [(value, "") for value in values(before[-1].lstrip("-"))]
    name, equals, _ = incomplete.partition("=")
    if equals:
        return [(f"{name}={value}", "") for value in values(name)]
    return [(f"{field}=", meaning) for field, meaning in fields(dotted="." in incomplete)]


def _is_option(before: list[str]) -> bool:
    return bool(before) and before[-1].startswith("--") and "=" not in before[-1]


def fields(dotted: bool) -> list[Offer]:
    """Return the fields of a recipe, by dotted or by last names, with their meaning."""
    from hydrofoil.recipe.naming import declarations, short_names

    meanings = {name: found[0].description or "" for name, found in declarations().items()}
    if dotted:
        return list(meanings.items())
    unique = {short: homes[0] for short, homes in short_names().items() if len(homes) == 1}
    return [(short, meanings[name] or f"the {short}") for short, name in unique.items()]


def values(typed: str) -> list[str]:
    """Return the values of a field; none where they are not words to choose from."""
    from hydrofoil.recipe.naming import choices, full_name, kinds
    from hydrofoil.recipe.read import read_recipe, shipped_recipes

    try:
        name = full_name(typed)
    except HydrofoilError:
        return []
    if name == "data.source":
        return sorted({read_recipe(known).data.source for known in shipped_recipes()})
    return choices(name) or (["true", "false"] if kinds(name) == {bool} else [])


def options_of_fields(incomplete: str, items: list[Any]) -> list[Any]:
    """Return completion items for fields as options, of the class of the items given."""
    own = {item.value for item in items}
    offered = [(f"--{name.replace('_', '-')}", meaning) for name, meaning in fields(dotted=False)]
    return [
        type(items[0])(option, help=meaning)
        for option, meaning in offered
        if option.startswith(incomplete) and option not in own
    ]
