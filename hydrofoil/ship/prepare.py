"""From a decoded image to what the network sees, and the check that stands between the two.

Without statistics of the training images, an image is composed onto its background, made gray or
color, cropped to the model's proportions and resized. With them it is also inverted, cut out and
centered where the training images were made that way and this one was not.

Axes: N images, C channels, H rows, W columns.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydrofoil.data.decode import Decoded
from hydrofoil.data.fitting import Fit, cut, fitted, opaque, over
from hydrofoil.data.statistics import FLAT, NEAR, Statistics, find_content, luminance
from hydrofoil.errors import HydrofoilError
from hydrofoil.ship.drawing import FAINTEST, Drawing, find_drawing, place_drawing

Array = np.ndarray[Any, np.dtype[Any]]
COLORS = {"white": (255, 255, 255), "black": (0, 0, 0)}
OFF = "--as-is turns this off"
# How MNIST was made, as its 60,000 training images show: bright on black, the longer side 20 of 28
# pixels, the center of mass in the middle of pixel 14 of both axes (LeCun and others 1998).
MNIST = Statistics(
    images=60_000, brightness=(0.0, 255.0), background=0.0, same_background=1.0, foreground=255.0,
    flat=0.7, solid=0.01, cover=(0.083, 0.153, 0.239), long_side=(20 / 28, 20 / 28, 20 / 28),
    by_mass=(True, True), center=(14.5 / 28, 14.5 / 28), off_center=(0.02, 0.02),
)  # fmt: skip
SMALL = 128  # pixels of the longer side at which contrast is judged


@dataclass(frozen=True)
class Preparation:
    """What is requested of the preparation.

    Args:
        invert: Exchange dark and bright.
        as_is: Choose nothing by the training images.
        background: What transparency is composed onto: white, black or #rrggbb; default: white, or
            black where the image would vanish on white.
        center: Cut out, scale and center the drawing, whatever the image and training images are.

    Raises:
        HydrofoilError: The background is not a color; both `as_is` and `center` are requested.
    """

    invert: bool = False
    as_is: bool = False
    background: str | None = None
    center: bool = False

    def __post_init__(self) -> None:
        self.color()
        if self.as_is and self.center:
            raise HydrofoilError(
                "--center and --as-is: --as-is chooses no cutting out and centering, and --center "
                "requests it.\nLeave one of them out."
            )

    def color(self) -> tuple[int, int, int] | None:
        """Return the background as RGB; None: to be chosen."""
        name = self.background
        if name is None or name in COLORS:
            return COLORS.get(name or "")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", name):
            raise HydrofoilError(
                f"background = {name!r}: expected white, black or a color such as #ffcc00."
            )
        red, green, blue = bytes.fromhex(name[1:])
        return red, green, blue


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the network sees.

    Args:
        picture_CHW: uint8, of the model's shape.
        done: What was done to the image, in words.
        notes: What the check found, a sentence each.
    """

    picture_CHW: Tensor
    done: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(
    decoded: Decoded,
    shape: tuple[int, int, int],
    made: Statistics | None = None,
    how: Preparation | None = None,
    fit: Fit = "crop",
    *,
    own: bool = False,
) -> Prepared:
    """Return a decoded image as the network sees it.

    Args:
        decoded: The image.
        shape: Channels, height and width of the model's input.
        made: Statistics of the training images; None: they are unknown.
        how: What is requested; default: what suits the training images.
        fit: How an image of other proportions takes the size.
        own: The training images were files, made by `data.fitting` as this one is.
    """
    return _Preparing(decoded, shape, made, how or Preparation(), fit, own).run()


def check_input(picture_CHW: Tensor, made: Statistics | None) -> tuple[str, ...]:
    """Return what is suspicious about an input that was prepared elsewhere, a sentence each."""
    gray_HW = luminance(picture_CHW[None].cpu().numpy())[0]
    if blank := blankness(gray_HW):
        return (f"the input is {blank}, so the prediction means nothing",)
    return unlike_training(gray_HW, made)


def blankness(gray_HW: Array) -> str:
    """Return "blank" or "nearly blank" for an image without content, and "" for any other.

    >>> blankness(np.zeros((28, 28))), blankness(np.eye(28) * 255)
    ('blank', '')
    """
    low, high = float(gray_HW.min()), float(gray_HW.max())
    if high - low < FAINTEST:
        return "blank"
    bright = np.count_nonzero(gray_HW >= low + FAINTEST)
    dark = np.count_nonzero(gray_HW <= high - FAINTEST)
    return "nearly blank" if min(bright, dark) <= 0.004 * gray_HW.size else ""


def unlike_training(
    gray_HW: Array, made: Statistics | None, way: str = "use --invert"
) -> tuple[str, ...]:
    """Say that an image is brighter or darker than the training images, and what would help."""
    if made is None:
        return ()
    (low, high), mean = made.brightness, float(gray_HW.mean())
    if low - 4 <= mean <= high + 4:
        return ()
    what = "brighter" if mean > high else "darker"
    found = f"the image is {what} than 99.9% of the training images"
    if low <= 255 - mean <= high or made.bright_on_dark or made.dark_on_light:
        return (f"{found}: if it is dark on light and they are not, or vice versa, {way}",)
    return (f"{found}; --show-input FILE saves what the network sees",)


class _Preparing:
    """One image on its way; the steps are methods, since most of them have something to say."""

    def __init__(
        self,
        decoded: Decoded,
        shape: tuple[int, int, int],
        made: Statistics | None,
        how: Preparation,
        fit: Fit,
        own: bool,
    ) -> None:
        self.decoded, self.shape, self.made, self.how = decoded, shape, made, how
        self.fit: Fit = fit
        self.own = own
        self.done, self.hidden_by = list(decoded.done), ""
        self.no_drawing = self.turned = False

    def run(self) -> Prepared:
        """Return the prepared image."""
        image = self._composed()
        if self.how.invert:
            image = Image.eval(image, lambda value: 255 - value)
            self.done.append("inverted")
        channels, height, width = self.shape
        if (channels == 1) != (image.mode == "L"):
            self.done.append("color → gray" if channels == 1 else "gray → color")
            image = image.convert("L" if channels == 1 else "RGB")
        box = cut(image.size, (height, width)) if self.fit == "crop" else (0, 0, *image.size)
        kept = box[2] - box[0], box[3] - box[1]
        plain_HWC = np.asarray(fitted(image, (height, width), self.fit))
        lost = kept != image.size and _has_content_outside(image, box)
        chosen = self._like_training(image, plain_HWC, lost)
        if chosen is None:
            chosen = plain_HWC
            if kept != image.size:
                self.done.append(f"cropped from {_by(image.size)} to the central {_by(kept)}")
            if kept != (width, height):
                how = "padded and resized" if self.fit == "pad" else "resized"
                self.done.append(f"{how} from {_by(kept)} to {width}×{height}")
            notes = self._check(image, chosen, lost)
        else:
            notes = self._check_gray(_gray(chosen))
        pixels_HWC = np.array(chosen, np.uint8).reshape(height, width, channels)
        picture_CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()
        return Prepared(picture_CHW, tuple(self.done), notes)

    def _composed(self) -> Image.Image:
        """Return the image without transparency, gray or RGB."""
        pixels_HWC = self.decoded.pixels_HWC
        channels = pixels_HWC.shape[2]
        if channels in (1, 3) or int(pixels_HWC[..., -1].min()) == 255:
            return opaque(pixels_HWC)
        if self.own and self.how.background is None:  # as the training images were made
            self.done.append("transparency → white")
            return opaque(pixels_HWC)
        layers = Image.fromarray(pixels_HWC, "LA" if channels == 2 else "RGBA")
        small = layers.convert("RGBA")
        small.thumbnail((SMALL, SMALL))
        asked = self.how.color()
        color = asked or COLORS["white"]
        contrast = {at: _contrast(over(small, at)) for at in (color, *COLORS.values())}
        best = max(COLORS, key=lambda name: contrast[COLORS[name]])
        vanishes = contrast[color] < 0.25 * contrast[COLORS[best]]
        name = self.how.background or "white"
        if vanishes and asked is None and not self.how.as_is:
            color, name = COLORS[best], f"{best}: on white the image would be blank"
        elif vanishes:
            self.hidden_by = f"it has the color of the background: use --background {best}"
        self.done.append(f"transparency → {name}")
        return over(layers, color)

    def _like_training(self, image: Image.Image, plain_HWC: Array, lost: bool) -> Array | None:
        """Return the image made as the training images were; None: as it is, it is like them."""
        made = self.made
        if self.how.center:
            return self._centered(image)
        if made is None or self.how.as_is or not (made.bright_on_dark or made.dark_on_light):
            return None
        if self.shape[0] != 1:  # ink has no color; that of anything else would be lost
            return self._turned(plain_HWC) if _is_gray(plain_HWC) else None
        if not lost and fits(plain_HWC, made):
            return None
        if not lost and not self.how.invert and fits(255 - plain_HWC, made):
            self.done.append("inverted")
            self._say_resized(image)
            self.done.append(f"like the training images ({OFF})")
            return 255 - plain_HWC
        if not made.strokes:
            return self._turned(plain_HWC)
        placed_HW = self._redrawn(image, made)
        if placed_HW is not None:
            if blankness(_gray(plain_HWC)):
                self.done.append("a crop to the center would be blank")
            self.done.append(f"like the training images ({OFF})")
        return placed_HW

    def _centered(self, image: Image.Image) -> Array | None:
        """Center on request: like the training images if they show strokes, else as in MNIST."""
        made, like = self.made, "like the training images"
        if made is None or not made.strokes:
            like = "as in MNIST"
            one_background = made is not None and (made.bright_on_dark or made.dark_on_light)
            ink = made if made is not None and one_background else MNIST
            made = replace(MNIST, background=ink.background, foreground=ink.foreground)
        placed_HW = self._redrawn(image.convert("L"), made)
        if placed_HW is None:
            self.no_drawing = True
            return None
        self.done.append(like)
        channels = self.shape[0]
        return placed_HW if channels == 1 else placed_HW[..., None].repeat(channels, 2)

    def _redrawn(self, image: Image.Image, made: Statistics) -> Array | None:
        """Cut out the drawing, scale and center it; None: there is none."""
        drawing = find_drawing(np.asarray(image))
        if drawing is None:
            return None
        placed_HW = place_drawing(drawing, self.shape[1:], made)
        if drawing.dark != made.dark_on_light:
            if self.how.invert:  # requested, so it is not undone
                placed_HW = 255 - placed_HW
            else:
                ink = "dark ink on a light" if drawing.dark else "bright ink on a dark"
                self.done.append(f"inverted: {ink} background")
        page = f"the drawing, {_by(drawing.size)} of {_by(image.size)} pixels, "
        self.done.append(f"{page}cut out, scaled and centered")
        return placed_HW

    def _turned(self, plain_HWC: Array) -> Array | None:
        """Invert an image whose edge is dark where that of the training images is light."""
        gray_HW, made = _gray(plain_HWC), self.made
        edge = np.concatenate([gray_HW[0], gray_HW[-1], gray_HW[:, 0], gray_HW[:, -1]])
        apart = abs(float(np.median(edge)) - made.background) if made else 0
        if made is None or apart <= 127 + NEAR or self.how.invert:
            return None
        border = "light" if made.background < 128 else "dark"
        self.done.append(f"inverted: its border is {border}, unlike the training images' ({OFF})")
        self.turned = True
        return 255 - plain_HWC

    def _say_resized(self, image: Image.Image) -> None:
        _, height, width = self.shape
        if image.size != (width, height):
            self.done.append(f"resized from {_by(image.size)} to {width}×{height}")

    def _check(self, image: Image.Image, plain_HWC: Array, lost: bool) -> tuple[str, ...]:
        """Return what is wrong with an image that was only cropped and resized."""
        gray_HW = _gray(plain_HWC)
        if blank := blankness(gray_HW):
            return (f"the image is {blank} {self._why_blank(image, lost)}",)
        notes = [f"part of the image is hidden: {self.hidden_by}"] if self.hidden_by else []
        notes += ["no drawing was found to center"] if self.no_drawing else []
        made = self.made
        if made and (made.bright_on_dark or made.dark_on_light):
            if lost:
                notes.append("the crop cuts off part of the content: crop the image around it")
            elif min(image.size) >= 4 * max(self.shape[1:]):
                drawing = find_drawing(np.asarray(image.convert("L")))
                if drawing and _is_tiny(drawing, image.size):
                    size = f"{_by(drawing.size)} of {_by(image.size)} pixels"
                    notes.append(f"the content is tiny, {size}: crop the image around it")
        way = "leave out --as-is, or use --invert" if self.how.as_is else "use --invert"
        return (*notes, *unlike_training(gray_HW, made, way))

    def _check_gray(self, gray_HW: Array) -> tuple[str, ...]:
        if blank := blankness(gray_HW):
            return (f"the image is {blank} after preparation: --show-input FILE saves it",)
        notes = unlike_training(gray_HW, self.made)
        if notes and self.turned:  # the usual advice is to invert
            return (f"{notes[0].partition(':')[0]}: --center cuts a drawing out of its page",)
        return notes

    def _why_blank(self, image: Image.Image, lost: bool) -> str:
        """Say what made an image blank, and what to do."""
        if self.hidden_by:
            return f"after preparation: {self.hidden_by}"
        if lost:
            way = "leave out --as-is, or crop" if self.how.as_is else "crop"
            return f"after preparation: the content is outside the central crop; {way} it yourself"
        if self.decoded.frames > 1:
            frames = self.decoded.frames
            return f"in the first of {frames} frames: save another frame and classify that"
        if blankness(np.asarray(image.convert("L"))) != "blank":
            return "after preparation: its content is tiny; crop the image around it"
        return "in the file already, so the prediction means nothing"


def fits(plain_HWC: Array, made: Statistics) -> bool:
    """Tell whether an image looks made as the training images were.

    Its corners are of their background, as much of it is flat, and the content has their size and
    center, all within a pixel and the spread of the training images.
    """
    gray_HW = _gray(plain_HWC)
    apart_HW = np.abs(gray_HW - made.background)
    if (
        np.count_nonzero(apart_HW[:: len(apart_HW) - 1 or 1, :: apart_HW.shape[1] - 1 or 1] <= NEAR)
        < 3
    ):
        return False
    if np.count_nonzero(apart_HW <= FLAT) < 0.8 * made.flat * apart_HW.size:
        return False
    if apart_HW.max() < abs(made.foreground - made.background) / 2:
        return False
    if not made.strokes:
        return True
    side = np.array(gray_HW.shape)
    pixel = 1.5 / side
    content = find_content(gray_HW[None], made.background, made.foreground)
    center = np.where(made.by_mass, content.mass_N2[0], content.middle_N2[0]) + 0.5
    off = np.abs(center / side - made.center)
    low, _, high = made.long_side
    same_size = low - pixel.max() <= content.long_side_N[0] <= high + pixel.max()
    return bool(same_size and (off <= np.array(made.off_center) + pixel).all())


def _contrast(image: Image.Image) -> float:
    return float(np.asarray(image.convert("L"), np.float32).std())


def _has_content_outside(image: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Tell whether anything is outside the box that differs from the page there."""
    scale = max(1, max(image.size) // SMALL)
    small_HW = np.asarray(image.convert("L").reduce(scale), np.float32)
    left, top, right, bottom = (round(edge / scale) for edge in box)
    outside = np.ones(small_HW.shape, bool)
    outside[top:bottom, left:right] = False
    rest = small_HW[outside]
    if not rest.size:
        return False
    apart = np.abs(rest - np.median(rest)) >= 3 * FAINTEST
    return bool(apart.sum() > max(2, 0.002 * small_HW.size))


def _is_tiny(drawing: Drawing, page: tuple[int, int]) -> bool:
    return max(drawing.size) < 0.25 * min(page)


def _is_gray(pixels_HWC: Array) -> bool:
    """Tell whether a color image shows no colors but for noise, as ink on paper."""
    spread_HW = np.ptp(pixels_HWC.astype(np.int16), axis=2)
    return bool(np.quantile(spread_HW, 0.99) <= NEAR)


def _gray(pixels_HWC: Array) -> Array:
    """Return the brightness of a gray or color image."""
    if pixels_HWC.ndim == 2:
        return pixels_HWC.astype(np.float32)
    return luminance(pixels_HWC.transpose(2, 0, 1)[None])[0]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
