"""What follows a training: one protocol of four methods, and what each of them is given."""

from dataclasses import dataclass
from typing import Protocol

from hydrofoil.data.split import Split
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.derive import Choice
from hydrofoil.run.folder import Run
from hydrofoil.train.executors import Prepared
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.train.state import State


@dataclass(frozen=True)
class Start:
    """A training that is about to begin or resume.

    Args:
        run: Its folder, locked for writing.
        model: The model that is trained, in place.
        split: Which images train, validate and test.
        state: How far the training is: the epochs and steps of earlier sessions.
        prepared: The executor that runs the steps.
        notes: What the user should know: initial weights, a broken checkpoint, another machine.
        choices: Why a recipe that was derived from the images is as it is; empty: it was given.
        resumed: Whether the run existed before.
    """

    run: Run
    model: Classifier
    split: Split
    state: State
    prepared: Prepared
    notes: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    resumed: bool = False

    def __repr__(self) -> str:
        return f"Start({self.run!r}, {self.split!r})"


@dataclass(frozen=True)
class Ended:
    """How a training or a test ended.

    Args:
        run: Its folder, with everything written.
        error: What stopped it; None: it is finished.
        best_epoch: The epoch of the best weights; 0: none, or nothing was trained.
        seconds: Of this session's training; 0: nothing was trained.
        save_seconds: Of each checkpoint that this session saved.
    """

    run: Run
    error: BaseException | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    save_seconds: tuple[float, ...] = ()

    def __repr__(self) -> str:
        error = f", {type(self.error).__name__}" if self.error else ""
        return f"Ended({self.run!r}, best epoch {self.best_epoch}, {self.seconds:.1f} s{error})"


class Observer(Protocol):
    """Follows a training. Inherit from it and override the methods that you need.

    An exception raised by an observer ends the training; the run keeps its last checkpoint.
    """

    def prepared(self, start: Start) -> None:
        """The executor is ready; the first step comes next."""

    def steps(self, progress: Progress) -> None:
        """Steps were done: called several times a second. Reading the sums waits for the device."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch and its validation are done; the weights may be read until this returns."""

    def ended(self, end: Ended) -> None:
        """The training, and the test if one was requested, is over, also after an error."""


def running_loss(progress: Progress, before: tuple[float, int]) -> tuple[float, tuple[float, int]]:
    """Return the mean loss of the steps since `before`, and the totals now; waits for the device.

    Args:
        progress: Inside an epoch.
        before: The epoch's total loss and number of images when it was last read.
    """
    total, _, count = progress.sums.totals()
    return (total - before[0]) / (count - before[1]), (total, count)
