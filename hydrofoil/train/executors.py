"""Which executor runs the step: the one a recipe names, or the one whose preparing pays.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.source import find_source
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import key_dropout
from hydrofoil.native import Native, Unsupported, make_program
from hydrofoil.native.build import compiler, is_built
from hydrofoil.recipe.schema import Recipe
from hydrofoil.timing import Stopwatch
from hydrofoil.train.compiled import Compiled
from hydrofoil.train.costs import Costs
from hydrofoil.train.graph import Graph
from hydrofoil.train.optimizers import build_optimizer
from hydrofoil.train.state import State
from hydrofoil.train.step import Eager

EXECUTORS: dict[str, Callable[..., "Executor"]] = {
    "eager": Eager,
    "compile": Compiled,
    "graph": Graph,
    "native": Native,
}
# Where one cannot run, the next takes over.
AFTER = {
    "graph": ("graph", "native", "eager"),
    "native": ("native", "eager"),
    "compile": ("compile", "eager"),
    "eager": ("eager",),
}
DOUBTFUL = (
    40  # times slower than native was never measured but on a machine that was busy just then
)
# What preparing is taken to cost before it was measured here, and the share of eager's step that
# is taken to be saved: the most and the least that were measured (docs/log.md).
PREPARING = {"native": 2.7, "graph": 3.0}
SAVED = {"native": 0.6, "graph": 0.5}
LEAST = 1e-4  # seconds that an eager step takes for each layer with weights, at the very least
LOADING = 0.3  # of native code that was built before, and the trial of threads


class Executor(Protocol):
    """What runs a model's steps; the bits of `Eager` are the reference."""

    @property
    def name(self) -> str:
        """As in train.execute."""
        ...

    @property
    def stride(self) -> int:
        """How many steps to ask for in a call, so that Python is back a few times a second."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads that work at a step."""
        ...

    def train_steps(self, index_N: Tensor, epoch: int, step: int, sums: Sums) -> None:
        """Train on the indexed pictures, in order, a batch a step, and add to the sums."""
        ...

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which executors to try, in order, and why.

    Args:
        names: The first that can be prepared is taken.
        why: The arithmetic, or who asked.
        refused: Executors that cannot run this, with the reason.
    """

    names: tuple[str, ...]
    why: str
    refused: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def line(self) -> str:
        """The choice in one line."""
        refused = "".join(f"; {name}: {reason}" for name, reason in self.refused.items())
        return f"executor: {self.names[0]}, {self.why}{refused}"


@dataclass(frozen=True)
class Prepared:
    """An executor that is ready, and the line that says which and why.

    Args:
        executor: Runs the steps.
        line: Says which it is, and why.
        seconds: What preparing it took: trials, building, compiling.
    """

    executor: Executor
    line: str
    seconds: float


def prepare(
    model: Classifier,
    pictures: Pictures,
    split: Split,
    recipe: Recipe,
    state: State,
    *,
    execute: str | None = None,
) -> Prepared:
    """Return the executor for a training: the one that is named, or the one that pays.

    Args:
        model: To be trained where it lies.
        pictures: The set; copied to the model's device.
        split: Its training part says how many steps there are.
        recipe: Says train.execute.
        state: How far training is; keeps the executor's name, to go on with the same.
        execute: Asked for instead of what the state was trained by until now, and of train.execute.
    """
    started = perf_counter()
    batch_size = min(recipe.train.batch_size, max(len(split.train), 1))
    steps = ceil(len(split.train) / batch_size) * (recipe.train.epochs - state.epoch)
    begun = state.executor
    asked = execute or begun or recipe.train.execute
    choice = choose(model, state.optimizer, asked, batch_size, steps)
    costs = Costs(model, state.optimizer, batch_size)
    refused = dict(choice.refused)
    for name in choice.names:
        began = perf_counter()
        try:
            executor = EXECUTORS[name](
                model,
                state.optimizer,
                pictures.to(model.device),
                batch_size=batch_size,
                seed=recipe.train.seed,
                label_smoothing=recipe.train.label_smoothing,
            )
        except (Unsupported, RuntimeError, OSError) as error:
            if name == "eager":
                raise
            refused[name] = [*str(error).strip().splitlines(), type(error).__name__][0][:160]
            continue
        if isinstance(executor, Native):
            if executor.note:
                refused["native"] = executor.note
            costs.note(name, executor.step_seconds)
            if executor.build_seconds:
                Costs.of_machine().note("building native", executor.build_seconds)
        elif name != "eager":
            costs.note(f"preparing {name}", perf_counter() - began)
        state.executor = name
        why = choice.why if name == choice.names[0] else "takes over"
        why = "as begun" if begun and not execute and why == "as asked for" else why
        line = Choice((name,), why, refused).line
        return Prepared(executor, line, perf_counter() - started)
    raise AssertionError("eager refuses nothing")


def expected(recipe: Recipe, device: torch.device) -> tuple[Choice, str]:
    """Return what `prepare` would choose for a recipe, and the C that native would run.

    Needs no data: the published counts say how many steps there are. The C is empty where native
    cannot run the recipe.
    """
    found, data = find_source(recipe.data.source), recipe.data
    pictures = found.counts[0] + (found.counts[1] if data.merge else 0)
    train = round(pictures * (1 - data.valid - data.test))
    batch_size = min(recipe.train.batch_size, train)
    model = build(recipe, found.shape, [""] * found.classes).to(device)
    optimizer = build_optimizer(recipe.optimizer, model.network)
    steps = ceil(train / batch_size) * recipe.train.epochs
    choice = choose(model, optimizer, recipe.train.execute, batch_size, steps)
    try:
        return choice, make_program(model, optimizer, batch_size).source
    except Unsupported:
        return choice, ""


def choose(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    asked: str,
    batch_size: int,
    steps: int,
) -> Choice:
    """Return which executors to try for so many steps, and why; prepares nothing.

    With "auto" the steps times what each would save are held against what preparing costs: both as
    measured here before, or else an eager step is timed now and the rest taken from docs/log.md.
    """
    if asked not in ("auto", *AFTER):
        raise HydrofoilError(f"executor '{asked}': expected auto, {', '.join(AFTER)}.")
    if asked != "auto":
        wanted = AFTER[asked]
        refused = _refusals(model, optimizer, batch_size, wanted)
        names = tuple(name for name in wanted if name not in refused)
        refused = {name: why for name, why in refused.items() if name == asked}
        return Choice(names, "as asked for" if names[0] == asked else "takes over", refused)
    kind = model.device.type
    # torch.compile is never chosen: on a CPU it was measured to save nothing of these steps.
    wanted = {"cuda": ("graph",), "cpu": ("native",)}.get(kind, ())
    refused = _refusals(model, optimizer, batch_size, wanted)
    candidates = [name for name in wanted if name not in refused]
    if not candidates:
        return Choice(("eager",), f"all that runs on {kind}", refused)
    pays, why = _weigh(candidates[0], model, optimizer, batch_size, steps)
    return Choice((candidates[0], "eager") if pays else ("eager",), why, refused)


def _weigh(
    name: str, model: Classifier, optimizer: torch.optim.Optimizer, batch_size: int, steps: int
) -> tuple[bool, str]:
    """Tell whether preparing an executor pays, with the arithmetic in words."""
    costs = Costs(model, optimizer, batch_size)
    cost = costs.get(f"preparing {name}") or PREPARING[name]
    if name == "native":  # what was built is only loaded; anything else is built like the last
        cost = LOADING
        if not is_built(make_program(model, optimizer, batch_size).source):
            cost += Costs.of_machine().get("building native") or PREPARING[name]
    eager, measured, known = costs.get("eager"), "", costs.get(name)
    least = LEAST * len(list(model.network.parameters())) / 2
    if eager is None and steps * (least - (known or least * (1 - SAVED[name]))) > cost:
        eager, measured = least, " at least"  # enough to decide
    if eager is None or (known and eager > DOUBTFUL * known):
        eager = costs.note("eager", time_eager(model, batch_size))
    step = min(eager, known or eager * (1 - SAVED[name]))
    saved = steps * (eager - step)
    return saved > cost, (
        f"{steps:,} steps of {_short(1e3 * eager)} ms{measured} by eager, "
        f"{_short(1e3 * step)} by {name}: "
        f"{_short(saved)} s to save for {cost:.2g} s of preparing"
    )


def _short(value: float) -> str:
    """Return a number of three digits, or more where it has more before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _refusals(
    model: Classifier, optimizer: torch.optim.Optimizer, batch_size: int, names: Sequence[str]
) -> dict[str, str]:
    """Return why some of the executors cannot run here, as far as that can be known beforehand."""
    refused: dict[str, str] = {}
    if "graph" in names and model.device.type != "cuda":
        refused["graph"] = "needs a CUDA device"
    if "native" in names:
        try:
            make_program(model, optimizer, batch_size)
            compiler()
        except Unsupported as error:
            refused["native"] = str(error)
    return refused


def time_eager(model: Classifier, batch_size: int) -> float:
    """Return the seconds of an eager step but for its update, on blank pictures.

    The update is left out because torch's optimisers import its compiler with their first, which
    takes longer than all of this. Leaves the model as it is; costs a first step and some more,
    a twentieth of a second's at least.
    """
    pictures_NCHW = torch.zeros((batch_size, *model.shape), dtype=torch.uint8, device=model.device)
    labels_N = torch.zeros(batch_size, dtype=torch.int64, device=model.device)
    parameters = [p for p in model.network.parameters() if p.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    training, best, spent = model.training, float("inf"), 0.0
    model.train()
    key_dropout(model.network, 0, 0, 0)
    while spent < 0.05 or best == float("inf"):
        clock = Stopwatch(model.device)
        for _ in range(3):
            loss = cross_entropy(model(pictures_NCHW), labels_N)
            torch.autograd.grad(loss, parameters, allow_unused=True)
        seconds = clock.seconds()
        if spent:  # the first three choose kernels and make workspaces
            best = min(best, seconds / 3)
        spent += seconds
    model.train(training)
    for buffer, before in buffers:
        buffer.copy_(before)
    return best
