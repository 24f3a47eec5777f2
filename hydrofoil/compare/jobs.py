"""The runs of a comparison, and what has to be the same in all of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import Epoch
from hydrofoil.models.code import Network
from hydrofoil.recipe.changes import agree
from hydrofoil.recipe.models import Custom
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import is_path, known_as
from hydrofoil.run.events import DataLoaded, ExecutorChosen, Tested, Trained
from hydrofoil.run.folder import Run

State = Literal["missing", "unfinished", "untested", "ready"]


@dataclass(frozen=True)
class Job:
    """One run of a side, existing or missing.

    Args:
        path: Its folder.
        recipe: Its recipe.
        name: The recipe's name or path on the command line; "" for an existing run folder.
        overrides: The recipe's overrides, including the seed.
        network: The user's own network, where the side has one.
    """

    path: Path
    recipe: Recipe
    name: str = ""
    overrides: tuple[str, ...] = ()
    network: Network | None = None

    def state(self) -> State:
        """Return how far the run is.

        Raises:
            HydrofoilError: The folder holds a run of another recipe.
        """
        if not (self.path / "recipe.toml").is_file():
            return "missing"
        run = Run.open(self.path)
        theirs, ours = (
            {**trained_fields(recipe), "train.seed": recipe.train.seed}
            for recipe in (run.recipe, self.recipe)
        )
        if not agree(theirs, ours):
            raise HydrofoilError(
                f"{self.path}: holds a run of another recipe than {self.name}.\n"
                "Move it, or save this comparison's runs in another folder: --runs DIR"
            )
        over = run.recipe.train.is_over(run.checkpoints.epoch(), run.weights.epoch())
        if not run.log.imported() and not over:
            return "unfinished"
        ends = [event for event in run.log.events() if isinstance(event, Epoch | Tested)]
        tested = bool(ends) and isinstance(ends[-1], Tested) and run.results.test() is not None
        return "ready" if tested and (self.path / "answers.npz").is_file() else "untested"

    def seconds(self) -> float:
        """Return the seconds that an existing run took, by its log; 0: unknown."""
        return sum(
            event.seconds
            for event in Run.open(self.path).log.events()
            if isinstance(event, DataLoaded | ExecutorChosen | Trained | Tested)
        )


def work_key(recipe: Recipe, executor: str = "") -> tuple[str, ...]:
    """Return what the time of an epoch depends on most, as text.

    Args:
        recipe: Of a run, or of a side.
        executor: Instead of the recipe's.
    """
    data, train, model = recipe.data, recipe.train, recipe.model
    return tuple(map(str, (data, model, train.batch_size, executor or train.execute)))


def fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that affect a run's results, except the seed, by dotted name."""
    chosen = recipe.affecting("weights", "results", per_run=False)
    return chosen | {"data.source": dataset(recipe)}


def dataset(recipe: Recipe) -> str:
    """Return the dataset's own name, which the recipe may write in another way."""
    return known_as(recipe.data.source) or recipe.data.source


def trained_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields except the executor and the window, which are resolved with a run."""
    apart = {"train.execute", "data.window"}
    if is_path(recipe.data.source):  # measured on the training images of each seed
        apart |= {"data.mean", "data.std"}
    return {name: value for name, value in fields(recipe).items() if name not in apart}


def executors(job: Job) -> set[str]:
    """Return the executors of a run's steps; empty for a missing run."""
    if not (job.path / "recipe.toml").is_file():
        return set()
    run = Run.open(job.path)
    names = {run.recipe.train.execute, run.log.executor() or "auto"}
    return names - {"auto"}


def check_executors(sides: Sequence[Sequence[Job]]) -> None:
    """Refuse to compare runs of different executors: they round differently.

    Recipes may differ in it where the command sets train.execute for one of them.

    Raises:
        HydrofoilError: The runs have different executors; the message names two.
    """
    requested = {jobs[0].recipe.train.execute for jobs in sides}
    on_purpose = all(jobs[0].name for jobs in sides) and len(requested) > 1
    for group in sides if on_purpose else [[job for jobs in sides for job in jobs]]:
        seen: dict[str, Path] = {}
        for job in group:
            seen |= {name: job.path for name in executors(job) - seen.keys()}
        if len(seen) > 1:
            (one, first), (other, second) = list(seen.items())[:2]
            raise HydrofoilError(
                f"{first} was trained by {one} and {second} by {other}: expected one executor in "
                "all runs, since executors round differently.\n"
                f"Train the runs of one executor again, with train.execute={one} on "
                f"{'both' if len(sides) == 2 else 'all'} sides."
            )
    for jobs in sides:
        _check_threads(jobs)


def _check_threads(jobs: Sequence[Job]) -> None:
    """Refuse a side whose runs used other numbers of threads, where the weights depend on them."""
    seen: dict[int, Path] = {}
    for job in jobs:
        if executors(job) - {"native"}:  # native steps are bit-identical with any number
            seen.setdefault(Run.open(job.path).recipe.train.threads, job.path)
    if len(seen) > 1:
        (one, first), (other, second) = list(seen.items())[:2]
        raise HydrofoilError(
            f"{first} was trained on {one} threads and {second} on {other}: expected one number in "
            f"all runs of a side.\nTrain one of them again, with train.threads={one}."
        )


def check_comparable(sides: Sequence[Sequence[Job]], letters: Sequence[str]) -> None:
    """Refuse sides that cannot be compared.

    Raises:
        HydrofoilError: Different datasets, or the same recipe twice.
    """
    for number, jobs in enumerate(sides):
        for before, earlier in enumerate(sides[:number]):
            _check_pair(earlier, jobs, letters[before], letters[number])


def _check_pair(jobs_a: Sequence[Job], jobs_b: Sequence[Job], a: str, b: str) -> None:
    recipes = [jobs[0].recipe for jobs in (jobs_a, jobs_b)]
    sources = [dataset(recipe) for recipe in recipes]
    if sources[0] != sources[1]:
        raise HydrofoilError(
            f"{a} is tested on {sources[0]} and {b} on {sources[1]}: accuracies on different "
            "datasets cannot be compared."
        )
    shared = {job.recipe.train.seed for job in jobs_a} & {job.recipe.train.seed for job in jobs_b}
    if fields(recipes[0]) == fields(recipes[1]) and shared:
        raise HydrofoilError(
            f"{a} and {b} are the same recipe with the same fields and seeds: "
            "their runs would be bit-identical.\n"
            f"Change a field on one side, such as {b.lower()}.lr=0.01"
        )


def differing(*recipes: Recipe) -> dict[str, tuple[Any, ...]]:
    """Return the fields in which recipes differ, each with a value per recipe; None where absent.

    Raises:
        ValueError: No recipe is given.
    """
    tables = [fields(recipe) for recipe in recipes]
    names = dict.fromkeys(name for table in tables for name in table)
    found = {name: tuple(table.get(name) for table in tables) for name in names}
    return {
        name: values
        for name, values in found.items()
        if not all(agree({name: value}, {name: values[0]}) for value in values)
    }


def folder_name(recipe: Recipe) -> str:
    """Return a side's folder name: the recipe's name and eight digits of the fields' SHA-256."""
    text = json.dumps(fields(recipe), sort_keys=True)
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def with_run(job: Job, network: Network | None) -> Job:
    """Return an existing run's job with the network that its code needs, if it needs any."""
    return replace(job, network=network) if isinstance(job.recipe.model, Custom) else job
