"""A set of small pictures is one value: a uint8 tensor, labels, class names, where they came from.

Axes: N pictures, C channels, H rows, W columns, V values of a pixel.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.convert import as_images
from hydrofoil.data.datasets import read_pairs
from hydrofoil.data.labels import as_labels
from hydrofoil.display import brief, notebook_html
from hydrofoil.errors import InputError
from hydrofoil.wording import by

PART = 16 << 20  # bytes of images that are counted at once
IN_MEMORY = "images"  # the source of images that were given in Python


@dataclass(frozen=True, eq=False, init=False)
class Pictures:
    """Images and what is known of them; nothing in it changes.

    Attributes:
        pictures_NCHW: uint8, 0 to 255.
        labels_N: int64, 0 to K - 1.
        classes: The K class names.
        source: Where they came from: a source's name.
        published_test: The last so many images are the published test split; 0: the set has none.
        differs: How the set differs from the published one of its name; empty: it is the same;
            None: there is nothing to compare it with.
        published_valid: So many images before the test split are a validation split of their own.
        groups_N: int64, what each image belongs to: a patient, a writer; None: nothing is known.
        names: What each image is called, its path below the source; empty: they have no names.
        notes: What was chosen when the images were read, a line each.
        losses: What was left out then, a line each.
        mapped: The images lie in a file that is mapped into memory, so that they need none of it.

    >>> import numpy as np
    >>> Pictures(np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "cat"]).classes
    ('cat', 'dog')
    """

    pictures_NCHW: Tensor
    labels_N: Tensor
    classes: tuple[str, ...]
    source: str
    published_test: int
    differs: str | None
    published_valid: int = 0
    groups_N: Tensor | None = None
    names: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    mapped: bool = False

    def __init__(
        self,
        pictures_NCHW: Any,
        labels_N: Any = None,
        classes: Sequence[Any] | None = None,
        source: str = IN_MEMORY,
        published_test: int = 0,
        differs: str | None = None,
        *,
        published_valid: int = 0,
        groups_N: Tensor | None = None,
        names: Sequence[str] = (),
        notes: Sequence[str] = (),
        losses: Sequence[str] = (),
        mapped: bool = False,
    ) -> None:
        """Take images and labels in any usual form; a contiguous uint8 array is not copied.

        Args:
            pictures_NCHW: An array or tensor N×C×H×W, N×H×W×C or N×H×W, of uint8 or of float from 0
                to 1; or a list of Pillow images or arrays of one size. Without labels: a torch
                dataset or `DataLoader` of (image, label), a pair (images, labels), or two of these:
                train and test.
            labels_N: A class's number or name for each image, or one-hot rows.
            classes: The class names by number; default: the labels that occur, sorted.
            source: Where they came from: a source's name.
            published_test: The last so many images are the published test split.
            differs: How the set differs from the published one of its name.
            published_valid: See the attributes, as for what follows.
            groups_N: What each image belongs to.
            names: What each image is called.
            notes: What was chosen when the images were read.
            losses: What was left out then.
            mapped: The images lie in a file; known of an array that numpy maps, C×H×W in order.

        Raises:
            InputError: Shapes, types or labels do not fit each other: a HydrofoilError and
                ValueError.
        """
        images, labels = pictures_NCHW, labels_N
        if labels is None:
            images, labels, known, test = read_pairs(images)
            classes, published_test = classes or known, published_test or test
        count = len(labels) if hasattr(labels, "__len__") else None
        pictures_NCHW = as_images(images, count=count)
        labels_N, known = as_labels(labels, len(pictures_NCHW), classes)
        self._set(pictures_NCHW=pictures_NCHW, labels_N=labels_N.to(pictures_NCHW.device))
        self._set(classes=known, source=source, published_test=published_test, differs=differs)
        self._set(published_valid=published_valid, groups_N=groups_N, names=tuple(names))
        self._set(notes=tuple(notes), losses=tuple(losses))
        self._set(mapped=mapped or is_mapped(images, pictures_NCHW))
        if not 0 <= self.published_test <= len(self):
            raise InputError(
                f"published_test: expected 0 to {len(self)}, got {self.published_test}"
            )

    @classmethod
    def own(
        cls,
        pictures_NCHW: Tensor,
        labels_N: Tensor,
        classes: Sequence[str],
        source: str,
        *,
        published_valid: int = 0,
        published_test: int = 0,
        groups: Sequence[str] = (),
        names: Sequence[str] = (),
        notes: Sequence[str] = (),
        losses: Sequence[str] = (),
        mapped: bool = False,
    ) -> "Pictures":
        """Return the user's own images, which a source has read; see the attributes."""
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        groups_N = torch.tensor([numbers[group] for group in groups]) if groups else None
        return cls(
            pictures_NCHW, labels_N, classes, source, published_test,
            published_valid=published_valid, groups_N=groups_N, names=names, notes=notes,
            losses=losses, mapped=mapped,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pictures_NCHW)

    def __repr__(self) -> str:
        size = f"{len(self):,} images of {by(self.shape)}"
        return f"Pictures({brief(self.source)}: {size}, {self.K} classes)"

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
            pictures_NCHW=self.pictures_NCHW.to(device),
            labels_N=self.labels_N.to(device),
            mapped=False,
        )

    def blank(self, count: int, device: torch.device) -> "Pictures":
        """Return room on a device for some images such as these: all black, of the first class."""
        blank = self.with_images(torch.zeros(count, *self.shape, dtype=torch.uint8, device=device))
        blank._set(labels_N=torch.zeros(count, dtype=torch.int64, device=device))
        blank._set(published_test=0, published_valid=0, groups_N=None, names=())
        return blank

    def compared(self, differs: str) -> "Pictures":
        """Return the same set, with how it differs from the published one."""
        return self._with(differs=differs)

    @property
    def given_parts(self) -> list[Tensor]:
        """Indices of the training, validation and test images of a set with parts of its own."""
        test = len(self) - self.published_test
        return list(torch.arange(len(self)).tensor_split([test - self.published_valid, test]))

    def grouped(self, groups_N: Tensor) -> "Pictures":
        """Return the same set, with what each image belongs to."""
        return self._with(groups_N=groups_N)

    def with_images(self, pictures_NCHW: Tensor, *, mapped: bool = False) -> "Pictures":
        """Return the same set with other images, one for each."""
        changed = self._with(pictures_NCHW=pictures_NCHW, mapped=mapped)
        changed.__dict__.pop("hash", None)
        return changed

    def _with(self, **changes: Any) -> "Pictures":
        """Return a copy with other values of fields that the hash does not depend on."""
        changed = copy.copy(self)
        changed._set(**changes)
        return changed

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

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
        for counts in self._levels(index_N):
            share = counts.cpu().double() / counts.sum().item()
            mean = float(share @ value)
            means.append(mean)
            deviations.append(float(share @ (value - mean) ** 2) ** 0.5)
        return means, deviations

    def normalization(self, index_N: Tensor) -> dict[str, tuple[float, ...]]:
        """Return the fields mean and std of a recipe for these images, rounded to four digits."""
        means, deviations = self.channel_statistics(index_N)
        return {
            "mean": tuple(round(mean, 4) for mean in means),
            "std": tuple(round(deviation, 4) or 1.0 for deviation in deviations),
        }

    def _levels(self, index_N: Tensor) -> Tensor:
        """Return levels_CV: how often each channel of the indexed images has each of 256 values.

        Never copies all images at once: they may be more than the memory holds.
        """
        channels, height, width = self.shape
        pictures_NCHW = self.pictures_NCHW
        levels_CV = torch.zeros(channels, 256, dtype=torch.int64, device=pictures_NCHW.device)
        for part_N in index_N.sort().values.split(max(1, PART // (height * width * channels))):
            for counts, channel_NHW in zip(levels_CV, pictures_NCHW[part_N].unbind(1), strict=True):
                counts += torch.bincount(channel_NHW.flatten(), minlength=256)
        return levels_CV


def is_mapped(given: Any, pictures_NCHW: Tensor) -> bool:
    """Tell whether an array lies in a file, mapped into memory, and images are that memory."""
    return (
        isinstance(given, np.memmap)
        and given.__array_interface__["data"][0] == pictures_NCHW.data_ptr()
    )
