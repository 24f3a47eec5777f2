"""Key findings of a test, in sentences with their figures.

A difference between classes or groups is reported only where it is statistically significant, with
a correction for their number: among many equal classes, the extremes lie far apart by chance.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from hydrofoil.evaluate.metrics import Z_95, ClassScores, wilson
from hydrofoil.evaluate.result import ConfusedPair, Expected, GroupScores, TestResult
from hydrofoil.wording import interval, isolated, percent, percent_range


def findings(test: TestResult) -> list[str]:
    """Return what a test shows beyond its accuracy, the most general finding first."""
    found = [*_no_better_than_one_class(test), *_groups(test.groups)]
    found += [*_classes(test.classes), *_confused(test.confused)]
    return [*found, *_never_predicted(test.classes), *_calibration(test)]


COPIES = {"flip": "each image and its mirror image", "flip-shift": "mirrored and shifted copies"}


def averaging_line(test: TestResult) -> str:
    """Say what test-time augmentation adds to the plain accuracy; empty without it."""
    found = test.test_time
    if found is None:
        return ""
    return (
        f"with test-time augmentation ({found.kind}: logits averaged over {COPIES[found.kind]}) "
        f"{percent(found.accuracy)} ({found.correct:,} of {found.count:,}), "
        f"{interval(found.interval)}: {found.gained:,} gained, {found.lost:,} lost"
    )


def expectation(test: TestResult) -> list[str]:
    """Say what the recipe expects, and where the run lies in it; nothing if it expects nothing."""
    found = test.expected
    if found is None:
        return []
    printed = found.printed is not None and f"the original printed {percent(found.printed, 0)}"
    if found.mean is None:
        return [f"{found.recipe}: {printed}."]
    said = f"{found.recipe}: {percent(found.mean)}"
    if found.spread is not None:
        said = (
            f"{found.seeds} seeds of {found.recipe}: {percent(found.mean)} ± "
            f"{100 * found.spread:.2f}, mean and standard deviation"
        )
    return [f"{said} ({printed})." if printed else f"{said}.", *_place(test.accuracy, found)]


def _place(accuracy: float, found: Expected) -> list[str]:
    """Say where a run's accuracy lies among the recipe's seeds."""
    if found.unlike:
        return [f"This run cannot be compared with that: {found.unlike}."]
    if found.deviations is None or found.interval is None:
        return []
    away, side = abs(found.deviations), "above" if found.deviations > 0 else "below"
    low, high = found.interval
    place = "below" if accuracy < low else "above" if accuracy > high else "within"
    lower = f"; {found.lower} of the {found.seeds} were lower" if found.lower is not None else ""
    return [
        f"This run is {away:.1f} standard deviations {side} that mean{lower}. "
        f"It is {place} the range of 95 in 100 seeds, {percent_range(found.interval)}."
    ]


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
