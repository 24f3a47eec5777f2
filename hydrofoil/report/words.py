"""What figures say, in sentences; each holds the figures that it follows from.

A difference is told only where the 95 % intervals of both sides lie apart.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, median
from typing import Any

from hydrofoil.report.text import interval, percent

Share = Mapping[str, Any]  # of test.json: a class or a group, with accuracy and interval


def findings(test: Mapping[str, Any]) -> list[str]:
    """Return what test.json shows beyond its accuracy, the plainest first."""
    found = [*_groups(test["groups"]), *_classes(test["classes"]), *_confused(test["confused"])]
    return [*found, *_unanswered(test["classes"]), *_calibration(test)]


def _apart(low: Share, high: Share) -> bool:
    return low["interval"][1] < high["interval"][0]


def _groups(groups: Sequence[Share]) -> list[str]:
    known = sorted((one for one in groups if one["count"]), key=lambda one: one["accuracy"])
    if len(known) < 2 or not _apart(known[0], known[-1]):
        return []
    weak, strong = known[0], known[-1]
    return [
        f"{weak['group'].capitalize()} are weaker than {strong['group']}: "
        f"{percent(weak['accuracy'])} of {weak['count']:,} are recognised, "
        f"against {percent(strong['accuracy'])} of {strong['count']:,}."
    ]


def _classes(classes: Sequence[Share]) -> list[str]:
    known = sorted((one for one in classes if one["count"]), key=lambda one: one["accuracy"])
    if len(known) < 2:
        return []
    weak, strong = known[0], known[-1]
    if not _apart(weak, strong):
        return ["No class is recognised better than another: all their intervals overlap."]
    alone = _apart(weak, known[1])
    return [
        f"{weak['class']} is {'' if alone else 'among '}the weakest class{'' if alone else 'es'}: "
        f"{percent(weak['accuracy'])} ({interval(weak['interval'])}); the strongest is "
        f"{strong['class']}: {percent(strong['accuracy'])} ({interval(strong['interval'])})."
    ]


def _confused(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return []
    worst = pairs[0]
    first, second = worst["classes"]
    return [
        f"{first} and {second} are taken for each other most: "
        f"{worst['count']:,} of their {worst['of']:,} pictures "
        f"({first} as {second}: {worst['first_as_second']:,}; "
        f"{second} as {first}: {worst['second_as_first']:,})."
    ]


def _unanswered(classes: Sequence[Share]) -> list[str]:
    never = [one["class"] for one in classes if one["count"] and not one["answered"]]
    named = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
    return [f"Never answered, though there are pictures of it: {named}."] if never else []


def _calibration(test: Mapping[str, Any]) -> list[str]:
    calibration, accuracy = test["calibration"], test["accuracy"]
    sure, error = calibration["confidence"], calibration["mass"]["error"]
    low, high = test["interval"]
    if low <= sure <= high:
        how = "On the whole it is as sure as it is right"
    else:
        how = (
            "It is surer than it is right"
            if sure > accuracy
            else "It is more often right than sure"
        )
    words = f"{how}: mean probability {percent(sure)}, accuracy {percent(accuracy)}"
    fitted = calibration["temperature"]
    if fitted and fitted["mass_error"] < error:
        after = 100 * fitted["mass_error"]
        return [
            f"{words}; a temperature of {fitted['value']:.2f}, fitted on the validation split, "
            f"brings the calibration error from {100 * error:.1f} to {after:.1f} points."
        ]
    return [f"{words}; the calibration error is {100 * error:.1f} points."]


def of_curves(epochs: Sequence[Mapping[str, Any]], last: int) -> list[str]:
    """Return what the learning curves show of over- and underfitting.

    Args:
        epochs: As log.jsonl has them.
        last: How many epochs the recipe wants.
    """
    if len(epochs) < 2:
        return ["One epoch makes no curve: whether more would help is not known."] if epochs else []
    train = [epoch["train"]["loss"] for epoch in epochs]
    found = [*_fallen_apart(epochs, train)]
    if any(epoch["valid"] is None for epoch in epochs):
        return [*found, "Nothing was held out for validation, so overfitting would not be seen."]
    if not found:
        found.append(_validation(epochs, train))
    if epochs[-1]["epoch"] < last:
        found.append(f"The training is not finished: {epochs[-1]['epoch']} of {last} epochs.")
    return found


def _validation(epochs: Sequence[Mapping[str, Any]], train: Sequence[float]) -> str:
    """Say whether validation rises again, still falls, or neither.

    A small split's loss jitters from epoch to epoch: it rises, for these words, where the mean of
    the last three epochs lies three standard errors above the mean of those around the lowest.
    """
    valid = [epoch["valid"]["loss"] for epoch in epochs]
    low = min(range(len(valid)), key=valid.__getitem__)
    at, end = epochs[low]["epoch"], epochs[-1]["epoch"]
    if 0 < low < len(valid) - 3:
        near, late = mean(valid[low - 1 : low + 2]), mean(valid[-3:])
        error = _jitter(valid) * sqrt(2 / 3)
        if late > 1.02 * near and late - near > 3 * error and train[-1] < train[low]:
            return (
                f"Overfitting after epoch {at}: by epoch {end} the validation loss rises from "
                f"{valid[low]:.4f} to {valid[-1]:.4f} while the training loss falls from "
                f"{train[low]:.4f} to {train[-1]:.4f}."
            )
    if low == len(valid) - 1 and valid[-2] - valid[-1] > 0.005 * valid[-2]:
        return (
            f"Still learning at the end: epoch {end} lowers the validation loss from "
            f"{valid[-2]:.4f} to {valid[-1]:.4f}; more epochs would probably help."
        )
    return (
        f"Validation has levelled off: its lowest loss is {valid[low]:.4f} at epoch {at}, "
        f"its last {valid[-1]:.4f}."
    )


def _jitter(values: Sequence[float]) -> float:
    """Return the deviation of a curve's noise, from its second differences, which know no trend.

    Those of independent noise deviate by √6 of its own; the median is 0.6745 of a deviation.
    """
    seconds = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return median(seconds) / (0.6745 * sqrt(6))


def _fallen_apart(epochs: Sequence[Mapping[str, Any]], train: Sequence[float]) -> list[str]:
    low = min(range(len(train)), key=train.__getitem__)
    if train[-1] < 1.2 * train[low]:
        return []
    return [
        f"Training falls apart after epoch {epochs[low]['epoch']}: its own loss rises from "
        f"{train[low]:.4f} to {train[-1]:.4f}. The steps are too large: try a smaller optimizer.lr."
    ]
