"""A table of paths and labels beside its images, as a listing of them."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydrofoil.data.folders import SUFFIXES, File, Tree, stamp_of
from hydrofoil.data.listing import PART_NAMES, Found, Listing, left_out, listed, shown, some_of
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.recipe.schema import Data

# What columns are called, the likeliest first; compared in lower case, without "_" and "-".
USUAL: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "filepath", "imagepath", "file", "filename", "image", "imagefile", "imagename",
        "img", "imgpath", "picture", "imageid", "id",
    ),
    "label": ("label", "class", "classname", "labelname", "target", "category", "species", "y"),
    "split": ("split", "part", "subset", "partition", "set", "fold"),
    "group": ("group", "groupid", "patient", "patientid", "subject", "subjectid", "writer",
              "writerid", "video", "videoid"),
}  # fmt: skip
NEEDED = ("path", "label")
MOST_TABLE = 1 << 30  # bytes


@dataclass
class Table:
    """A table as text.

    Args:
        source: The set's path, as the user gave it.
        name: The table's own, for messages.
        columns: The values of each column, by its name.
        first_row: How a message counts the first row.
        folder: The folder in the tree that the paths start from, part by part.
    """

    source: str
    name: str
    columns: dict[str, list[str]]
    first_row: int = 2
    folder: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list[str])

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def parse_csv(content: bytes, source: str, name: str) -> Table:
    """Return the table in a .csv or .tsv file: columns with names in its first row.

    Raises:
        HydrofoilError: It is not text in UTF-8, empty, or its rows are of different lengths.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HydrofoilError(
            f"{shown(name)}: not text in UTF-8: {error.reason} at byte {error.start:,}.\n"
            "Save it as CSV in UTF-8."
        ) from error
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        body = [row for row in rows if row]
    except csv.Error as error:
        raise HydrofoilError(f"{shown(name)}: line {rows.line_num}: {error}.") from error
    if not names or not body:
        raise HydrofoilError(f"{shown(name)}: an empty table: expected columns for path and label.")
    for number, row in enumerate(body, start=2):
        if len(row) != len(names):
            raise HydrofoilError(
                f"{shown(name)}: row {number} has {len(row)} values, and the first row "
                f"{len(names)} names: expected as many."
            )
    columns = {name: [row[at].strip() for row in body] for at, name in enumerate(names)}
    return Table(source, name, columns)


def table_of_frame(frame: Any) -> tuple[Table, Tree]:
    """Return a pandas frame as a table, and the files that its columns may name.

    Args:
        frame: With a column of paths and one of labels; paths start from the current folder.
    """
    columns = {
        str(name): ["" if value != value or value is None else str(value) for value in values]
        for name, values in frame.to_dict("list").items()
    }
    if not columns or not len(frame):
        raise HydrofoilError("the frame: empty: expected columns for path and label.")

    def read(places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
        for at, place in enumerate(places):
            yield at, Path(str(place))

    return Table(".", "the frame", columns, first_row=0), Tree(".", [], read)


def files_of(paths: Sequence[str], root: Path | None = None) -> list[File]:
    """Return the files that relative paths name; missing ones are left out.

    Args:
        paths: Absolute ones need no looking for, and are left out.
        root: Where they start; default: the current folder, and ~ is the user's.
    """
    files: list[File] = []
    for path in dict.fromkeys(paths):
        file = Path(path).expanduser() if root is None else root / path
        if not Path(path).is_absolute() and (stamp := stamp_of_path(file)) != "missing":
            files.append(File(normal(path), stamp, str(file)))
    return files


def stamp_of_path(file: Path) -> str:
    """Return a file's stamp; "missing" also where it can be no path, or no file."""
    try:
        return "missing" if file.is_dir() else stamp_of(file)
    except ValueError:  # it holds a NUL
        return "missing"


def normal(path: str) -> tuple[str, ...]:
    """Return a path's parts without "." and, where that is possible, without ".."."""
    kept: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return tuple(kept) or (path,)


def find_columns(table: Table, data: Data, needed: Sequence[str] = NEEDED) -> dict[str, str]:
    """Return the names of a table's columns by what they hold; those that were guessed are noted.

    Raises:
        HydrofoilError: A column that was given is not there, or one that is needed is not found.
    """
    chosen: dict[str, str] = {}
    guessed: list[str] = []
    known = {_squashed(name): name for name in reversed(table.columns)}
    for what, usual in USUAL.items():
        given = getattr(data, what)
        if given and given not in table.columns:
            raise HydrofoilError(
                f"data.{what} = {given!r}: {shown(table.name)} has no such column. "
                f"{nearest(given, map(shown, table.columns))}"
            )
        name = given or next((known[word] for word in usual if word in known), "")
        if name and name not in chosen.values():
            chosen[what] = name
            if not given:
                guessed.append(f"{what} in '{shown(name)}'")
    missing = [what for what in needed if what not in chosen]
    if missing:
        raise HydrofoilError(
            f"{shown(table.name)}: no column for the {' and the '.join(missing)} was found: it has "
            f"{', '.join(map(shown, table.columns))}.\n"
            f"Name {'it' if len(missing) == 1 else 'them'}: "
            f"{' '.join(f'data.{what}=COLUMN' for what in missing)}"
        )
    if guessed:
        table.notes.append(f"columns: {', '.join(guessed)}")
    return chosen


def _squashed(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def list_table(table: Table, tree: Tree, data: Data) -> Listing:
    """Return the images that a table lists.

    Args:
        table: The table.
        tree: The files that its paths name.
        data: Says how the columns are called, where they are not to be guessed.

    Raises:
        HydrofoilError: Columns are missing, or a path has two labels.
    """
    columns = find_columns(table, data)
    paths = table.columns[columns["path"]]
    place = _Places(table, tree)
    found: dict[object, Found] = {}
    repeated, unlabeled = 0, list[str]()
    values = {what: table.columns[name] for what, name in columns.items()}
    for row, path in enumerate(paths):
        label = values["label"][row]
        if not label or not path:
            unlabeled.append(path or f"row {row + table.first_row}")
            continue
        part = _part(table, values["split"][row], row) if "split" in values else ""
        group = values["group"][row] if "group" in values else ""
        same, stamp, at = place.of(path)
        one = Found(path, f"{path} {stamp}", label, at, part, group)
        before = found.setdefault(same, one)
        if before.label != label:
            raise HydrofoilError(
                f"{shown(table.name)}: '{shown(path)}' has two labels, '{shown(before.label)}' and "
                f"'{shown(label)}' (row {row + table.first_row}): expected one.\n"
                "Correct or remove one of the rows."
            )
        repeated += before is not one
    listing = listed(table.source, list(found.values()), _Read(tree))
    listing.containers = tree.containers
    if repeated:
        listing.losses.append(left_out(repeated, "row", "its image was listed before"))
    if unlabeled:
        why = f"without a path or label: {some_of(unlabeled)}"
        listing.losses.append(left_out(len(unlabeled), "row", why))
    listing.notes += table.notes
    return listing


def _part(table: Table, value: str, row: int) -> str:
    if value.casefold() not in PART_NAMES:
        raise HydrofoilError(
            f"{shown(table.name)}: row {row + table.first_row}: split '{shown(value)}': expected "
            "train, valid or test."
        )
    return value.casefold()


@dataclass(frozen=True)
class _Missing:
    """An image that a table lists and that is not there."""

    path: str


class _Read:
    """Reads files of a tree, and gives an empty content for those that are not there."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __call__(self, places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
        there = [at for at, place in enumerate(places) if not isinstance(place, _Missing)]
        for at, place in enumerate(places):
            if isinstance(place, _Missing):  # in an archive, no name becomes a path of this machine
                yield at, b"" if self.tree.containers else Path(place.path)
        for position, content in self.tree.read([places[at] for at in there]):
            yield there[position], content


class _Places:
    """Finds the files that a table's paths name.

    They start from the table's folder, or from a folder in it; endings that are left out are found.
    A table on disk may also name files elsewhere; one in an archive only files of the archive.
    """

    def __init__(self, table: Table, tree: Tree) -> None:
        self.files = {file.parts: file for file in tree.files}
        self.folder, self.packed = table.folder, bool(tree.containers)
        source = Path(table.source).expanduser()
        beside = source.parent if source.is_file() else source.joinpath(*table.folder)
        self.base = os.path.abspath(beside)
        self.prefix: tuple[str, ...] | None = None
        self.ending = ""

    def of(self, path: str) -> tuple[object, str, object]:
        """Return what is the same for all spellings of a path, its stamp, where its content is."""
        parts, absolute = normal(path), Path(path).is_absolute() and not self.packed
        if self.prefix is None and not absolute and parts[0] != "..":
            self._learn(parts)
        inside = (*self.folder, *(self.prefix or ()), *parts[:-1], f"{parts[-1]}{self.ending}")
        for place in () if absolute else (inside, (*self.folder, *parts)):
            if file := self.files.get(place):
                return place, file.stamp, file.at
        return (path, "missing", _Missing(path)) if self.packed else self._elsewhere(path, absolute)

    def _elsewhere(self, path: str, absolute: bool) -> tuple[object, str, object]:
        """Find a file that is not in the table's folder, or is named by its absolute path."""
        full = os.path.abspath(Path(self.base, path))
        if absolute and full.startswith(self.base + os.sep):
            place = (*self.folder, *normal(full[len(self.base) + 1 :]))
            if file := self.files.get(place):
                return place, file.stamp, file.at
        stamp = stamp_of_path(Path(full))
        return full, stamp, full if stamp != "missing" else _Missing(full)

    def _learn(self, parts: tuple[str, ...]) -> None:
        """Find out from the first path in which folder the images are, and how they end."""
        depth = len(self.folder)
        folders = dict.fromkeys(
            names[depth:-1][:count]
            for names in self.files
            if names[:depth] == self.folder
            for count in range(min(3, len(names) - depth))
        )
        for prefix in folders:
            for ending in ("", *sorted(SUFFIXES)):
                if (*self.folder, *prefix, *parts[:-1], f"{parts[-1]}{ending}") in self.files:
                    self.prefix, self.ending = prefix, ending
                    return
