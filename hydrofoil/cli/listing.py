"""The verbs that list: runs, and `ls` for runs and recipes; neither imports torch."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydrofoil.cli.options import Json, app, argument, path_of
from hydrofoil.cli.printing import print_json, printer

if TYPE_CHECKING:
    from hydrofoil.run.listing import Listed

HEADINGS = ("run", "epochs", "  valid", "   test", "date", "recipe, and what was changed")


@app.command()
def runs(
    folder: Annotated[
        Path, argument("[FOLDER]", "Where the runs are; default: runs.", parser=path_of)
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs, the newest last: recipe, changed fields, epochs, accuracies, date."""
    from hydrofoil.run.listing import list_runs

    found = list_runs(folder)
    printer(as_json)(runs_table(folder, found))
    print_json(as_json, [run.as_dict() for run in found])


@app.command("ls", hidden=True)
def list_all(as_json: Json = False) -> None:
    """List the runs in runs/, and the shipped recipes."""
    from hydrofoil.recipe.read import read_recipe, shipped_recipes
    from hydrofoil.run.find import RUNS
    from hydrofoil.run.listing import list_runs
    from hydrofoil.terminal import table

    say, found = printer(as_json), list_runs(RUNS) if RUNS.is_dir() else []
    abouts = {name: read_recipe(name).about for name in shipped_recipes()}
    if found:
        say(f"{runs_table(RUNS, found)}\n")
    rows = [["recipe", "what it trains"], *map(list, abouts.items())]
    say(table(rows, left=2, flows=True))
    print_json(as_json, {"runs": [run.as_dict() for run in found], "recipes": abouts})


def runs_table(folder: Path, found: "list[Listed]") -> str:
    """Return runs as a table that fits the terminal."""
    from hydrofoil.terminal import table
    from hydrofoil.wording import percent, plural

    if not found:
        return f"{folder}: no runs.\nCreate a run with: hydrofoil train RECIPE"
    rows: list[list[Any]] = [list(HEADINGS)]
    for run in found:
        name = run.path.relative_to(folder).as_posix() if run.path != folder else run.path.name
        rows.append(
            [
                name, f"{_epochs(run):>6}", f"{percent(run.valid):>7}", f"{percent(run.test):>7}",
                _day(run.date), _what(run),
            ]
        )  # fmt: skip
    return f"{table(rows, left=len(HEADINGS), flows=True)}\n{folder}: {plural(len(found), 'run')}"


def _epochs(run: "Listed") -> str:
    """Return the number of epochs, of the planned ones where some are missing."""
    if not run.recipe or run.state == "imported":
        return "–"
    return f"{run.epochs}" if run.epochs >= run.planned else f"{run.epochs}/{run.planned}"


def _day(date: datetime | None) -> str:
    """Return the time of a run of today, else its date."""
    if date is None:
        return "–"
    return f"{date:%H:%M}" if date.date() == datetime.now().date() else f"{date:%Y-%m-%d}"


def _what(run: "Listed") -> str:
    """Return a run's recipe with the fields that were changed, and its state if it is special."""
    from hydrofoil.recipe.naming import short_name

    changed = ", ".join(
        f"{short_name(name)} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in run.changed.items()
    )
    parts = [run.recipe, changed, "" if run.state == "finished" else run.state]
    return ": ".join(part for part in parts[:2] if part) + (
        f"{'; ' if run.recipe else ''}{parts[2]}" if parts[2] else ""
    )
