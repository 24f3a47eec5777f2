"""Arrays of images in an .npz file, in MedMNIST's layout or Keras's, as pictures.

Axes: N images, C channels, H rows, W columns.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from hydrofoil.data.convert import as_images
from hydrofoil.data.folders import stamp_of
from hydrofoil.data.labels import as_labels
from hydrofoil.data.listing import PART_NAMES, PARTS, some_of
from hydrofoil.data.npz_members import Member, cached
from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError

Array = np.ndarray[Any, np.dtype[Any]]
MOST_BYTES = 64 << 30  # that the arrays of a compressed file may have together
LARGE = 256 << 20  # bytes of arrays, from which on images go through the image cache
IMAGES = frozenset({"images", "image", "x", "data", "pictures", "arr0"})
LABELS = frozenset({"labels", "label", "y", "targets", "target", "arr1"})
NAMES = frozenset({"classes", "classnames", "labelnames", "names"})
EXPECTED = (
    "train_images and train_labels, perhaps val_… and test_…; or x_train, y_train, …; or images "
    "and labels"
)


def read_npz_set(source: str, file: Path | BinaryIO) -> Pictures:
    """Return the images in an .npz file.

    Args:
        source: The set's path, as the user gave it.
        file: Its path, or the open file.

    Raises:
        HydrofoilError: It is damaged, holds objects in place of numbers, or no images with labels.
    """
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return _read(source, opened, f"{file.resolve()} {stamp_of(file)}")
    return _read(source, file)


def _read(source: str, file: BinaryIO, stamp: str = "") -> Pictures:
    """Return the images in an open file.

    Args:
        source: The set's path, as the user gave it.
        file: The file.
        stamp: What large arrays are cached under; empty: they are read into memory.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            size = sum(part.file_size for part in packed.infolist())
            if size > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES >> 30} GiB")
            apart = bool(stamp) and size > LARGE
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                arrays: dict[str, Array | Member] = {
                    str(name): _member(packed, name, loaded)
                    if apart and _kind(name)[0] in IMAGES
                    else loaded[name]
                    for name in loaded.files
                }
            return _joined(*_sorted(arrays), source, stamp)
    except HydrofoilError as error:
        raise HydrofoilError(f"{source}: {error}") from error
    except Exception as error:  # numpy parses a header as Python's syntax: errors of many kinds
        why = str(error).partition("\n")[0].rstrip(".")[:120]
        raise HydrofoilError(f"{source}: not an .npz file of arrays of numbers: {why}.") from error


def _member(packed: zipfile.ZipFile, name: str, loaded: Any) -> Array | Member:
    """Return an array to be read in parts, or in memory where it lies in Fortran's order."""
    try:
        return Member(packed, name)
    except ValueError:
        return loaded[name]


def _kind(name: str) -> tuple[str, str]:
    """Return what an array's name says it holds, and of which part; "" where there are no parts.

    >>> _kind("val_images"), _kind("x"), _kind("y_train")
    (('images', 'valid'), ('x', ''), ('y', 'train'))
    """
    words = re.split(r"[_\W]+", name.casefold())
    parts = [word for word in words if word in PART_NAMES]
    rest = "".join(word for word in words if word not in PART_NAMES)
    return rest, PART_NAMES[parts[0]] if parts else ""


def _sorted(
    arrays: Mapping[str, Array | Member],
) -> tuple[dict[str, Array | Member], dict[str, Array], list[str] | None]:
    """Return images and labels by part, "" where there are no parts, and the class names."""
    images: dict[str, Array | Member] = {}
    labels: dict[str, Array] = {}
    names: list[str] | None = None
    for name, array in arrays.items():
        kind, part = _kind(name)
        if kind in IMAGES:
            images[part] = array
        elif isinstance(array, Member):
            continue  # only images are left in the file
        elif kind in NAMES:
            names = [str(value) for value in array.tolist()]
        elif kind in LABELS:
            labels[part] = array
    if not images or images.keys() != labels.keys() or not images.keys() & {"", "train"}:
        raise HydrofoilError(
            f"arrays {', '.join(sorted(map(ascii, arrays)))}: expected {EXPECTED}."
        )
    return images, labels, names


def _joined(
    images: dict[str, Array | Member],
    labels: dict[str, Array],
    names: list[str] | None,
    source: str,
    stamp: str,
) -> Pictures:
    """Return the parts of a set as one, train, valid and test in a row."""
    order = [part for part in ("", *PARTS) if part in images]
    counts = {part: len(images[part]) for part in order}
    given = [_column(labels[part], counts[part]) for part in order]
    labels_N, classes = as_labels(np.concatenate(given), sum(counts.values()), names)
    if len(classes) < 2:
        raise HydrofoilError(f"one class only, '{some_of(classes)}': expected two or more.")
    pictures_NCHW = _images([images[part] for part in order], source, stamp)
    return Pictures.own(
        pictures_NCHW if isinstance(pictures_NCHW, Tensor) else torch.from_numpy(pictures_NCHW),
        labels_N,
        classes,
        source,
        published_valid=counts.get("valid", 0),
        published_test=counts.get("test", 0),
        mapped=isinstance(pictures_NCHW, np.memmap),
    )


def _images(parts: Sequence[Array | Member], source: str, stamp: str) -> Tensor | Array:
    """Return the images of all parts, N×C×H×W: in memory, or from the image cache."""
    members = [part for part in parts if isinstance(part, Member)]
    if members:
        return cached(members, source, stamp)
    pictures = [as_images(part, count=len(part)) for part in parts]
    shapes = {tuple(part_NCHW.shape[1:]) for part_NCHW in pictures}
    if len(shapes) > 1:
        raise HydrofoilError(f"images of several sizes, {sorted(shapes)}: expected one.")
    return torch.cat(pictures) if len(pictures) > 1 else pictures[0]


def _column(labels: Array, count: int) -> Array:
    """Return labels as one axis: MedMNIST has N×1; more columns are several labels an image."""
    if labels.ndim != 2:
        return labels
    columns = int(labels.shape[-1])
    if columns == 1:
        return labels[:, 0]
    if not ((labels == 0) | (labels == 1)).all():
        raise HydrofoilError(f"labels of {columns} columns: expected one label an image.")
    if not (labels.sum(1) == 1).all():
        raise HydrofoilError(
            f"{columns} labels for each of {count:,} images, several of them set: "
            "expected one label an image."
        )
    return labels.argmax(1)
