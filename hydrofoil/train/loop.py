"""The loop, which computes and yields and does no input or output.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite

from hydrofoil.data.batches import epoch_order
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Scores, Sums
from hydrofoil.evaluate.result import Epoch
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe.schema import Recipe, Train
from hydrofoil.timing import Stopwatch
from hydrofoil.train.executors import Executor, prepare
from hydrofoil.train.guard import Guard
from hydrofoil.train.state import State


@dataclass(frozen=True)
class Progress:
    """Where training stands inside an epoch, for whoever watches.

    Args:
        epoch: Counted from 1.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        sums: Running sums since the epoch began; reading them waits for the device.
        checked: All steps until here are known to be of finite numbers: they may be saved.
    """

    epoch: int
    step: int
    steps: int
    sums: Sums
    checked: bool


def fit(
    model: Classifier,
    pictures: Pictures,
    split: Split,
    recipe: Recipe,
    *,
    state: State | None = None,
    executor: Executor | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Iterator[Epoch]:
    """Train a model in place, and yield after each epoch; the caller owns the loop and may stop it.

    Args:
        model: Trained where it lies.
        pictures: The set; copied to the model's device once.
        split: Which pictures train and validate. The test split is not touched.
        recipe: Says how.
        state: Where to go on from; default: the beginning.
        executor: What runs the steps; default: what `prepare` chooses.
        watch: Called between steps a few times a second at least, and at every train.log_every.

    Raises:
        HydrofoilError: A number is no longer finite; the model is as it was before that step.
    """
    spec = recipe.train
    if not len(split.train):
        raise HydrofoilError("the split has no pictures to train on: expected one at least.")
    state = state or State.fresh(model, recipe)
    executor = executor or prepare(model, pictures, split, recipe, state).executor
    state.executor, sums = executor.name, state.sums
    steps = ceil(len(split.train) / spec.batch_size)
    guard = Guard(model, state, pictures, recipe, partial(executor.train_steps, sums=sums))
    for number in range(state.epoch + 1, spec.epochs + 1):
        clock, spent = Stopwatch(model.device), state.seconds
        model.train()
        order_N = epoch_order(split.train, spec.seed, number).to(model.device)
        while state.step < steps:
            done, stop = state.step, min(_next_stop(state.step, executor.stride, spec), steps)
            part_N = order_N[done * spec.batch_size : stop * spec.batch_size]
            executor.train_steps(part_N, number, done + 1, sums)
            state.step = stop
            checked = guard.passes(order_N, now=stop == steps or _may_be_saved(stop, spec))
            if checked:
                state.seconds = spent + clock.seconds()
            if watch:
                watch(Progress(number, stop, steps, sums, checked))
        train, train_seconds = sums.read(), state.seconds
        clock = Stopwatch(model.device)
        valid = executor.score(split.valid) if len(split.valid) else None
        _check_finite(number, valid, recipe)
        best = state.finish(model, spec.select, valid)
        guard.begin_epoch()
        yield Epoch(
            number=number,
            train=train,
            valid=valid,
            best=best,
            train_seconds=train_seconds,
            valid_seconds=clock.seconds(),
        )


def _next_stop(done: int, stride: int, spec: Train) -> int:
    """Return the step after which to come back: where something is to be told or saved, if any."""
    stops = [(done // every + 1) * every for every in (spec.log_every, spec.save_steps) if every]
    return min([done + stride, *stops])


def _may_be_saved(step: int, spec: Train) -> bool:
    return bool(spec.save_steps) and step % spec.save_steps == 0


def _check_finite(number: int, valid: Scores | None, recipe: Recipe) -> None:
    """Stop a run whose validation overflows, before its weights are kept."""
    if valid is not None and not isfinite(valid.loss):
        raise HydrofoilError(
            f"epoch {number}: the validation loss is {valid.loss}: expected a finite number.\n"
            f"The steps are too large: try optimizer.lr={recipe.optimizer.lr / 10:g}."
        )
