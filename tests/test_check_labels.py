"""Doubtful labels: confident learning against literal loops, folds, and findings on digits.

Axes: N images, K classes, G groups.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hydrofoil.check import labels as learning
from hydrofoil.check.doubtful import doubt, doubtful_labels
from hydrofoil.check.folds import (
    OutOfFold,
    Plan,
    Trial,
    draw_folds,
    out_of_fold,
    plan_for,
    quick_trial,
    reason_not_to_train,
)
from hydrofoil.check.overlap import overlaps
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.source import load

PLAN = Plan(folds=2, epochs=12, batch_size=32, widths=(16, 32), shift=0, lr=0.05)


def made(seed: int, N: int = 400, K: int = 5, noise: float = 0.1, sharp: float = 4.0):
    """Return probabilities, noisy labels and true ones; sharper models are more often right."""
    rng = np.random.default_rng(seed)
    true_N = rng.integers(K, size=N)
    logits_NK = rng.normal(size=(N, K)) + sharp * np.eye(K)[true_N]
    labels_N = np.where(rng.random(N) < noise, (true_N + rng.integers(1, K, size=N)) % K, true_N)
    probabilities_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    return probabilities_NK, labels_N, true_N


# ── confident learning ───────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=30)
def test_the_confident_joint_is_that_of_a_literal_loop(seed: int, K: int) -> None:
    probabilities_NK, labels_N, _ = made(seed, 60, K, sharp=1.0)
    mean = [
        np.mean([p[k] for p, y in zip(probabilities_NK, labels_N, strict=True) if y == k] or [9.0])
        for k in range(K)
    ]
    counts = np.zeros((K, K))
    flagged: list[bool] = []
    for p, y in zip(probabilities_NK, labels_N, strict=True):
        reached = [k for k in range(K) if p[k] >= mean[k] - 1e-6]
        best = max(reached, key=lambda k: p[k]) if reached else None
        flagged.append(best is not None and best != y)
        if best is not None:
            counts[y, best] += 1
    counts[np.diag_indices(K)] = counts.diagonal().clip(min=1)
    joint_KK = learning.confident_joint(probabilities_NK, labels_N, calibrated=False)
    assert np.array_equal(joint_KK, counts)
    assert learning.by_confident_joint(probabilities_NK, labels_N).tolist() == flagged
    calibrated_KK = learning.confident_joint(probabilities_NK, labels_N)
    assert np.allclose(calibrated_KK.sum(1), np.bincount(labels_N, minlength=K))
    assert np.allclose(calibrated_KK / calibrated_KK.sum(1, keepdims=True).clip(min=1e-9),
                       (np.bincount(labels_N, minlength=K) > 0)[:, None]
                       * counts / counts.sum(1, keepdims=True))  # fmt: skip


def test_pruning_by_class_and_by_noise_rate_takes_as_many_as_the_joint_has() -> None:
    probabilities_NK, labels_N, _ = made(1, 2000)
    joint_KK = learning.confident_joint(probabilities_NK, labels_N)
    argmax_N = probabilities_NK.argmax(1)
    by_class, by_rate = set[int](), set[int]()
    for k in range(5):
        own = [i for i in range(2000) if labels_N[i] == k]
        errors = len(own) - round(joint_KK[k, k])
        by_class |= set(sorted(own, key=lambda i: probabilities_NK[i, k])[:errors])
        for j in set(range(5)) - {k}:
            margin = sorted(own, key=lambda i: probabilities_NK[i, k] - probabilities_NK[i, j])
            by_rate |= set(margin[: round(joint_KK[k, j])])
    other = {i for i in range(2000) if argmax_N[i] != labels_N[i]}
    for method, expected in (
        ("class", by_class & other),
        ("noise rate", by_rate & other),
        ("both", by_class & by_rate & other),
        ("argmax", other),
    ):
        flagged_N = learning.METHODS[method](probabilities_NK, labels_N)
        assert set(np.flatnonzero(flagged_N).tolist()) == expected, method


def test_a_class_of_a_few_images_is_never_pruned() -> None:
    probabilities_NK, labels_N, _ = made(2, 300)
    labels_N[labels_N == 4] = 0
    labels_N[:5] = 4
    probabilities_NK[:5] = [0.97, 0.01, 0.01, 0.005, 0.005]
    for method in ("class", "noise rate", "both"):
        assert not learning.METHODS[method](probabilities_NK, labels_N)[:5].any()
    assert not doubt(probabilities_NK, labels_N).likely_N[:5].any()


def test_margins_and_confidence_are_of_the_given_label() -> None:
    probabilities_NK, labels_N, _ = made(3, 50)
    for p, y, confidence, margin in zip(
        probabilities_NK,
        labels_N,
        learning.self_confidence(probabilities_NK, labels_N),
        learning.normalized_margin(probabilities_NK, labels_N),
        strict=True,
    ):
        assert confidence == p[y]
        assert margin == p[y] - max(np.delete(p, y))


# ── how many labels are wrong ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("sharp", [3.0, 5.0])  # models of 86% and 99%
def test_the_estimated_noise_rate_is_near_the_planted_one(noise: float, sharp: float) -> None:
    probabilities_NK, labels_N, true_N = made(4, 20_000, noise=noise, sharp=sharp)
    found = doubt(probabilities_NK, labels_N)
    wrong_N = labels_N != true_N
    assert abs(found.rate - wrong_N.mean()) < 0.2 * noise + 0.004
    if sharp == 5.0:
        assert wrong_N[found.likely_N].mean() > 0.9
        assert found.likely_N[wrong_N].mean() > 0.9


def test_correct_labels_are_not_called_wrong_by_models_that_make_mistakes() -> None:
    probabilities_NK, labels_N, _ = made(5, 20_000, noise=0.0, sharp=2.5)
    assert (probabilities_NK.argmax(1) != labels_N).mean() > 0.1  # the models' own mistakes
    assert doubt(probabilities_NK, labels_N).likely_N.mean() < 0.01


def test_doubted_images_are_ranked_by_what_the_models_think_of_their_label() -> None:
    found = doubt(*made(6, 3000)[:2])
    likely = [image for image in found.ranked.tolist() if found.likely_N[image]]
    assert found.ranked.tolist()[: len(likely)] == likely
    assert np.all(np.diff(found.confidence_N[likely]) >= 0)


# ── folds ────────────────────────────────────────────────────────────────────────────────────────


def little(labels: Tensor, groups_N: Tensor | None = None, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), 1, 4, 4)
    pictures_NCHW = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    classes = [str(k) for k in range(int(labels.max()) + 1)]
    return Pictures(pictures_NCHW, labels, classes, groups_N=groups_N)


@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_folds_are_stratified_to_within_one_image(labels: list[int], folds: int, seed: int) -> None:
    labels_N = torch.tensor(labels)
    pictures = little(labels_N, seed=seed)
    fold_N = draw_folds(pictures, folds, seed)
    assert np.array_equal(fold_N, draw_folds(pictures, folds, seed))
    for label in range(4):
        counts = np.bincount(fold_N[labels_N.numpy() == label], minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert set(fold_N) <= set(range(folds))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 9)),
                min_size=10, max_size=50))  # fmt: skip
@settings(max_examples=40)
def test_groups_and_exact_copies_lie_in_one_fold(rows: list[tuple[int, int, int]]) -> None:
    labels_N, own_N, given_N = (torch.tensor(column) for column in zip(*rows, strict=True))
    pictures = little(labels_N, groups_N=own_N)
    copied = pictures.pictures_NCHW.clone()
    copied[1] = copied[0]  # with whatever label
    pictures = pictures.with_images(copied)
    fold_N = draw_folds(pictures, 3, 0, given_N)
    assert fold_N[0] == fold_N[1]
    for group_N in (own_N, given_N):
        for group in group_N.unique():
            assert len(set(fold_N[(group_N == group).numpy()])) == 1


# ── on digits ────────────────────────────────────────────────────────────────────────────────────


def part_of_digits(count: int = 600) -> Pictures:
    digits = load("digits")
    return Pictures(digits.pictures_NCHW[:count], digits.labels_N[:count], digits.classes)


@pytest.fixture(scope="module")
def exchanged() -> tuple[Pictures, Tensor, OutOfFold]:
    """Digits with 5% of the labels exchanged, which ones, and what the folds' models think."""
    digits, generator = part_of_digits(900), torch.Generator().manual_seed(0)
    wrong = torch.randperm(len(digits), generator=generator)[: len(digits) // 20]
    labels_N = digits.labels_N.clone()
    labels_N[wrong] = (
        labels_N[wrong] + torch.randint(1, 10, wrong.shape, generator=generator)
    ) % 10
    pictures = Pictures(digits.pictures_NCHW, labels_N, digits.classes)
    return pictures, labels_N != digits.labels_N, out_of_fold(pictures, plan=PLAN)


def test_exchanged_labels_of_digits_are_found_and_serious(
    exchanged: tuple[Pictures, Tensor, OutOfFold],
) -> None:
    pictures, wrong_N, found = exchanged
    finding = doubtful_labels(pictures, found.probabilities_NK)[0]
    assert (finding.kind, finding.level) == ("labels", "serious")
    likely = [row for row in finding.rows if row.text == "likely error"]
    images = [row.images[0] for row in likely]
    assert wrong_N[images].double().mean() > 0.8
    assert len(images) > 0.8 * int(wrong_N.sum())
    assert finding.figures["likely_errors"] == len(likely)
    digits = load("digits")
    for row in likely:
        (image,), (change,), (caption,) = row.images, row.changes, row.captions
        assert change.image == image
        assert caption.startswith(f"looks like {change.value} (")
    guessed = [change.value for row in likely for change in row.changes]
    true = [str(int(digits.labels_N[image])) for image in images]
    agree = [a == b for a, b in zip(guessed, true, strict=True)]
    assert np.mean(agree) > 0.8
    pairs = finding.figures["noise_by_pair"]
    assert 0 < sum(pair["likely_errors"] for pair in pairs) <= len(likely)
    assert pairs[0]["likely_errors"] == max(pair["likely_errors"] for pair in pairs)
    assert json.loads(json.dumps(finding.as_dict()))["figures"]["majority_rate"] < 0.2


def test_the_same_seed_gives_the_same_probabilities_and_another_seed_others(
    exchanged: tuple[Pictures, Tensor, OutOfFold],
) -> None:
    pictures, _, found = exchanged
    plan = replace(found.plan, epochs=1)
    seen: list[float] = []

    def watch(done: float, total: float) -> None:
        seen.append(done / total)

    first = out_of_fold(pictures, plan=plan, watch=watch)
    second = out_of_fold(pictures, plan=plan)
    other = out_of_fold(pictures, plan=plan, seed=1)
    assert np.array_equal(first.probabilities_NK, second.probabilities_NK)
    assert not np.array_equal(first.probabilities_NK, other.probabilities_NK)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert np.allclose(first.probabilities_NK.sum(1), 1)


def test_clean_digits_have_no_serious_finding_and_no_overlap() -> None:
    digits = part_of_digits()
    findings = doubtful_labels(digits, out_of_fold(digits, plan=PLAN).probabilities_NK)
    assert [finding.level for finding in findings if finding.level == "serious"] == []
    assert len(findings) == 1
    assert findings[0].figures["likely_errors"] <= 3


def test_labels_that_no_model_can_learn_are_not_judged() -> None:
    digits = part_of_digits(200)
    labels_N = torch.randint(0, 10, (200,), generator=torch.Generator().manual_seed(0))
    random = Pictures(digits.pictures_NCHW, labels_N, digits.classes)
    found = out_of_fold(random, plan=replace(PLAN, epochs=3))
    (finding,) = doubtful_labels(random, found.probabilities_NK)
    assert finding.level == "note"
    assert finding.title.startswith("The labels cannot be judged")
    assert not finding.rows


def test_mirrored_digits_are_other_signs_and_mirrored_brightness_is_the_same() -> None:
    digits = part_of_digits(400)
    trial = quick_trial(digits, 0, torch.device("cpu"))
    assert not trial.mirroring_keeps_class
    assert trial.accuracy > 0.8 > trial.mirrored
    assert not plan_for(digits, trial).mirror
    bright_N = torch.arange(200) % 2
    noise = torch.randint(0, 100, (200, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    pictures_NCHW = (noise + 120 * bright_N.view(-1, 1, 1, 1)).to(torch.uint8)
    brightness = Pictures(pictures_NCHW, bright_N, ["dark", "bright"])
    trial = quick_trial(brightness, 0, torch.device("cpu"))
    assert plan_for(brightness, trial).mirror


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (4, 9, 3), (1, 70, 64), (3, 33, 17)])
def test_images_of_any_size_can_be_judged(shape: tuple[int, int, int]) -> None:
    pictures_NCHW = torch.randint(0, 256, (33, *shape), dtype=torch.uint8)
    pictures = Pictures(pictures_NCHW, torch.arange(33) % 3, ["a", "b", "c"])
    plan = replace(plan_for(pictures, Trial(0.3, 0.3)), folds=2, epochs=1, widths=(4, 4, 4))
    found = out_of_fold(pictures, plan=plan)
    assert found.probabilities_NK.shape == (33, 3)
    assert np.isfinite(found.probabilities_NK).all()


# ── overlapping classes ──────────────────────────────────────────────────────────────────────────


def test_classes_that_look_alike_overlap_and_exchanged_labels_do_not() -> None:
    alike_NK, labels_N, true_N = made(7, 4000, noise=0.0, sharp=6.0)
    pair_N = np.flatnonzero(true_N < 2)
    rng = np.random.default_rng(0)
    share = rng.uniform(0.3, 0.7, len(pair_N))
    alike_NK[pair_N, 0], alike_NK[pair_N, 1] = 0.98 * share, 0.98 * (1 - share)
    alike_NK[pair_N, 2:] = 0.02 / 3
    labels_N[pair_N] = (rng.random(len(pair_N)) > share).astype(int)
    (pair,) = overlaps(alike_NK, labels_N)
    assert (pair.a, pair.b) == (0, 1)
    assert 0.3 < pair.error < 0.5
    sure_NK, exchanged_N, _ = made(8, 4000, noise=0.0, sharp=9.0)
    exchanged_N[exchanged_N < 2] ^= rng.random(int((exchanged_N < 2).sum())) < 0.35
    assert overlaps(sure_NK, exchanged_N) == []


def test_overlapping_classes_are_shown_side_by_side() -> None:
    probabilities_NK = np.full((160, 3), 0.0)
    probabilities_NK[:, 0], probabilities_NK[:, 1] = 0.55, 0.45
    probabilities_NK[80:] = [0.0, 0.0, 1.0]
    labels_N = torch.tensor([0, 1] * 40 + [2] * 80)
    pictures = Pictures(torch.zeros(160, 1, 4, 4, dtype=torch.uint8), labels_N, ["cat", "dog", "x"])
    finding = doubtful_labels(pictures, probabilities_NK)[1]
    assert finding.title == "1 pair of classes overlaps: cat and dog"
    assert finding.level == "warning"
    assert finding.rows[0].text == "cat or dog?"
    for row in finding.rows:
        assert [int(labels_N[image]) for image in row.images] == [0, 1]


def test_confident_mistakes_of_weak_models_are_no_serious_finding() -> None:
    rng = np.random.default_rng(9)
    true_N = rng.integers(10, size=1000)
    logits_NK = 3 * rng.normal(size=(1000, 10)) + 4.0 * np.eye(10)[true_N]
    probabilities_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    assert 0.3 < (probabilities_NK.argmax(1) == true_N).mean() < 0.6
    pictures = Pictures(
        torch.zeros(1000, 1, 2, 2, dtype=torch.uint8), torch.from_numpy(true_N), list("0123456789")
    )
    finding = doubtful_labels(pictures, probabilities_NK)[0]
    assert finding.level == "note"
    assert finding.figures["likely_errors"] == 0
    assert not any(row.changes for row in finding.rows)


def test_labels_of_which_half_are_wrong_are_serious_although_the_models_disagree_with_them() -> (
    None
):
    probabilities_NK, labels_N, true_N = made(10, 2000, K=10, noise=0.5, sharp=7.0)
    pictures = Pictures(
        torch.zeros(2000, 1, 2, 2, dtype=torch.uint8),
        torch.from_numpy(labels_N),
        list("0123456789"),
    )
    finding = doubtful_labels(pictures, probabilities_NK)[0]
    assert finding.level == "serious"
    likely = [row.images[0] for row in finding.rows if row.changes]
    assert (labels_N != true_N)[likely].mean() > 0.95


def test_a_set_without_two_classes_of_some_images_is_not_trained_on() -> None:
    assert not reason_not_to_train(little(torch.tensor([0] * 6 + [1] * 6)))
    assert reason_not_to_train(little(torch.tensor([0] * 600 + [1] * 5)))
    assert reason_not_to_train(little(torch.zeros(600, dtype=torch.int64)))


def test_a_class_that_is_one_group_is_not_judged(
    exchanged: tuple[Pictures, Tensor, OutOfFold],
) -> None:
    pictures = exchanged[0]
    groups_N = torch.arange(len(pictures))
    groups_N[pictures.labels_N == 0] = 0  # all zeros were written by one person
    plan = replace(PLAN, epochs=6)
    found = out_of_fold(pictures, groups_N=groups_N, plan=plan)
    zeros_N = (pictures.labels_N == 0).numpy()
    assert np.array_equal(np.isnan(found.probabilities_NK).all(1), zeros_N)
    assert np.isfinite(found.probabilities_NK[~zeros_N]).all()
    finding = doubtful_labels(pictures, found.probabilities_NK)[0]
    assert finding.figures["not_judged"] == zeros_N.sum()
    assert any("cannot be judged" in line for line in finding.text)
    for row in finding.rows:
        assert int(pictures.labels_N[row.images[0]]) != 0
    nothing = out_of_fold(pictures, groups_N=torch.zeros(len(pictures)), plan=plan)
    (note,) = doubtful_labels(pictures, nothing.probabilities_NK)
    assert note.level == "note"
    assert note.title.startswith("No label can be judged")


def test_two_rounds_give_the_mean_of_two_draws_of_folds(
    exchanged: tuple[Pictures, Tensor, OutOfFold],
) -> None:
    pictures, _, found = exchanged
    plan = replace(found.plan, epochs=1)
    once, twice = (out_of_fold(pictures, plan=replace(plan, rounds=rounds)) for rounds in (1, 2))
    second_NK = 2 * twice.probabilities_NK - once.probabilities_NK  # the first round is the same
    assert np.allclose(second_NK.sum(1), 1)
    assert second_NK.min() > -1e-9
    assert not np.allclose(second_NK, once.probabilities_NK, atol=0.01)


def test_plans_follow_the_number_of_images_and_the_quick_training() -> None:
    few, many = little(torch.arange(400) % 4), little(torch.arange(30_000) % 4)
    easy, hard = Trial(0.95, 0.4), Trial(0.5, 0.5)
    assert plan_for(few, easy).folds == plan_for(few, hard).folds == 3
    assert (plan_for(many, hard).folds, plan_for(many, hard).rounds) == (2, 1)
    assert (plan_for(many, easy).folds, plan_for(many, easy).rounds) == (3, 2)
    assert plan_for(many, hard).mirror
    assert not plan_for(many, easy).mirror
    for pictures in (few, many):
        for trial in (easy, hard):
            plan = plan_for(pictures, trial)
            seen = len(pictures) * (plan.folds - 1) * plan.epochs * plan.rounds
            assert seen <= 1_500_000
