"""Reads EMNIST, SVHN and STL-10, each in the format of its publishers.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.blocks import AGAIN, Bytes, opened
from hydrofoil.data.published.readers import checked, read_idx_pair
from hydrofoil.errors import HydrofoilError

SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")
STL10_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
STL10_BYTES = 3 * 96 * 96  # of an image

Files = Mapping[str, Path]  # where each file lies, by its canonical name


def emnist_files(part: str) -> tuple[str, ...]:
    """Return the names of the four IDX files of one of EMNIST's sets."""
    return tuple(
        f"emnist-{part}-{split}-{kind}"
        for split in ("train", "test")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )


def read_emnist(files: Files, part: str, classes: tuple[str, ...]) -> Pictures:
    """Read one of EMNIST's sets; its files hold each image mirrored along its diagonal.

    The labels of letters count from 1.
    """
    images_NWH, numbers_N, published_test = read_idx_pair(files, emnist_files(part))
    upright_NHW = np.ascontiguousarray(images_NWH.transpose(0, 2, 1))
    labels_N = numbers_N.astype(np.int64) - (part == "letters")
    return checked(files, upright_NHW[:, None], labels_N, classes, f"emnist-{part}", published_test)


def read_svhn(files: Files, classes: tuple[str, ...]) -> Pictures:
    """Read the cropped digits of SVHN, MATLAB files in which the digit 0 has the label 10."""
    pictures: list[Bytes] = []
    labels: list[Any] = []
    for name in SVHN_FILES:
        arrays = _matlab(files[name])
        images, numbers = arrays.get("X"), arrays.get("y")
        if (
            not isinstance(images, np.ndarray)
            or not isinstance(numbers, np.ndarray)
            or images.dtype != np.uint8
            or images.shape != (32, 32, 3, numbers.size)
        ):
            raise HydrofoilError(
                f"{files[name]}: expected X of 32×32×3×N bytes and y of N labels.\n{AGAIN}"
            )
        pictures.append(images.transpose(3, 2, 0, 1))
        labels.append(numbers.reshape(-1).astype(np.int64) % 10)
    return checked(
        files, np.concatenate(pictures), np.concatenate(labels), classes, "svhn", len(labels[-1])
    )


def _matlab(path: Path) -> dict[str, Any]:
    """Return the arrays in a MATLAB file of version 5, which scipy reads without running code."""
    from scipy.io import loadmat

    with opened(path) as (file, _):
        try:
            return dict(loadmat(file, variable_names=("X", "y")))
        except HydrofoilError:
            raise
        except Exception as error:  # of many kinds, on a damaged file
            raise HydrofoilError(f"{path}: not a MATLAB file, or damaged.\n{AGAIN}") from error


def read_stl10(files: Files, classes: tuple[str, ...]) -> Pictures:
    """Read the labeled images of STL-10: bytes in columns, labels from 1."""
    pictures: list[Bytes] = []
    labels: list[Any] = []
    for images_file, labels_file in (STL10_FILES[:2], STL10_FILES[2:]):
        numbers = np.frombuffer(_content(files[labels_file]), np.uint8)
        images = _content(files[images_file])
        if len(images) != len(numbers) * STL10_BYTES or not len(numbers):
            raise HydrofoilError(
                f"{files[images_file]}: {len(images):,} bytes for {len(numbers):,} labels: "
                f"expected {STL10_BYTES:,} for each.\n{AGAIN}"
            )
        columns_NCWH = np.frombuffer(images, np.uint8).reshape(-1, 3, 96, 96)
        pictures.append(columns_NCWH.transpose(0, 1, 3, 2))
        labels.append(numbers.astype(np.int64) - 1)
    return checked(
        files, np.concatenate(pictures), np.concatenate(labels), classes, "stl10", len(labels[-1])
    )


def _content(path: Path) -> bytes:
    with opened(path) as (file, _):
        return bytes(file.read())
