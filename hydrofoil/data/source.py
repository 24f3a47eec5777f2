"""From a name or path to pictures: published datasets are found or downloaded, and compared.

The data root has torchvision's layout; usual other names, folders and archives are found as well.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hydrofoil.data.ingest import resized
from hydrofoil.data.own import read_frame, read_own
from hydrofoil.data.pictures import IN_MEMORY, Pictures
from hydrofoil.data.published.catalogue import SOURCES, Source
from hydrofoil.data.published.content import differences
from hydrofoil.data.published.download import Silent, Watcher
from hydrofoil.data.published.obtain import obtain
from hydrofoil.device import temporary_cache, user_cache
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.recipe.errors import explain
from hydrofoil.recipe.schema import Data
from hydrofoil.recipe.source import is_path, known_as


def load(
    source: Any, root: str | Path = "", watcher: Watcher | None = None, **fields: Any
) -> Pictures:
    """Return a dataset: a published one, downloaded on first use, or the user's own images.

    A published set's content is compared with the published one. Where it differs,
    `Pictures.differs` says how. That, and what of the user's own files is left out, is shown: by
    the watcher, or without one as a warning of Python's logging.

    Args:
        source: A published set's name, such as mnist, whose case and punctuation are ignored; or
            the path of a folder of class folders, a table, an archive: see `docs/data.md`; or a
            pandas frame of paths and labels.
        root: The data root; empty: HYDROFOIL_DATA, or the user's cache folder.
        watcher: Shows the progress of downloading and decoding, and lines.
        fields: Of a recipe's section [data]: size=32, fit="pad", label="species".

    Raises:
        HydrofoilError: Unknown name; files that are missing and cannot be downloaded, or that are
            damaged; images that cannot be read.

    >>> load("digits").shape
    (1, 8, 8)
    """
    frame = source if hasattr(source, "columns") else None
    given = "./" if frame is not None else source
    data = source if isinstance(source, Data) else described(given, fields)
    if is_path(data.source):
        follow = watcher or Silent()
        pictures = read_own(data, follow) if frame is None else read_frame(frame, data, follow)
        lines = [f"{data.source}: {line}" for line in pictures.losses]
        if watcher:
            lines += [f"{data.source}: {line}" for line in pictures.notes]
    else:
        pictures = _published(source_name(data.source), root, watcher)
        different = not_published(pictures.source, pictures.differs) if pictures.differs else ""
        lines = [f"{pictures.source}: {different}"] if different else []
        if data.size is not None:
            pictures = resized(pictures, (data.size[0], data.size[-1]), data.fit)
    for line in lines:
        (watcher.say if watcher else logging.getLogger("hydrofoil").warning)(line)
    return pictures


def described(source: str | Path, fields: Mapping[str, Any]) -> Data:
    """Return the section [data] of a recipe that reads a source.

    Raises:
        HydrofoilError: It has no such field, or does not take that value.
    """
    text = str(source)
    if isinstance(source, Path) and not is_path(text):
        text = f"./{text}"
    document = {"source": text, **fields}
    try:
        return Data.model_validate(document)
    except ValidationError as error:
        raise HydrofoilError(explain(error.errors(), {"data": document}, "load")) from error


def _published(name: str, root: str | Path, watcher: Watcher | None) -> Pictures:
    found, at = SOURCES[name], data_root(root)
    with contextlib.ExitStack() as stack:
        fallback = None if root or os.environ.get("HYDROFOIL_DATA") else temporary_cache()
        files = obtain(name, found, at, fallback, watcher or Silent(), stack)
        pictures = found.read(files)
        differs, known = differences(pictures, found, files), found.pictures_hash or found.md5
        return pictures.compared(differs) if known or differs else pictures


def describe(
    data: Data, root: str | Path = "", watcher: Watcher | None = None
) -> tuple[tuple[int, int, int], int]:
    """Return the shape of a dataset's images and the number of classes.

    Published sets are not read for it; the user's own images are.
    """
    if is_path(data.source):
        pictures = load(data, root, watcher)
        return pictures.shape, pictures.K
    found = find_source(data.source)
    if data.size is None:
        return found.shape, found.classes
    return (found.shape[0], data.size[0], data.size[-1]), found.classes


def groups_of(source: str) -> Mapping[str, tuple[str, ...]]:
    """Return the classes of a published dataset that belong together, by the group's name."""
    known = known_as(source)
    return SOURCES[known].groups if known else {}


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
    if name == IN_MEMORY:
        raise HydrofoilError(
            f"{name}: these were given in Python and are not saved in a file.\n"
            "Give them to the function: pictures=…, as they were for training."
        )
    here = f"\nFor your own images there, give the path: ./{name}" if Path(name).exists() else ""
    raise HydrofoilError(f"unknown dataset '{name}'. {nearest(name, SOURCES)}{here}")


def merges_published_test(source: str, merge: bool) -> bool:
    """Return whether merging this dataset's splits mixes published test images into training."""
    return merge and not is_path(source) and bool(find_source(source).files)


def data_root(root: str | Path = "") -> Path:
    """Return the data root: the given folder, HYDROFOIL_DATA, or the user's cache."""
    given = str(root) or os.environ.get("HYDROFOIL_DATA", "")
    if given:
        return Path(given).expanduser()
    return user_cache()
