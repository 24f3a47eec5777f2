"""Trains for a given time: measures the steps on this machine, then chooses the number of epochs.

The measurement is thrown away, and what it chose is written into the run's recipe: the run can be
repeated and resumed exactly, and nothing changes any more if the machine becomes slower.

Axes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.averaging import averaged_logits
from hydrofoil.evaluate.score import BATCH, answer
from hydrofoil.evaluate.test import test_result
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.recipe.read import overridden, override
from hydrofoil.recipe.schedules import ConstantSchedule
from hydrofoil.recipe.schema import Recipe
from hydrofoil.report.results import result_figures
from hydrofoil.run.events import BudgetPlanned, BudgetSpent, Epoch
from hydrofoil.run.folder import Run
from hydrofoil.session.data import drawn_split
from hydrofoil.session.start import untrained
from hydrofoil.timing import Stopwatch
from hydrofoil.train.average import renew_statistics
from hydrofoil.train.budget import Costs, Length, longest, seconds_of
from hydrofoil.train.executors import Executor
from hydrofoil.train.feed import count_steps, make_feed
from hydrofoil.train.loop import Progress, fit
from hydrofoil.train.state import State
from hydrofoil.wording import duration, plural

TRIAL_SECONDS = 1.5  # of steps
SCORED = 1000  # images whose scoring is measured
REFERENCE = 3000  # images that `keep_reference` passes through the network
SAVING = 1.005  # checkpoints take at most one part in 200: see observe/recorder.py
LINES = 0.0003  # seconds of an epoch's lines in the log and on the terminal
START, END = 0.15, 0.3  # seconds: the run's folder and its first files; the last lines, and exit
TOLERANCE = 0.05
ENDLESS = 1_000_000  # epochs of a trial, which ends by the clock


@dataclass(frozen=True)
class Budget:
    """A time for a whole command.

    Args:
        seconds: How long it may take.
        began: When it started, as `time.perf_counter` has it.
    """

    seconds: float
    began: float

    @property
    def spent(self) -> float:
        """The seconds since the command started."""
        return perf_counter() - self.began


def as_budget(given: str | Budget, overrides: Sequence[str]) -> Budget | None:
    """Return a budget from now on, or the one that is given; None for an empty text.

    Raises:
        HydrofoilError: It is not a time, or the overrides set the number of epochs, too.
    """
    if not given:
        return None
    if doubled := sorted({"train.epochs", "train.last_steps"} & overridden(overrides)):
        raise HydrofoilError(
            f"{doubled[0]} and a budget are both given: expected one: "
            "the budget chooses the number of epochs."
        )
    return given if isinstance(given, Budget) else Budget(seconds_of(given), perf_counter())


def within(
    budget: Budget,
    recipe: Recipe,
    pictures: Pictures,
    split: Split,
    device: torch.device,
    network: Network | None,
    *,
    for_test: bool,
) -> tuple[Recipe, BudgetPlanned, list[str]]:
    """Return a recipe that ends within a budget, what was measured, and notes for the user.

    Args:
        budget: Of the whole command.
        recipe: As resolved for these images.
        pictures: The dataset.
        split: Which of them train and validate; the test images are only counted.
        device: Where to train.
        network: Replaces the recipe's model.
        for_test: Whether a test follows.

    Raises:
        HydrofoilError: The budget is too small for one epoch.
    """
    recipe, notes = ending_at_zero(recipe)
    costs = measure(recipe, pictures, split, device, network, for_test=for_test)
    costs = replace(costs, before_seconds=budget.spent + costs.before_seconds)
    length = longest(budget.seconds, costs)
    chosen = override(
        recipe, [f"train.epochs={length.epochs}", f"train.last_steps={length.last_steps}"]
    )
    planned = BudgetPlanned(
        seconds=budget.seconds, predicted=length.seconds, step_seconds=costs.step_seconds,
        epoch_seconds=costs.epoch_seconds, before_seconds=costs.before_seconds,
        after_seconds=costs.after_seconds,
    )  # fmt: skip
    return chosen, planned, [_line(budget, length, costs), *notes]


def _line(budget: Budget, length: Length, costs: Costs) -> str:
    """Say what a budget allows, and by which measurement."""
    last = f", the last of {plural(length.last_steps, 'step')}" if length.last_steps else ""
    each = " and ".join(f"{1000 * step:.3g}" for step in costs.step_seconds)
    rest = costs.before_seconds + costs.after_seconds
    return (
        f"budget {duration(budget.seconds)}: {plural(length.epochs, 'epoch')}{last}: "
        f"a step takes {each} ms here, an epoch {costs.epoch_seconds:.2g} s beside its "
        f"{plural(costs.steps, 'step')}, all else {rest:.1f} s"
    )


def ending_at_zero(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return a recipe whose learning rate ends at zero, and a note if that changed it.

    A constant rate becomes a straight line to zero, after the same warm-up. Any other schedule is
    the recipe's own choice, and stays.

    >>> from hydrofoil.recipe.read import read_recipe
    >>> ending_at_zero(read_recipe("digits"))[0].schedule.name
    'linear'
    """
    schedule = recipe.schedule
    if not isinstance(schedule, ConstantSchedule):
        return recipe, []
    kept = [f"schedule.{name}={value}" for name, value in schedule if name != "name" and value]
    changed = override(recipe, ["schedule.name=linear", *kept])
    return changed, ["schedule = linear, in place of constant: the rate ends at zero"]


def measure(
    recipe: Recipe,
    pictures: Pictures,
    split: Split,
    device: torch.device,
    network: Network | None = None,
    *,
    for_test: bool,
) -> Costs:
    """Measure a training on this machine with weights that are thrown away; takes two seconds.

    `before_seconds` of the result is what is still to come before the first step. See `within`.
    """
    clock = Stopwatch(device)
    model, state, prepared, _ = untrained(recipe, pictures, split, device, network)
    preparing, executor = clock.seconds(), prepared.executor
    trial = prepared.recipe.model_copy(
        update={
            "train": prepared.recipe.train.model_copy(update={"epochs": ENDLESS, "patience": 0})
        }
    )
    parts = [_trial(part, model, pictures, split, state, executor) for part in _parts(trial)]
    epoch_seconds = parts[-1][1]
    if epoch_seconds is None:
        epoch_seconds = _epoch_seconds(trial, model, pictures, split, executor, device)
    copying = Stopwatch(device)
    _ = {name: one.detach().to("cpu", copy=True) for name, one in state.tensors(model).items()}
    return Costs(
        steps=count_steps(len(split.train), recipe.train.batch_size),
        step_seconds=tuple(SAVING * step for step, _ in parts),
        epoch_seconds=epoch_seconds + copying.seconds() + LINES,
        late_seconds=_late_seconds(recipe, model, pictures, split, executor, device),
        late_start=recipe.train.swa_start,
        before_seconds=preparing + START,
        after_seconds=_after(recipe, model, pictures, split, device, for_test=for_test) + END,
    )


def _parts(recipe: Recipe) -> list[Recipe]:
    """Return a recipe for each part of the training whose steps take another time."""
    if not recipe.train.sizes:
        return [recipe]
    return [
        recipe.model_copy(update={"train": recipe.train.model_copy(update={"sizes": (size,)})})
        for size in recipe.train.sizes
    ]


class _EnoughError(Exception):
    """Ends a trial between two steps."""


def _trial(
    recipe: Recipe,
    model: Classifier,
    pictures: Pictures,
    split: Split,
    state: State,
    executor: Executor,
) -> tuple[float, float | None]:
    """Train for a moment; return a step's seconds, and those of an epoch beside its steps.

    The latter are None if no two epochs ended in that time.
    """
    began = perf_counter()
    marks: list[tuple[float, int, int]] = []
    ends: list[tuple[float, float]] = []

    def watch(progress: Progress) -> None:
        now = perf_counter()
        marks.append((now, progress.epoch, progress.step))
        if now - began > TRIAL_SECONDS and len(marks) > 2 and progress.step < progress.steps:
            raise _EnoughError

    training = fit(model, pictures, split, recipe, state=state, executor=executor, watch=watch)
    try:
        for epoch in training:
            ends.append((perf_counter(), epoch.train_seconds))
            if perf_counter() - began > TRIAL_SECONDS and len(marks) > 2:
                break
    except _EnoughError:
        pass
    if len(ends) > 2:
        count, steps = len(ends) - 1, count_steps(len(split.train), recipe.train.batch_size)
        in_steps = sum(seconds for _, seconds in ends[1:])
        return in_steps / count / steps, (ends[-1][0] - ends[0][0] - in_steps) / count
    return _step_seconds([(began, marks[0][1], 0), *marks]), None


def _step_seconds(marks: list[tuple[float, int, int]]) -> float:
    """Return a step's seconds by when so many steps of so many epochs were done.

    The first steps are left out where others follow, since memory and caches are cold; so is the
    time between two epochs.
    """
    pairs = [
        (after[0] - before[0], after[2] - before[2])
        for before, after in pairwise(marks)
        if before[1] == after[1]
    ]
    pairs = pairs[1:] or pairs
    return sum(seconds for seconds, _ in pairs) / sum(steps for _, steps in pairs)


def _epoch_seconds(
    recipe: Recipe,
    model: Classifier,
    pictures: Pictures,
    split: Split,
    executor: Executor,
    device: torch.device,
) -> float:
    """Return the seconds of an epoch beside its steps: its order, validation and best weights."""
    clock = Stopwatch(device)
    make_feed(recipe, split.train, pictures.labels_N, 1, 1)
    _ = {name: one.detach().clone() for name, one in model.network.state_dict().items()}
    sets_of_weights = 2 if recipe.train.average == "ema" else 1
    return clock.seconds() + sets_of_weights * _validation_seconds(split, executor, device)


def _validation_seconds(split: Split, executor: Executor, device: torch.device) -> float:
    """Return what scoring the validation images takes, by some of them; 0: there are none."""
    some_N = split.valid[:SCORED]
    if not len(some_N):
        return 0.0
    executor.score(some_N[:BATCH])  # cold
    clock = Stopwatch(device)
    executor.score(some_N)
    return clock.seconds() * len(split.valid) / len(some_N)


def _late_seconds(
    recipe: Recipe,
    model: Classifier,
    pictures: Pictures,
    split: Split,
    executor: Executor,
    device: torch.device,
) -> float:
    """Return what averaging weights over epochs (SWA) adds to each epoch that is averaged."""
    if recipe.train.average != "swa":
        return 0.0
    some_N = split.train[:SCORED]
    clock = Stopwatch(device)
    renew_statistics(model, pictures, some_N, recipe.train.batch_size)
    seconds = clock.seconds() * len(split.train) / len(some_N)
    return seconds + _validation_seconds(split, executor, device)


def _after(
    recipe: Recipe,
    model: Classifier,
    pictures: Pictures,
    split: Split,
    device: torch.device,
    *,
    for_test: bool,
) -> float:
    """Return the seconds after the last epoch, by training images: no test image is looked at."""
    some_N = split.train[:SCORED]
    answer(model, pictures, some_N[:BATCH])
    clock = Stopwatch(device)
    answers = answer(model, pictures, some_N).cpu()
    image = clock.seconds() / len(some_N)
    reference = image * min(REFERENCE, len(split.train) + len(split.valid))
    if not for_test:
        return reference
    from matplotlib.figure import Figure

    Figure()  # the test finds it imported
    clock = Stopwatch(device)
    averaged_NK = averaged_logits(model, pictures, some_N, recipe.augment.test_time)
    averaging = clock.seconds() * len(split.test) / len(some_N)
    clock = Stopwatch(device)
    result = test_result(
        answers, answers, model, recipe,
        epoch=1, opened=1, differs="", unlike="", averaged_NK=averaged_NK,
    )  # fmt: skip
    result_figures(pictures, result)
    split.check(pictures)
    drawn_split(recipe, pictures)
    scoring = image * (len(split.test) + len(split.valid)) + averaging
    return reference + scoring + clock.seconds()


def spent_line(run: Run) -> str:
    """Say whether a run has kept to its budget, and if not, why; empty if it had none."""
    planned, spent = run.log.all(BudgetPlanned), run.log.all(BudgetSpent)
    if not planned or not spent:
        return ""
    plan, seconds = planned[-1], spent[-1].seconds
    off = seconds / plan.seconds - 1
    said = f"budget {duration(plan.seconds)}: took {duration(seconds)} ({off:+.1%})"
    epochs = run.log.all(Epoch)
    steps = sum(count_steps(epoch.train.count, run.recipe.train.batch_size) for epoch in epochs)
    each = sum(epoch.train_seconds for epoch in epochs) / max(steps, 1)
    expected = sum(plan.step_seconds) / len(plan.step_seconds)
    if abs(off) <= TOLERANCE or abs(each / expected - 1) <= TOLERANCE:
        return said
    slower = "slower" if each > expected else "faster"
    return (
        f"{said}; the machine was {slower} than measured before training: "
        f"{1000 * each:.3g} ms a step, where {1000 * expected:.3g} were measured"
    )
