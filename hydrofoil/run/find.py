"""A run by what people call it: a path, a name such as digits-1, or last."""

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from hydrofoil.errors import HydrofoilError

RUNS = Path("runs")
FOLDERS = (RUNS, RUNS / "compare")  # where trainings and comparisons make runs
LAST = "last"


def run_path(name: str | Path) -> Path:
    """Return the path of a run.

    An existing path is itself; a bare name is looked up in runs/ and runs/compare/, and `last` is
    the newest run in runs/. What cannot be found is returned as it is: opening it says so.
    """
    path = Path(name)
    if path.exists() or len(path.parts) != 1:
        return path
    if str(name) == LAST:
        runs = runs_in(RUNS)
        return runs[-1] if runs else path
    return next((folder / path for folder in FOLDERS if (folder / path).is_dir()), path)


def find_run_folder(name: str | Path) -> Path:
    """Return the path of a run that exists.

    Raises:
        HydrofoilError: The path is missing, a file, or not a run's folder; names near runs.
    """
    path = run_path(name)
    if path.is_file():
        raise HydrofoilError(f"{path}: a file, where a run folder was expected.{runs_beside(path)}")
    if not path.is_dir():
        raise HydrofoilError(f"{path}: no such run folder.{runs_beside(path)}")
    if not (path / "recipe.toml").is_file():
        raise HydrofoilError(
            f"{path}: not a run folder: it holds no recipe.toml.{runs_beside(path)}"
        )
    return path


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders directly inside a folder, oldest first."""
    found: list[tuple[float, str, Path]] = []
    for recipe in folder.glob("*/recipe.toml"):
        with suppress(OSError):  # removed a moment ago
            found.append((recipe.stat().st_mtime, recipe.parent.name, recipe.parent))
    return [path for _, _, path in sorted(found)]


def runs_beside(path: Path) -> str:
    """Name runs that may have been meant by a path that is none."""
    folder = next((at for at in (path, path.parent) if any(at.glob("*/recipe.toml"))), RUNS)
    runs = {run.name: str(run) for run in reversed(runs_in(folder))}
    near, newest = get_close_matches(path.name, runs, n=3), list(runs.values())
    if near:
        return f"\nDid you mean {' or '.join(runs[name] for name in near)}?"
    if newest:
        return f"\nThe latest runs there: {', '.join(newest[:4])}"
    return "\nCreate a run with: hydrofoil train RECIPE"
