"""The user's own images by their path: which kind of source it is, and its images."""

from pathlib import Path

from hydrofoil.data.folders import list_folders, stamp_of, tree_of_folder
from hydrofoil.data.ingest import read_listing
from hydrofoil.data.listing import shown
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Data
from hydrofoil.recipe.source import ENDINGS


def read_own(data: Data, watcher: Watcher) -> Pictures:
    """Return the images that a path names.

    Args:
        data: Says the path, how its columns are called, and what size the images get.
        watcher: Shows how far decoding is.

    Raises:
        HydrofoilError: Nothing is there, or it is no dataset that a network can learn.
    """
    path = Path(data.source).expanduser()
    if stamp_of(path) == "missing":
        raise HydrofoilError(
            f"{shown(data.source)}: no such file or folder, seen from {shown(str(Path.cwd()))}.\n"
            "Give the path of a folder of class folders, a table or an archive: data.source=./pets"
        )
    if path.is_dir():
        listing = list_folders(tree_of_folder(data.source, path), data.group)
        return read_listing(listing, data, watcher)
    raise HydrofoilError(
        f"{shown(data.source)}: not a dataset that hydrofoil reads: expected a folder, or a file "
        f"that ends in {', '.join(ENDINGS)}."
    )
