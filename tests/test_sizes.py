"""Progressive resizing: which epoch has which size, how images are scaled, and what is refused.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2 import functional as torchvision_functional

from hydrofoil import (
    HydrofoilError,
    State,
    build,
    draw_split,
    fit,
    load,
    read_recipe,
    resume,
    score,
    train,
)
from hydrofoil.data.batches import epoch_order
from hydrofoil.train.executors import prepare
from hydrofoil.train.sizes import shrink, side_of

SMALL = ["data.valid=0.2", "train.epochs=3", "train.batch_size=300", "train.sizes=[5,8]"]


class Pooled(nn.Module):
    """A network that takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 10)

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        return self.last(self.norm(self.conv(pictures_NCHW)).relu().amax((2, 3)))


def made(*overrides: str) -> Any:
    """Return recipe, model, images and split of a short training of digits."""
    recipe = read_recipe("digits", [*SMALL, *overrides])
    pictures = load("digits")
    model = build(recipe, pictures.shape, pictures.classes, Pooled)
    return recipe, model, pictures, draw_split(pictures, **recipe.split_options())


@given(sizes=st.lists(st.integers(1, 64), min_size=1, max_size=5), more=st.integers(0, 9))
def test_sizes_have_equal_parts_of_the_epochs_in_their_order(sizes: list[int], more: int) -> None:
    epochs = len(sizes) + more
    text = ", ".join(map(str, sizes))
    recipe = read_recipe("digits", [f"train.sizes=[{text}]", f"train.epochs={epochs}"])
    parts = torch.tensor([(e * len(sizes)) // epochs for e in range(epochs)])
    counts = parts.bincount(minlength=len(sizes))
    assert int(counts.max() - counts.min()) <= 1
    assert [side_of(recipe, e + 1) for e in range(epochs)] == [sizes[int(p)] for p in parts]


def test_without_sizes_every_epoch_has_full_size() -> None:
    assert side_of(read_recipe("digits"), 1) == 0


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), channels=st.sampled_from([1, 3]),
    side=st.integers(1, 40), seed=st.integers(0, 99),
)  # fmt: skip
def test_images_are_scaled_as_torchvision_does(
    rows: int, columns: int, channels: int, side: int, seed: int
) -> None:
    longer = max(rows, columns)
    side = min(side, longer)
    draw = torch.Generator().manual_seed(seed)
    shape = (4, channels, rows, columns)
    pictures_NCHW = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    ours_NCHW = shrink(pictures_NCHW, side)
    after = [max(1, round(rows * side / longer)), max(1, round(columns * side / longer))]
    if after == [1, 1]:  # torch 2.14 fails on bytes
        theirs_NCHW = torchvision_functional.resize(pictures_NCHW.float(), after, antialias=True)
        theirs_NCHW = theirs_NCHW.round().to(torch.uint8)
    else:
        theirs_NCHW = torchvision_functional.resize(pictures_NCHW, after, antialias=True)
    assert torch.equal(ours_NCHW, theirs_NCHW)
    assert shrink(pictures_NCHW, 0) is pictures_NCHW


def test_training_is_the_literal_loop_on_scaled_images() -> None:
    recipe, model, pictures, split = made("optimizer.name=sgd", "optimizer.lr=0.1")
    mine = build(recipe, pictures.shape, pictures.classes, Pooled)
    epochs = list(fit(model, pictures, split, recipe))
    optimizer = torch.optim.SGD(mine.network.parameters(), **recipe.optimizer.model_dump(
        exclude={"name", "decay_biases", "decoupled"}))  # fmt: skip
    for epoch, side in ((1, 5), (2, 5), (3, 8)):
        mine.train()
        for batch_N in epoch_order(split.train, 0, epoch, 0).split(300):
            images_NCHW = pictures.pictures_NCHW[batch_N]
            images_NCHW = torchvision_functional.resize(images_NCHW, [side, side], antialias=True)
            optimizer.zero_grad()
            cross_entropy(mine(images_NCHW), pictures.labels_N[batch_N]).backward()
            optimizer.step()
        valid = score(mine, pictures, split.valid)  # at full size
        assert epochs[epoch - 1].valid is not None
        assert abs(valid.loss - epochs[epoch - 1].valid.loss) < 1e-4
    for a, b in zip(model.network.parameters(), mine.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_native_refuses_sizes_and_eager_trains() -> None:
    recipe, model, pictures, split = made("train.execute=native")
    prepared = prepare(model, pictures, split, recipe, State.fresh(model, recipe))
    assert prepared.executor.name == "eager"
    assert "train.sizes" in prepared.refused["native"]


def test_a_run_with_sizes_resumes_bit_for_bit_from_inside_an_epoch() -> None:
    recipe, straight, pictures, split = made()
    list(fit(straight, pictures, split, recipe))
    for where in ((0, 3), (1, 2), (2, 1)):  # epochs and steps done
        _, begun, _, _ = made()
        state = State.fresh(begun, recipe)
        kept: list[Any] = []

        def keep(_: object, where: Any = where, state: State = state, begun: Any = begun,
                 kept: list[Any] = kept) -> None:  # fmt: skip
            if (state.epoch, state.step) == where:
                tensors = {n: t.clone() for n, t in state.tensors(begun).items()}
                kept.append((tensors, state.numbers()))

        list(fit(begun, pictures, split, recipe, state=state, watch=keep))
        _, resumed, _, _ = made("train.seed=0")
        fresh = State.fresh(resumed, recipe)
        fresh.restore(resumed, *kept[0])
        list(fit(resumed, pictures, split, recipe, state=fresh))
        assert resumed.weights_hash() == straight.weights_hash(), where


def test_images_read_by_windows_are_scaled_too() -> None:
    recipe, resident, pictures, split = made("data.window=600")
    list(fit(resident, pictures, split, recipe))
    recipe, windowed, pictures, split = made("data.window=600", "data.resident=false")
    list(fit(windowed, pictures, split, recipe))
    assert windowed.weights_hash() == resident.weights_hash()


def test_a_network_without_global_pooling_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"train\.sizes = \[5, 8\].*1×5×5.*global pooling"):
        train("digits", SMALL)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.sizes=[8,9]", r"train\.sizes = \[8, 9\]: expected at most 8, the longer side"),
        ("train.sizes=[5,6,7,8]", r"at most one size for each of 3 epochs"),
        ("train.sizes=[0]", r"train\.sizes"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(HydrofoilError, match=message):
        train("digits", [*SMALL, override], model=Pooled)


def test_the_number_of_epochs_of_a_begun_run_stays_as_sizes_divide_it() -> None:
    run = train("digits", SMALL, model=Pooled)
    with pytest.raises(HydrofoilError, match=r"train\.epochs = 4: expected 3: train\.sizes"):
        resume(run, epochs=4, model=Pooled)
    assert run.recipe.effects()["train.epochs"].what == "weights"
