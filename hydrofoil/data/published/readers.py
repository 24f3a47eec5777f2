"""Reads the published sets' files into one tensor.

The readers are our own: no file of a set can run code, its memory is known before it is read, and
the message says which file is broken.

Axes: N pictures, C channels, H rows, W columns.
"""

import gzip
import importlib.util
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.blocks import AGAIN, Block, Bytes, joined
from hydrofoil.data.published.cifar import read_batch
from hydrofoil.data.published.idx import find_idx, read_idx
from hydrofoil.errors import HydrofoilError

DIGIT_CLASSES = tuple("0123456789")
IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
CIFAR100_FILES = ("train", "test", "meta")


def read_digits(folder: Path) -> Pictures:
    """Read scikit-learn's copy of the UCI digits: each row 64 values from 0 to 16 and a label."""
    # Its file is read in place: importing sklearn.datasets for it would cost a second or two.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise HydrofoilError(
            "digits: scikit-learn, which carries them, is not installed: pip install scikit-learn"
        )
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pixels = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Pictures(
        torch.from_numpy(pixels), torch.from_numpy(rows[:, 64].copy()), DIGIT_CLASSES, "digits"
    )


def read_mnist(folder: Path, classes: tuple[str, ...], source: str) -> Pictures:
    """Read MNIST's four IDX files, or those of a dataset in the same format."""
    pictures: list[Block] = []
    labels: list[Bytes] = []
    for images_file, labels_file in (IDX_FILES[:2], IDX_FILES[2:]):
        images, numbers = find_idx(folder / images_file), read_idx(folder / labels_file)
        if images.shape != (len(numbers), 28, 28) or numbers.ndim != 1 or not len(numbers):
            raise HydrofoilError(
                f"{folder / images_file}: {len(numbers)} labels for pictures of {images.shape}; "
                "expected as many pictures of 28×28, and one at least."
            )
        pictures.append(images)
        labels.append(numbers)
    pictures_NHW, published_test = joined(pictures), len(labels[-1])
    return _checked(
        folder, pictures_NHW[:, None], np.concatenate(labels), classes, source, published_test
    )


def read_cifar(
    folder: Path, files: tuple[str, ...], label: bytes, classes: tuple[str, ...], source: str
) -> Pictures:
    """Join CIFAR's batches; the last file is the published test split."""
    rows: list[Block] = []
    labels: list[Any] = []
    for file in files:
        batch = read_batch(folder / file)
        block, numbers = batch.get(b"data"), batch.get(label)
        if (
            not isinstance(block, Block)
            or not isinstance(numbers, list)
            or block.shape != (len(numbers), 3072)
            or not numbers
        ):
            raise HydrofoilError(
                f"{folder / file}: expected rows of 3072 bytes and as many labels; "
                f"it holds something else.\n{AGAIN}"
            )
        rows.append(block)
        labels.extend(numbers)
    pictures_NCHW = joined(rows).reshape(-1, 3, 32, 32)
    return _checked(folder, pictures_NCHW, labels, classes, source, len(rows[-1]))


def read_cifar100(folder: Path) -> Pictures:
    """Read CIFAR-100 with its 100 fine labels, whose names are in the file `meta`."""
    names = read_batch(folder / "meta").get(b"fine_label_names")
    try:
        classes = tuple(cast(bytes, name).decode("ascii") for name in cast("list[Any]", names))
        if not all(map(str.isprintable, classes)):
            raise ValueError("they would write more than names to a terminal")
    except (TypeError, AttributeError, ValueError):
        raise HydrofoilError(
            f"{folder / 'meta'}: expected the names of the classes; it holds something else.\n"
            f"{AGAIN}"
        ) from None
    return read_cifar(folder, CIFAR100_FILES[:2], b"fine_labels", classes, "cifar100")


def _checked(
    folder: Path,
    pictures_NCHW: np.ndarray[Any, Any],
    labels: Any,
    classes: tuple[str, ...],
    source: str,
    published_test: int,
) -> Pictures:
    """Make the set, or say that the files in the folder contradict each other."""
    try:
        labels_N = torch.from_numpy(np.array(labels, dtype=np.int64))
        return Pictures(torch.from_numpy(pictures_NCHW), labels_N, classes, source, published_test)
    except (ValueError, TypeError, OverflowError) as error:
        raise HydrofoilError(f"{folder}: the files do not fit each other: {error}.") from error
