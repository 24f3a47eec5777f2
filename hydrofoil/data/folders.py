"""A folder of class folders, perhaps below train, valid and test, as a listing of its images."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydrofoil.data.listing import PART_NAMES, Found, Listing, left_out, listed, shown, some_of
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.recipe.source import ENDINGS, TABLES
from hydrofoil.wording import plural

SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .dib .tif .tiff .pbm .pgm .ppm .pnm .pfm "
    ".avif .heic .heif .jp2 .j2k .j2c .jpx .jpf .ico .tga".split()
)
CLUTTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"})
MOST_DEEP = 32  # folders below one another


# From the places of some files to (position among them, file or bytes), in any order.
Reader = Callable[[Sequence[object]], Iterator[tuple[int, Path | bytes]]]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a tree.

    Args:
        parts: Its path below the root, part by part.
        stamp: Its size and time of change.
        at: Where its bytes are.
    """

    parts: tuple[str, ...]
    stamp: str
    at: object


@dataclass
class Tree:
    """The files below a folder or in an archive.

    Args:
        source: As the user gave it.
        files: Sorted by path; hidden ones and clutter are left out.
        read: Gives the files' contents.
        losses: What was left out, a line each.
        empty: Folders with nothing in them, by their path.
        containers: Archives that hold the files, and what changes when they do.
    """

    source: str
    files: list[File]
    read: Reader
    losses: list[str] = field(default_factory=list[str])
    empty: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    containers: dict[Path, str] = field(default_factory=dict[Path, str])


def tree_of_folder(source: str, root: Path) -> Tree:
    """Return the files below a folder; links are followed, except to a folder that holds them.

    Raises:
        HydrofoilError: A folder cannot be read.
    """
    tree, circles = Tree(source, [], read_paths), list[str]()
    status = os.stat(root)
    _walk(root, (), [(status.st_dev, status.st_ino)], tree, circles)
    tree.files.sort(key=lambda file: file.parts)
    if circles:
        why = f"{some_of(circles)}: it leads back to itself or to a folder above"
        tree.losses.append(left_out(len(circles), "link", why))
    return tree


def read_paths(places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
    """Return places that are paths as they are: the `Reader` of files in folders."""
    for at, path in enumerate(places):
        yield at, Path(str(path))


def _walk(
    folder: Path,
    above: tuple[str, ...],
    chain: list[tuple[int, int]],
    tree: Tree,
    circles: list[str],
) -> None:
    """Collect the files below a folder; `chain` holds device and inode of it and those above."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        raise HydrofoilError(f"{shown(str(folder))}: cannot be read: {reason(error)}.") from error
    visible = [entry for entry in found if not is_clutter(entry.name)]
    if not visible and above:
        tree.empty.append(above)
    for entry in visible:
        parts = (*above, entry.name)
        try:
            is_folder = entry.is_dir()
        except OSError as error:
            if error.errno == errno.ELOOP:
                circles.append("/".join(parts))
                continue
            is_folder = False  # decoding says what is wrong with it
        if not is_folder:
            tree.files.append(File(parts, stamp_of(entry), entry.path))
            continue
        status = entry.stat() if os.name != "nt" else os.stat(entry.path)
        if (status.st_dev, status.st_ino) in chain or len(parts) > MOST_DEEP:
            circles.append("/".join(parts))
            continue
        inner = [*chain, (status.st_dev, status.st_ino)]
        _walk(Path(entry.path), parts, inner, tree, circles)


def stamp_of(file: Path | os.DirEntry[str]) -> str:
    """Return a file's size and time of change; of a link to nothing, "missing"."""
    try:
        status = file.stat()
    except OSError:  # decoding says so
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def is_clutter(name: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by a system."""
    return name.startswith(".") or name.casefold() in CLUTTER


def is_image_name(name: str) -> bool:
    """Return whether a file's name says that it is an image."""
    return ending_of(name) in SUFFIXES


def ending_of(name: str) -> str:
    """Return a file name's ending in lower case, with its dot; empty if it has none."""
    stem, dot, ending = name.rpartition(".")
    return f".{ending.casefold()}" if dot and stem else ""


def list_folders(tree: Tree, group: str = "") -> Listing:
    """Return the images of a tree whose folders are classes, or train, valid and test with those.

    Args:
        tree: The files.
        group: What keeps images in one part: "folder", the one they lie in below the class's;
            "prefix", their name up to the first of "_", "-" and "."; empty: nothing.

    Raises:
        HydrofoilError: It holds no class folders, or another `group` was given.
    """
    if group not in ("", "folder", "prefix"):
        raise HydrofoilError(
            f"data.group = {group!r}: {tree.source} is a folder: expected folder (the one below "
            "the class folder that an image lies in) or prefix (of its name, up to _ or -).\n"
            "For other groups list the images in a table with a column for them."
        )
    images = [file for file in tree.files if is_image_name(file.parts[-1])]
    depth = _wrappers(images)
    split = _has_parts(images, depth)
    found: list[Found] = []
    loose: list[File] = []
    for file in images:
        part = file.parts[depth] if split else ""
        inner = file.parts[depth + split :]
        if (split and part.casefold() not in PART_NAMES) or len(inner) < 2:
            loose.append(file)
            continue
        name = "/".join(file.parts)
        found.append(
            Found(
                name,
                f"{name} {file.stamp}",
                inner[0],
                file.at,
                part.casefold(),
                _group(inner, group),
            )
        )
    if not found:
        _explain_nothing(tree, images)
    listing = listed(tree.source, found, tree.read)
    listing.containers = tree.containers
    listing.losses = [*tree.losses, *_left_out(tree, images, loose), *listing.losses]
    listing.losses += _without_images(tree, images, depth + split + 1)
    return listing


def _wrappers(images: Sequence[File]) -> int:
    """Return how many folders are around the class folders: archives have one as a rule."""
    depth = 0
    while True:
        inside = [file for file in images if len(file.parts) > depth + 1]
        names = {file.parts[depth] for file in inside}
        if len(names) != 1 or len(inside) < len(images):
            return depth
        if not all(len(file.parts) > depth + 2 for file in inside):
            return depth
        depth += 1


def _has_parts(images: Sequence[File], depth: int) -> bool:
    """Return whether the folders are train, valid and test: one of training has folders in it.

    A class that is called train, of a set of vehicles, has images directly in its folder.
    """
    train = [
        file
        for file in images
        if len(file.parts) > depth + 1 and PART_NAMES.get(file.parts[depth].casefold()) == "train"
    ]
    return bool(train) and all(len(file.parts) > depth + 2 for file in train)


def _group(inner: Sequence[str], group: str) -> str:
    if group == "folder":
        return "/".join(inner[:-1]) if len(inner) > 2 else "/".join(inner)
    if group == "prefix":
        name = inner[-1]
        end = min((at for at in map(name.find, "_-.") if at > 0), default=len(name))
        return name[:end]
    return ""


def _explain_nothing(tree: Tree, images: Sequence[File]) -> None:
    """Say why a tree has no labeled image.

    Raises:
        HydrofoilError: Always.
    """
    names = ["/".join(file.parts) for file in tree.files]
    tables = [name for name in names if name.lower().endswith(ENDINGS)]
    if tables:
        kind = "table" if tables[0].lower().endswith(TABLES) else "file"
        raise HydrofoilError(
            f"{tree.source}: no class folders with images, but a {kind}: {shown(tables[0])}.\n"
            f"Give its path: data.source={tree.source.rstrip('/')}/{shown(tables[0])}"
        )
    if images:
        raise HydrofoilError(
            f"{tree.source}: {plural(len(images), 'image')} without class folders: expected a "
            "folder for each class, such as pets/cat/1.jpg,\nor a table with their paths and "
            "labels: data.source=./labels.csv"
        )


def _without_images(tree: Tree, images: Sequence[File], depth: int) -> list[str]:
    """Name the folders where a class or part would be and no image is: they are no classes."""
    holding = {file.parts[:depth] for file in images}
    others = {file.parts[:depth] for file in tree.files if len(file.parts) > depth}
    bare = {parts for parts in tree.empty if len(parts) <= depth} | (others - holding)
    if not bare:
        return []
    names = ["/".join(parts) for parts in sorted(bare)]
    return [f"{plural(len(names), 'folder')} without images: {some_of(names)}"]


def _left_out(tree: Tree, images: Sequence[File], loose: Sequence[File]) -> list[str]:
    """Return what of a tree was not used, by kind."""
    lines: list[str] = []
    others = Counter(
        ending_of(file.parts[-1]) or "no ending"
        for file in tree.files
        if not is_image_name(file.parts[-1])
    )
    if others:
        kinds = ", ".join(f"{shown(kind)} {count:,}" for kind, count in others.most_common(4))
        lines.append(left_out(others.total(), "file", f"not images by their names ({kinds})"))
    if loose:
        names = ["/".join(file.parts) for file in loose]
        lines.append(left_out(len(loose), "image", f"in no class folder: {some_of(names)}"))
    return lines
