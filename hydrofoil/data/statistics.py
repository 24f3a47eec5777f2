"""What the images of a training split have in common, with which other images are compared.

Some datasets were prepared: MNIST's digits were cut out, scaled to 20×20 and centered by mass on
a black background. The statistics show that, and `ship.prepare` then prepares new images likewise.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures

SAMPLE = 2000  # images measured, evenly spaced: 0.07 s for MNIST
NEAR = 32  # gray levels within which a pixel counts as background
FLAT = 16  # gray levels within which it counts as exactly the background
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow converts color to gray
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Content:
    """Where the content of some images lies, by position in the batch; lengths are in pixels.

    Content is what differs from the background by a quarter of the contrast.

    Args:
        mask_NHW: Which pixels are content.
        box_N4: First row, last row, first column and last column of it.
        mass_N2: Row and column of its center of mass.
    """

    mask_NHW: Array
    box_N4: Array
    mass_N2: Array

    @property
    def long_side_N(self) -> Array:
        """The longer side of the content's box, as a share of the image's."""
        height, width = self.mask_NHW.shape[1:]
        box_N4 = self.box_N4
        rows, columns = box_N4[:, 1] - box_N4[:, 0] + 1, box_N4[:, 3] - box_N4[:, 2] + 1
        return np.maximum(rows / height, columns / width)

    @property
    def middle_N2(self) -> Array:
        """Row and column of the middle of the content's box."""
        box_N4 = self.box_N4
        return np.stack([box_N4[:, 0] + box_N4[:, 1], box_N4[:, 2] + box_N4[:, 3]], 1) / 2


@dataclass(frozen=True)
class Statistics:
    """Statistics of a training split's images, in gray levels from 0 to 255.

    Args:
        images: How many images were measured.
        brightness: 0.1% and 99.9% quantile of the images' mean brightness.
        background: Median brightness of the four corners.
        same_background: Share of corners within 32 levels of that.
        foreground: Median of the level in each image that is farthest from the background.
        flat: 1% quantile of the share of an image's pixels within 16 levels of the background.
        solid: Share of content pixels whose neighbors within a 9th of the image are content too.
        cover: 5% quantile, median and 95% quantile of the share of pixels that are content.
        long_side: 0.5% quantile, median and 99.5% quantile of the longer side of the content's
            box, as a share of the image's side.
        by_mass: For rows and columns: whether the images were centered by mass, not by box.
        center: Mean row and column of that center, as shares of height and width.
        off_center: 99.5% quantile of the distance from it, for rows and columns, likewise.
    """

    images: int
    brightness: tuple[float, float]
    background: float
    same_background: float
    foreground: float
    flat: float
    solid: float
    cover: tuple[float, float, float]
    long_side: tuple[float, float, float]
    by_mass: tuple[bool, bool]
    center: tuple[float, float]
    off_center: tuple[float, float]

    @property
    def bright_on_dark(self) -> bool:
        """Whether the images show something bright on one dark background."""
        return self._one_background and self.background <= 48

    @property
    def dark_on_light(self) -> bool:
        """Whether the images show something dark on one light background."""
        return self._one_background and self.background >= 207

    @property
    def strokes(self) -> bool:
        """Whether they show strokes, cut out and scaled to one size: handwriting, drawings."""
        same_size = self.long_side[2] - self.long_side[0] <= 0.15
        return (self.bright_on_dark or self.dark_on_light) and self.solid < 0.35 and same_size

    @property
    def _one_background(self) -> bool:
        return self.same_background >= 0.95 and abs(self.foreground - self.background) >= 64

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        known = {field.name: content[field.name] for field in fields(cls)}
        sizes = {"brightness": 2, "cover": 3, "long_side": 3, "by_mass": 2}
        sizes |= {"center": 2, "off_center": 2}
        for name, value in known.items():
            if len(value if name in sizes else [value]) != sizes.get(name, 1):
                raise ValueError(f"{name} = {value!r}")
            numbers = value if name in sizes else [value]
            if not all(type(number) in (int, float, bool) for number in numbers):
                raise TypeError(f"{name} = {value!r}")
            known[name] = tuple(value) if name in sizes else value
        return cls(**known)


def measure_statistics(pictures: Pictures, index_N: torch.Tensor) -> Statistics:
    """Return the statistics of the indexed images, or of 2,000 among them.

    Args:
        pictures: The set.
        index_N: The training split's indices.

    Raises:
        ValueError: No image is indexed.
    """
    if not len(index_N):
        raise ValueError("no image is indexed: expected at least one")
    places = torch.linspace(0, len(index_N) - 1, min(len(index_N), SAMPLE)).round().long()
    sample_NCHW = pictures.pictures_NCHW[index_N[places].to(pictures.pictures_NCHW.device)]
    gray_NHW = luminance(sample_NCHW.cpu().numpy())
    height, width = gray_NHW.shape[1:]
    corners = gray_NHW[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    background = float(np.median(corners))
    farthest_N = _farthest(gray_NHW, background)
    foreground = float(np.median(farthest_N))
    content = find_content(gray_NHW, background, foreground)
    side = np.array([height, width])
    middle_N2, mass_N2 = (content.middle_N2 + 0.5) / side, (content.mass_N2 + 0.5) / side
    by_mass = mass_N2.std(0) <= middle_N2.std(0)
    center_N2 = np.where(by_mass, mass_N2, middle_N2)
    center = center_N2.mean(0)
    off_center = np.quantile(np.abs(center_N2 - center), 0.995, axis=0)
    flat_N = (np.abs(gray_NHW - background) <= FLAT).mean((1, 2))
    return Statistics(
        images=len(gray_NHW),
        brightness=_quantiles(gray_NHW.mean((1, 2)), 0.001, 0.999),
        background=background,
        same_background=float((np.abs(corners - background) <= NEAR).mean()),
        foreground=foreground,
        flat=float(np.quantile(flat_N, 0.01)),
        solid=_solid(content.mask_NHW),
        cover=_quantiles(content.mask_NHW.mean((1, 2)), 0.05, 0.5, 0.95),
        long_side=_quantiles(content.long_side_N, 0.005, 0.5, 0.995),
        by_mass=(bool(by_mass[0]), bool(by_mass[1])),
        center=(float(center[0]), float(center[1])),
        off_center=(float(off_center[0]), float(off_center[1])),
    )


def luminance(pictures_NCHW: Array) -> Array:
    """Return brightness_NHW as float32; images of one channel keep their values."""
    if pictures_NCHW.shape[1] == 1:
        return pictures_NCHW[:, 0].astype(np.float32)
    weight_C = np.array(LUMA, np.float32) if pictures_NCHW.shape[1] == 3 else None
    if weight_C is None:
        return pictures_NCHW.astype(np.float32).mean(1)
    return np.einsum("nchw,c->nhw", pictures_NCHW.astype(np.float32), weight_C)


def find_content(gray_NHW: Array, background: float, foreground: float) -> Content:
    """Return where the content of images lies, given the levels of background and foreground.

    An image without content has the box and the center of the whole image.
    """
    difference_NHW = np.abs(gray_NHW - background)
    mask_NHW = difference_NHW > max(abs(foreground - background) / 4, 1.0)
    _, height, width = mask_NHW.shape
    weight_NHW = np.where(mask_NHW, difference_NHW, 0)
    empty_N = ~mask_NHW.any((1, 2))
    weight_NHW[empty_N] = 1
    box, mass = [], []
    for axis, length in ((2, height), (1, width)):
        line = weight_NHW.sum(axis)
        filled = line > 0
        box += [filled.argmax(1), length - 1 - filled[:, ::-1].argmax(1)]
        mass.append((line * np.arange(length)).sum(1) / line.sum(1))
    return Content(mask_NHW, np.stack(box, 1), np.stack(mass, 1))


def _farthest(gray_NHW: Array, background: float) -> Array:
    """Return each image's level that is farthest from the background."""
    low_N, high_N = gray_NHW.min((1, 2)), gray_NHW.max((1, 2))
    return np.where(high_N - background >= background - low_N, high_N, low_N)


def _solid(mask_NHW: Array) -> float:
    """Return the share of content pixels that are left after eroding the content."""
    radius = max(1, round(min(mask_NHW.shape[1:]) / 18))
    hole_N1HW = torch.from_numpy(~mask_NHW).float()[:, None]
    near_N1HW = torch.nn.functional.max_pool2d(hole_N1HW, 2 * radius + 1, 1, radius)
    return float((near_N1HW == 0).sum() / max(1, int(mask_NHW.sum())))


def _quantiles(values_N: Array, *shares: float) -> Any:
    return tuple(float(value) for value in np.quantile(values_N, shares))
