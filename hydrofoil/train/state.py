"""What training carries from one epoch to the next beside the weights, and its form on disk.

Order and dropout are functions of (seed, epoch, step), so the rest is the optimiser's tensors and
three numbers.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from torch import Tensor

from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe import Recipe
from hydrofoil.train.optimizers import build_optimizer


@dataclass
class State:
    """The optimiser, how far training is, and the best epoch so far.

    Args:
        optimizer: Bound to the model's parameters.
        epoch: Epochs that are done.
        best_epoch: The one whose weights are best; 0: none yet.
        best_value: What the recipe selects by, there: lower is better; None where the last is kept.
        executor: What ran the steps; going on with another would end in other bits.
    """

    optimizer: torch.optim.Optimizer
    epoch: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    executor: str | None = None

    @classmethod
    def fresh(cls, model: Classifier, recipe: Recipe) -> "State":
        """Return the state before the first epoch."""
        return cls(build_optimizer(recipe.optimizer, model.network.parameters()))

    def finish(self, epoch: int, select: str | None, valid: Scores | None) -> bool:
        """Count an epoch as done, and tell whether it is the best so far; of equals, the first."""
        self.epoch = epoch
        value = None
        if valid is not None and select == "valid.loss":
            value = valid.loss
        if valid is not None and select == "valid.accuracy":
            value = -valid.accuracy
        before = self.best_value
        best = value is None or before is None or isnan(before) or value < before
        if best:
            self.best_epoch, self.best_value = epoch, value
        return best

    def tensors(self, model: Classifier) -> dict[str, Tensor]:
        """Return all tensors for resuming: "network/…" and "optimizer/<parameter>/<name>"."""
        tensors = {f"network/{name}": tensor for name, tensor in model.network.state_dict().items()}
        for name, parameter in model.network.named_parameters():
            for field, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:  # momentum 0 leaves its buffer empty
                    tensors[f"optimizer/{name}/{field}"] = torch.as_tensor(value)
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return what resuming needs beside the tensors, as last.json holds it."""
        names = ("epoch", "best_epoch", "best_value", "executor")
        return {name: getattr(self, name) for name in names}

    def restore(
        self, model: Classifier, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
    ) -> None:
        """Put back what `tensors` and `numbers` returned, into the model and this state.

        Raises:
            HydrofoilError: They are not such a state, or another model's.
        """
        weights = {
            n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")
        }
        model.load_weights(weights, "last.safetensors")
        parameters = dict(model.network.named_parameters())
        try:
            for name, tensor in tensors.items():
                if name.startswith("optimizer/"):
                    _, parameter, field = name.split("/")
                    # Adam counts its steps in a tensor that stays on the CPU.
                    place = tensor.device if field == "step" else model.device
                    self.optimizer.state[parameters[parameter]][field] = tensor.to(place)
            self.epoch, self.best_epoch = int(numbers["epoch"]), int(numbers["best_epoch"])
            best = numbers["best_value"]
            self.best_value = None if best is None else float(best)
            executor = numbers.get("executor", "eager")  # older runs knew no other
            self.executor = None if executor is None else str(executor)
        except (KeyError, ValueError, TypeError) as error:
            raise HydrofoilError(f"the last checkpoint is broken: {error!r}.") from error


@contextmanager
def unchanged(model: Classifier, optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Put weights and optimiser back afterwards, in place: steps inside were a trial.

    State that the trial's first step made stays, as zeros: torch would begin with the same.
    """
    tensors = [*model.network.parameters(), *model.network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    states = [optimizer.state[parameter] for parameter in model.network.parameters()]
    known = [{k: v.clone() for k, v in s.items() if isinstance(v, Tensor)} for s in states]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            for state, values in zip(states, known, strict=True):
                for name, tensor in state.items():
                    if isinstance(tensor, Tensor):
                        tensor.copy_(values[name]) if name in values else tensor.zero_()
        optimizer.zero_grad()
