"""Which executor runs the steps: a rule over recipe, device and compiler, never a measurement.

Axes: N pictures, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.source import describe
from hydrofoil.data.split import Split
from hydrofoil.data.window import Window
from hydrofoil.device import cuda_problem, exact, first_line, thread_rule
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import Network
from hydrofoil.models.given import as_training
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.models.timm import load_pretrained
from hydrofoil.models.whitening import initialize_from_images
from hydrofoil.native import Native, Program, Unsupported, make_program
from hydrofoil.native.build import compiler
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.average import Averaging
from hydrofoil.train.executors.augmented import augmenting, make_buffer
from hydrofoil.train.executors.compiled import Compiled
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph, graph_problem
from hydrofoil.train.executors.windowed import make_window, windowed
from hydrofoil.train.feed import Feed
from hydrofoil.train.optimizers import build_optimizer
from hydrofoil.train.options import StepOptions, options_of
from hydrofoil.train.precision import with_precision
from hydrofoil.train.sizes import check_sizes
from hydrofoil.train.state import State

EXECUTORS: dict[str, Callable[..., "Executor"]] = {
    "eager": Eager,
    "compile": Compiled,
    "graph": Graph,
    "native": Native,
}
# The order in which executors are tried: by the recipe's, and for "auto" by the device.
FALLBACKS = {
    "graph": ("graph", "native", "eager"),
    "native": ("native", "eager"),
    "compile": ("compile", "eager"),
    "eager": ("eager",),
}
# Without torch.compile: on a CPU it saved no time in these steps (docs/log.md).
AUTO = {"cuda": ("graph", "eager"), "cpu": ("native", "eager")}


class Executor(Protocol):
    """Runs a model's steps; `Eager` is the reference."""

    @property
    def name(self) -> str:
        """As in train.execute."""
        ...

    @property
    def steps_per_call(self) -> int:
        """Steps per call, so that Python regains control a few times a second."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads of a step."""
        ...

    def train_steps(self, feed: Feed, first: int, stop: int, sums: Sums) -> None:
        """Take the steps of an epoch from `first` up to, not including, `stop`; add to the sums."""
        ...

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        ...


@dataclass(frozen=True)
class Prepared:
    """An executor that is ready, and how it was chosen.

    Args:
        executor: Runs the steps.
        recipe: The recipe with executor and threads resolved, to be saved with the run.
        refused: Executors that were tried before it, and why they cannot run here.
        seconds: How long preparing it took: building, capturing, compiling.
        note: What the executor gave up to run here.
    """

    executor: Executor
    recipe: Recipe
    refused: dict[str, str]
    seconds: float
    note: str = ""

    @property
    def line(self) -> str:
        """The executor in one line."""
        threads = self.executor.threads
        some = (
            f", {threads} thread{'s' if threads > 1 else ''}"
            if self.executor.name != "graph"
            else ""
        )
        note = f"; {self.note}" if self.note else ""
        return f"executor: {self.executor.name}{some}{note}{_reasons(self.refused)}"


def _reasons(refused: dict[str, str]) -> str:
    return "".join(f"; {name} is not available: {why}" for name, why in refused.items())


def prepare(
    model: Any,
    pictures: Any,
    split: Any,
    recipe: Any,
    state: State,
    *,
    execute: str | None = None,
) -> Prepared:
    """Return the executor for a training, ready to run.

    Args:
        model: To be trained in place; as `fit` takes it, and what follows, too.
        pictures: The dataset; copied to the model's device, unless data.resident is false.
        split: Its training part says how large a batch can be.
        recipe: Gives train.execute and train.threads.
        state: How far training is; it keeps the executor's name for a resumed run.
        execute: Takes precedence over the executor in the state and in the recipe.

    Raises:
        HydrofoilError: The executor is unknown, or the network does not take train.sizes.
    """
    began = perf_counter()
    model, pictures, split, recipe = as_training(model, pictures, split, recipe)
    recipe, why = with_precision(recipe, model.device)
    check_sizes(recipe, model)
    batch_size = min(recipe.train.batch_size, max(len(split.train), 1))
    window = make_window(recipe, pictures, split, model.device)
    source = window.held if window else pictures.to(model.device)
    images = make_buffer(recipe, source, len(split.train))
    threads = threads_of(recipe, model)
    notes = [*([why] if why else []), *_first_weights(model, pictures, split, threads)]
    asked = execute or state.executor or recipe.train.execute
    train_N = split.train.to(pictures.labels_N.device)
    options = options_of(recipe, pictures.labels_N[train_N], len(model.classes))
    names, refused, program = choose(model, state.optimizer, asked, batch_size, options)
    for name in names:
        try:
            with exact(model.device, threads):
                native = {**options.for_native(), "program": program}
                executor = EXECUTORS[name](
                    model, state.optimizer, images, batch_size=batch_size,
                    **(native if name == "native" else {"options": options}),
                )  # fmt: skip
        except (Unsupported, RuntimeError, OSError) as error:
            if name == "eager":
                raise
            refused[name] = first_line(error)
            continue
        state.executor = name
        resolved = recipe.train.model_copy(update={"execute": name, "threads": threads})
        notes += [executor.note] if isinstance(executor, Native) and executor.note else []
        if recipe.augment.active:
            executor = augmenting(executor, model, recipe, source, images, threads)
            notes += [executor.augmenter.note] if executor.augmenter.note else []
        executor = _around(executor, model, recipe, split, window, state)
        recipe = recipe.model_copy(update={"train": resolved})
        note = "; ".join(notes)
        return Prepared(executor, recipe, refused, perf_counter() - began, note)
    raise AssertionError("eager runs everything")


def _first_weights(model: Classifier, pictures: Pictures, split: Split, threads: int) -> list[str]:
    """Set what `build` left to the training images or to timm's weights; return notes."""
    with exact(model.device, threads):
        notes = load_pretrained(model)
        initialize_from_images(model, pictures, split.train)
    return notes


def _around(
    executor: Executor,
    model: Classifier,
    recipe: Recipe,
    split: Split,
    window: Window | None,
    state: State,
) -> Executor:
    """Return an executor that also reads its images by windows, and averages weights over steps."""
    if window:
        executor = windowed(executor, model, window, recipe, split)
    if state.average and state.average.is_ema:
        return Averaging(executor, model, state.average)
    return executor


def choose(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    asked: str,
    batch_size: int,
    options: StepOptions,
) -> tuple[list[str], dict[str, str], Program | None]:
    """Return which executors to try, in order, why others cannot run here, and native's program.

    The answer depends on the arguments, the device and the compiler alone; nothing is built.

    Raises:
        HydrofoilError: The executor is unknown.
    """
    if asked not in ("auto", *FALLBACKS):
        raise HydrofoilError(f"train.execute = '{asked}': expected auto, {', '.join(FALLBACKS)}.")
    device = model.device
    wanted = AUTO.get(device.type, ("eager",)) if asked == "auto" else FALLBACKS[asked]
    refused: dict[str, str] = {}
    program: Program | None = None
    if device.type == "cpu" and torch.cuda.is_available() and (problem := cuda_problem()):
        refused["cuda"] = problem
    problem = graph_problem(model, optimizer) or options.mixing_problem
    if "graph" in wanted and problem:
        refused["graph"] = problem
    if "native" in wanted:
        try:
            if options.native_problem:
                raise Unsupported(options.native_problem)
            compiler()
            program = make_program(model, optimizer, batch_size, options.weighted)
        except Unsupported as error:
            refused["native"] = str(error)
    return [name for name in wanted if name not in refused], refused, program


def threads_of(recipe: Recipe, model: Classifier) -> int:
    """Return torch's CPU threads for a recipe: the given number, or by `thread_rule`."""
    if recipe.train.threads:
        return recipe.train.threads
    try:
        picture = total_multiply_adds(model.network, model.shape)
    except Exception:  # the user's own network may fail on a blank image
        return thread_rule(None)
    return thread_rule(picture * recipe.train.batch_size)


def expected(
    recipe: Recipe, device: torch.device, network: Network | None = None
) -> tuple[str, str]:
    """Return the line on the executor that a recipe would get, and the C that native would run.

    Needs no data. The C is empty if native cannot run the recipe.
    """
    recipe, why = with_precision(recipe, device)
    shape, classes = describe(recipe.data)
    model = build(recipe, shape, [""] * classes, network).to(device)
    optimizer = build_optimizer(recipe.optimizer, model.network)
    batch_size, options = (
        recipe.train.batch_size,
        options_of(recipe, torch.arange(classes), classes),
    )
    names, refused, program = choose(model, optimizer, recipe.train.execute, batch_size, options)
    line = f"executor: {names[0]}{f'; {why}' if why else ''}{_reasons(refused)}"
    if options.native_problem:
        return line, ""
    try:
        program = program or make_program(model, optimizer, batch_size, options.weighted)
        return line, program.source
    except Unsupported:
        return line, ""
