"""The loop, which computes and yields and does no input or output.

Axes: N pictures.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

from hydrofoil.data.split import Split
from hydrofoil.device import exact, reported_failure
from hydrofoil.display import notebook_html
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Scores, Sums
from hydrofoil.evaluate.result import Epoch
from hydrofoil.models.given import as_training
from hydrofoil.models.layers import dropouts
from hydrofoil.recipe.schema import Recipe, Train
from hydrofoil.timing import Stopwatch
from hydrofoil.train.average import end_epoch
from hydrofoil.train.executors import Executor, prepare, threads_of
from hydrofoil.train.feed import count_steps, make_feed
from hydrofoil.train.guard import DivergedError, Guard
from hydrofoil.train.state import State


@dataclass(frozen=True)
class Progress:
    """How far training is inside an epoch, for observers.

    Args:
        epoch: Counted from 1.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        sums: Running sums since the epoch began; reading them waits for the device.
        checked: All steps up to here are known to be finite: they may be saved.
    """

    epoch: int
    step: int
    steps: int
    sums: Sums
    checked: bool

    def __repr__(self) -> str:
        return f"Progress(epoch {self.epoch}, step {self.step:,} of {self.steps:,})"

    def _repr_html_(self) -> str:
        """Show a bar in a notebook."""
        return notebook_html("progress", self)


def fit(
    model: Any,
    pictures: Any,
    split: Any,
    recipe: Any,
    *,
    state: State | None = None,
    executor: Executor | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Iterator[Epoch]:
    """Train a model in place, and yield after each epoch; the caller owns the loop and may stop it.

    While an epoch runs, torch uses the recipe's number of CPU threads and, on a GPU, deterministic
    algorithms without TF32. Both are restored before each epoch is yielded.

    Args:
        model: Trained in place; a bare network gets the recipe's normalization.
        pictures: The dataset, as `hf.Pictures` takes it; read as data.resident says.
        split: Which pictures train and validate, or (train, valid) indices; test is not touched.
        recipe: The settings, or their name or path.
        state: Where to resume; default: the beginning.
        executor: Runs the steps; default: the one that `prepare` returns.
        watch: Called between steps a few times a second at least, and at every train.log_every.

    Raises:
        HydrofoilError: A loss or weight is not finite: the model is as before; the device failed.
    """
    model, pictures, split, recipe = as_training(model, pictures, split, recipe)
    spec, device, state = recipe.train, model.device, state or State.fresh(model, recipe)
    _check_steps(split, spec)
    executor = executor or prepare(model, pictures, split, recipe, state).executor
    state.executor, sums = executor.name, state.sums
    threads, layers = threads_of(recipe, model), len(dropouts(model.network))
    guard = Guard(model, state, pictures, recipe, partial(executor.train_steps, sums=sums))
    while not spec.is_over(state.epoch, state.best_epoch):
        with exact(device, threads), reported_failure(device):
            clock, spent, number = Stopwatch(device), state.seconds, state.epoch + 1
            model.train()
            feed = make_feed(recipe, split.train, pictures.labels_N, number, layers).to(device)
            while state.step < feed.steps:
                stop = min(_next_stop(state.step, executor.steps_per_call, spec), feed.steps)
                executor.train_steps(feed, state.step, stop, sums)
                state.step = stop
                checked = guard.passes(feed, now=stop == feed.steps or _may_be_saved(stop, spec))
                if checked:
                    state.seconds = spent + clock.seconds()
                if watch:
                    watch(Progress(number, stop, feed.steps, sums, checked))
            train, train_seconds, clock = sums.read(), state.seconds, Stopwatch(device)
            valid = executor.score(split.valid) if len(split.valid) else None
            _check_finite(number, valid, recipe)
            averaged = end_epoch(state.average, model, executor, pictures, split, number)
            best, seconds = state.finish(model, spec.select, averaged or valid), clock.seconds()
            guard.begin_epoch()
        yield Epoch(
            number=number, train=train, valid=valid, averaged=averaged, best=best,
            learning_rate=feed.rate(feed.steps - 1), valid_by_class=valid and valid.by_class(),
            valid_balanced_accuracy=valid and valid.balanced_accuracy,
            train_seconds=train_seconds, valid_seconds=seconds,
        )  # fmt: skip


def _check_steps(split: Split, spec: Train) -> None:
    if not len(split.train):
        raise HydrofoilError("the split has no training images: expected at least one.")
    if spec.patience and not len(split.valid):
        raise HydrofoilError(
            f"train.patience = {spec.patience}: expected validation images, which show a new best."
            "\nSet some aside with data.valid=0.1."
        )
    steps = count_steps(len(split.train), spec.batch_size)
    if spec.last_steps > steps:
        raise HydrofoilError(
            f"train.last_steps = {spec.last_steps}: expected at most {steps}, "
            f"the steps of an epoch; 0 means all of them."
        )


def _next_stop(done: int, steps_per_call: int, spec: Train) -> int:
    """Return the step after which to come back: the next that is logged or saved, if it is near."""
    stops = [(done // every + 1) * every for every in (spec.log_every, spec.save_steps) if every]
    return min([done + steps_per_call, *stops])


def _may_be_saved(step: int, spec: Train) -> bool:
    return bool(spec.save_steps) and step % spec.save_steps == 0


def _check_finite(number: int, valid: Scores | None, recipe: Recipe) -> None:
    """Stop a run whose validation overflows, before its weights are saved."""
    if valid is not None and not isfinite(valid.loss):
        raise DivergedError(
            f"epoch {number}: the validation loss is {valid.loss}: expected a finite number.\n"
            "The learning rate is probably too large: "
            f"try optimizer.lr={recipe.optimizer.lr / 10:g}."
        )
