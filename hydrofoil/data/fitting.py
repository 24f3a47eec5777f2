"""One image made like the others of a set: without transparency, and of the set's size.

Training and prediction both go through here, so that a stranger's photograph is prepared exactly as
the training images were.

Axes: H rows, W columns, C channels.
"""

from typing import Any, Literal

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
Fit = Literal["crop", "pad", "stretch"]
WHITE = (255, 255, 255)


def opaque(pixels_HWC: Array, color: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return a decoded image as Pillow's, gray or RGB, with transparency composed onto a color.

    Args:
        pixels_HWC: uint8; 1 to 4 channels, as `decode` returns them.
        color: Red, green and blue.
    """
    channels = pixels_HWC.shape[2]
    if channels in (1, 3):
        return Image.fromarray(pixels_HWC[..., 0] if channels == 1 else pixels_HWC)
    if int(pixels_HWC[..., -1].min()) == 255:
        return Image.fromarray(pixels_HWC[..., 0] if channels == 2 else pixels_HWC[..., :3])
    return over(Image.fromarray(pixels_HWC, "LA" if channels == 2 else "RGBA"), color)


def over(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Return an image with transparency composed onto a color."""
    if image.mode == "LA" and len(set(color)) == 1:
        below = Image.new("L", image.size, color[0])
        below.paste(image.getchannel(0), mask=image.getchannel(1))
        return below
    below = Image.new("RGB", image.size, color)
    below.paste(image.convert("RGB"), mask=image.getchannel(image.getbands()[-1]))
    return below


def fitted(image: Image.Image, size: tuple[int, int], fit: Fit = "crop") -> Image.Image:
    """Return an image of a set's size, resized with an antialiasing bilinear filter.

    Args:
        image: Gray or RGB.
        size: Height and width.
        fit: crop: cut at its longer sides, around the center; pad: the whole image, with the
            median color of its border beside it; stretch: its proportions change.
    """
    height, width = size
    if fit == "pad":
        return _padded(image, size)
    box = cut(image.size, size) if fit == "crop" else (0, 0, *image.size)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR, box)


def cut(image_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the central box of an image that has the proportions of a size.

    Args:
        image_size: Width and height of the image.
        size: Height and width to fill.

    >>> cut((100, 50), (8, 8))
    (25, 0, 75, 50)
    """
    (across, down), (height, width) = image_size, size
    scale = min(across / width, down / height)
    kept = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (across - kept[0]) // 2, (down - kept[1]) // 2
    return left, top, left + kept[0], top + kept[1]


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    scale = min(width / image.width, height / image.height)
    inside = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if inside == (width, height) == image.size:
        return image
    small = image.resize(inside, Image.Resampling.BILINEAR)
    pixels = np.asarray(small).reshape(small.height, small.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = tuple(int(value) for value in np.median(border, axis=0))
    below = Image.new(image.mode, (width, height), color if image.mode == "RGB" else color[0])
    below.paste(small, ((width - inside[0]) // 2, (height - inside[1]) // 2))
    return below
