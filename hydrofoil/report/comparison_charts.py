"""The charts of a comparison's page, as SVG: each run's accuracy, intervals, learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hydrofoil.report.charts import Plane, short, svg, tag, ticks

Values = Sequence[float | None]


def dots(sides: Sequence[tuple[str, str, Sequence[float]]], title: str, *, joined: bool) -> Markup:
    """Draw the accuracies of each side as a column of dots, optionally joined by seed.

    Args:
        sides: Letter, label, and accuracies in percent.
        title: For screen readers; its last word names the part of the split.
        joined: Whether the n-th runs of all sides belong together.
    """
    values = [value for *_, accuracies in sides for value in accuracies]
    low, high = min(values), max(values)
    margin = (high - low) * 0.1 or 1.0
    plane = Plane((0.0, 1.0), (low - margin, high + margin))
    plane.right = 12.0
    parts = plane.axes((), ticks(plane.y0, plane.y1, 5), "", "accuracy (%)")
    columns = [plane.x((number + 0.5) / len(sides)) for number in range(len(sides))]
    for run in zip(*(accuracies for *_, accuracies in sides), strict=True) if joined else ():
        at = (f"{x:.1f} {plane.y(value):.1f}" for x, value in zip(columns, run, strict=True))
        parts.append(tag("path", d=f"M{'L'.join(at)}", class_="grid"))
    room = (plane.width - plane.left - plane.right) / len(sides)
    for number, (letter, label, accuracies) in enumerate(sides):
        x = columns[number]
        parts += [
            tag("circle", cx=x, cy=plane.y(value), r=4.5, class_=f"dot s{number}")
            for value in accuracies
        ]
        mean, half = plane.y(sum(accuracies) / len(accuracies)), min(26.0, room * 0.4)
        parts.append(
            tag("path", d=f"M{x - half:.1f} {mean:.1f}H{x + half:.1f}", class_=f"line s{number}")
        )
        at = {"x": x, "y": plane.height - 14, "text_anchor": "middle"}
        parts.append(tag("text", letter, **at, class_=f"label s{number}"))
        if label and (letters := int(room / 6.8)) >= 12:
            below = {**at, "y": plane.height + 1}
            parts.append(tag("text", short(label, letters), **below, class_="tick"))
    return svg(plane.width, plane.height + 8, title, *parts)


def differences(rows: Sequence[tuple[str, float, float, float]], title: str) -> Markup:
    """Draw differences with an interval each, one per row, and a line at zero.

    Args:
        rows: Name, difference, lower and upper bound, in points.
        title: For screen readers.
    """
    lows, highs = [low for *_, low, _ in rows], [high for *_, high in rows]
    reach = max(max(highs), 0.0) - min(*lows, 0.0) or 1.0
    bounds = (min(*lows, 0.0) - 0.08 * reach, max(*highs, 0.0) + 0.08 * reach)
    plane, down = Plane(bounds, (0, 1)), 26.0
    plane.width, plane.right = 560.0, 12.0
    plane.left = min(184.0, 24 + 7.6 * max(len(name) for name, *_ in rows))
    plane.height = 36 + down * len(rows)
    bottom = plane.height - 30
    parts: list[Markup] = []
    for value in ticks(*bounds, 6):
        x = plane.x(value)
        at = {"x": x, "y": bottom + 16, "class_": "tick", "text_anchor": "middle"}
        parts.append(tag("path", d=f"M{x:.1f} 2V{bottom:.1f}", class_="grid"))
        parts.append(tag("text", f"{value:+g}" if value else "0", **at))
    parts.append(tag("path", d=f"M{plane.x(0):.1f} 2V{bottom:.1f}", class_="mark"))
    for number, (name, points, low, high) in enumerate(rows):
        y = 4 + down * (number + 0.5)
        at = {"x": plane.left - 8, "y": y + 4, "class_": "tick", "text_anchor": "end"}
        parts.append(tag("text", name, **at))
        span = f"M{plane.x(low):.1f} {y:.1f}H{plane.x(high):.1f}"
        parts.append(tag("path", d=span, class_="span"))
        parts.append(tag("circle", cx=plane.x(points), cy=y, r=4.5, class_="dot s0"))
    return svg(plane.width, plane.height, title, *parts)


@dataclass(frozen=True)
class Spread:
    """One quantity of one side over epochs: its mean over seeds, and its range.

    Args:
        number: The side's, which gives the color.
        letter: Drawn at the end of the line; "" for none. The page's legend says whose it is.
        training: Dashed, with hollow dots; validation is solid.
        runs: The values of each run by epoch; None where nothing was measured.
    """

    number: int
    letter: str
    training: bool
    runs: Sequence[Values]

    def rows(self) -> list[tuple[int, float, float, float]]:
        """Return epoch, lowest, mean and highest value, where there are values."""
        found: list[tuple[int, float, float, float]] = []
        for place in range(max(map(len, self.runs), default=0)):
            at = [run[place] for run in self.runs if place < len(run)]
            values = [value for value in at if value is not None]
            if values:
                mean = sum(values) / len(values)
                found.append((place + 1, min(values), mean, max(values)))
        return found


def spreads(lines: Sequence[Spread], title: str, y_name: str) -> Markup:
    """Draw means over epochs with their range over seeds, each side in its color.

    Args:
        lines: At least one of them with a value.
        title: For screen readers.
        y_name: With its unit.
    """
    drawn = [(line, line.rows()) for line in lines]
    drawn = [(line, rows) for line, rows in drawn if rows]
    bounds = [value for _, rows in drawn for row in rows for value in row[1:]]
    last = max(rows[-1][0] for _, rows in drawn)
    margin = (max(bounds) - min(bounds)) * 0.05 or abs(max(bounds)) * 0.05 or 1.0
    span = (1.0, float(last)) if last > 1 else (0.5, 1.5)
    plane = Plane(span, (min(bounds) - margin, max(bounds) + margin))
    plane.right = 24.0
    x_ticks = [value for value in ticks(1, last) if value == int(value)] if last > 1 else [1]
    parts = plane.axes(x_ticks, ticks(plane.y0, plane.y1, 5), "epoch", y_name)
    for line, rows in drawn:
        parts += _band(line, rows, plane)
    for line, rows in drawn:
        parts += _mean(line, rows, plane)
    return svg(plane.width, plane.height, title, *parts, *_names(drawn, plane))


def _band(line: Spread, rows: list[tuple[int, float, float, float]], plane: Plane) -> list[Markup]:
    """Return the range over seeds, as an area or, of one epoch, a vertical line."""
    if len(line.runs) < 2:
        return []
    if len(rows) == 1:
        epoch, low, _, high = rows[0]
        x = plane.x(epoch) + _aside(line)
        path = f"M{x:.1f} {plane.y(low):.1f}V{plane.y(high):.1f}"
        return [tag("path", d=path, class_=f"line s{line.number}")]
    upper = [f"{plane.x(epoch):.1f} {plane.y(high):.1f}" for epoch, _, _, high in rows]
    lower = [f"{plane.x(epoch):.1f} {plane.y(low):.1f}" for epoch, low, _, _ in reversed(rows)]
    return [tag("path", d=f"M{'L'.join(upper + lower)}Z", class_=f"band s{line.number}")]


def _aside(line: Spread) -> float:
    """Return how far from the middle a side's only epoch is drawn, so that none covers another."""
    return 22.0 * line.number - 40 + (8 if line.training else 0)


def _mean(line: Spread, rows: list[tuple[int, float, float, float]], plane: Plane) -> list[Markup]:
    """Return the mean as a line, with a dot per epoch for up to 30 epochs."""
    aside = _aside(line) if len(rows) == 1 else 0.0
    at = [(plane.x(epoch) + aside, plane.y(mean)) for epoch, _, mean, _ in rows]
    kind = f"s{line.number}{' training' if line.training else ''}"
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    parts = [tag("path", d=f"M{path}", class_=f"line {kind}")]
    radius = 2.5 if len(at) > 1 else 4.5
    if len(at) <= 30:
        parts += [tag("circle", cx=x, cy=y, r=radius, class_=f"dot {kind}") for x, y in at]
    return parts


def _names(
    drawn: Sequence[tuple[Spread, list[tuple[int, float, float, float]]]], plane: Plane
) -> list[Markup]:
    """Return the sides' letters at the lines' ends, moved apart to avoid overlaps."""
    ends = sorted(
        (plane.y(rows[-1][2]), line.letter, line.number) for line, rows in drawn if line.letter
    )
    heights = [y for y, *_ in ends]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + 14)
    over = max(0.0, heights[-1] - (plane.height - plane.bottom)) if heights else 0.0
    x = plane.width - plane.right + 7
    return [
        tag("text", letter, x=x, y=y + 4 - over, class_=f"label s{number}")
        for y, (_, letter, number) in zip(heights, ends, strict=True)
    ]
