"""Whether the probabilities can be believed: reliability, its error, and the temperature.

Axes: N pictures, K classes.
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Annotated

import torch
from pydantic import Field, computed_field
from torch import Tensor

from hydrofoil.evaluate.metrics import probabilities, wide, wilson

BINS = 15  # as Guo et al. 2017 (arXiv:1706.04599), and most papers since
COLDEST, HOTTEST = 0.01, 100.0  # beyond these, all predictions are certain, or all are noise


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence.

    Args:
        low: The bin's lower end: of its range, or its lowest confidence.
        high: Its upper end.
        count: Predictions in it.
        correct: Those that are correct.
        confidence: Their mean probability; None where the bin is empty.
        variance: Of the number of correct ones, were each correct as often as it claims.
    """

    low: float
    high: float
    count: int
    correct: int
    confidence: float | None
    variance: Annotated[float, Field(exclude=True)] = 0.0

    @computed_field
    @property
    def accuracy(self) -> float | None:
        """Fraction of correct predictions."""
        return self.correct / self.count if self.count else None

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95% interval (Wilson)."""
        return wilson(self.correct, self.count)


@dataclass(frozen=True)
class Bins:
    """One way of sorting predictions by confidence.

    Args:
        error: The expected calibration error.
        expected_error: What a perfectly calibrated model would show on average.
        bins: By rising confidence.
    """

    error: float
    expected_error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Reliability:
    """How confidence compares with accuracy.

    Args:
        confidence: The mean probability of the predicted classes.
        equal_width: Bins of equal width.
        equal_mass: Bins of equally many predictions.
    """

    confidence: float
    equal_width: Bins
    equal_mass: Bins


def equal_width(confidences_N: Tensor, correct_N: Tensor, bins: int = BINS) -> list[Bin]:
    """Sort predictions into bins of equal width, from 0 to 1, each with its upper end."""
    ends = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    at_N = torch.bucketize(confidences_N, ends[1:-1].to(confidences_N))
    return [
        _bin(confidences_N[at_N == b], correct_N[at_N == b], float(ends[b]), float(ends[b + 1]))
        for b in range(bins)
    ]


def equal_mass(confidences_N: Tensor, correct_N: Tensor, bins: int = BINS) -> list[Bin]:
    """Sort predictions into bins of equally many, to within one, the least confident first."""
    order_N = confidences_N.argsort(stable=True)
    parts = [part for part in order_N.tensor_split(bins) if len(part)]
    return [
        _bin(confidences_N[part], correct_N[part], *confidences_N[part[[0, -1]]].tolist())
        for part in parts
    ]


def _bin(confidences_N: Tensor, correct_N: Tensor, low: float, high: float) -> Bin:
    count = len(confidences_N)
    mean = confidences_N.mean().item() if count else None
    variance = (confidences_N * (1 - confidences_N)).sum().item()
    return Bin(low, high, count, int(correct_N.sum().item()), mean, variance)


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: how far confidence lies from accuracy, on average.

    The mean over pictures of their bin's |accuracy - confidence|, from 0 to 1 (Naeini et al. 2015).

    >>> calibration_error([Bin(0.0, 0.5, 0, 0, None), Bin(0.5, 1.0, 4, 3, 0.95)])
    0.2
    """
    gaps = [abs(one.correct - one.count * (one.confidence or 0.0)) for one in bins]
    return round(sum(gaps) / sum(one.count for one in bins), 12)


def error_by_chance(bins: list[Bin]) -> float:
    """Return roughly the calibration error of a perfectly calibrated model.

    A bin's number of correct predictions then deviates by the root of its variance, and a normal
    number is on average √(2/π) deviations away from its mean.
    """
    return sum(sqrt(2 / pi * one.variance) for one in bins) / sum(one.count for one in bins)


def fit_temperature(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Return the temperature that gives the lowest cross-entropy.

    Guo et al. 2017. The loss is convex in 1 / temperature; its slope there is the mean logit that
    the model expects less the mean logit of the true classes, and its curvature the logits' mean
    variance under the model. Newton's steps, halving where one would leave the bracket, find the
    one place where the slope is zero; in float64, from 0.01 to 100.
    """
    logits_NK = wide(logits_NK)
    true = logits_NK.gather(1, labels_N[:, None]).mean().item()
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(100):
        probabilities_NK = probabilities(logits_NK * inverse)
        expected_N = (probabilities_NK * logits_NK).sum(1)
        slope = expected_N.mean().item() - true
        if slope == 0:
            break
        curvature = ((probabilities_NK * logits_NK**2).sum(1) - expected_N**2).mean().item()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        before, inverse = inverse, step if low < step < high else sqrt(low * high)
        if abs(inverse - before) <= 1e-12 * before:
            break
    return 1 / inverse


def reliability(logits_NK: Tensor, labels_N: Tensor) -> Reliability:
    """Return how confidence compares with accuracy, by both kinds of bins."""
    probabilities_NK = probabilities(logits_NK)
    confidences_N, predicted_N = probabilities_NK.max(1)
    correct_N = predicted_N == labels_N

    def measured(bins: list[Bin]) -> Bins:
        return Bins(calibration_error(bins), error_by_chance(bins), tuple(bins))

    return Reliability(
        confidence=confidences_N.mean().item(),
        equal_width=measured(equal_width(confidences_N, correct_N)),
        equal_mass=measured(equal_mass(confidences_N, correct_N)),
    )
