"""Balancing classes in training: scikit-learn's weights, torch's weighted loss, a literal draw.

Axes: N images, K classes.
"""

import json
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from hydrofoil import (
    Pictures,
    Run,
    Split,
    State,
    build,
    draw_split,
    fit,
    load,
    read_recipe,
    score,
    train,
)
from hydrofoil.evaluate.diagnosis import diagnose
from hydrofoil.evaluate.metrics import ByClass, Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.models.layers import dropouts
from hydrofoil.native.build import compiler
from hydrofoil.native.unsupported import Unsupported
from hydrofoil.report import text
from hydrofoil.train.balance import balanced_order, class_weights
from hydrofoil.train.executors import expected, prepare
from hydrofoil.train.feed import make_feed
from tests.conftest import Cli
from tests.native_cases import in_float64
from tests.resume_steps import command, fingerprint, kept_at_each_step, resumed

LABELS = st.lists(st.sampled_from([0, 1, 1, 1, 3, 4, 4]), min_size=1, max_size=60)
FOURTHS = {"data.valid": 0.25, "data.test": 0.25}
BALANCES = ("loss", "sampling")


def executors() -> list[str]:
    try:
        compiler()
    except Unsupported:
        return ["eager"]
    return ["eager", "native"]


def few_of_some_classes() -> tuple[Pictures, Split]:
    """Return digits with a tenth of the images of every odd class in training."""
    pictures = load("digits")
    split = draw_split(pictures, valid=0.2, test=0.2)
    labels_N = pictures.labels_N[split.train]
    rank_N = torch.arange(len(labels_N))
    saved = split.train[(labels_N % 2 == 0) | (rank_N % 10 == 0)]
    return pictures, replace(split, train=saved)


# ── weights ──────────────────────────────────────────────────────────────────────────────────────


@given(labels=LABELS)
def test_class_weights_are_scikit_learns_and_0_for_a_class_without_images(
    labels: list[int],
) -> None:
    weights_K = class_weights(torch.tensor(labels), classes=6)
    present = np.unique(labels)
    theirs = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(weights_K[present], theirs, rtol=1e-6)
    assert weights_K.dtype == torch.float32
    assert [weights_K[k] == 0 for k in range(6)] == [k not in labels for k in range(6)]


def test_a_balanced_step_is_one_of_torchs_weighted_loss() -> None:
    """The literal step, in float64, with label smoothing; what is reported is not weighted."""
    pictures, split = few_of_some_classes()
    overrides = ["train.balance=loss", "train.label_smoothing=0.1", "model.dropout=0"]
    for execute in executors():
        recipe = read_recipe("digits", [*overrides, f"train.execute={execute}"])
        model = build(recipe, pictures.shape, pictures.classes)
        literal = in_float64(model)
        state = State.fresh(model, recipe)
        executor = prepare(model, pictures, split, recipe, state).executor
        assert executor.name == execute
        layers = len(dropouts(model.network))
        feed = make_feed(recipe, split.train, pictures.labels_N, 1, layers)
        executor.train_steps(feed, 0, 1, state.sums)

        batch_N = feed.batch(0)
        labels_N = pictures.labels_N[batch_N]
        trained = pictures.labels_N[split.train].numpy()
        weights = compute_class_weight("balanced", classes=np.arange(10), y=trained)
        logits_NK = literal.train()(pictures.pictures_NCHW[batch_N])
        loss = cross_entropy(logits_NK, labels_N, torch.tensor(weights), label_smoothing=0.1)
        optimizer = State.fresh(literal, recipe).optimizer
        optimizer.param_groups[0]["lr"] = feed.rate(0)
        loss.backward()
        optimizer.step()
        for name, ours in model.network.state_dict().items():
            theirs = literal.network.state_dict()[name]
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6, msg=name)
        plain = cross_entropy(logits_NK, labels_N, label_smoothing=0.1).item()
        assert state.sums.read().loss == pytest.approx(plain, rel=1e-5)
        assert plain != pytest.approx(loss.item(), rel=1e-3)


def test_the_program_of_a_recipe_has_class_weights_only_where_the_recipe_wants_them() -> None:
    cpu = torch.device("cpu")
    _, plain = expected(read_recipe("digits"), cpu)
    _, weighted = expected(read_recipe("digits", ["train.balance=loss"]), cpu)
    _, sampled = expected(read_recipe("digits", ["train.balance=sampling"]), cpu)
    assert "batch_weight" in weighted
    assert "batch_weight" not in plain
    assert sampled == plain


# ── the draw ─────────────────────────────────────────────────────────────────────────────────────


@given(labels=LABELS, seed=st.integers(0, 3), epochs=st.integers(1, 4))
def test_each_class_is_drawn_equally_often_and_so_are_the_images_of_a_class(
    labels: list[int], seed: int, epochs: int
) -> None:
    index_N, labels_N = torch.arange(len(labels)) * 2 + 1, torch.tensor(labels)
    drawn: Counter[int] = Counter()
    for epoch in range(1, epochs + 1):
        order = balanced_order(index_N, labels_N, seed, epoch).tolist()
        assert len(order) == len(labels)
        assert order == balanced_order(index_N, labels_N, seed, epoch).tolist()
        of_classes = Counter(labels[index // 2] for index in order)
        times = [of_classes[label] for label in set(labels)]
        assert max(times) - min(times) <= 1
        drawn.update(order)
        for label in set(labels):
            images = [drawn[2 * place + 1] for place, other in enumerate(labels) if other == label]
            assert max(images) - min(images) <= 1


def test_epochs_and_seeds_draw_different_images_in_different_orders() -> None:
    index_N, labels_N = torch.arange(300), (torch.arange(300) % 10 == 0).long()
    first = balanced_order(index_N, labels_N, 0, 1)
    rest = {"epoch": balanced_order(index_N, labels_N, 0, 2)}
    rest["seed"] = balanced_order(index_N, labels_N, 1, 1)
    for name, other in rest.items():
        assert set(other.tolist()) != set(first.tolist()), name
        assert not torch.equal(other, first), name
    large = first[labels_N[first] == 0].tolist()
    assert len(set(large)) == len(large)


# ── trainings ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("balance", BALANCES)
def test_eager_and_native_train_alike(balance: str) -> None:
    pictures, split = few_of_some_classes()
    losses: list[float] = []
    for execute in executors():
        recipe = read_recipe(
            "digits", ["train.epochs=2", f"train.balance={balance}", f"train.execute={execute}"]
        )
        model = build(recipe, pictures.shape, pictures.classes)
        epochs = list(fit(model, pictures, split, recipe))
        assert {epoch.train.count for epoch in epochs} == {len(split.train)}
        losses += [epochs[-1].train.loss]
    assert losses[0] == pytest.approx(losses[-1], rel=1e-4)


def test_rare_classes_are_recognized_more_often_after_a_balanced_training() -> None:
    pictures, split = few_of_some_classes()
    fixed = ["train.epochs=10", "model.dropout=0", "optimizer.name=adam", "optimizer.lr=0.003"]
    recalls = dict.fromkeys(("none", *BALANCES), 0.0)
    for balance, seed in product(recalls, (1, 2)):
        overrides = [f"train.balance={balance}", f"train.seed={seed}", "train.execute=eager"]
        recipe = read_recipe("digits", [*fixed, *overrides])
        model = build(recipe, pictures.shape, pictures.classes)
        list(fit(model, pictures, split, recipe))
        classes = score(model, pictures, split.valid).per_class(pictures.classes)
        recalls[balance] += sum(classes[k].recall or 0 for k in range(1, 10, 2)) / 10
    assert recalls["loss"] > recalls["none"] + 0.1
    assert recalls["sampling"] > recalls["none"] + 0.1


@pytest.mark.parametrize("execute", executors())
@pytest.mark.parametrize("balance", BALANCES)
def test_a_balanced_run_resumed_from_some_steps_ends_as_one_that_was_not_stopped(
    balance: str, execute: str
) -> None:
    overrides = [
        "train.epochs=2", "train.batch_size=300", "data.valid=0.2", "train.log_every=2",
        f"train.balance={balance}", f"train.execute={execute}",
    ]  # fmt: skip
    status, said = command("train", "digits", *overrides, "--run", "straight")
    assert status == 0, said
    copies = kept_at_each_step("saved", "digits", overrides)
    straight: Any = fingerprint("straight")
    assert fingerprint("saved") == straight
    assert len(copies) >= 6
    for copy in (copies[1], copies[-3]):
        assert resumed(copy) == straight, copy


# ── balanced accuracy ────────────────────────────────────────────────────────────────────────────


def test_a_test_reports_the_balanced_accuracy_of_its_answers_everywhere(cli: Cli) -> None:
    """Two thirds of one class: predicting it always is accurate, and not balanced."""
    labels_N = torch.arange(120) % 6 // 4  # 80 of class 0, 40 of class 1
    pictures = Pictures(torch.zeros(120, 1, 8, 8, dtype=torch.uint8), labels_N, ("many", "few"))
    run = train("digits", pictures=pictures, epochs=1, run="r", overrides=FOURTHS)
    result, answers = run.test(), run.results.answers()["test"]
    oracle = balanced_accuracy_score(answers.labels_N, answers.predicted_N)
    assert result.balanced_accuracy == pytest.approx(oracle) == 0.5
    assert result.accuracy == pytest.approx(2 / 3)
    low, high = result.balanced_interval
    assert 0.3 < low < 0.5 < high < 0.7
    stored = json.loads((run.path / "test.json").read_text("utf-8"))
    assert stored["balanced_accuracy"] == 0.5
    assert stored["balanced_interval"] == [low, high]
    epoch = run.epochs()[-1]
    assert epoch.valid_balanced_accuracy == 0.5
    assert "balanced 50.00%" in repr(result)
    said = text.test_lines(result, full=False)
    assert "balanced accuracy 50.00% (mean recall of 2 classes), 95% interval" in said
    assert text.test_result_line(result).endswith("; balanced 50.00%")
    assert text.epochs_result(epoch).endswith("; balanced 50.00%")
    assert cli("report", "r")[0] == 0
    page = (run.path / "report.html").read_text("utf-8")
    assert 'data-figure="balanced_accuracy"' in page


@pytest.mark.parametrize(("balance", "train_loss", "correct", "kinds"), [
    ("none", 0.15, (800, 45), ["not learning"]),
    ("loss", 0.15, (800, 45), []),
    ("sampling", 0.25, (800, 45), []),  # above the entropy of 95 and 5%, below that of halves
    ("sampling", 0.25, (500, 25), ["not learning"]),
])  # fmt: skip
def test_a_balanced_training_learns_if_its_mean_recall_is_above_chance(
    balance: str, train_loss: float, correct: tuple[int, int], kinds: list[str]
) -> None:
    """Of 1,000 validation images 950 are of one class: 95% would be right by saying it always."""
    valid, predicted = Scores(0.4, sum(correct), 1000), (correct[0] + 50, 1000 - correct[0] - 50)
    epochs = [
        Epoch(
            number=number, train=Scores(loss, 10 * sum(correct), 10_000), valid=valid, best=False,
            train_seconds=1.0, valid_seconds=1.0, learning_rate=0.1,
            valid_by_class=ByClass(correct, predicted),
        )
        for number, loss in enumerate((0.3, *[train_loss] * 5), start=1)
    ]  # fmt: skip
    recipe = read_recipe("digits", [f"train.balance={balance}", "train.epochs=6"])
    found = diagnose(epochs, recipe, {"train": (9500, 500), "valid": (950, 50)}, ("many", "few"))
    serious = ("not learning", "learning rate too high")
    assert [one.kind for one in found if one.kind in serious] == kinds


def test_a_comparison_says_both_accuracies_where_they_differ(cli: Cli) -> None:
    options = ("train=150", "epochs=2", "--seeds", "2")
    status, said, errors = cli("compare", "digits", "b.balance=loss", *options, "--json")
    assert status == 0, errors
    compared = json.loads(said)
    for side in (compared["a"], compared["b"]):
        for path, balanced in zip(side["runs"], side["balanced_accuracies"], strict=True):
            result = Run.open(path).results.test()
            assert result
            assert result.balanced_accuracy == balanced
