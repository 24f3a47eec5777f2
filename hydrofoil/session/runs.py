"""Progress bars over the trainings of a comparison or a search, on a terminal's standard error."""

import time
from collections.abc import Callable

from hydrofoil.observe.bar import Bar
from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.session.compare import Completed
from hydrofoil.train.loop import Progress
from hydrofoil.tune.result import Trial


class RunsProgress(Observer):
    """Shows which run of how many is trained, and its epoch, once a training takes a second.

    Args:
        total: How many runs there are.
        say: Takes each completed run, while no bar is shown.
    """

    def __init__(self, total: int, say: Callable[[Completed], None]) -> None:
        self.total, self.say, self.number, self.epochs = total, say, 1, 0
        self.bar, self.began = Bar(), time.perf_counter()

    def completed(self, completed: Completed) -> None:
        """Say that a run is done."""
        self.bar.clear()
        self.number += 1
        self.say(completed)

    def prepared(self, start: Start) -> None:
        """Begin with the next run."""
        self.epochs, self.began = start.run.recipe.train.epochs, time.perf_counter()

    def steps(self, progress: Progress) -> None:
        """Move the bar, ten times a second at most."""
        if time.perf_counter() - self.began > 1 and self.bar.due():
            done = (progress.epoch - 1) * progress.steps + progress.step
            status = f"epoch {progress.epoch} of {self.epochs}"
            self.bar.update(self.name(), done, self.epochs * progress.steps, status)

    def name(self) -> str:
        """Return which run of how many it is."""
        return f"run {self.number} of {self.total}"

    def ended(self, end: Ended) -> None:
        """Take the bar away."""
        self.bar.clear()


class TrialsProgress(RunsProgress):
    """Shows which trial of a search is trained; its number is that of its folder.

    Args:
        total: How many trials there will be; 0: unknown.
        say_trial: Takes each trial that ended, and the best so far, while no bar is shown.
    """

    def __init__(self, total: int, say_trial: Callable[[Trial, Trial | None], None]) -> None:
        super().__init__(total, lambda completed: None)
        self.say_trial = say_trial

    def prepared(self, start: Start) -> None:
        """Begin with the next trial."""
        super().prepared(start)
        self.number = int(start.run.path.name.rpartition("-")[2])

    def name(self) -> str:
        """Return which trial of how many it is."""
        return f"trial {self.number}{f' of {self.total}' if self.total else ''}"

    def finished(self, trial: Trial, best: Trial | None) -> None:
        """Say that a trial has ended."""
        self.bar.clear()
        self.say_trial(trial, best)
