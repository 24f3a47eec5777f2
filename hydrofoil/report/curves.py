"""Learning curves as a PNG file, for terminal users; pages draw theirs as SVG (charts.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, isfinite, nan

from PIL import Image, ImageDraw

from hydrofoil.evaluate.result import Epoch
from hydrofoil.report.charts import ticks
from hydrofoil.report.sheet import GAP, TEXT, Sheet, text_width

TRAIN, VALID, GRID = "#0969da", "#bc4c00", "#e6e8eb"
AVERAGED = "#8250df"
FINE = 4  # plots are drawn at this scale, then reduced: Pillow does not antialias lines
WIDTH, HEIGHT = 500, 300  # of a plot without its ticks and labels, in pixels
LEFT, BELOW = 64, 2 * TEXT + 2 * GAP  # space for them

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Args:
        name: Its entry in the legend.
        ink: Its color.
        values: One per epoch; NaN leaves a gap.
        dashed: Whether the line is dashed.
    """

    name: str
    ink: str
    values: Sequence[float]
    dashed: bool = False


def learning_curves(epochs: Sequence[Epoch], heading: str) -> bytes:
    """Draw loss and accuracy by epoch, training and validation, and mark the best epoch.

    Args:
        epochs: At least one, from the log.
        heading: Above the plots.
    """
    numbers = [epoch.number for epoch in epochs]
    best = next((epoch.number for epoch in reversed(epochs) if epoch.best), None)
    size = (2 * (LEFT + WIDTH) + 2 * GAP, TEXT + GAP + HEIGHT + BELOW)
    sheet = Sheet(size, heading)
    for side, (field, unit, scale) in enumerate((("loss", "nats", 1), ("accuracy", "%", 100))):
        curves: list[Curve] = []
        parts = (
            ("training", [epoch.train for epoch in epochs], TRAIN),
            ("validation", [epoch.valid for epoch in epochs], VALID),
            ("averaged weights", [epoch.averaged for epoch in epochs], AVERAGED),
        )
        for name, scores, ink in parts:
            values = [scale * float(getattr(one, field)) if one else nan for one in scores]
            if any(map(isfinite, values)):
                curves.append(Curve(name, ink, values, dashed=ink == TRAIN))
        left = LEFT + side * (LEFT + WIDTH + 2 * GAP)
        _Plot(numbers, curves, best).show(sheet, left, TEXT + GAP, f"{field} ({unit})")
    return sheet.png()


class _Plot:
    """One plot: a grid, curves, the best epoch, ticks and a legend.

    Args:
        numbers: The epochs.
        curves: One value per epoch.
        best: The epoch to mark.
    """

    def __init__(self, numbers: Sequence[int], curves: Sequence[Curve], best: int | None) -> None:
        self.numbers, self.curves, self.best = numbers, curves, best
        values = [value for curve in curves for value in curve.values if isfinite(value)] or [0.0]
        margin = 0.06 * (max(values) - min(values)) or 0.5
        self.low, self.high = min(values) - margin, max(values) + margin
        self.image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), "white")
        self.pen = ImageDraw.Draw(self.image)

    def x(self, epoch: float) -> float:
        first, last = self.numbers[0] - 0.5, self.numbers[-1] + 0.5
        return (epoch - first) / (last - first) * WIDTH * FINE

    def y(self, value: float) -> float:
        return (self.high - value) / (self.high - self.low) * HEIGHT * FINE

    def show(self, sheet: Sheet, left: int, top: int, label: str) -> None:
        """Draw the plot on a sheet, its upper left corner at (left, top) of the body."""
        for value in ticks(self.low, self.high, 6):
            self.line((0, self.y(value)), (WIDTH * FINE, self.y(value)), GRID, 1)
            sheet.write(f"{value:g}", left - 6, top + self.y(value) / FINE, TEXT, anchor="rm")
        for epoch in sorted({round(at) for at in ticks(self.numbers[0], self.numbers[-1], 8)}):
            self.line((self.x(epoch), 0), (self.x(epoch), HEIGHT * FINE), GRID, 1)
            below = top + HEIGHT + 6
            sheet.write(str(epoch), left + self.x(epoch) / FINE, below, TEXT, anchor="ma")
        if self.best is not None:
            at = self.x(self.best)
            self.line((at, 0), (at, HEIGHT * FINE), "black", 1, on=2, off=4)
        for curve in self.curves:
            self.draw(curve)
        sheet.show(self.image.resize((WIDTH, HEIGHT), Image.Resampling.BOX), left, top, 1)
        sheet.write("epoch", left + WIDTH / 2, top + HEIGHT + TEXT + GAP, TEXT, anchor="ma")
        sheet.write(label, left, top - 5, TEXT, anchor="ls")
        self.legend(sheet, left + WIDTH, top - 5)

    def draw(self, curve: Curve) -> None:
        """Draw a curve, with a dot per epoch for up to 60 points."""
        points = [
            (self.x(number), self.y(value))
            for number, value in zip(self.numbers, curve.values, strict=True)
            if isfinite(value)
        ]
        numbers = [n for n, v in zip(self.numbers, curve.values, strict=True) if isfinite(v)]
        for (m, start), (n, end) in pairwise(zip(numbers, points, strict=True)):
            if n == m + 1:
                self.line(start, end, curve.ink, 2, on=8 if curve.dashed else 0, off=5)
        radius = 3 * FINE
        for x, y in points if len(points) <= 60 else ():
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=curve.ink)

    def line(
        self, start: Point, end: Point, ink: str, width: int, *, on: int = 0, off: int = 0
    ) -> None:
        """Draw a straight line, dashed by `on` and `off` pixels; on = 0 is solid."""
        (x0, y0), (x1, y1) = start, end
        length = hypot(x1 - x0, y1 - y0)
        dash = on * FINE or length
        at = 0.0
        while at < length:
            ends = (at / length, min(at + dash, length) / length)
            a, b = ((x0 + t * (x1 - x0), y0 + t * (y1 - y0)) for t in ends)
            self.pen.line((*a, *b), fill=ink, width=width * FINE)
            at += dash + off * FINE

    def legend(self, sheet: Sheet, right: float, y: float) -> None:
        """Write the curves' names in their colors, ending at `right`."""
        names = [(curve.name, curve.ink) for curve in self.curves]
        names += [(f"best: epoch {self.best}", "black")] if self.best is not None else []
        for name, ink in reversed(names):
            sheet.write(name, right, y, TEXT, anchor="rs", ink=ink)
            right -= text_width([name], TEXT) + 2 * GAP
