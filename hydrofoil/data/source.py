"""From a name to pictures: published datasets are found, or downloaded, read and compared.

The data root has torchvision's layout; usual other names, folders and archives are found as well.
"""

import contextlib
import logging
import os
from pathlib import Path

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.catalogue import SOURCES, Source
from hydrofoil.data.published.content import differences
from hydrofoil.data.published.download import Silent, Watcher
from hydrofoil.data.published.find import squash
from hydrofoil.data.published.obtain import obtain
from hydrofoil.device import temporary_cache, user_cache
from hydrofoil.errors import HydrofoilError, nearest


def load(source: str, root: str | Path = "", watcher: Watcher | None = None) -> Pictures:
    """Return a published dataset, downloading it on first use.

    The content is compared with the published one. Where it differs, `Pictures.differs` says how,
    and a line is shown: by the watcher, or without one as a warning of Python's logging.

    Args:
        source: digits, mnist, fashion-mnist, cifar10 or cifar100; case and punctuation are ignored.
        root: The data root; empty: HYDROFOIL_DATA, or the user's cache folder.
        watcher: Shows a download's progress, and lines.

    Raises:
        HydrofoilError: Unknown name; files that are missing and cannot be downloaded, or that are
            damaged.

    >>> load("digits").shape
    (1, 8, 8)
    """
    name = source_name(source)
    found, at = SOURCES[name], data_root(root)
    with contextlib.ExitStack() as stack:
        fallback = None if root or os.environ.get("HYDROFOIL_DATA") else temporary_cache()
        files = obtain(name, found, at, fallback, watcher or Silent(), stack)
        pictures = found.read(files)
        pictures = pictures.compared(differences(pictures, found, files))
    if pictures.differs:
        line = f"{name}: {not_published(name, pictures.differs)}"
        (watcher.say if watcher else logging.getLogger("hydrofoil").warning)(line)
    return pictures


def not_published(name: str, differs: str) -> str:
    """Say that a dataset is not the published one of its name, and how it differs."""
    return f"not the published {find_source(name).title}: {differs}."


def find_source(name: str) -> Source:
    """Return a dataset's description by its name.

    Raises:
        HydrofoilError: No dataset has this name.
    """
    return SOURCES[source_name(name)]


def source_name(name: str) -> str:
    """Return a dataset's own name; case, punctuation and usual other names are accepted.

    Raises:
        HydrofoilError: No dataset has this name.

    >>> source_name("Fashion MNIST")
    'fashion-mnist'
    """
    if known := known_as(name):
        return known
    raise HydrofoilError(f"unknown dataset '{name}'. {nearest(name, SOURCES)}")


def known_as(name: str) -> str:
    """Return a dataset's own name, or an empty string if no dataset has this name."""
    return next(
        (
            known
            for known, source in SOURCES.items()
            if squash(name) in (squash(known), *source.aliases)
        ),
        "",
    )


def merges_published_test(source: str, merge: bool) -> bool:
    """Return whether merging this dataset's splits mixes published test images into training."""
    return merge and bool(find_source(source).files)


def data_root(root: str | Path = "") -> Path:
    """Return the data root: the given folder, HYDROFOIL_DATA, or the user's cache."""
    given = str(root) or os.environ.get("HYDROFOIL_DATA", "")
    if given:
        return Path(given).expanduser()
    return user_cache()
