"""Optuna's journal in a file, and locks that the system releases with the process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydrofoil.errors import HydrofoilError, reason
from hydrofoil.run.lock import NO_LOCKS, system_lock

if TYPE_CHECKING:
    from optuna.storages import JournalStorage

POLL_SECONDS = 0.01  # between attempts to get a lock that another process holds for a moment
INSTALL = "tune needs Optuna, which is not installed.\nInstall it with: pip install -e '.[tune]'"


def check_installed() -> None:
    """Refuse a search without Optuna.

    Raises:
        HydrofoilError: It says how to install it.
    """
    try:
        import optuna
    except ImportError as error:
        raise HydrofoilError(INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # hydrofoil says itself what happens


class JournalLock:
    """The journal's lock, as Optuna takes it: the system releases it with the process.

    Optuna's own locks are files that a killed process leaves behind for 30 s, and symbolic links,
    which Windows does not let everybody make.

    Args:
        path: Of the lock's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.free: Callable[[], None] = lambda: None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.free = waiting_lock(self.path)
        return True

    def release(self) -> None:
        """Release it."""
        self.free()


def open_storage(path: Path) -> "JournalStorage":
    """Return the storage of a journal, and drop a last line that a full disk left unfinished."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: Any = JournalLock(path.with_suffix(".lock"))
    try:
        lock.acquire()
        if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
        lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise HydrofoilError(f"{path}: cannot be opened: {reason(error)}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HydrofoilError(
            f"{path}: not a journal of Optuna: {error}.\nChoose another --study."
        ) from error


def waiting_lock(path: Path, say: Callable[[str], None] = lambda line: None) -> Callable[[], None]:
    """Wait for a lock, and return what releases it.

    Where the system or the disk has no locks, there is nothing to wait for.
    """
    return _lock(path, -1, say) or (lambda: None)


def try_lock(
    path: Path, say: Callable[[str], None] = lambda line: None
) -> Callable[[], None] | None:
    """Take a lock, and return what releases it; None: another process holds it."""
    return _lock(path, 0, say)


def _lock(path: Path, timeout: float, say: Callable[[str], None]) -> Callable[[], None] | None:
    from filelock import Timeout

    try:
        lock = system_lock(path, timeout)
        lock.acquire(poll_interval=POLL_SECONDS)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise HydrofoilError(f"{path}: cannot be locked: {reason(error)}.") from error
        say(
            f"note: {path.parent} has no file locks: make sure that no other process works at this "
            "study."
        )
        return lambda: None
    return lock.release
