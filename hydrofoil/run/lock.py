"""The lock of a run folder: one process writes it at a time."""

import contextlib
import errno
import os
import warnings
from collections.abc import Callable, Generator
from inspect import signature
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # filelock warns where the system has no locks; see `_lock`
    warnings.simplefilter("ignore")
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.files import not_written

# What NFS without a lock daemon, Lustre without -o flock and systems without fcntl report.
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP
# Older versions of filelock have no such option, and no fallback that it would turn off: a lock
# file that a killed process leaves behind would keep the run locked.
OPTIONS: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in str(signature(FileLock)) else {}
)


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None] = lambda line: None) -> Generator[None]:
    """Hold a folder's lock; the system releases it with the process.

    Where the system or the disk has no locks, the folder is used without one.

    Args:
        folder: Of the run.
        say: Takes a line if there is no lock.

    Raises:
        HydrofoilError: Another process holds it, or the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        path.touch()
    except OSError as error:
        raise not_written(folder, error) from error
    lock = None
    try:
        lock = system_lock(path)
        lock.acquire()
    except Timeout as error:
        raise HydrofoilError(
            f"{folder}: another process is writing this run{_holder(path)}.\n"
            "Wait for it to end, or stop it."
        ) from error
    except (OSError, NotImplementedError) as error:
        why = reason(error) if isinstance(error, OSError) else "not supported"
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise HydrofoilError(f"{folder}: cannot be locked: {why}.") from error
        say(
            f"note: {folder} cannot be locked ({why}): "
            "make sure that no other process writes this run."
        )
    with contextlib.suppress(OSError):  # for the error above alone; Windows locks the content too
        path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        if lock is not None and lock.is_locked:
            lock.release()


def system_lock(path: Path, timeout: float = 0) -> BaseFileLock:
    """Return a lock that the system releases with the process, not acquired yet.

    Args:
        path: Its file.
        timeout: Seconds to wait for it; below 0: without end.

    Raises:
        NotImplementedError: The system has none. filelock would then take the lock file's existence
            for a lock, and a killed process would leave the run locked.
    """
    if FileLock is SoftFileLock:  # pyright: ignore[reportUnnecessaryComparison]
        raise NotImplementedError
    return FileLock(path, timeout=timeout, **OPTIONS)


def _holder(path: Path) -> str:
    """Return which process says that it holds a lock."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        number = path.read_text().strip()
        return f" (pid {number})" if number.isdigit() else ""
    return ""
