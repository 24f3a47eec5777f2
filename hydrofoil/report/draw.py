"""Figures as PNG bytes: picture grids, one picture's pixels, the confusion matrix.

They are laid out here, in pixels, and drawn by Pillow: a picture's pixel becomes a square of them,
every line is measured before it is placed, and nobody waits for matplotlib's import, which costs
ten times all the drawing of a test; only `curves` needs it.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import io
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Told apart by people who see red and green alike: the one is darker, and wrong titles name two
# classes.
RIGHT, WRONG = "#1a7f37", "#cf222e"
FRAME, FAINT = "#8c959f", "#b8bec5"
# ColorBrewer's Blues, from 0 to 1 (https://colorbrewer2.org/#type=sequential&scheme=Blues&n=9).
BLUES = ("f7fbff", "deebf7", "c6dbef", "9ecae1", "6baed6", "4292c6", "2171b5", "08519c", "08306b")

# Pixels.
HEADING, LARGE, TEXT, SMALL = 18, 15, 13, 10  # heights of type
MARGIN, GAP = 14, 12  # around a figure, between its parts

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
        file = io.BytesIO()
        # Against Pillow's level 6 half the time, a tenth to a third more bytes.
        self.image.save(file, "png", compress_level=1)
        return file.getvalue()


def _image(picture_CHW: Tensor) -> Image.Image:
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
        sheet.show(_image(pictures_NCHW[place]), middle - width // 2, y, scale)
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
            sheet.show(_image(picture_CHW), names + column * (width + gap), y, scale)
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
        sheet.show(_image(picture_CHW[channel : channel + 1]), left, above, cell)
        for row, values in enumerate(picture_CHW[channel].tolist()):
            for column, value in enumerate(values):
                x, y = left + cell * (column + 0.5), above + cell * (row + 0.5)
                sheet.write(str(value), x, y, TEXT, ink="black" if value > 110 else "white")
    return sheet.png()


def _blues(shares_KK: list[list[float]]) -> Image.Image:
    """Return one pixel a cell, of the colour of its share from 0 to 1."""
    at = np.linspace(0, 1, len(BLUES))
    channels = [
        np.interp(shares_KK, at, channel)
        for channel in zip(*map(bytes.fromhex, BLUES), strict=True)
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
    sheet.show(_blues(shares_KK), left, 0, cell)
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
