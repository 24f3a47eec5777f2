"""Reads a run folder for its page, and lists missing or damaged files.

Only the folder is read: no dataset, no training code.

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
from hydrofoil.run.diagnosis import diverged, of_log, sentences
from hydrofoil.run.events import Event, Imported, Kept, NotFinite
from hydrofoil.run.folder import Run

T = TypeVar("T")
OF_A_RUN = ("log.jsonl", "environment.json", "best.safetensors", "test.json", "split.npz")


@dataclass
class Gathered:
    """The content of a run folder.

    Args:
        path: The folder.
        recipe: None where it is damaged.
        environment: Empty where it is missing.
        events: The log.
        epochs: The log's epochs.
        sizes: The number of images of each split.
        test: The test result; None if untested or damaged.
        shown: The example images of test.json.
        model: The model with its best weights; None without weights.
        best_epoch: The epoch of the best weights.
        layers: The network's layers; empty if unknown.
        missing: Missing or damaged files and unfinished steps, in sentences.
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
        """Whether the weights were imported."""
        return bool(self.all(Imported))

    @property
    def resumable(self) -> bool:
        """Whether the training's state was saved."""
        kept = self.last(Kept)
        return kept is None or kept.resumable

    @property
    def best(self) -> Epoch | None:
        """The epoch with the best weights."""
        return next((epoch for epoch in self.epochs if epoch.number == self.best_epoch), None)

    def all(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[T]) -> T | None:
        """Return the last event of a kind."""
        return next(iter(self.all(kind)[::-1]), None)

    @property
    def diverged(self) -> NotFinite | None:
        """The non-finite loss or gradient that ended training, if one did."""
        return diverged(self.events)

    @property
    def diagnosis(self) -> list[str]:
        """What the learning curves show, in sentences."""
        if self.recipe is None or self.imported:
            return []
        found = of_log(self.events, self.epochs, self.recipe)
        return sentences(found, self.epochs, self.recipe)


def gather(path: Path, network: Network | None = None) -> Gathered:
    """Read a run folder; unreadable files are listed in `missing`.

    Raises:
        HydrofoilError: The path is not a run folder.
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
    """List what this run lacks, compared with a finished and tested one."""
    path, done = gathered.path, len(gathered.epochs)
    if not gathered.imported and not recipe.train.is_over(done, gathered.best_epoch):
        unfinished = f"Training is not finished: {done} of {recipe.train.epochs} epochs."
        if diverged := gathered.diverged:
            unfinished += (
                f"\nIt stopped in epoch {diverged.epoch} at step {diverged.step}: a loss or "
                "gradient was not finite, and resuming would stop there again. "
                "Change the recipe, usually to a smaller optimizer.lr."
            )
        elif gathered.resumable:
            unfinished += f"\nResume with: {command('resume', path)}"
        gathered.missing.append(unfinished)
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
            f"The test measured the {weights_of(test.epoch)}, not the current best weights "
            f"({weights_of(gathered.best_epoch)}).\nTest again with: {command('test', path)}"
        )
