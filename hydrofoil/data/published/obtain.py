"""The files of a published dataset: found under the data root, unpacked or downloaded."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from hydrofoil.data.archives import unpack_gzip, unpack_tar, unpack_zip
from hydrofoil.data.published.catalogue import SOURCES, Source
from hydrofoil.data.published.download import DownloadError, Published, Watcher, fetch
from hydrofoil.data.published.find import Archive, Found, Layout, find
from hydrofoil.errors import HydrofoilError, reason


def obtain(
    name: str,
    source: Source,
    root: Path,
    fallback: Path | None,
    watcher: Watcher,
    stack: contextlib.ExitStack,
) -> dict[str, Path]:
    """Return the path of each file of a dataset, after unpacking or downloading it if needed.

    Args:
        name: Of the dataset.
        source: Its description.
        root: The data root.
        fallback: The data root to use where that cannot be written; None: there is no other.
        watcher: Shows progress, and lines.
        stack: Removes temporary folders at its end.
    """
    if not source.files:
        return {}
    layout = _layout(source)
    found = find(layout, root)
    if _missing(source, found):
        if fallback and not found.archive and not _writable(root):
            watcher.say(f"{name}: {root} cannot be written, so {fallback} is the data root")
            return obtain(name, source, fallback, None, watcher, stack)
        if found.archive:
            return _unpack_found(name, source, found.archive, root / source.folder, watcher, stack)
        if source.home:
            raise HydrofoilError(
                f"{name}: not in {root / source.folder}, and not downloaded by hydrofoil: unpack "
                f"{source.home}\nMissing: {', '.join(_missing(source, found))}\n"
                "Put these files there, or name another folder with --data-root or HYDROFOIL_DATA."
            )
        _download(name, source, layout, root, watcher)
        found = find(layout, root)
    return found.files


def _writable(folder: Path) -> bool:
    """Tell whether files can be written to a folder, which may not exist yet."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _layout(source: Source) -> Layout:
    others = {alias for other in SOURCES.values() if other is not source for alias in other.aliases}
    archives = tuple(file.name for file in source.published if file.holds)
    return Layout(
        source.folder, source.files, frozenset(source.aliases), frozenset(others), archives
    )


def _missing(source: Source, found: Found) -> list[str]:
    return [file for file in source.files if file not in found.files]


def _unpack_found(
    name: str,
    source: Source,
    archive: Archive,
    folder: Path,
    watcher: Watcher,
    stack: contextlib.ExitStack,
) -> dict[str, Path]:
    """Unpack an archive that was found, to the dataset's folder or else to a temporary one."""
    stage = folder / ".download"
    watcher.say(f"{name}: unpacking {archive.path}")
    try:
        with _only_process(name, stage, watcher):
            _unpack_archive(source, archive, stage / "ready")
            _move(stage / "ready", folder)
    except OSError as error:
        into = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hydrofoil-")))
        watcher.say(
            f"{name}: {folder} cannot be written ({reason(error)}), so {archive.path.name} is "
            "unpacked to a temporary folder, each time"
        )
        _unpack_archive(source, archive, into)
        folder = into
    shutil.rmtree(stage, ignore_errors=True)
    return {file: folder / file for file in source.files}


def _unpack_archive(source: Source, archive: Archive, into: Path) -> None:
    if archive.members:
        unpack_zip(archive.path, into, archive.members)
    else:
        (published,) = source.published
        unpack_tar(archive.path, into, Path(source.folder).name, published.holds)


def _download(name: str, source: Source, layout: Layout, root: Path, watcher: Watcher) -> None:
    """Download a dataset's missing files, resuming a download that was interrupted."""
    folder = root / source.folder
    stage = folder / ".download"  # in the folder itself, so that a rename never crosses disks
    made = [path for path in (stage, *stage.parents) if not path.exists()]
    try:
        with _only_process(name, stage, watcher):
            missing = _missing(source, find(layout, root))  # another process may have finished
            if missing:
                watcher.say(f"{name}: not in {folder}; downloading it")
                _fetch_and_unpack(source, missing, folder, stage, watcher)
        shutil.rmtree(stage, ignore_errors=True)
    except (DownloadError, OSError) as error:
        why = f"it cannot be written, {reason(error)}" if isinstance(error, OSError) else error
        missing = _missing(source, find(layout, root))
        raise HydrofoilError(
            f"{name}: not in {folder}, and could not be downloaded: {why}\n"
            f"Missing: {', '.join(missing)}\n"
            "Put these files there, or name another folder with --data-root or HYDROFOIL_DATA."
        ) from error
    except KeyboardInterrupt:
        watcher.say(f"{name}: the partial download is kept in {stage}; the next attempt resumes it")
        raise
    finally:
        with contextlib.suppress(OSError):  # folders that are not empty stay
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def _only_process(name: str, stage: Path, watcher: Watcher) -> Generator[None]:
    """Hold the lock of a dataset's download; the system frees it with the process."""
    from filelock import FileLock, Timeout

    stage.mkdir(parents=True, exist_ok=True)
    lock = FileLock(stage / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HydrofoilError(
            f"{name}: another process is downloading it to {stage.parent}.\n"
            "Wait for it to end, or stop it."
        ) from error
    except (NotImplementedError, OSError):  # some network file systems have no locks
        watcher.say(
            f"{name}: {stage.parent} has no file locks, so a second download to it at the same "
            "time is not prevented"
        )
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if os.listdir(stage) == [".lock"]:
                os.unlink(stage / ".lock")


def _fetch_and_unpack(
    source: Source, missing: list[str], folder: Path, stage: Path, watcher: Watcher
) -> None:
    """Download and unpack the missing files, and move them to the folder at the end."""
    ready = stage / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    for file in source.published:
        if set(missing) & set(file.unpacked):
            _unpack(file, fetch(file, stage, watcher=watcher), ready, folder.name)
    _move(ready, folder)


def _move(ready: Path, folder: Path) -> None:
    for path in ready.iterdir():
        os.replace(path, folder / path.name)


def _unpack(file: Published, path: Path, ready: Path, folder: str) -> None:
    if file.holds:
        unpack_tar(path, ready, folder, file.holds)
    else:
        unpack_gzip(path, ready / file.unpacked[0])
