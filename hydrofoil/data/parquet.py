"""Images in parquet files, as Hugging Face's datasets store them; and tables in parquet.

pyarrow reads them, an extra that is imported here alone.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hydrofoil.data.folders import stamp_of
from hydrofoil.data.listing import PART_NAMES, Found, Listing, in_order, left_out, listed, shown
from hydrofoil.data.tables import USUAL, Table, find_columns
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.recipe.schema import Data

ROWS = 256  # read at once


def _pyarrow(source: str) -> Any:
    """Return pyarrow.parquet.

    Raises:
        HydrofoilError: It is not installed.
    """
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise HydrofoilError(
            f"{shown(source)}: reading parquet needs pyarrow, which is not installed.\n"
            "Install it with: pip install 'hydrofoil[parquet]'"
        ) from error
    return parquet


def _opened(path: Path, source: str) -> Any:
    """Return an open parquet file.

    Raises:
        HydrofoilError: It is not a parquet file.
    """
    parquet = _pyarrow(source)
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow has errors of its own, and some of the standard library's
        why = str(error).partition("\n")[0].rstrip(".")[:120]
        raise HydrofoilError(f"{shown(source)}: not a parquet file: {why}.") from error


def _image_columns(schema: Any) -> list[str]:
    """Return the columns that hold images: structs with a field of bytes."""
    return [
        str(column.name)
        for column in schema
        if str(column.type).startswith("struct") and column.type.get_field_index("bytes") >= 0
    ]


def is_image_parquet(path: Path, source: str) -> bool:
    """Return whether a parquet file holds images, not a table of their paths.

    Raises:
        HydrofoilError: It is not a parquet file, or pyarrow is not installed.
    """
    with _opened(path, source) as file:
        return bool(_image_columns(file.schema_arrow))


def parquet_table(path: Path, source: str, data: Data) -> Table:
    """Return a table of paths and labels in a parquet file.

    Raises:
        HydrofoilError: It cannot be read.
    """
    with _opened(path, source) as file:
        names = [str(name) for name in file.schema_arrow.names]
        table = Table(source, source, {name: [] for name in names}, first_row=1)
        wanted = find_columns(table, data)
        table.notes.clear()
        read = _columns(file, list(dict.fromkeys(wanted.values())), source)
        classes = _class_names(file.schema_arrow, wanted["label"])
    columns = {
        name: ["" if value is None else str(value) for value in values]
        for name, values in read.items()
    }
    if classes:
        columns[wanted["label"]] = [_named(value, classes) for value in read[wanted["label"]]]
    return Table(source, source, columns, first_row=1)


def _columns(file: Any, names: Sequence[str], source: str) -> dict[str, list[Any]]:
    try:
        return cast("dict[str, list[Any]]", file.read(columns=list(names)).to_pydict())
    except Exception as error:
        raise _damaged(source, error) from error


def _damaged(source: str, error: Exception) -> HydrofoilError:
    why = str(error).partition("\n")[0].rstrip(".")[:120]
    return HydrofoilError(f"{shown(source)}: a damaged parquet file: {why}.")


def list_parquet(source: str, files: Sequence[tuple[Path, str]], data: Data) -> Listing:
    """Return the images in one or several parquet files.

    Args:
        source: The set's path, as the user gave it.
        files: Each file and its name in the set; train-…, test-… name the file's part.
        data: Says how the columns are called, where they are not to be guessed.

    Raises:
        HydrofoilError: A file is damaged, or has no images or no labels.
    """
    found: list[Found] = []
    unlabeled, classes = 0, list[str]()
    parts = {_part(path) for path, _ in files}
    notes: list[str] = []
    containers: dict[Path, str] = {}
    for number, (path, name) in enumerate(files):
        containers[path] = stamp_of(path)
        with _opened(path, source) as file:
            image, columns, line = _chosen(file.schema_arrow, data, name or source)
            notes = notes or [line]
            classes = classes or _class_names(file.schema_arrow, columns["label"])
            values = _columns(file, list(dict.fromkeys(columns.values())), source)
        labels = values[columns["label"]]
        groups = values[columns["group"]] if "group" in columns else [None] * len(labels)
        splits = values[columns["split"]] if "split" in columns else [None] * len(labels)
        for row, label in enumerate(labels):
            if label is None or (isinstance(label, int) and label < 0):
                unlabeled += 1
                continue
            text = f"{name}#{row}" if name else f"#{row}"
            part = _part(path) if splits[row] is None and len(parts - {""}) > 1 else ""
            part = str(splits[row]).casefold() if splits[row] is not None else part
            group = "" if groups[row] is None else str(groups[row])
            stamp = f"{text} {containers[path]} {image}"
            place = (number, row, image)
            found.append(Found(text, stamp, _named(label, classes), place, part, group))
    paths = [path for path, _ in files]
    names = classes or in_order({one.label for one in found})
    listing = listed(source, found, _Reader(source, paths), names)
    listing.containers, listing.notes = containers, notes
    if unlabeled:
        listing.losses.append(left_out(unlabeled, "image", "without a label"))
    return listing


def _chosen(schema: Any, data: Data, name: str) -> tuple[str, dict[str, str], str]:
    """Return the column of images, the other columns, and the line that says which they are.

    Raises:
        HydrofoilError: There are none, or others than were given.
    """
    images = _image_columns(schema)
    if data.path and data.path not in images:
        raise HydrofoilError(
            f"data.path = {data.path!r}: {shown(name)} has no such column of images. "
            f"{nearest(data.path, images)}"
        )
    if not images:
        raise HydrofoilError(
            f"{shown(name)}: no column of images (a struct with bytes): it has "
            f"{', '.join(map(shown, schema.names))}."
        )
    usual = USUAL["path"]
    image = data.path or min(images, key=lambda one: usual.index(one) if one in usual else 99)
    others = {str(one): list[str]() for one in schema.names if str(one) not in images}
    table = Table(name, name, others)
    columns = find_columns(table, data.model_copy(update={"path": ""}), ("label",))
    columns.pop("path", None)
    labels = f"images in '{shown(image)}', label in '{shown(columns['label'])}'"
    return image, columns, f"columns: {labels}"


def _class_names(schema: Any, column: str) -> list[str]:
    """Return the class names that Hugging Face's metadata give a column, if any."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])
        names = known["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _named(label: Any, classes: Sequence[str]) -> str:
    if classes and isinstance(label, int) and 0 <= label < len(classes):
        return classes[label]
    return str(label)


def _part(path: Path) -> str:
    """Return the part that a file's name begins with; empty if it names none."""
    word = re.split(r"[-_.]", path.name.casefold())[0]
    return word if word in PART_NAMES else ""


class _Reader:
    """Reads the bytes of images, row group by row group, each file once."""

    def __init__(self, source: str, paths: Sequence[Path]) -> None:
        self.source, self.paths = source, paths

    def __call__(self, places: Sequence[object]) -> Iterator[tuple[int, Path | bytes]]:
        wanted = cast("Sequence[tuple[int, int, str]]", places)
        order = sorted(range(len(wanted)), key=wanted.__getitem__)
        by_file: dict[tuple[int, str], list[int]] = {}
        for position in order:
            number, _, column = wanted[position]
            by_file.setdefault((number, column), []).append(position)
        for (number, column), positions in by_file.items():
            rows = {wanted[position][1]: position for position in positions}
            with _opened(self.paths[number], self.source) as file:
                try:
                    yield from self._of_file(file, column, rows)
                except (OSError, ValueError, KeyError) as error:  # pyarrow's are among them
                    raise _damaged(self.source, error) from error

    def _of_file(
        self, file: Any, column: str, rows: dict[int, int]
    ) -> Iterator[tuple[int, Path | bytes]]:
        start = 0
        for batch in file.iter_batches(batch_size=ROWS, columns=[f"{column}.bytes"]):
            count = len(batch)
            inside = [row for row in range(start, start + count) if row in rows]
            if inside:
                values = batch.column(0).field("bytes")
                for row in inside:
                    yield rows[row], values[row - start].as_py() or b""
            start += count
            if start > max(rows):
                return
