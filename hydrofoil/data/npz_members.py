"""Images in an .npz file that are read a part at a time, into the image cache.

Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from hydrofoil.data.convert import as_images
from hydrofoil.data.image_cache import ImageCache
from hydrofoil.errors import HydrofoilError

Array = np.ndarray[Any, np.dtype[Any]]
PART_BYTES = 16 << 20  # that are read at once
VERSION = 1  # of what is cached


class Member:
    """An array in an .npz file that stays there.

    Args:
        packed: The open file.
        name: The array's name in it, without its ending.

    Raises:
        ValueError: It is no array of numbers, or in Fortran's order.
    """

    def __init__(self, packed: zipfile.ZipFile, name: str) -> None:
        self.packed, self.name = packed, f"{name}.npy"
        with packed.open(self.name) as file:
            self.shape, self.dtype = _header(file)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def parts(self) -> Iterator[Array]:
        """Yield the array in parts, along its first axis.

        Raises:
            ValueError: The file ends too early.
        """
        row = prod(self.shape[1:]) * self.dtype.itemsize
        rows = max(1, PART_BYTES // max(row, 1))
        with self.packed.open(self.name) as file:
            _header(file)
            for start in range(0, len(self), rows):
                count = min(rows, len(self) - start)
                content = file.read(count * row)
                if len(content) < count * row:
                    raise ValueError(f"{self.name} ends after {start:,} of {len(self):,} images")
                # A copy, since torch takes no array that cannot be written.
                yield np.frombuffer(bytearray(content), self.dtype).reshape(count, *self.shape[1:])


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array, and leave the file where its numbers begin."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise ValueError("an array in Fortran's order, or of objects")
    return shape, dtype


def cached(members: Sequence[Member], source: str, stamp: str) -> Array:
    """Return the images of some arrays in a row, N×C×H×W, memory-mapped from the image cache.

    Args:
        members: The arrays.
        source: What the cache lists them as.
        stamp: The file's path, size and time: others are read again.

    Raises:
        HydrofoilError: They are no images, or of several sizes.
        ValueError: The file ends too early.
    """
    names = [member.name for member in members]
    key = hashlib.sha256(repr((VERSION, "npz", stamp, names)).encode()).hexdigest()[:32]
    cache = ImageCache()
    if found := cache.find(key):
        return found[0]
    shape = _shape(members[0])
    made = cache.create((sum(map(len, members)), *shape))
    at = 0
    try:
        for member in members:
            for part in member.parts():
                images_NCHW = as_images(part, count=len(part))
                if tuple(images_NCHW.shape[1:]) != shape:
                    sizes = sorted({shape, tuple(images_NCHW.shape[1:])})
                    raise HydrofoilError(f"images of several sizes, {sizes}: expected one.")
                made.values[at : at + len(part)] = images_NCHW.numpy()
                at += len(part)
        return cache.keep(made, key, {"source": source, "images": at, "unreadable": {}})
    except BaseException:
        made.discard()
        raise


def _shape(member: Member) -> tuple[int, ...]:
    """Return channels, height and width of an array's images."""
    first = next(member.parts(), np.zeros(member.shape, member.dtype))
    return tuple(as_images(first, count=len(first)).shape[1:])
