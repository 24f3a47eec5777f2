"""Reads a run folder for its page: whatever is there, and what is missing or broken, in words.

Nothing but the folder is read: no data set, no training code.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hydrofoil.data.split import PARTS
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import Epoch, TestResult
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.models.summary import LayerSummary, summarize
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.text import weights_of
from hydrofoil.run.commands import command
from hydrofoil.run.events import Event, Imported, Interrupted, NotFinite, Trained
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
        epochs: Those of its events that are epochs.
        sizes: Pictures of each part of the split.
        test: What `test` measured; None: untested, or damaged.
        shown: The pictures that test.json names.
        model: With the best weights; None: there are none.
        best_epoch: Whose weights they are.
        layers: Of the network; empty where it is not known.
        missing: What is not there, or broken, in sentences.
    """

    path: Path
    recipe: Recipe | None = None
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[Event] = field(default_factory=list[Event])
    epochs: list[Epoch] = field(default_factory=list[Epoch])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    test: TestResult | None = None
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
        return bool(self.all(Imported))

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights are the best."""
        return next((one for one in self.epochs if one.number == self.best_epoch), None)

    def all(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[T]) -> T | None:
        """Return the last event of a kind."""
        return next(iter(self.all(kind)[::-1]), None)

    @property
    def diverged(self) -> NotFinite | None:
        """Where training met a number that was not finite, if that is what ended it."""
        ends = [e for e in self.events if isinstance(e, NotFinite | Epoch | Trained | Interrupted)]
        return ends[-1] if ends and isinstance(ends[-1], NotFinite) else None


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
    gathered.events = attempt(run.log.events, [])
    gathered.epochs = attempt(run.epochs, []) if gathered.events else []
    split = attempt(run.split, None) if run.has_split() else None
    gathered.sizes = {part: len(getattr(split, part)) for part in PARTS} if split else {}
    gathered.test = attempt(run.results.test, None)
    gathered.shown = attempt(run.results.shown, {})
    gathered.model, gathered.best_epoch = attempt(
        lambda: run.weights.load(torch.device("cpu"), network), (None, 0)
    )
    if gathered.model is not None:
        gathered.layers = summarize(gathered.model.network, gathered.model.shape)
    _note_what_is_missing(gathered, recipe)
    return gathered


def _note_what_is_missing(gathered: Gathered, recipe: Recipe) -> None:
    """Say what a finished and tested run would have and this one has not."""
    path, done = gathered.path, len(gathered.epochs)
    if not gathered.imported and done < recipe.train.epochs:
        unfinished = f"Training is not finished: {done} of {recipe.train.epochs} epochs.\n"
        diverged = gathered.diverged
        gathered.missing.append(
            f"{unfinished}It stopped in epoch {diverged.epoch} at step {diverged.step}: a loss or "
            "gradient was not finite, and resuming would stop there again. "
            "Change the recipe, usually to a smaller optimizer.lr."
            if diverged
            else f"{unfinished}Resume with: {command('resume', path)}"
        )
    if gathered.test is None and gathered.model is not None and gathered.sizes.get("test"):
        gathered.missing.append(f"Not tested yet.\nTest with: {command('test', path)}")
    test, model = gathered.test, gathered.model
    if test and not (path / "shown.npz").exists():
        gathered.missing.append(
            f"{path / 'shown.npz'}: missing, so the test images cannot be shown.\n"
            f"Write it again with: {command('test', path)}"
        )
    if test and model and test.weights != model.weights_hash():
        gathered.missing.append(
            f"The test measured other weights ({weights_of(test.epoch)}) than the best weights now "
            f"({weights_of(gathered.best_epoch)}).\nTest again with: {command('test', path)}"
        )
