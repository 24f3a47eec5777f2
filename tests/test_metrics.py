import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from hydrofoil import build, load, measure, read_recipe, score
from hydrofoil.evaluate.metrics import ClassScores, Metrics, Sums, mean_share, wilson
from hydrofoil.evaluate.score import BATCH, answer

CPU = torch.device("cpu")


def names(classes: int) -> list[str]:
    return [f"class {k}" for k in range(classes)]


def check_against_oracles(logits: torch.Tensor, labels: torch.Tensor) -> None:
    classes = logits.shape[1]
    ours = measure(logits, labels)
    truth, answers = labels.numpy(), logits.argmax(1).numpy()
    every = list(range(classes))
    np.testing.assert_array_equal(ours.confusion, confusion_matrix(truth, answers, labels=every))
    assert ours.accuracy == accuracy_score(truth, answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "y_pred contains classes not in y_true"
        balanced = balanced_accuracy_score(truth, answers)
    assert ours.balanced_accuracy == pytest.approx(balanced)
    assert ours.balanced_interval[0] <= ours.balanced_accuracy <= ours.balanced_interval[1]
    probabilities = logits.double().softmax(1).numpy()
    assert ours.loss == pytest.approx(log_loss(truth, probabilities, labels=every), rel=1e-9)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answers, labels=every, zero_division=np.nan
    )
    for k, one in enumerate(ours.per_class(names(classes))):
        assert one.count == support[k]
        for value, theirs in ((one.precision, precision[k]), (one.recall, recall[k])):
            assert value is None if math.isnan(theirs) else value == pytest.approx(theirs)
        if one.count or one.predicted:
            assert one.f1 == pytest.approx(0.0 if math.isnan(f1[k]) else f1[k])
    for average, ours_average in vars(ours.averages()).items():
        theirs_average = precision_recall_fscore_support(
            truth, answers, average=average, zero_division=0.0
        )
        assert list(vars(ours_average).values()) == pytest.approx(theirs_average[:3])
    if classes > 10:
        theirs_of_5 = top_k_accuracy_score(truth, probabilities, k=5, labels=every, normalize=False)
        assert ours.correct_in_top_5 == theirs_of_5
    else:
        assert ours.correct_in_top_5 is None
    theirs = multiclass_confusion_matrix(logits.argmax(1), labels, num_classes=classes)
    assert theirs.tolist() == [list(row) for row in ours.confusion]
    micro = multiclass_accuracy(logits.argmax(1), labels, num_classes=classes, average="micro")
    assert ours.accuracy == pytest.approx(float(micro))


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 80), classes=st.integers(2, 14))
def test_metrics_are_scikit_learns_and_torchmetrics(seed: int, count: int, classes: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=rng)
    check_against_oracles(logits, torch.randint(classes, (count,), generator=rng))


def test_a_class_that_is_absent_has_no_recall() -> None:
    logits = torch.eye(3)[torch.tensor([0, 0, 1])] * 5
    labels = torch.tensor([0, 1, 1])
    check_against_oracles(logits, labels)
    absent = measure(logits, labels).per_class(names(3))[2]
    assert (absent.count, absent.recall, absent.precision, absent.f1) == (0, None, None, None)


@pytest.mark.parametrize("right", [True, False])
def test_one_picture(right: bool) -> None:
    logits = torch.tensor([[0.0, 3.0]])
    check_against_oracles(logits, torch.tensor([int(right)]))
    low, high = measure(logits, torch.tensor([int(right)])).interval
    assert 0 <= low < high <= 1
    assert high - low > 0.7  # one picture proves next to nothing


def test_all_wrong() -> None:
    logits = torch.eye(4)[torch.tensor([1, 2, 3, 0])] * 9
    check_against_oracles(logits, torch.tensor([0, 1, 2, 3]))
    ours = measure(logits, torch.tensor([0, 1, 2, 3]))
    assert (ours.correct, ours.accuracy) == (0, 0.0)
    assert ours.interval[0] == 0
    assert ours.interval[1] > 0.3


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="one at least"):
        measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@given(part=st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_balanced_accuracy_of_one_class_has_wilsons_interval(part: tuple[int, int]) -> None:
    mean, bounds = mean_share([part, (0, 0)])
    assert mean == part[0] / part[1]
    assert bounds == pytest.approx(wilson(*part))


@pytest.mark.parametrize(
    ("counts", "shares"),
    [((400, 30, 8), (0.97, 0.7, 0.5)), ((20,) * 3, (0.9,) * 3), ((100,) * 10, (0.98,) * 10)],
)
def test_the_interval_of_balanced_accuracy_covers_about_95_in_100(
    counts: tuple[int, ...], shares: tuple[float, ...]
) -> None:
    draw, truth, times = np.random.default_rng(5), sum(shares) / len(shares), 3000
    covered = 0
    for _ in range(times):
        correct = [int(draw.binomial(n, p)) for n, p in zip(counts, shares, strict=True)]
        low, high = mean_share(zip(correct, counts, strict=True))[1]
        covered += low <= truth <= high
    assert 0.93 < covered / times < 0.97


@given(count=st.integers(1, 20_000), share=st.floats(0, 1))
def test_wilsons_interval_solves_its_equation(count: int, share: float) -> None:
    right = round(share * count)
    low, high = wilson(right, count)
    assert 0 <= low <= right / count <= high <= 1
    for bound in (low, high):  # |observed - p| = z · sqrt(p(1-p)/n) is what defines it
        if 0 < bound < 1:
            spread = 1.959964 * math.sqrt(bound * (1 - bound) / count)
            assert abs(right / count - bound) == pytest.approx(spread, rel=1e-4, abs=1e-9)


def test_running_sums_weight_a_smaller_batch_by_its_size() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 3, generator=rng)
    labels = torch.randint(3, (10,), generator=rng)
    sums = Sums(CPU)
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        loss = torch.nn.functional.cross_entropy(logits[part], labels[part])
        sums.add(loss, logits[part], labels[part])
    whole = measure(logits, labels)
    assert sums.read().loss == pytest.approx(whole.loss, rel=1e-6)
    assert (sums.read().correct, sums.read().count) == (whole.correct, 10)


@pytest.mark.parametrize("batch", [1, 7, 97, 100, 1000])
def test_scores_do_not_depend_on_how_the_split_is_cut(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = load("cifar10")
    model = build(read_recipe("cifar10-cnn3"), pictures.shape, pictures.classes)
    index_N = torch.arange(100)
    whole = score(model, pictures, index_N)
    monkeypatch.setattr("hydrofoil.evaluate.score.BATCH", batch)
    cut = score(model, pictures, index_N)
    assert cut.confusion == whole.confusion
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert BATCH >= 100


def test_scoring_turns_dropout_off_and_leaves_the_mode_as_it_was() -> None:
    pictures = load("mnist")
    model = build(read_recipe("mnist-mlp"), pictures.shape, pictures.classes).train()
    index_N = torch.arange(50)
    assert score(model, pictures, index_N).loss == score(model, pictures, index_N).loss
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    score(model, pictures, index_N)
    assert not model.training


def test_the_pictures_to_look_at_are_ranked_by_loss_and_by_how_sure_the_answer_was() -> None:
    pictures = load("digits")
    model = build(read_recipe("digits"), pictures.shape, pictures.classes)
    answers = answer(model, pictures, torch.arange(300))
    losses = torch.nn.functional.cross_entropy(
        answers.logits_NK.double(), answers.labels_N, reduction="none"
    )
    sure = answers.logits_NK.double().softmax(1).amax(1)
    right = answers.predicted_N == answers.labels_N
    for positions, values, among, falling in (
        (answers.highest_loss(20), losses, right | ~right, True),
        (answers.most_confident_mistakes(20), sure, ~right, True),
        (answers.least_confident_correct(20), sure, right, False),
    ):
        assert bool(among[positions].all())
        assert values[positions].tolist() == sorted(values[among].tolist(), reverse=falling)[:20]
    assert len(answers.most_confident_mistakes(10_000)) == int((~right).sum())


def test_the_interval_of_f1_holds_it_and_covers_as_often_as_it_says() -> None:
    # 4000 draws of 200 pictures of a class and 200 others: 80 % recall, 10 % taken for it wrongly.
    rng = np.random.default_rng(0)
    true = 2 * 160 / (200 + 160 + 20)
    hits = rng.binomial(200, 0.8, 4000), rng.binomial(200, 0.1, 4000)
    covered = 0
    for right, wrong in zip(*(draw.tolist() for draw in hits), strict=True):
        one = ClassScores("cat", 200, right, right + wrong)
        low, high = one.f1_interval
        assert one.f1 is not None
        assert 0 <= low <= one.f1 <= high <= 1
        covered += low <= true <= high
    assert covered / 4000 > 0.93


def test_pairs_are_ranked_by_how_often_they_are_taken_for_each_other() -> None:
    confusion = ((9, 1, 4), (3, 9, 0), (1, 0, 9))
    metrics = Metrics(loss=1.0, correct=27, count=36, confusion=confusion)
    assert metrics.confused() == [(0, 2), (0, 1)]
    assert metrics.mixed_up(0, 2) == 5
