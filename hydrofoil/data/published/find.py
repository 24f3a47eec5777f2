"""Finds a published dataset's files where people keep them: other names, folders and archives.

The canonical place is torchvision's (`MNIST/raw/train-images-idx3-ubyte`). Also found are other
spellings (`train-images.idx3-ubyte`), gzipped files, files one folder higher or deeper, the data
root being the dataset's own folder, and archives that were not unpacked.
"""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.recipe.source import squash

MOST_ENTRIES = 2000  # of a folder that are looked at: a published dataset's folder has a dozen
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Layout:
    """Where a dataset's files lie, and what they are called.

    Args:
        folder: torchvision's folder under the data root.
        files: The files' names there.
        aliases: Squashed names (`squash`) of this dataset's folders and archives.
        others: The aliases of the other datasets, whose folders are not searched.
        archives: The published archives' names, where the files come in one.
    """

    folder: str
    files: tuple[str, ...]
    aliases: frozenset[str]
    others: frozenset[str] = frozenset()
    archives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """An archive that holds a dataset's files.

    Args:
        path: The archive.
        members: For a zip, the member of each file; empty for the published archive.
    """

    path: Path
    members: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class Found:
    """What was found.

    Args:
        files: The path of each file, by its canonical name.
        archive: An archive that holds the files, where some of them are missing.
    """

    files: dict[str, Path]
    archive: Archive | None = None


def spellings(file: str) -> frozenset[str]:
    """Return the squashed names that a file is known under.

    >>> sorted(spellings("train-images-idx3-ubyte"))
    ['trainimages', 'trainimagesidx3', 'trainimagesidx3ubyte']
    """
    name = squash(file)
    return frozenset({name, name.removesuffix("ubyte"), re.sub(r"idx\dubyte$", "", name)})


def find(layout: Layout, root: Path) -> Found:
    """Find a dataset's files under a data root.

    Raises:
        HydrofoilError: A folder cannot be read, or what has a file's name is not a file.
    """
    folder = root / layout.folder
    canonical = {name: _plain_or_gzipped(folder / name) for name in layout.files}
    found = Found({name: path for name, path in canonical.items() if path})
    if len(found.files) == len(layout.files):
        return found
    wanted = {spelling: name for name in layout.files for spelling in spellings(name)}
    bad: dict[str, str] = {}
    places = list(_places(layout, root))
    for place in places:
        here = _files_in(place, wanted, bad)
        if len(here) == len(layout.files):
            return Found(here)
        if place.is_relative_to(folder):
            found.files = {**here, **found.files}
    for place in places:
        if archive := _archive_in(place, layout, wanted):
            return Found(found.files, archive)
    for name, what in bad.items():
        if name not in found.files:
            raise HydrofoilError(f"{what}.\nRemove it, or put the file {name} in its place.")
    return found


def _plain_or_gzipped(path: Path) -> Path | None:
    gzipped = path.with_name(f"{path.name}.gz")
    return path if path.is_file() else gzipped if gzipped.is_file() else None


def _places(layout: Layout, root: Path) -> Iterator[Path]:
    """Yield the folders that may hold the files, the likeliest first, none of another dataset."""
    folder = root / layout.folder
    yield from _with_folders(folder, 1)
    if folder.parent != root:
        yield folder.parent
    if {squash(root.name), squash(root.parent.name)} & layout.others - layout.aliases:
        return
    yield root
    if folder.parent != root:
        yield from _with_folders(root / folder.name, 1)
    for entry in _entries(root):
        if squash(entry.name) in layout.aliases and entry.is_dir():
            yield from _with_folders(entry, 2)


def _with_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it."""
    yield folder
    if depth:
        for entry in _entries(folder):
            if entry.is_dir():
                yield from _with_folders(entry, depth - 1)


def _files_in(place: Path, wanted: Mapping[str, str], bad: dict[str, str]) -> dict[str, Path]:
    """Return a folder's files by canonical name; note what has such a name and is not a file.

    Each file may lie in a folder of its own name, as some archives unpack.
    """
    found: dict[str, Path] = {}
    for entry in _entries(place):
        name = wanted.get(_squashed_file(entry.name))
        if name is None or name in found:
            continue
        if entry.is_dir():
            inside = [
                path
                for path in _entries(entry)
                if path.is_file() and wanted.get(_squashed_file(path.name)) == name
            ]
            if inside:
                found[name] = inside[0]
            else:
                bad.setdefault(name, f"{entry}: is a folder, expected a file")
        elif entry.is_file():
            found[name] = entry
        elif entry.is_symlink():
            bad.setdefault(name, f"{entry}: is a link to {os.readlink(entry)}, which is not there")
        else:
            bad.setdefault(name, f"{entry}: is not a regular file")
    return found


def _squashed_file(name: str) -> str:
    return squash(re.sub(r"\.(gz|bin)$", "", name, flags=re.IGNORECASE))


def _entries(folder: Path) -> list[Path]:
    """Return a folder's entries, plain files before gzipped ones, hidden ones left out.

    Raises:
        HydrofoilError: It is there and cannot be read.
    """
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names.append(entry.name)
                if len(names) == MOST_ENTRIES:
                    break
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise HydrofoilError(f"{folder}: cannot be read: {reason(error)}.") from error
    return [folder / name for name in sorted(names, key=lambda name: (name.endswith(".gz"), name))]


def _archive_in(place: Path, layout: Layout, wanted: Mapping[str, str]) -> Archive | None:
    """Return an archive of the dataset in a folder."""
    for path in _entries(place):
        stem = next((path.name[: -len(end)] for end in ARCHIVES if path.name.endswith(end)), "")
        if not stem or not path.is_file() or squash(stem) in layout.others - layout.aliases:
            continue
        if path.suffix == ".zip":
            members = _members(path, wanted)
            if len(members) == len(layout.files):
                return Archive(path, members)
        elif layout.archives and squash(stem) in layout.aliases:
            return Archive(path)
    return None


def _members(path: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the member of each file in a zip; none where it cannot be read as one."""
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return found
    for name in sorted(names[:MOST_ENTRIES], key=lambda name: (name.endswith(".gz"), name)):
        base = name.replace("\\", "/").rpartition("/")[2]
        file = None if base.startswith(".") else wanted.get(_squashed_file(base))
        if file and file not in found:
            found[file] = name
    return found
