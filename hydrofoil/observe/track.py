"""Standard trackers: what a run folder holds, as users of TensorBoard or MLflow expect it.

log.jsonl stays the truth. A tracker receives what the log holds and the figures that `test` saved;
nothing is computed for it. So it can be added to a run at any time and then receives the whole run,
and one that fails is left out with a warning while the run continues.
"""

import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterable
from math import ceil
from pathlib import Path

from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.observe.mlflow import MLflow
from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.observe.scalars import Scalar, Tracker, epoch_seconds, event_values, result_values
from hydrofoil.observe.tensorboard import TensorBoard
from hydrofoil.report.results import figure_names
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Progress

LOOK_SECONDS = 1.0  # between two looks into the log: a look reads all of it

TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that are unknown or cannot be imported, before anything is trained.

    Raises:
        HydrofoilError: It says what is known, or what to install.
    """
    for name in names:
        if name not in TRACKERS:
            raise HydrofoilError(f"--track {name}: no such tracker. {nearest(name, TRACKERS)}")
        tracker = TRACKERS[name]
        for variable, value in tracker.environment.items():
            os.environ.setdefault(variable, value)
        try:
            for module in tracker.needs:
                importlib.import_module(module)
        except ImportError as error:
            raise HydrofoilError(
                f"--track {name}: not installed: {error}.\nInstall it with: {tracker.install}"
            ) from error


def _warn(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


class Tracking(Observer):
    """Passes what a run's folder holds to trackers.

    Args:
        names: Of trackers; none is allowed.
        warn: Takes the line on a tracker that failed; default: Python's warnings.

    Raises:
        HydrofoilError: A tracker is unknown or not installed.
    """

    def __init__(self, names: Iterable[str], warn: Callable[[str], None] = _warn) -> None:
        self.names, self.warn = list(dict.fromkeys(names)), warn
        check_trackers(self.names)
        self.trackers: dict[str, Tracker] = {}
        self.run: Run | None = None
        self.steps_an_epoch = 0
        self.events = 0  # of the log that were passed on
        self.at = self.looked = time.time()

    def begin(self, run: Run) -> None:
        """Pass on what the run holds so far; its lock is held."""
        self.run, self.events = run, 0
        if self.names:
            self._attempt(self.names, lambda: self._prepare(run))
        for name in self.names:
            self._attempt([name], lambda name=name: self._begin(name, run))
        self._tell()

    def prepared(self, start: Start) -> None:
        """Pass on what the run holds so far."""
        self.begin(start.run)

    def steps(self, progress: Progress) -> None:
        """Pass on what is new in the log, now and then."""
        if self.trackers and time.time() - self.looked > LOOK_SECONDS:
            self._tell()

    def ended(self, end: Ended) -> None:
        """Pass on the rest, the latest test and how the run ended."""
        if self.run is None:
            self.begin(end.run)
        self._tell()
        status = "finished" if end.error is None else "stopped"
        status = "failed" if isinstance(end.error, HydrofoilError) else status
        for name in list(self.trackers):
            self._attempt([name], lambda name=name: self._end(name, end.run, status))
        self.trackers, self.run = {}, None

    def _attempt(self, names: Iterable[str], act: Callable[[], None]) -> None:
        """Do it; if that fails, whatever the reason, go on without these trackers."""
        try:
            act()
        except Exception as error:  # foreign code, disks and servers
            said = (str(error).splitlines() or [""])[0][:200]
            for name in names:
                self.trackers.pop(name, None)
            self.warn(
                f"--track {', '.join(names)}: {type(error).__name__}: {said}: the run continues "
                "without; log.jsonl has everything, and a later --track passes it on."
            )

    def _prepare(self, run: Run) -> None:
        """Find where the run's past began, as if it had not paused, and how long an epoch is."""
        self.steps_an_epoch = ceil(len(run.split().train) / run.recipe.train.batch_size)
        self.at = time.time() - sum(map(epoch_seconds, run.log.events()))

    def _begin(self, name: str, run: Run) -> None:
        self.trackers[name] = TRACKERS[name](run, self.at)

    def _tell(self) -> None:
        """Pass on what came into the log since the last time."""
        run = self.run
        if not self.trackers or run is None:
            return
        scalars: list[Scalar] = []
        self._attempt(list(self.trackers), lambda: scalars.extend(self._news(run)))
        for name, tracker in list(self.trackers.items()):
            self._attempt([name], lambda tracker=tracker: tracker.tell(scalars))
        self.looked = time.time()

    def _news(self, run: Run) -> list[Scalar]:
        events = run.log.events()
        new, self.events = events[self.events :], len(events)
        now = time.time()
        self.at = max(self.at, now - sum(map(epoch_seconds, new)))
        scalars: list[Scalar] = []
        for event in new:
            self.at = min(self.at + epoch_seconds(event), now)
            step, values = event_values(event, run.recipe, self.steps_an_epoch)
            scalars += [Scalar(name, step, value, self.at) for name, value in values.items()]
        return scalars

    def _end(self, name: str, run: Run, status: str) -> None:
        """Pass on all of the latest test, and that this is the end."""
        test, figures = run.results.test(), dict[str, Path]()
        opened = test["opened"] if test else 0
        if test:
            scalars = [Scalar(n, opened, v, time.time()) for n, v in result_values(test).items()]
            self.trackers[name].tell(scalars)
            paths = {kind: run.path / "figures" / f"{kind}.png" for kind in figure_names(test)}
            figures = {kind: path for kind, path in paths.items() if path.exists()}
        self.trackers[name].end(status, figures, opened)
