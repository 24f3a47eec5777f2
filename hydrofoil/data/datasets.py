"""Torch datasets, loaders and pairs of images and labels, read once into arrays.

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.convert import as_bytes, as_images, is_dataset, kind_of, say_rounded, stacked
from hydrofoil.data.labels import as_labels, raw_labels
from hydrofoil.errors import InputError
from hydrofoil.wording import by

TOGETHER = 1000  # images that are converted at a time: as floats they take four times the memory
Classes = Sequence[Any] | None
EXPECTED = (
    "hf.Pictures(images, labels), a pair (images, labels), or a torch dataset or DataLoader of "
    "(image, label)"
)


def read_pairs(given: Any) -> tuple[Any, Any, Classes, int]:
    """Return images, labels, class names if known, and how many images are the test part.

    Args:
        given: (images, labels); a torch dataset or `DataLoader` of (image, label), or a list of
            these; or (train, test), where each is one of them.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(given, tuple) and len(cast("tuple[Any, ...]", given)) == 2:
        train, test = cast("tuple[Any, Any]", given)
        if _has_labels(train) and _has_labels(test):
            return _joined(_read(train), _read(test))
    return (*_read(given), 0)


def read_dataset(given: Any) -> tuple[Tensor, list[Any], Classes]:
    """Return the images, labels and class names of a torch dataset or loader, or a list of pairs.

    A `DataLoader` that only shuffles is read in its dataset's order, so that the result does not
    depend on the shuffling.

    Raises:
        InputError: An item is not (image, label), or the images have several sizes.
    """
    parts: list[Tensor] = []
    waiting: list[Any] = []
    labels: list[Any] = []
    largest = 0.0

    def convert(values: Any) -> None:
        nonlocal largest
        pictures_NCHW, rounding = as_bytes(stacked(values))
        if parts and parts[0].shape[1:] != pictures_NCHW.shape[1:]:
            sizes = f"{by(parts[0].shape[1:])} and {by(pictures_NCHW.shape[1:])}"
            raise InputError(f"images of several sizes, {sizes}: expected one size.")
        parts.append(pictures_NCHW)
        largest = max(largest, rounding)

    with torch.random.fork_rng(devices=[]):  # a loader draws from the global generator
        for at, item in enumerate(_items(given)):
            image, label = _pair(item, at)
            if getattr(image, "ndim", 0) == 4:
                convert(image)
                labels += raw_labels(label, len(image)).tolist()
                continue
            waiting.append(image)
            labels.append(label)
            if len(waiting) == TOGETHER:
                convert(waiting)
                waiting = []
    if waiting:
        convert(waiting)
    if not parts:
        raise InputError(f"{kind_of(given)} without an item: expected one image or more.")
    say_rounded(largest)
    return torch.cat(parts), labels, _class_names(given)


def _has_labels(given: Any) -> bool:
    return isinstance(given, tuple) or hasattr(given, "pictures_NCHW") or is_dataset(given)


def _read(given: Any) -> tuple[Any, Any, Classes]:
    """Return images, labels and class names of one dataset."""
    if hasattr(given, "pictures_NCHW"):
        return given.pictures_NCHW, given.labels_N, given.classes
    if isinstance(given, tuple):
        pair = cast("tuple[Any, ...]", given)
        if len(pair) != 2:
            raise InputError(f"a tuple of {len(pair)}: expected {EXPECTED}.")
        return (*pair, None)
    pairs = isinstance(given, list) and given and isinstance(given[0], tuple)
    if pairs or is_dataset(given):
        return read_dataset(given)
    if isinstance(given, Tensor | np.ndarray | list):
        raise InputError(
            "images without labels: expected one label for each.\nType hf.Pictures(images, labels)."
        )
    as_images(given)  # for its error
    raise InputError(f"got {kind_of(given)}: expected {EXPECTED}.")


def _joined(
    train: tuple[Any, Any, Classes], test: tuple[Any, Any, Classes]
) -> tuple[Tensor, Any, Classes, int]:
    """Return a training and a test part as one."""
    images_NCHW, more_NCHW = as_images(train[0]), as_images(test[0])
    if images_NCHW.shape[1:] != more_NCHW.shape[1:]:
        raise InputError(
            f"test images of {by(more_NCHW.shape[1:])}: expected "
            f"{by(images_NCHW.shape[1:])}, as in training."
        )
    labels: list[Any] = []
    for part, count in ((train, len(images_NCHW)), (test, len(more_NCHW))):
        known = part[2] or train[2]
        values = raw_labels(part[1], count)
        if known is not None:
            numbers_N, names = as_labels(values, count, known)
            values = np.array(names)[numbers_N.cpu().numpy()]
        labels += values.tolist()
    return torch.cat([images_NCHW, more_NCHW]), labels, train[2], len(more_NCHW)


def _items(given: Any) -> Iterator[Any]:
    """Yield the items of a dataset or loader, or its batches."""
    from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
    from torch.utils.data import default_collate as usual

    if isinstance(given, DataLoader):
        sampler, images = given.sampler, given.dataset
        shuffled = isinstance(sampler, RandomSampler) and not sampler.replacement
        complete = hasattr(images, "__len__") and len(cast("Any", sampler)) == len(
            cast("Any", images)
        )
        plain = type(sampler) is SequentialSampler or (shuffled and complete)
        if plain and given.batch_size is not None and given.collate_fn is usual:
            given = images
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        indexed: Any = given
        return (indexed[index] for index in range(len(indexed)))
    return iter(cast("Iterable[Any]", given))


def _pair(item: Any, at: int) -> tuple[Any, Any]:
    """Return the image and label of an item."""
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, Any]", item)
        image = next((fields[name] for name in ("image", "img") if name in fields), None)
        if image is not None and "label" in fields:
            return image, fields["label"]
    elif isinstance(item, tuple | list) and len(cast("Sequence[Any]", item)) == 2:
        image, label = cast("Sequence[Any]", item)
        return image, label
    raise InputError(f"item {at} of the dataset is {kind_of(item)}: expected (image, label).")


def _class_names(given: Any) -> Classes:
    """Return the class names that a dataset has, or one inside it."""
    for _ in range(10):  # a loader of a subset of a subset
        names = getattr(given, "classes", None)
        if isinstance(names, list | tuple) and names:
            return cast("Sequence[Any]", names)
        given = getattr(given, "dataset", None) or next(iter(getattr(given, "datasets", [])), None)
    return None
