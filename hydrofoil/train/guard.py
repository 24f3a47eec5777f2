"""Finds the step whose numbers are no longer finite, and leaves the model as it was before it.

Steps are checked in bulk, whoever runs them: the weights and the sum of losses show it, as what is
not finite stays so. No step is slowed by it and none waits for a device, but where Python comes
back twice a second. A bulk that went wrong is undone and done again step by step.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.state import Snapshot, State

CHECK_SECONDS = 0.5  # between checks: one copies and reads weights and optimiser state
LARGE = 1e4  # of a normalised picture, whose values are some units as a rule


class NotFiniteError(HydrofoilError):
    """A step whose loss or gradient is not finite; its update is not in the model.

    Args:
        message: For a person.
        epoch: Counted from 1.
        step: Counted from 1, in the epoch.
        pictures: Indices into the set of the batch's pictures.
    """

    def __init__(self, message: str, epoch: int, step: int, pictures: list[int]) -> None:
        super().__init__(message)
        self.epoch, self.step, self.pictures = epoch, step, pictures


class Guard:
    """Checks the steps since it last did.

    Args:
        model: Being trained.
        state: Of its training.
        pictures: The set.
        recipe: What is trained.
        again: Does one step again: of the batch, with the number of the epoch and of the step.
    """

    def __init__(
        self,
        model: Classifier,
        state: State,
        pictures: Pictures,
        recipe: Recipe,
        again: Callable[[Tensor, int, int], None],
    ) -> None:
        self.model, self.state, self.pictures, self.recipe = model, state, pictures, recipe
        self.again = again
        self.whole = Snapshot(model, state)
        self.checked = perf_counter()

    def passes(self, order_N: Tensor, *, now: bool) -> bool:
        """Check the steps since the last time, if it is time; tell whether that was done.

        Args:
            order_N: Of the epoch, in which all those steps are.
            now: It is time: the epoch is over, or what there is may be saved.

        Raises:
            NotFiniteError: One of them went wrong; the model is as it was before that.
        """
        if not now and perf_counter() - self.checked < CHECK_SECONDS:
            return False
        if not self._is_finite():
            self._find(order_N)
        self.whole.take()
        self.checked = perf_counter()
        return True

    def begin_epoch(self) -> None:
        """Note that an epoch, all of it checked, is over, and its sums with it."""
        self.whole.take_sums()

    def _is_finite(self) -> bool:
        """Tell whether loss and weights are finite; waits for the device."""
        return isfinite(self.state.sums.loss.item()) and not self._spoilt()

    def _spoilt(self) -> str:
        """Return the first tensor of weights, or running means, that is not finite; or nothing."""
        named = [*self.model.network.named_parameters(), *self.model.network.named_buffers()]
        largest = [torch.linalg.vector_norm(t.detach().float(), torch.inf) for _, t in named]
        finite = torch.stack(largest).isfinite().tolist()
        return next((name for (name, _), good in zip(named, finite, strict=True) if not good), "")

    def _find(self, order_N: Tensor) -> None:
        """Do the steps again from where all was whole, and stop before the first that goes wrong.

        Raises:
            NotFiniteError: Always.
        """
        last, size = self.state.step, self.recipe.train.batch_size
        epoch, first = self.state.epoch + 1, self.whole.step + 1
        self.whole.put_back()
        for step in range(first, last + 1):
            batch_N = order_N[(step - 1) * size : step * size]
            self.whole.take()
            self.again(batch_N, epoch, step)
            self.state.step = step
            if not self._is_finite():
                what = self._what()
                self.whole.put_back()
                raise self._error(what, epoch, step, batch_N)
        # A GPU may add in another order the second time.
        batch_N = order_N[(first - 1) * size : last * size]
        raise self._error(f"a number is not finite before step {last}", epoch, first, batch_N)

    def _what(self) -> str:
        """Say what of the step that was just done is not finite."""
        before, _, count = self.whole.sums
        loss = (self.state.sums.loss - before).item() / (self.state.sums.count - count)
        if not isfinite(loss):
            return f"the loss is {'nan' if loss != loss else 'infinite'}"
        return f"the loss is {loss:.3g}, but the gradient makes {self._spoilt()} infinite or nan"

    def _error(self, what: str, epoch: int, step: int, batch_N: Tensor) -> NotFiniteError:
        batch = batch_N.tolist()
        shown = ", ".join(map(str, batch[:8])) + (", …" if len(batch) > 8 else "")
        return NotFiniteError(
            f"epoch {epoch}, step {step}: {what}: expected finite numbers, so nothing of this step "
            f"is kept.\nIts pictures: {shown} ({len(batch)} of the set, by index).\n"
            f"Likely cause: {self._cause(batch_N)}",
            epoch,
            step,
            batch,
        )

    def _cause(self, batch_N: Tensor) -> str:
        """Say what it probably is: the input, or steps that are too large."""
        shown_NCHW = self.pictures.pictures_NCHW[batch_N.to(self.pictures.pictures_NCHW.device)]
        inputs_NCHW = self.model.normalise(shown_NCHW.to(self.model.device))
        largest = inputs_NCHW.abs().max().item()
        if not largest < LARGE:
            return f"pictures reach {largest:.3g} after normalising: see data.mean and data.std."
        return (
            "the steps are too large, and the weights overflow: "
            f"try optimizer.lr={self.recipe.optimizer.lr / 10:g}."
        )
