"""What the field data.source names: a published dataset, or the user's own images by their path."""

import re

# Files that hold a dataset; "." in front of a folder's name makes it a path as well.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
TABLES = (".csv", ".tsv")
ENDINGS = (*TABLES, ".parquet", ".npz", *ARCHIVES)
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
