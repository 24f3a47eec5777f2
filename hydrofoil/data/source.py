"""From a name to pictures: the published sets, read from torchvision's layout under the data root.

What is missing is downloaded.
"""

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.archives import unpack_gzip, unpack_tar
from hydrofoil.data.published.catalogue import SOURCES, Source
from hydrofoil.data.published.download import (
    DownloadError,
    Published,
    Silent,
    Watcher,
    accuse,
    fetch,
)
from hydrofoil.device import user_cache
from hydrofoil.errors import HydrofoilError, nearest, reason


def load(source: str, root: str | Path = "", watcher: Watcher | None = None) -> Pictures:
    """Return a shipped set, downloading it on first use when the network allows.

    Args:
        source: digits, mnist, fashion-mnist, cifar10 or cifar100.
        root: The data root; empty: HYDROFOIL_DATA, or the user's cache folder.
        watcher: Follows a download.

    Raises:
        HydrofoilError: No such source; files missing and not to be had, cut short or not what
            they should be.

    >>> load("digits").shape
    (1, 8, 8)
    """
    found = find_source(source)
    folder = data_root(root) / found.folder
    if _missing(found, folder):
        _download(source, found, folder, watcher or Silent())
    return found.read(folder)


def find_source(name: str) -> Source:
    """Return a source by its name.

    Raises:
        HydrofoilError: No source has it.
    """
    if name not in SOURCES:
        raise HydrofoilError(f"'{name}' is no source of pictures. {nearest(name, SOURCES)}")
    return SOURCES[name]


def merges_published_test(source: str, merge: bool) -> bool:
    """Return whether merging this dataset's splits mixes published test images into training."""
    return merge and bool(find_source(source).files)


def data_root(root: str | Path = "") -> Path:
    """Return the published sets' folder: the one given, HYDROFOIL_DATA, or the user's cache."""
    given = str(root) or os.environ.get("HYDROFOIL_DATA", "")
    if given:
        return Path(given).expanduser()
    return user_cache()


def _missing(source: Source, folder: Path) -> list[str]:
    return [
        file
        for file in source.files
        if not (folder / file).is_file() and not (folder / f"{file}.gz").is_file()
    ]


def _download(name: str, source: Source, folder: Path, watcher: Watcher) -> None:
    """Bring a source's missing files; a download that was broken off is gone on with."""
    stage = folder / ".download"  # in the folder itself, so that a rename never crosses disks
    made = [path for path in (stage, *stage.parents) if not path.exists()]
    try:
        with _alone(name, stage):
            if _missing(source, folder):  # another process may just have brought them
                watcher.say(f"{name}: not in {folder}; downloading it")
                _bring(source, folder, stage, watcher)
                shutil.rmtree(stage, ignore_errors=True)
    except (DownloadError, OSError) as error:
        why = f"it cannot be written, {reason(error)}" if isinstance(error, OSError) else error
        raise HydrofoilError(
            f"{name}: not in {folder}, and could not be downloaded: {why}\n"
            f"Missing: {', '.join(_missing(source, folder))}\n"
            "Put these files there, or name another folder with --data-root or HYDROFOIL_DATA."
        ) from error
    except KeyboardInterrupt:
        watcher.say(f"{name}: what has come is kept in {stage}; the next try goes on from there")
        raise
    finally:
        with contextlib.suppress(OSError):  # what is not empty stays
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def _alone(name: str, stage: Path) -> Generator[None]:
    """Hold a download's lock; the system frees it with the process."""
    stage.mkdir(parents=True, exist_ok=True)
    with open(stage / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HydrofoilError(
                f"{name}: another process is downloading it to {stage.parent}.\n"
                "Wait for it to end, or stop it."
            ) from error
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.listdir(stage) == [".lock"]:
                    os.unlink(stage / ".lock")


def _bring(source: Source, folder: Path, stage: Path, watcher: Watcher) -> None:
    """Fetch and unpack what is missing, and move it in place once it is known to be right."""
    ready, missing, strikes = stage / "ready", _missing(source, folder), Counter[str]()
    wanted = [file for file in source.published if set(missing) & set(_holds(file))]
    while True:
        shutil.rmtree(ready, ignore_errors=True)
        fetched = [
            fetch(
                file, stage,
                other_packing=bool(source.pictures_hash), strikes=strikes, watcher=watcher,
            )
            for file in wanted
        ]  # fmt: skip
        exact = all(one.exact for one in fetched)
        try:
            for file, one in zip(wanted, fetched, strict=True):
                _unpack(file, one.path, ready, folder.name)
            if exact or _same_pictures(source, folder, ready):
                break
        except HydrofoilError:
            if exact:
                raise
        for one in fetched:
            if not one.exact:
                accuse(strikes, one.urls)
                one.path.unlink()
    for path in ready.iterdir():
        if not path.is_symlink():
            os.replace(path, folder / path.name)


def _holds(file: Published) -> tuple[str, ...]:
    return file.holds or (file.name.removesuffix(".gz"),)


def _unpack(file: Published, path: Path, ready: Path, folder: str) -> None:
    if file.holds:
        unpack_tar(path, ready, folder, file.holds)
    else:
        unpack_gzip(path, ready / _holds(file)[0])


def _same_pictures(source: Source, folder: Path, ready: Path) -> bool:
    """Tell whether another packing gives the published pictures."""
    for file in source.files:
        if not (ready / file).exists():  # it was in the folder before
            held = folder / file if (folder / file).exists() else folder / f"{file}.gz"
            (ready / held.name).symlink_to(held.resolve())
    return source.read(ready).hash == source.pictures_hash
