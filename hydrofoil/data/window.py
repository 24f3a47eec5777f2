"""Some images of a set that is too large for the memory, and a thread that reads the next ones.

Axes: N images, C channels, H rows, W columns, P pixel values of an image.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures

CHUNK = 8 << 20  # bytes that are read before they are put in their places


class Window:
    """Room for some images of a set, on a device, and as much again in which the next are read.

    Args:
        pictures: The set, on the CPU.
        size: How many images there is room for.
        device: Where training steps read them.

    Attributes:
        held: The images of the last `hold`, in the order of its indices, and behind them whatever
            was there before. Its memory stays the same.
    """

    def __init__(self, pictures: Pictures, size: int, device: torch.device) -> None:
        self.pictures, self.size = pictures, size
        self.held = pictures.blank(size, device)
        self._next_NCHW = torch.zeros(
            size, *pictures.shape, dtype=torch.uint8, pin_memory=device.type == "cuda"
        )
        self._reader = ThreadPoolExecutor(1, "window")
        self._expected: tuple[Tensor, Future[None]] | None = None

    def expect(self, index_N: Tensor) -> None:
        """Begin to read images that `hold` will be called for, in another thread."""
        if not self._is_expected(index_N):
            self._settle()
            reading = self._reader.submit(read_images, self.pictures, index_N, self._next_NCHW)
            self._expected = index_N, reading

    def hold(self, index_N: Tensor) -> None:
        """Hold these images, in this order: those that were expected, or others.

        Args:
            index_N: Up to `size` indices, on the CPU.
        """
        held, count = self.held, len(index_N)
        if self._is_expected(index_N) or held.labels_N.device.type != "cpu":
            self.expect(index_N)
            self._settle()
            held.pictures_NCHW[:count].copy_(self._next_NCHW[:count])
        else:  # what is expected stays so: validation comes between two epochs
            read_images(self.pictures, index_N, held.pictures_NCHW)
        held.labels_N[:count].copy_(self.pictures.labels_N[index_N])

    def _is_expected(self, index_N: Tensor) -> bool:
        return self._expected is not None and torch.equal(self._expected[0], index_N)

    def _settle(self) -> None:
        """Wait for the reader; what it has read is no longer expected.

        Raises:
            OSError: It could not read.
        """
        if self._expected is not None:
            reading, self._expected = self._expected[1], None
            reading.result()


def read_images(pictures: Pictures, index_N: Tensor, into_NCHW: Tensor) -> None:
    """Copy the indexed images to the first places of a tensor, both on the CPU.

    They are read in ascending order, as they lie in a file. NumPy copies in this one thread, while
    torch's threads take steps.
    """
    source_NP = pictures.pictures_NCHW.numpy().reshape(len(pictures), -1)
    into_NP, numbers_N = into_NCHW.numpy().reshape(len(into_NCHW), -1), index_N.numpy()
    places_N = np.argsort(numbers_N, kind="stable")
    for start in range(0, len(places_N), rows := max(1, CHUNK // source_NP.shape[1])):
        part_N = places_N[start : start + rows]
        into_NP[part_N] = source_NP[numbers_N[part_N]]
