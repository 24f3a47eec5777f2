"""Writes a training's log and checkpoints: the run folder is what the other observers describe."""

import signal
import time
from typing import Any

from torch import Tensor

from hydrofoil.evaluate.result import Epoch
from hydrofoil.models.classifier import Classifier
from hydrofoil.native.build import compiler
from hydrofoil.observe.observer import Ended, Observer, Start, running_loss
from hydrofoil.observe.signals import Stopped
from hydrofoil.run.events import Event, ExecutorChosen, Interrupted, NotFinite, RunningLoss
from hydrofoil.run.folder import Run
from hydrofoil.train.guard import NotFiniteError
from hydrofoil.train.loop import Progress
from hydrofoil.train.state import State

# Saving waits for the disk, 10 to 40 ms: longer than the epochs of a small set. So the next save is
# postponed until this many times the duration of the last one, and at least five seconds, have
# passed. A run that is killed repeats what it did since; one that stops otherwise saves first.
SAVE_SHARE = 200
SAVE_SECONDS = 5.0


class Recorder(Observer):
    """Keeps epochs and checkpoints; prints nothing.

    Args:
        run: Where the log and the weights are written.
        model: The model that is trained.
        state: Of its training.
    """

    def __init__(self, run: Run, model: Classifier, state: State) -> None:
        self.run, self.model, self.state = run, model, state
        self.every = run.recipe.train.log_every
        self.saved = time.perf_counter()
        self.saved_at = -1, -1  # the epoch and step of the last checkpoint of this session
        self.postponed = SAVE_SECONDS  # until the next save
        self.save_seconds: list[float] = []
        self.events: list[Event] = []  # not in the log yet: it is written with the weights
        self.unsaved: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # of the last epoch

    def prepared(self, start: Start) -> None:
        """Log which executor runs the steps."""
        executor = start.prepared.executor
        native = executor.name == "native"
        event = ExecutorChosen(
            name=executor.name,
            threads=executor.threads,
            seconds=start.prepared.seconds,
            compiler=compiler()[1].partition("\n")[0] if native else None,
        )
        self.run.log.append(event)

    def steps(self, progress: Progress) -> None:
        """Log the running loss, and save where that is due."""
        if self.every and progress.step % self.every == 0:
            loss, self.state.logged = running_loss(progress, self.state.logged)
            self.events.append(RunningLoss(epoch=progress.epoch, step=progress.step, loss=loss))
        if progress.checked and progress.step < progress.steps and self._due(progress.step):
            self._save()

    def _due(self, step: int) -> bool:
        """Tell whether to save inside an epoch."""
        train, waited = self.run.recipe.train, time.perf_counter() - self.saved
        if train.save_steps and step % train.save_steps == 0:
            return True
        return bool(train.save_seconds) and waited > max(train.save_seconds, self.postponed)

    def epoch(self, epoch: Epoch) -> None:
        """Save an epoch, now or with the next."""
        self.events.append(epoch)
        waited = time.perf_counter() - self.saved
        if self.run.recipe.train.save_steps or waited > self.postponed:
            self._save()
        else:
            tensors = self.state.tensors(self.model)
            # On the CPU, so that they can be saved even if a GPU is lost meanwhile.
            copies = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()
            }
            self.unsaved = copies, self.state.numbers()

    def ended(self, end: Ended) -> None:
        """Write what is not written yet."""
        error = end.error
        if isinstance(error, NotFiniteError):
            self._forget_from(error.epoch, error.step)
            numbers = tuple(error.pictures)
            self.events.append(NotFinite(epoch=error.epoch, step=error.step, pictures=numbers))
        if isinstance(error, Stopped):
            epoch, step = self.state.epoch, self.state.step
            name = signal.Signals(error.number).name
            self.events.append(Interrupted(signal=name, epoch=epoch, step=step))
            if self.saved_at != (epoch, step):
                return self._save()
        if self.unsaved:
            return self._save(*self.unsaved)
        return self._log()

    def _forget_from(self, epoch: int, step: int) -> None:
        """Drop the running losses of a step that is undone, and of those after it."""
        self.events = [
            event
            for event in self.events
            if not isinstance(event, RunningLoss) or (event.epoch, event.step) < (epoch, step)
        ]

    def _save(
        self, tensors: dict[str, Tensor] | None = None, numbers: dict[str, Any] | None = None
    ) -> None:
        """Write everything that resuming needs: as it is now, or as it was."""
        began = time.perf_counter()
        tensors, numbers = (
            tensors or self.state.tensors(self.model),
            numbers or self.state.numbers(),
        )
        self._log()
        self.run.checkpoints.save(self.model, tensors, numbers)
        self.unsaved = None
        self.saved_at = numbers["epoch"], numbers["step"]
        self.saved = time.perf_counter()
        self.save_seconds.append(self.saved - began)
        self.postponed = max(SAVE_SECONDS, SAVE_SHARE * self.save_seconds[-1])

    def _log(self) -> None:
        self.run.log.append(*self.events)
        self.events.clear()
