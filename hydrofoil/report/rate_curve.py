"""The curve of a learning-rate range test: a table for the terminal, and a PNG file."""

from collections.abc import Sequence
from math import isfinite, log10

from PIL import Image, ImageDraw

from hydrofoil.report.charts import ticks
from hydrofoil.report.curves import BELOW, FINE, GRID, HEIGHT, LEFT, TRAIN, VALID, WIDTH
from hydrofoil.report.sheet import GAP, TEXT, Sheet
from hydrofoil.terminal import table

ROWS = 12
SPACE = 0.06  # of the loss's range, above and below


def rate_lines(rates: Sequence[float], smoothed: Sequence[float]) -> str:
    """Return some of the rates with their smoothed losses, for the terminal."""
    step = max(1, -(-len(smoothed) // ROWS))
    shown = range(len(smoothed) - 1, -1, -step)
    rows = [[f"{rates[n]:.2g}", f"{smoothed[n]:.4f}"] for n in reversed(shown)]
    return table([["learning rate", "smoothed loss"], *rows], 2)


def rate_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float,
    heading: str,
) -> bytes:
    """Draw each step's loss as a dot and the running mean as a line, over the rate's logarithm.

    Args:
        rates: Of each step.
        losses: Each step's loss; the last may not be finite.
        smoothed: The running mean, of the finite ones.
        suggestion: The rate to mark.
        heading: Above the plot.
    """
    start = smoothed[0]
    top = max(value for value in smoothed if value <= 2 * start or value == min(smoothed))
    low = min(smoothed)
    space = SPACE * (top - low) or 0.5
    low, top = low - space, top + space
    first, last = log10(rates[0]), log10(rates[-1])
    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), "white")
    pen = ImageDraw.Draw(image)

    def place(rate: float, loss: float) -> tuple[float, float]:
        x = (log10(rate) - first) / (last - first) * WIDTH * FINE
        return x, (top - loss) / (top - low) * HEIGHT * FINE

    sheet = Sheet((LEFT + WIDTH + 2 * GAP, TEXT + GAP + HEIGHT + BELOW), heading)
    for value in ticks(low, top, 6):
        y = place(rates[0], value)[1]
        pen.line((0, y, WIDTH * FINE, y), fill=GRID, width=FINE)
        sheet.write(f"{value:g}", LEFT - 6, TEXT + GAP + y / FINE, TEXT, anchor="rm")
    for power in range(int(-(-first // 1)), int(last // 1) + 1):
        x = place(10.0**power, low)[0]
        pen.line((x, 0, x, HEIGHT * FINE), fill=GRID, width=FINE)
        sheet.write(f"{10.0**power:g}", LEFT + x / FINE, TEXT + GAP + HEIGHT + 6, TEXT, anchor="ma")
    for rate, loss in zip(rates, losses, strict=True):
        if isfinite(loss):
            x, y = place(rate, loss)
            pen.ellipse((x - FINE, y - FINE, x + FINE, y + FINE), fill=TRAIN)
    points = [place(rate, loss) for rate, loss in zip(rates, smoothed, strict=False)]
    pen.line(points, fill=VALID, width=2 * FINE)
    x = place(min(max(suggestion, rates[0]), rates[-1]), low)[0]
    pen.line((x, 0, x, HEIGHT * FINE), fill="black", width=FINE)
    size = (WIDTH, HEIGHT)
    sheet.show(image.resize(size, Image.Resampling.BOX), LEFT, TEXT + GAP, 1)
    below = TEXT + GAP + HEIGHT + TEXT + GAP
    sheet.write("learning rate", LEFT + WIDTH / 2, below, TEXT, anchor="ma")
    sheet.write("loss (nats)", LEFT, TEXT + GAP - 5, TEXT, anchor="ls")
    sheet.write(f"suggested: {suggestion:g}", LEFT + WIDTH, TEXT + GAP - 5, TEXT, anchor="rs")
    return sheet.png()
