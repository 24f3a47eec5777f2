"""Atomic writes, and a sentence for each error of a disk."""

import contextlib
import errno
import io
import os
import re
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hydrofoil.errors import HydrofoilError, reason

BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n for \n without it
CURES = {
    errno.ENOSPC: "The disk is full: make room, and run the command again.",
    errno.EDQUOT: "Your quota on this disk is used up: make room, and run the command again.",
    errno.EROFS: "This disk is mounted read-only: choose a folder on another one.",
    errno.EFBIG: "Files may not grow so large there: raise the limit (ulimit -f), or choose "
    "another disk.",
    errno.EIO: "The disk reports faults: choose another one, and check this one.",
    errno.EACCES: "You may not write there: choose another folder, or change its permissions.",
    errno.EPERM: "You may not write there: choose another folder, or change its permissions.",
}


def not_written(path: Path, error: OSError) -> HydrofoilError:
    """Return the error that says why the system refused to write, and what to do."""
    cure = CURES.get(error.errno or 0, "")
    return HydrofoilError(f"{path}: cannot be written: {reason(error)}.{cure and chr(10)}{cure}")


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        HydrofoilError: It is missing, or the system refuses.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be read: {reason(error)}.") from error


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays as an .npz file, the same bytes for the same arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read_npz(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return what `npz` stored, which takes no more memory than the file: savez packs nothing.

    Raises:
        Exception: It is not such a file, or would grow; zipfile and numpy raise many kinds.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        if sum(part.file_size for part in file.infolist()) > len(content):
            raise ValueError("it would grow")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old one or the new one and never a part.

    Args:
        path: Where; its folder is made.
        content: What.
        durable: Wait until the disk has it, which takes some milliseconds.

    Raises:
        HydrofoilError: The system refused: disk full, read-only, no such folder.
    """
    staged = stage(path, content, durable=durable)
    try:
        put_in_place(staged, path)
    except HydrofoilError:
        discard(staged)
        raise
    if durable:
        sync_folder(path.parent)


def stage(path: Path, content: bytes, *, durable: bool = True) -> Path:
    """Write the content beside its path under a hidden name, and return that; see `put_in_place`.

    Plain writes, so that the system's own error comes out: a memory map would die of a signal.

    Raises:
        HydrofoilError: The system refused. Nothing is left behind.
    """
    beside = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
        try:
            write_all(handle, content)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        discard(beside)
        raise not_written(path, error) from error
    except BaseException:
        discard(beside)
        raise
    return beside


def is_staged(path: Path) -> bool:
    """Tell whether a file has a name that `stage` gives; users have hidden files too.

    >>> is_staged(Path(".log.jsonl-0123abcd")), is_staged(Path(".pre-commit-config.yaml"))
    (True, False)
    """
    return bool(re.fullmatch(r"\..+-[0-9a-f]{8}", path.name))


def stage_all(contents: Mapping[Path, bytes], sync: Sequence[Path] = ()) -> dict[Path, Path]:
    """Stage several files, each as `stage` does; return the hidden name of each.

    In parallel, since a disk syncs the files of several threads at once: three files take 1 to 4
    ms instead of 10.

    Args:
        contents: By path.
        sync: Files that were appended to, which are synced too.

    Raises:
        HydrofoilError: The system refused one of them. Nothing is left behind.
    """
    with ThreadPoolExecutor(len(contents) + len(sync)) as pool:
        staging = {path: pool.submit(stage, path, content) for path, content in contents.items()}
        syncing = [pool.submit(sync_file, path) for path in sync]
    failed = [error for job in (*staging.values(), *syncing) if (error := job.exception())]
    if failed:
        for one in staging.values():
            if not one.exception():
                discard(one.result())
        raise failed[0]
    return {path: one.result() for path, one in staging.items()}


def sync_file(path: Path) -> None:
    """Wait until the disk has a file's content.

    Raises:
        HydrofoilError: The system refused.
    """
    try:
        handle = os.open(path, os.O_RDWR)  # Windows syncs no file that is open for reading alone
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise not_written(path, error) from error


def write_all(handle: int, content: bytes) -> None:
    """Write to an open file until all is written."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def put_in_place(staged: Path, path: Path) -> None:
    """Rename a staged file to its path.

    Raises:
        HydrofoilError: The system refused.
    """
    try:
        os.replace(staged, path)
    except OSError as error:
        raise not_written(path, error) from error


def discard(path: Path) -> None:
    """Remove a file, if it is there and that can be done."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder.

    Raises:
        HydrofoilError: The system refused.
    """
    if os.name == "nt":  # Windows opens no folders; its file systems keep the order of renames
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network disks cannot
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise not_written(folder, error) from error
