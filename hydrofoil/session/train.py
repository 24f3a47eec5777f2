"""Trains a recipe and keeps everything in a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hydrofoil.check.result import Check
from hydrofoil.data.convert import as_pictures
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.split import Split
from hydrofoil.device import pick_device
from hydrofoil.models.code import Network, text_of
from hydrofoil.models.derived import Named
from hydrofoil.observe.observer import Observer, Start
from hydrofoil.recipe.source import is_path
from hydrofoil.run.environment import environment
from hydrofoil.run.events import BudgetPlanned, BudgetSpent
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.budget import Budget, as_budget, within
from hydrofoil.session.data import (
    copies_check,
    find_recipe,
    given_overrides,
    log_data,
    own_threads,
    resolve_data,
)
from hydrofoil.session.observing import Observers, all_observers, default_watcher, say_for
from hydrofoil.session.run import Run
from hydrofoil.session.start import untrained
from hydrofoil.session.test import open_test_split
from hydrofoil.train.loop import fit


@own_threads()
def train(
    recipe: Any,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    run: str | Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Any = None,
    split: Any = None,
    model: Network | None = None,
    observers: Sequence[Observer] = (),
    test: bool = False,
    track: Sequence[str] = (),
    watcher: Watcher | None = None,
    command: Sequence[str] = (),
    budget: str | Budget = "",
    **fields: Any,
) -> Run:
    """Train a recipe in a new run folder; prints nothing, but shows a table in a notebook.

    Ctrl-C ends the step, saves the run for `resume` and raises `Stopped`, whose `run` it is.

    Args:
        recipe: A recipe, its name or file; or images to derive one from: see `docs/recipes.md`.
        overrides: Such as "train.epochs=3", or values by name: {"train.epochs": 3}.
        run: The folder; default: the next free runs/<recipe>-<n>.
        seed: The recipe's train.seed.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: The datasets' folder; default: data.root, HYDROFOIL_DATA or the user's cache.
        pictures: The images, in place of the recipe's dataset: as `hf.Pictures` takes them.
        split: Which of them train, validate and test; default: drawn as the recipe says.
        model: A network in place of the recipe's: a class, a function or a module, which is copied.
        observers: Follow the training, in this order.
        test: Also evaluate the best weights on the test split, which counts as one opening of it.
        track: Trackers: tensorboard, mlflow.
        watcher: Follows a download.
        command: The command line, for environment.json.
        budget: The time for all of it, such as "2m": chooses the epochs by a measurement.
        fields: Of the recipe, as on the command line: epochs=3, lr=0.1, data__test=0.2.

    Raises:
        HydrofoilError: A wrong recipe, missing data, a folder in use, a loss that is not finite.
    """
    changes = given_overrides(train, overrides, fields)
    limit, watching = as_budget(budget, changes), all_observers(observers, track)
    named = find_recipe(recipe, changes, seed, pictures, split, data_root, model,
                        default_watcher(watcher))  # fmt: skip
    images, place = as_pictures(named.pictures), pick_device(device)
    created, start, found, planned = _begin(named, images, split, place, model, run, command, limit,
                                            for_test=test)  # fmt: skip
    created.with_given(model, named.given, data_root)
    with created.writing(say_for(watcher)), Observers(created, watching) as watched:
        log_data(created, images, start.split, named.seconds, named.choices, found, planned)
        with watched.training(start):
            for epoch in fit(start.model, images, start.split, created.recipe, state=start.state,
                             executor=start.prepared.executor, watch=watched.steps):  # fmt: skip
                watched.epoch(epoch)
        _finish(created, images, start.split, place, model, limit, test=test)
    return created


def _begin(
    named: Named,
    images: Pictures,
    split: Any,
    place: torch.device,
    model: Network | None,
    run: str | Path | None,
    command: Sequence[str],
    budget: Budget | None,
    *,
    for_test: bool,
) -> tuple[Run, Start, Check | None, list[BudgetPlanned]]:
    """Return a new run, its training before the first step, its images' copies, and its budget.

    See `train` for the arguments.
    """
    resolved, split, said = resolve_data(
        named.recipe, images, split, named.notes, device=place, for_test=for_test
    )
    checked = copies_check(images, split) if is_path(resolved.data.source) else None
    planned: list[BudgetPlanned] = []
    if budget:
        resolved, plan, chosen = within(
            budget, resolved, images, split, place, model, for_test=for_test
        )
        planned, said = [plan], [*said, *chosen]
    classifier, state, prepared, notes = untrained(resolved, images, split, place, model)
    created = Run.create(run, prepared.recipe, split, environment(place, command), text_of(model))
    said += [*notes, *([checked.summary] if checked else [])]
    start = Start(created, classifier, split, state, prepared, tuple(said), named.choices)
    return created, start, checked, planned


def _finish(
    run: Run,
    images: Pictures,
    split: Split,
    place: torch.device,
    model: Network | None,
    budget: Budget | None,
    *,
    test: bool,
) -> None:
    """Keep what new images are compared with, test if that was requested, and log the time."""
    keep_reference(run, place, images, split, model)
    if test:
        open_test_split(run, images, place, model)
    if budget:
        run.log.append(BudgetSpent(seconds=budget.spent))
