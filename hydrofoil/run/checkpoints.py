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
from hydrofoil.run.log import Log
from hydrofoil.run.manifest import Files, Manifest
from hydrofoil.run.weights import (
    BEST,
    CHECKPOINTS,
    MALFORMED,
    Weights,
    metadata_of,
    read_tensors,
    safetensors_bytes,
)

if TYPE_CHECKING:  # a reader of runs, such as the report, needs no training code
    from hydrofoil.train.state import State


class Checkpoints:
    """The last two checkpoints of one run.

    Args:
        files: Of the run.
        recipe: That it trains.
        log: Ends where the checkpoint that was read ends.
        weights: Are written with each checkpoint.
    """

    def __init__(self, files: Files, recipe: Recipe, log: Log, weights: Weights) -> None:
        self.files, self.recipe, self.path = files, recipe, files.path
        self.log, self.weights = log, weights

    def epoch(self) -> int:
        """Return how many epochs a resumed run would not have to repeat."""
        return int(self._last_numbers().get("epoch", 0))

    def step(self) -> int:
        """Return how many steps of the epoch after these it would not have to repeat."""
        return int(self._last_numbers().get("step", 0))

    def save(
        self,
        model: Classifier,
        tensors: Mapping[str, torch.Tensor],
        numbers: Mapping[str, Any],
    ) -> None:
        """Keep a checkpoint and the best weights that it tells of.

        The best weights come first: best.safetensors is never behind the checkpoint. But a first
        checkpoint comes before them: where there are best weights and no checkpoint, it was lost.

        Args:
            model: Whose training it is.
            tensors: What `State.tensors` returned, perhaps a while ago.
            numbers: What `State.numbers` returned then.
        """
        files: dict[str, bytes] = {}
        best, epoch = _part(tensors, "best/"), int(numbers["best_epoch"])
        if best and epoch != self.weights.epoch():
            files[BEST] = self.weights.to_bytes(model, best, epoch)
        # The numbers travel in the tensors' file, so that the two cannot come from two moments.
        metadata = {"numbers": json.dumps(numbers), "recipe": self.recipe.hash()}
        files["last.safetensors"] = safetensors_bytes(tensors, metadata)
        if not any((self.path / name).exists() for name in CHECKPOINTS):
            files = dict(reversed(files.items()))
        self.files.write_all(files, aside={"last.safetensors": "previous.safetensors"})

    def load(self, model: Classifier, state: "State", *, only_read: bool = False) -> list[str]:
        """Put the last whole checkpoint back into a fresh model and state, if there is one.

        Also lets best.safetensors be what it was then, and the log end there, unless it shall
        only read.

        Returns:
            What a person should know: which file was broken, and what was used instead.

        Raises:
            HydrofoilError: Checkpoints are missing, or all are broken or another recipe's.
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
            return [*notes, *([f"going on from {name}"] if notes else [])]
        if broken:
            raise broken[0]
        if (self.path / BEST).exists():  # so there was a checkpoint: see `save`
            raise HydrofoilError(
                f"{self.path / 'last.safetensors'}: missing, so there is nothing to go on from.\n"
                f"Train anew with: {command('train', self.path / 'recipe.toml')}"
            )
        if not only_read:
            self.log.forget_after(0)  # what was logged before a first save that did not end
        return [*notes, *(["beginning anew, as no epoch was whole"] if notes else [])]

    def _is_lost(self, name: str) -> bool:
        """Tell whether a missing file was there, and no process died while it was replaced."""
        known = Manifest.read(self.path)
        return known is not None and len(known.files.get(name, ())) == 1

    def _restore(self, name: str, model: Classifier, state: "State") -> None:
        tensors, metadata = read_tensors(self.files, self.recipe, name)
        try:
            numbers = _numbers(metadata)
        except MALFORMED as error:
            raise HydrofoilError(
                f"{self.path / name}: not a checkpoint that hydrofoil wrote: {error!r}."
            ) from error
        state.restore(model, tensors, numbers)

    def _put_best_back(self, model: Classifier, state: "State") -> None:
        """Write the best weights of the checkpoint, unless they lie there.

        A run that was killed in a save, or went on with other bits, may have left another epoch's.
        """
        if not state.best:  # checkpoints of older versions had none
            return
        with contextlib.suppress(HydrofoilError):
            tensors, _ = read_tensors(self.files, self.recipe, BEST)
            same = tensors.keys() == state.best.keys() and all(
                torch.equal(tensor, state.best[name].cpu()) for name, tensor in tensors.items()
            )
            if same and self.weights.epoch() == state.best_epoch:
                return
        self.files.write(BEST, self.weights.to_bytes(model, state.best, state.best_epoch))

    def _last_numbers(self) -> dict[str, Any]:
        """Return the numbers of the last checkpoint; nothing if there is none that is whole."""
        for name in CHECKPOINTS:
            with contextlib.suppress(HydrofoilError, *MALFORMED):
                return _numbers(metadata_of(self.files.read(name)))
        return {}


def _numbers(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the numbers of a checkpoint, as `State.numbers` gave them.

    Raises:
        ValueError: One is not of its kind; or one of `MALFORMED`.
    """
    numbers = dict(json.loads(metadata["numbers"]))
    step, best = numbers.get("step", 0), numbers["best_value"]
    told, told_count = numbers.get("told", (0.0, 0))
    loss, right, count = numbers.get("sums", (0.0, 0, 0))
    for one in (numbers["epoch"], step, numbers["best_epoch"], told_count, right, count):
        if type(one) is not int or not 0 <= one < 1 << 53:
            raise ValueError(f"{one!r} where a count was expected")
    for one in (numbers.get("seconds", 0.0), best or 0.0, told, loss):
        if type(one) not in (int, float) or not abs(one) < 1e300:
            raise ValueError(f"{one!r} where a finite number was expected")
    if bool(step) != bool(count) or told_count > count:
        raise ValueError(f"{step} steps of {count} pictures, of which {told_count} are told")
    return numbers


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
