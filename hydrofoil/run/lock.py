"""The lock of a run folder: one process writes it at a time."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.files import not_written


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a folder's lock; a dead process holds none."""
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise not_written(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydrofoilError(
                f"{folder}: another process is writing this run"
                f"{_holder(handle)}.\nWait for it to end, or stop it."
            ) from error
        except OSError as error:
            raise HydrofoilError(f"{folder}: cannot be locked: {reason(error)}.") from error
        with contextlib.suppress(OSError):  # for the sentence above alone
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(lock: int) -> str:
    """Return who says to hold a lock."""
    number = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
    return f", number {number}" if number.isdigit() else ""
