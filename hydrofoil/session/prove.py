"""Verifies on a few steps that resuming is exact; changes nothing.

Axes: N pictures.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.published.download import Watcher
from hydrofoil.device import exact
from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.models.layers import dropouts
from hydrofoil.run.folder import Run
from hydrofoil.session.data import find_run, own_threads
from hydrofoil.session.observing import default_watcher, say_for
from hydrofoil.session.resume import Restored, restore
from hydrofoil.train.executors import prepare, threads_of
from hydrofoil.train.feed import make_feed
from hydrofoil.train.state import State

PROVE_STEPS = 8
NO_NUMBERS = ("optimizer", "best", "average")  # of a state


@dataclass(frozen=True)
class Proof:
    """How two ways of training the same steps compare.

    Args:
        compared: What was done, in words.
        tensors: How many tensors were compared, bit by bit.
        differing: The names of those, and of numbers, that are not the same.
        run: The run's folder.
        epochs: That are done.
        steps: That are done of the next epoch.
        notes: What the user should know: a broken checkpoint, another machine.
    """

    compared: str
    tensors: int
    differing: list[str]
    run: str
    epochs: int
    steps: int
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = f"{len(self.differing)} differ" if self.differing else "bit-identical"
        return f"Proof({self.tensors} tensors and all numbers of {self.run}: {found})"

    def as_dict(self) -> dict[str, Any]:
        """Return the proof for a program."""
        return {**vars(self), "notes": list(self.notes), "same": not self.differing}


@own_threads()
def prove(
    run: str | Path | Run,
    *,
    execute: str | None = None,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Any = None,
    watcher: Watcher | None = None,
    model: Network | None = None,
) -> Proof:
    """Train a few steps uninterrupted, and again from a checkpoint after half of them; compare.

    The run stays as it is.

    Args:
        run: The run, or its folder.
        execute: What runs the steps; default: the executor until now.
        device: auto, cpu, cuda, cuda:1 or mps; auto: where the run began.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        pictures: The images that the run was trained on, in place of its recipe's dataset.
        watcher: Follows a download.
        model: The network of a run whose network is the user's own code.

    Raises:
        HydrofoilError: An epoch is a single step, or the run cannot be resumed.
    """
    with find_run(run).writing(say_for(watcher)):
        found = restore(
            run, (), device, data_root, pictures, default_watcher(watcher), model, only_read=True
        )
        return _proof(found, execute)


def _proof(found: Restored, execute: str | None) -> Proof:
    """Compare both ways; the model and state that were restored are used up."""
    run, model, state = found.run, found.model, found.state
    pictures, split = found.pictures, found.split
    done, part = state.epoch, state.step
    recipe = run.recipe
    number, layers = state.epoch + 1, len(dropouts(model.network))
    feed = make_feed(recipe, split.train, pictures.labels_N, number, layers).to(model.device)
    half = min(PROVE_STEPS, feed.steps // 2)  # the last epoch may be shorter
    if not half:
        raise HydrofoilError(
            f"{run.path}: --prove saves between two steps of an epoch, and its epochs have one."
        )
    first = min(state.step, feed.steps - 2 * half)

    def train(model: Classifier, state: State, start: int) -> None:
        executor = prepare(model, pictures, split, recipe, state, execute=execute).executor
        model.train()
        with exact(model.device, threads_of(recipe, model)):
            executor.train_steps(feed, start, start + half, state.sums)
        state.step = start + half

    train(model, state, first)
    again = build(recipe, pictures.shape, pictures.classes, run.network).to(model.device)
    fresh = State.fresh(again, recipe)
    with tempfile.TemporaryDirectory() as folder:
        beside = Run(Path(folder), recipe)
        beside.checkpoints.save(model, state.tensors(model), state.numbers())
        beside.checkpoints.load(again, fresh)
    execute = state.executor
    for one, its in ((model, state), (again, fresh)):
        train(one, its, first + half)
    ours, theirs = _tensors(model, state), _tensors(again, fresh)
    differing = [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
    ]
    numbers, others = _numbers(state), _numbers(fresh)
    differing += [name for name in numbers if numbers[name] != others[name]]
    return Proof(
        f"epoch {number}, steps {first + 1} to {first + 2 * half} by {execute}, uninterrupted "
        f"and from a checkpoint that was saved after step {first + half} and loaded again",
        len(ours),
        differing,
        str(run.path),
        done,
        part,
        found.notes,
    )


def _tensors(model: Classifier, state: State) -> dict[str, Tensor]:
    """Return all tensors of a training; not by what saves them, which could forget one twice."""
    tensors = {f"network/{name}": tensor for name, tensor in model.network.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    if state.average:
        tensors |= {f"average/{name}": tensor for name, tensor in state.average.tensors.items()}
    for name, parameter in model.network.named_parameters():
        slots = state.optimizer.state[parameter]
        tensors |= {f"optimizer/{name}/{s}": t for s, t in slots.items() if isinstance(t, Tensor)}
    return tensors


def _numbers(state: State) -> dict[str, Any]:
    """Return all else of a training."""
    kept = {name: value for name, value in vars(state).items() if name not in NO_NUMBERS}
    count = state.average.count if state.average else 0
    return {**kept, "averaged": count, "sums": state.sums.totals()}
