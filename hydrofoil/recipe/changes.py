"""How a recipe differs from the one that it was made from, and what a change brings with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.read import overridden, read_recipe, shipped_recipes
from hydrofoil.recipe.schema import Recipe, dotted
from hydrofoil.wording import all_of

LEFT_OPEN = ("data.", "train.select")  # what a recipe may leave to the images
# What a run resolves when it starts: nobody changed it.
RESOLVED = ("train.execute", "train.threads", "train.init_sha256", "model.sha256")
# Every run of a recipe has its own seed; the other accuracy is reported beside the plain one.
NOT_CHANGES = (*RESOLVED, "train.seed", "augment.test_time")
OWN = ("name", "about", "expect.")  # what a recipe says of itself


def original(recipe: Recipe) -> Recipe | None:
    """Return the shipped recipe of that name; nothing if there is none."""
    return read_recipe(recipe.name) if recipe.name in shipped_recipes() else None


def changed_fields(base: Recipe, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return what each changed field was and is, by dotted name.

    Where a section has another name, the fields that only one of the two has are left out.

    >>> base = read_recipe("digits")
    >>> changed_fields(base, read_recipe("digits", ["epochs=3"]))
    {'train.epochs': (40, 3)}
    """
    before, after = (dotted(one.model_dump(mode="json")) for one in (base, recipe))
    return {
        name: (before[name], value)
        for name, value in after.items()
        if name in before
        and before[name] != value
        and not name.startswith(OWN)
        and not (name == "train.precision" and before[name] == "auto")
    }


def changes_text(recipe: Recipe) -> str:
    """Return how a recipe differs from the shipped one of its name; empty if it does not.

    What it says of itself and the accuracy that it expects hold for the shipped one.
    """
    base = original(recipe)
    if base is None:
        return ""
    effects = recipe.effects()
    return ", ".join(
        f"{name} {_value(before)} → {_value(now)}"
        for name, (before, now) in changed_fields(base, recipe).items()
        if name not in NOT_CHANGES and getattr(effects.get(name), "what", "") != "nothing"
    )


def _value(value: object) -> str:
    return "none" if value in (None, "") else str(value)


def agree(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether two recipes have the same values, by dotted name.

    A field of [data] without a value agrees with any: it is left to the user's images, and the run
    has what they gave. So does a precision that is left to the machine.

    >>> agree({"data.size": None}, {"data.size": (32, 32)}), agree({"lr": 0.1}, {"lr": 0.2})
    (True, False)
    """
    return ours.keys() == theirs.keys() and all(
        value == theirs[name]
        or (name.startswith(LEFT_OPEN) and None in (value, theirs[name]))
        or (name == "train.precision" and "auto" in (value, theirs[name]))
        for name, value in ours.items()
    )


def base_of(name: str) -> Recipe | None:
    """Return a recipe as it is without overrides; nothing if it needs them to be complete."""
    try:
        return read_recipe(name)
    except HydrofoilError:
        return None


def optimizer_notes(
    base: Recipe | None, recipe: Recipe, overrides: Sequence[str] = ()
) -> list[str]:
    """Say that another optimizer starts from its own defaults; nothing if it is the same one.

    >>> optimizer_notes(read_recipe("mnist-mlp"), read_recipe("mnist-mlp", ["optimizer=adam"]))
    ["optimizer.lr = 0.001, adam's default: the recipe's 0.01 was for sgd."]
    """
    if base is None or base.optimizer.name == recipe.optimizer.name:
        return []
    old, new = base.optimizer, recipe.optimizer
    given = overridden(overrides)
    default = f"{new.name}'s default: the recipe's {old.lr:g} was for {old.name}"
    first = "as given" if "optimizer.lr" in given else default
    left = [
        name if value is True else f"{name} {value}"
        for name, value in old
        if name not in ("name", "lr") and f"optimizer.{name}" not in given
        if value != type(old).model_fields[name].default
    ]
    are = "is" if len(left) == 1 else "are"
    more = f"; {old.name}'s {all_of(left)} {are} dropped" if left else ""
    return [f"optimizer.lr = {new.lr:g}, {first}{more}."]
