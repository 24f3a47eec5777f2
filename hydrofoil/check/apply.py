"""Writes what the user agreed to as a table of paths, labels and parts, which is itself a source.

No image is changed, and none is copied.

Axes: N images.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.result import Check
from hydrofoil.data.facts import Facts
from hydrofoil.data.listing import some_of
from hydrofoil.data.split import PARTS
from hydrofoil.data.tables import parse_csv
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.files import read_file, write_whole
from hydrofoil.wording import plural

ACTIONS: tuple[str, ...] = get_args(Literal["exclude", "move", "label"])
AGREED = (".json", ".csv")  # endings of files with choices
# The check that makes each finding.
CHECK_OF = {
    **dict.fromkeys(("leak", "valid-leak", "contradiction", "duplicates", "near"), "copies"),
    **dict.fromkeys(
        ("unreadable", "truncated", "format", "blank", "aspect", "small", "animated"), "files"
    ),
    "shortcut": "shortcuts",
    "drift": "drift",
    **dict.fromkeys(("labels", "overlap"), "labels"),
}


@dataclass(frozen=True)
class Applied:
    """What was written.

    Args:
        path: The table.
        rows: Its images.
        excluded: Images that were left out as agreed.
        moved: Images that are now in another part.
        relabeled: Images that now have another class.
        unwritable: Names of images whose path no table can hold; they are left out.
    """

    path: Path
    rows: int
    excluded: int
    moved: int
    relabeled: int
    unwritable: tuple[str, ...]

    def __str__(self) -> str:
        done = [
            f"{count:,} {word}"
            for count, word in (
                (self.excluded, "left out"),
                (self.moved, "moved"),
                (self.relabeled, "relabeled"),
            )
            if count
        ]
        said = f"{plural(self.rows, 'image')}: {', '.join(done) or 'nothing changed'}"
        if not self.unwritable:
            return said
        count = plural(len(self.unwritable), "image")
        return f"{said}; {count} left out: no table can hold the path: {some_of(self.unwritable)}"


def proposed(finding: Finding) -> list[Change]:
    """Return the changes of a finding, of alternatives for one image in a row the first."""
    return [change for row in finding.rows for change in first_of_each(row)]


def first_of_each(row: Row) -> list[Change]:
    """Return the changes of a row, of alternatives for one image the first."""
    return list({one.image: one for one in reversed(row.changes)}.values())[::-1]


def checks_for(agreed: str) -> list[str]:
    """Return the checks that have to be made for what was agreed to.

    Args:
        agreed: As `agreed_changes` takes it.

    Raises:
        HydrofoilError: The file cannot be read, or no check makes such a finding.
    """
    if agreed.lower().endswith(".csv"):
        return []
    is_file = agreed.lower().endswith(AGREED)
    kinds = _choices(agreed, read_file(Path(agreed)))["all"] if is_file else _kinds(agreed)
    for kind in kinds:
        if kind not in CHECK_OF:
            where = agreed if is_file else "--apply"
            raise HydrofoilError(
                f"{where}: no finding is called '{kind}'. {nearest(kind, CHECK_OF)}"
            )
    return sorted({CHECK_OF[kind] for kind in kinds})


def agreed_changes(check: Check, agreed: str) -> list[Change]:
    """Return the changes that the user agreed to.

    Args:
        check: What was found.
        agreed: The path of changes.json, as the page saves it, or of a .csv with the columns image
            (name or number), action (exclude, move, label) and value; or kinds of findings, such
            as leak,duplicates: all changes that these propose.

    Raises:
        HydrofoilError: There is no such file or kind, or it is about other images.
    """
    if agreed.lower().endswith(AGREED):
        path = Path(agreed)
        content = read_file(path)
        read = _of_json if agreed.lower().endswith(".json") else _of_csv
        return list(read(check, agreed, content))
    return [change for kind in _kinds(agreed) for change in _of_kind(check, kind, "--apply")]


def _kinds(agreed: str) -> list[str]:
    return [kind.strip() for kind in agreed.split(",") if kind.strip()]


def _of_kind(check: Check, kind: str, where: str) -> list[Change]:
    known = {one.kind: one for one in check.findings}
    if kind not in known:
        there = nearest(kind, known) if known else "It found nothing."
        raise HydrofoilError(f"{where}: '{kind}' is not a finding of this check. {there}")
    found = proposed(known[kind])
    if not found:
        raise HydrofoilError(
            f"{where}: the finding '{kind}' proposes no changes: expected one that does, "
            f"such as {', '.join(one.kind for one in check.findings if proposed(one)) or 'none'}."
        )
    return found


def _choices(name: str, content: bytes) -> dict[str, Any]:
    """Return what a file of choices has: hash, all (kinds of findings) and changes."""
    try:
        given = json.loads(content)
        return {
            "hash": given["hash"],
            "all": [str(kind) for kind in given["all"]],
            "changes": [
                (one["image"], one["action"], one.get("value", "")) for one in given["changes"]
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HydrofoilError(
            f"{name}: not a file of choices: expected the changes.json that the page of "
            "`hydrofoil check` saves."
        ) from error


def _of_json(check: Check, name: str, content: bytes) -> Iterator[Change]:
    given = _choices(name, content)
    if given["hash"] != check.pictures.hash:
        raise HydrofoilError(
            f"{name}: it was saved for other images: {check.pictures.source} has changed since, or "
            "is read with other settings.\nCheck it again, and choose again."
        )
    for kind in given["all"]:
        yield from _of_kind(check, kind, name)
    for image, action, value in given["changes"]:
        yield _checked(check, name, image, action, value)


def _of_csv(check: Check, name: str, content: bytes) -> Iterator[Change]:
    columns = parse_csv(content, name, name).columns
    missing = [column for column in ("image", "action") if column not in columns]
    if missing:
        raise HydrofoilError(
            f"{name}: no column {' and no column '.join(missing)}: expected image, action and, "
            "where needed, value."
        )
    number = {str(one): at for at, one in enumerate(check.pictures.names)}
    values = columns.get("value", [""] * len(columns["image"]))
    for image, action, value in zip(columns["image"], columns["action"], values, strict=True):
        at: object = number.get(image, int(image) if image.isdecimal() else image)
        yield _checked(check, name, at, action, value)


def _checked(check: Check, name: str, image: object, action: object, value: object) -> Change:
    """Return a change that fits the images.

    Raises:
        HydrofoilError: It does not.
    """
    if type(image) is not int or not 0 <= image < len(check.pictures):
        raise HydrofoilError(
            f"{name}: image {image!a}: expected the name of an image of {check.pictures.source}, "
            f"or a number from 0 to {len(check.pictures) - 1:,}."
        )
    if action not in ACTIONS:
        raise HydrofoilError(f"{name}: action {action!a}: expected {', '.join(ACTIONS)}.")
    known: Sequence[str] = {"move": PARTS, "label": check.pictures.classes}.get(str(action), ("",))
    if value not in known and action != "exclude":
        raise HydrofoilError(
            f"{name}: {action} of image {image:,} to {value!a}: expected one of "
            f"{some_of(known, 10)}."
        )
    return Change(image, cast("Any", action), "" if action == "exclude" else str(value))


def write_table(
    check: Check, facts: Facts | None, changes: Sequence[Change], path: Path
) -> Applied:
    """Write the images as a table, with the agreed changes made.

    It has the columns path (from the table's own folder), label, split where the check has one, and
    group where groups are known. An image that is left out needs no other change. `hydrofoil train
    table.csv` reads it.

    Args:
        check: What was checked.
        facts: Says where the images' files are.
        changes: What was agreed to; for one image, the last move and the last label count.
        path: The table; its name ends in .csv.

    Raises:
        HydrofoilError: The images are no files of their own, a class would lose all of its images,
            or the table cannot be written.
    """
    if path.suffix.lower() != ".csv":
        raise HydrofoilError(f"{path}: expected a name that ends in .csv.")
    source = check.pictures.source
    if facts is None or any(file is None for file in facts.paths):
        raise HydrofoilError(
            f"{source}: its images are not files of their own, and a table can name only files.\n"
            "Unpack them into a folder for each class, and check the folder."
        )
    excluded = {one.image for one in changes if one.action == "exclude"}
    moved = _values(changes, "move", excluded)
    labels = _values(changes, "label", excluded)
    rows = list(_rows(check, facts, path, moved, labels))
    kept = [row for at, row in enumerate(rows) if at not in excluded]
    written, unwritable = _writable(kept)
    _check_classes(check, written)
    names = ["path", "label", *(["split"] if check.split else [])]
    names += ["group"] if check.pictures.groups_N is not None else []
    write_whole(path, _as_csv(names, [cells for _, cells in written]))
    changed = (
        sum(check.part_of(at) != part for at, part in moved.items()),
        sum(check.class_of(at) != label for at, label in labels.items()),
    )
    return Applied(path, len(written), len(excluded), *changed, tuple(unwritable))


def _values(changes: Sequence[Change], action: str, excluded: set[int]) -> dict[int, str]:
    return {
        one.image: one.value
        for one in changes
        if one.action == action and one.image not in excluded
    }


Named = tuple[str, list[str]]  # an image's name, and its cells


def _rows(
    check: Check, facts: Facts, table: Path, moved: Mapping[int, str], labels: Mapping[int, str]
) -> Iterator[Named]:
    """Yield each image's row."""
    groups_N, folder = check.pictures.groups_N, table.absolute().parent
    for at, file in enumerate(facts.paths):
        assert file is not None  # noqa: S101 - the caller has looked
        cells = [_relative(file, folder), labels.get(at, check.class_of(at))]
        if check.split is not None:
            # An image that the split left out belongs to training, as all that is not held out.
            cells.append(moved.get(at, check.part_of(at)) or "train")
        if groups_N is not None:
            cells.append(f"group {int(groups_N[at])}")
        yield check.name_of(at), cells


def _relative(file: Path, folder: Path) -> str:
    """Return a file's path from a folder, with slashes; absolute on another drive of Windows."""
    try:
        path = os.path.relpath(file.absolute(), folder)
    except ValueError:
        path = str(file.absolute())
    return path.replace(os.sep, "/") if os.sep != "/" else path


def _writable(rows: Sequence[Named]) -> tuple[list[Named], list[str]]:
    """Return the rows whose path is the same after reading it, and the names of the others.

    Spaces at its ends, a backslash where that is no separator, and bytes that are no text are lost.
    """
    kept: list[Named] = []
    lost: list[str] = []
    for name, cells in rows:
        path = cells[0]
        same = path == path.strip() and _is_text(path) and (os.sep == "\\" or "\\" not in path)
        kept.append((name, cells)) if same else lost.append(name)
    return kept, lost


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_classes(check: Check, rows: Sequence[Named]) -> None:
    """Refuse a table that no network could be trained on."""
    trained = {cells[1] for _, cells in rows if check.split is None or cells[2] in ("train", "")}
    lost = [name for name in check.pictures.classes if name not in trained]
    if lost:
        where = "train part" if check.split else "set"
        raise HydrofoilError(
            f"{check.pictures.source}: with these changes the {where} has no image of "
            f"{some_of(lost)} any more.\nSelect fewer changes."
        )


def _as_csv(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Return a table in RFC 4180's form: quoted where needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()
