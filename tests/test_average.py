"""Averaged weights: torch's own arithmetic, validated, saved as best, resumed bit for bit.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from hydrofoil import (
    HydrofoilError,
    State,
    build,
    draw_split,
    fit,
    keep,
    load,
    prove,
    read_recipe,
    resume,
    score,
    train,
)
from hydrofoil.data.batches import epoch_order
from hydrofoil.report.show import show_run
from hydrofoil.run.listing import list_runs
from hydrofoil.train.executors import prepare

BASE = [
    "data.valid=0.2", "train.epochs=4", "train.batch_size=300", "optimizer.name=sgd",
    "optimizer.lr=0.05", "train.swa_start=0.5", "train.ema_decay=0.8", "data.train=900",
    "train.execute=eager",
]  # fmt: skip


class Normed(nn.Module):
    """A small network with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.last = nn.Linear(6 * 36, 10)

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        return self.last(self.norm(self.conv(pictures_NCHW)).relu().flatten(1))


def made(*overrides: str) -> Any:
    """Return recipe, model, images and split of a short training of digits."""
    recipe = read_recipe("digits", [*BASE, *overrides])
    pictures = load("digits")
    model = build(recipe, pictures.shape, pictures.classes, Normed)
    return recipe, model, pictures, draw_split(pictures, **recipe.split_options())


def literal(
    kind: str, update: Callable[[AveragedModel, nn.Module, str], None]
) -> tuple[list[float], AveragedModel]:
    """Train by the literal loop with torch's AveragedModel; return its validation losses."""
    recipe, model, pictures, split = made()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    averaged = ema if kind == "ema" else AveragedModel(model)
    options = recipe.optimizer.model_dump(exclude={"name", "decay_biases", "decoupled"})
    optimizer = torch.optim.SGD(model.parameters(), **options)
    losses: list[float] = []
    for epoch in range(1, 5):
        model.train()
        for batch_N in epoch_order(split.train, 0, epoch, 0).split(300):
            optimizer.zero_grad()
            logits_NK = model(pictures.pictures_NCHW[batch_N])
            cross_entropy(logits_NK, pictures.labels_N[batch_N]).backward()
            optimizer.step()
            update(averaged, model, "step")
        if kind == "swa" and epoch > 2:
            averaged.update_parameters(model)
            parts = split.train.chunk(-(-len(split.train) // 300))
            update_bn([pictures.pictures_NCHW[part_N] for part_N in parts], averaged)
        if kind == "ema" or epoch > 2:
            losses.append(score(averaged.module, pictures, split.valid).loss)
    return losses, averaged


def after_each_step(averaged: AveragedModel, model: nn.Module, moment: str) -> None:
    averaged.update_parameters(model)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_average_is_torchs_averaged_model(kind: str) -> None:
    recipe, model, pictures, split = made(f"train.average={kind}")
    state = State.fresh(model, recipe)
    epochs = list(fit(model, pictures, split, recipe, state=state))
    nothing: Any = lambda *_: None  # noqa: E731
    losses, averaged = literal(kind, after_each_step if kind == "ema" else nothing)
    found = [epoch.averaged.loss for epoch in epochs if epoch.averaged]
    assert len(found) == len(losses) == (4 if kind == "ema" else 2)
    assert found == pytest.approx(losses, rel=1e-4)
    assert state.average is not None
    theirs: Any = averaged.module
    for name, tensor in theirs.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(state.average.tensors[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaging_leaves_the_trained_weights_as_they_are(kind: str) -> None:
    recipe, plain, pictures, split = made()
    first = list(fit(plain, pictures, split, recipe))
    recipe, model, pictures, split = made(f"train.average={kind}")
    second = list(fit(model, pictures, split, recipe))
    assert model.weights_hash() == plain.weights_hash()
    assert [epoch.valid for epoch in first] == [epoch.valid for epoch in second]


@pytest.mark.parametrize("select", ["valid.loss", "last"])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_averaged_weights_are_saved_and_selected(kind: str, select: str) -> None:
    run = train("digits", [*BASE, f"train.average={kind}", f"train.select={select}"], model=Normed)
    epochs = run.epochs()
    have = [epoch for epoch in epochs if epoch.averaged]
    expected = min(have, key=lambda epoch: epoch.averaged.loss)  # type: ignore[union-attr]
    best = [epoch for epoch in epochs if epoch.best][-1]
    assert best.number == (expected.number if select == "valid.loss" else 4)
    pictures, split = load("digits"), run.split()
    assert best.averaged is not None
    assert score(run.model, pictures, split.valid).loss == pytest.approx(best.averaged.loss)
    if kind == "swa":
        assert [epoch.averaged is None for epoch in epochs] == [True, True, False, False]
    shown = run.path / "log.jsonl"
    assert '"averaged":{' in shown.read_text()


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_run_with_averages_resumes_bit_for_bit_from_inside_an_epoch(kind: str) -> None:
    recipe, straight, pictures, split = made(f"train.average={kind}")
    ended = State.fresh(straight, recipe)
    list(fit(straight, pictures, split, recipe, state=ended))
    for where in ((0, 1), (2, 2), (3, 1)):  # epochs and steps done
        begun, resumed = made()[1], made()[1]
        state, kept = State.fresh(begun, recipe), []
        for _ in _interrupted(begun, pictures, split, recipe, state, where, kept):
            pass
        fresh = State.fresh(resumed, recipe)
        fresh.restore(resumed, *kept[0])
        list(fit(resumed, pictures, split, recipe, state=fresh))
        ours, theirs = fresh.tensors(resumed), ended.tensors(straight)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
        before, after = fresh.numbers(), ended.numbers()
        assert {**before, "seconds": 0} == {**after, "seconds": 0}


def _interrupted(
    model: Any, pictures: Any, split: Any, recipe: Any, state: State, where: Any, kept: list[Any]
) -> Any:
    def look(_: object) -> None:
        if (state.epoch, state.step) == where:
            tensors = {name: tensor.clone() for name, tensor in state.tensors(model).items()}
            kept.append((tensors, state.numbers()))

    return fit(model, pictures, split, recipe, state=state, watch=look)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_prove_compares_the_averages_too(kind: str) -> None:
    run = train("digits", [*BASE, f"train.average={kind}", "train.batch_size=100"], model=Normed)
    proof = prove(run, model=Normed)
    assert proof.differing == []
    assert proof.tensors > 30


def test_native_refuses_ema_and_takes_swa() -> None:
    for kind, name in (("ema", "eager"), ("swa", "native")):
        recipe = read_recipe(
            "digits", [*BASE, f"train.average={kind}", "train.execute=native", "train.epochs=2"]
        )
        pictures = load("digits")
        split = draw_split(pictures, **recipe.split_options())
        model = build(recipe, pictures.shape, pictures.classes)
        state = State.fresh(model, recipe)
        prepared = prepare(model, pictures, split, recipe, state)
        assert prepared.executor.name == name
        assert ("train.average = ema" in prepared.refused.get("native", "")) == (kind == "ema")
        *_, last = fit(model, pictures, split, recipe, state=state, executor=prepared.executor)
        assert last.averaged is not None


def test_kept_without_its_state_an_average_is_missing() -> None:
    recipe, model, pictures, split = made("train.average=ema")
    epochs = list(fit(model, pictures, split, recipe))
    with pytest.raises(HydrofoilError, match=r"state: missing, and with it the averaged weights"):
        keep(model, pictures, split, recipe, epochs)


def test_swa_of_another_number_of_epochs_begins_elsewhere() -> None:
    run = train("digits", [*BASE, "train.average=swa"], model=Normed)
    with pytest.raises(HydrofoilError, match=r"expected 4: train\.average = swa begins elsewhere"):
        resume(run, epochs=6, model=Normed)


# ── early stopping ───────────────────────────────────────────────────────────────────────────────


STOPS = ["data.valid=0.2", "train.epochs=30", "train.batch_size=100", "optimizer.lr=3.0",
         "optimizer.name=sgd", "train.patience=2", "train.select=valid.accuracy"]  # fmt: skip


def test_training_stops_after_so_many_epochs_without_a_new_best() -> None:
    run = train("digits", STOPS)
    epochs = run.epochs()
    accuracies = [epoch.valid.accuracy for epoch in epochs if epoch.valid]
    # The literal rule: the first epoch whose two predecessors' best was at least as good.
    ends = next(
        n for n in range(1, 31)
        if n >= 30 or n - 1 - accuracies[:n].index(max(accuracies[:n])) >= 2
    )  # fmt: skip
    assert len(epochs) == ends < 30
    assert "no new best in the last 2 epochs" in (run.path / "log.jsonl").read_text()


def test_resuming_a_run_that_stopped_early_trains_nothing_more() -> None:
    run = train("digits", STOPS)
    count = len(run.epochs())
    assert len(resume(run).epochs()) == count
    longer = resume(run, epochs=40)
    assert len(longer.epochs()) == count


def test_patience_changes_no_weights_until_it_ends_a_training() -> None:
    assert (
        read_recipe("digits", STOPS).hash()
        == read_recipe("digits", [*STOPS, "train.patience=0"]).hash()
    )


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"train\.patience = 3: expected train\.select"):
        read_recipe("digits", ["train.patience=3", "data.valid=0", "train.select=last"])


def test_patience_does_not_count_epochs_before_swa() -> None:
    spec = read_recipe("digits", [*STOPS, "train.average=swa", "train.swa_start=0.5"]).train
    assert [spec.stops_early(done, 1) for done in (5, 15, 16, 17)] == [False, False, False, True]


def test_a_run_that_stopped_early_is_finished_in_lists_and_reports() -> None:
    run = train("digits", STOPS)
    assert [one.state for one in list_runs(run.path)] == ["finished"]
    text = show_run(run.path).text
    assert "Stopped early after epoch" in text
    assert "remaining" not in text


def test_an_interrupt_while_swa_is_completed_leaves_the_average_as_it_was() -> None:
    settings = ["epochs=4", "data.train=64", "average=swa", "swa_start=0", "execute=eager"]
    recipe = read_recipe("digits", settings)
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    executor = prepare(model, pictures, split, recipe, state).executor
    training = fit(model, pictures, split, recipe, state=state, executor=executor)
    next(training)
    average = state.average
    assert average is not None
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    calls: list[Tensor] = []

    def interrupted(index_N: Tensor) -> Any:
        calls.append(index_N)
        if len(calls) == 2:  # the averaged weights
            raise KeyboardInterrupt
        return type(executor).score(executor, index_N)

    executor.score = interrupted
    with pytest.raises(KeyboardInterrupt):
        next(training)
    assert average.count == 1
    assert all(torch.equal(before[name], now) for name, now in average.tensors.items())
