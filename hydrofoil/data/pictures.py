"""A set of small pictures is one value: a uint8 tensor, labels, class names, where they came from.

Axes: N pictures, C channels, H rows, W columns.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hydrofoil.display import notebook_html


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and what is known of them; nothing in it changes.

    Args:
        pictures_NCHW: uint8, 0 to 255.
        labels_N: int64, 0 to K - 1.
        classes: The K class names.
        source: Where they came from: a source's name.
        published_test: The last so many pictures are the published test split; 0: the set has none.
        differs: How the set differs from the published one of its name; empty: it is the same;
            None: there is nothing to compare it with.

    Raises:
        ValueError: Shapes, types or labels do not fit each other.
    """

    pictures_NCHW: Tensor
    labels_N: Tensor
    classes: tuple[str, ...]
    source: str
    published_test: int = 0
    differs: str | None = None

    def __post_init__(self) -> None:
        if self.pictures_NCHW.dtype != torch.uint8 or self.pictures_NCHW.ndim != 4:
            raise ValueError(
                f"pictures: expected uint8 N×C×H×W, got {self.pictures_NCHW.dtype} "
                f"{'×'.join(map(str, self.pictures_NCHW.shape))}"
            )
        if (
            self.labels_N.dtype != torch.int64
            or self.labels_N.shape != self.pictures_NCHW.shape[:1]
        ):
            raise ValueError(
                f"labels: expected int64, one for each of {len(self.pictures_NCHW)} pictures, "
                f"got {self.labels_N.dtype} {'×'.join(map(str, self.labels_N.shape))}"
            )
        if (
            len(self.labels_N)
            and not 0 <= int(self.labels_N.min()) <= int(self.labels_N.max()) < self.K
        ):
            raise ValueError(
                f"labels: expected 0 to {self.K - 1}, the index of one of {self.K} classes"
            )
        if not 0 <= self.published_test <= len(self):
            raise ValueError(
                f"published_test: expected 0 to {len(self)}, got {self.published_test}"
            )

    def __len__(self) -> int:
        return len(self.pictures_NCHW)

    def _repr_html_(self) -> str:
        """Show a grid of images in a notebook."""
        return notebook_html("pictures", self)

    @property
    def K(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def published(self) -> bool | None:
        """Whether this is the published set of its name; None: there is nothing to compare with."""
        return None if self.differs is None else not self.differs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each picture."""
        _, channels, height, width = self.pictures_NCHW.shape
        return channels, height, width

    @cached_property
    def hash(self) -> str:
        """Hexadecimal SHA-256 over shape, pixels, labels and class names; 0.1 s for CIFAR-10."""
        digest = hashlib.sha256(repr((tuple(self.pictures_NCHW.shape), self.classes)).encode())
        for tensor in (self.pictures_NCHW, self.labels_N):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Pictures":
        """Return the same set on a device: one copy of all of it, or none if it is there."""
        if self.pictures_NCHW.device == device:
            return self
        return self._with(
            pictures_NCHW=self.pictures_NCHW.to(device), labels_N=self.labels_N.to(device)
        )

    def compared(self, differs: str) -> "Pictures":
        """Return the same set, with how it differs from the published one."""
        return self._with(differs=differs)

    def _with(self, **changes: Any) -> "Pictures":
        """Replace fields that the hash does not depend on, and keep the hash if it is known."""
        changed = replace(self, **changes)
        if "hash" in self.__dict__:
            changed.__dict__["hash"] = self.hash
        return changed

    def counts(self, index_N: Tensor) -> list[int]:
        """Return how many of the indexed pictures each class has."""
        return torch.bincount(self.labels_N[index_N], minlength=self.K).tolist()

    def channel_statistics(self, index_N: Tensor) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel, pixels scaled to [0, 1], exactly.

        Counts the 256 values instead of summing floats, so that millions of pixels lose no digit.
        """
        value = torch.arange(256, dtype=torch.float64) / 255
        means: list[float] = []
        deviations: list[float] = []
        for channel_NHW in self.pictures_NCHW[index_N].unbind(1):
            share = (
                torch.bincount(channel_NHW.flatten(), minlength=256).cpu().double()
                / channel_NHW.numel()
            )
            mean = float(share @ value)
            means.append(mean)
            deviations.append(float(share @ (value - mean) ** 2) ** 0.5)
        return means, deviations
