"""Decoded images of any depth, color and kind of transparency as uint8 arrays.

An image is converted in strips of rows, so that beside the decoder's own copy only the result
takes memory.

Axes: H rows, W columns, C channels (1 gray, 2 gray and alpha, 3 RGB, 4 RGBA).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from hydrofoil.data.image_headers import DamagedError

STRIP = 1 << 19  # pixels converted at once
SAMPLED = 1 << 20  # values looked at for the number of different levels
# What Pillow's modes become; every other mode becomes RGB.
SHALLOW = {"L": "L", "LA": "LA", "La": "LA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}  # fmt: skip # noqa: E501


@dataclass(frozen=True)
class Strips:
    """A decoded image, read in strips of rows.

    Args:
        size: Width and height.
        cut: From the first row and the one after the last to values_HWC of any type.
        alpha: The last channel is alpha.
        transparent: The values that stand for a transparent pixel; none if empty.
        inverted: Zero is white.
        declared: The range of values that the file itself names; from the values if None.
    """

    size: tuple[int, int]
    cut: Callable[[int, int], np.ndarray]
    alpha: bool = False
    transparent: tuple[int, ...] = ()
    inverted: bool = False
    declared: tuple[float, float] | None = None

    def each(self, multiple: int = 1) -> Iterator[np.ndarray]:
        """Yield values_HWC from top to bottom, each strip's rows a multiple of a number."""
        width, height = self.size
        rows = max(1, STRIP // width // multiple) * multiple
        for top in range(0, height, rows):
            yield self.cut(top, min(top + rows, height))


def _cut(read: Callable[..., np.ndarray], *images: Image.Image) -> Callable[[int, int], np.ndarray]:
    """Return the function that reads strips of Pillow images of one size."""
    width, height = images[0].size

    def cut(top: int, end: int) -> np.ndarray:
        if end - top == height:
            return read(*images)
        return read(*[image.crop((0, top, width, end)) for image in images])

    return cut


def gray_strips(
    image: Image.Image, kind: str, *, inverted: bool = False, transparent: Sequence[int] = ()
) -> Strips:
    """Read a gray image of 16 or 32 bits, or floats, as values of the numpy type `kind`."""
    cut = _cut(partial(_gray, kind), image)
    return Strips(image.size, cut, transparent=tuple(transparent), inverted=inverted)


def _gray(kind: str, image: Image.Image) -> np.ndarray:
    values_HW = np.asarray(image)
    if kind in (
        "uint32",
        "int8",
    ):  # Pillow has no modes of these: the same bytes, read as they are meant
        return values_HW.view(kind)[..., None]
    return values_HW.astype(kind, copy=False)[..., None]


def paired_strips(high: Image.Image, low: Image.Image, transparent: Sequence[int] = ()) -> Strips:
    """Read the high and the low bytes of an image of 16 bits per channel as one."""
    return Strips(high.size, _cut(_joined, high, low), high.mode == "RGBA", tuple(transparent))


def _joined(high: Image.Image, low: Image.Image) -> np.ndarray:
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def packed_strips(image: Image.Image) -> Strips:
    """Read gray and alpha of 16 bits, whose four bytes stand in an RGBA image."""
    return Strips(image.size, _cut(_unpacked, image), True)


def _unpacked(image: Image.Image) -> np.ndarray:
    bytes_HWC = np.asarray(image).astype(np.uint16)
    return bytes_HWC[..., 0::2] << 8 | bytes_HWC[..., 1::2]


def shallow_strips(image: Image.Image, transparent: Sequence[int] = ()) -> Strips:
    """Read an image of 8 bits or fewer per channel, of any mode."""
    alpha = SHALLOW.get(image.mode, "RGB").endswith("A")
    if image.mode == "P" and "transparency" in image.info:
        alpha = True
    return Strips(image.size, _cut(partial(_shallow, alpha), image), alpha, tuple(transparent))


def _shallow(alpha: bool, image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)[..., None] * 255
    mode = SHALLOW.get(image.mode, "RGBA" if alpha else "RGB")
    values = np.asarray(image if mode == image.mode else image.convert(mode))
    return values[..., None] if values.ndim == 2 else values


def to_pixels(strips: Strips, shrink: int, done: list[str]) -> np.ndarray:
    """Return pixels_HWC in uint8; append the range of values to `done` if it was not 8 bits.

    Args:
        strips: The decoded image.
        shrink: Average over so many rows and columns, to save memory.
        done: In words what was done.

    Raises:
        DamagedError: Float values that are not numbers.
    """
    convert = _converter(strips, done)
    parts: list[np.ndarray] = []
    for values_HWC in strips.each(shrink):
        pixels_HWC = convert(values_HWC)
        if strips.inverted:
            pixels_HWC = 255 - pixels_HWC
        if strips.transparent:
            clear_HW = (values_HWC == np.array(strips.transparent)).all(-1)
            alpha_HWC = np.where(clear_HW, 0, 255).astype(np.uint8)[..., None]
            pixels_HWC = np.concatenate([pixels_HWC, alpha_HWC], -1)
        parts.append(_averaged(pixels_HWC, shrink))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _averaged(pixels_HWC: np.ndarray, shrink: int) -> np.ndarray:
    if shrink == 1:
        return np.ascontiguousarray(pixels_HWC)
    gray = pixels_HWC.shape[2] == 1
    image = Image.fromarray(pixels_HWC[..., 0] if gray else pixels_HWC).reduce(shrink)
    smaller = np.asarray(image)
    return smaller[..., None] if gray else smaller


def _converter(strips: Strips, done: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from values_HWC to uint8."""
    first = strips.cut(0, 1)
    if strips.declared:
        low, top = strips.declared
        done.append(f"values {low:g} to {top:g} → 8 bit")
        return lambda values_HWC: _scaled(values_HWC, low, top)
    if first.dtype == np.uint8:
        return lambda values_HWC: values_HWC
    if first.dtype != np.uint16:
        low, top = _range(_levels(strips))
        done.append(f"values {low:g} to {top:g} → 8 bit")
        return lambda values_HWC: _scaled(values_HWC, low, top)
    channels = first.shape[2]
    counts = np.zeros((channels, 65536), np.int64)
    for values_HWC in strips.each():
        for channel in range(channels):
            counts[channel] += np.bincount(values_HWC[..., channel].ravel(), minlength=65536)
    colors = counts[: channels - strips.alpha].sum(0)
    low, top = _range(np.flatnonzero(colors).astype(np.float64))
    done.append(f"values {low:g} to {top:g} → 8 bit")
    tables = np.stack([_scaled(np.arange(65536), low, top)] * channels)
    if strips.alpha:
        tables[-1] = _scaled(np.arange(65536), 0, _opaque(np.flatnonzero(counts[-1]), top))
    return lambda values_HWC: np.stack(
        [tables[channel][values_HWC[..., channel]] for channel in range(channels)], -1
    )


def _opaque(levels: np.ndarray, top: float) -> float:
    """Return the alpha that is opaque: of the full 16 bits, or of the colors' own depth."""
    most = max(float(levels.max()), top)
    return 65535 if most > 4095 else float(levels.max()) or 1


def _levels(strips: Strips) -> np.ndarray:
    """Return different values of an image, its least and greatest among them."""
    found: list[np.ndarray] = []
    parts = 1 + strips.size[0] * strips.size[1] // STRIP
    for values_HWC in strips.each():
        values = values_HWC.astype(np.float64).ravel()
        if not np.isfinite(values).all():
            raise DamagedError("it holds pixels that are not numbers")
        sample = values[:: max(1, values.size * parts // SAMPLED)]
        found.append(np.append(np.unique(sample), [values.min(), values.max()]))
    return np.unique(np.concatenate(found))


def _range(levels: np.ndarray) -> tuple[float, float]:
    """Return the range that becomes 0 to 255: the plainest of those that keep the most levels.

    In this order: 0 to 255 for whole numbers, 0 to 1 for others; from 0 to the greatest value;
    from the least to the greatest, where the image has so few levels that each can be kept.
    """
    least, greatest = float(levels[0]), float(levels[-1])
    whole = bool((levels == np.floor(levels)).all())
    plain = (0.0, 255.0) if whole and (greatest > 1 or greatest == 0) else (0.0, 1.0)
    ranges: list[tuple[float, float]] = []
    if least >= 0 and greatest <= plain[1]:
        ranges.append(plain)
    if greatest > min(0.0, least):
        ranges.append((min(0.0, least), greatest))
    if len(levels) <= 256 and greatest > least:
        ranges.append((least, greatest))
    if not ranges:  # one negative value everywhere
        return least, 0.0
    kept = [len(np.unique(_scaled(levels, *each))) for each in ranges]
    return ranges[kept.index(max(kept))]


def _scaled(values: np.ndarray, low: float, top: float) -> np.ndarray:
    scaled = (values.astype(np.float64) - low) * (255 / (top - low))
    return scaled.clip(0, 255).round().astype(np.uint8)
