"""Numbers that went wrong: the step is found, named, and not in the model, whoever ran it.

Axes: N pictures, C channels, H rows, W columns.
"""

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from hydrofoil import (
    Classifier,
    HydrofoilError,
    Pictures,
    Recipe,
    Run,
    Split,
    State,
    build,
    draw_split,
    fit,
    load,
    read_recipe,
)
from hydrofoil.data.batches import epoch_order
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.native import Native
from hydrofoil.run.events import NotFinite, RunningLoss
from hydrofoil.train import guard
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph
from hydrofoil.train.guard import NotFiniteError
from tests.fake_cuda import emulated
from tests.feeds import take_steps
from tests.resume_steps import command


@pytest.fixture(params=["eager", "native", "graph"])
def kind(request: pytest.FixtureRequest) -> Generator[Callable[..., Any]]:
    if request.param != "graph":
        yield {"eager": Eager, "native": Native}[request.param]
        return
    with emulated():
        yield Graph


HOT = 700  # the picture that is not black


def black_but_one() -> Pictures:
    digits = load("digits")
    pictures_NCHW = torch.zeros_like(digits.pictures_NCHW)
    pictures_NCHW[HOT] = 255
    return Pictures(pictures_NCHW, digits.labels_N, digits.classes, "black but one")


def failed(
    kind: Callable[..., Any], pictures: Pictures, *overrides: str
) -> tuple[NotFiniteError, Classifier, State, Split, Recipe]:
    recipe = read_recipe("digits", ["train.epochs=3", *overrides])
    split = draw_split(pictures, valid=0.2)
    model = build(recipe, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    batch = recipe.train.batch_size
    executor = kind(model.train(), state.optimizer, pictures, batch_size=batch)
    with pytest.raises(NotFiniteError) as caught:
        list(fit(model, pictures, split, recipe, state=state, executor=executor))
    return caught.value, model, state, split, recipe


def weights_before(
    kind: Callable[..., Any], pictures: Pictures, split: Split, recipe: Recipe, at: tuple[int, int]
) -> str:
    """Return the weights' hash before a step of an epoch: all steps one by one, unguarded."""
    model = build(recipe, pictures.shape, pictures.classes)
    optimizer = State.fresh(model, recipe).optimizer
    batch = recipe.train.batch_size
    executor = kind(model.train(), optimizer, pictures, batch_size=batch)
    for epoch in range(1, at[0] + 1):
        order_N = epoch_order(split.train, recipe.train.seed, epoch)
        for step, batch_N in enumerate(order_N.split(batch), start=1):
            if (epoch, step) == at:
                return model.weights_hash()
            take_steps(executor, batch_N, epoch, step, Sums(model.device))
    raise AssertionError("no such step")


def test_the_picture_that_overflows_is_in_the_batch_that_is_named(
    kind: Callable[..., Any],
) -> None:
    # Its first gradient makes weights of 1e34, finite, with which its next logits overflow.
    pictures = black_but_one()
    hot = ("data.mean=[0]", "data.std=[1e-37]", "model.name=mlp", "model.hidden=[]")
    error, model, state, split, recipe = failed(kind, pictures, *hot)
    batch = recipe.train.batch_size
    order = epoch_order(split.train, recipe.train.seed, 2).tolist()
    at = order.index(HOT) // batch
    assert (error.epoch, error.step) == (2, at + 1)
    assert error.pictures == order[at * batch :][:batch]
    assert "pixels reach 1e+37 after normalization" in str(error)
    assert len(str(error).splitlines()) == 3
    assert (state.epoch, state.step, state.sums.count) == (1, at, at * batch)
    assert at > 0
    assert model.weights_hash() == weights_before(kind, pictures, split, recipe, (2, at + 1))


def test_pictures_that_are_not_finite_are_refused_before_any_step() -> None:
    status, told = command("train", "digits", "data.std=[1e-39]")
    assert (status, len(told.splitlines())) == (2, 1)
    assert told.startswith("data.std = [1e-39]: pixels become inf by it")


def test_steps_that_are_too_large_are_stopped_before_the_one_that_overflows(
    kind: Callable[..., Any],
) -> None:
    pictures = load("digits")
    error, model, _, split, recipe = failed(kind, pictures, "optimizer.lr=1e30")
    assert 1 < error.step <= 4
    assert f"epoch 1, step {error.step}: the loss is" in str(error)
    assert "try optimizer.lr=1e+29" in str(error)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert model.weights_hash() == weights_before(kind, pictures, split, recipe, (1, error.step))


def test_an_update_that_overflows_at_a_finite_loss_is_undone(kind: Callable[..., Any]) -> None:
    pictures = load("digits")
    too_much = ("optimizer.lr=1e25", "optimizer.weight_decay=1e25")
    error, model, state, split, recipe = failed(kind, pictures, *too_much)
    assert error.step == 1
    assert "the loss is 2." in str(error)
    assert "the gradient makes conv1.weight not finite" in str(error)
    assert model.weights_hash() == weights_before(kind, pictures, split, recipe, (1, 1))
    assert state.step == 0


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_nothing_of_a_step_that_went_wrong_is_saved(execute: str) -> None:
    quick = (f"train.execute={execute}", "train.save_steps=1", "train.log_every=1")
    status, told = command("train", "digits", "optimizer.lr=1e30", *quick, "--run", "r")
    assert status == 2
    assert "Traceback" not in told
    run = Run.open("r")
    (event,) = run.log.all(NotFinite)
    assert (run.checkpoints.epoch(), run.checkpoints.step()) == (0, event.step - 1)
    assert f"step {event.step}: the loss is" in told
    losses = [event.loss for event in run.log.all(RunningLoss)]
    assert len(losses) == event.step - 1
    text = json.dumps(losses)
    assert "NaN" not in text
    assert "Infinity" not in text
    before = Path("r/last.safetensors").read_bytes()
    assert command("resume", "r")[0] == 2  # the same again
    assert Path("r/last.safetensors").read_bytes() == before


def test_the_log_has_no_running_loss_of_steps_that_were_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "CHECK_SECONDS", 60.0)  # so at the epoch's end alone
    recipe = ("digits", "train.execute=eager", "optimizer.lr=1e30", "train.log_every=1")
    assert command("train", *recipe, "--run", "r")[0] == 2
    events = Run.open("r").log.events()
    (wrong,) = [event for event in events if isinstance(event, NotFinite)]
    steps = [event.step for event in events if isinstance(event, RunningLoss)]
    assert steps == list(range(1, wrong.step))
    assert "NaN" not in Path("r/log.jsonl").read_text()


def test_epochs_before_the_one_that_went_wrong_are_kept() -> None:
    recipe = ("digits", "train.execute=eager", "train.epochs=3")
    assert command("train", *recipe, "--run", "r")[0] == 0
    steps = Eager.train_steps

    def spoilt(self: Any, feed: Any, first: int, stop: int, sums: Sums) -> None:
        steps(self, feed, first, stop, sums)
        if (feed.epoch, stop) == (3, 5):
            sums.loss += float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Eager, "train_steps", spoilt)
        status, told = command("train", *recipe, "--run", "s")
    assert status == 2
    assert "epoch 3, step 5: the loss is nan" in told
    assert Run.open("s").checkpoints.epoch() == 2
    assert len(Run.open("s").epochs()) == 2
    assert command("resume", "s")[0] == 0
    ends = [Run.open(name).weights.load(torch.device("cpu"))[0].weights_hash() for name in "rs"]
    assert ends[0] == ends[1]


def test_a_validation_that_overflows_is_named() -> None:
    pictures = load("digits")
    recipe = read_recipe("digits", ["train.execute=eager", "train.epochs=1"])
    split = draw_split(pictures, valid=0.2)
    model = build(recipe, pictures.shape, pictures.classes)

    class Odd(Eager):
        def score(self, index_N: torch.Tensor) -> Any:
            found = super().score(index_N)
            return type(found)(float("inf"), found.correct, found.count, found.confusion)

    state = State.fresh(model, recipe)
    odd = Odd(model, state.optimizer, pictures, batch_size=32)
    with pytest.raises(HydrofoilError, match="epoch 1: the validation loss is inf"):
        list(fit(model, pictures, split, recipe, state=state, executor=odd))
