"""What `resume` does beside training: extend a run, say what differs, prove that resuming is exact.

Axes: N pictures.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.batches import epoch_order
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.native import Unsupported
from hydrofoil.native.build import compiler
from hydrofoil.recipe.read import read_recipe
from hydrofoil.report.text import plural
from hydrofoil.run.commands import command
from hydrofoil.run.environment import differences, environment
from hydrofoil.run.folder import Run
from hydrofoil.train.executors import prepare
from hydrofoil.train.state import State

PROVE_STEPS = 8


def extend(run: Run, overrides: Sequence[str]) -> tuple[Run, list[str]]:
    """Return a run with another number of epochs to train, and what a person should know.

    Nothing is written: see `keep_extended`.

    Args:
        run: As its recipe.toml has it.
        overrides: train.epochs=N, and nothing else.

    Raises:
        HydrofoilError: Another field, or fewer epochs than are done.
    """
    recipe, before = read_recipe(str(run.path / "recipe.toml"), overrides), run.recipe
    same = recipe.model_copy(update={"train": before.train})
    epochs, old = recipe.train.epochs, before.train.epochs
    if same != before or recipe.train.model_copy(update={"epochs": old}) != before.train:
        raise HydrofoilError(
            f"resume {' '.join(overrides)}: expected train.epochs=N alone: "
            "a run that goes on with another recipe would be neither's.\n"
            f"Train anew with: {command('train', run.path / 'recipe.toml')} FIELD=VALUE"
        )
    begun = run.checkpoints.epoch() + bool(run.checkpoints.step())
    if epochs < begun:
        raise HydrofoilError(f"train.epochs = {epochs}: expected at least {begun}, already begun.")
    if epochs == old:
        return run, []
    # No recipe has a learning rate that depends on the number of epochs. One that did would have
    # to be named here: its rates until now are those of the old number.
    by = f" with train.execute={run.log.executor()}" if run.log.executor() else ""
    notes = [f"{old} epochs become {epochs}, to the bits of a run that was asked for them{by}"]
    if recipe.train.select == "last" and run.checkpoints.epoch():
        notes.append(f"the weights kept until now, of epoch {run.checkpoints.epoch()}, give way")
    if run.results.test():
        notes.append("test.json is of the weights kept until now")
    return Run(run.path, recipe), notes


def keep_extended(run: Run) -> None:
    """Write recipe.toml anew if the run trains for another number of epochs than it says.

    For when everything else was read and is whole: a command that is refused changes nothing.
    """
    old, epochs = Run.open(run.path).recipe.train.epochs, run.recipe.train.epochs
    if epochs != old:
        run.log.append({"event": "extended", "epochs": [old, epochs]})
        run.files.write("recipe.toml", run.recipe.toml().encode())


def changes(run: Run, device: torch.device) -> list[str]:
    """Say what is not as it was when the run began, so that its end may have other bits."""
    before, now = run.environment(), environment(device, [])
    native = [
        e["compiler"] for e in run.log.events() if e.get("event") == "executor" and "compiler" in e
    ]
    if native:
        before["compiler"] = native[-1]
        try:
            now["compiler"] = compiler()[1].partition("\n")[0]
        except Unsupported:
            now["compiler"] = "missing"
    return [f"{one}: the end may have other bits" for one in differences(before, now)]


@dataclass(frozen=True)
class Proof:
    """How two ways of training the same steps compare.

    Args:
        compared: What was done, in words.
        tensors: How many tensors were compared, bit by bit.
        differing: The names of those, and of numbers, that are not the same.
    """

    compared: str
    tensors: int
    differing: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the proof for a program."""
        return {**vars(self), "same": not self.differing}


def prove(
    run: Run,
    model: Classifier,
    pictures: Pictures,
    split: Split,
    state: State,
    execute: str | None,
    network: Network | None = None,
) -> Proof:
    """Train a few steps straight on, and the same ones from a checkpoint read anew; compare.

    The run stays as it is; the model and state do not.

    Args:
        run: Says the recipe.
        model: As the last checkpoint has it.
        pictures: The set.
        split: What to train on.
        state: As the last checkpoint has it.
        execute: What runs the steps; default: what ran them.
        network: The run's own, where its code is the user's.

    Raises:
        HydrofoilError: An epoch is a single step.
    """
    recipe, size = run.recipe, run.recipe.train.batch_size
    steps = ceil(len(split.train) / size)
    half = min(PROVE_STEPS, steps // 2)
    if not half:
        raise HydrofoilError(
            f"{run.path}: --prove saves between two steps of an epoch, and its epochs have one."
        )
    first, number = min(state.step, steps - 2 * half), state.epoch + 1
    order_N = epoch_order(split.train, recipe.train.seed, number).to(model.device)

    def train(model: Classifier, state: State, start: int) -> None:
        executor = prepare(model, pictures, split, recipe, state, execute=execute).executor
        model.train()
        part_N = order_N[start * size : (start + half) * size]
        executor.train_steps(part_N, number, start + 1, state.sums)
        state.step = start + half

    train(model, state, first)
    again = build(recipe, pictures.shape, pictures.classes, network).to(model.device)
    fresh = State.fresh(again, recipe)
    with tempfile.TemporaryDirectory() as folder:
        beside = Run(Path(folder), recipe)
        beside.checkpoints.save(model, state.tensors(model), state.numbers())
        beside.checkpoints.load(again, fresh)
    execute = state.executor
    for one, its in ((model, state), (again, fresh)):
        train(one, its, first + half)
    tensors = _tensors(model, state)
    differing = _differing(tensors, _tensors(again, fresh)) + _differing_numbers(state, fresh)
    return Proof(
        f"epoch {number}, steps {first + 1} to {first + 2 * half} by {execute}: straight on, and "
        f"saved after step {first + half}, read into a fresh model and {plural(half, 'step')} more",
        len(tensors),
        differing,
    )


def _differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Return the names of tensors that are not bit-identical on both sides."""
    return [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
    ]


def _differing_numbers(state: State, other: State) -> list[str]:
    numbers, others = _numbers(state), _numbers(other)
    return [name for name in numbers if numbers[name] != others[name]]


def _tensors(model: Classifier, state: State) -> dict[str, Tensor]:
    """Return all tensors of a training; not by what saves them, which could forget one twice."""
    tensors = {f"network/{name}": tensor for name, tensor in model.network.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in model.network.named_parameters():
        slots = state.optimizer.state[parameter]
        tensors |= {f"optimizer/{name}/{s}": t for s, t in slots.items() if isinstance(t, Tensor)}
    return tensors


def _numbers(state: State) -> dict[str, Any]:
    """Return all else of a training."""
    kept = {name: value for name, value in vars(state).items() if name not in ("optimizer", "best")}
    return {**kept, "sums": state.sums.totals()}
