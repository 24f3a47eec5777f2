"""What a comparison still has to train, and how long that takes, by runs that are done."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from hydrofoil.compare.jobs import Job, State, work_key
from hydrofoil.compare.plan import Plan
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.find import RUNS
from hydrofoil.run.folder import Run

RECENT = 40  # earlier runs that are looked at
LATEST = 5  # of like runs, these tell the time


@dataclass(frozen=True)
class Outlook:
    """The runs of a comparison before the first of them is trained.

    Args:
        states: How many runs are missing, unfinished, untested and ready.
        seconds: For those that are not ready; 0: unknown.
    """

    states: dict[State, int]
    seconds: float


class Pace:
    """Tells how long runs take, by runs of the same dataset, network and batch size.

    Args:
        plan: The comparison.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch_seconds: dict[object, list[float]] = {}
        states: list[tuple[Job, State]] = [
            (job, plan.work(job)) for side in plan.sides for job in side.jobs
        ]
        self.states: Counter[State] = Counter()
        self.states.update(state for _, state in states)
        self.waiting = [job for job, state in states if state in ("missing", "unfinished")]
        for job, state in states:
            if state == "ready":
                self._read(job.path, work_key(job.recipe))
        if not all(map(self._known, self.waiting)):
            for path in _earlier_runs(plan.folder):
                self._read(path)

    def outlook(self) -> Outlook:
        """Return what is to be done, and how long it takes by earlier runs."""
        return Outlook(dict(self.states), self.seconds(self.waiting))

    def took(self, job: Job, seconds: float) -> None:
        """Note how long a training took, and its test."""
        self.waiting = [other for other in self.waiting if other.path != job.path]
        self._note(job.recipe, seconds, work_key(job.recipe))

    def left(self) -> float:
        """Return the seconds for the runs that are not trained yet; 0: none, or unknown."""
        return self.seconds(self.waiting)

    def seconds(self, jobs: Sequence[Job]) -> float:
        """Return the seconds for runs; those of an unknown kind take what the known ones take."""
        known = [
            mean(self.epoch_seconds[work_key(job.recipe)][-LATEST:]) * job.recipe.train.epochs
            for job in jobs
            if self._known(job)
        ]
        return mean(known) * len(jobs) if known else 0.0

    def _known(self, job: Job) -> bool:
        return bool(self.epoch_seconds.get(work_key(job.recipe)))

    def _note(self, recipe: Recipe, seconds: float, *keys: object) -> None:
        for key in keys:
            self.epoch_seconds.setdefault(key, []).append(seconds / recipe.train.epochs)

    def _read(self, path: Path, *keys: object) -> None:
        """Note how long a finished run took by its log; a damaged one says nothing.

        Args:
            path: The run's folder.
            keys: Of the side; default: those of a run whose recipe leaves the executor to
                hydrofoil, and of one that names the executor that ran it.
        """
        with suppress(HydrofoilError):
            run = Run.open(path)
            recipe = run.recipe
            keys = keys or (work_key(recipe), work_key(recipe, "auto"))
            if len(run.epochs()) == recipe.train.epochs:
                self._note(recipe, Job(path, recipe).seconds(), *keys)


def _earlier_runs(folder: Path) -> list[Path]:
    """Return runs of other comparisons and of train, the latest last."""
    files = [*folder.glob("*/*/recipe.toml"), *RUNS.glob("*/recipe.toml")]
    with suppress(OSError):  # one was removed a moment ago
        files.sort(key=lambda file: file.stat().st_mtime)
    return [file.parent for file in files[-RECENT:]]
