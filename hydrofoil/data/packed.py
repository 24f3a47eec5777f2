"""The files in a .zip or .tar as a tree: they are read in place, and none is ever unpacked.

A member's name is text here and never becomes a path of this machine.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from hydrofoil.data.archives import Member, named, read_tar_members, tar_members
from hydrofoil.data.folders import File, Reader, Tree, is_clutter, stamp_of
from hydrofoil.data.listing import left_out, some_of
from hydrofoil.errors import HydrofoilError

MOST_BYTES = 256 << 20  # of one member; `decode` takes no more of a stream


def tree_of_archive(source: str, path: Path) -> Tree:
    """Return the files in an archive.

    Raises:
        HydrofoilError: It is damaged, encrypted, or of another format.
    """
    stamp = stamp_of(path)
    tree = _zip(source, path) if zipfile.is_zipfile(path) else _tar(source, path)
    for at, file in enumerate(tree.files):
        tree.files[at] = File(file.parts, stamp, file.at)
    tree.files.sort(key=lambda file: file.parts)
    tree.containers[path] = stamp
    return tree


def _zip(source: str, path: Path) -> Tree:
    with named(path, published=False), zipfile.ZipFile(path) as archive:
        members = [Member(one.filename, one.file_size, number, one.is_dir())
                   for number, one in enumerate(archive.infolist())]  # fmt: skip

    def read(places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
        with named(path, published=False), zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            for position, at in enumerate(places):
                with archive.open(infos[cast(int, at)]) as file:
                    yield position, file.read(MOST_BYTES + 1)

    return _tree(source, members, read)


def _tar(source: str, path: Path) -> Tree:
    def read(places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
        return read_tar_members(path, cast("Sequence[tuple[int, int]]", places))

    return _tree(source, tar_members(path), read)


def _tree(source: str, members: Sequence[Member], read: Reader) -> Tree:
    files: dict[tuple[str, ...], File] = {}
    outside: list[str] = []
    special: list[str] = []
    large: list[str] = []
    for member in members:
        if member.folder:
            continue
        parts = tuple(part for part in re.split(r"[/\\]", member.name) if part not in ("", "."))
        if member.special:
            special.append(member.name)
        elif ".." in parts or not parts or re.match(r"[/\\]|[A-Za-z]:", member.name):
            outside.append(member.name)
        elif member.bytes > MOST_BYTES:
            large.append(member.name)
        elif not any(map(is_clutter, parts)):
            if parts in files:
                raise HydrofoilError(f"{source}: it holds {some_of(['/'.join(parts)])} twice.")
            files[parts] = File(parts, "", member.at)
    losses = [
        left_out(len(names), "member", f"{why}: {some_of(names)}")
        for names, why in (
            (outside, "a path that leads out of the archive"),
            (special, "a link or device"),
            (large, f"more than {MOST_BYTES >> 20} MiB"),
        )
        if names
    ]
    return Tree(source, list(files.values()), read, losses)
