"""Continues a run from its last checkpoint, perhaps for more epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.split import Split
from hydrofoil.device import pick_device, resumed_device, use_threads
from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.native import Unsupported
from hydrofoil.native.build import compiler
from hydrofoil.observe.observer import Observer, Start
from hydrofoil.recipe.read import parse_recipe
from hydrofoil.run.commands import command
from hydrofoil.run.environment import differences, environment
from hydrofoil.run.events import ExecutorChosen, Extended
from hydrofoil.run.folder import Run as RunFolder
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.data import find_run, given_overrides, log_data, own_threads, read_pictures
from hydrofoil.session.observing import Observers, all_observers, default_watcher, say_for
from hydrofoil.session.run import Run, as_run
from hydrofoil.session.start import restored
from hydrofoil.train.executors import prepare
from hydrofoil.train.loop import fit
from hydrofoil.train.state import State


@own_threads()
def resume(
    run: str | Path | RunFolder,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    epochs: int | None = None,
    execute: str | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Any = None,
    observers: Sequence[Observer] = (),
    track: Sequence[str] = (),
    watcher: Watcher | None = None,
    model: Network | None = None,
    **fields: Any,
) -> Run:
    """Continue a run from its last checkpoint; prints nothing, shows a table in a notebook.

    On the same machine the result is bit-identical to a run that was never interrupted.

    Args:
        run: The run, or its folder.
        overrides: train.epochs=N, and nothing else.
        epochs: The same: train until so many epochs are done, also where the run was finished.
        execute: Another executor than until now: eager, compile, graph or native.
        device: auto, cpu, cuda, cuda:1 or mps; auto: where the run began.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        pictures: The images that the run was trained on, in place of its recipe's dataset.
        observers: Follow the training, in this order.
        track: Trackers: tensorboard, mlflow.
        watcher: Follows a download.
        model: The network of a run whose network is the user's own code.
        fields: The same.

    Raises:
        HydrofoilError: No such run, nothing to resume from, or other images than it was trained on.
        Stopped: A signal came; `error.run` is the run.
    """
    asked = given_overrides(resume, overrides, fields)
    asked += [] if epochs is None else [f"train.epochs={epochs}"]
    watching = all_observers(observers, track)
    with find_run(run).writing(say_for(watcher)):
        found = restore(run, asked, device, data_root, pictures, default_watcher(watcher), model)
        resumed, split, state = found.run, found.split, found.state
        with Observers(resumed, watching) as watched:
            keep_extended(resumed)
            log_data(resumed, found.pictures, split, found.seconds)
            prepared = prepare(
                found.model, found.pictures, split, resumed.recipe, state, execute=execute
            )
            start = Start(resumed, found.model, split, state, prepared, found.notes, resumed=True)
            with watched.training(start):
                for epoch in fit(
                    found.model, found.pictures, split, resumed.recipe,
                    state=state, executor=prepared.executor, watch=watched.steps,
                ):  # fmt: skip
                    watched.epoch(epoch)
            keep_reference(resumed, found.model.device, found.pictures, split, resumed.network)
    return resumed


@dataclass(frozen=True)
class Restored:
    """A run as its last checkpoint has it.

    Args:
        run: With the recipe to train.
        model: With the checkpoint's weights.
        pictures: The images.
        split: Which of them train, validate and test.
        state: How far the training is.
        notes: What the user should know.
        seconds: That reading the images took.
    """

    run: Run
    model: Classifier
    pictures: Pictures
    split: Split
    state: State
    notes: tuple[str, ...]
    seconds: float


def restore(
    given: str | Path | RunFolder,
    overrides: Sequence[str],
    device: str,
    data_root: str | Path,
    pictures: Any,
    watcher: Watcher | None,
    network: Network | None = None,
    *,
    only_read: bool = False,
) -> Restored:
    """Return a run, locked, as its last checkpoint has it; sets the threads that it began with.

    Raises:
        HydrofoilError: See `resume`.
    """
    pick_device(device)  # an unknown one is refused before anything else
    run = as_run(given, network, pictures, data_root)
    if run.log.imported():
        raise HydrofoilError(
            f"{run.path}: its weights were imported, so there is no training to resume.\n"
            f"Test them with: {command('test', run.path)}"
        )
    if (kept := run.log.kept()) and not kept.resumable:
        raise HydrofoilError(
            f"{run.path}: its training was kept without its state, so it cannot be resumed.\n"
            "Train again with state = hf.State.fresh(model, recipe), and pass state=state to "
            "hf.fit and hf.keep."
        )
    run, notes = extend(run, overrides)
    split, began = run.split(), run.environment()
    place = resumed_device(device, began.get("device"))
    use_threads(run.recipe.train.threads)
    pictures, seconds = read_pictures(run.recipe, run.data_root, run.pictures, watcher)
    split.check(pictures)
    model, state, found = restored(run, pictures, place, run.network, only_read=only_read)
    notes += [*found, *changes(run, place)]
    return Restored(run, model, pictures, split, state, tuple(notes), seconds)


def extend(run: Run, overrides: Sequence[str]) -> tuple[Run, list[str]]:
    """Return a run with another number of epochs to train, and notes for the user.

    Nothing is written: see `keep_extended`.

    Args:
        run: As its recipe.toml has it.
        overrides: train.epochs=N, and nothing else.

    Raises:
        HydrofoilError: Another field, or fewer epochs than are done.
    """
    text, before = run.files.parse("recipe.toml", bytes.decode), run.recipe
    recipe = parse_recipe(text, str(run.path / "recipe.toml"), overrides)
    same = recipe.model_copy(update={"train": before.train})
    epochs, old = recipe.train.epochs, before.train.epochs
    if same != before or recipe.train.model_copy(update={"epochs": old}) != before.train:
        raise HydrofoilError(
            f"resume {' '.join(overrides)}: expected train.epochs=N alone: "
            "nothing else of a run can change.\n"
            f"Train a new run with: {command('train', run.path / 'recipe.toml')} FIELD=VALUE"
        )
    begun = run.checkpoints.epoch() + bool(run.checkpoints.step())
    if epochs < begun:
        raise HydrofoilError(
            f"train.epochs = {epochs}: expected at least {begun}: as many have begun."
        )
    if epochs == old:
        return run, []
    if begun and recipe.needs_epochs:
        raise HydrofoilError(
            f"train.epochs = {epochs}: expected {old}: {recipe.needs_epochs} if the number of "
            "epochs changes.\n"
            f"Train again with: {command('train', run.path / 'recipe.toml')} train.epochs={epochs}"
            f"{' train.last_steps=0' if recipe.train.last_steps else ''}"
        )
    by = f" with train.execute={run.log.executor()}" if run.log.executor() else ""
    notes = [f"{old} epochs become {epochs}, bit-identical to a run of {epochs} epochs{by}"]
    if recipe.train.select == "last" and run.checkpoints.epoch():
        notes.append(
            f"the best weights so far, of epoch {run.checkpoints.epoch()}, will be replaced"
        )
    if run.results.test():
        notes.append("test.json describes the best weights so far")
    return run.with_recipe(recipe), notes


def keep_extended(run: RunFolder) -> None:
    """Rewrite recipe.toml if the number of epochs has changed.

    Called after everything else was read and verified: a refused command changes nothing.
    """
    old, epochs = RunFolder.open(run.path).recipe.train.epochs, run.recipe.train.epochs
    if epochs != old:
        run.log.append(Extended(epochs=(old, epochs)))
        run.files.write("recipe.toml", run.recipe.toml().encode())


def changes(run: RunFolder, device: torch.device) -> list[str]:
    """Return what has changed since the run began, so that the result may not be bit-identical."""
    before, now = run.environment(), environment(device, [])
    native = [event.compiler for event in run.log.all(ExecutorChosen) if event.compiler]
    if native:
        before["compiler"] = native[-1]
        try:
            now["compiler"] = compiler()[1].partition("\n")[0]
        except Unsupported:
            now["compiler"] = "missing"
    return [f"{one}: the result may not be bit-identical" for one in differences(before, now)]
