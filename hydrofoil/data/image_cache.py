"""Decoded sets on disk, so that their files are decoded once: one array each, of bounded size.

A set is two files: KEY.npy, which is memory-mapped, and KEY.json, which is written last and says
what the array holds. The oldest used go first when all together are larger than the limit.
"""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hydrofoil.device import user_cache
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import write_whole

DEFAULT_LIMIT = 20 << 30  # bytes: 1.6 million images of 3×64×64
LIMIT = "limit.json"
UNFINISHED_SECONDS = 24 * 3600  # after which a file that a killed process left is removed
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Entry:
    """A set in the cache.

    Args:
        key: Its file name.
        bytes: Its size on disk.
        used: When it was last used, in seconds since 1970.
        about: What KEY.json says of it.
    """

    key: str
    bytes: int
    used: float
    about: Mapping[str, Any]


class ImageCache:
    """The folder of decoded sets.

    Args:
        folder: Where; default: `images` in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_cache() / "images"

    def limit(self) -> int:
        """Return how many bytes all sets together may have."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((self.folder / LIMIT).read_text("utf-8"))["bytes"])
        return DEFAULT_LIMIT

    def set_limit(self, limit: int) -> list[Entry]:
        """Set the limit, and return the sets that were removed because of it."""
        write_whole(self.folder / LIMIT, json.dumps({"bytes": limit}).encode())
        return self.shrink()

    def find(self, key: str) -> tuple[np.ndarray[Any, Any], dict[str, Any]] | None:
        """Return a set's array, memory-mapped, and what is known of it; None if it is not there."""
        array, about = self.folder / f"{key}.npy", self.folder / f"{key}.json"
        try:
            known = json.loads(about.read_text("utf-8"))
            values = np.load(array, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if not isinstance(known, dict) or list(values.shape) != known.get("shape"):
            return None
        with contextlib.suppress(OSError):
            os.utime(about)
        return values, known

    def create(self, shape: tuple[int, ...]) -> "Unfinished":
        """Return an array of bytes to fill: on disk if it fits the limit, else in memory."""
        size = int(np.prod(shape))
        if size <= self.limit():
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._remove_unfinished()
                path = self.folder / f".{secrets.token_hex(8)}.part"
                values = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
                return Unfinished(values, path)
        return Unfinished(np.zeros(shape, np.uint8), None)

    def keep(self, unfinished: "Unfinished", key: str, about: Mapping[str, Any]) -> Any:
        """Put a filled array in place, and return it as `find` would; in memory, return it as is.

        Args:
            unfinished: The array; it is not usable afterwards.
            key: Its name.
            about: What is known of it.
        """
        path, values = unfinished.path, unfinished.values
        if path is None:
            return values
        known = {**about, "shape": list(values.shape)}
        del values  # or the map would stay open
        unfinished.close()
        try:
            os.replace(path, self.folder / f"{key}.npy")
            write_whole(self.folder / f"{key}.json", json.dumps(known).encode(), durable=False)
        except (OSError, HydrofoilError):
            written = path if path.exists() else self.folder / f"{key}.npy"
            return np.load(written, allow_pickle=False)
        found = self.find(key)
        assert found is not None  # noqa: S101 - it was written a moment ago
        self.shrink(but=key)
        return found[0]

    def entries(self) -> list[Entry]:
        """Return the sets in the cache, the most recently used first."""
        found: list[Entry] = []
        for about in self._files(".json"):
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(about.read_text("utf-8"))
                array = about.with_suffix(".npy")
                size = about.stat().st_size + (array.stat().st_size if array.exists() else 0)
                found.append(Entry(about.stem, size, about.stat().st_mtime, known))
        return sorted(found, key=lambda entry: -entry.used)

    def shrink(self, but: str = "") -> list[Entry]:
        """Remove the sets that were used longest ago until the limit is kept; return them."""
        entries, limit = self.entries(), self.limit()
        total, removed = sum(entry.bytes for entry in entries), list[Entry]()
        for entry in reversed(entries):
            if total <= limit:
                break
            if entry.key != but and self.remove(entry.key):
                total -= entry.bytes
                removed.append(entry)
        return removed

    def remove(self, key: str) -> bool:
        """Remove a set, which stays with the processes that use it; return whether it is gone."""
        gone = True
        for ending in (".json", ".npy"):
            try:
                (self.folder / f"{key}{ending}").unlink(missing_ok=True)
            except OSError:  # in use on Windows
                gone = False
        return gone

    def clear(self) -> list[Entry]:
        """Remove all sets, and return those that were removed."""
        removed = [entry for entry in self.entries() if self.remove(entry.key)]
        for ending in (".npy", ".npz"):  # whose KEY.json is missing or damaged; copies found
            for file in self._files(ending):
                with contextlib.suppress(OSError):
                    file.unlink()
        return removed

    def _files(self, ending: str) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.iterdir()):
                if re.fullmatch(rf"[0-9a-f]{{32}}{re.escape(ending)}", path.name):
                    yield path

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                    path.unlink()


class Unfinished:
    """An array that is being filled.

    Args:
        values: The array.
        path: Its file; None: it is in memory alone.
    """

    def __init__(self, values: Any, path: Path | None) -> None:
        # The plain array: a memory map's own items take numpy ten times as long.
        self.values: Any = np.asarray(values)
        self.path, self.map = path, values

    def close(self) -> None:
        """Write what is left, and give the memory map up."""
        if self.path is not None and self.map is not None:
            self.map.flush()
        self.values = self.map = None

    def discard(self) -> None:
        """Remove what was written."""
        self.values = self.map = None
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def parse_bytes(text: str) -> int:
    """Return a number of bytes from text.

    Raises:
        HydrofoilError: It is no size.

    >>> parse_bytes("20GB"), parse_bytes("1.5 g"), parse_bytes("512")
    (21474836480, 1610612736, 512)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise HydrofoilError(f"--limit {text}: expected a size, such as 20GB or 500MB.")
    return int(float(match[1]) * UNITS[match[2].upper()])
