"""Reads the published sets' files into one tensor.

The readers are our own: no file of a set can run code, its memory is known before it is read, and
the message says which file is broken.

Axes: N pictures, C channels, H rows, W columns.
"""

import gzip
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.blocks import AGAIN, Block, Bytes, joined
from hydrofoil.data.published.cifar import read_batch
from hydrofoil.data.published.idx import find_idx, read_idx
from hydrofoil.errors import HydrofoilError
from hydrofoil.wording import by

DIGIT_CLASSES = tuple("0123456789")
IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
CIFAR100_FILES = ("train", "test", "meta")

Files = Mapping[str, Path]  # where each file lies, by its canonical name


def read_digits(files: Files) -> Pictures:
    """Read scikit-learn's copy of the UCI digits: each row 64 values from 0 to 16 and a label."""
    # Its file is read in place: importing sklearn.datasets for it would cost a second or two.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise HydrofoilError(
            "digits: scikit-learn, which contains them, is not installed.\n"
            "Install it with: pip install scikit-learn"
        )
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pixels = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Pictures(
        torch.from_numpy(pixels), torch.from_numpy(rows[:, 64].copy()), DIGIT_CLASSES, "digits"
    )


def read_mnist(files: Files, classes: tuple[str, ...], source: str) -> Pictures:
    """Read MNIST's four IDX files, or those of a dataset in the same format."""
    pictures_NHW, labels_N, published_test = read_idx_pair(files, IDX_FILES)
    return checked(files, pictures_NHW[:, None], labels_N, classes, source, published_test)


def read_idx_pair(files: Files, names: Sequence[str]) -> tuple[Bytes, Bytes, int]:
    """Return the 28×28 images and the labels of four IDX files, and how many are for testing.

    Args:
        files: Where they lie.
        names: Images and labels for training, then for testing.

    Raises:
        HydrofoilError: A file is damaged, or has not one image for each label.
    """
    pictures: list[Block] = []
    labels: list[Bytes] = []
    for images_file, labels_file in (names[:2], names[2:]):
        images, numbers = find_idx(files[images_file]), read_idx(files[labels_file])
        if images.shape != (len(numbers), 28, 28) or numbers.ndim != 1 or not len(numbers):
            raise HydrofoilError(
                f"{files[images_file]}: {by(images.shape)} for {len(numbers)} "
                f"labels in {files[labels_file].name}: expected one 28×28 image for each label."
            )
        pictures.append(images)
        labels.append(numbers)
    return joined(pictures), np.concatenate(labels), len(labels[-1])


def read_cifar(
    files: Files, batches: tuple[str, ...], label: bytes, classes: tuple[str, ...], source: str
) -> Pictures:
    """Join CIFAR's batches; the last one is the published test split."""
    rows: list[Block] = []
    labels: list[Any] = []
    for name in batches:
        batch = read_batch(files[name])
        block, numbers = batch.get(b"data"), batch.get(label)
        if (
            not isinstance(block, Block)
            or not isinstance(numbers, list)
            or block.shape != (len(numbers), 3072)
            or not numbers
        ):
            raise HydrofoilError(
                f"{files[name]}: expected rows of 3072 bytes and one label for each.\n{AGAIN}"
            )
        rows.append(block)
        labels.extend(numbers)
    pictures_NCHW = joined(rows).reshape(-1, 3, 32, 32)
    return checked(files, pictures_NCHW, labels, classes, source, len(rows[-1]))


def read_cifar100(files: Files) -> Pictures:
    """Read CIFAR-100 with its 100 fine labels, whose names are in the file `meta`."""
    names = read_batch(files["meta"]).get(b"fine_label_names")
    try:
        classes = tuple(cast(bytes, name).decode("ascii") for name in cast("list[Any]", names))
        if not all(map(str.isprintable, classes)):
            raise ValueError("control characters")
    except (TypeError, AttributeError, ValueError):
        raise HydrofoilError(
            f"{files['meta']}: expected the names of the classes.\n{AGAIN}"
        ) from None
    return read_cifar(files, CIFAR100_FILES[:2], b"fine_labels", classes, "cifar100")


def checked(
    files: Files,
    pictures_NCHW: np.ndarray[Any, Any],
    labels: Any,
    classes: tuple[str, ...],
    source: str,
    published_test: int,
) -> Pictures:
    """Return the pictures, or say that the files contradict each other."""
    try:
        labels_N = torch.from_numpy(np.array(labels, dtype=np.int64))
        return Pictures(torch.from_numpy(pictures_NCHW), labels_N, classes, source, published_test)
    except (ValueError, TypeError, OverflowError) as error:
        folder = next(iter(files.values())).parent
        raise HydrofoilError(f"{folder}: the files do not match each other: {error}.") from error
