"""last.safetensors and previous.safetensors: all that resuming needs, best weights included."""

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.commands import command
from hydrofoil.run.files import Files
from hydrofoil.run.log import Log
from hydrofoil.run.manifest import Manifest
from hydrofoil.run.weights import (
    BEST,
    CHECKPOINTS,
    LAST,
    PREVIOUS,
    Weights,
    read_tensors,
    safetensors_bytes,
)

if TYPE_CHECKING:  # a reader of runs, such as the report, needs no training code
    from hydrofoil.train.state import State


class Checkpoints:
    """The last two checkpoints of one run.

    Args:
        files: Of the run.
        recipe: Of the run.
        log: Of the run; `load` drops what is newer than the checkpoint.
        weights: Of the run, saved with each checkpoint.
    """

    def __init__(self, files: Files, recipe: Recipe, log: Log, weights: Weights) -> None:
        self.files, self.recipe, self.path = files, recipe, files.path
        self.log, self.weights = log, weights

    def place(self) -> tuple[int, int]:
        """Return how many epochs, and steps of the next, the last checkpoint has completed.

        The manifest knows: no weights are read. Best weights alone are those of the last epoch: of
        a run that `hydrofoil.keep` made without a state.
        """
        for name in CHECKPOINTS:
            if entry := self.files.entry(name):
                return entry.epoch or 0, entry.step or 0
        return self.weights.epoch(), 0

    def epoch(self) -> int:
        """Return how many completed epochs a resumed run would not have to repeat."""
        return self.place()[0]

    def step(self) -> int:
        """Return how many steps of the next epoch it would not have to repeat."""
        return self.place()[1]

    def save(
        self,
        model: Classifier,
        tensors: Mapping[str, torch.Tensor],
        numbers: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint and its best weights.

        The best weights come first: best.safetensors is never behind the checkpoint. But a first
        checkpoint comes before them: best weights without a checkpoint mean that it was lost.

        Args:
            model: The model in training.
            tensors: What `State.tensors` returned, perhaps a while ago.
            numbers: What `State.numbers` returned then.
        """
        files: dict[str, bytes] = {}
        best, best_epoch = _part(tensors, "best/"), int(numbers["best_epoch"])
        if best and best_epoch != self.weights.epoch():
            files[BEST] = self.weights.to_bytes(model, best, best_epoch)
        # The numbers travel in the tensors' file, so that the two cannot come from two moments.
        metadata = {"numbers": json.dumps(numbers), "recipe": self.recipe.hash()}
        files[LAST] = safetensors_bytes(tensors, metadata)
        if not any((self.path / name).exists() for name in CHECKPOINTS):
            files = dict(reversed(files.items()))
        place = int(numbers["epoch"]), int(numbers["step"])
        self.files.write_all(
            files, aside={LAST: PREVIOUS}, places={LAST: place, BEST: (best_epoch, None)}
        )

    def load(self, model: Classifier, state: "State", *, only_read: bool = False) -> list[str]:
        """Put the last intact checkpoint into a fresh model and state, if there is one.

        Also restores best.safetensors to what it was then, and drops what the log has after it,
        unless `only_read`.

        Returns:
            Notes for the user: which file was damaged, and what was used instead.

        Raises:
            HydrofoilError: Checkpoints are missing, or all are damaged or another recipe's.
        """
        notes: list[str] = []
        broken: list[HydrofoilError] = []
        for name in CHECKPOINTS:
            if not (self.path / name).exists():
                notes += [f"{self.path / name}: missing"] if self._is_lost(name) else []
                continue
            try:
                self._restore(name, model, state)
            except HydrofoilError as error:
                broken.append(error)
                notes.append(str(error))
                continue
            if not only_read:
                self._put_best_back(model, state)
                self.log.forget_after(state.epoch, state.step)
            return [*notes, *([f"resuming from {name}"] if notes else [])]
        if broken:
            raise broken[0]
        if (self.path / BEST).exists():  # so there was a checkpoint: see `save`
            raise HydrofoilError(
                f"{self.path / LAST}: missing, so there is nothing to resume from.\n"
                f"Train again with: {command('train', self.path / 'recipe.toml')}"
            )
        if not only_read:
            self.log.forget_after(0)  # what was logged before a first save that did not end
        return [*notes, *(["no complete checkpoint: restarting from epoch 1"] if notes else [])]

    def _is_lost(self, name: str) -> bool:
        """Tell whether a missing file was there, and no process died while it was replaced."""
        return len(Manifest.read(self.path).files.get(name, ())) == 1

    def _restore(self, name: str, model: Classifier, state: "State") -> None:
        tensors, metadata = read_tensors(self.files, self.recipe, name)
        with self.files.parsing(name):
            numbers = json.loads(metadata["numbers"])
        try:
            with self.files.parsing(name):
                state.restore(model, tensors, numbers)
        except HydrofoilError as error:
            if str(self.path / name) in str(error):
                raise
            raise HydrofoilError(f"{self.path / name}: {error}") from error

    def _put_best_back(self, model: Classifier, state: "State") -> None:
        """Write the checkpoint's best weights to best.safetensors, unless they are there.

        A run that was killed in a save, or resumed differently, may have left another epoch's.
        """
        if not state.best:  # no epoch is finished
            return
        with contextlib.suppress(HydrofoilError):
            tensors, _ = read_tensors(self.files, self.recipe, BEST)
            same = tensors.keys() == state.best.keys() and all(
                torch.equal(tensor, state.best[name].cpu()) for name, tensor in tensors.items()
            )
            if same and self.weights.epoch() == state.best_epoch:
                return
        content = self.weights.to_bytes(model, state.best, state.best_epoch)
        self.files.write(BEST, content, epoch=state.best_epoch)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
