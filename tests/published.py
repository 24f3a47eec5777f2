"""Small sets in the published files' own formats, made here so that no test needs the real ones."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def write_others(root: Path) -> None:
    """Write Kuzushiji-MNIST, EMNIST, SVHN and STL-10 in the formats of their publishers."""
    from scipy.io import savemat

    write_mnist(root, folder="KMNIST")
    for part, classes in (("letters", 26), ("balanced", 47), ("digits", 10)):
        for split, count, seed in (("train", 6 * classes, 2), ("test", 2 * classes, 3)):
            pictures, labels = class_pictures(count, MNIST_SHAPE, seed, classes)
            beginning = root / "EMNIST" / "raw" / f"emnist-{part}-{split}"
            stored = pictures[:, 0].transpose(0, 2, 1)
            write_idx(Path(f"{beginning}-images-idx3-ubyte"), stored)
            write_idx(Path(f"{beginning}-labels-idx1-ubyte"), labels + (part == "letters"))
    for folder in ("SVHN", "stl10_binary"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", 60, 4), ("test", 20, 5)):
        pictures, labels = class_pictures(count, CIFAR10_SHAPE, seed)
        stored = {"X": pictures.transpose(2, 3, 1, 0), "y": np.where(labels, labels, 10)[:, None]}
        savemat(root / "SVHN" / f"{split}_32x32.mat", stored)
        pictures, labels = class_pictures(count, (3, 96, 96), seed)
        beside = root / "stl10_binary"
        (beside / f"{split}_X.bin").write_bytes(pictures.transpose(0, 1, 3, 2).tobytes())
        (beside / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())


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


CIFAR100_FINE = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100_COARSE = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables "
    "household_electrical_devices household_furniture insects large_carnivores "
    "large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores "
    "medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 "
    "vehicles_2"
)


def published_cifar100_meta() -> bytes:
    """Return CIFAR-100's published file of names, byte for byte."""
    names = {
        b"fine_label_names": CIFAR100_FINE.encode().split(),
        b"coarse_label_names": CIFAR100_COARSE.encode().split(),
    }
    return Python2Pickle(memos=True).whole(names)


class Python2Pickle:
    """Writes a dictionary in the published files' form, with a memo number after each object.

    Args:
        memos: Without them, a file is as Python's pickletools.optimize leaves it.
    """

    def __init__(self, memos: bool) -> None:
        self.memos, self.count, self.seen = memos, 0, dict[bytes, int]()

    def whole(self, batch: Mapping[bytes, Any]) -> bytes:
        start = b"\x80\x02" + self.put(b"}") + b"("
        items = [self.text(key) + self.value(value) for key, value in batch.items()]
        return start + b"".join(items) + b"u."

    def value(self, value: Any) -> bytes:
        kinds = {bytes: self.text, int: integer, list: self.sequence, np.ndarray: self.array}
        return kinds[type(value)](value)

    def put(self, content: bytes) -> bytes:
        self.count += self.memos
        return content + (self.number(b"q", b"r", self.count) if self.memos else b"")

    def number(self, short: bytes, long: bytes, number: int) -> bytes:
        return short + b"%c" % number if number < 256 else long + struct.pack("<I", number)

    def text(self, content: bytes) -> bytes:
        if content in self.seen:
            return self.number(b"h", b"j", self.seen[content])
        short = len(content) < 256
        head = b"U%c" % len(content) if short else b"T" + struct.pack("<i", len(content))
        whole = self.put(head + content)
        if self.memos:
            self.seen[content] = self.count
        return whole

    def sequence(self, items: Sequence[Any]) -> bytes:
        whole = self.put(b"]")
        for start in range(0, len(items), 1000):
            part = [self.value(item) for item in items[start : start + 1000]]
            whole += b"(" + b"".join(part) + b"e"
        return whole

    def array(self, array: np.ndarray) -> bytes:
        put, order = self.put, b"\x89" if array.flags.c_contiguous else b"\x88"
        whole = put(b"cnumpy.core.multiarray\n_reconstruct\n") + put(b"cnumpy\nndarray\n")
        whole += b"K\0" + put(b"\x85") + put(b"U\x01b") + put(b"\x87") + put(b"R") + b"(K\x01"
        whole += b"".join(map(integer, array.shape)) + put(b"\x86")
        whole += put(b"cnumpy\ndtype\n") + put(b"U\x02u1") + b"K\0K\x01" + put(b"\x87")
        whole += put(b"R") + b"(K\x03" + put(b"U\x01|") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
        whole += b"K\0" + put(b"t") + b"b" + order
        whole += put(b"T" + struct.pack("<i", array.nbytes) + array.tobytes("A"))
        return whole + put(b"t") + b"b"


def integer(number: int) -> bytes:
    if 0 <= number < 256:
        return b"K%c" % number
    in_two = 0 <= number < 65536
    return b"M" + struct.pack("<H", number) if in_two else b"J" + struct.pack("<i", number)
