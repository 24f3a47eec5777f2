"""IDX, the format of MNIST's files, plain or gzipped."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from hydrofoil.data.published.blocks import AGAIN, Block, Bytes, opened, too_many
from hydrofoil.errors import HydrofoilError


def read_idx(path: Path) -> Bytes:
    """Return the uint8 array in an IDX file, plain or gzipped.

    Raises:
        HydrofoilError: The file is missing, truncated, too long or in another format.
    """
    block = find_idx(path)
    array = np.empty(block.shape, np.uint8)
    block.read(array)
    return array


def find_idx(path: Path) -> Block:
    """Return the place of an IDX file's array, after checking its length.

    Format: two zero bytes, 8 for uint8, the number of axes, each axis's length as a big-endian
    32-bit integer, then the values (http://yann.lecun.com/exdb/mnist).

    Raises:
        HydrofoilError: The file is missing, truncated, too long or in another format. The exact
            length of a gzipped file is known only once it is read.
    """
    with opened(path) as (file, size):
        head = file.read(4)
        axes = head[3] if len(head) == 4 else 0
        lengths = file.read(4 * axes) if axes <= 4 else b""
        plain = not isinstance(file, gzip.GzipFile)
    if head[:3] != b"\0\0\x08" or not 1 <= axes <= 4 or len(lengths) < 4 * axes:
        raise HydrofoilError(f"{path}: expected an IDX file of bytes, as MNIST's are.\n{AGAIN}")
    shape = struct.unpack(f">{axes}I", lengths)
    start = 4 + 4 * axes
    held, promised = size - start, math.prod(shape)
    if held < promised or (plain and held > promised) or too_many(shape):
        raise HydrofoilError(
            f"{path}: truncated or too long: {held} bytes of data, its header announces "
            f"{'×'.join(map(str, shape))}.\n{AGAIN}"
        )
    return Block(path, start, shape, to_the_end=True)
