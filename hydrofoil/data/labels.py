"""Labels and indices of images as hydrofoil takes them, from lists, arrays, tensors and series.

Axes: N images, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.convert import Array, kind_of, to_tensor
from hydrofoil.errors import InputError, nearest
from hydrofoil.wording import by


def as_labels(
    given: Any, count: int, classes: Sequence[Any] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels as int64 labels_N from 0 to K - 1, and the K class names.

    Args:
        given: Whole numbers or names, one for each image: a list, an array, a tensor or a series;
            or one-hot rows, N×K.
        count: How many images there are.
        classes: The names in the order of the numbers; default: the values that occur, sorted.

    Raises:
        InputError: There are fewer or more than images; a label is missing, or outside the classes.

    >>> as_labels(["cat", "dog", "cat"], 3)
    (tensor([0, 1, 0]), ('cat', 'dog'))
    """
    names = None if classes is None else tuple(map(str, classes))
    values = raw_labels(given, count)
    if isinstance(values, np.ndarray):
        return _of_names(values, names)
    if names is None and np.ndim(given) == 2 and np.shape(given)[1] > 1:
        names = tuple(map(str, range(np.shape(given)[1])))  # one-hot rows have all classes
    return _of_numbers(values, names)


def raw_labels(given: Any, count: int) -> Tensor | Array:
    """Return labels as given: int64 numbers as a tensor, names as an array of text.

    Raises:
        InputError: As `as_labels`, as far as it needs no classes.
    """
    values: Tensor | Array = given if isinstance(given, Tensor) else _label_array(given)
    if values.ndim == 2:
        values = _one_hot(values)
    if tuple(values.shape) != (count,):
        raise InputError(
            f"labels: {by(values.shape)} for {count:,} images: expected one label for each image."
        )
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        return values
    return _whole(values, "labels")


def _label_array(given: Any) -> Array:
    """Return labels that are no tensor as an array of numbers or names."""
    if isinstance(given, str | bytes | Mapping) or given is None:
        raise InputError(
            f"labels: got {kind_of(given)}: expected a list or array, one for each image."
        )
    values = given if hasattr(given, "__array__") else _label_list(given)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(
            "labels: rows of several lengths: expected one label for each image."
        ) from error
    if array.dtype.kind in "ST":
        return array.astype(str)
    if array.dtype.kind == "O" and array.ndim == 1:
        array = np.asarray(_label_list(array.tolist()))
    if array.dtype.kind not in "biufU":
        raise InputError(f"labels of {array.dtype}: expected names or whole numbers.")
    return array


def _label_list(given: Any) -> list[Any]:
    """Return labels one by one: all of them names, or none."""
    if not isinstance(given, Iterable):
        raise InputError(
            f"labels: got {kind_of(given)}: expected a list or array, one for each image."
        )
    items = [
        item.item() if isinstance(item, Tensor) and item.ndim == 0 else item
        for item in cast("Iterable[Any]", given)
    ]
    names = sum(isinstance(item, str) for item in items)
    for at, item in enumerate(items):
        if item is None or (names and not isinstance(item, str)):
            expected = "a name, as the others are" if names else "a name or a whole number"
            raise InputError(f"labels: {item!r} at {at}: expected {expected}.")
    return items


def _one_hot(given: Tensor | Array) -> Tensor | Array:
    """Return N×1 labels as N, and one-hot rows as the number of their one."""
    if given.shape[1] == 1:
        return given[:, 0]
    if isinstance(given, Tensor) or given.dtype.kind in "biuf":
        ones = (given == 1).sum(1)
        if bool(((given == 0) | (given == 1)).all()) and bool((ones == 1).all()):
            return (given == 1).int().argmax(1) if isinstance(given, Tensor) else given.argmax(1)
    raise InputError(
        f"labels: {by(given.shape)} and not one-hot: expected one label for each image.\n"
        "The most probable class of each row is labels.argmax(1)."
    )


def _whole(given: Tensor | Array, what: str) -> Tensor:
    """Return whole numbers as int64; floats that are whole are taken, too."""
    tensor = given.detach() if isinstance(given, Tensor) else to_tensor(given, what)
    if tensor.is_floating_point():
        broken = (tensor != tensor.round()) | ~tensor.isfinite()
        if bool(broken.any()):
            at = int(broken.nonzero()[0, 0])
            raise InputError(f"{what}: {tensor[at].item():g} at {at}: expected whole numbers.")
    if tensor.is_complex():
        raise InputError(f"{what} of {tensor.dtype}: expected whole numbers.")
    return tensor.to(torch.int64)


def _of_names(given: Array, names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    found, place_N = np.unique(given, return_inverse=True)
    found = [str(name) for name in found]
    if names is None:
        return torch.from_numpy(place_N.astype(np.int64)), tuple(found)
    for name in found:
        if name not in names:
            raise InputError(f"labels: {name!r} is not one of the classes. {nearest(name, names)}")
    numbers = np.array([names.index(name) for name in found], np.int64)
    return torch.from_numpy(numbers[place_N]), names


def _of_numbers(labels_N: Tensor, names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    if names is None:
        values, place_N = labels_N.unique(return_inverse=True)
        return place_N, tuple(map(str, values.tolist()))
    if len(labels_N):
        low, high = int(labels_N.min()), int(labels_N.max())
        if not 0 <= low <= high < len(names):
            shift = (
                "\nThey count from 1: pass labels - 1." if (low, high) == (1, len(names)) else ""
            )
            came = f"{low} to {high}" if high > low else f"{low}"
            raise InputError(
                f"labels: {came}: expected 0 to {len(names) - 1}, the index of one of "
                f"{len(names)} classes.{shift}"
            )
    return labels_N, names


def as_indices(given: Any, count: int, what: str = "index", example: str = "split.valid") -> Tensor:
    """Return indices of images as int64 index_N.

    Args:
        given: A list, a range, a slice, an array or a tensor of whole numbers; a mask of `count`
            booleans; or one number.
        count: How many images there are.
        what: What to call them in an error.
        example: What would fit in its place, for an error.

    Raises:
        InputError: It is something else, or outside the set; a split, whose part is not named.

    >>> as_indices([True, False, True], 3), as_indices(range(2), 3)
    (tensor([0, 2]), tensor([0, 1]))
    """
    _refuse_split(given, what, example)
    if isinstance(given, slice):
        given = range(count)[given]
    if isinstance(given, range):
        given = (
            torch.arange(given.start, given.stop, given.step)
            if len(given)
            else torch.zeros(0, dtype=torch.int64)
        )
    if not isinstance(given, Tensor):
        came = kind_of(given)
        try:
            given = (
                np.asarray(given)
                if not isinstance(given, list | tuple) or given
                else np.zeros(0, int)
            )
        except ValueError as error:
            raise InputError(
                f"{what}: lists of several lengths: expected one list of indices."
            ) from error
        if given.dtype.kind not in "biuf":
            raise InputError(f"{what}: got {came}: expected a list of indices, such as {example}.")
    if given.dtype in (torch.bool, np.bool_):
        if tuple(given.shape) != (count,):
            raise InputError(
                f"{what}: a mask of {by(given.shape)}: expected {count:,}, one for each image."
            )
        given = torch.as_tensor(given).nonzero()[:, 0]
    index = _whole(given, what)
    if index.ndim > 1:
        raise InputError(
            f"{what}: {by(index.shape)}: expected one list of indices, such as {example}."
        )
    index_N = index.reshape(-1)
    outside = index_N[(index_N < 0) | (index_N >= count)]
    if len(outside):
        raise InputError(
            f"{what}: {int(outside[0])}: expected 0 to {count - 1}: there are {count:,} images."
        )
    return index_N


def _refuse_split(given: Any, what: str, example: str) -> None:
    """Say which parts a split has, where one of them is expected."""
    if given is None:
        raise InputError(f"{what}: None: expected a list of indices, such as {example}.")
    if all(hasattr(given, part) for part in ("train", "valid", "test")):
        raise InputError(
            f"{what}: got a Split, which has three parts: expected one of them.\n"
            f"Pass split.valid ({len(given.valid):,} images), split.test ({len(given.test):,}) "
            f"or split.train ({len(given.train):,})."
        )
