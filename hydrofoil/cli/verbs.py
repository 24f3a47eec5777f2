"""The verbs as a group: how `--help` arranges them, their other names, and the nearest one.

A verb that takes overrides also takes a recipe's fields as options, and its help lists the most
common ones.
"""

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

from hydrofoil.cli.fields import rewritten
from hydrofoil.errors import HydrofoilError, closest

# How --help arranges the verbs; one that is missing here comes last, under "More".
GROUPS: dict[str, tuple[str, ...]] = {
    "Train and test": ("train", "resume", "test", "compare", "tune", "new", "find-lr"),
    "Look": ("check", "runs", "recipes", "show", "report", "explain"),
    "Use a model": ("predict", "import"),
    "Measure": ("bench",),
    "Manage": ("cache",),
}
# What people type for a verb; --help does not list them.
ALIASES = {
    "eval": "test",
    "evaluate": "test",
    "fit": "train",
    "info": "show",
    "list": "ls",
    "plot": "show",
}
# Most used fields, each with an example that suits the recipe `digits`.
COMMON = (
    "epochs=3",
    "lr=0.01",
    "batch_size=16",
    "optimizer=adam",
    "schedule=cosine",
    "model=mlp",
    "hidden=64,32",
    "dropout=0.5",
    "train=1000",
    "valid=0.2",
)
WHERE = (
    "All of them: hydrofoil recipes --fields. Any of them also as an option: --epochs 3, "
    "--no-nesterov. Dotted names say the section: optimizer.lr=0.01."
)


class Verbs(TyperGroup):
    """hydrofoil's verbs."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb by its name or by another name for it."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that was typed.

        Raises:
            HydrofoilError: There is none of this name; the message has the nearest one.
        """
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise HydrofoilError(unknown_verb(args[0], set(self.commands)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs with their complete first sentences, in groups."""
        listed = {name: verb for name, verb in self.commands.items() if not verb.hidden}
        grouped = {name for names in GROUPS.values() for name in names}
        groups = GROUPS | {"More": tuple(name for name in listed if name not in grouped)}
        width = max(map(len, listed))
        for title, names in groups.items():
            rows = [(name.ljust(width), summary(listed[name])) for name in names if name in listed]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def unknown_verb(typed: str, verbs: set[str]) -> str:
    """Return what to say about a word that is not a verb."""
    from hydrofoil.recipe.read import shipped_recipes
    from hydrofoil.run.find import run_path

    if typed in shipped_recipes() or typed.endswith(".toml"):
        return f"'{typed}' is a recipe, where a verb was expected.\nTry: hydrofoil train {typed}"
    if (run_path(typed) / "recipe.toml").is_file():
        return f"'{typed}' is a run, where a verb was expected.\nTry: hydrofoil show {typed}"
    close = closest(typed.lower(), verbs | set(ALIASES))
    hint = f" Did you mean '{ALIASES.get(close, close)}'?" if close else ""
    return f"unknown verb '{typed}'.{hint}\nSee: hydrofoil --help"


def summary(verb: Any) -> str:
    """Return the first paragraph of a verb's help, on one line."""
    return " ".join((verb.help or "").partition("\n\n")[0].split())


def check_recipe(given: Mapping[str, Any]) -> None:
    """Read the recipe and the fields that a command line names.

    Raises:
        HydrofoilError: One of them is unknown, or a value does not fit.
    """
    from hydrofoil.recipe.naming import full_name
    from hydrofoil.recipe.read import read_recipe, shipped_recipes, source_of

    overrides = given.get("overrides") or list[str]()
    name = str(given.get("recipe_name") or given.get("what") or "")
    if name in shipped_recipes() or ("recipe_name" in given and not source_of(name)):
        read_recipe(name, overrides)
        return
    for field, equals, _ in (override.partition("=") for override in overrides):
        if equals:  # compare's sides have none
            full_name(re.sub(r"^[a-z]\.", "", field))  # b.lr is side B's


class Verb(TyperCommand):
    """A verb, which takes the fields of a recipe as options if it takes overrides."""

    def takes_fields(self) -> bool:
        """Return whether the verb takes overrides of a recipe's fields."""
        return any(parameter.name == "overrides" for parameter in self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite fields that were written as options, and put all overrides last."""
        ctx.meta["words"] = list(args)  # for completion
        if self.takes_fields():
            try:
                args = rewritten(args, self._arities())
            except HydrofoilError:
                if not ctx.resilient_parsing:
                    raise
                args = rewritten(args[:-1], self._arities())  # the last one's value is on its way
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; a mistake in a recipe is answered before anything heavy is imported."""
        if {"recipe_name", "overrides"} & set(ctx.params):
            check_recipe(ctx.params)
        return super().invoke(ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Offer the verb's options, and the fields of a recipe where it takes them."""
        items = super().shell_complete(ctx, incomplete)
        if not self.takes_fields():
            return items
        from hydrofoil.cli.completion import options_of_fields

        return items + options_of_fields(incomplete, super().shell_complete(ctx, "--"))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """End the help with the most common fields of a recipe, and where the others are."""
        if self.takes_fields():
            from hydrofoil.recipe.naming import choices, declarations, full_name

            rows = [
                (example, declarations()[name][0].description or ", ".join(choices(name)))
                for example in COMMON
                for name in [full_name(example.partition("=")[0])]
            ]
            with formatter.section("Fields of a recipe, such as"):
                formatter.write_dl(rows)
            formatter.write_paragraph()
            formatter.write_text(WHERE)
        super().format_epilog(ctx, formatter)

    def _arities(self) -> dict[str, int]:
        """Return how many words follow each of the verb's own options."""
        arities = {"--help": 0, "-h": 0}
        for parameter in self.params:
            takes = 0 if getattr(parameter, "is_flag", False) else max(parameter.nargs, 1)
            for name in (*parameter.opts, *parameter.secondary_opts):
                if name.startswith("-"):
                    arities[name] = takes
        return arities
