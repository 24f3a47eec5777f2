"""What training carries from step to step beside the weights, and its form on disk.

Order and dropout are functions of (seed, epoch, step), so the rest is the optimizer's tensors, the
best weights so far, and some numbers.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import torch
from torch import Tensor

from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Scores, Sums
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.given import as_classifier
from hydrofoil.recipe.read import as_recipe
from hydrofoil.train.average import Average, make_average
from hydrofoil.train.optimizers import FIRST_VALUES, build_optimizer, restore_slots, slots_of


@dataclass
class State:
    """The optimizer, how far training is, and the best epoch so far.

    Args:
        optimizer: Bound to the model's parameters.
        sums: Loss and correct predictions of the current epoch's steps.
        epoch: Completed epochs.
        step: Completed steps of the current epoch.
        seconds: Duration of those steps.
        logged: Sum of losses and number of images when the running loss was last logged.
        best_epoch: The epoch of the best weights; 0: none yet.
        best_value: The quantity that selects it: lower is better; None if the last epoch is kept.
        best: The best weights.
        average: The averaged weights; None: the recipe has none.
        executor: What ran the steps; a run that resumes with another is not bit-identical.
    """

    optimizer: torch.optim.Optimizer
    sums: Sums
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    logged: tuple[float, int] = (0.0, 0)
    best_epoch: int = 0
    best_value: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    average: Average | None = None
    executor: str | None = None

    def __repr__(self) -> str:
        return f"State({self.epoch} epochs and {self.step:,} steps done, best {self.best_epoch})"

    @classmethod
    def fresh(cls, model: Classifier, recipe: Any) -> "State":
        """Return the state before the first epoch, for a model that lies where it is trained."""
        model, recipe = as_classifier(model), as_recipe(recipe)
        optimizer = build_optimizer(recipe.optimizer, model.network)
        return cls(optimizer, Sums(model.device), average=make_average(recipe.train))

    def finish(
        self,
        model: Classifier,
        select: str | None,
        valid: Scores | None,
    ) -> bool:
        """Count an epoch as completed, and return whether it is the best; of equals, the first.

        Args:
            model: That is trained.
            select: As in the recipe.
            valid: On the validation images; of the averaged weights, if there are any: they are
                saved in place of the model's. The first average of SWA is the best in any case,
                as what came before is not averaged.
        """
        averaged = self.average.tensors if self.average else {}
        if self.average and self.average.count == 1 and not self.average.is_ema:
            self.best_value = None
        self.epoch += 1
        self.step, self.seconds, self.logged = 0, 0.0, (0.0, 0)
        self.sums.set_totals(0.0, 0, 0)
        value = None
        if valid is not None and select == "valid.loss":
            value = valid.loss
        if valid is not None and select == "valid.accuracy":
            value = -valid.accuracy
        before = self.best_value
        best = value is None or before is None or isnan(before) or value < before
        if best:
            self.best_epoch, self.best_value = self.epoch, value
            weights = averaged or model.network.state_dict()
            self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        return best

    def tensors(self, model: Classifier) -> dict[str, Tensor]:
        """Return all tensors for resuming: "network/…", "best/…", "optimizer/<parameter>/<name>".

        And "average/…", if weights are averaged.

        They are training's own tensors, not copies.
        """
        tensors = {f"network/{name}": tensor for name, tensor in model.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        if self.average:
            tensors |= {f"average/{name}": t for name, t in self.average.tensors.items()}
        slots = slots_of(self.optimizer, model.network)
        tensors |= {f"optimizer/{name}": tensor for name, tensor in slots.items()}
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return what resuming needs beside the tensors; waits for the device."""
        names = ("epoch", "step", "seconds", "logged", "best_epoch", "best_value", "executor")
        count = {"averaged": self.average.count} if self.average else {}
        known = {name: getattr(self, name) for name in names}
        return {**known, **count, "sums": self.sums.totals()}

    def restore(
        self, model: Classifier, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
    ) -> None:
        """Restore the model and this state from what `tensors` and `numbers` returned.

        Raises:
            HydrofoilError: They are incomplete, or of another model.
        """
        parts: dict[str, dict[str, Tensor]] = {
            "network": {}, "best": {}, "optimizer": {}, "average": {},
        }  # fmt: skip
        try:
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            model.load_weights(parts["network"], "the last checkpoint")
            for part in ("best", "average"):
                if parts[part] and parts[part].keys() != parts["network"].keys():
                    raise KeyError(f"{part}/…")
            self.best = {name: tensor.to(model.device) for name, tensor in parts["best"].items()}
            if self.average:
                self.average.count = int(numbers["averaged"])
                self.average.tensors = {n: t.to(model.device) for n, t in parts["average"].items()}
            restore_slots(self.optimizer, model.network, parts["optimizer"])
            self.epoch, self.best_epoch = int(numbers["epoch"]), int(numbers["best_epoch"])
            best = numbers["best_value"]
            self.best_value = None if best is None else float(best)
            executor = numbers.get("executor", "eager")
            self.executor = None if executor is None else str(executor)
            self.step = int(numbers.get("step", 0))
            self.seconds = float(numbers.get("seconds", 0))
            loss, count = numbers.get("logged", (0.0, 0))
            self.logged = float(loss), int(count)
            self.sums.set_totals(*numbers.get("sums", (0.0, 0, 0)))
        except (KeyError, ValueError, TypeError) as error:
            raise HydrofoilError(f"the last checkpoint is broken: {error!r}.") from error


class Snapshot:
    """A copy of weights, optimizer and sums at one moment, to be restored in place.

    Costs as much memory as they do, and the time to copy them.
    """

    def __init__(self, model: Classifier, state: State) -> None:
        self.model, self.state = model, state
        self.take()

    def take(self) -> None:
        """Copy everything as it is now."""
        self.tensors = [tensor.detach().clone() for tensor in self._weights()]
        average = self.state.average
        self.averaged = average.count if average else 0
        self.slots = [
            {name: value.clone() for name, value in slots.items() if isinstance(value, Tensor)}
            for slots in self._slots()
        ]
        self.take_sums()

    def take_sums(self) -> None:
        """Copy the sums and the number of the step alone."""
        sums = self.state.sums
        self.sums = sums.loss.clone(), sums.correct.clone(), sums.count
        self.step = self.state.step

    @torch.no_grad()
    def put_back(self) -> None:
        """Restore everything in place.

        Optimizer state that was created since then stays, with torch's initial values.
        """
        if self.state.average and self.state.average.is_ema:
            self.state.average.count = self.averaged
            if not self.averaged:
                self.state.average.tensors.clear()
        for tensor, value in zip(self._weights(), self.tensors, strict=True):
            tensor.copy_(value)
        for slots, values in zip(self._slots(), self.slots, strict=True):
            for name, tensor in slots.items():
                if isinstance(tensor, Tensor):
                    tensor.copy_(values[name]) if name in values else tensor.fill_(
                        FIRST_VALUES.get(name, 0.0)
                    )
        self.state.sums.loss.copy_(self.sums[0])
        self.state.sums.correct.copy_(self.sums[1])
        self.state.sums.count, self.state.step = self.sums[2], self.step
        self.state.optimizer.zero_grad()

    def _weights(self) -> list[Tensor]:
        average = self.state.average  # that of SWA changes between epochs alone
        averaged = average.tensors.values() if average and average.is_ema else ()
        return [*self.model.network.parameters(), *self.model.network.buffers(), *averaged]

    def _slots(self) -> list[dict[str, Any]]:
        return [self.state.optimizer.state[p] for p in self.model.network.parameters()]


@contextmanager
def unchanged(model: Classifier, optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Put weights and optimizer back afterwards, in place: steps inside were a trial."""
    before = Snapshot(model, State(optimizer, Sums(model.device)))
    try:
        yield
    finally:
        before.put_back()
