"""Three stratified splits, drawn once with the run's seed and saved with the run.

Axes: N pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.convert import as_pictures
from hydrofoil.data.groups import draw_groups, every_nth, keep_trained
from hydrofoil.data.labels import as_indices
from hydrofoil.data.pictures import Pictures
from hydrofoil.display import notebook_html
from hydrofoil.errors import HydrofoilError, InputError
from hydrofoil.files import npz, read_npz
from hydrofoil.randomness import generator

PARTS = ("train", "valid", "test")
PART_WORDS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True, eq=False, init=False)
class Split:
    """The images for training, validation and testing; no image is in two of them.

    Attributes:
        train: Indices of the images that gradients come from; int64, in ascending order.
        valid: Indices of those that choose the epoch; may be empty.
        test: Indices of those that only `test` opens; may be empty.
        pictures_hash: Of the set that they index.
        labels_N: The labels of that set, for a table of the classes; None: not known.
        classes: Its class names.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    pictures_hash: str
    labels_N: Tensor | None
    classes: tuple[str, ...]

    def __init__(
        self,
        train: Any,
        valid: Any = (),
        test: Any = (),
        pictures_hash: "str | Pictures | None" = None,
        *,
        labels_N: Tensor | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        """Take indices in any usual form: a list, a range, an array, a tensor, a mask.

        Args:
            train: Indices of the images that gradients come from.
            valid: Indices of those that choose the epoch.
            test: Indices of those that only `test` opens.
            pictures_hash: The images, or their hash; empty: not to be checked.
            labels_N: The labels of all images, where their hash alone is given.
            classes: The class names, likewise.

        Raises:
            InputError: An index is in two parts, twice in one, or outside the images.
        """
        if pictures_hash is None:
            raise InputError(
                "a split of unknown images: expected the images that it indexes.\n"
                "Type hf.Split(train, valid, test, pictures)."
            )
        known = isinstance(pictures_hash, Pictures)
        count = len(pictures_hash) if known else 2**62
        parts = [
            _part(given, count, name)
            for name, given in zip(PARTS, (train, valid, test), strict=True)
        ]
        _check_disjoint(parts)
        for name, part in zip(PARTS, parts, strict=True):
            object.__setattr__(self, name, part)
        if known:
            labels_N, classes = pictures_hash.labels_N, pictures_hash.classes
        object.__setattr__(self, "labels_N", labels_N)
        object.__setattr__(self, "classes", tuple(classes))
        digest = pictures_hash.hash if known else pictures_hash
        object.__setattr__(self, "pictures_hash", digest)

    def __repr__(self) -> str:
        return f"Split({', '.join(f'{len(getattr(self, part)):,} {part}' for part in PARTS)})"

    def _repr_html_(self) -> str:
        """Show how many images each part has in a notebook."""
        return notebook_html("split", self)

    def to_bytes(self) -> bytes:
        """Return the split as an .npz file, the same bytes for the same split."""
        arrays = {part: getattr(self, part).numpy() for part in PARTS}
        return npz({**arrays, "pictures_hash": np.array(self.pictures_hash)})

    @staticmethod
    def from_bytes(content: bytes) -> "Split":
        """Return the split that `to_bytes` stored.

        Raises:
            Exception: It is something else; of several kinds.
        """
        arrays = read_npz(content)
        parts = [torch.from_numpy(arrays[part]) for part in PARTS]
        for name, part in zip(PARTS, parts, strict=True):
            rising = part.ndim == 1 and bool((part[1:] > part[:-1]).all())
            if part.dtype != torch.int64 or not rising or (len(part) and int(part[0]) < 0):
                raise ValueError(f"{name} is not an ascending list of indices")
        return Split(*parts, pictures_hash=str(arrays["pictures_hash"]))

    def part_names(self, count: int) -> list[str]:
        """Return the name of each image's part, for so many images; empty: it is in none."""
        names = [""] * count
        for part in PARTS:
            for at in getattr(self, part).tolist():
                names[at] = part
        return names

    def check(self, pictures: Pictures) -> None:
        """Make sure that the split was drawn from this dataset.

        Raises:
            HydrofoilError: The pictures are not the ones that were split.
        """
        parts = (self.train, self.valid, self.test)
        last = max((int(part[-1]) for part in parts if len(part)), default=-1)
        if last >= len(pictures) or self.pictures_hash != pictures.hash:
            way = "Give the folder with the same files: --data-root DIR"
            if pictures.names:
                way = "Its files or labels have changed since: restore them, or train a new run."
            raise HydrofoilError(
                f"{pictures.source}: not the images that the run was trained on "
                f"(hash {pictures.hash[:12]}, expected {self.pictures_hash[:12]}).\n{way}"
            )


def _part(given: Any, count: int, name: str) -> Tensor:
    """Return one part's indices on the CPU, in ascending order."""
    part = as_indices(given, count, f"split.{name}", "[0, 1, 2]").cpu()
    return part if bool((part[1:] > part[:-1]).all()) else part.sort().values


def _check_disjoint(parts: Sequence[Tensor]) -> None:
    together = torch.cat(list(parts)).sort().values
    twice = together[1:][together[1:] == together[:-1]]
    if len(twice):
        number = int(twice[0])
        where = [name for name, part in zip(PARTS, parts, strict=True) if number in part]
        places = " and ".join(where) if len(where) > 1 else f"{where[0]} twice"
        raise InputError(
            f"split: image {number} is in {places}: expected each image in one part, once."
        )


def draw_split(
    pictures: Any,
    *,
    train: Literal["all"] | int | float = "all",
    valid: float = 0.0,
    test: float = 0.0,
    merge: bool = False,
    seed: int = 0,
) -> Split:
    """Split a dataset; the published test split stays as it is unless `merge` is set.

    Args:
        pictures: The set, in any form that `hf.Pictures` takes.
        train: How many pictures to train on, or which fraction below 1 of those that are left for
            training; the other splits do not depend on it, and fewer are a part of more.
        valid: Fraction for validation, of the pictures that are not the published test split.
        test: Fraction for testing, without a published test split or with `merge`.
        merge: Draw all parts from all pictures together.
        seed: What the draw depends on, beside the set.

    Raises:
        HydrofoilError: A fraction that the set cannot give, or that leaves a part without a
            picture.

    >>> from hydrofoil.data.source import load
    >>> split = draw_split(load("digits"), valid=0.1, test=0.2)
    >>> len(split.train), len(split.valid), len(split.test)
    (1258, 180, 359)
    >>> len(draw_split(load("digits"), train=100, valid=0.1, test=0.2).train)
    100
    """
    pictures = as_pictures(pictures)
    given_valid, given_test = _given(pictures, valid, test, merge)
    rest = torch.arange(len(pictures) - given_valid - given_test)
    labels_N = pictures.labels_N.cpu()  # indices are made on the CPU, wherever the pictures are
    shuffled = rest[torch.randperm(len(rest), generator=generator(seed, "split"))]
    train_N, valid_N, test_N = _drawn(pictures, labels_N, shuffled, valid, test)
    for name, fraction, part in (("valid", valid, valid_N), ("test", test, test_N)):
        if fraction and not len(part):
            raise HydrofoilError(
                f"data.{name} = {fraction:g}: selects none of {len(rest):,} images. "
                "Expected a larger fraction, or 0."
            )
    if not len(train_N):
        raise HydrofoilError(
            f"{pictures.source}: no image of {len(pictures):,} is left for training."
        )
    valid_end = len(rest) + given_valid
    valid_N = torch.arange(len(rest), valid_end) if given_valid else valid_N
    test_N = torch.arange(valid_end, len(pictures)) if given_test else test_N
    if train != "all":
        train_N = _fewer(train_N, labels_N, train, pictures)
    return Split(train_N.sort().values, valid_N.sort().values, test_N, pictures)


def _given(pictures: Pictures, valid: float, test: float, merge: bool) -> tuple[int, int]:
    """Return how many pictures a set has in validation and test splits of its own.

    Raises:
        HydrofoilError: It has one, and a fraction for that part is given as well.
    """
    if merge:
        return 0, 0
    own = pictures.published_valid, pictures.published_test
    for part, fraction, count, what in (
        ("valid", valid, own[0], "validation"),
        ("test", test, own[1], "test"),
    ):
        if count and fraction:
            verb = "has" if pictures.names else "publishes"
            raise HydrofoilError(
                f"data.{part} = {fraction:g}: {pictures.source} {verb} its own {what} split of "
                f"{count:,} images.\n"
                f"Leave data.{part} at 0, or split all images together with data.merge=true."
            )
    return own


def _drawn(
    pictures: Pictures, labels_N: Tensor, shuffled: Tensor, valid: float, test: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw train, valid and test from shuffled pictures, stratified by class.

    The training pictures are sorted by class, and shuffled within.
    """
    if pictures.groups_N is not None:
        count = len(shuffled)  # the first so many pictures
        parts = draw_groups(
            pictures.groups_N[:count], labels_N[:count], pictures.K, valid, test, shuffled
        )
        place_N = shuffled.argsort()
        train_N = parts[0][place_N[parts[0]].argsort()]
        valid_N, test_N = parts[1], parts[2]
    else:
        train_N = shuffled[torch.argsort(labels_N[shuffled], stable=True)]
        valid_N, train_N = every_nth(train_N, round(valid * len(shuffled)))
        test_N, train_N = every_nth(train_N, round(test * len(shuffled)))
        kept = keep_trained(train_N, valid_N, test_N, labels_N=labels_N)
        train_N, valid_N, test_N = kept
    return train_N[torch.argsort(labels_N[train_N], stable=True)], valid_N, test_N


def _fewer(by_class: Tensor, labels_N: Tensor, train: int | float, pictures: Pictures) -> Tensor:
    """Return the part of the training pictures that data.train selects.

    Every class gives its share, to within one picture, from the beginning of its shuffled list.

    Raises:
        HydrofoilError: There are not as many, or a class would be left without any.
    """
    available = len(by_class)
    count = round(train * available) if train < 1 else int(train)
    if count > available:
        raise HydrofoilError(
            f"data.train = {train:g}: expected at most {available:,}, the images of "
            f'{pictures.source} that are left for training.\nSet data.train="all" for all of them.'
        )
    labels, sizes = labels_N[by_class].unique_consecutive(return_counts=True)
    ranks = [torch.arange(int(size), dtype=torch.float64) for size in sizes]
    place_N = torch.cat([(rank + 0.5) / len(rank) for rank in ranks])  # in its class, from 0 to 1
    order = torch.argsort(place_N, stable=True)
    firsts = order.argsort()[sizes.cumsum(0) - sizes]  # where each class first comes up
    if int(firsts.max()) >= count:
        missing = [pictures.classes[label] for label in labels[firsts >= count].tolist()]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise HydrofoilError(
            f"data.train = {train:g}: {count:,} of {available:,} images would leave none of class "
            f"'{missing[0]}'{more}.\nExpected at least {int(firsts.max()) + 1:,} images."
        )
    return by_class[order[:count]]
