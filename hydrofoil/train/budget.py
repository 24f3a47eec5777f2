"""How many epochs fit into a budget of time: a function of measured numbers alone."""

import re
from dataclasses import dataclass

from hydrofoil.errors import HydrofoilError
from hydrofoil.wording import time_taken

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MOST_SECONDS = 1e7
MOST_EPOCHS = 10_000_000


def seconds_of(given: object) -> float:
    """Return a budget in seconds: "90s", "2m", "1.5h", or "1h30m".

    Raises:
        HydrofoilError: It is not a time, or not one above zero.

    >>> seconds_of("90s"), seconds_of("2m"), seconds_of("1h30m")
    (90.0, 120.0, 5400.0)
    """
    text = str(given).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?|\.\d+)\s*([smh])", text)
    whole = re.fullmatch(r"(?:(?:\d+(?:\.\d+)?|\.\d+)\s*[smh]\s*)+", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not whole or not 0 < seconds <= MOST_SECONDS:
        raise HydrofoilError(
            f"budget = {str(given)[:40]!r}: expected a time with its unit: s, m or h, "
            "such as 90s, 2m or 1.5h."
        )
    return seconds


@dataclass(frozen=True)
class Costs:
    """What was measured on this machine, in seconds.

    Args:
        steps: Steps of an epoch.
        step_seconds: A step's, for each of equal parts of the training; one, if all are alike.
        epoch_seconds: What each epoch takes beside its steps: validation, and keeping its weights.
        before_seconds: From the start of the command to the first step.
        after_seconds: From the last epoch to the end of the command, the test included.
        late_seconds: What each epoch takes besides, once weights are averaged over epochs.
        late_start: The fraction of the epochs after which they are.
    """

    steps: int
    step_seconds: tuple[float, ...]
    epoch_seconds: float
    before_seconds: float
    after_seconds: float
    late_seconds: float = 0.0
    late_start: float = 1.0

    @property
    def fewest(self) -> int:
        """The smallest number of epochs: one for each part."""
        return len(self.step_seconds)

    def seconds(self, epochs: int, last_steps: int = 0) -> float:
        """Return how long the whole command takes.

        Args:
            epochs: How many; at least `fewest`.
            last_steps: Steps of the last epoch; 0: all of them.
        """
        parts = len(self.step_seconds)
        training = sum(
            # Part p has the epochs from ⌈p · epochs / parts⌉ to before the next part's first.
            (-(-(part + 1) * epochs // parts) - -(-part * epochs // parts)) * self.steps * each
            for part, each in enumerate(self.step_seconds)
        )
        late = (epochs - int(self.late_start * epochs)) * self.late_seconds
        left_out = (self.steps - last_steps) * self.step_seconds[-1] if last_steps else 0.0
        return (
            self.before_seconds + training - left_out
            + epochs * self.epoch_seconds + late + self.after_seconds
        )  # fmt: skip


@dataclass(frozen=True)
class Length:
    """A training's length.

    Args:
        epochs: How many, the last included.
        last_steps: Steps of the last epoch; 0: all of them.
        seconds: Of the whole command, as predicted.
    """

    epochs: int
    last_steps: int
    seconds: float


def longest(budget: float, costs: Costs) -> Length:
    """Return the longest training whose command ends within a budget.

    The last epoch may end early: an epoch can take longer than 5% of the budget.

    Args:
        budget: In seconds.
        costs: As measured.

    Raises:
        HydrofoilError: The budget is too small for one epoch of each part; says what it would take.

    >>> costs = Costs(100, (0.01,), 0.1, 5.0, 3.0)
    >>> longest(30.0, costs)
    Length(epochs=20, last_steps=0, seconds=30.0)
    >>> longest(30.5, costs)
    Length(epochs=21, last_steps=39, seconds=30.49...)
    """
    if costs.seconds(costs.fewest) > budget:
        raise HydrofoilError(_too_small(budget, costs))
    low, high = costs.fewest, 2 * costs.fewest
    while high < MOST_EPOCHS and costs.seconds(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if costs.seconds(middle) <= budget else (low, middle)
    missing = costs.seconds(low + 1) - budget
    steps = costs.steps - int(-(-missing // costs.step_seconds[-1]))
    while steps > 0 and costs.seconds(low + 1, steps) > budget:  # by rounding
        steps -= 1
    if steps > 0:
        return Length(low + 1, steps, costs.seconds(low + 1, steps))
    return Length(low, 0, costs.seconds(low))


def _too_small(budget: float, costs: Costs) -> str:
    """Say what one epoch would take, or one for each part."""
    needed = costs.seconds(costs.fewest)
    epochs = "one epoch takes" if costs.fewest == 1 else f"{costs.fewest} epochs take"
    whole = int(-(-needed * 1.05 // 5) * 5)  # 5% more than predicted, in steps of 5 s
    rest = costs.before_seconds + costs.after_seconds
    share = (budget - rest) / (needed - rest)
    # Where all else takes longer than the budget, no network is small enough.
    smaller = ", or a smaller network" if share > 0 else ""
    smaller += f", or fewer images: train={0.95 * share:.2f}" if share > 0.02 else ""
    return (
        f"budget = {budget:g}s: {epochs} {_short(needed - rest)} on this machine, and "
        f"all else {_short(rest)}: expected at least {whole}s.\n"
        f"Give --budget {whole}s{smaller}"
    )


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else time_taken(seconds)
