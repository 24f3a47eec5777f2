"""From the words of a command to the sides of a comparison and their runs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path

from hydrofoil.compare.jobs import (
    Job,
    State,
    check_comparable,
    check_executors,
    differing,
    folder_name,
    trained_fields,
    with_run,
)
from hydrofoil.compare.labels import labels
from hydrofoil.compare.setup import Given
from hydrofoil.compare.verdict import Part
from hydrofoil.data.published.download import Watcher
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.code import Network, with_network
from hydrofoil.models.derived import Named, recipe_of
from hydrofoil.recipe.changes import agree
from hydrofoil.recipe.read import override, shipped_recipes
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import known_as
from hydrofoil.run.commands import command
from hydrofoil.run.find import run_path
from hydrofoil.run.folder import Run

SEEDS = 10
LETTERS = "ABCDEFGH"  # as many as a page has colors
ALL = ""  # the key of a network for all sides
FIELD = re.compile(r"\s*(?:([A-Za-z])\.)?([A-Za-z_][\w.-]*)\s*=.*", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """A comparison before its first training.

    Args:
        sides: At least two.
        labels: What sets each side apart.
        overrides: Those of all sides, as they were given.
        part: The part of the split to compare on.
        folder: Where missing runs and the results are made.
    """

    sides: tuple[Given, ...]
    labels: tuple[str, ...]
    overrides: tuple[str, ...]
    part: Part
    folder: Path

    @property
    def recipes(self) -> list[Recipe]:
        """The recipe of each side."""
        return [side.jobs[0].recipe for side in self.sides]

    @property
    def jobs(self) -> list[tuple[Job, ...]]:
        """The runs of each side."""
        return [side.jobs for side in self.sides]

    @property
    def differs(self) -> dict[str, tuple[object, ...]]:
        """The fields that are not the same on all sides: a value per side."""
        return differing(*self.recipes)

    def work(self, job: Job) -> State:
        """Return what a run lacks for this comparison; validation needs no test."""
        state = job.state()
        return "ready" if state == "untested" and self.part == "valid" else state


def plan(
    words: Sequence[str],
    *,
    seeds: int | None = None,
    folder: Path,
    part: Part = "test",
    networks: Mapping[str, Network] | None = None,
    data_root: str | Path = "",
    watcher: Watcher | None = None,
) -> Plan:
    """Return the sides that a command names, with their runs by ascending seed.

    A side is a recipe, or images from which one is derived: it is trained with `seeds` seeds from
    its train.seed on, or with the seeds of the other sides' runs. Or it is a run folder, a folder
    of runs, or a pattern ('runs/digits-*'). One side alone is compared with itself: b.lr=0.01 makes
    B, c.lr=0.1 makes C.

    Args:
        words: Sides, and fields: FIELD=VALUE for all recipes, b.FIELD=VALUE for one.
        seeds: The number of seeds; default: 10.
        folder: The folder of missing runs.
        part: The part of the split to compare on.
        networks: The user's own networks by a side's letter, or for all sides by "".
        data_root: Where the datasets are, for a side that is images.
        watcher: Follows a download.

    Raises:
        HydrofoilError: A run or recipe is unknown, or they cannot be compared.
    """
    given = [word for word in words if not _is_override(word)]
    overrides = [word for word in words if _is_override(word)]
    code = {letter.upper(): network for letter, network in (networks or {}).items()}
    named = _all_sides(given, overrides, code)
    found = [_existing_runs(what) for what in named]
    if seeds is not None and any(found):
        what = next(what for what, runs in zip(named, found, strict=True) if runs)
        raise HydrofoilError(
            f"--seeds {seeds}: {what} names existing runs, which have their own seeds.\n"
            "Give recipes alone to train more seeds, or omit --seeds."
        )
    read = partial(recipe_of, data_root=data_root, watcher=watcher)
    sides = _sides(named, found, overrides, code, read, seeds or SEEDS, folder)
    jobs = [side.jobs for side in sides]
    check_comparable(jobs, [side.letter for side in sides])
    check_executors(jobs)
    shared = tuple(text for text in overrides if not _letter(text))
    recipes = [side.jobs[0].recipe for side in sides]
    made = Plan(tuple(sides), tuple(labels(named, recipes)), shared, part, folder)
    _check_part(made)
    return made


def _is_override(word: str) -> bool:
    """Tell FIELD=VALUE from a side, whose path may contain an equals sign."""
    return FIELD.fullmatch(word) is not None and not Path(word).exists()


def _letter(override: str) -> str:
    """Return the letter of the side that an override is for; "" for all sides."""
    match = FIELD.fullmatch(override)
    return (match[1] or "").upper() if match else ""


def _without_letter(override: str) -> str:
    return override.strip()[2:] if _letter(override) else override


def _all_sides(
    given: Sequence[str], overrides: Sequence[str], code: Mapping[str, Network]
) -> list[str]:
    """Return what each side is: those that are given, or one recipe for every letter.

    Raises:
        HydrofoilError: There is one side only, or a letter without a side.
    """
    letters = {_letter(text): text for text in overrides if _letter(text)}
    letters |= {letter: f"--model-code {letter.lower()}=" for letter in code if letter != ALL}
    if not given:
        raise HydrofoilError(
            "compare: no side: expected a recipe, run folders or folders of runs.\n"
            "For example: hydrofoil compare digits b.lr=0.05"
        )
    most = max((*letters, "A"), key=lambda letter: LETTERS.find(letter))
    wrong = next((text for letter, text in letters.items() if letter not in LETTERS), "")
    count = len(given) if len(given) > 1 else LETTERS.index(most) + 1
    if wrong or count > len(LETTERS):
        what = wrong or f"{count} sides"
        raise HydrofoilError(f"{what}: expected at most {len(LETTERS)} sides, a to h.")
    if count == 1:
        raise HydrofoilError(
            f"{given[0]}: side A alone: expected a side B as well.\n"
            "Change a field for B, such as b.lr=0.01, or name another recipe or run folder."
        )
    if len(given) == 1:
        missing = [letter for letter in LETTERS[1:count] if letter not in letters]
        if missing:
            raise HydrofoilError(
                f"'{letters[most]}': side {missing[0]} has no change of its own: "
                f"expected {missing[0].lower()}.FIELD=VALUE too.\nLetters have no gaps: b, c, d."
            )
        return [given[0]] * count
    beyond = next((text for letter, text in letters.items() if letter not in LETTERS[:count]), "")
    if beyond:
        raise HydrofoilError(
            f"'{beyond}': {count} sides were named, A to {LETTERS[count - 1]}.\n"
            "Name one recipe alone, and each letter makes a side of it."
        )
    return list(given)


def _sides(
    named: Sequence[str],
    found: Sequence[Sequence[Run]],
    overrides: Sequence[str],
    code: Mapping[str, Network],
    read: Callable[..., Named],
    count: int,
    folder: Path,
) -> list[Given]:
    """Return the sides with their runs.

    Args:
        named: What each side is.
        found: Its existing runs; empty: it is trained.
        overrides: Of all sides.
        code: The user's own networks by letter.
        read: Returns the recipe that a name stands for.
        count: How many seeds are trained, where no side has runs.
        folder: The folder of missing runs.
    """
    at = next(([run.recipe.train.seed for run in runs] for runs in found if runs), None)
    sides: list[Given] = []
    for letter, what, runs in zip(LETTERS, named, found, strict=False):
        network = code.get(letter, code.get(ALL))
        own = [text for text in overrides if _letter(text) in ("", letter)]
        changes, notes = [_without_letter(text) for text in own], tuple[str, ...]()
        if runs:
            _check_unchanged(what, changes)
            jobs = _existing_jobs(what, runs, network)
        else:
            its = read(what, changes, network=network)
            jobs, notes = _jobs(its.recipe, what, changes, at or count, folder, network), its.notes
        mine = tuple(_without_letter(text) for text in own if _letter(text))
        sides.append(Given(letter, what, mine, tuple(jobs), notes))
    return sides


def _check_unchanged(what: str, overrides: Sequence[str]) -> None:
    """Refuse to change the recipe of existing runs."""
    if overrides:
        raise HydrofoilError(
            f"'{overrides[0]}': {what} names existing runs, whose recipe cannot change.\n"
            "Override fields of a recipe; for one side only: b.lr=0.01"
        )


def _existing_runs(what: str) -> list[Run]:
    """Return the runs that a folder, a name or a pattern names; empty for a recipe."""
    if what in shipped_recipes() or what.endswith(".toml"):
        return []
    path = run_path(what)
    if path.is_file() or known_as(what) or _is_images(path):
        return []
    if any(sign in what for sign in "*?[") and not path.exists():
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


def _is_images(path: Path) -> bool:
    """Return whether a folder has something in it, and no run."""
    if not path.is_dir() or (path / "recipe.toml").is_file():
        return False
    return any(path.iterdir()) and not any(path.glob("*/recipe.toml"))


def _existing_jobs(what: str, runs: Sequence[Run], network: Network | None) -> list[Job]:
    """Return existing runs as jobs, checked: one recipe, different seeds, all trained."""
    first, jobs = runs[0], [with_run(Job(run.path, run.recipe), network) for run in runs]
    for run, previous in zip(runs[1:], runs, strict=False):
        if not agree(trained_fields(run.recipe), trained_fields(first.recipe)):
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
        if job.state() == "unfinished":
            raise HydrofoilError(
                f"{job.path}: training is not finished.\n"
                f"Continue with: {command('resume', job.path)}"
            )
    return jobs


def _jobs(
    recipe: Recipe,
    name: str,
    overrides: Sequence[str],
    seeds: Sequence[int] | int,
    folder: Path,
    network: Network | None,
) -> list[Job]:
    """Return a recipe's jobs, one per seed: for given seeds, or for so many from its own on."""
    recipe = with_network(recipe, network)
    first = recipe.train.seed
    jobs: list[Job] = []
    for seed in range(first, first + seeds) if isinstance(seeds, int) else seeds:
        own = f"train.seed={seed}"
        path = folder / folder_name(recipe) / f"seed-{seed}"
        jobs.append(Job(path, override(recipe, [own]), name, (*overrides, own), network))
    return jobs


def _check_part(made: Plan) -> None:
    """Refuse to compare on a validation split that a side does not have."""
    for side in made.sides if made.part == "valid" else ():
        for job in side.jobs:
            if not job.recipe.data.valid:
                raise HydrofoilError(
                    f"--on valid: {side.what} has no validation split (data.valid = 0).\n"
                    "Set one aside with data.valid=0.2, or compare on the test split."
                )
