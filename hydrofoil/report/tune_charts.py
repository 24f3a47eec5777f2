"""The charts of a search's page, as SVG: its history, each field, and how much fields matter."""

from collections.abc import Sequence
from math import ceil, floor, log10

from markupsafe import Markup

from hydrofoil.compare.labels import value_text
from hydrofoil.report.charts import Plane, short, svg, tag, ticks
from hydrofoil.tune.result import Goal, Trial
from hydrofoil.tune.space import Choices, Dimension
from hydrofoil.wording import percent

Tick = tuple[float, str]  # a place on an axis, and its label
SPREAD = 30  # a range that covers this factor gets a logarithmic axis
LETTERS = 9  # of a choice below its column


class Scale:
    """An axis: where values lie on it, and its labels.

    Args:
        low: The smallest value.
        high: The largest.
        log: Whether it is logarithmic.
        factor: What labels are multiplied by: 100 for percent.
    """

    def __init__(self, low: float, high: float, *, log: bool = False, factor: float = 1.0) -> None:
        self.log, self.factor = log and low > 0, factor
        a, b = self.place(low), self.place(high)
        margin = (b - a) * 0.06 or abs(a) * 0.06 or 0.5
        self.bounds = a - margin, b + margin

    def place(self, value: float) -> float:
        """Return where a value lies."""
        return log10(value) if self.log else self.factor * value

    def labels(self) -> list[Tick]:
        """Return round numbers with their places."""
        low, high = self.bounds
        if not self.log:
            return [(at, f"{at:g}") for at in ticks(low, high, 5) if low <= at <= high]
        for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            values = [
                step * 10.0**power
                for power in range(floor(low), ceil(high) + 1)
                for step in steps
                if low <= log10(step * 10.0**power) <= high
            ]
            if len(values) >= 3:
                break
        return [(log10(value), f"{value:.6g}") for value in values[:: max(1, len(values) // 6)]]


def _value_scale(trials: Sequence[Trial], goal: Goal) -> Scale:
    """Return the vertical axis: losses that lie far apart on a logarithmic one."""
    values = [trial.value for trial in trials if trial.value is not None]
    low, high = min(values), max(values)
    if goal.metric == "accuracy":
        return Scale(low, high, factor=100.0)
    return Scale(low, high, log=low > 0 and high / low > 3)


def _name(goal: Goal, scale: Scale) -> str:
    unit = "%" if goal.metric == "accuracy" else "nats per image"
    return f"validation {goal.metric} ({unit}{', logarithmic' if scale.log else ''})"


def _axes(
    plane: Plane, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x: str, y: str
) -> list[Markup]:
    """Return grid, labels and names of the axes."""
    plane.left = max(plane.left, 14 + 7.0 * max([len(label) for _, label in y_ticks], default=0))
    low, end = plane.height - plane.bottom, plane.width - plane.right
    parts = [tag("text", y, x=2, y=13, class_="name")]
    for at, label in y_ticks:
        level = plane.y(at)
        parts.append(tag("path", d=f"M{plane.left:.1f} {level:.1f}H{end:.1f}", class_="grid"))
        where = {"x": plane.left - 6, "y": level + 4, "class_": "tick", "text_anchor": "end"}
        parts.append(tag("text", label, **where))
    for at, label in x_ticks:
        where = {"x": plane.x(at), "y": low + 17, "class_": "tick", "text_anchor": "middle"}
        parts.append(tag("text", label, **where))
    where = {"x": (plane.left + end) / 2, "y": plane.height - 5, "class_": "name"}
    return [*parts, tag("text", x, **where, text_anchor="middle")]


def _dots(
    plane: Plane, at: Sequence[tuple[float, float, Trial]], best: Trial | None
) -> list[Markup]:
    """Return a dot for each trial, hollow for those that were stopped early; the best is marked."""
    parts: list[Markup] = []
    for x, y, trial in sorted(at, key=lambda dot: dot[2].state == "complete"):
        kind = "dot s0" if trial.state == "complete" else "dot stopped"
        place = {"cx": plane.x(x), "cy": plane.y(y)}
        said = tag("title", f"trial {trial.number}")
        parts.append(tag("circle", said, **place, r=4.0, class_=kind))
        if best is not None and trial.number == best.number:
            parts.append(tag("circle", **place, r=8.5, class_="ring"))
    return parts


def history(trials: Sequence[Trial], goal: Goal, best: Trial | None) -> Markup:
    """Draw the figure of each trial by its number, and the best complete one so far as a line.

    Args:
        trials: At least one with a figure.
        goal: Which figure.
        best: The winner.
    """
    shown = [trial for trial in trials if trial.value is not None]
    scale = _value_scale(shown, goal)
    plane = Plane((1 - 0.5, max(trial.number for trial in shown) + 0.5), scale.bounds)
    plane.width, plane.right = 640.0, 16.0
    numbers = [
        value for value in ticks(1, plane.x1, 8) if value == int(value) and 1 <= value < plane.x1
    ]
    x_ticks = [(value, f"{value:g}") for value in numbers]
    parts = _axes(plane, x_ticks, scale.labels(), "trial", _name(goal, scale))
    better = min if goal.direction == "minimize" else max
    path, so_far = "", list[float]()
    for trial in shown:
        if trial.state == "complete" and trial.value is not None:
            level = plane.y(scale.place(better([*so_far, trial.value])))
            path += f"V{level:.1f}" if path else ""
            path = path or f"M{plane.x(trial.number):.1f} {level:.1f}"
            so_far.append(trial.value)
        path += f"H{plane.x(trial.number + 0.5):.1f}" if path else ""
    if path:
        parts.append(tag("path", d=path, class_="line valid"))
    dots = [(float(t.number), scale.place(t.value or 0.0), t) for t in shown]
    title = f"{goal.words} of each trial, and the best so far".capitalize()
    return svg(plane.width, plane.height, title, *parts, *_dots(plane, dots, best))


def by_value(
    dimension: Dimension, name: str, trials: Sequence[Trial], goal: Goal, best: Trial | None
) -> Markup:
    """Draw the figure of each trial by the value of a field.

    Args:
        dimension: The field, with its range or choices.
        name: The field's short name.
        trials: At least one with a figure and a value of the field.
        goal: Which figure.
        best: The winner.
    """
    shown = [t for t in trials if t.value is not None and dimension.field in t.values]
    scale = _value_scale(shown, goal)
    if isinstance(dimension, Choices):
        across = (-0.5, len(dimension.values) - 0.5)
        labels = [(float(n), short(value_text(v), LETTERS)) for n, v in enumerate(dimension.values)]
        places = [float(dimension.values.index(t.values[dimension.field])) for t in shown]
    else:
        x_scale = Scale(dimension.low, dimension.high, log=dimension.log)
        across, labels = x_scale.bounds, x_scale.labels()
        places = [x_scale.place(float(t.values[dimension.field])) for t in shown]
        name += " (logarithmic)" if x_scale.log else ""
    plane = Plane(across, scale.bounds)
    plane.right = 18.0
    parts = _axes(plane, labels, scale.labels(), name, _name(goal, scale))
    dots = [
        (x, scale.place(trial.value or 0.0), trial) for x, trial in zip(places, shown, strict=True)
    ]
    title = f"{goal.words} of each trial by {name}".capitalize()
    return svg(plane.width, plane.height, title, *parts, *_dots(plane, dots, best))


def importances(shares: Sequence[tuple[str, float]], title: str) -> Markup:
    """Draw shares as bars, one per row.

    Args:
        shares: Name and share, from 0 to 1.
        title: For screen readers.
    """
    down, width = 26.0, 560.0
    left = min(200.0, 16 + 7.6 * max(len(name) for name, _ in shares))
    parts: list[Markup] = []
    for number, (name, share) in enumerate(shares):
        y = 6 + down * number
        at = {"x": left - 8, "y": y + 13, "class_": "tick", "text_anchor": "end"}
        parts.append(tag("text", short(name, 24), **at))
        wide = max(1.0, (width - left - 60) * share)
        parts.append(tag("rect", x=left, y=y, width=wide, height=17.0, class_="share"))
        parts.append(tag("text", percent(share, 0), x=left + wide + 7, y=y + 13, class_="tick"))
    return svg(width, 8 + down * len(shares), title, *parts)
