"""A dataset's files: opened plain or gzipped, their arrays read without a second copy in memory.

The sizes in a file's header are compared with the file's size before any memory is allocated.
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

from hydrofoil.data.archives import GZIP
from hydrofoil.errors import HydrofoilError, reason

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

AGAIN = "Delete it to download it again."
MOST_BYTES = 1 << 30  # of one array; the largest published one, CIFAR-100's, has 0.15 of it
GZIP_RATIO = 1032  # the most that deflate compresses


@dataclass(frozen=True)
class Block:
    """The place of an array of bytes in a file.

    Args:
        path: The file; if it is gzipped, `start` counts its unpacked bytes.
        start: How many bytes come before it.
        shape: Its shape.
        fortran: The first axis varies fastest, not the last.
        to_the_end: It extends to the end of the file.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    fortran: bool = False
    to_the_end: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, out: Bytes) -> None:
        """Fill an array of this shape without another copy in memory.

        Raises:
            HydrofoilError: The file cannot be read, or was changed meanwhile.
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
                    f"{self.path}: truncated or too long: its header announces {promised} bytes."
                    f"\n{AGAIN}"
                )


@contextmanager
def opened(path: Path) -> Generator[tuple[Any, int]]:
    """Open a file, gunzipping it if its first bytes say that it is gzipped.

    Yields:
        The file, and how many bytes it holds: exactly, or for a gzipped file at most.

    Raises:
        HydrofoilError: The file is missing, empty, cannot be read, or is a broken gzip file.
    """
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            if not size:
                raise HydrofoilError(f"{path}: is empty.\n{AGAIN}")
            gzipped = raw.read(2) == GZIP
            raw.seek(0)
            if not gzipped:
                yield raw, size
            else:
                with gzip.GzipFile(fileobj=cast(BinaryIO, raw)) as file:
                    yield file, size * GZIP_RATIO
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HydrofoilError(f"{path}: a broken gzip file.\n{AGAIN}") from error
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error


def too_many(shape: tuple[int, ...]) -> bool:
    """Return whether an array is larger than in any dataset that this module reads."""
    return math.prod(max(length, 1) for length in shape) > MOST_BYTES


def joined(blocks: list[Block]) -> Bytes:
    """Read blocks into one array, one after the other; the dataset is in memory only once.

    Raises:
        HydrofoilError: A file cannot be read, or was changed meanwhile.
    """
    whole = np.empty((sum(map(len, blocks)), *blocks[0].shape[1:]), np.uint8)
    start = 0
    for block in blocks:
        block.read(whole[start : start + len(block)])
        start += len(block)
    return whole
