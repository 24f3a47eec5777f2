"""Searches better values of a recipe's fields, and asks on fresh seeds whether they are better."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydrofoil.compare.jobs import fields as compared_fields
from hydrofoil.compare.plan import ALL
from hydrofoil.compare.plan import Plan as ComparisonPlan
from hydrofoil.compare.plan import plan as plan_sides
from hydrofoil.compare.verdict import Comparison, Part
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.device import pick_device
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import write_whole
from hydrofoil.models.code import Network, with_network
from hydrofoil.models.derived import Named, recipe_of
from hydrofoil.observe.observer import Observer
from hydrofoil.recipe.changes import optimizer_notes
from hydrofoil.recipe.read import override
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.tune_page import tune_page
from hydrofoil.report.tune_text import best_toml
from hydrofoil.run.commands import command_line
from hydrofoil.session.compare import Completed, compare_sides
from hydrofoil.session.data import given_overrides, own_threads, read_pictures, resolve_data
from hydrofoil.session.observing import say_for, with_table
from hydrofoil.session.trial import train_trial
from hydrofoil.tune.plan import FEWEST_SEEDS, SEEDS, Limits, Plan
from hydrofoil.tune.result import Goal, Trial, Tuning, best_of
from hydrofoil.tune.space import Space, read_space, space_words, with_values
from hydrofoil.tune.storage import check_installed, try_lock
from hydrofoil.tune.study import Study
from hydrofoil.wording import plural

WAIT_SECONDS = 0.5  # between looks at the trials of other processes
MOST_IMPOSSIBLE = 20  # trials in a row whose values do not fit together


def tune(
    recipe: str | Path | Recipe,
    space: Mapping[str, Any] | Sequence[str],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    trials: int | None = None,
    budget: float | None = None,
    seeds: int = SEEDS,
    on: Part = "valid",
    prune: bool = True,
    study: str | Path | None = None,
    seed: int | None = None,
    model: Network | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    finished: Callable[[Trial, Trial | None], None] | None = None,
    completed: Callable[[Completed], None] | None = None,
    observers: Sequence[Observer] = (),
    watcher: Watcher | None = None,
    **fields: Any,
) -> Tuning:
    """Search better values of a recipe's fields, and compare them with its own on fresh seeds.

    Trials are judged on validation images; the search opens no test split. Trials, page and figures
    are kept in a folder: the same call continues, and calls in other processes join.

    Args:
        recipe: A recipe, its name or file; or images to derive one from, by path.
        space: What to choose, by dotted or short name: {"lr": "log:0.001..0.1", "dropout":
            "0..0.5", "optimizer": ["sgd", "adamw"]}; or as on the command line, in a list.
        overrides: Of fields that are the same in all trials: "train.epochs=3", or by name.
        trials: How many, in all processes; default: 30, or with a budget any number.
        budget: Seconds for everything; the comparison may have fewer seeds, but at least two.
        seeds: Fresh seeds for the comparison of the winner with the recipe; 0: no comparison.
        on: Where these two are compared: "valid", or "test", which opens test splits.
        prune: Stop bad trials early, by Hyperband.
        study: The folder; default: runs/tune/<recipe>-<hash>.
        seed: The recipe's train.seed, which also seeds the search.
        model: The user's own network.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        finished: Called after each trial of this call, with the best trial so far.
        completed: Called after each run of the comparison.
        observers: Follow each training.
        watcher: Follows a download.
        fields: Fields as keywords: epochs=3.

    Raises:
        HydrofoilError: The space does not fit the recipe, which has no validation images; the
            folder holds another study; Optuna is not installed.
        Stopped: A signal came; the same call continues.
    """
    limits = Limits.of(trials, budget, seeds)
    search = Search.begin(
        recipe, space_words(space), given_overrides(tune, overrides, fields), limits, on=on,
        prune=prune, study=study, seed=seed, model=model, device=device, data_root=data_root,
        observers=with_table(observers), watcher=watcher,
    )  # fmt: skip
    search.run(finished or (lambda trial, best: None))
    return search.conclude(completed=completed)


@dataclass
class Search:
    """A search in one process.

    Args:
        study: Its trials.
        limits: When it ends.
        on: The part of the split on which the winner is compared at the end.
        pictures: The images of all trials; None: they depend on what is chosen.
        model: The user's own network.
        device: Where to train.
        data_root: Where the datasets are.
        observers: Follow each training.
        watcher: Follows a download.
        command: The command line, for the runs and the page.
        notes: For the user.
    """

    study: Study
    limits: Limits
    on: Part
    pictures: Pictures | None
    model: Network | None
    device: str
    data_root: str | Path
    observers: Sequence[Observer]
    watcher: Watcher | None
    command: Sequence[str]
    notes: tuple[str, ...]

    @classmethod
    @own_threads()
    def begin(
        cls,
        recipe: str | Path | Recipe,
        space: Sequence[str],
        overrides: Sequence[str],
        limits: Limits,
        *,
        on: Part = "valid",
        prune: bool = True,
        study: str | Path | None = None,
        seed: int | None = None,
        model: Network | None = None,
        device: str = "auto",
        data_root: str | Path = "",
        observers: Sequence[Observer] = (),
        watcher: Watcher | None = None,
        command: Sequence[str] = (),
    ) -> "Search":
        """Open a study, or make it: see `tune` for the arguments and errors."""
        check_installed()
        if on not in ("valid", "test"):
            raise HydrofoilError(f"on = {on!r}: expected 'valid' or 'test'.")
        own = [*overrides, *([] if seed is None else [f"train.seed={seed}"])]
        named = _named(recipe, own, model, data_root, watcher)
        base = with_network(named.recipe, model)
        chosen = read_space(space, base)
        images = named.pictures
        if images is None:
            images, _ = read_pictures(base, data_root, None, watcher)
        goal, notes = _goal(base, images, pick_device(device))
        plan = Plan(base, chosen, goal, prune)
        folder = Path(study) if study else plan.folder()
        opened = Study(folder, plan, say_for(watcher))
        write_whole(folder / "default.toml", base.toml().encode())
        same_images = not any(d.field.startswith("data.") for d in chosen.dimensions)
        notes += _outside(chosen, base)
        return cls(
            opened, limits, on, images if same_images else None, model, device, data_root,
            observers, watcher, command, (*named.notes, *notes),
        )  # fmt: skip

    @own_threads()
    def run(self, finished: Callable[[Trial, Trial | None], None]) -> None:
        """Train trials until the limits are reached, in all processes.

        Args:
            finished: Called after each trial of this process, with the best trial so far.

        Raises:
            HydrofoilError: A trial failed for another reason than its values.
            Stopped: A signal came; the trial can be resumed.
        """
        study, goal = self.study, self.study.plan.goal
        while True:
            claim = study.claim(self.limits.trials, more=self._has_time())
            if claim is not None:
                trial = train_trial(claim, **self._given())
                trials = study.trials()
                finished(trial, best_of(trials, goal))
                _check_possible(trials)
            elif not study.is_running():
                return
            else:
                time.sleep(WAIT_SECONDS)  # for trials of other processes, which may be killed

    def _has_time(self) -> bool:
        """Tell whether another trial fits the budget, with the comparison after it.

        The comparison may claim at most half of the budget, or a short one would be all of it.
        """
        budget = self.limits.budget
        if budget is None:
            return True
        ended = [t for t in self.study.trials() if t.state != "running"]
        if not ended:
            return True
        mean = sum(trial.seconds for trial in ended) / len(ended)
        reserved = min(self.comparison_seconds(), budget / 2)
        return self.study.elapsed() + mean + reserved <= budget

    def comparison_seconds(self, seeds: int | None = None) -> float:
        """Return what the comparison takes, by the complete trials; 0: unknown.

        Args:
            seeds: How many; default: those of the limits.
        """
        done = [t.seconds for t in self.study.trials() if t.state == "complete"]
        count = self.limits.seeds if seeds is None else seeds
        return 2 * count * sum(done) / len(done) if done else 0.0

    def fresh_seeds(self) -> int:
        """Return how many seeds of the limits fit the budget; at least two."""
        budget, seeds = self.limits.budget, self.limits.seeds
        each = self.comparison_seconds(1)
        if budget is None or not each:
            return seeds
        fitting = int((budget - self.study.elapsed()) / each)
        return min(seeds, max(FEWEST_SEEDS, fitting))

    def _given(self) -> dict[str, Any]:
        """Return the arguments of each training."""
        return {
            "device": self.device,
            "data_root": self.data_root,
            "pictures": self.pictures,
            "observers": self.observers,
            "watcher": self.watcher,
            "model": self.model,
            "command": self.command,
        }

    def found(self, comparison: Comparison | None = None, notes: Sequence[str] = ()) -> Tuning:
        """Return what is known so far."""
        study, trials = self.study, tuple(self.study.trials())
        plan, best = study.plan, best_of(trials, self.study.plan.goal)
        return Tuning(
            study=str(study.folder),
            space=plan.space,
            goal=plan.goal,
            trials=trials,
            recipe=plan.recipe,
            winner=with_values(plan.recipe, best.values) if best else None,
            on=self.on,
            comparison=comparison,
            importance=study.importance(),
            notes=(*self.notes, *notes),
            seconds=study.elapsed(),
            command=command_line(["hydrofoil", *self.command]) if self.command else "",
        )

    def comparison_plan(self) -> ComparisonPlan | None:
        """Return the comparison of the recipe with the winner; None: there is none to make.

        Raises:
            HydrofoilError: No trial was completed.
        """
        found = self.found()
        if found.winner is None:
            raise HydrofoilError(_nothing_complete(found))
        best = self.study.folder / "best.toml"
        write_whole(best, best_toml(found).encode())
        same = compared_fields(found.winner) == compared_fields(found.recipe)
        if not self.limits.seeds or same:
            return None
        first = found.recipe.train.seed + 1
        words = [str(self.study.folder / "default.toml"), str(best), f"train.seed={first}"]
        planned = plan_sides(
            words, seeds=self.fresh_seeds(), folder=self.study.folder / "fresh",
            networks={ALL: self.model} if self.model is not None else None,
            data_root=self.data_root, watcher=self.watcher,
        )  # fmt: skip
        return replace(planned, part=self.on)  # the images may have a validation part of their own

    def conclude(
        self,
        plan: ComparisonPlan | None = None,
        *,
        completed: Callable[[Completed], None] | None = None,
        observers: Sequence[Observer] | None = None,
    ) -> Tuning:
        """Compare the winner with the recipe on fresh seeds, and write the page.

        One process compares; another one waits for it, and finds everything trained.

        Args:
            plan: What `comparison_plan` returned; default: that.
            completed: Called after each run.
            observers: Follow each training; default: those of the trials.

        Raises:
            HydrofoilError: No trial was completed, or a run failed.
            Stopped: A signal came; the same call continues.
        """
        plan = plan or self.comparison_plan()
        comparison, notes = None, list[str]()
        if plan is not None:
            folder = self.study.folder
            while (free := try_lock(folder / ".fresh.lock")) is None:
                time.sleep(WAIT_SECONDS)
            try:
                compared = compare_sides(
                    plan, device=self.device, data_root=self.data_root, completed=completed,
                    watcher=self.watcher, command=_compare_words(plan),
                    observers=self.observers if observers is None else observers,
                )  # fmt: skip
            finally:
                free()
            comparison = compared if isinstance(compared, Comparison) else None
            if (count := len(plan.jobs[0])) < self.limits.seeds:
                wanted = self.limits.seeds
                notes.append(f"{count} fresh seeds instead of {wanted}: more do not fit the budget")
        elif self.limits.seeds:
            notes.append(
                "the recipe's own values are the best that was found: there is nothing to compare"
            )
        found = self.found(comparison, notes)
        write_found(found)
        return found


def write_found(found: Tuning) -> Path:
    """Write the page and its figures into the study's folder, and return the page's path."""
    import json

    folder = Path(found.study)
    text = json.dumps(found.as_dict(), indent=2, ensure_ascii=False)
    write_whole(folder / "tune.json", f"{text}\n".encode())
    if found.winner is not None:
        write_whole(folder / "best.toml", best_toml(found).encode())
    page = folder / "tune.html"
    write_whole(page, tune_page(found))
    return page


def _compare_words(plan: ComparisonPlan) -> list[str]:
    """Return the command that repeats the comparison of the winner, perhaps with more seeds."""
    where = ["--on", plan.part, "--runs", str(plan.folder)]
    words = [side.what for side in plan.sides]
    return ["compare", *words, *plan.overrides, "--seeds", str(len(plan.jobs[0])), *where]


def _named(
    recipe: str | Path | Recipe,
    overrides: Sequence[str],
    model: Network | None,
    data_root: str | Path,
    watcher: Watcher | None,
) -> Named:
    if isinstance(recipe, Recipe):
        changed = override(recipe, overrides) if overrides else recipe
        return Named(changed, tuple(optimizer_notes(recipe, changed, overrides)))
    return recipe_of(str(recipe), overrides, data_root=data_root, watcher=watcher, network=model)


def _goal(recipe: Recipe, pictures: Pictures, device: Any) -> tuple[Goal, list[str]]:
    """Return the figure by which trials are judged.

    Raises:
        HydrofoilError: There are no validation images to judge by.
    """
    resolved, split, notes = resolve_data(recipe, pictures, None, device=device)
    if not len(split.valid):
        raise HydrofoilError(
            f"{recipe.name}: data.valid = 0 leaves no validation images: a search chooses by them, "
            "since the test split is for the last test.\nSet some aside: data.valid=0.2"
        )
    return Goal(resolved.train.select or "last"), notes


def _outside(space: Space, recipe: Recipe) -> list[str]:
    """Say that no trial has the recipe's own values."""
    own = space.values_of(recipe)
    fields = [f"{field} = {own[field]}" for field in space.outside(recipe)]
    if not fields:
        return []
    return [f"the recipe's own {', '.join(fields)} is not in the space: no trial has it"]


def _check_possible(trials: Sequence[Trial]) -> None:
    """Stop a search whose values never fit together.

    Raises:
        HydrofoilError: The last error.
    """
    last = trials[-MOST_IMPOSSIBLE:]
    if len(last) == MOST_IMPOSSIBLE and all(trial.state == "impossible" for trial in last):
        raise HydrofoilError(
            f"{MOST_IMPOSSIBLE} trials in a row were impossible: {last[-1].note}\n"
            "Choose a smaller space."
        )


def _nothing_complete(found: Tuning) -> str:
    """Return the error of a search without a winner."""
    count = plural(len(found.trials), "trial")
    states = ", ".join(f"{number} {state}" for state, number in found.counts().items())
    last = next((trial.note for trial in reversed(found.trials) if trial.note), "")
    why = f"\nThe last one: {last.partition(chr(10))[0]}" if last else ""
    return f"{found.study}: no trial was completed: {count}, {states}.{why}"
