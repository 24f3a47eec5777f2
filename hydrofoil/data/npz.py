"""Arrays of images in an .npz file, in MedMNIST's layout or Keras's, as pictures.

Axes: N images, C channels, H rows, W columns.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from hydrofoil.data.convert import as_images
from hydrofoil.data.labels import as_labels
from hydrofoil.data.listing import PART_NAMES, PARTS, some_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError

Array = np.ndarray[Any, np.dtype[Any]]
MOST_BYTES = 64 << 30  # that the arrays of a compressed file may have together
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
            return read_npz_set(source, opened)
    try:
        with zipfile.ZipFile(file) as packed:
            if sum(part.file_size for part in packed.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES >> 30} GiB")
        file.seek(0)
        with np.load(file, allow_pickle=False) as loaded:
            arrays: dict[str, Array] = {str(name): loaded[name] for name in loaded.files}
    except Exception as error:  # numpy parses a header as Python's syntax: errors of many kinds
        why = str(error).partition("\n")[0].rstrip(".")[:120]
        raise HydrofoilError(f"{source}: not an .npz file of arrays of numbers: {why}.") from error
    images, labels, names = _sorted(source, arrays)
    try:
        return _joined(source, images, labels, names)
    except HydrofoilError as error:
        raise HydrofoilError(f"{source}: {error}") from error


def _sorted(
    source: str, arrays: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array], list[str] | None]:
    """Return images and labels by part, "" where there are no parts, and the class names."""
    images: dict[str, Array] = {}
    labels: dict[str, Array] = {}
    names: list[str] | None = None
    for name, array in arrays.items():
        words = re.split(r"[_\W]+", name.casefold())
        parts = [word for word in words if word in PART_NAMES]
        rest = "".join(word for word in words if word not in PART_NAMES)
        part = PART_NAMES[parts[0]] if parts else ""
        if rest in NAMES:
            names = [str(value) for value in array.tolist()]
        elif rest in IMAGES:
            images[part] = array
        elif rest in LABELS:
            labels[part] = array
    if not images or images.keys() != labels.keys() or not images.keys() & {"", "train"}:
        raise HydrofoilError(
            f"{source}: arrays {', '.join(sorted(map(ascii, arrays)))}: expected {EXPECTED}."
        )
    return images, labels, names


def _joined(
    source: str, images: dict[str, Array], labels: dict[str, Array], names: list[str] | None
) -> Pictures:
    """Return the parts of a set as one, train, valid and test in a row."""
    order = [part for part in ("", *PARTS) if part in images]
    counts = {part: len(images[part]) for part in order}
    pictures = [as_images(images[part], count=counts[part]) for part in order]
    shapes = {tuple(part_NCHW.shape[1:]) for part_NCHW in pictures}
    if len(shapes) > 1:
        raise HydrofoilError(f"images of several sizes, {sorted(shapes)}: expected one.")
    given = [_column(labels[part], counts[part]) for part in order]
    labels_N, classes = as_labels(np.concatenate(given), sum(counts.values()), names)
    if len(classes) < 2:
        raise HydrofoilError(f"one class only, '{some_of(classes)}': expected two or more.")
    return Pictures.own(
        torch.cat(pictures) if len(pictures) > 1 else pictures[0],
        labels_N,
        classes,
        source,
        published_valid=counts.get("valid", 0),
        published_test=counts.get("test", 0),
    )


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
