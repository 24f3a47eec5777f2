"""Finds the step whose numbers are no longer finite, and leaves the model as it was before it.

Steps are checked in bulk, whichever executor runs them: weights and the sum of losses show it, as
what is not finite stays so. No step is slowed down and none waits for a device, except where Python
comes back twice a second. A bulk that went wrong is undone and repeated step by step.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable
from math import isfinite
from time import perf_counter

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.feed import Feed
from hydrofoil.train.state import Snapshot, State

CHECK_SECONDS = 0.5  # between checks: one copies and reads weights and optimizer state
LARGE = 1e4  # for a normalized pixel, which is usually below 10


class DivergedError(HydrofoilError):
    """A training cannot continue: a loss or a gradient is not finite."""


class NotFiniteError(DivergedError):
    """A step whose loss or gradient is not finite; its update is not in the model.

    Args:
        message: For the user.
        epoch: Counted from 1.
        step: Counted from 1, in the epoch.
        pictures: Indices of the batch's pictures in the dataset.
    """

    def __init__(self, message: str, epoch: int, step: int, pictures: list[int]) -> None:
        super().__init__(message)
        self.epoch, self.step, self.pictures = epoch, step, pictures


class Guard:
    """Checks the steps since its last check.

    Args:
        model: Being trained.
        state: Of its training.
        pictures: The dataset.
        recipe: The settings of the training.
        again: Takes some steps of a feed again, from the first up to the one to stop before.
    """

    def __init__(
        self,
        model: Classifier,
        state: State,
        pictures: Pictures,
        recipe: Recipe,
        again: Callable[[Feed, int, int], None],
    ) -> None:
        self.model, self.state, self.pictures, self.recipe = model, state, pictures, recipe
        self.again = again
        self.before = Snapshot(model, state)
        self.checked = perf_counter()

    def passes(self, feed: Feed, *, now: bool) -> bool:
        """Check the steps since the last time, if it is time; tell whether that was done.

        Args:
            feed: Of the epoch that all those steps belong to.
            now: Check in any case: the epoch is over, or a checkpoint may be saved.

        Raises:
            NotFiniteError: One of them went wrong; the model is as it was before that step.
        """
        if not now and perf_counter() - self.checked < CHECK_SECONDS:
            return False
        if not self._is_finite():
            self._find(feed)
        self.before.take()
        self.checked = perf_counter()
        return True

    def begin_epoch(self) -> None:
        """Start a new epoch: the previous one is checked, and its sums are done."""
        self.before.take_sums()

    def _is_finite(self) -> bool:
        """Tell whether loss and weights are finite; waits for the device."""
        return isfinite(self.state.sums.loss.item()) and not self._overflowed()

    def _overflowed(self) -> str:
        """Return the first tensor of weights, or running means, that is not finite; or nothing."""
        named = [*self.model.network.named_parameters(), *self.model.network.named_buffers()]
        largest = [torch.linalg.vector_norm(t.detach().float(), torch.inf) for _, t in named]
        finite = torch.stack(largest).isfinite().tolist()
        return next((name for (name, _), good in zip(named, finite, strict=True) if not good), "")

    def _find(self, feed: Feed) -> None:
        """Repeat the steps since the last check, and stop before the first that fails.

        Raises:
            NotFiniteError: Always.
        """
        last, first = self.state.step, self.before.step
        self.before.put_back()
        for step in range(first, last):
            self.before.take()
            self.again(feed, step, step + 1)
            self.state.step = step + 1
            if not self._is_finite():
                problem = self._problem()
                self.before.put_back()
                raise self._error(problem, feed, step, step + 1)
        # A GPU may add in another order the second time.
        raise self._error(f"a number is not finite before step {last}", feed, first, last)

    def _problem(self) -> str:
        """Say what is not finite in the step that was just done."""
        before, _, count = self.before.sums
        loss = (self.state.sums.loss - before).item() / (self.state.sums.count - count)
        if not isfinite(loss):
            return f"the loss is {'nan' if loss != loss else 'infinite'}"
        return f"the loss is {loss:.3g}, but the gradient makes {self._overflowed()} not finite"

    def _error(self, problem: str, feed: Feed, first: int, stop: int) -> NotFiniteError:
        """Return the error about a step, or about several steps, if the failing one is unknown."""
        batch = feed.span(first, stop).tolist()
        shown = ", ".join(map(str, batch[:8])) + (", …" if len(batch) > 8 else "")
        return NotFiniteError(
            f"epoch {feed.epoch}, step {first + 1}: {problem}: expected finite numbers; "
            "this step's update was discarded.\n"
            f"Images: {shown} ({len(batch)} of the dataset, by index).\n"
            f"Likely cause: {self._cause(feed, first, batch)}",
            feed.epoch,
            first + 1,
            batch,
        )

    def _cause(self, feed: Feed, step: int, batch: list[int]) -> str:
        """Name the probable cause: the input, or the learning rate."""
        shown_NCHW = self.pictures.pictures_NCHW[torch.tensor(batch)]
        inputs_NCHW = self.model.normalize(shown_NCHW.to(self.model.device))
        largest = inputs_NCHW.abs().max().item()
        if not largest < LARGE:
            return f"pixels reach {largest:.3g} after normalization: see data.mean and data.std."
        return (
            f"the learning rate, {feed.rate(step):g} in this step, is too large, and the weights "
            f"overflow: try optimizer.lr={self.recipe.optimizer.lr / 10:g}."
        )
