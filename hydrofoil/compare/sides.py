"""The two sides of a comparison: their runs, the missing ones, and the test answers.

Axes: S seeds, N test images.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hydrofoil.compare.statistics import SideAnswers
from hydrofoil.compare.verdict import Comparison, compare
from hydrofoil.data.source import known_as
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import Epoch
from hydrofoil.recipe.changes import agree
from hydrofoil.recipe.read import read_recipe, shipped_recipes
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import is_path
from hydrofoil.run.commands import command
from hydrofoil.run.events import Tested
from hydrofoil.run.find import run_path
from hydrofoil.run.folder import Run

SEEDS = 10


@dataclass(frozen=True)
class Job:
    """One run of a side, existing or missing.

    Args:
        path: Its folder.
        recipe: Its recipe.
        name: The recipe's name or path on the command line; "" for an existing run folder.
        overrides: The recipe's overrides, including the seed.
    """

    path: Path
    recipe: Recipe
    name: str = ""
    overrides: tuple[str, ...] = ()

    def state(self) -> Literal["missing", "unfinished", "untested", "ready"]:
        """Return how far the run is.

        Raises:
            HydrofoilError: The folder holds a run of another recipe.
        """
        if not (self.path / "recipe.toml").is_file():
            return "missing"
        run = Run.open(self.path)
        theirs, ours = (
            {**_trained(recipe), "train.seed": recipe.train.seed}
            for recipe in (run.recipe, self.recipe)
        )
        if not agree(theirs, ours):
            raise HydrofoilError(
                f"{self.path}: holds a run of another recipe than {self.name}.\n"
                "Move it, or save this comparison's runs in another folder: --runs DIR"
            )
        if not run.log.imported() and run.checkpoints.epoch() < run.recipe.train.epochs:
            return "unfinished"
        ends = [event for event in run.log.events() if isinstance(event, Epoch | Tested)]
        tested = bool(ends) and isinstance(ends[-1], Tested) and run.results.test() is not None
        return "ready" if tested and (self.path / "answers.npz").is_file() else "untested"


def fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that affect a run's results, except the seed, by dotted name."""
    chosen = recipe.affecting("weights", "results", per_run=False)
    return chosen | {"data.source": _dataset(recipe)}


def _dataset(recipe: Recipe) -> str:
    """Return the dataset's own name, which the recipe may write in another way."""
    return known_as(recipe.data.source) or recipe.data.source


def _trained(recipe: Recipe) -> dict[str, Any]:
    """Return the fields except the executor, which is resolved only once a run exists."""
    apart = {"train.execute"}
    if is_path(recipe.data.source):  # measured on the training images of each seed
        apart |= {"data.mean", "data.std"}
    return {name: value for name, value in fields(recipe).items() if name not in apart}


def _executors(job: Job) -> set[str]:
    """Return the executors of a run's steps; empty for a missing run."""
    if not (job.path / "recipe.toml").is_file():
        return set()
    run = Run.open(job.path)
    names = {run.recipe.train.execute, run.log.executor() or "auto"}
    return names - {"auto"}


def check_executors(jobs_a: Sequence[Job], jobs_b: Sequence[Job]) -> None:
    """Refuse to compare runs of different executors: they round differently.

    Two recipes may differ in it where the command sets train.execute for one of them.

    Raises:
        HydrofoilError: The runs have different executors; the message names two.
    """
    recipes = [jobs[0].recipe.train.execute for jobs in (jobs_a, jobs_b)]
    requested = all(jobs[0].name for jobs in (jobs_a, jobs_b)) and recipes[0] != recipes[1]
    for jobs in (jobs_a, jobs_b) if requested else ((*jobs_a, *jobs_b),):
        seen: dict[str, Path] = {}
        for job in jobs:
            seen |= {name: job.path for name in _executors(job) - seen.keys()}
        if len(seen) > 1:
            (one, first), (other, second) = list(seen.items())[:2]
            raise HydrofoilError(
                f"{first} was trained by {one} and {second} by {other}: expected one executor in "
                "all runs, since executors round differently.\n"
                f"Train the runs of one executor again, with train.execute={one} on both sides."
            )
    for jobs in (jobs_a, jobs_b):
        _check_threads(jobs)


def _check_threads(jobs: Sequence[Job]) -> None:
    """Refuse a side whose runs used other numbers of threads, where the weights depend on them."""
    seen: dict[int, Path] = {}
    for job in jobs:
        if _executors(job) - {"native"}:  # native steps are bit-identical with any number
            seen.setdefault(Run.open(job.path).recipe.train.threads, job.path)
    if len(seen) > 1:
        (one, first), (other, second) = list(seen.items())[:2]
        raise HydrofoilError(
            f"{first} was trained on {one} threads and {second} on {other}: expected one number in "
            f"all runs of a side.\nTrain one of them again, with train.threads={one}."
        )


def side_name(recipe: Recipe) -> str:
    """Return a side's folder name: the recipe's name and eight digits of the fields' SHA-256."""
    text = json.dumps(fields(recipe), sort_keys=True)
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def plan(
    a: str, b: str, overrides: Sequence[str], seeds: int | None, folder: Path
) -> tuple[list[Job], list[Job]]:
    """Return both sides' runs, by ascending seed.

    A side is a recipe, trained with `seeds` seeds from its train.seed on or with the seeds of the
    other side's runs; or it is a run folder, a folder of runs, or a pattern ('runs/digits-*').

    Args:
        a: One side.
        b: The other.
        overrides: Fields for both recipes; a.FIELD=VALUE or b.FIELD=VALUE for one.
        seeds: The number of seeds; default: 10.
        folder: The folder of missing runs.

    Raises:
        HydrofoilError: A run or recipe is unknown, or they cannot be compared.
    """
    found = [_existing_runs(what) for what in (a, b)]
    if seeds is not None and any(found):
        given = next(what for what, runs in zip((a, b), found, strict=True) if runs)
        raise HydrofoilError(
            f"--seeds {seeds}: {given} names existing runs, which have their own seeds.\n"
            "Give two recipes to train more seeds, or omit --seeds."
        )
    sides: list[list[Job]] = []
    for letter, what, runs, others in zip("ab", (a, b), found, found[::-1], strict=True):
        own = _own(overrides, letter)
        if runs and own:
            raise HydrofoilError(
                f"'{own[0]}': {what} names existing runs, whose recipe cannot change.\n"
                "Override fields of a recipe; for one side only: b.optimizer.lr=0.01"
            )
        at = [run.recipe.train.seed for run in others]
        sides.append(
            _existing_jobs(what, runs) if runs else _jobs(what, own, at, seeds or SEEDS, folder)
        )
    check_comparable(*sides)
    check_executors(*sides)
    return sides[0], sides[1]


def _own(overrides: Sequence[str], letter: str) -> list[str]:
    """Return the overrides of one side, without its letter."""
    pairs = [re.fullmatch(r"(?:([ab])\.)?(.*)", text, re.DOTALL) for text in overrides]
    return [match[2] for match in pairs if match and match[1] in (None, letter)]


def _existing_runs(what: str) -> list[Run]:
    """Return the runs that a folder or pattern names; empty for a recipe."""
    if what in shipped_recipes() or what.endswith(".toml"):
        return []
    path = run_path(what)
    if any(sign in what for sign in "*?["):
        runs = [Path(found) for found in glob(what) if Path(found, "recipe.toml").is_file()]
    elif path.is_dir() and not (path / "recipe.toml").is_file():
        runs = [file.parent for file in path.glob("*/recipe.toml")]
    elif path.exists() or len(path.parts) > 1:
        runs = [path]
    else:
        return []  # read_recipe says what is wrong with the name
    if not runs:
        raise HydrofoilError(f"{what}: contains no runs: expected folders with a recipe.toml.")
    return sorted((Run.open(run) for run in runs), key=lambda run: run.recipe.train.seed)


def _existing_jobs(what: str, runs: Sequence[Run]) -> list[Job]:
    """Return existing runs as jobs, checked: one recipe, different seeds, all tested."""
    first, jobs = runs[0], [Job(run.path, run.recipe) for run in runs]
    for run, previous in zip(runs[1:], runs, strict=False):
        if not agree(_trained(run.recipe), _trained(first.recipe)):
            raise HydrofoilError(
                f"{what}: runs of different recipes: {first.path} and {run.path} differ in "
                f"{', '.join(differing(first.recipe, run.recipe))}.\n"
                "A side is one recipe with several seeds: name its folder of runs or a 'pattern-*'."
            )
        if run.recipe.train.seed == previous.recipe.train.seed:
            raise HydrofoilError(
                f"{what}: {previous.path} and {run.path} have the same seed, "
                f"{run.recipe.train.seed}.\nEach seed counts once: remove one of them."
            )
    for job in jobs:
        state = job.state()
        if state in ("unfinished", "untested"):
            verb, problem = {
                "unfinished": ("resume", "training is not finished"),
                "untested": ("test", "not tested yet"),
            }[state]
            raise HydrofoilError(
                f"{job.path}: {problem}.\nContinue with: {command(verb, job.path)}"
            )
    return jobs


def _jobs(
    name: str, overrides: Sequence[str], at: Sequence[int], count: int, folder: Path
) -> list[Job]:
    """Return a recipe's jobs, one per seed."""
    recipe = read_recipe(name, overrides)
    seeds = at or range(recipe.train.seed, recipe.train.seed + count)
    jobs: list[Job] = []
    for seed in seeds:
        own = (*overrides, f"train.seed={seed}")
        path = folder / side_name(recipe) / f"seed-{seed}"
        jobs.append(Job(path, read_recipe(name, own), name, own))
    return jobs


def check_comparable(jobs_a: Sequence[Job], jobs_b: Sequence[Job]) -> None:
    """Refuse sides that cannot be compared.

    Raises:
        HydrofoilError: Different datasets, or the same recipe twice.
    """
    recipes = [jobs[0].recipe for jobs in (jobs_a, jobs_b)]
    sources = [_dataset(recipe) for recipe in recipes]
    if sources[0] != sources[1]:
        raise HydrofoilError(
            f"A is tested on {sources[0]} and B on {sources[1]}: accuracies on different datasets "
            "cannot be compared."
        )
    shared = {job.recipe.train.seed for job in jobs_a} & {job.recipe.train.seed for job in jobs_b}
    if fields(recipes[0]) == fields(recipes[1]) and shared:
        raise HydrofoilError(
            "A and B are the same recipe with the same fields and seeds: "
            "their runs would be bit-identical.\n"
            "Change a field on one side, such as b.optimizer.lr=0.01"
        )


def differing(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two recipes differ: (a's value, b's value); None where absent."""
    ours, theirs = fields(a), fields(b)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if not agree({name: ours.get(name)}, {name: theirs.get(name)})
    }


def side_answers(jobs: Sequence[Job]) -> SideAnswers:
    """Read the test answers of a side's runs.

    Raises:
        HydrofoilError: A run's test.json and answers.npz are from two tests: one was interrupted.
    """
    runs = [Run.open(job.path) for job in jobs]
    answers = [run.results.answers()["test"] for run in runs]
    correct_SN = np.stack([(test.predicted_N == test.labels_N).numpy() for test in answers])
    results = [run.results.test() for run in runs]
    for run, correct_N, result in zip(runs, correct_SN, results, strict=True):
        if result is None or result.correct != int(correct_N.sum()):
            raise HydrofoilError(
                f"{run.path}: test.json and answers.npz do not match: a test was interrupted.\n"
                f"Test it again with: {command('test', run.path)}"
            )
    return SideAnswers(
        name=jobs[0].recipe.name,
        seeds=tuple(run.recipe.train.seed for run in runs),
        correct_SN=correct_SN,
        index_SN=np.stack([test.index_N.numpy() for test in answers]),
        runs=tuple(str(run.path) for run in runs),
        warnings=tuple(
            dict.fromkeys(text for result in results if result for text in result.warnings)
        ),
        opened=tuple(run.log.times_tested() for run in runs),
    )


def compare_jobs(
    jobs_a: Sequence[Job], jobs_b: Sequence[Job], target_points: float | None, saved: Path
) -> Comparison:
    """Compare two sides' tested runs.

    Args:
        jobs_a: A's runs.
        jobs_b: B's runs.
        target_points: The difference of interest, in points; None: the observed one.
        saved: The file of the previous comparison of the two, which lists the numbers of seeds
            at which they were compared.

    Raises:
        HydrofoilError: The runs used different files of the dataset.
    """
    hashes = {Run.open(job.path).split().pictures_hash for job in (*jobs_a, *jobs_b)}
    if len(hashes) > 1:
        raise HydrofoilError(
            f"{jobs_a[0].recipe.data.source}: the runs used different files of this dataset "
            f"(hashes {', '.join(sorted(digest[:12] for digest in hashes))}).\n"
            "Accuracies on different images cannot be compared: train all runs on the same files."
        )
    return compare(
        side_answers(jobs_a),
        side_answers(jobs_b),
        differs=differing(jobs_a[0].recipe, jobs_b[0].recipe),
        target_points=target_points,
        seed_counts=_earlier_seed_counts(saved),
    )


def comparison_path(jobs_a: Sequence[Job], jobs_b: Sequence[Job], folder: Path) -> Path:
    """Return the path of a comparison's results: compare-<a>-<b>.json."""
    names = [side_name(jobs[0].recipe) for jobs in (jobs_a, jobs_b)]
    return folder / f"compare-{names[0]}-{names[1]}.json"


def _earlier_seed_counts(saved: Path) -> list[int]:
    """Return the numbers of seeds of earlier comparisons; empty for a missing or broken file."""
    try:
        counts = json.loads(saved.read_text("utf-8"))["seed_counts"]
        return [int(count) for count in counts]
    except (OSError, ValueError, KeyError, TypeError):
        return []
