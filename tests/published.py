"""Small sets in the published files' own formats, made here so that no test needs the real ones."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

CIFAR10_SHAPE, MNIST_SHAPE = (3, 32, 32), (1, 28, 28)


def class_pictures(
    count: int, shape: tuple[int, int, int], seed: int, classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 pictures and labels that a network can learn: a pattern by class, and noise."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(1).uniform(60, 200, (classes, *shape))
    labels = np.arange(count) % classes
    rng.shuffle(labels)
    pictures = patterns[labels] + rng.normal(0, 40, (count, *shape))
    return pictures.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, train: int = 600, test: int = 100, folder: str = "MNIST") -> None:
    for prefix, count, seed in (("train", train, 2), ("t10k", test, 3)):
        pictures, labels = class_pictures(count, MNIST_SHAPE, seed)
        write_idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", pictures[:, 0])
        write_idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", labels)


def write_cifar10(root: Path, train: int = 600, test: int = 100) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = class_pictures(train, CIFAR10_SHAPE, 4)
    for number, part in enumerate(np.array_split(np.arange(train), 5), start=1):
        write_batch(
            folder / f"data_batch_{number}", {"data": pictures[part], "labels": labels[part]}
        )
    pictures, labels = class_pictures(test, CIFAR10_SHAPE, 5)
    write_batch(folder / "test_batch", {"data": pictures, "labels": labels})
    names = [
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
    ]
    write_batch(folder / "batches.meta", {"label_names": names})


def write_cifar100(root: Path, train: int = 400, test: int = 200) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for part, count, seed in (("train", train, 6), ("test", test, 7)):
        pictures, labels = class_pictures(count, CIFAR10_SHAPE, seed, classes=100)
        write_batch(
            folder / part, {"data": pictures, "fine_labels": labels, "coarse_labels": labels // 5}
        )
    write_batch(folder / "meta", {"fine_label_names": [f"thing{n:02d}" for n in range(100)]})


def write_batch(path: Path, batch: Mapping[str, np.ndarray | Sequence[str]]) -> None:
    """Write a dictionary as Python 2 pickled it, protocol 2: byte strings, numpy.core arrays."""
    body = b"".join(_text(key) + _value(value) for key, value in batch.items())
    path.write_bytes(b"\x80\x02}(" + body + b"u.")


def _text(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode()


def _value(value: np.ndarray | Sequence[str]) -> bytes:
    if not isinstance(value, np.ndarray):
        return b"](" + b"".join(map(_text, value)) + b"e"
    if value.dtype != np.uint8:
        return b"](" + b"".join(b"M" + struct.pack("<H", number) for number in value) + b"e"
    rows = value.reshape(len(value), -1)
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = (
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = (
        b"J" + struct.pack("<i", rows.shape[0]) + b"J" + struct.pack("<i", rows.shape[1]) + b"\x86"
    )
    content = b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes()
    return empty + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
