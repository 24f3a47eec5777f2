"""Charts as SVG, inlined; their colors are the page's, light or dark.

Every element is made by `tag`, which escapes text and attributes: no name becomes markup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10

from markupsafe import Markup, escape

from hydrofoil.wording import percent

Point = tuple[float, float]
LONGEST = 14  # characters of a name at the end of its line


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; text and attributes are escaped, `class_` is class, `a_b` is a-b.

    >>> tag("text", "<script>", x=1.0, class_="n")
    Markup('<text x="1" class="n">&lt;script&gt;</text>')
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
    )
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{given}>{inside}</{name}>")  # every part is escaped


def _number(value: object) -> object:
    """Return a coordinate with at most one decimal, which halves a chart's bytes."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def short(name: str, most: int) -> str:
    """Return a name shortened in the middle; runs and classes differ at the end.

    >>> short("cifar10-lenet-12", 14)
    'cifa…-lenet-12'
    """
    if len(name) <= most:
        return name
    begin = most // 3
    return f"{name[:begin]}…{name[begin + 1 - most :]}"


def svg(width: float, height: float, title: str, *children: object) -> Markup:
    """Return a chart whose title is also its label for screen readers."""
    return tag(
        "svg",
        tag("title", title),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from low to high, about `most` of them.

    >>> ticks(0.0, 2.3)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    spread = high - low
    if not spread > 0:
        return [low]
    rough = spread / most
    power = 10.0 ** floor(log10(rough))
    step = next(power * by for by in (1, 2, 5, 10) if power * by >= rough * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: Drawn at its end.
        kind: The page's class for its color and dash: "train", "valid", "s0" to "s7", or
            "s0 training", dashed.
        points: x and y; a non-finite y leaves a gap.
    """

    name: str
    kind: str
    points: Sequence[Point]


class Plane:
    """A plot's rectangle, axes and coordinates."""

    width, height = 440.0, 270.0
    left, right, top, bottom = 52.0, 92.0, 26.0, 40.0

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        (self.x0, self.x1), (self.y0, self.y1) = xs, ys

    def x(self, value: float) -> float:
        """Return the horizontal place of a value."""
        share = (value - self.x0) / ((self.x1 - self.x0) or 1)
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
        share = (value - self.y0) / ((self.y1 - self.y0) or 1)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def axes(
        self, x_ticks: Iterable[float], y_ticks: Iterable[float], x_name: str, y_name: str
    ) -> list[Markup]:
        """Return grid, tick labels and axis names; the vertical axis's name is above it."""
        low, end = self.height - self.bottom, self.width - self.right
        parts = [tag("text", y_name, x=2, y=13, class_="name")]
        for value in y_ticks:
            y = self.y(value)
            parts.append(tag("path", d=f"M{self.left:.1f} {y:.1f}H{end:.1f}", class_="grid"))
            parts.append(
                tag(
                    "text", f"{value:g}", x=self.left - 6, y=y + 4, class_="tick", text_anchor="end"
                )
            )
        for value in x_ticks:
            x = self.x(value)
            parts.append(
                tag("text", f"{value:g}", x=x, y=low + 17, class_="tick", text_anchor="middle")
            )
        middle = (self.left + end) / 2
        parts.append(
            tag("text", x_name, x=middle, y=self.height - 5, class_="name", text_anchor="middle")
        )
        return parts


def curves(
    lines: Sequence[Line],
    title: str,
    y_name: str,
    mark: float | None = None,
    x_name: str = "epoch",
    *,
    named: bool = True,
) -> Markup:
    """Draw lines over epochs, each with its name at its end, and mark one epoch.

    Args:
        lines: At least one, with at least one finite point.
        title: For screen readers.
        y_name: With its unit.
        mark: The best epoch.
        x_name: Of the horizontal axis.
        named: Whether names are drawn; a page may have a legend instead.
    """
    points = [p for line in lines for p in line.points if isfinite(p[1])]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    plane = Plane((min(xs), max(max(xs), min(xs) + 1)), (low - margin, high + margin))
    x_ticks = [value for value in ticks(plane.x0, plane.x1) if value == int(value)]
    y_ticks = ticks(plane.y0, plane.y1, 5)
    _fit_margins(plane, y_ticks, [line.name for line in lines] if named else [])
    parts = plane.axes(x_ticks, y_ticks, x_name, y_name)
    if mark is not None:
        x = plane.x(mark)
        parts.append(
            tag("path", d=f"M{x:.1f} {plane.top - 4:.1f}V{plane.y(plane.y0):.1f}", class_="mark")
        )
        anchor = "end" if x > plane.width - plane.right - 70 else "start"
        parts.append(
            tag(
                "text", f"best: {mark:g}", x=x + (4 if anchor == "start" else -4), y=plane.top + 4,
                class_="tick", text_anchor=anchor,
            )
        )  # fmt: skip
    for line in lines:
        parts += _drawn(line, plane)
    return svg(plane.width, plane.height, title, *parts, *(_ends(lines, plane) if named else []))


def _fit_margins(plane: Plane, y_ticks: Iterable[float], names: Iterable[str]) -> None:
    """Widen the margins to what is written there: tick labels left, names right."""
    plane.left = max(plane.left, 14 + 7.0 * max(len(f"{value:g}") for value in y_ticks))
    plane.right = max([24.0, *(16 + 7.6 * len(short(name, LONGEST)) for name in names)])


def _drawn(line: Line, plane: Plane) -> list[Markup]:
    """Return a line's path, with gaps at missing values, and dots for up to 30 points."""
    at = [(plane.x(x), plane.y(y)) if isfinite(y) else None for x, y in line.points]
    path, pen = "", "M"
    for point in at:
        path += "" if point is None else f"{pen}{point[0]:.1f} {point[1]:.1f}"
        pen = "M" if point is None else "L"
    parts = [tag("path", d=path, class_=f"line {line.kind}")]
    if len(at) <= 30:
        parts += [
            tag("circle", cx=point[0], cy=point[1], r=2.5, class_=f"dot {line.kind}")
            for point in at
            if point
        ]
    return parts


def _ends(lines: Sequence[Line], plane: Plane) -> list[Markup]:
    """Return the lines' names at their ends, moved apart to avoid overlaps."""
    finite = [(line, [p for p in line.points if isfinite(p[1])]) for line in lines]
    ends = sorted(
        (plane.y(points[-1][1]), plane.x(points[-1][0]), line.name, line.kind)
        for line, points in finite
        if points
    )
    heights = [y for y, *_ in ends]
    for _ in range(20):
        for i, (upper, lower) in enumerate(pairwise(heights)):
            if lower - upper < 14:
                heights[i], heights[i + 1] = (upper + lower) / 2 - 7, (upper + lower) / 2 + 7
    return [
        tag("text", short(name, LONGEST), x=x + 7, y=y + 4, class_=f"label {kind}")
        for y, (_, x, name, kind) in zip(heights, ends, strict=True)
    ]


def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, all_of: float) -> Markup:
    """Draw shares with their 95% intervals, one per row, against the overall share.

    Args:
        rows: Name, share, lower and upper bound, from 0 to 1.
        title: For screen readers.
        all_of: The overall share, a vertical line.
    """
    left = min(180.0, 16 + 7.2 * max(len(name) for name, *_ in rows))
    down, width = 22.0, 560.0
    plane = Plane((_floor_tenth(min([low for _, _, low, _ in rows] + [all_of])), 1.0), (0, 1))
    plane.width, plane.left, plane.right = width, left, 62.0
    plane.height = 34 + down * len(rows)
    bottom = plane.height - 28
    parts: list[Markup] = []
    for value in ticks(plane.x0, 1.0, 5):
        x = plane.x(value)
        parts.append(tag("path", d=f"M{x:.1f} 2V{bottom:.1f}", class_="grid"))
        at = {"x": x, "y": bottom + 15, "class_": "tick", "text_anchor": "middle"}
        parts.append(tag("text", percent(value, 0), **at))
    x = plane.x(all_of)
    parts.append(tag("path", d=f"M{x:.1f} 2V{bottom:.1f}", class_="mark"))
    for number, (name, share, low, high) in enumerate(rows):
        y = 4 + down * (number + 0.5)
        at = {"x": left - 8, "y": y + 4, "class_": "tick", "text_anchor": "end"}
        parts.append(tag("text", short(name, 24), **at))
        span = f"M{plane.x(low):.1f} {y:.1f}H{plane.x(high):.1f}"
        parts.append(tag("path", d=span, class_="span"))
        parts.append(tag("circle", cx=plane.x(share), cy=y, r=4.5, class_="dot s0"))
        parts.append(tag("text", percent(share, 1), x=width - 56, y=y + 4, class_="tick"))
    return svg(width, plane.height, title, *parts)


def _floor_tenth(value: float) -> float:
    return max(0.0, floor(value * 10 - 1e-9) / 10)


@dataclass(frozen=True)
class Column:
    """One bin of a reliability diagram: predictions of similar confidence."""

    count: int
    confidence: float
    accuracy: float
    low: float
    high: float


def reliability(columns: Sequence[Column], title: str) -> Markup:
    """Draw accuracy against confidence; the bars at the bottom count images.

    A perfectly calibrated model lies on the diagonal.
    """
    plane = Plane((0.0, 1.0), (0.0, 1.0))
    plane.right, plane.height, plane.bottom = 20.0, 380.0, 116.0
    names = "confidence (probability of the predicted class)", "accuracy"
    parts = plane.axes(ticks(0, 1, 5), ticks(0, 1, 5), "", names[1])
    corners = f"M{plane.x(0):.1f} {plane.y(0):.1f}L{plane.x(1):.1f} {plane.y(1):.1f}"
    parts.append(tag("path", d=corners, class_="mark"))
    floor_y, most = plane.height - 22, max((one.count for one in columns), default=1)
    for one in columns:
        x = plane.x(one.confidence)
        gap = f"M{x:.1f} {plane.y(one.confidence):.1f}V{plane.y(one.accuracy):.1f}"
        parts.append(tag("path", d=gap, class_="gap"))
        span = f"M{x:.1f} {plane.y(one.low):.1f}V{plane.y(one.high):.1f}"
        parts.append(tag("path", d=span, class_="span"))
        parts.append(tag("circle", cx=x, cy=plane.y(one.accuracy), r=4.0, class_="dot s0"))
        high = 56 * one.count / most
        at = {"x": x - 5, "y": floor_y - high, "width": 10.0, "height": high, "class_": "bar"}
        parts.append(tag("rect", **at))
    parts.append(tag("path", d=f"M{plane.x(0):.1f} {floor_y:.1f}H{plane.x(1):.1f}", class_="grid"))
    parts.append(tag("text", "images", x=2, y=floor_y - 50, class_="tick"))
    middle, low = plane.x(0.5), plane.height - 6
    parts.append(tag("text", names[0], x=middle, y=low, class_="name", text_anchor="middle"))
    return svg(plane.width, plane.height, title, *parts)


def shares(parts: Sequence[tuple[str, float]], title: str) -> Markup:
    """Draw parts of a total as one bar, with a legend of name, seconds and share.

    Args:
        parts: Name and seconds.
        title: For screen readers.
    """
    width, total = 560.0, sum(seconds for _, seconds in parts) or 1.0
    drawn: list[Markup] = []
    left = 0.0
    for number, (name, seconds) in enumerate(parts):
        wide = width * seconds / total
        box = {
            "x": left,
            "y": 0,
            "width": max(wide, 0.5),
            "height": 30,
            "class_": f"part p{number}",
        }
        drawn.append(tag("rect", tag("title", name), **box))
        left += wide
        row, column = divmod(number, 2)
        x, y = column * width / 2, 50.0 + row * 22
        swatch = {"x": x, "y": y - 10, "width": 12, "height": 12, "class_": f"part p{number}"}
        drawn.append(tag("rect", **swatch))
        words = f"{name}: {seconds:.2f} s, {percent(seconds / total, 0)}"
        drawn.append(tag("text", words, x=x + 18, y=y, class_="tick"))
    return svg(width, 46 + 22 * ceil(len(parts) / 2), title, *drawn)
