"""From a name to pictures: the shipped sources, read from torchvision's layout under the data root.

The readers are our own: they cost milliseconds where importing torchvision costs seconds, and they
can say which file is broken. torchvision is asked only to download what is missing.

Axes: N pictures, C channels, H rows, W columns.
"""

import contextlib
import gzip
import importlib.util
import io
import os
import pickle
import socket
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import user_cache
from hydrofoil.errors import HydrofoilError, nearest, reason
from hydrofoil.recipe import Recipe

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR10_GROUPS = {
    "animals": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "vehicles": ("airplane", "automobile", "ship", "truck"),
}
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_GROUPS = {
    "clothes": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Shirt"),
    "shoes": ("Sandal", "Sneaker", "Ankle boot"),
}
DIGIT_CLASSES = tuple("0123456789")
IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
CIFAR10_FILES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
CIFAR100_FILES = ("train", "test", "meta")


@dataclass(frozen=True)
class Source:
    """A set that can be had by name.

    Args:
        read: Makes the pictures from the folder that holds the files.
        folder: Where the files lie under the data root, as torchvision has it; empty: needs none.
        files: What must lie there.
        torchvision: The class in torchvision.datasets that downloads them.
        shape: Channels, height and width of its pictures.
        classes: How many classes it has.
        counts: Published training and test pictures; digits publish no test split.
        groups: Classes that belong together, by the group's name, where that is known.
    """

    read: Callable[[Path], Pictures]
    shape: tuple[int, int, int]
    classes: int
    counts: tuple[int, int]
    folder: str = ""
    files: tuple[str, ...] = ()
    torchvision: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def load(source: str, root: str | Path = "") -> Pictures:
    """Return a shipped set, downloading it on first use when the network allows.

    Args:
        source: digits, mnist, fashion-mnist, cifar10 or cifar100.
        root: The data root; empty: HYDROFOIL_DATA, or the user's cache folder.

    Raises:
        HydrofoilError: No such source; files missing and not to be had, cut short or not what
            they should be.

    >>> load("digits").shape
    (1, 8, 8)
    """
    found = find_source(source)
    folder = data_root(root) / found.folder
    if not all(_present(folder / file) for file in found.files):
        _download(source, found, data_root(root))
    return found.read(folder)


def find_source(name: str) -> Source:
    """Return a source by its name.

    Raises:
        HydrofoilError: No source has it.
    """
    if name not in SOURCES:
        raise HydrofoilError(f"'{name}' is no source of pictures. {nearest(name, SOURCES)}")
    return SOURCES[name]


def merges_published_test(recipe: Recipe) -> bool:
    """Tell whether a recipe trains on pictures that were published for testing."""
    return recipe.data.merge and bool(find_source(recipe.data.source).files)


def data_root(root: str | Path = "") -> Path:
    """Return the published sets' folder: the one given, HYDROFOIL_DATA, or the user's cache."""
    given = str(root) or os.environ.get("HYDROFOIL_DATA", "")
    if given:
        return Path(given).expanduser()
    return user_cache()


def _present(path: Path) -> bool:
    return path.is_file() or path.with_name(path.name + ".gz").is_file()


def _download(name: str, source: Source, root: Path) -> None:
    """Have torchvision put the files where they belong."""
    folder = root / source.folder
    missing = [file for file in source.files if not _present(folder / file)]
    import torchvision  # costs seconds: only where something must be fetched

    print_to_stderr = contextlib.redirect_stdout(sys.stderr)  # standard output is the verb's own
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision sets none: a silent mirror would hang for ever
    try:
        with print_to_stderr:
            getattr(torchvision.datasets, source.torchvision)(root, download=True)
    except Exception as error:  # torchvision raises whatever its many layers do
        why = (
            str(error).strip().splitlines()[-1][:200]
            if str(error).strip()
            else type(error).__name__
        )
        raise HydrofoilError(
            f"{name}: not in {folder}, and could not be downloaded: {why}\n"
            f"Missing: {', '.join(missing)}\n"
            "Put these files there, or name another folder with --data-root or HYDROFOIL_DATA."
        ) from error
    finally:
        socket.setdefaulttimeout(waited)


def _read_digits(folder: Path) -> Pictures:
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


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the uint8 array in an IDX file, plain or gzipped.

    Format: two zero bytes, 8 for uint8, the number of axes, each axis's length as a big-endian
    32-bit integer, then the values (http://yann.lecun.com/exdb/mnist).

    Raises:
        HydrofoilError: The file is missing, cut short, too long or of another format.
    """
    content = _content(path)
    axes = content[3] if len(content) >= 4 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= axes <= 4 or len(content) < 4 + 4 * axes:
        raise HydrofoilError(
            f"{path}: not an IDX file of bytes.\nDelete it, to have it downloaded again."
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4))
    start = 4 + 4 * axes
    if len(content) - start != np.prod(shape, dtype=object):
        promised = "×".join(map(str, shape))
        raise HydrofoilError(
            f"{path}: holds {len(content) - start} bytes of data where its head promises "
            f"{promised}: cut short or overlong.\n"
            "Delete it, to have it downloaded again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    """Return a file's bytes, unpacked where only its gzipped form is there."""
    packed = path.with_name(path.name + ".gz")
    try:
        return path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HydrofoilError(
            f"{packed}: a broken gzip file.\nDelete it, to have it downloaded again."
        ) from error
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error


def _read_mnist(folder: Path, classes: tuple[str, ...], source: str) -> Pictures:
    arrays = [read_idx(folder / file) for file in IDX_FILES]
    for at in (0, 2):
        shape, labels, file = arrays[at].shape, arrays[at + 1], IDX_FILES[at]
        if shape != (len(labels), 28, 28) or labels.ndim != 1 or not len(labels):
            raise HydrofoilError(
                f"{folder / file}: {len(labels)} labels for pictures of {shape}; "
                "expected as many pictures of 28×28, and one at least."
            )
    labels, published_test = np.concatenate([arrays[1], arrays[3]]), len(arrays[2])
    images = arrays[::2]
    arrays.clear()
    return _checked(folder, _joined(images)[:, None], labels, classes, source, published_test)


def _joined(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the parts as one array; empties the list, so that memory never holds the set twice.

    From the last to the first, as the heap gives memory back from its end.
    """
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.uint8)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
        del part
    return whole


class _PlainUnpickler(pickle.Unpickler):
    """Reads CIFAR's batches, and refuses pickles that ask for more than arrays and strings."""

    def find_class(self, module: str, name: str) -> Any:
        # The published files say numpy.core, which newer NumPy answers with a warning.
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_batch(path: Path) -> dict[bytes, Any]:
    """Return one of CIFAR's published files: keys and strings are bytes, pictures a uint8 array."""
    try:
        batch = _PlainUnpickler(io.BytesIO(_content(path)), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise TypeError("it holds no dictionary")
    except HydrofoilError:
        raise
    except Exception as error:  # a broken pickle can fail in any way
        raise HydrofoilError(
            f"{path}: not one of CIFAR's batch files, or cut short ({error}).\n"
            "Delete it, to have it downloaded again."
        ) from error
    return batch


def _read_cifar(
    folder: Path, files: tuple[str, ...], label: bytes, classes: tuple[str, ...], source: str
) -> Pictures:
    """Join CIFAR's batches; the last file is the published test split."""
    pictures: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    for file in files:
        batch = _read_batch(folder / file)
        rows, numbers = batch.get(b"data"), batch.get(label)
        if (
            not isinstance(rows, np.ndarray)
            or rows.dtype != np.uint8
            or not isinstance(numbers, list)
            or rows.shape != (len(numbers), 3072)
            or not numbers
        ):
            raise HydrofoilError(
                f"{folder / file}: expected rows of 3072 bytes and as many labels; "
                "it holds something else.\n"
                "Delete it, to have it downloaded again."
            )
        pictures.append(rows.reshape(-1, 3, 32, 32))
        labels.extend(numbers)
        del batch, rows
    published_test = len(pictures[-1])
    return _checked(folder, _joined(pictures), labels, classes, source, published_test)


def _read_cifar100(folder: Path) -> Pictures:
    names = _read_batch(folder / "meta").get(b"fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise HydrofoilError(
            f"{folder / 'meta'}: expected the names of the classes; it holds something else."
        )
    classes = tuple(name.decode() for name in names)
    return _read_cifar(folder, CIFAR100_FILES[:2], b"fine_labels", classes, "cifar100")


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


SOURCES = {
    "digits": Source(_read_digits, (1, 8, 8), 10, (1797, 0)),
    "mnist": Source(
        lambda at: _read_mnist(at, DIGIT_CLASSES, "mnist"),
        (1, 28, 28), 10, (60_000, 10_000), "MNIST/raw", IDX_FILES, "MNIST",
    ),
    "fashion-mnist": Source(
        lambda at: _read_mnist(at, FASHION_CLASSES, "fashion-mnist"),
        (1, 28, 28), 10, (60_000, 10_000), "FashionMNIST/raw", IDX_FILES, "FashionMNIST",
        FASHION_GROUPS,
    ),
    "cifar10": Source(
        lambda at: _read_cifar(at, CIFAR10_FILES, b"labels", CIFAR10_CLASSES, "cifar10"),
        (3, 32, 32), 10, (50_000, 10_000), "cifar-10-batches-py", CIFAR10_FILES, "CIFAR10",
        CIFAR10_GROUPS,
    ),
    "cifar100": Source(
        _read_cifar100,
        (3, 32, 32), 100, (50_000, 10_000), "cifar-100-python", CIFAR100_FILES, "CIFAR100",
    ),
}  # fmt: skip
