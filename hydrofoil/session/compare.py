"""Compares recipes or groups of runs over several seeds; trains and tests what is missing."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import nn

from hydrofoil.compare.jobs import Job, check_executors
from hydrofoil.compare.outlook import Outlook, Pace
from hydrofoil.compare.plan import ALL, Plan, plan
from hydrofoil.compare.setup import setup_of
from hydrofoil.compare.several import Comparisons
from hydrofoil.compare.sides import compare_plan, comparison_path
from hydrofoil.compare.verdict import Comparison, Part
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.device import pick_device
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.score import Answers, answer
from hydrofoil.files import write_whole
from hydrofoil.models.code import Network, text_of
from hydrofoil.observe.observer import Observer
from hydrofoil.recipe.naming import overrides_of
from hydrofoil.report.comparison_page import comparison_page
from hydrofoil.run.folder import Run
from hydrofoil.session.data import own_threads, read_pictures
from hydrofoil.session.observing import with_table
from hydrofoil.session.resume import resume
from hydrofoil.session.test import test
from hydrofoil.session.train import train

RUNS = Path("runs/compare")


@dataclass(frozen=True)
class Completed:
    """One run of a comparison, trained and tested.

    Args:
        number: Counted from 1, over all sides.
        total: How many runs all sides have.
        side: "A", "B" or a later letter.
        run: Its folder.
        done: What was missing: "trained", "resumed", "tested"; or "ready".
        seconds: That it took.
        label: What sets the side apart.
        accuracy: On the part of the split that is compared.
        left: Seconds for the runs that are still to be trained; 0: none, or unknown.
        remaining: How many those are.
    """

    number: int
    total: int
    side: str
    run: Run
    done: str
    seconds: float
    label: str = ""
    accuracy: float | None = None
    left: float = 0.0
    remaining: int = 0


def compare(
    *given: str | Path | Sequence[str],
    seeds: int | None = None,
    on: Part = "test",
    model: Network | Mapping[str, Network] | None = None,
    runs: str | Path = RUNS,
    points: float | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    completed: Callable[[Completed], None] | None = None,
    observers: Sequence[Observer] = (),
    watcher: Watcher | None = None,
    **fields: Any,
) -> Comparison | Comparisons:
    """Say whether B is better than A, or which of several sides is better; prints nothing.

    The runs, the comparison as JSON and its page are kept in a folder, so that the same call trains
    nothing again, and an interrupted one continues.

    Args:
        given: The sides: recipes, images, run folders, folders of runs, or patterns such as
            "runs/digits-*"; a recipe alone is compared with itself. Overrides may follow, as on the
            command line or as a list: "epochs=1", "b.lr=0.01".
        seeds: How many seeds of each recipe; default: 10.
        on: "test"; or "valid" to choose settings, which leaves the test split closed.
        model: The user's own network for all sides, or by letter: {"b": MyNet}.
        runs: The folder of the missing runs.
        points: The difference in points of accuracy that matters; default: the observed one.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        completed: Called after each run.
        observers: Follow each training.
        watcher: Follows a download.
        fields: Fields for all sides, epochs=1, and for one: b={"lr": 0.01}.

    Returns:
        A `Comparison` of two sides, or `Comparisons` of three or more.

    Raises:
        HydrofoilError: The sides cannot be compared, or a run failed.
        Stopped: A signal came; the same call continues.
    """
    check_points(points)
    if on not in ("test", "valid"):
        raise HydrofoilError(f"on = {on!r}: expected 'test' or 'valid'.")
    planned = plan(
        _words(given, fields), seeds=seeds, folder=Path(runs), part=on, networks=_networks(model),
        data_root=data_root, watcher=watcher,
    )  # fmt: skip
    return compare_sides(
        planned, points=points, device=device, data_root=data_root,
        completed=completed, observers=observers, watcher=watcher,
    )  # fmt: skip


def _words(given: Sequence[str | Path | Sequence[str]], fields: Mapping[str, Any]) -> list[str]:
    """Return a call's arguments as the command line has them."""
    words: list[str] = []
    for one in given:
        words += [str(one)] if isinstance(one, str | Path) else map(str, one)
    own = {name: value for name, value in fields.items() if isinstance(value, Mapping)}
    shared = {name: value for name, value in fields.items() if name not in own}
    words += overrides_of(shared)
    for letter, values in own.items():
        if len(letter) != 1:
            raise HydrofoilError(
                f"{letter}: fields of one side are given by its letter: b={{'lr': 0.01}}."
            )
        words += [f"{letter}.{text}" for text in overrides_of(values)]
    return words


def _networks(model: Network | Mapping[str, Network] | None) -> dict[str, Network]:
    """Return networks by a side's letter, checked; every seed needs fresh weights.

    Raises:
        HydrofoilError: A module, or code whose text is not known: its runs would be mistaken for
            those of other code of that name.
    """
    if model is None:
        return {}
    networks = dict(model) if isinstance(model, Mapping) else {ALL: model}
    for network in networks.values():
        if isinstance(network, nn.Module):
            raise HydrofoilError(
                f"model = {type(network).__name__}(…): expected the class or a function that makes "
                "the network: every seed needs its own initial weights."
            )
        if not text_of(network):
            raise HydrofoilError(
                f"model = {network!r}: its Python code is unknown, so its runs cannot be told from "
                "those of other code.\nDefine it in a file or a notebook's cell."
            )
    return networks


def check_points(points: float | None) -> None:
    """Refuse a difference that no two accuracies can have."""
    if points is not None and not 0 < points <= 100:
        raise HydrofoilError(f"--difference {points:g}: expected points of accuracy, 0 to 100.")


@own_threads()
def compare_sides(
    planned: Plan,
    *,
    points: float | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    outlook: Callable[[Outlook], None] | None = None,
    completed: Callable[[Completed], None] | None = None,
    observers: Sequence[Observer] = (),
    watcher: Watcher | None = None,
    command: Sequence[str] = (),
) -> Comparison | Comparisons:
    """Complete the runs of all sides, compare them, and keep the comparison beside them.

    The sides take turns, so that an interruption leaves pairs.

    Args:
        planned: The sides.
        points: The difference in points that matters.
        device: Where to train.
        data_root: Where the datasets are.
        outlook: Called before the first training.
        completed: Called after each run.
        observers: Follow each training.
        watcher: Follows a download.
        command: The command line, for the runs and the page.
    """
    began = time.perf_counter()
    table = with_table(observers)  # one for all trainings
    runs = _Runs(planned, device, data_root, table, watcher, command)
    pace = Pace(planned)
    if outlook:
        outlook(pace.outlook())
    for done in runs.complete_all(pace):
        if completed:
            completed(done)
    valid = runs.valid_answers() if planned.part == "valid" else None
    found = compare_plan(planned, points, valid)
    setup = setup_of(planned.sides, planned.overrides, command, time.perf_counter() - began)
    found = replace(found, setup=setup)
    path = comparison_path(planned)
    content = json.dumps(found.as_dict(), indent=2, ensure_ascii=False)
    write_whole(path, f"{content}\n".encode())
    write_whole(path.with_suffix(".html"), comparison_page(found))
    return found


def _turns(planned: Plan) -> list[tuple[str, str, Job]]:
    """Return the runs in the order of their training: letter, label, run."""
    names = [
        (side.letter, label) for side, label in zip(planned.sides, planned.labels, strict=True)
    ]
    return [
        (*name, job)
        for row in zip_longest(*planned.jobs)
        for name, job in zip(names, row, strict=True)
        if job
    ]


def _accuracy(run: Run, part: Part) -> float | None:
    """Return a run's accuracy on the test split, or that of its best epoch on validation."""
    if part == "test":
        result = run.results.test()
        return result.accuracy if result else None
    best = [epoch for epoch in run.epochs() if epoch.best and epoch.valid]
    return best[-1].selected.accuracy if best and best[-1].selected else None


@dataclass(frozen=True)
class _Runs:
    """Completes the runs of a comparison.

    Args:
        planned: The sides.
        device: Where to train.
        data_root: Where the datasets are.
        observers: Follow each training.
        watcher: Follows a download.
        command: The command line, for environment.json.
    """

    planned: Plan
    device: str
    data_root: str | Path
    observers: Sequence[Observer]
    watcher: Watcher | None
    command: Sequence[str]

    def complete_all(self, pace: Pace) -> Iterator[Completed]:
        """Complete each run, the sides in turns; note how long trainings take."""
        turns = _turns(self.planned)
        for number, (side, label, job) in enumerate(turns, start=1):
            start = time.perf_counter()
            try:
                done = self.complete(job)
            except HydrofoilError as error:
                raise HydrofoilError(f"{side}, {job.path}: {error}") from error
            check_executors(self.planned.jobs)
            seconds, run = time.perf_counter() - start, Run.open(job.path)
            if done in ("trained", "resumed"):
                pace.took(job, seconds)
            accuracy = _accuracy(run, self.planned.part)
            yield Completed(
                number, len(turns), side, run, done, seconds, label, accuracy, pace.left(),
                len(pace.waiting),
            )  # fmt: skip

    def complete(self, job: Job) -> str:
        """Train and test what a run lacks, and return what was done."""
        state, on_test = self.planned.work(job), self.planned.part == "test"
        if state == "missing":
            train(
                job.recipe, run=job.path, device=self.device, data_root=self.data_root,
                observers=self.observers, test=on_test, watcher=self.watcher, command=self.command,
                model=job.network,
            )  # fmt: skip
        if state == "unfinished":
            resume(
                job.path, device=self.device, data_root=self.data_root, observers=self.observers,
                watcher=self.watcher, model=job.network,
            )  # fmt: skip
        if state in ("unfinished", "untested") and on_test:
            test(
                job.path, device=self.device, data_root=self.data_root, watcher=self.watcher,
                model=job.network,
            )  # fmt: skip
        done = {"missing": "trained", "unfinished": "resumed", "untested": "tested"}
        return done.get(state, "ready")

    def valid_answers(self) -> dict[Path, Answers]:
        """Return each run's answers to its validation images; opens no test split.

        Those of a tested run are saved; the others are computed, from images that are read once.
        """
        found: dict[Path, Answers] = {}
        pictures: Pictures | None = None
        for job in (job for jobs in self.planned.jobs for job in jobs):
            run = Run.open(job.path)
            if job.state() == "ready" and (saved := run.results.answers().get("valid")):
                found[job.path] = saved
                continue
            if pictures is None:
                pictures, _ = read_pictures(run.recipe, self.data_root, None, self.watcher)
            split = run.split()
            split.check(pictures)
            if not len(split.valid):
                raise HydrofoilError(
                    f"{job.path}: its validation split is empty: expected images to compare on."
                )
            model, _ = run.weights.load(pick_device(self.device), job.network)
            found[job.path] = answer(model, pictures, split.valid).cpu()
        return found
