"""Calibration is held to torchmetrics and to SciPy's own search for the temperature."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from hydrofoil.evaluate.calibration import (
    BINS,
    calibration_error,
    equal_mass,
    equal_width,
    fit_temperature,
    reliability,
)


def answers(seed: int, count: int, classes: int, heat: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and labels drawn from them at a temperature."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=rng) * 3
    return logits, (logits / heat).softmax(1).multinomial(1, generator=rng)[:, 0]


cases = given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 400),
    classes=st.integers(2, 12),
    heat=st.floats(0.3, 4),
)


@settings(max_examples=40)
@cases
def test_the_error_over_equal_widths_is_torchmetrics(
    seed: int, count: int, classes: int, heat: float
) -> None:
    logits, labels = answers(seed, count, classes, heat)
    theirs = multiclass_calibration_error(
        logits.double().softmax(1), labels, num_classes=classes, n_bins=BINS, norm="l1"
    )
    assert reliability(logits, labels).equal_width.error == pytest.approx(float(theirs), abs=1e-6)


@settings(max_examples=40)
@cases
def test_bins_hold_every_answer_once(seed: int, count: int, classes: int, heat: float) -> None:
    logits, labels = answers(seed, count, classes, heat)
    confidences, predicted = logits.double().softmax(1).max(1)
    right = predicted == labels
    for bins in (equal_width(confidences, right), equal_mass(confidences, right)):
        assert sum(one.count for one in bins) == count
        assert sum(one.correct for one in bins) == int(right.sum())
        total = sum(one.count * (one.confidence or 0) for one in bins)
        assert total == pytest.approx(float(confidences.sum()))
        assert all(one.low - 1e-12 <= one.confidence <= one.high + 1e-12 for one in bins
                   if one.confidence is not None)  # fmt: skip
        assert abs(float(right.double().mean() - confidences.mean())) <= (
            calibration_error(bins) + 1e-9
        )
    masses = [one.count for one in equal_mass(confidences, right)]
    assert max(masses) - min(masses) <= 1
    # NumPy's own way to cut a sorted list into as many parts.
    parts = np.array_split(np.sort(confidences.numpy()), BINS)
    assert masses == [len(part) for part in parts if len(part)]


@settings(max_examples=40)
@cases
def test_the_temperature_is_where_scipy_finds_the_lowest_loss(
    seed: int, count: int, classes: int, heat: float
) -> None:
    logits, labels = answers(seed, count, classes, heat)

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits.double() / np.exp(log_temperature), labels))

    theirs = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded")
    ours = fit_temperature(logits, labels)
    assert 0.01 <= ours <= 100
    assert loss(np.log(ours)) <= theirs.fun + 1e-9


def test_the_temperature_that_labels_were_drawn_at_is_found_again() -> None:
    for heat in (0.5, 1.0, 2.5):
        logits, labels = answers(1, 20_000, 10, heat)
        assert fit_temperature(logits, labels) == pytest.approx(heat, rel=0.05)


def test_a_temperature_is_given_where_there_is_none_to_find() -> None:
    one_hot = torch.eye(3) * 4
    assert fit_temperature(one_hot, torch.arange(3)) < 0.2  # all right: never too sure
    assert fit_temperature(one_hot, torch.tensor([1, 2, 0])) == pytest.approx(100)  # all wrong
    assert fit_temperature(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])) == 1
    assert fit_temperature(torch.tensor([[1e6, -1e6]]), torch.tensor([1])) == pytest.approx(100)


def test_a_model_whose_probabilities_are_true_has_the_error_that_chance_makes() -> None:
    measured: dict[str, list[float]] = {"equal_width": [], "equal_mass": []}
    expected: dict[str, list[float]] = {"equal_width": [], "equal_mass": []}
    for seed in range(60):
        logits, labels = answers(seed, 500, 10, heat=1.0)
        found = reliability(logits, labels)
        for kind in measured:
            measured[kind].append(getattr(found, kind).error)
            expected[kind].append(getattr(found, kind).expected_error)
    for kind in measured:
        assert np.mean(measured[kind]) == pytest.approx(np.mean(expected[kind]), rel=0.1)
