"""The runs of a folder in a table, read from their small files without importing torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.changes import RESOLVED, changed_fields, original
from hydrofoil.recipe.read import parse_recipe
from hydrofoil.run.find import runs_in

MANIFEST = "manifest.json"  # as in manifest.py, which imports NumPy


@dataclass(frozen=True)
class Listed:
    """A run in the list.

    Args:
        path: Its folder.
        recipe: The recipe's name; empty if it cannot be read.
        changed: Fields that differ from the shipped recipe, or that the command line overrode.
        epochs: Epochs completed.
        planned: Epochs of the recipe.
        valid: Validation accuracy of the best weights.
        test: Test accuracy.
        date: When it began.
        state: finished, unfinished, imported, or what is wrong with it.
    """

    path: Path
    recipe: str = ""
    changed: dict[str, Any] = field(default_factory=dict[str, Any])
    epochs: int = 0
    planned: int = 0
    valid: float | None = None
    test: float | None = None
    date: datetime | None = None
    state: str = "finished"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON's own types."""
        return {**vars(self), "path": str(self.path), "date": self.date and self.date.isoformat()}


def list_runs(folder: Path) -> list[Listed]:
    """Return the runs in a folder and in its folders, oldest first; damaged ones say what is wrong.

    Raises:
        HydrofoilError: There is no such folder.
    """
    if not folder.is_dir():
        raise HydrofoilError(
            f"{folder}: no such folder, so there are no runs in it.\n"
            "Create a run with: hydrofoil train RECIPE"
        )
    if (folder / "recipe.toml").exists():
        return [_listed(folder)]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    begun = [
        Listed(path, date=_changed(path), state="unfinished: without a recipe.toml")
        for path in inside
        if not (path / "recipe.toml").exists() and (path / MANIFEST).exists()
    ]
    found = [_listed(run) for at in (folder, *inside) for run in runs_in(at)]
    return sorted([*begun, *found], key=lambda run: (run.date or datetime.min, str(run.path)))


def _changed(path: Path) -> datetime | None:
    """Return when a file was written; None if it is missing."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime)
    except OSError:
        return None


def _listed(path: Path) -> Listed:
    """Return what the list says about a run."""
    date = _changed(path / "environment.json") or _changed(path / "recipe.toml")
    try:
        return _read_run(path, date)
    except Exception as error:  # whatever a file holds that hydrofoil never wrote
        said = f"{error}".partition("\n")[0][:120]
        return Listed(path, date=date, state=f"damaged: {said}")


def _read_run(path: Path, date: datetime | None) -> Listed:
    """Return what a run's small files say; any exception means that one is damaged."""
    recipe = parse_recipe((path / "recipe.toml").read_text("utf-8"), "recipe.toml")
    events = list(_events(path / "log.jsonl"))
    test = _accuracy(_read(path / "test.json"))
    epochs = [event for event in events if event.get("event") == "epoch"]
    best = [event for event in epochs if event.get("best")]
    valid = _accuracy((best[-1].get("averaged") or best[-1].get("valid") or {}) if best else {})
    base = original(recipe)
    changed = {name: now for name, (_, now) in changed_fields(base, recipe).items()} if base else {}
    changed = {name: value for name, value in changed.items() if name not in RESOLVED}
    if not base:
        command = _read(path / "environment.json").get("command") or []
        changed = dict(word.split("=", 1) for word in command if "=" in word and word[0] != "-")
    number = int(best[-1].get("epoch", 0)) if best else 0
    state = "finished" if recipe.train.is_over(len(epochs), number) else "unfinished"
    kinds = [event.get("event") for event in events]
    ends = [kind for kind in kinds if kind in ("not finite", "epoch", "trained", "stopped")]
    if ends[-1:] == ["not finite"]:
        state = "diverged"
    if "imported" in kinds:
        state = "imported"
    return Listed(
        path, recipe.name, changed, len(epochs), recipe.train.epochs, valid, test, date, state
    )


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; an unfinished last line is ignored."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError("log.jsonl: a line is not an event")
            yield event


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty if the file is missing."""
    if not path.exists():
        return {}
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: not an object")
    return content


def _accuracy(scores: dict[str, Any]) -> float | None:
    count = scores.get("count")
    return scores.get("correct", 0) / count if count else None
