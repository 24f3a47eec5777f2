"""The graph executor on an emulated GPU: the same bits as eager steps, and nothing left behind.

Axes: N pictures, C channels, H rows, W columns, S steps, L dropout layers, 2 halves of a key.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from hydrofoil import Run, State, build, draw_split, fit, load, prepare, read_recipe
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import dropouts
from hydrofoil.run.checkpoints import Checkpoints
from hydrofoil.train.executors import graph as module
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph, Tables
from hydrofoil.train.feed import make_feed
from hydrofoil.train.options import StepOptions
from tests import fake_cuda
from tests.conftest import REAL_RECIPES
from tests.fake_cuda import Stream, World, emulated
from tests.resume_steps import command, fingerprint

STEPS = 7  # of an epoch, the last one smaller


class Side:
    """A training of a few steps an epoch by one executor."""

    def __init__(self, kind: Any, name: str, *overrides: str) -> None:
        recipe = read_recipe(name, ["train.epochs=2", *overrides])
        self.pictures = load(recipe.data.source)
        split = draw_split(self.pictures, **recipe.split_options())
        images = STEPS * recipe.train.batch_size - 1
        self.recipe, self.split = recipe, replace(split, train=split.train[:images])
        self.model = build(recipe, self.pictures.shape, self.pictures.classes).train()
        self.state = State.fresh(self.model, recipe)
        self.sums = Sums(self.model.device)
        self.executor = kind(
            self.model, self.state.optimizer, self.pictures, batch_size=recipe.train.batch_size,
            options=StepOptions(
                recipe.train.label_smoothing,
                torch.arange(1.0, 11) if recipe.train.balance == "loss" else None,
            ),
        )  # fmt: skip

    def train(self, epoch: int, first: int, stop: int) -> None:
        layers = len(dropouts(self.model.network))
        if (epoch, first) != getattr(self, "at", None):
            self.feed = make_feed(
                self.recipe, self.split.train, self.pictures.labels_N, epoch, layers
            )
        self.executor.train_steps(self.feed, first, stop, self.sums)
        self.at = (epoch, stop)

    def tensors(self) -> dict[str, Tensor]:
        slots = self.state.optimizer.state
        return {
            **self.model.state_dict(),
            **{
                f"{name}/{slot}": value
                for name, parameter in self.model.named_parameters()
                for slot, value in slots.get(parameter, {}).items()
                if isinstance(value, Tensor)
            },
        }


def check_same(name: str, *overrides: str, epochs: int = 2) -> World:
    """Train by eager and by graph, in calls of different lengths; all tensors must be equal."""
    with emulated() as world:
        eager, graph = Side(Eager, name, *overrides), Side(Graph, name, *overrides)
        for epoch in range(1, epochs + 1):
            for first, stop in ((0, 1), (1, 2), (2, STEPS)):
                eager.train(epoch, first, stop)
                graph.train(epoch, first, stop)
                ours, theirs = graph.tensors(), eager.tensors()
                assert ours.keys() == theirs.keys()
                differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
                assert not differing, f"epoch {epoch}, step {stop}: {differing}"
                assert graph.sums.totals() == eager.sums.totals()
    assert not world.races
    assert world.captures == 1
    assert world.replays == epochs * (STEPS - 1)
    return world


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in REAL_RECIPES if name != "mnist-cnn"]


@pytest.mark.parametrize("name", ["digits", "mnist-cnn", *SLOW])  # SGD and dropout; Adam
def test_a_graph_takes_eagers_steps_to_the_last_bit(name: str) -> None:
    check_same(name)


OTHERS = [
    ("optimizer.name=adamw", "optimizer.lr=0.001", "optimizer.weight_decay=0.1"),
    ("optimizer.momentum=0", "optimizer.nesterov=false", "model.dropout=0"),
    ("train.label_smoothing=0.1", "schedule.name=cosine", "schedule.warmup_steps=3"),
    ("optimizer.name=adam", "optimizer.lr=0.001", "schedule.name=one-cycle"),
    ("schedule.name=step", "schedule.every=1"),
    ("train.balance=loss", "train.label_smoothing=0.1"),
    ("train.balance=sampling",),
]


@pytest.mark.parametrize("overrides", OTHERS, ids=lambda given: given[0])
def test_optimizers_and_schedules_are_the_same_by_a_graph_of_one_capture(
    overrides: tuple[str, ...],
) -> None:
    check_same("digits", *overrides)


# ── planted faults are found ─────────────────────────────────────────────────────────────────────


def rebinding_load(self: Tables, feed: Any, first: int) -> None:
    self.order_N = feed.order_N.clone()
    Tables_load(self, feed, first)


Tables_load = Tables.load
FAULTS: dict[str, tuple[Any, str, Any]] = {
    "an order that is not static": (Tables, "load", rebinding_load),
    "the first step's draws in every step": (Tables, "draws", lambda self, _: self.draws_SL2[0]),
    "the first step's rate in every step": (Tables, "rate", lambda self, _: self.rates_S[0]),
    "a rate that is baked in": (Tables, "rate", lambda self, _: 0.02),
    "the first batch in every step": (
        Tables, "batch", lambda self, _: self.order_N[: self.batch_size] + 0,
    ),
    "trial steps that are not undone": (
        module, "unchanged", lambda *_: contextlib.nullcontext(),
    ),
    "sums that are not returned": (module, "_copy", lambda *_: None),
    "streams that do not wait": (Stream, "wait_stream", lambda *_: None),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    owner, name, value = FAULTS[fault]
    found = (AssertionError, fake_cuda.DanglingError)
    with mock.patch.object(owner, name, value), pytest.raises(found):
        check_same("digits", "schedule.name=linear", epochs=1)


def test_memory_that_was_given_back_is_found() -> None:
    with emulated(), mock.patch.object(Graph, "_surroundings", return_value=[]):
        side = Side(Graph, "digits")
        side.train(1, 0, 2)
        saved = {k: v.clone() for k, v in side.state.tensors(side.model).items()}
        side.state.restore(side.model, saved, side.state.numbers())
        with pytest.raises(fake_cuda.DanglingError):
            side.train(1, 2, 4)


# ── what changes around a graph ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_state_that_is_restored_under_a_graph_is_captured_again(optimizer: str) -> None:
    options = [f"optimizer.name={optimizer}", "optimizer.lr=0.001"]
    with emulated() as world:
        straight, restored = (Side(Graph, "digits", *options) for _ in range(2))
        for side in (straight, restored):
            side.train(1, 0, 2)
        saved = {k: v.clone() for k, v in restored.state.tensors(restored.model).items()}
        restored.train(1, 2, 3)
        restored.state.restore(restored.model, saved, restored.state.numbers())
        for side in (straight, restored):
            side.train(1, 2, 5)
        assert world.captures == 3
        ours, theirs = restored.tensors(), straight.tensors()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_label_smoothing_that_changes_is_captured_again_and_a_rate_is_not() -> None:
    with emulated() as world:
        side = Side(Graph, "digits", "schedule.name=linear")
        side.train(1, 0, 4)
        side.train(2, 0, 2)
        assert world.captures == 1
        side.executor.step.options = StepOptions(label_smoothing=0.5)
        side.train(2, 2, 3)
        assert world.captures == 2


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


class Waiting(nn.Flatten):
    """A layer that waits for the device in every step."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * (1 if input.sum().item() > -1e30 else 2)


class Failing(nn.Flatten):
    """A layer that fails while a world does something."""

    when: Callable[[], bool]

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.when():
            raise RuntimeError("planted: this layer failed")
        return super().forward(input)


def prepared_with(layer: nn.Module) -> tuple[Any, Any, Any, Any, Any, str]:
    recipe = read_recipe("digits", ["model.name=mlp", "train.epochs=1", "train.execute=graph"])
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    model.network[0] = layer
    state = State.fresh(model, recipe)
    before = model.weights_hash()
    prepared = prepare(model, pictures, split, recipe, state)
    assert model.weights_hash() == before
    assert all(parameter.grad is None for parameter in model.parameters())
    return model, pictures, split, prepared, state, before


def test_a_layer_that_waits_is_refused_before_anything_is_captured() -> None:
    with emulated() as world:
        *_, prepared, _, _ = prepared_with(Waiting())
    assert prepared.executor.name == prepared.recipe.train.execute == "eager"
    assert "graph is not available: called a synchronizing CUDA operation" in prepared.line
    assert (world.captures, world.races) == (0, [])


@pytest.mark.parametrize("moment", ["warming up", "capturing"])
def test_where_preparing_fails_eager_steps_follow_in_order(moment: str) -> None:
    with emulated() as world:
        layer = Failing()
        layer.when = lambda: (
            world.graph is not None if moment == "capturing" else world.current != world.default
        )
        model, pictures, split, prepared, state, _ = prepared_with(layer)
        assert "graph is not available: planted: this layer failed" in prepared.line
        (epoch,) = fit(
            model, pictures, split, prepared.recipe, state=state, executor=prepared.executor
        )
        assert epoch.train.count == len(split.train)
    assert not world.races


def test_weights_are_not_restored_while_a_failed_warm_up_still_writes_them() -> None:
    with emulated() as world:
        layer, calls = Failing(), []
        layer.when = lambda: calls.append(1) or len(calls) == 2  # after one whole step
        prepared_with(layer)
        assert not world.races
        with mock.patch.object(Stream, "wait_stream"):
            calls.clear()
            prepared_with(layer)
        assert world.races


def test_an_optimizer_whose_rate_cannot_lie_on_the_device_is_refused() -> None:
    side = Side(Eager, "digits")
    optimizer = torch.optim.RMSprop(side.model.parameters())
    with emulated():
        assert module.graph_problem(side.model, optimizer) == (
            "RMSprop cannot read its learning rate from the device"
        )
        with mock.patch.object(torch, "__version__", "2.11.0+cu128"):
            problem = module.graph_problem(side.model, side.state.optimizer)
    assert problem == "needs torch 2.12 or later, found 2.11.0+cu128"


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────

RUN = ("digits", "train.execute=graph", "model.name=mlp", "model.hidden=[16]", "train.epochs=4")


@contextlib.contextmanager
def saved_at_the_end_only() -> Generator[None]:
    with mock.patch("hydrofoil.observe.recorder.SAVE_SECONDS", 600.0):
        yield


def test_a_lost_device_costs_no_finished_epoch_and_names_how_to_resume() -> None:
    with emulated() as world:
        assert command("train", *RUN, "--run", "whole")[0] == 0
    with emulated() as world, saved_at_the_end_only():
        world.lose_at = 2 * 39 + 10  # in the third epoch
        status, said = command("train", *RUN, "--run", "lost")
    assert status == 2
    assert "Traceback" not in said
    assert "out of memory" not in said
    assert "cpu: the device failed: CUDA error: an illegal memory access" in said
    assert "Resume on the CPU with: hydrofoil resume lost --device cpu" in said
    run = Run.open("lost")
    assert run.checkpoints.epoch() == len(run.epochs()) == 2
    with emulated():
        assert command("resume", "lost")[0] == 0
    assert fingerprint("lost") == fingerprint("whole")
    assert command("resume", "lost", "--device", "cpu")[0] == 0


def test_a_run_by_graph_can_be_proved_and_resumed_inside_an_epoch() -> None:
    with emulated():
        assert command("train", *RUN, "--run", "whole", "schedule.name=cosine")[0] == 0
        assert command("resume", "whole", "--prove")[0] == 0
        few = ("schedule.name=cosine", "train.save_steps=10")
        with mock.patch.object(Checkpoints, "save", stopping_save(Checkpoints.save)):
            assert command("train", *RUN, *few, "--run", "cut")[0] == 130
        assert Run.open("cut").checkpoints.step() == 20
        assert command("resume", "cut")[0] == 0
    whole, cut = fingerprint("whole"), fingerprint("cut")
    assert (whole["best"], whole["last"], whole["log"]) == (cut["best"], cut["last"], cut["log"])


def stopping_save(save: Any) -> Any:
    calls: list[int] = []

    def saved(self: Checkpoints, *arguments: Any) -> None:
        save(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    return saved


def test_the_emulation_leaves_torch_as_it_was() -> None:
    before = [torch.cuda.Stream, torch.cuda.graph, torch.cuda.CUDAGraph]
    with emulated():
        assert torch.cuda.Stream is not before[0]
    assert [torch.cuda.Stream, torch.cuda.graph, torch.cuda.CUDAGraph] == before
    assert Path(fake_cuda.__file__).name == "fake_cuda.py"
