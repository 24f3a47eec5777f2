"""A white sheet for figures, laid out in pixels and drawn by Pillow.

Text is measured before it is placed; an image's pixel becomes a square of pixels.

Axes: C channels, H rows, W columns.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from math import ceil
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Readable with red-green color blindness: one is darker, and misclassified titles name two classes.
CORRECT, MISCLASSIFIED = "#1a7f37", "#cf222e"
FRAME, FAINT, SUBDUED = "#8c959f", "#b8bec5", "#57606a"
# ColorBrewer's Blues, from 0 to 1 (https://colorbrewer2.org/#type=sequential&scheme=Blues&n=9).
BLUES = ("f7fbff", "deebf7", "c6dbef", "9ecae1", "6baed6", "4292c6", "2171b5", "08519c", "08306b")
# matplotlib's inferno, from 0 to 1 (Smith and van der Walt 2015): perceptually uniform, also with
# color blindness. Seventeen of its 256 colors.
INFERNO = (
    "000003", "0a0723", "200c4a", "3c0965", "570f6d", "70196e",
    "892269", "a32b61", "bb3754", "d14643", "e45a31", "f1721d",
    "f98e08", "fbac10", "f8cb34", "f1e968", "fcfea4",
)  # fmt: skip
# ColorBrewer's PuOr, from -1 to 1 (https://colorbrewer2.org/#type=diverging&scheme=PuOr&n=11): its
# two sides differ also with color blindness.
PUOR = (
    "2d004b", "542788", "8073ac", "b2abd2", "d8daeb", "f7f7f7",
    "fee0b6", "fdb863", "e08214", "b35806", "7f3b08",
)  # fmt: skip

# Pixels.
HEADING, LARGE, TEXT, SMALL = 18, 15, 13, 10  # heights of type
MARGIN, GAP = 14, 12  # around a figure, between its parts

# Pillow looks in the system's font folders, on Linux, macOS and Windows.
TYPEFACES = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")

Font = ImageFont.FreeTypeFont


@cache
def font(height: int) -> Font:
    """Return a system typeface with many alphabets, or Pillow's own."""
    for name in TYPEFACES:
        with suppress(OSError):
            return ImageFont.truetype(name, height, layout_engine=ImageFont.Layout.BASIC)
    return cast("Font", ImageFont.load_default(height))


def text_width(lines: Iterable[str], height: int) -> int:
    """Return the width of the longest line in pixels."""
    return ceil(max(map(font(height).getlength, lines), default=0))


class Sheet:
    """A white sheet with a centered heading and a body below it.

    Args:
        body: Width and height.
        heading: May be wider than the body; empty for none.
    """

    def __init__(self, body: tuple[int, int], heading: str) -> None:
        width = max(body[0], text_width([heading], HEADING)) + 2 * MARGIN
        self.left = (width - body[0]) // 2
        self.top = MARGIN + (HEADING + GAP if heading else 0)
        self.image = Image.new("RGB", (width, self.top + body[1] + MARGIN), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.write(heading, width // 2 - self.left, MARGIN - self.top, HEADING, anchor="ma")

    def write(
        self, text: str, x: float, y: float, height: int, *, anchor: str = "mm", ink: str = "black"
    ) -> None:
        """Write a line at (x, y) of the body, with Pillow's anchor."""
        at = (self.left + x, self.top + y)
        self.pen.text(at, text, ink, font(height), anchor=anchor)

    def write_upwards(self, text: str, x: float, y: float, height: int) -> None:
        """Write a line rotated by 90° that ends at y, its lower-case letters centered on x."""
        face, text = font(height), " ".join(text.split())  # Pillow cannot rotate several lines
        x_height = -face.getbbox("x", anchor="ls")[1]
        above = face.getbbox(text, anchor="ls")[1]  # the baseline, negative
        at = (round(self.left + x + x_height / 2 + above), self.top + y)
        turned = ImageFont.TransposedFont(face, Image.Transpose.ROTATE_90)
        self.pen.text(at, text, "black", turned)

    def show(self, image: Image.Image, x: int, y: int, scale: int) -> None:
        """Draw a framed image, each pixel a square of scale × scale."""
        width, height = image.width * scale, image.height * scale
        left, top = self.left + x, self.top + y
        self.image.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, top))
        self.pen.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)

    def png(self) -> bytes:
        """Return the sheet as a PNG file."""
        return png(self.image)


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file, with fast compression."""
    file = io.BytesIO()
    # Half the time of Pillow's level 6, for 10 to 33% more bytes.
    image.save(file, "png", compress_level=1)
    return file.getvalue()


def as_image(picture_CHW: Tensor) -> Image.Image:
    """Return a uint8 image, gray or color, as a Pillow image."""
    picture_HWC = picture_CHW.permute(1, 2, 0).numpy()
    return Image.fromarray(picture_HWC[:, :, 0] if picture_HWC.shape[2] == 1 else picture_HWC)


def scale_of(picture_shape: Sequence[int], side: int) -> int:
    """Return the integer scale that makes an image about `side` pixels wide or high."""
    return max(1, round(side / max(picture_shape[-2:])))


def colored(values_HW: NDArray[np.floating], colors: Sequence[str], low: float = 0) -> Image.Image:
    """Return one pixel per value, with colors interpolated from low to 1."""
    at = np.linspace(low, 1, len(colors))
    channels = [
        np.interp(values_HW, at, channel)
        for channel in zip(*map(bytes.fromhex, colors), strict=True)
    ]
    return Image.fromarray(np.stack(channels, axis=2).round().astype(np.uint8))
