"""Native training of each recipe: as exact as torch, and bit-identical with any number of threads.

Axes: N pictures, C channels, H rows, W columns, K classes, S steps.
"""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from hydrofoil import Classifier, Pictures, build, draw_split, load, read_recipe
from hydrofoil.data.batches import epoch_order
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.evaluate.score import score
from hydrofoil.native import Native
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.optimizers import build_optimizer
from tests.conftest import REAL_RECIPES
from tests.feeds import take_steps
from tests.native_cases import (
    CPU,
    OPTIMIZERS,
    PHASES,
    classifier,
    in_float64,
    made_pictures,
    many,
    need_compiler,
    share_rows,
)

need_compiler()

LINEAR, CONV2D = torch.nn.functional.linear, torch.nn.functional.conv2d


def state_bits(model: Classifier, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return what must be equal to the last bit."""
    states = [optimizer.state[p] for p in model.network.parameters()]
    tensors = [
        (name, value.numpy().tobytes())
        for state in states
        for name, value in state.items()
        if value is not None
    ]
    return [model.weights_hash(), *tensors]


def recipe_and_model(name: str) -> tuple[Classifier, Any, Pictures, Tensor, int]:
    """Return a recipe's model, optimizer, pictures, indices of 200 steps and batch size."""
    recipe = read_recipe(name)
    pictures = load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes).train()
    optimizer = build_optimizer(recipe.optimizer, model.network)
    batch = recipe.train.batch_size
    order_N = epoch_order(split.train, 0, 1)
    return model, optimizer, pictures, order_N.repeat(200 * batch // len(order_N) + 1), batch


def reversed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return torch's linear layer with its sums in reverse order."""
    return LINEAR(x.flip(-1), weight.flip(-1), bias)


def reversed_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, *window: Any) -> Tensor:
    """Return torch's convolution with its sums over channels, rows and columns in reverse order."""
    if window[0] not in (1, (1, 1)):  # at other strides a flipped image has other windows
        return CONV2D(x.flip(1), weight.flip(1), bias, *window)
    return CONV2D(x.flip(1, 2, 3), weight.flip(1, 2, 3), bias, *window).flip(2, 3)


def train_step(run: Any, index_N: Tensor, step: int, *, reverse: bool = False) -> float:
    """Take one step and return the mean loss of its batch."""
    sums = Sums(CPU)
    with pytest.MonkeyPatch.context() as patch:
        if reverse:
            patch.setattr("torch.nn.functional.linear", reversed_linear)
            patch.setattr("torch.nn.functional.conv2d", reversed_conv2d)
        take_steps(run, index_N, 1, step, sums)
    return float(sums.loss) / len(index_N)


def copy_training(source: Native, target: Eager) -> None:
    """Give a training another one's weights and optimizer state."""
    target.model.network.load_state_dict(source.model.network.state_dict())
    for ours, theirs in zip(
        source.model.network.parameters(), target.model.network.parameters(), strict=True
    ):
        state: dict[str, Any] = source.optimizer.state[ours]
        target.optimizer.state[theirs] = {
            name: value.to(theirs.dtype if value.ndim else value.dtype, copy=True)
            for name, value in state.items()
            if value is not None
        }


def all_weights(run: Any) -> Tensor:
    """Return every weight in one float64 vector."""
    return torch.cat([p.detach().double().flatten() for p in run.model.network.parameters()])


@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_native_steps_are_as_exact_as_torchs_on_every_recipe(name: str) -> None:
    """Each step is taken from the same weights in float64, in float32, and by native.

    The yardstick is what float32 itself loses when sums are reordered: torch's own order and
    the reverse one, both against float64. A mean loss is a smooth function of the weights, so
    native's error has to stay below 8 standard errors in every step, and below 2 overall. The step
    that follows is not smooth: where two numbers in a pooling window nearly tie, or one before a
    ReLU is nearly zero, rounding decides. Such steps are rare, so medians over steps are compared.
    """
    model, optimizer, pictures, order_N, batch = recipe_and_model(name)
    options: dict[str, Any] = {"batch_size": batch}
    native = Native(model, optimizer, pictures, threads=2, **options)
    judges: list[Eager] = []
    for judge in (in_float64(model), copy.deepcopy(model), copy.deepcopy(model)):
        made = build_optimizer(read_recipe(name).optimizer, judge.network)
        judges.append(Eager(judge, made, pictures, **options))
    exact, single, turned = judges
    losses, updates = list[list[float]](), list[list[float]]()
    for step in range(1, 101):
        for judge in judges:
            copy_training(native, judge)
        before, index_N = all_weights(native), order_N[(step - 1) * batch : step * batch]
        wanted = train_step(exact, index_N, step)
        runs = ((single, False), (turned, True), (native, False))
        losses.append([train_step(run, index_N, step, reverse=r) - wanted for run, r in runs])
        after = all_weights(exact)
        length = float((after - before).norm())
        updates.append([float((all_weights(run) - after).norm()) / length for run, _ in runs])
    loss_3S, update_3S = torch.tensor(losses).T.double(), torch.tensor(updates).T
    deviation = float(loss_3S[:2].square().mean().sqrt())
    assert float(loss_3S[2].abs().max()) <= 8 * deviation
    assert float(loss_3S[2].square().mean().sqrt()) <= 2 * deviation
    medians = update_3S.median(1).values
    assert float(medians[2]) <= 2 * float(medians[:2].max())
    evaluation_N = order_N[: 2 * batch + 1]
    gap = native.score(evaluation_N).loss - score(model, pictures, evaluation_N).loss
    assert abs(gap) <= 8 * deviation


@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_any_threads_and_any_calls_are_bit_identical(name: str) -> None:
    bits: list[Any] = []
    for threads, cuts in [(t, [0, 12]) for t in range(1, 9)] + [(3, [0, 5, 6, 12]), (64, [0, 12])]:
        model, optimizer, pictures, order_N, batch = recipe_and_model(name)
        native = Native(model, optimizer, pictures, batch_size=batch, threads=threads)
        sums = Sums(CPU)
        for first, last in pairwise(cuts):
            part_N = order_N[first * batch : min(last * batch, 12 * batch - 1)]
            take_steps(native, part_N, 1, first + 1, sums)
        logits_NK = native.logits(order_N[: batch + 1])
        loss = float(sums.loss) if len(cuts) == 2 else None
        bits.append([*state_bits(model, optimizer), logits_NK.numpy().tobytes(), loss])
    assert all(b[:-1] == bits[0][:-1] for b in bits)
    assert {b[-1] for b in bits} - {None} == {bits[0][-1]}


@many
def test_any_threads_are_bit_identical_on_any_network(many: int) -> None:
    @settings(max_examples=many, phases=PHASES)
    @given(
        shape=st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9)),
        convs=st.lists(st.integers(1, 19), max_size=2),
        linears=st.lists(st.integers(1, 70), max_size=3), norm=st.booleans(), rows=st.booleans(),
        kind=st.sampled_from(["relu", "tanh", "sigmoid"]), batch=st.integers(2, 21),
        optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    )  # fmt: skip
    def holds(
        shape: Any, convs: list[int], linears: list[int], norm: bool, rows: bool, kind: str,
        batch: int, optimizer: str,
    ) -> None:  # fmt: skip
        norms = ["norm"] * norm
        words = [w for n in convs for w in (f"conv {n} 3 1 1", *norms, kind)]
        words += [
            "flatten",
            *(w for n in linears for w in (f"linear {n}", *norms, kind, "drop 0.2")),
        ]
        count, bits = 3 * batch - 1 - (batch == 2), []
        for threads in range(1, 9):
            model = classifier(shape, words)
            if model is None:
                reject()
            made = OPTIMIZERS[optimizer](model.network.parameters())
            with pytest.MonkeyPatch.context() as patch:
                share_rows(patch, rows)
                native = Native(
                    model, made, made_pictures(shape, count), batch_size=batch, threads=threads
                )
            take_steps(native, torch.arange(count), 1, 1, Sums(CPU))
            bits.append(state_bits(model, made))
        assert all(b == bits[0] for b in bits)

    holds()
