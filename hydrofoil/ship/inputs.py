"""What people hand over as images: paths, folders and patterns; bytes, arrays and tensors.

Axes: N images, C channels, H rows, W columns.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from hydrofoil.data.convert import as_images, is_dataset, kind_of, to_bytes, to_tensor
from hydrofoil.data.decode import Decoded, decode
from hydrofoil.data.folders import is_image_name
from hydrofoil.errors import HydrofoilError, InputError
from hydrofoil.wording import by

ACCEPTED = (
    "a path, bytes, a binary file, a Pillow image, an array (H×W, H×W×C or N×H×W×C), "
    "a tensor (C×H×W or N×C×H×W), a dataset or DataLoader, or a list of these"
)
Source = str | Path | bytes | BinaryIO | Image.Image | Decoded | Tensor


def find_images(names: Sequence[str]) -> Iterator[str | HydrofoilError]:
    """Yield the image files that command-line arguments name, one by one.

    A folder stands for the image files in it and below, sorted; a pattern (*.png, scans/**/*.jpg)
    for the files that match it, sorted; `-` for standard input; any other name for itself. A folder
    or pattern without an image yields the error that says so.
    """
    for name in names:
        if name != "-" and os.path.isdir(name):
            yield from _some(_in_folder(name), f"{name}: no image file in this folder")
        elif any(letter in name for letter in "*?[") and not os.path.lexists(name):
            matches = sorted(path for path in glob.iglob(name, recursive=True))
            files = (path for path in matches if os.path.isfile(path))
            yield from _some(files, f"{name}: no file matches this pattern")
        else:
            yield name


def _in_folder(folder: str) -> Iterator[str]:
    """Yield the image files in a folder and below, in the order of their names."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except OSError:
        return
    for name, is_folder in entries:
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if is_folder:
            yield from _in_folder(path)
        elif is_image_name(name):
            yield path


def _some(paths: Iterator[str], otherwise: str) -> Iterator[str | HydrofoilError]:
    found = False
    for path in paths:
        found = True
        yield path
    if not found:
        kinds = "expected .png, .jpg, .webp or another format that hydrofoil reads"
        yield HydrofoilError(f"{otherwise}: {kinds}.")


def to_sources(given: Any, shape: tuple[int, int, int]) -> tuple[list[Source], bool]:
    """Return the images in what was handed to `hf.predict`, and whether they are several.

    A tensor of the model's own shape stays one: it is the network's input already.

    Args:
        given: See `ACCEPTED`.
        shape: Of the model's input.

    Raises:
        HydrofoilError: It is something else, or an array of another type, shape or range.
    """
    if isinstance(given, list | tuple):
        return [source for item in given for source in to_sources(item, shape)[0]], True
    if isinstance(given, Tensor):
        return _of_tensor(given.detach().cpu(), shape)
    if isinstance(given, np.ndarray):
        return _of_array(given, shape)
    if isinstance(given, bytearray | memoryview):
        return [bytes(given)], False
    if isinstance(given, str | Path | bytes | Image.Image | Decoded) or hasattr(given, "read"):
        return [given], False
    if hasattr(given, "pictures_NCHW") or is_dataset(given):
        return list(as_images(given).cpu()), True
    raise InputError(f"{kind_of(given)} as image: expected {ACCEPTED}.")


def to_decoded(
    source: Source, shape: tuple[int, int, int], name: str = "", *, as_trained: bool = False
) -> Decoded:
    """Return an image as an array; a large photograph is read at a reduced scale.

    Args:
        source: The image.
        shape: Channels, height and width of the model's input.
        name: How errors call it.
        as_trained: Read the file exactly as `data.decoding` reads those of a set.

    Raises:
        HydrofoilError: As `decode`.
    """
    if isinstance(source, Decoded):
        return source
    if isinstance(source, Tensor):
        raise TypeError("a tensor of the model's shape is not decoded")
    if as_trained:
        return decode(source, target=(shape[2], shape[1]), name=name, reduce=True)
    # 200 with the decoder's reserve of four: a drawing of a 20th of the page has 40 pixels left.
    target = max(shape[2], 200), max(shape[1], 200)
    return decode(source, target=target, name=name)


def _of_tensor(given: Tensor, shape: tuple[int, int, int]) -> tuple[list[Source], bool]:
    if given.ndim not in (2, 3, 4):
        raise InputError(f"a tensor of {by(given.shape)}: expected C×H×W, N×C×H×W or H×W images.")
    several = given.ndim == 4
    pictures_NCHW = given if several else given[None] if given.ndim == 3 else given[None, None]
    if pictures_NCHW.shape[1] not in (1, 2, 3, 4) or 0 in pictures_NCHW.shape[1:]:
        raise InputError(
            f"a tensor of {by(given.shape)}: expected 1 to 4 channels before rows and columns, "
            "C×H×W.\nFor H×W×C pass tensor.permute(2, 0, 1), or a numpy array."
        )
    bytes_NCHW, _ = to_bytes(pictures_NCHW, "a tensor")
    if tuple(bytes_NCHW.shape[1:]) == shape:
        return list(bytes_NCHW), several
    return [_of_pixels(picture_CHW.permute(1, 2, 0).numpy()) for picture_CHW in bytes_NCHW], several


def _of_array(
    given: "np.ndarray[Any, Any]", shape: tuple[int, int, int]
) -> tuple[list[Source], bool]:
    if given.ndim not in (2, 3, 4):
        raise InputError(f"an array of {by(given.shape)}: expected H×W, H×W×C or N×H×W×C images.")
    if _fits_as_batch(given.shape, shape):
        return list(to_bytes(to_tensor(given, "an array"), "an array")[0].reshape(-1, *shape)), True
    several = given.ndim == 4
    images_NHWC = given if several else given[None] if given.ndim == 3 else given[None, ..., None]
    if images_NHWC.shape[3] not in (1, 2, 3, 4) or 0 in images_NHWC.shape[1:]:
        raise InputError(
            f"an array of {by(given.shape)}: expected 1 to 4 channels at the end, H×W×C.\n"
            "For N×H×W gray images pass array[..., None]; for C×H×W array.transpose(1, 2, 0)."
        )
    bytes_NHWC = to_bytes(to_tensor(images_NHWC, "an array"), "an array")[0].numpy()
    return [_of_pixels(pixels_HWC) for pixels_HWC in bytes_NHWC], several


def _fits_as_batch(size: tuple[int, ...], shape: tuple[int, int, int]) -> bool:
    """Tell whether an array is N×C×H×W, or N×H×W for a gray model, and not H×W×C."""
    if len(size) == 3:
        return (1, *size[1:]) == shape and size[2] not in (1, 2, 3, 4)
    return len(size) == 4 and size[1:] == shape and size[3] not in (1, 2, 3, 4)


def _of_pixels(pixels_HWC: "np.ndarray[Any, Any]") -> Decoded:
    size = pixels_HWC.shape[1], pixels_HWC.shape[0]
    return Decoded(np.ascontiguousarray(pixels_HWC), 1, size, ())
