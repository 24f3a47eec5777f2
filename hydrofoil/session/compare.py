"""Compares two recipes or groups of runs over several seeds; trains and tests what is missing."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from hydrofoil.compare.sides import Job, check_executors, compare_jobs, comparison_path, plan
from hydrofoil.compare.verdict import Comparison
from hydrofoil.data.published.download import Watcher
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import write_whole
from hydrofoil.observe.observer import Observer
from hydrofoil.report.page import comparison_page
from hydrofoil.run.folder import Run
from hydrofoil.session.resume import resume
from hydrofoil.session.test import test
from hydrofoil.session.train import train

RUNS = Path("runs/compare")
Sides = tuple[Sequence[Job], Sequence[Job]]


@dataclass(frozen=True)
class Completed:
    """One run of a comparison, trained and tested.

    Args:
        number: Counted from 1, over both sides.
        total: How many runs both sides have.
        side: "A" or "B".
        run: Its folder.
        done: What was missing: "trained", "resumed", "tested"; or "ready".
        seconds: That it took.
    """

    number: int
    total: int
    side: str
    run: Run
    done: str
    seconds: float


def compare(
    a: str | Path,
    b: str | Path,
    overrides: Sequence[str] = (),
    *,
    seeds: int | None = None,
    runs: str | Path = RUNS,
    points: float | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    completed: Callable[[Completed], None] | None = None,
    observers: Sequence[Observer] = (),
    watcher: Watcher | None = None,
) -> Comparison:
    """Say whether B is better than A; prints nothing.

    The runs, the comparison as JSON and its page are kept in a folder, so that the same call trains
    nothing again, and an interrupted one continues.

    Args:
        a: A recipe, a run folder, a folder of runs, or a pattern such as "runs/digits-*".
        b: The same; it is judged against A.
        overrides: Fields for both recipes; b.optimizer.lr=0.01 for B alone.
        seeds: How many seeds of each recipe; default: 10.
        runs: The folder of the missing runs.
        points: The difference in points of accuracy that matters; default: the observed one.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        completed: Called after each run.
        observers: Follow each training.
        watcher: Follows a download.

    Raises:
        HydrofoilError: The sides cannot be compared, or a run failed.
        Stopped: A signal came; the same call continues.
    """
    check_points(points)
    sides = plan(str(a), str(b), overrides, seeds, Path(runs))
    return compare_sides(
        sides, Path(runs),
        points=points, device=device, data_root=data_root,
        completed=completed, observers=observers, watcher=watcher,
    )  # fmt: skip


def check_points(points: float | None) -> None:
    """Refuse a difference that no two accuracies can have."""
    if points is not None and not 0 < points <= 100:
        raise HydrofoilError(f"--difference {points:g}: expected points of accuracy, 0 to 100.")


def compare_sides(
    sides: Sides,
    runs: Path,
    *,
    points: float | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    completed: Callable[[Completed], None] | None = None,
    observers: Sequence[Observer] = (),
    watcher: Watcher | None = None,
    command: Sequence[str] = (),
) -> Comparison:
    """Complete the runs of both sides, compare them, and keep the comparison beside them.

    The sides take turns, so that an interruption leaves pairs.
    """
    pairs = zip_longest(*sides)
    turns = [(side, job) for pair in pairs for side, job in zip("AB", pair, strict=True) if job]
    for number, (side, job) in enumerate(turns, start=1):
        began = time.perf_counter()
        try:
            done = _complete(job, device, data_root, observers, watcher, command)
        except HydrofoilError as error:
            raise HydrofoilError(f"{side}, {job.path}: {error}") from error
        check_executors(*sides)
        if completed:
            seconds = time.perf_counter() - began
            completed(Completed(number, len(turns), side, Run.open(job.path), done, seconds))
    path = comparison_path(*sides, runs)
    comparison = compare_jobs(*sides, points, path)
    content = json.dumps(comparison.as_dict(), indent=2, ensure_ascii=False)
    write_whole(path, f"{content}\n".encode())
    write_whole(path.with_suffix(".html"), comparison_page(comparison))
    return comparison


def _complete(
    job: Job,
    device: str,
    data_root: str | Path,
    observers: Sequence[Observer],
    watcher: Watcher | None,
    command: Sequence[str],
) -> str:
    """Train and test what a run lacks, and return what was done."""
    state = job.state()
    if state == "missing":
        train(
            job.recipe, run=job.path, device=device, data_root=data_root, observers=observers,
            test=True, watcher=watcher, command=command,
        )  # fmt: skip
    if state == "unfinished":
        resume(job.path, device=device, data_root=data_root, observers=observers, watcher=watcher)
    if state in ("unfinished", "untested"):
        test(job.path, device=device, data_root=data_root, watcher=watcher)
    done = {"missing": "trained", "unfinished": "resumed", "untested": "tested", "ready": "ready"}
    return done[state]
