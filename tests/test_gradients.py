"""Clipping and L1 change the gradient as the literal formulas say."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from hydrofoil import State, build, draw_split, fit, load, read_recipe
from hydrofoil.data.batches import epoch_order
from hydrofoil.train.executors import prepare

BASE = ["data.train=600", "train.epochs=2", "train.batch_size=200", "optimizer.name=sgd",
        "optimizer.lr=0.1", "train.execute=eager", "model.norm=batch",
        "model.dropout=0"]  # fmt: skip


def made(*overrides: str) -> Any:
    """Return recipe, model, images and split of a short training of digits."""
    recipe = read_recipe("digits", [*BASE, *overrides])
    pictures = load("digits")
    model = build(recipe, pictures.shape, pictures.classes)
    return recipe, model, pictures, draw_split(pictures, **recipe.split_options())


@pytest.mark.parametrize(("clip", "l1"), [(0.05, 0.0), (0.0, 0.01), (0.05, 0.01)])
def test_steps_are_those_of_the_literal_loop(clip: float, l1: float) -> None:
    recipe, model, pictures, split = made(f"train.clip={clip}", f"train.l1={l1}")
    epochs = list(fit(model, pictures, split, recipe))
    _, mine, _, _ = made()
    options = recipe.optimizer.model_dump(exclude={"name", "decay_biases", "decoupled"})
    optimizer = torch.optim.SGD(mine.parameters(), **options)
    for epoch in (1, 2):
        mine.train()
        total = 0.0
        for batch_N in epoch_order(split.train, 0, epoch, 0).split(200):
            optimizer.zero_grad()
            logits_NK = mine(pictures.pictures_NCHW[batch_N])
            loss = cross_entropy(logits_NK, pictures.labels_N[batch_N])
            total += loss.item() * len(batch_N)
            weights = [p for n, p in mine.named_parameters() if n.endswith("weight") and p.ndim > 1]
            (loss + l1 * torch.stack([p.abs().sum() for p in weights]).sum()).backward()
            if clip:
                norm = torch.nn.utils.clip_grad_norm_(mine.parameters(), clip)
                assert norm > clip  # it has something to do
            optimizer.step()
        # The reported loss is without the penalty, so that it compares with validation's.
        assert epochs[epoch - 1].train.loss == pytest.approx(total / len(split.train), rel=1e-4)
    for ours, theirs in zip(model.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("field", ["clip", "l1"])
def test_native_refuses_what_changes_gradients(field: str) -> None:
    recipe, model, pictures, split = made(f"train.{field}=0.1", "train.execute=native")
    prepared = prepare(model, pictures, split, recipe, State.fresh(model, recipe))
    assert prepared.executor.name == "eager"
    assert f"train.{field}" in prepared.refused["native"]


def test_a_limit_that_no_gradient_reaches_changes_nothing() -> None:
    plain, limited = made(), made("train.clip=1e6")
    for recipe, model, pictures, split in (plain, limited):
        list(fit(model, pictures, split, recipe))
    for ours, theirs in zip(plain[1].parameters(), limited[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
