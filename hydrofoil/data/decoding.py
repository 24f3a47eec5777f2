"""Decodes the images of a set on all cores.

Axes: H rows, W columns, C channels.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hydrofoil.data.decode import decode, plain_image
from hydrofoil.data.fitting import Fit, fitted, opaque
from hydrofoil.errors import HydrofoilError

CHUNK = 64  # images that a thread takes at once; with 16, small ones wait for Python's lock
Array = np.ndarray[Any, np.dtype[Any]]
Task = tuple[int, Path | bytes]
Done = tuple[int, Array | HydrofoilError, str]


def decode_one(
    source: Path | bytes, size: tuple[int, int], fit: Fit, name: str = ""
) -> tuple[Array, str]:
    """Return an image file as the images of a set are made: pixels_HWC, of 1 or 3 channels.

    It has one channel where all its pixels are gray. The text says which image it is of a file that
    holds several, such as "the first of 12 frames"; empty: it holds one.

    Args:
        source: A file's path or its content.
        size: Height and width.
        fit: How it takes that size.
        name: How errors call it.

    Raises:
        HydrofoilError: It cannot be read.
    """
    whole, which = plain_image(source) if isinstance(source, Path) else None, ""
    if whole is None:
        decoded = decode(source, target=(size[1], size[0]), name=name, reduce=True)
        whole = opaque(decoded.pixels_HWC)
        which = decoded.done[-1] if decoded.frames > 1 else ""
    pixels_HWC = np.asarray(fitted(whole, size, fit)).reshape(*size, -1)
    if pixels_HWC.shape[2] == 1 or len(set(pixels_HWC[0, 0].tolist())) > 1:
        return pixels_HWC, which
    red_HW = pixels_HWC[..., 0]
    gray = (red_HW == pixels_HWC[..., 1]).all() and (red_HW == pixels_HWC[..., 2]).all()
    return (pixels_HWC[..., :1] if gray else pixels_HWC), which


def decode_all(
    tasks: Iterable[Task], count: int, size: tuple[int, int], fit: Fit, workers: int
) -> Iterator[Done]:
    """Yield each image's number and what `decode_one` returned; an error in the pixels' place.

    A few images more than the workers need are read ahead, so that memory stays flat.

    Args:
        tasks: Number and file or content of each image.
        count: How many there are.
        size: Height and width.
        fit: How an image takes that size.
        workers: Threads; Pillow works outside Python's lock.
    """
    waiting: deque[Future[list[Done]]] = deque()
    chunk_size = max(1, min(CHUNK, count // (8 * workers)))  # small where images are few
    chunks = iter(lambda: list(islice(iterator, chunk_size)), [])
    iterator = iter(tasks)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_decode_chunk, chunk, size, fit))
                if len(waiting) > 4 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode_chunk(chunk: list[Task], size: tuple[int, int], fit: Fit) -> list[Done]:
    done: list[Done] = []
    for number, source in chunk:
        try:
            done.append((number, *decode_one(source, size, fit, "image")))
        except HydrofoilError as error:
            done.append((number, error, ""))
    return done
