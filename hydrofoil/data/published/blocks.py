"""A set's files: opened plain or gzipped, and their arrays read straight to where they belong.

Whatever a file's head promises is held against the file's size before any memory is asked for.
"""

import gzip
import math
import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from hydrofoil.errors import HydrofoilError, reason

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

AGAIN = "Delete it, to have it downloaded again."
MOST_BYTES = 1 << 30  # of one array; the largest published one, CIFAR-100's, has 0.15 of it
GZIP_RATIO = 1032  # deflate packs no tighter


@dataclass(frozen=True)
class Block:
    """Where an array of bytes lies in a file.

    Args:
        path: The file; where only `path`.gz is there, its unpacked bytes are meant.
        start: How many bytes stand before it.
        shape: Its shape.
        fortran: The first axis varies fastest, not the last.
        to_the_end: It reaches to the file's end.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    fortran: bool = False
    to_the_end: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, out: Bytes) -> None:
        """Fill an array of this shape, without another copy in memory.

        Raises:
            HydrofoilError: The file cannot be read, or has become another one.
        """
        if self.fortran:
            turned = np.empty(self.shape[::-1], np.uint8)
            Block(self.path, self.start, turned.shape).read(turned)
            out[:] = turned.T
            return
        with opened(self.path) as (file, _):
            file.seek(self.start)
            wanted = out.reshape(-1).data
            at = 0
            while at < len(wanted) and (count := file.readinto(wanted[at:])):
                at += count
            if at < len(wanted) or (self.to_the_end and file.read(1)):
                promised = "×".join(map(str, self.shape))
                raise HydrofoilError(
                    f"{self.path}: its head promises {promised} bytes, and it is cut short or "
                    f"overlong.\n{AGAIN}"
                )


@contextmanager
def opened(path: Path) -> Generator[tuple[Any, int]]:
    """Open a file, or its gzipped form where only that is there.

    Yields:
        The file, and how many bytes it holds: exactly, or for a gzipped file at most.

    Raises:
        HydrofoilError: The file is missing, cannot be read, or its packing is broken.
    """
    packed = path.with_name(path.name + ".gz")
    plain = path.exists() or not packed.exists()
    try:
        with open(path if plain else packed, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            if plain:
                yield raw, size
            else:
                with gzip.GzipFile(fileobj=cast(BinaryIO, raw)) as file:
                    yield file, size * GZIP_RATIO
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HydrofoilError(f"{packed}: a broken gzip file.\n{AGAIN}") from error
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error


def too_many(shape: tuple[int, ...]) -> bool:
    """Tell whether a shape is beyond any set's that this library reads."""
    return math.prod(max(length, 1) for length in shape) > MOST_BYTES


def joined(blocks: list[Block]) -> Bytes:
    """Read blocks into one array, one below the other: the set lies in memory once, at all times.

    Raises:
        HydrofoilError: A file cannot be read, or has become another one.
    """
    whole = np.empty((sum(map(len, blocks)), *blocks[0].shape[1:]), np.uint8)
    start = 0
    for block in blocks:
        block.read(whole[start : start + len(block)])
        start += len(block)
    return whole
