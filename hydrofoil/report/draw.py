"""Figures as PNG bytes: picture grids, one picture's pixels, the confusion matrix, explanations.

They are laid out here, in pixels, and drawn by Pillow: a picture's pixel becomes a square of them,
every line is measured before it is placed, and nobody waits for matplotlib's import, which costs
ten times all the drawing of a test; only `curves` needs it.

Axes: N pictures or filters, C channels, M feature maps, H rows, W columns, K classes.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hydrofoil.evaluate.explain import FeatureMaps, Filters, GradCam, Occlusion

# Told apart by people who see red and green alike: the one is darker, and wrong titles name two
# classes.
RIGHT, WRONG = "#1a7f37", "#cf222e"
FRAME, FAINT, SUBDUED = "#8c959f", "#b8bec5", "#57606a"
# ColorBrewer's Blues, from 0 to 1 (https://colorbrewer2.org/#type=sequential&scheme=Blues&n=9).
BLUES = ("f7fbff", "deebf7", "c6dbef", "9ecae1", "6baed6", "4292c6", "2171b5", "08519c", "08306b")
# matplotlib's inferno, from 0 to 1 (Smith and van der Walt 2015): as much lighter as larger, in the
# same way for every kind of colour vision. Seventeen of its 256 colours.
INFERNO = (
    "000003", "0a0723", "200c4a", "3c0965", "570f6d", "70196e",
    "892269", "a32b61", "bb3754", "d14643", "e45a31", "f1721d",
    "f98e08", "fbac10", "f8cb34", "f1e968", "fcfea4",
)  # fmt: skip
# ColorBrewer's PuOr, from -1 to 1 (https://colorbrewer2.org/#type=diverging&scheme=PuOr&n=11): its
# two sides are told apart by everybody.
PUOR = (
    "2d004b", "542788", "8073ac", "b2abd2", "d8daeb", "f7f7f7",
    "fee0b6", "fdb863", "e08214", "b35806", "7f3b08",
)  # fmt: skip

# Pixels.
HEADING, LARGE, TEXT, SMALL = 18, 15, 13, 10  # heights of type
MARGIN, GAP = 14, 12  # around a figure, between its parts
HEAT = 0.65  # of an overlay's colour; the rest is the picture

Font = ImageFont.FreeTypeFont


@cache
def _font(height: int) -> Font:
    """Return matplotlib's own typeface, without its import, else Pillow's: fewer alphabets."""
    package = find_spec("matplotlib")
    if package and package.origin:
        path = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC)
    return cast("Font", ImageFont.load_default(height))


def _widest(lines: Iterable[str], font: Font) -> int:
    return ceil(max(map(font.getlength, lines), default=0))


class _Sheet:
    """A white sheet with its heading in the middle of the top, and room for a body below.

    Args:
        body: Width and height.
        heading: May be wider than the body; empty: none.
    """

    def __init__(self, body: tuple[int, int], heading: str) -> None:
        width = max(body[0], _widest([heading], _font(HEADING))) + 2 * MARGIN
        self.left = (width - body[0]) // 2
        self.top = MARGIN + (HEADING + GAP if heading else 0)
        self.image = Image.new("RGB", (width, self.top + body[1] + MARGIN), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.write(heading, width // 2 - self.left, MARGIN - self.top, HEADING, anchor="ma")

    def write(
        self, text: str, x: float, y: float, height: int, *, anchor: str = "mm", ink: str = "black"
    ) -> None:
        """Write a line; x and y are of the body, the anchor is Pillow's."""
        at = (self.left + x, self.top + y)
        self.pen.text(at, text, ink, _font(height), anchor=anchor)

    def write_upwards(self, text: str, x: float, y: float, height: int) -> None:
        """Write a line turned to the left that ends at y, its lower-case letters around x."""
        font = _font(height)
        x_height = -font.getbbox("x", anchor="ls")[1]
        above = font.getbbox(text, anchor="ls")[1]  # the baseline, negative
        at = (round(self.left + x + x_height / 2 + above), self.top + y)
        turned = ImageFont.TransposedFont(font, Image.Transpose.ROTATE_90)
        self.pen.text(at, text, "black", turned)

    def show(self, image: Image.Image, x: int, y: int, scale: int) -> None:
        """Show an image, each pixel a square of scale × scale, framed."""
        width, height = image.width * scale, image.height * scale
        left, top = self.left + x, self.top + y
        self.image.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, top))
        self.pen.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)

    def png(self) -> bytes:
        return _png(self.image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # Against Pillow's level 6 half the time, a tenth to a third more bytes.
    image.save(file, "png", compress_level=1)
    return file.getvalue()


def as_image(picture_CHW: Tensor) -> Image.Image:
    """Return a uint8 picture, grey or colour, as Pillow's."""
    picture_HWC = picture_CHW.permute(1, 2, 0).numpy()
    return Image.fromarray(picture_HWC[:, :, 0] if picture_HWC.shape[2] == 1 else picture_HWC)


def _scale(picture_shape: Sequence[int], side: int) -> int:
    """Return how many pixels one becomes for a picture about so many wide or high."""
    return max(1, round(side / max(picture_shape[-2:])))


def picture_grid(
    pictures_NCHW: Tensor,
    titles: Sequence[str],
    colours: Sequence[str] = (),
    heading: str = "",
    columns: int = 10,
) -> bytes:
    """Draw pictures in rows, each under its title.

    Titles that are wider than a picture are broken before their bracket, then set small; where
    that is not enough, the columns are set apart.

    Args:
        pictures_NCHW: uint8.
        titles: One for each picture.
        colours: Of the titles; default: black.
        heading: Above all of them.
        columns: Pictures a row.
    """
    scale = _scale(pictures_NCHW.shape, 128)
    height, width = (side * scale for side in pictures_NCHW.shape[2:])
    lines, type_height = [[title] for title in titles], TEXT
    if _widest(titles, _font(TEXT)) > width:
        lines = [title.replace(" (", "\n(").split("\n") for title in titles]
        if _widest((line for title in lines for line in title), _font(TEXT)) > width:
            type_height = SMALL
    widest = _widest((line for title in lines for line in title), _font(type_height))
    leading = type_height + 3
    above = leading * max(map(len, lines), default=0) + 4
    right, down = max(width, widest) + GAP, above + height + GAP
    columns = min(columns, max(len(titles), 1))
    rows = ceil(len(titles) / columns)
    sheet = _Sheet((right * columns - GAP, down * rows - GAP), heading)
    for place, title in enumerate(lines):
        x, y = place % columns * right, place // columns * down + above
        middle = x + (right - GAP) // 2
        sheet.show(as_image(pictures_NCHW[place]), middle - width // 2, y, scale)
        ink = colours[place] if colours else "black"
        for number, line in enumerate(reversed(title)):
            sheet.write(line, middle, y - 7 - number * leading, type_height, anchor="ms", ink=ink)
    return sheet.png()


def class_rows(
    pictures_NCHW: Tensor, labels_N: Tensor, classes: Sequence[str], heading: str, columns: int = 12
) -> bytes:
    """Draw a row of pictures for each class that has any, beside the class's name."""
    scale = _scale(pictures_NCHW.shape, 88)
    height, width = (side * scale for side in pictures_NCHW.shape[2:])
    gap = GAP // 2
    shown = [k for k in range(len(classes)) if bool((labels_N == k).any())]
    names = _widest((classes[k] for k in shown), _font(TEXT)) + GAP
    body = (names + columns * (width + gap) - gap, len(shown) * (height + gap) - gap)
    sheet = _Sheet(body, heading)
    for row, k in enumerate(shown):
        y = row * (height + gap)
        sheet.write(classes[k], names - GAP, y + height / 2, TEXT, anchor="rm")
        for column, picture_CHW in enumerate(pictures_NCHW[labels_N == k][:columns]):
            sheet.show(as_image(picture_CHW), names + column * (width + gap), y, scale)
    return sheet.png()


def pixel_values(picture_CHW: Tensor, title: str) -> bytes:
    """Draw one picture large, a panel a channel, every pixel's value, 0 to 255, in its cell."""
    C, H, W = picture_CHW.shape
    cell, numbers = 36, 24
    panel = numbers + cell * W + GAP
    above = numbers + (TEXT + GAP if C == 3 else 0)
    sheet = _Sheet((panel * C - GAP, above + cell * H), title)
    for channel in range(C):
        left = channel * panel + numbers
        if C == 3:
            name = ("red", "green", "blue")[channel]
            sheet.write(name, left + cell * W / 2, 0, TEXT, anchor="ma")
        for column in range(0, W, 4):
            sheet.write(str(column), left + cell * (column + 0.5), above - numbers / 2, SMALL)
        for row in range(0, H, 4):
            sheet.write(str(row), left - 6, above + cell * (row + 0.5), SMALL, anchor="rm")
        sheet.show(as_image(picture_CHW[channel : channel + 1]), left, above, cell)
        for row, values in enumerate(picture_CHW[channel].tolist()):
            for column, value in enumerate(values):
                x, y = left + cell * (column + 0.5), above + cell * (row + 0.5)
                sheet.write(str(value), x, y, TEXT, ink="black" if value > 110 else "white")
    return sheet.png()


def _coloured(
    values_HW: NDArray[np.floating], colours: Sequence[str], low: float = 0
) -> Image.Image:
    """Return one pixel a value: colours from low to 1, linear between them."""
    at = np.linspace(low, 1, len(colours))
    channels = [
        np.interp(values_HW, at, channel)
        for channel in zip(*map(bytes.fromhex, colours), strict=True)
    ]
    return Image.fromarray(np.stack(channels, axis=2).round().astype(np.uint8))


def confusion_matrix(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], heading: str
) -> bytes:
    """Draw a confusion matrix: rows the truth, columns the answers, shade the share of the row.

    Up to 20 classes every cell shows its number; names too long to stand side by side are turned.
    """
    K, legend = len(classes), "predicted (shade: share of the row)"
    numbered = K <= 20
    cell = 64 if numbered else min(64, max(8, 1600 // K))
    cell = max(cell, ceil(_widest([legend], _font(TEXT)) / K))  # two classes: large cells
    type_height = LARGE if numbered else max(6, min(TEXT, cell - 4))
    names = _widest(classes, _font(type_height))
    if numbered and names <= 96:
        cell = max(cell, names + GAP)
    upwards = names > cell - 4
    side, left = cell * K, TEXT + GAP + names + GAP // 2
    below = side + GAP // 2 + (names if upwards else type_height) + GAP
    sheet = _Sheet((left + side, below + TEXT), heading)
    shares_KK = [[count / max(sum(row), 1) for count in row] for row in confusion]
    sheet.show(_coloured(np.array(shares_KK), BLUES), left, 0, cell)
    for i, row in enumerate(confusion):
        middle = cell * i + cell / 2
        sheet.write(classes[i], left - GAP // 2, middle, type_height, anchor="rm")
        if upwards:
            sheet.write_upwards(classes[i], left + middle, side + GAP // 2, type_height)
        else:
            sheet.write(classes[i], left + middle, side + GAP // 2, type_height, anchor="ma")
        for k, count in enumerate(row if numbered else ()):
            ink = "white" if shares_KK[i][k] > 0.5 else "black" if count else FAINT
            sheet.write(str(count), left + cell * (k + 0.5), middle, LARGE, ink=ink)
    sheet.write(legend, left + side / 2, below, TEXT, anchor="ma")
    truth = _widest(["truth"], _font(TEXT))
    sheet.write_upwards("truth", TEXT / 2, (side - truth) / 2, TEXT)
    return sheet.png()


# ── explanations ─────────────────────────────────────────────────────────────────────────────────


def heat_overlay(
    picture_CHW: Tensor, heat_HW: Tensor, *, signed: bool = False, scale: int = 1
) -> bytes:
    """Draw heat over a picture, with nothing around it: dark is none, bright is most.

    Args:
        picture_CHW: uint8; shown in grey, so that every colour is the heat's.
        heat_HW: From 0 to 1; signed: from -1 to 1, purple to orange, white for zero.
        signed: Whether heat may be negative.
        scale: Each pixel becomes a square of scale × scale.
    """
    image = _overlay(picture_CHW, heat_HW, signed=signed)
    return _png(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST))


def _overlay(picture_CHW: Tensor, heat_HW: Tensor, *, signed: bool) -> Image.Image:
    """Mix a picture's grey with colours; where white is zero the grey is light, so it stays so."""
    grey = as_image(picture_CHW).convert("L")
    if signed:
        grey = grey.point([128 + value // 2 for value in range(256)])
    colours, low = (PUOR, -1) if signed else (INFERNO, 0)
    return Image.blend(grey.convert("RGB"), _coloured(heat_HW.cpu().numpy(), colours, low), HEAT)


def _normed(values: Tensor) -> Tensor:
    """Divide by the largest magnitude."""
    return values / (float(values.abs().max()) or 1)


def filters(found: Filters, heading: str = "", most: int = 64) -> bytes:
    """Draw a first layer's filters: grey for zero, brighter above it, darker below.

    Those of three channels are in colour; those of any other number are a grey picture a channel.

    Args:
        found: The filters.
        heading: Above them; the scale is written below.
        most: At most so many are shown, those of the largest norm.
    """
    chosen = found.strongest(most)
    shown_NCHW = found.filters_NCHW[chosen].cpu()
    if shown_NCHW.shape[1] != 3:
        shown_NCHW = shown_NCHW.flatten(0, 1)[:, None]
    images = [as_image(((one_CHW + 1) * 127.5).round().byte()) for one_CHW in shown_NCHW]
    count = len(found.filters_NCHW)
    which = f"the {len(chosen)} strongest of {count}" if len(chosen) < count else f"all {count}"
    legend = (
        f"{found.layer}: {which}; black -{found.largest:.3g}, grey 0, white {found.largest:.3g}"
    )
    scale = _scale(shown_NCHW.shape, 64)
    right, down = (side * scale + GAP // 2 for side in (images[0].width, images[0].height))
    columns = min(16, len(images))
    if len(images) > columns:  # rows of equal length where that is nearly as wide
        columns = ceil(len(images) / ceil(len(images) / columns))
    rows = ceil(len(images) / columns)
    width = max(right * columns - GAP // 2, _widest([legend], _font(TEXT)))
    sheet = _Sheet((width, down * rows + GAP // 2 + TEXT), heading)
    left = (width - (right * columns - GAP // 2)) // 2
    for number, image in enumerate(images):
        sheet.show(image, left + number % columns * right, number // columns * down, scale)
    sheet.write(legend, width / 2, down * rows + GAP // 2, TEXT, anchor="ma")
    return sheet.png()


def feature_maps(layers: Sequence[FeatureMaps], heading: str = "", most: int = 12) -> bytes:
    """Draw a picture's activations, a row a layer: orange above zero, purple below, white zero.

    Args:
        layers: From `evaluate.explain.feature_maps`, one at least.
        heading: Above them.
        most: Maps a row; of more, those with the largest mean magnitude. Rows up to a layer that
            makes new maps show the same ones, so that a column is one map on its way.
    """
    rows = _MapRows(layers, most)
    sheet = _Sheet(rows.size, heading)
    rows.show(sheet, 0)
    return sheet.png()


class _MapRows:
    """Rows of feature maps, each behind its layer's name and scale, with a legend below.

    Args:
        layers: One at least.
        most: Maps a row.
    """

    LEGEND = "orange above zero, purple below, white zero; each layer by its own largest value"

    def __init__(self, layers: Sequence[FeatureMaps], most: int) -> None:
        self.layers, self.most = layers, most
        self.scales = [_scale(layer.maps_MHW.shape, 60) for layer in layers]
        names = _widest((layer.layer for layer in layers), _font(TEXT))
        details = (line for layer in layers for line in self._details(layer))
        self.left = max(names, _widest(details, _font(SMALL))) + GAP
        shapes = [layer.maps_MHW.shape for layer in layers]
        sides = [
            (H * scale, W * scale) for (_, H, W), scale in zip(shapes, self.scales, strict=True)
        ]
        self.heights = [max(height, TEXT + 2 * (SMALL + 5)) for height, _ in sides]
        self.column = max(width for _, width in sides) + GAP // 2
        columns = max(min(shape[0], most) for shape in shapes)
        widest = max(columns * self.column - GAP // 2, _widest([self.LEGEND], _font(TEXT)))
        self.size = (self.left + widest, sum(self.heights) + GAP * len(layers) + TEXT)

    def _details(self, layer: FeatureMaps) -> tuple[str, str]:
        """Return which maps a row shows, and the value of its full colours."""
        M, height, width = layer.maps_MHW.shape
        count = f"{self.most} of {M}" if self.most < M else str(M)
        below = "0 to " if bool((layer.maps_MHW >= 0).all()) else "to ±"
        top = f"{below}{float(layer.maps_MHW.abs().max()):.3g}"
        return f"{count} maps of {height}×{width}", top

    def _chosen(self) -> list[Tensor]:
        """Return which maps each row shows: through norm, activation and pooling the same ones."""
        chosen = [self.layers[-1].strongest(self.most)]
        for layer, following in reversed(list(pairwise(self.layers))):
            chosen.append(layer.strongest(self.most) if following.new else chosen[-1])
        return chosen[::-1]

    def show(self, sheet: _Sheet, top: int) -> None:
        rows = zip(self.layers, self._chosen(), self.scales, self.heights, strict=True)
        for layer, chosen, scale, high in rows:
            sheet.write(layer.layer, self.left - GAP, top, TEXT, anchor="ra")
            for number, line in enumerate(self._details(layer)):
                y = top + TEXT + 5 + number * (SMALL + 5)
                sheet.write(line, self.left - GAP, y, SMALL, anchor="ra", ink=SUBDUED)
            for column, map_HW in enumerate(_normed(layer.maps_MHW)[chosen].cpu()):
                image = _coloured(map_HW.numpy(), PUOR, -1)
                spare = self.column - GAP // 2 - image.width * scale, high - image.height * scale
                x = self.left + column * self.column + spare[0] // 2
                sheet.show(image, x, top + spare[1] // 2, scale)
            top += high + GAP
        sheet.write(self.LEGEND, self.left, top, TEXT, anchor="la", ink=SUBDUED)


@dataclass(frozen=True)
class _Panel:
    """A picture under two lines, over a bar that says what its colours mean.

    Args:
        image: One pixel a pixel of the picture.
        lines: Title and what is below it.
        colours: Of the bar; empty: none.
        marks: What the bar's left end, its middle and its right end stand for.
        frame: First and last row and column of what is framed.
    """

    image: Image.Image
    lines: tuple[str, str]
    colours: Sequence[str] = ()
    marks: tuple[str, str, str] = ("", "", "")
    frame: tuple[tuple[int, int], tuple[int, int]] | None = None

    def width(self, scale: int) -> int:
        """Return how wide it becomes, its lines and the bar's marks counted."""
        title, below = self.lines
        return max(
            self.image.width * scale,
            _widest([title], _font(LARGE)),
            _widest([below], _font(TEXT)),
            _widest(["   ".join(self.marks)], _font(SMALL)),
        )

    def show(self, sheet: _Sheet, left: int, scale: int) -> None:
        wide, high = self.image.width * scale, self.image.height * scale
        middle, top = left + self.width(scale) // 2, PANEL_ABOVE
        sheet.write(self.lines[0], middle, 0, LARGE, anchor="ma")
        sheet.write(self.lines[1], middle, LARGE + 5, TEXT, anchor="ma", ink=SUBDUED)
        x = middle - wide // 2
        sheet.show(self.image, x, top, scale)
        if self.frame:
            (first, last), (west, east) = self.frame
            box = [sheet.left + x + west * scale, sheet.top + top + first * scale]
            box += [sheet.left + x + (east + 1) * scale, sheet.top + top + (last + 1) * scale]
            for inset, ink in ((0, "black"), (1, "black"), (2, "white")):
                corners = (box[0] + inset, box[1] + inset, box[2] - 1 - inset, box[3] - 1 - inset)
                sheet.pen.rectangle(corners, outline=ink)
        if self.colours:
            bar = self.width(scale)
            low = -1 if self.colours is PUOR else 0
            values = np.linspace(low, 1, bar)[None].repeat(8, axis=0)
            sheet.show(_coloured(values, self.colours, low), left, top + high + GAP // 2, 1)
            y = top + high + GAP // 2 + 8 + 4
            for mark, at, anchor in zip(
                self.marks, (0, bar / 2, bar), ("la", "ma", "ra"), strict=True
            ):
                sheet.write(mark, left + at, y, SMALL, anchor=anchor)


PANEL_ABOVE, PANEL_BELOW = LARGE + TEXT + 14, GAP // 2 + 8 + 4 + SMALL + 4


def explanation(
    picture_CHW: Tensor,
    answer: str,
    class_name: str,
    cam: GradCam | None,
    hidden: Occlusion,
    layers: Sequence[FeatureMaps],
    heading: str = "",
) -> bytes:
    """Draw a picture, Grad-CAM and occlusion for a class side by side, and the feature maps below.

    Args:
        picture_CHW: uint8.
        answer: The most probable classes in a line, below the word "picture".
        class_name: The class that is explained.
        cam: Its first map is shown; a perceptron has none.
        hidden: Its strongest place is framed.
        layers: Empty: no maps.
        heading: Above all.
    """
    panels = [_Panel(as_image(picture_CHW).convert("RGB"), ("picture", answer))]
    if cam is not None:
        height, width = cam.coarse_NHW.shape[1:]
        heat = _overlay(picture_CHW, cam.heat_NHW[0], signed=False)
        found = f"{height}×{width}" if bool(cam.heat_NHW[0].any()) else "nothing speaks for it"
        lines = (f"Grad-CAM for {class_name}", f"layer {cam.layer}: {found}")
        panels.append(_Panel(heat, lines, INFERNO, ("no heat", "", "most")))
    largest = max(float(hidden.drops_HW.abs().max()), 0.01)  # less than a point is not blown up
    drop = _overlay(picture_CHW, hidden.drops_HW / largest, signed=True)
    lines = (
        f"occlusion for {class_name}",
        f"the frame covered: {100 * hidden.before:.1f} → {100 * hidden.after:.1f} %",
    )
    points = f"{100 * largest:.0f} points"
    marks = (f"rises {points}", "covered, in the mean", f"falls {points}")
    panels.append(_Panel(drop, lines, PUOR, marks, (hidden.rows, hidden.columns)))
    scale = _scale(picture_CHW.shape, 288)
    widths = [panel.width(scale) for panel in panels]
    wide = sum(widths) + 2 * GAP * (len(panels) - 1)
    high = PANEL_ABOVE + picture_CHW.shape[1] * scale + PANEL_BELOW
    rows = _MapRows(layers, 12) if layers else None
    body = (max(wide, rows.size[0]), high + GAP + rows.size[1]) if rows else (wide, high)
    sheet = _Sheet(body, heading)
    left = (body[0] - wide) // 2
    for panel, width in zip(panels, widths, strict=True):
        panel.show(sheet, left, scale)
        left += width + 2 * GAP
    if rows:
        rows.show(sheet, high + GAP)
    return sheet.png()
