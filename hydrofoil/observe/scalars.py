"""What a tracker receives: a run's numbers under the names that trackers show."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from hydrofoil.evaluate.result import Epoch, TestResult
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.events import Event, RunningLoss, Tested
from hydrofoil.run.folder import Run


@dataclass(frozen=True)
class Scalar:
    """One number of a run.

    Args:
        name: Such as "loss/valid".
        step: The epoch; of "loss/running" the steps since training began; of "test/…" and
            "recall/…" which opening of the test split it was.
        value: As in the log or in test.json.
        at: When, in seconds since 1970; the past of a run is put together from its seconds.
    """

    name: str
    step: int
    value: float
    at: float


class Tracker(Protocol):
    """What takes a run's numbers and figures; whatever it raises ends it, and not the run."""

    needs: ClassVar[tuple[str, ...]]
    """Modules that must be there."""
    install: ClassVar[str]
    """What installs them."""
    environment: ClassVar[dict[str, str]]
    """Variables for them, where they are not set."""

    def __init__(self, run: Run, at: float) -> None:
        """Begin, or continue after what was logged before; `at`: when training began."""

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Take the log's next numbers; the first call passes all numbers so far."""

    def end(self, status: str, figures: Mapping[str, Path], opened: int) -> None:
        """Take the figures of the latest test, and how the run ended: finished, failed, stopped."""


def hyperparameters(recipe: Recipe) -> dict[str, bool | float | str]:
    """Return the fields that affect a run's results, by dotted name; lists as JSON."""
    fields = recipe.affecting("weights", "results")
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in fields.items()
        if value is not None
    }


def event_values(event: Event, recipe: Recipe, steps: int) -> tuple[int, dict[str, float]]:
    """Return the step of an event, and its numbers by the names that trackers show.

    Args:
        event: Of the log.
        recipe: Of the run.
        steps: Of an epoch.
    """
    if isinstance(event, Epoch):
        values: dict[str, float] = {}
        for part, scores in (
            ("train", event.train),
            ("valid", event.valid),
            ("averaged", event.averaged),
        ):
            if scores:
                values[f"loss/{part}"] = scores.loss
                values[f"accuracy/{part}"] = scores.accuracy
        values["learning_rate"] = event.learning_rate
        if event.train_seconds:
            values["pictures_per_second"] = event.train.count / event.train_seconds
        return event.number, values
    if isinstance(event, RunningLoss):
        return (event.epoch - 1) * steps + event.step, {"loss/running": event.loss}
    if isinstance(event, Tested):
        return event.opened, {"test/accuracy": event.accuracy}
    return 0, {}


def result_values(test: TestResult) -> dict[str, float]:
    """Return the numbers of test.json that the log has not: loss, interval, recall by class."""
    low, high = test.interval
    values = {"test/loss": test.loss, "test/accuracy_low": low, "test/accuracy_high": high}
    values["test/balanced_accuracy"] = test.balanced_accuracy
    if test.test_time:
        values["test/accuracy_test_time"] = test.test_time.accuracy
    recalls = {f"recall/{one.name}": one.recall for one in test.classes}
    return values | {name: value for name, value in recalls.items() if value is not None}


def metric_name(name: str) -> str:
    """Return a name that MLflow takes, with what it refuses in a class's name as hexadecimal.

    >>> metric_name("loss/valid"), metric_name("recall/6/9?")
    ('loss/valid', 'recall/6_2f_9_3f_')
    """
    group, slash, rest = name.partition("/")
    return group + slash + re.sub(r"[^\w -]", lambda found: f"_{ord(found[0]):x}_", rest)


def epoch_seconds(event: Event) -> float:
    """Return the duration of an epoch, validation included; 0 for other events."""
    return event.seconds if isinstance(event, Epoch) else 0.0
