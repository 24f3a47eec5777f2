"""The user's own images by their path: which kind of source it is, and its images."""

import io
from pathlib import Path
from typing import Any

from hydrofoil.data.folders import (
    File,
    Tree,
    is_image_name,
    list_folders,
    read_paths,
    stamp_of,
    tree_of_folder,
)
from hydrofoil.data.ingest import read_listing, resized
from hydrofoil.data.listing import Listing, shown, some_of
from hydrofoil.data.npz import read_npz_set
from hydrofoil.data.packed import tree_of_archive
from hydrofoil.data.parquet import is_image_parquet, list_parquet, parquet_table
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.tables import (
    MOST_TABLE,
    Table,
    files_of,
    find_columns,
    list_table,
    parse_csv,
    stamp_of_path,
    table_of_frame,
)
from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.recipe.schema import Data
from hydrofoil.recipe.source import ARCHIVES, ENDINGS, TABLES


def read_own(data: Data, watcher: Watcher) -> Pictures:
    """Return the images that a path names.

    Args:
        data: Says the path, how its columns are called, and what size the images get.
        watcher: Shows how far decoding is.

    Raises:
        HydrofoilError: Nothing is there, or it is no dataset that a network can learn.
    """
    found = list_own(data)
    if isinstance(found, Listing):
        return read_listing(found, data, watcher)
    size = (data.size[0], data.size[-1]) if data.size else found.shape[1:]
    return resized(found, (size[0], size[1]), data.fit)


def list_own(data: Data) -> Listing | Pictures:
    """Return what a path names: files that are listed and not yet decoded, or arrays that are read.

    Raises:
        HydrofoilError: Nothing is there, or it is no dataset that a network can learn.
    """
    path = Path(data.source).expanduser()
    if stamp_of(path) == "missing":
        raise HydrofoilError(
            f"{shown(data.source)}: no such file or folder, seen from {shown(str(Path.cwd()))}.\n"
            "Give the path of a folder of class folders, a table or an archive: data.source=./pets"
        )
    try:
        return _found(data, path)
    except OSError as error:
        raise HydrofoilError(f"{shown(data.source)}: cannot be read: {reason(error)}.") from error


def read_frame(frame: Any, data: Data, watcher: Watcher) -> Pictures:
    """Return the images whose paths and labels are in a pandas frame.

    Raises:
        HydrofoilError: As `read_own`.
    """
    table, tree = table_of_frame(frame)
    tree.files = files_of(table.columns[find_columns(table, data)["path"]])
    table.notes.clear()
    return read_listing(list_table(table, tree, data), data, watcher)


def _found(data: Data, path: Path) -> Listing | Pictures:
    """Return what a path names: files that are listed, or arrays that are read."""
    name = path.name.lower()
    if path.is_dir():
        return _of_tree(tree_of_folder(data.source, path), data)
    if name.endswith(".npz"):
        return read_npz_set(data.source, path)
    if name.endswith(".parquet"):
        if is_image_parquet(path, data.source):
            return list_parquet(data.source, [(path, "")], data)
        table = parquet_table(path, data.source, data)
        return list_table(table, _beside(data, path, table), data)
    if name.endswith(TABLES):
        table = parse_csv(_read(path, data.source), data.source, data.source)
        return list_table(table, _beside(data, path, table), data)
    if name.endswith(ARCHIVES):
        return _of_tree(tree_of_archive(data.source, path), data)
    raise HydrofoilError(
        f"{shown(data.source)}: not a dataset that hydrofoil reads: expected a folder, or a file "
        f"that ends in {', '.join(ENDINGS)}."
    )


def _of_tree(tree: Tree, data: Data) -> Listing | Pictures:
    """Return the set in a folder or archive: class folders, a table, parquet shards or arrays."""
    by_ending = {
        ending: [file for file in tree.files if file.parts[-1].lower().endswith(ending)]
        for ending in (*TABLES, ".parquet", ".npz")
    }
    tables = [file for ending in TABLES for file in by_ending[ending]]
    images = [file for file in tree.files if is_image_name(file.parts[-1])]
    classes = {file.parts[:-1] for file in images if len(file.parts) > 1}
    if len(tables) == 1 and (data.label or len(classes) < 2):
        return list_table(_table_in(tree, tables[0]), tree, data)
    if by_ending[".parquet"] and not images:
        return _parquet_in(tree, by_ending[".parquet"], data)
    if len(by_ending[".npz"]) == 1 and not images:
        (content,) = [content for _, content in tree.read([by_ending[".npz"][0].at])]
        return read_npz_set(
            tree.source, content if isinstance(content, Path) else io.BytesIO(content)
        )
    return list_folders(tree, data.group)


def _table_in(tree: Tree, file: File) -> Table:
    """Return a table that lies among the images."""
    name = f"{tree.source}/{'/'.join(file.parts)}"
    (content,) = [content for _, content in tree.read([file.at])]
    text = _read(content, name) if isinstance(content, Path) else content
    table = parse_csv(text, tree.source, name)
    table.folder = file.parts[:-1]
    table.notes.append(f"labels from {shown('/'.join(file.parts))}")
    return table


def _parquet_in(tree: Tree, files: list[File], data: Data) -> Listing:
    """Return the images in the parquet files of a folder, whose names say their parts."""
    if tree.containers:
        raise HydrofoilError(
            f"{tree.source}: parquet files in an archive: {some_of(['/'.join(files[0].parts)])}.\n"
            "Unpack it, and give the folder."
        )
    return list_parquet(
        tree.source, [(Path(str(file.at)), "/".join(file.parts)) for file in files], data
    )


def _read(path: Path, name: str) -> bytes:
    if path.stat().st_size > MOST_TABLE:
        raise HydrofoilError(f"{shown(name)}: larger than {MOST_TABLE >> 20} MiB: not a table.")
    return path.read_bytes()


def _beside(data: Data, path: Path, table: Table) -> Tree:
    """Return the files that a table names, or, where that may not be literal, all in its folder."""
    paths = table.columns[find_columns(table, data)["path"]]
    table.notes.clear()
    first = next(filter(None, paths), "")
    if stamp_of_path(path.parent / first) == "missing":  # without its folder or its ending
        return tree_of_folder(data.source, path.parent)
    return Tree(data.source, files_of(paths, path.parent), read_paths)
