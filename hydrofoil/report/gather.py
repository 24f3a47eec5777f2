"""Reads a run folder for its page: whatever is there, and what is missing or broken, in words.

Nothing but the folder is read: no data set, no training code.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hydrofoil.data.split import PARTS
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.models.summary import LayerSummary, summarize
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.schema import wrong_in_log, wrong_in_test
from hydrofoil.report.text import weights_of
from hydrofoil.run.commands import command
from hydrofoil.run.folder import Run

T = TypeVar("T")
OF_A_RUN = ("log.jsonl", "environment.json", "best.safetensors", "test.json", "split.npz")


@dataclass
class Gathered:
    """What a run folder holds.

    Args:
        path: Where it lies.
        recipe: None where it is broken.
        environment: Empty where it is missing.
        events: The log.
        epochs: Those of its events that are whole epochs.
        sizes: Pictures of each part of the split.
        test: test.json; None: untested, or broken.
        shown: The pictures that test.json names.
        model: With the best weights; None: there are none.
        best_epoch: Whose weights they are.
        layers: Of the network; empty where it is not known.
        missing: What is not there, or broken, in sentences.
    """

    path: Path
    recipe: Recipe | None = None
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    epochs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    test: dict[str, Any] | None = None
    shown: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    model: Classifier | None = None
    best_epoch: int = 0
    layers: list[LayerSummary] = field(default_factory=list[LayerSummary])
    missing: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def imported(self) -> bool:
        """Whether its weights came from elsewhere."""
        return any(event.get("event") == "imported" for event in self.events)

    @property
    def kept(self) -> dict[str, Any] | None:
        """The epoch whose weights are the best."""
        return next((one for one in self.epochs if one["epoch"] == self.best_epoch), None)

    def counted(self, event: str) -> dict[str, Any]:
        """Return the last event of a kind, or nothing."""
        return next((one for one in reversed(self.events) if one.get("event") == event), {})

    @property
    def broke(self) -> dict[str, Any]:
        """Where the training met a number that was not finite, if that is what ended it."""
        ends = ("not finite", "epoch", "trained", "stopped")
        last = [event for event in self.events if event.get("event") in ends][-1:]
        return last[0] if last and last[0]["event"] == "not finite" else {}

    def seconds(self, event: str) -> float:
        """Return the seconds of all events of a kind."""
        return sum(float(e.get("seconds", 0)) for e in self.events if e.get("event") == event)


def gather(path: Path, network: Network | None = None) -> Gathered:
    """Return what a run folder holds; what cannot be read is named and passed over.

    Raises:
        HydrofoilError: It is no run folder.
    """
    gathered = Gathered(path)

    def attempt(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except HydrofoilError as error:
            gathered.missing.append(str(error))
            return otherwise

    try:
        run = Run.open(path)
    except HydrofoilError as error:
        if not any((path / name).exists() for name in OF_A_RUN):
            raise
        gathered.missing.append(str(error))
        return gathered
    recipe = gathered.recipe = run.recipe
    gathered.environment = attempt(run.environment, {})
    gathered.events = attempt(lambda: checked_events(run), [])
    gathered.epochs = attempt(run.epochs, []) if gathered.events else []
    split = attempt(run.split, None) if run.has_split() else None
    gathered.sizes = {part: len(getattr(split, part)) for part in PARTS} if split else {}
    gathered.test = attempt(lambda: checked_test(run), None)
    gathered.shown = attempt(run.results.shown, {})
    gathered.model, gathered.best_epoch = attempt(
        lambda: run.weights.load(torch.device("cpu"), network), (None, 0)
    )
    if gathered.model is not None:
        gathered.layers = summarize(gathered.model.network, gathered.model.shape)
    _note_what_is_missing(gathered, recipe)
    return gathered


def checked_test(run: Run) -> dict[str, Any] | None:
    """Return test.json, if it was written by a hydrofoil that measured all that the page tells."""
    test = run.results.test()
    if test is not None and (wrong := older_or_changed(run, test)):
        raise HydrofoilError(wrong)
    return test


def older_or_changed(run: Run, test: Mapping[str, Any]) -> str:
    """Say what of test.json is not as `test` writes it now, and the cure; nothing if all is."""
    wrong = wrong_in_test(test)
    return wrong and (
        f"{run.path / 'test.json'}: written by an older hydrofoil, or changed: {wrong}.\n"
        f"Write it anew with: {command('test', run.path)}"
    )


def checked_events(run: Run) -> list[dict[str, Any]]:
    """Return the log, if all of it is what a run writes."""
    events = run.log.events()
    if wrong := wrong_in_log(events):
        raise HydrofoilError(f"{run.path / 'log.jsonl'}: changed, so it is passed over: {wrong}.")
    return events


def _note_what_is_missing(gathered: Gathered, recipe: Recipe) -> None:
    """Say what a finished and tested run would have and this one has not."""
    path, done = gathered.path, len(gathered.epochs)
    if not gathered.imported and done < recipe.train.epochs:
        unfinished = f"The training is not finished: {done} of {recipe.train.epochs} epochs.\n"
        broke = gathered.broke
        gathered.missing.append(
            f"{unfinished}It stopped in epoch {broke.get('epoch', '?')} at step "
            f"{broke.get('step', '?')}, where a loss or gradient was not finite, and would stop "
            "there again. Change the recipe: a smaller optimizer.lr, as a rule."
            if broke
            else f"{unfinished}Go on with: {command('resume', path)}"
        )
    if gathered.test is None and gathered.model is not None and gathered.sizes.get("test"):
        gathered.missing.append(f"Not tested yet.\nTest with: {command('test', path)}")
    test, model = gathered.test, gathered.model
    if test and not (path / "shown.npz").exists():
        gathered.missing.append(
            f"{path / 'shown.npz'}: missing, so the pictures that the test chose cannot be shown.\n"
            f"Write it anew with: {command('test', path)}"
        )
    if test and model and test["weights"] != model.weights_hash():
        gathered.missing.append(
            f"The test is of other weights ({weights_of(test['epoch'])}) than the best ones now "
            f"({weights_of(gathered.best_epoch)}).\nTest anew with: {command('test', path)}"
        )
