import copy
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from hydrofoil import (
    Classifier,
    HydrofoilError,
    Recipe,
    State,
    build,
    draw_split,
    fit,
    load,
    read_recipe,
)
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.train import guard
from tests.conftest import REAL_RECIPES

EXECUTORS = ["eager", "native"]


def prepared(*overrides: str, name: str = "mnist-mlp") -> tuple[Classifier, Any, Any, Recipe]:
    # What auto chooses depends on the machine; tests/test_executors.py is about that.
    recipe = read_recipe(name, ["train.execute=eager", *overrides])
    pictures = load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    return build(recipe, pictures.shape, pictures.classes), pictures, split, recipe


def trained(*overrides: str, name: str = "mnist-mlp") -> Classifier:
    model, pictures, split, recipe = prepared(*overrides, name=name)
    list(fit(model, pictures, split, recipe))
    return model


# Settings in which each recipe learns a tiny set in a few epochs, with room for any rounding.
QUICK = {
    "cifar10-lenet": ["optimizer.lr=0.01", "train.epochs=5"],
    "cifar10-lenet-linear": ["optimizer.lr=0.005", "train.epochs=3"],
    "cifar10-cnn3": [
        "optimizer.name=adam",
        "optimizer.lr=3e-3",
        "model.dropout=0",
        "train.epochs=8",
    ],
    "mnist-mlp": ["optimizer.lr=0.1", "train.epochs=8"],
    "mnist-cnn": ["train.epochs=10"],
    "digits": ["train.epochs=10"],
}


@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_every_recipe_trains_and_learns(name: str) -> None:
    model, pictures, split, recipe = prepared(*QUICK[name], name=name)
    epochs = recipe.train.epochs
    before = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    epochs_seen = list(fit(model, pictures, split, recipe))
    assert [epoch.number for epoch in epochs_seen] == list(range(1, epochs + 1))
    # Chance is 10% on these sets; the best epoch has to be far above it.
    assert max(epoch.train.accuracy for epoch in epochs_seen) > 0.4
    assert min(epoch.train.loss for epoch in epochs_seen) < 0.8 * epochs_seen[0].train.loss
    assert all(epoch.train.count == len(split.train) for epoch in epochs_seen)
    assert all((epoch.valid is None) == (recipe.data.valid == 0) for epoch in epochs_seen)
    for key, tensor in model.network.state_dict().items():
        assert not torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("execute", EXECUTORS)
@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_same_recipe_and_seed_give_the_same_weights_twice(name: str, execute: str) -> None:
    first, second = (
        trained("train.epochs=1", f"train.execute={execute}", name=name).weights_hash()
        for _ in range(2)
    )
    assert first == second
    assert (
        trained(
            "train.epochs=1", "train.seed=1", f"train.execute={execute}", name=name
        ).weights_hash()
        != first
    )


def test_training_does_not_use_the_global_generator() -> None:
    torch.manual_seed(1)
    first = trained("train.epochs=1", name="cifar10-cnn3")
    torch.manual_seed(2)
    assert trained("train.epochs=1", name="cifar10-cnn3").weights_hash() == first.weights_hash()


@pytest.mark.parametrize("execute", EXECUTORS)
@pytest.mark.parametrize("name", ["mnist-mlp", "cifar10-cnn3", "mnist-cnn"])  # SGD, momentum, Adam
def test_training_resumed_from_a_saved_state_is_bit_identical(name: str, execute: str) -> None:
    overrides = ("train.epochs=4", f"train.execute={execute}")
    straight, pictures, split, recipe = prepared(*overrides, name=name)
    state = State.fresh(straight, recipe)
    saved: tuple[Any, Any] | None = None
    for epoch in fit(straight, pictures, split, recipe, state=state):
        if epoch.number == 2:
            saved = copy.deepcopy((state.tensors(straight), state.numbers()))
    assert saved is not None
    resumed = build(read_recipe(name, ["train.seed=9"]), pictures.shape, pictures.classes)
    again = State.fresh(resumed, recipe)
    again.restore(resumed, *saved)
    assert [epoch.number for epoch in fit(resumed, pictures, split, recipe, state=again)] == [3, 4]
    assert resumed.weights_hash() == straight.weights_hash()
    assert again.numbers() == state.numbers()


@pytest.mark.parametrize("name", ["cifar10-cnn3", "mnist-cnn"])
def test_a_state_without_one_of_its_tensors_trains_differently(name: str) -> None:
    straight, pictures, split, recipe = prepared("train.epochs=2", name=name)
    state = State.fresh(straight, recipe)
    epochs = fit(straight, pictures, split, recipe, state=state)
    next(epochs)
    tensors, numbers = copy.deepcopy((state.tensors(straight), state.numbers()))
    list(epochs)
    for name_ in [name_ for name_ in tensors if name_.startswith("optimizer/")]:
        model = build(recipe, pictures.shape, pictures.classes)
        incomplete = State.fresh(model, recipe)
        incomplete.restore(model, {**tensors, name_: torch.zeros_like(tensors[name_])}, numbers)
        list(fit(model, pictures, split, recipe, state=incomplete))
        assert model.weights_hash() != straight.weights_hash(), name_


def test_a_checkpoint_of_another_model_is_refused() -> None:
    model, *_, recipe = prepared(name="mnist-cnn")
    other, *_, other_recipe = prepared(name="mnist-mlp")
    state = State.fresh(model, recipe)
    with pytest.raises(HydrofoilError, match="of another model"):
        State.fresh(other, other_recipe).restore(other, state.tensors(model), state.numbers())


def test_the_validation_loss_chooses_the_epoch() -> None:
    model, *_, recipe = prepared()
    state = State.fresh(model, recipe)
    losses = [2.0, 1.5, 1.7, 1.5, 1.4, float("nan"), 1.3]
    best = [state.finish(model, "valid.loss", Scores(loss, 5, 10)) for loss in losses]
    assert best == [True, True, False, False, True, False, True]
    assert (state.best_epoch, state.best_value) == (7, 1.3)


def test_the_validation_accuracy_chooses_the_epoch() -> None:
    model, *_, recipe = prepared()
    state = State.fresh(model, recipe)
    rights = [3, 5, 5, 4, 6]
    best = [state.finish(model, "valid.accuracy", Scores(1.0, right, 10)) for right in rights]
    assert best == [True, True, False, False, True]


def test_without_validation_the_last_epoch_is_kept() -> None:
    model, pictures, split, recipe = prepared("train.epochs=3", name="mnist-cnn")
    assert [epoch.best for epoch in fit(model, pictures, split, recipe)] == [True, True, True]


def test_the_reported_losses_are_true_averages() -> None:
    """Two tutorials divide sums over 80% and 20% of the pictures by all of them."""
    model, pictures, split, recipe = prepared(
        "train.epochs=1", "model.dropout=0", "optimizer.lr=1e-9"
    )
    (epoch,) = fit(model, pictures, split, recipe)
    for part, scores in (("train", epoch.train), ("valid", epoch.valid)):
        index_N = getattr(split, part)
        with torch.no_grad():
            logits_NK = model(pictures.pictures_NCHW[index_N])
        expected = torch.nn.functional.cross_entropy(logits_NK, pictures.labels_N[index_N])
        assert scores is not None
        assert scores.loss == pytest.approx(float(expected), rel=1e-4)
        assert scores.count == len(index_N)


def test_a_loss_that_is_no_number_stops_the_run_and_says_why() -> None:
    model, pictures, split, recipe = prepared("optimizer.lr=1e12", "train.epochs=3")
    with pytest.raises(
        HydrofoilError, match=r"epoch 1, step 3: the loss is nan(.|\n)*optimizer\.lr=1e\+11"
    ):
        list(fit(model, pictures, split, recipe))


def test_a_split_without_training_pictures_is_refused() -> None:
    model, pictures, split, recipe = prepared()
    with pytest.raises(HydrofoilError, match="no training images"):
        list(fit(model, pictures, replace(split, train=split.train[:0]), recipe))


def test_the_caller_may_stop_at_any_epoch() -> None:
    model, pictures, split, recipe = prepared("train.epochs=50")
    for epoch in fit(model, pictures, split, recipe):
        if epoch.number == 2:
            break
    assert epoch.number == 2


def test_a_watcher_sees_every_step() -> None:
    model, pictures, split, recipe = prepared("train.epochs=2", "train.batch_size=100")
    seen: list[tuple[int, int, int, int]] = []
    list(
        fit(model, pictures, split, recipe,
            watch=lambda p: seen.append((p.epoch, p.step, p.steps, p.sums.count)))
    )  # fmt: skip
    counts = [100, 200, 300, 400, 480]
    assert seen == [(e, s, 5, count) for e in (1, 2) for s, count in enumerate(counts, start=1)]


def test_no_picture_passes_through_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of ten times as many pictures makes as many calls."""
    monkeypatch.setattr(guard, "CHECK_SECONDS", 600.0)  # a check by the clock makes calls, too

    def calls_of_an_epoch(batch_size: int) -> int:
        # Native builds code for each batch size, and a small step takes one thread.
        fixed = ("train.execute=eager", "train.threads=1")
        overrides = (f"train.batch_size={batch_size}", "train.epochs=1", "data.valid=0", *fixed)
        model, pictures, split, recipe = prepared(*overrides, "train.select=last")
        split = replace(split, train=split.train[: 6 * batch_size])
        calls = 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            list(fit(model, pictures, split, recipe))
        finally:
            sys.setprofile(None)
        return calls

    calls_of_an_epoch(4)  # the first epoch of a process imports and caches
    assert calls_of_an_epoch(4) == calls_of_an_epoch(40)


def test_training_never_touches_the_test_split() -> None:
    model, pictures, split, recipe = prepared("train.epochs=1", name="cifar10-lenet")
    changed = pictures.pictures_NCHW.clone()
    changed[split.test] = 0
    other = build(recipe, pictures.shape, pictures.classes)
    list(fit(model, pictures, split, recipe))
    list(fit(other, replace(pictures, pictures_NCHW=changed), split, recipe))
    assert model.weights_hash() == other.weights_hash()
