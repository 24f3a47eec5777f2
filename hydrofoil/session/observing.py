"""Calls the observers of a session in an order that keeps every step saved."""

import signal
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from hydrofoil.data.published.download import Watcher
from hydrofoil.device import DeviceError
from hydrofoil.observe.console import Console
from hydrofoil.observe.notebook import NotebookDownload, NotebookProgress, in_notebook
from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.observe.recorder import Recorder
from hydrofoil.observe.signals import Stopped, Stopping
from hydrofoil.observe.track import Tracking
from hydrofoil.recipe.schema import why_early
from hydrofoil.run.events import Trained
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Epoch, Progress


class Observers:
    """The observers of one session, for `with` around everything that it does.

    The recorder comes first, so that what the others see is in the run or about to be. Signals come
    last in a step, so that every observer has seen the step that is saved. At the end the recorder
    and the signals go before the others, which hear how the session ended.

    Args:
        run: Locked for writing.
        observers: In the order in which they are called. A `Stopping` among them replaces the
            session's own.
    """

    def __init__(self, run: Run, observers: Sequence[Observer]) -> None:
        self.run = run
        given = [one for one in observers if isinstance(one, Stopping)]
        self.signals = given[0] if given else Stopping()
        self.others = [one for one in observers if not isinstance(one, Stopping)]
        self.during: list[Observer] = []  # of a training
        self.end = Ended(run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        came = error
        if isinstance(error, Stopped | DeviceError):
            error.run = self.run
        elif isinstance(error, KeyboardInterrupt):
            error = Stopped(signal.SIGINT, self.run).with_traceback(error.__traceback__)
        self.end = self._ended(self.others, error)
        if self.end.error is not None and self.end.error is not came:
            raise self.end.error

    @contextmanager
    def training(self, start: Start) -> Generator[None]:
        """Record a training from its first step to its last checkpoint; signals wait for a step."""
        began = time.perf_counter() - start.prepared.seconds
        recorder = Recorder(self.run, start.model, start.state)
        self.during = [recorder, *self.others, self.signals]
        error: BaseException | None = None
        try:
            for one in self.during:
                one.prepared(start)
            yield
        except BaseException as raised:
            error = raised
        self.end = self._ended([recorder, self.signals], error)
        self.end = Ended(
            self.run,
            self.end.error,
            start.state.best_epoch,
            time.perf_counter() - began,
            tuple(recorder.save_seconds),
        )
        if self.end.error is not None:
            raise self.end.error
        state, seconds = start.state, self.end.seconds
        reason = why_early(self.run.recipe.train, state.epoch, state.best_epoch)
        self.run.log.append(Trained(epochs=state.epoch, seconds=seconds, reason=reason))

    def steps(self, progress: Progress) -> None:
        """Pass on where the training is."""
        for one in self.during:
            one.steps(progress)

    def epoch(self, epoch: Epoch) -> None:
        """Pass on an epoch."""
        for one in self.during:
            one.epoch(epoch)

    def _ended(self, observers: Sequence[Observer], error: BaseException | None) -> Ended:
        """Tell observers of the end; an error that one raises is the end that the next ones see."""
        end = replace(self.end, error=error)
        for one in observers:
            try:
                one.ended(end)
            except BaseException as raised:
                end = replace(end, error=raised)
        return end


def all_observers(observers: Sequence[Observer], track: Sequence[str]) -> list[Observer]:
    """Return the observers of a session: those given, the trackers, a bar in a notebook.

    The bar is left out where a console is among those given.

    Raises:
        HydrofoilError: A tracker is unknown or not installed.
    """
    trackers = [Tracking(track)] if track else []
    return [*with_table(observers), *trackers]


def with_table(observers: Sequence[Observer]) -> list[Observer]:
    """Return observers, and in a notebook a table, unless one or a console is among them."""
    shown = any(isinstance(one, Console | NotebookProgress) for one in observers)
    return [*observers, *([NotebookProgress()] if in_notebook() and not shown else [])]


def default_watcher(watcher: Watcher | None) -> Watcher | None:
    """Return what follows a download: in a notebook a bar, unless something else is given."""
    return NotebookDownload() if watcher is None and in_notebook() else watcher


def say_for(watcher: Watcher | None) -> Callable[[str], None]:
    """Return what takes a line for the user: the watcher's `say`, or else a Python warning."""
    followed = default_watcher(watcher)
    return followed.say if followed else lambda line: warnings.warn(line, stacklevel=3)
