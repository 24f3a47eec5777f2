"""The two sides of a comparison: which runs stand on each, which are missing, what they answered.

Axes: S seeds, N test pictures.
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

from hydrofoil.compare.statistics import Answered
from hydrofoil.compare.verdict import Comparison, compare
from hydrofoil.data.source import known_as
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import Epoch
from hydrofoil.recipe.read import read_recipe, shipped_recipes
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.commands import command
from hydrofoil.run.events import Tested
from hydrofoil.run.folder import Run

SEEDS = 10


@dataclass(frozen=True)
class Job:
    """One run of a side, there already or still to be made.

    Args:
        path: Its folder.
        recipe: What it trains.
        name: The recipe's name or path as it was given; "" for a run folder that was given.
        overrides: What is overridden in it, the seed included.
    """

    path: Path
    recipe: Recipe
    name: str = ""
    overrides: tuple[str, ...] = ()

    def state(self) -> Literal["missing", "unfinished", "untested", "ready"]:
        """Tell what is there of it.

        Raises:
            HydrofoilError: Another recipe's run lies in its folder.
        """
        if not (self.path / "recipe.toml").is_file():
            return "missing"
        run = Run.open(self.path)
        theirs, ours = ((_trained(one), one.train.seed) for one in (run.recipe, self.recipe))
        if theirs != ours:
            raise HydrofoilError(
                f"{self.path}: holds a run of another recipe than {self.name}.\n"
                "Move it away, or keep this comparison's runs elsewhere: --runs DIR"
            )
        if not run.log.imported() and run.checkpoints.epoch() < run.recipe.train.epochs:
            return "unfinished"
        ends = [event for event in run.log.events() if isinstance(event, Epoch | Tested)]
        tested = bool(ends) and isinstance(ends[-1], Tested) and run.results.test() is not None
        return "ready" if tested and (self.path / "answers.npz").is_file() else "untested"


def fields(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the results of a recipe's runs beside the seed, by dotted name."""
    chosen = recipe.affecting("weights", "results", per_run=False)
    return chosen | {"data.source": _dataset(recipe)}


def _dataset(recipe: Recipe) -> str:
    """Return the dataset's own name, which the recipe may write in another way."""
    return known_as(recipe.data.source) or recipe.data.source


def _trained(recipe: Recipe) -> dict[str, Any]:
    """Return the fields except the executor, which is resolved only once a run exists."""
    return {name: value for name, value in fields(recipe).items() if name != "train.execute"}


def _executors(job: Job) -> set[str]:
    """Return which executors took a run's steps, as far as there is a run."""
    if not (job.path / "recipe.toml").is_file():
        return set()
    run = Run.open(job.path)
    names = {run.recipe.train.execute, run.log.executor() or "auto"}
    return names - {"auto"}


def check_executors(jobs_a: Sequence[Job], jobs_b: Sequence[Job]) -> None:
    """Refuse to compare runs of different executors: they round differently.

    Only two recipes may differ in it, if the command gives train.execute for one of them.

    Raises:
        HydrofoilError: It names two runs and their executors.
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


def side_name(recipe: Recipe) -> str:
    """Return the name of a side's folder: the recipe's, and eight digits of the fields' SHA-256."""
    text = json.dumps(fields(recipe), sort_keys=True)
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def plan(
    a: str, b: str, overrides: Sequence[str], seeds: int | None, folder: Path
) -> tuple[list[Job], list[Job]]:
    """Return both sides' runs, by rising seed.

    A side is a recipe, which gets so many seeds from its train.seed on, or the seeds of the runs on
    the other side; or it is a run folder, a folder of runs, or a pattern such as 'runs/digits-*'.

    Args:
        a: One side.
        b: The other.
        overrides: Fields for both recipes; a.FIELD=VALUE or b.FIELD=VALUE for one.
        seeds: How many; default: 10.
        folder: Where missing runs are made.

    Raises:
        HydrofoilError: There are no such runs or recipes, or they cannot be compared.
    """
    found = [_runs_there(what) for what in (a, b)]
    if seeds is not None and any(found):
        given = next(what for what, runs in zip((a, b), found, strict=True) if runs)
        raise HydrofoilError(
            f"--seeds {seeds}: {given} are runs, and their seeds are those that there are.\n"
            "Give two recipes to train more, or leave --seeds out."
        )
    sides: list[list[Job]] = []
    for letter, what, runs, others in zip("ab", (a, b), found, found[::-1], strict=True):
        own = _own(overrides, letter)
        if runs and own:
            raise HydrofoilError(
                f"'{own[0]}': {what} holds runs, and what they trained stays as it was.\n"
                "Fields are for recipes; for one side alone: b.optimizer.lr=0.01"
            )
        at = [run.recipe.train.seed for run in others]
        sides.append(_given(what, runs) if runs else _jobs(what, own, at, seeds or SEEDS, folder))
    check_comparable(*sides)
    check_executors(*sides)
    return sides[0], sides[1]


def _own(overrides: Sequence[str], letter: str) -> list[str]:
    """Return the overrides of one side, without its letter."""
    pairs = [re.fullmatch(r"(?:([ab])\.)?(.*)", text, re.DOTALL) for text in overrides]
    return [match[2] for match in pairs if match and match[1] in (None, letter)]


def _runs_there(what: str) -> list[Run]:
    """Return the runs that a folder or a pattern names; none where a recipe is meant."""
    if what in shipped_recipes() or what.endswith(".toml"):
        return []
    path = Path(what)
    if any(sign in what for sign in "*?["):
        runs = [Path(found) for found in glob(what) if Path(found, "recipe.toml").is_file()]
    elif path.is_dir() and not (path / "recipe.toml").is_file():
        runs = [file.parent for file in path.glob("*/recipe.toml")]
    elif path.exists() or len(path.parts) > 1:
        runs = [path]
    else:
        return []  # read_recipe says what is wrong with the name
    if not runs:
        raise HydrofoilError(f"{what}: no run lies there: expected folders with a recipe.toml.")
    return sorted((Run.open(run) for run in runs), key=lambda run: run.recipe.train.seed)


def _given(what: str, runs: Sequence[Run]) -> list[Job]:
    """Return the runs that are there, if they are one recipe's, with a seed each."""
    first, jobs = runs[0], [Job(run.path, run.recipe) for run in runs]
    for run, previous in zip(runs[1:], runs, strict=False):
        if _trained(run.recipe) != _trained(first.recipe):
            raise HydrofoilError(
                f"{what}: runs of different recipes: {first.path} and {run.path} differ in "
                f"{', '.join(differing(first.recipe, run.recipe))}.\n"
                "A side is one recipe with several seeds: name its runs by a folder or 'pattern-*'."
            )
        if run.recipe.train.seed == previous.recipe.train.seed:
            raise HydrofoilError(
                f"{what}: {previous.path} and {run.path} have the same seed, "
                f"{run.recipe.train.seed}.\nThe same run twice counts once: leave one out."
            )
    for job in jobs:
        state = job.state()
        if state in ("unfinished", "untested"):
            verb, lacks = {
                "unfinished": ("resume", "not all its epochs are done"),
                "untested": ("test", "its answers to the test pictures are not kept"),
            }[state]
            raise HydrofoilError(f"{job.path}: {lacks}.\nGo on with: {command(verb, job.path)}")
    return jobs


def _jobs(
    name: str, overrides: Sequence[str], at: Sequence[int], count: int, folder: Path
) -> list[Job]:
    """Return a recipe's runs, one a seed, wherever they are to lie."""
    recipe = read_recipe(name, overrides)
    seeds = at or range(recipe.train.seed, recipe.train.seed + count)
    jobs: list[Job] = []
    for seed in seeds:
        own = (*overrides, f"train.seed={seed}")
        path = folder / side_name(recipe) / f"seed-{seed}"
        jobs.append(Job(path, read_recipe(name, own), name, own))
    return jobs


def check_comparable(jobs_a: Sequence[Job], jobs_b: Sequence[Job]) -> None:
    """Refuse what no figure could compare.

    Raises:
        HydrofoilError: Two sets, or the same recipe twice.
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
            "their runs would be the same bits.\n"
            "Change a field on one side, such as b.optimizer.lr=0.01"
        )


def differing(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two recipes differ: (a's value, b's); None where one has none."""
    ours, theirs = fields(a), fields(b)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if ours.get(name) != theirs.get(name)
    }


def answered(jobs: Sequence[Job]) -> Answered:
    """Read what a side's runs answered to their test pictures.

    Raises:
        HydrofoilError: A run's test.json and answers.npz are of two tests: one died in between.
    """
    runs = [Run.open(job.path) for job in jobs]
    answers = [run.results.answers()["test"] for run in runs]
    right_SN = np.stack([(one.predicted_N == one.labels_N).numpy() for one in answers])
    results = [run.results.test() for run in runs]
    for run, right_N, result in zip(runs, right_SN, results, strict=True):
        if result is None or result.correct != int(right_N.sum()):
            raise HydrofoilError(
                f"{run.path}: test.json and answers.npz do not agree: a test was cut short.\n"
                f"Test it again with: {command('test', run.path)}"
            )
    return Answered(
        name=jobs[0].recipe.name,
        seeds=tuple(run.recipe.train.seed for run in runs),
        right_SN=right_SN,
        index_SN=np.stack([one.index_N.numpy() for one in answers]),
        runs=tuple(str(run.path) for run in runs),
        warnings=tuple(dict.fromkeys(text for one in results if one for text in one.warnings)),
        opened=tuple(run.log.times_tested() for run in runs),
    )


def compare_jobs(
    jobs_a: Sequence[Job], jobs_b: Sequence[Job], asked_points: float | None, kept: Path
) -> Comparison:
    """Compare two sides' runs, all tested.

    Args:
        jobs_a: One side's runs.
        jobs_b: The other's.
        asked_points: The difference that a person cares about, in points; None: the observed one.
        kept: The file of the last comparison of the two, if there was one: it tells after how many
            seeds they were looked at before.

    Raises:
        HydrofoilError: Their sets have the same name and are not the same pictures.
    """
    hashes = {Run.open(job.path).split().pictures_hash for job in (*jobs_a, *jobs_b)}
    if len(hashes) > 1:
        raise HydrofoilError(
            f"{jobs_a[0].recipe.data.source}: not all runs saw the same files of it "
            f"(hashes {', '.join(sorted(one[:12] for one in hashes))}).\n"
            "Accuracies on different sets cannot be compared: train them on the same files."
        )
    return compare(
        answered(jobs_a),
        answered(jobs_b),
        differs=differing(jobs_a[0].recipe, jobs_b[0].recipe),
        asked_points=asked_points,
        looked=_looked(kept),
    )


def kept_path(jobs_a: Sequence[Job], jobs_b: Sequence[Job], folder: Path) -> Path:
    """Return where a comparison is kept: compare-<a>-<b>.json."""
    names = [side_name(jobs[0].recipe) for jobs in (jobs_a, jobs_b)]
    return folder / f"compare-{names[0]}-{names[1]}.json"


def _looked(kept: Path) -> list[int]:
    """Return after how many seeds an earlier comparison was made; a broken file tells nothing."""
    try:
        looked = json.loads(kept.read_text("utf-8"))["looked"]
        return [int(count) for count in looked]
    except (OSError, ValueError, KeyError, TypeError):
        return []
