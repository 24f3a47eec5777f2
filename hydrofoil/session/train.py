"""Trains a recipe and keeps everything in a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydrofoil.data.published.download import Watcher
from hydrofoil.device import pick_device
from hydrofoil.models.code import Network, text_of
from hydrofoil.observe.observer import Observer, Start
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.environment import environment
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.data import (
    find_recipe,
    given_overrides,
    log_data,
    own_threads,
    read_pictures,
    resolve_data,
)
from hydrofoil.session.observing import Observers, all_observers, default_watcher, say_for
from hydrofoil.session.run import Run
from hydrofoil.session.start import untrained
from hydrofoil.session.test import open_test_split
from hydrofoil.train.loop import fit


@own_threads()
def train(
    recipe: str | Path | Recipe,
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
    **fields: Any,
) -> Run:
    """Train a recipe in a new run folder; prints nothing, but shows a table in a notebook.

    Ctrl-C ends the step, saves the run for `resume` and raises `Stopped`, whose `run` it is.

    Args:
        recipe: A shipped recipe's name, a file's path, or a recipe.
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
        fields: Of the recipe, as on the command line: epochs=3, lr=0.1, data__test=0.2.

    Raises:
        HydrofoilError: A wrong recipe, missing data, a folder in use, a loss that is not finite.
    """
    resolved, said = find_recipe(recipe, given_overrides(train, overrides, fields), seed)
    place, watching = pick_device(device), all_observers(observers, track)
    images, seconds = read_pictures(resolved, data_root, pictures, default_watcher(watcher))
    resolved, split, said = resolve_data(resolved, images, split, said, device=place, for_test=test)
    classifier, state, prepared, notes = untrained(resolved, images, split, place, model)
    created = Run.create(run, prepared.recipe, split, environment(place, command), text_of(model))
    with created.writing(say_for(watcher)), Observers(created, watching) as watched:
        log_data(created.with_given(model, pictures, data_root), images, split, seconds)
        with watched.training(Start(created, classifier, split, state, prepared, (*said, *notes))):
            for epoch in fit(
                classifier, images, split, created.recipe,  # with executor and threads
                state=state, executor=prepared.executor, watch=watched.steps,
            ):  # fmt: skip
                watched.epoch(epoch)
        keep_reference(created, place, images, split, model)
        if test:
            open_test_split(created, images, place, model)
    return created
