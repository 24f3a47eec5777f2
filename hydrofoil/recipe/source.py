"""What the field data.source names: a published dataset, or the user's own images by their path."""

import re
from collections.abc import Mapping

# Files that hold a dataset; "." in front of a folder's name makes it a path as well.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
TABLES = (".csv", ".tsv")
VALID, TEST = 0.1, 0.2  # fractions of images without such parts of their own
ENDINGS = (*TABLES, ".parquet", ".npz", *ARCHIVES)
# The published datasets, each with other names of it and of its folders and archives, squashed.
DATASETS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "mnist": ("mnist", "mnistraw", "mnistdata", "mnistdataset"),
    "fashion-mnist": ("fashionmnist", "fmnist", "fashionmnistraw", "fashionmnistdataset"),
    "cifar10": ("cifar10", "cifar10batchespy", "cifar10python"),
    "cifar100": ("cifar100", "cifar100python"),
    "kmnist": ("kmnist", "kuzushijimnist", "kmnistraw"),
    "emnist-letters": ("emnistletters",),
    "emnist-balanced": ("emnistbalanced",),
    "emnist-digits": ("emnistdigits",),
    "svhn": ("svhn", "housenumbers"),
    "stl10": ("stl10", "stl10binary"),
}
# Fields of [data] that describe one dataset, and mean nothing for another.
OF_ONE_DATASET = (
    "mean", "std", "size", "fit", "valid", "test", "merge", "path", "label", "split", "group",
)  # fmt: skip


def is_path(source: str) -> bool:
    """Return whether a source is the user's own images, by their path, and not a published name.

    The text alone decides, so that a folder called mnist never takes the dataset's place.

    >>> is_path("./pets"), is_path("pets.zip"), is_path("~/pets"), is_path("mnist")
    (True, True, True, False)
    """
    begins = source.startswith((".", "~"))
    return begins or bool(re.search(r"[/\\]", source)) or source.lower().endswith(ENDINGS)


def squash(name: str) -> str:
    """Return a name in lower case without punctuation.

    >>> squash("Fashion MNIST"), squash("cifar-10")
    ('fashionmnist', 'cifar10')
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def known_as(name: str) -> str:
    """Return a published dataset's own name; empty if none has this name, or it is a path.

    >>> known_as("Fashion MNIST"), known_as("pets"), known_as("./mnist")
    ('fashion-mnist', '', '')
    """
    if is_path(name):
        return ""
    squashed = squash(name)
    found = (known for known, others in DATASETS.items() if squashed in (squash(known), *others))
    return next(found, "")
