"""Key findings of a test and of learning curves, in sentences with their figures.

A difference between classes or groups is reported only where it is statistically significant, with
a correction for their number: among many equal classes, the extremes lie far apart by chance.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, mean, median

from hydrofoil.evaluate.metrics import Z_95, ClassScores, wilson
from hydrofoil.evaluate.result import ConfusedPair, Epoch, GroupScores, TestResult
from hydrofoil.wording import interval, isolated, percent

FEW = 5  # epochs: fewer do not separate a trend from noise


def findings(test: TestResult) -> list[str]:
    """Return what a test shows beyond its accuracy, the most general finding first."""
    found = [*_no_better_than_one_class(test), *_groups(test.groups)]
    found += [*_classes(test.classes), *_confused(test.confused)]
    return [*found, *_never_predicted(test.classes), *_calibration(test)]


def _no_better_than_one_class(test: TestResult) -> list[str]:
    """Report an accuracy that always predicting the largest class would reach."""
    if len(test.classes) < 2:
        return []
    largest = max(test.classes, key=lambda one: one.count)
    share = largest.count / test.count
    if test.interval[0] > share:
        return []
    above = "not significantly above" if test.accuracy > share else "not above"
    return [
        f"The accuracy, {percent(test.accuracy)}, is {above} the share of the largest class: "
        f"always predicting {isolated(largest.name)} would be correct for {percent(share)} of the "
        "test images."
    ]


def _bounds(shares: Sequence[ClassScores | GroupScores]) -> list[tuple[float, float]]:
    """Return intervals such that any two of equal shares are disjoint in at most 5% of tests.

    Bonferroni's correction for all pairs. Two intervals of similar width are disjoint where the
    difference exceeds √2 times z standard errors. Each interval covers at least 95%.
    """
    ordered_pairs = len(shares) * (len(shares) - 1)
    z = max(Z_95, NormalDist().inv_cdf(1 - 0.05 / ordered_pairs) / sqrt(2))
    return [wilson(one.correct, one.count, z) for one in shares]


def _extremes(shares: Sequence[ClassScores | GroupScores]) -> tuple[int, int, bool, bool] | None:
    """Return the weakest and the strongest, and whether each differs from all others.

    None where no two differ significantly.
    """
    if len(shares) < 2:
        return None
    bounds = _bounds(shares)
    places = range(len(shares))
    weak = min(places, key=lambda k: bounds[k][1])
    strong = max(places, key=lambda k: bounds[k][0])
    if bounds[weak][1] >= bounds[strong][0]:
        return None
    weakest = all(bounds[weak][1] < bounds[k][0] for k in places if k != weak)
    strongest = all(bounds[strong][0] > bounds[k][1] for k in places if k != strong)
    return weak, strong, weakest, strongest


def _groups(groups: Sequence[GroupScores]) -> list[str]:
    known = [one for one in groups if one.count]
    found = _extremes(known)
    if found is None:
        return []
    weak, strong = known[found[0]], known[found[1]]
    return [
        f"{weak.name.capitalize()} are harder than {strong.name}: "
        f"accuracy {percent(weak.recall)} on {weak.count:,} images, "
        f"against {percent(strong.recall)} on {strong.count:,}."
    ]


def _classes(classes: Sequence[ClassScores]) -> list[str]:
    known = [one for one in classes if one.count]
    if len(known) < 2:
        return []
    found = _extremes(known)
    if found is None:
        return [
            "No class is significantly more accurate than another: differences this large occur "
            f"by chance among {len(known)} equal classes."
        ]
    weak, strong, (weakest, strongest) = known[found[0]], known[found[1]], found[2:]
    return [
        f"{isolated(weak.name)} is "
        f"{'the weakest class' if weakest else 'among the weakest classes'}: "
        f"{percent(weak.recall)} ({interval(weak.interval)}); "
        f"{'the strongest is' if strongest else 'among the strongest is'} "
        f"{isolated(strong.name)}: "
        f"{percent(strong.recall)} ({interval(strong.interval)})."
    ]


def _confused(pairs: Sequence[ConfusedPair]) -> list[str]:
    if not pairs:
        return []
    worst = pairs[0]
    first, second = map(isolated, worst.classes)
    alone = len(pairs) == 1 or pairs[1].count < worst.count
    return [
        f"{first} and {second} are {'' if alone else 'among the classes '}confused most often: "
        f"{worst.count:,} of their {worst.total:,} images "
        f"({first} as {second}: {worst.first_as_second:,}; "
        f"{second} as {first}: {worst.second_as_first:,})."
    ]


def _never_predicted(classes: Sequence[ClassScores]) -> list[str]:
    never = [isolated(one.name) for one in classes if one.count and not one.predicted]
    named = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
    these = "it" if len(never) == 1 else "them"
    return [f"Never predicted, although the test set contains {these}: {named}."] if never else []


def _calibration(test: TestResult) -> list[str]:
    calibration, accuracy = test.calibration, test.accuracy
    confidence, error = calibration.confidence, calibration.equal_mass.error
    low, high = test.interval
    if low <= confidence <= high:
        how = "Confidence matches accuracy on average"
    else:
        how = f"The model is {'over' if confidence > accuracy else 'under'}confident"
    words = f"{how}: mean probability {percent(confidence)}, accuracy {percent(accuracy)}"
    fitted = calibration.temperature
    after = 100 * fitted.equal_mass_error if fitted else 0.0
    if fitted and round(after, 1) < round(100 * error, 1):
        return [
            f"{words}; a temperature of {fitted.value:.2f}, fitted on the validation split, "
            f"brings the calibration error from {100 * error:.1f} to {after:.1f} points."
        ]
    return [f"{words}; the calibration error is {100 * error:.1f} points."]


def of_curves(epochs: Sequence[Epoch], last: int) -> list[str]:
    """Return what the learning curves show of over- and underfitting.

    Args:
        epochs: The epochs so far.
        last: The recipe's number of epochs.
    """
    if len(epochs) < 2:
        return ["One epoch is too few to show a trend."] if epochs else []
    train = [epoch.train.loss for epoch in epochs]
    found = [*_diverged(epochs, train)]
    if any(epoch.valid is None for epoch in epochs):
        return [*found, "There is no validation split, so overfitting cannot be detected."]
    if not found:
        found.append(_validation(epochs, train))
    if epochs[-1].number < last:
        found.append(f"Training is not finished: {epochs[-1].number} of {last} epochs.")
    return found


def _validation(epochs: Sequence[Epoch], train: Sequence[float]) -> str:
    """Report whether the validation loss rises, still falls, or does neither beyond noise."""
    valid = [epoch.valid.loss for epoch in epochs if epoch.valid]
    low = min(range(len(valid)), key=valid.__getitem__)
    at, end = epochs[low].number, epochs[-1].number
    if falls := _falls(valid, end):
        return f"Still learning at the end: {falls}; more epochs would probably help."
    if len(valid) < FEW:
        return (
            f"The validation loss is lowest at epoch {at}, {valid[low]:.4f}, and {valid[-1]:.4f} "
            f"at the last: {len(valid)} epochs are too few to separate a trend from noise."
        )
    if _rises(valid, low):
        rise = f"the validation loss rises from {valid[low]:.4f} to {valid[-1]:.4f}"
        if train[-1] < train[low]:
            return (
                f"Overfitting after epoch {at}: by epoch {end} {rise} while the training loss "
                f"falls from {train[low]:.4f} to {train[-1]:.4f}."
            )
        return (
            f"Worse after epoch {at}: by epoch {end} {rise}, and the training loss no longer falls."
        )
    return (
        f"The validation loss has leveled off, within its noise: its lowest value is "
        f"{valid[low]:.4f} at epoch {at}, its last {valid[-1]:.4f}."
    )


def _rises(valid: Sequence[float], low: int) -> bool:
    """Return whether the last epochs are three standard errors and 2% above the lowest ones.

    A small split's loss is noisy, so means over up to three epochs are compared.
    """
    late = valid[max(low + 1, len(valid) - 3) :]
    near = valid[max(low - 1, 0) : low + 2][: len(valid) - len(late) - max(low - 1, 0)]
    if not late:
        return False
    error = _jitter(valid) * sqrt(1 / len(near) + 1 / len(late))
    return mean(late) - mean(near) > max(3 * error, 0.02 * mean(near))


def _falls(valid: Sequence[float], end: int) -> str:
    """Describe how the loss still falls at epoch `end`; empty if it does not.

    Either it fell in each of the last four epochs (all, if fewer), which noise without a trend does
    in 1 of 120 windows; or the mean of the last sixth is three standard errors below that of the
    sixth before, and the lowest loss lies in one of them. In both cases by at least 1%.
    """
    last = valid[-FEW:]
    in_a_row = all(after < before for before, after in pairwise(last))
    if in_a_row and last[-1] < 0.99 * last[0]:
        return (
            f"from epoch {end - len(last) + 1} to {end} the validation loss falls from "
            f"{last[0]:.4f} to {last[-1]:.4f}"
        )
    sixth = len(valid) // 6
    if not sixth or min(valid[-2 * sixth :]) > min(valid):
        return ""
    before, late = mean(valid[-2 * sixth : -sixth]), mean(valid[-sixth:])
    if before - late <= max(3 * _jitter(valid) * sqrt(2 / sixth), 0.01 * before):
        return ""
    of_last = "the last epoch" if sixth == 1 else f"the last {sixth} epochs"
    return f"the mean validation loss of {of_last} is {late:.4f}, after {before:.4f} before that"


def _jitter(values: Sequence[float]) -> float:
    """Return the standard deviation of a curve's noise, from its second differences (no trend).

    Those of independent noise have √6 times its standard deviation; the median magnitude of a
    normal distribution is 0.6745 standard deviations.
    """
    seconds = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return median(seconds) / (0.6745 * sqrt(6))


def _diverged(epochs: Sequence[Epoch], train: Sequence[float]) -> list[str]:
    low = min(range(len(train)), key=train.__getitem__)
    if train[-1] < max(1.1 * train[low], train[low] + 0.1):  # near zero, losses double by chance
        return []
    return [
        f"Training diverges after epoch {epochs[low].number}: the training loss rises from "
        f"{train[low]:.4f} to {train[-1]:.4f}. The steps are probably too large: "
        "try a smaller optimizer.lr."
    ]
