"""Reads and writes the files of a run folder, every one verified by the manifest."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from hydrofoil.errors import HydrofoilError
from hydrofoil.files import discard, put_in_place, read_file, stage_all, sync_folder
from hydrofoil.run.manifest import LOG, NAME, Entry, Manifest, cure

T = TypeVar("T")


@dataclass
class _Hashed:
    """The hash of the log so far, so that saving does not read all of it again."""

    inode: int
    size: int = 0
    sha: Any = field(default_factory=hashlib.sha256)


class Files:
    """The files of one run folder; remembers what this process has written and hashed.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: dict[str, Entry] = {}
        self._log: _Hashed | None = None

    def read(self, name: str) -> bytes:
        """Return the verified content of a file.

        A writer may replace the file and the manifest meanwhile: on a mismatch both are read again
        if the manifest has changed.

        Raises:
            HydrofoilError: It is missing, or has changed since it was written.
        """
        seen = None
        while True:
            manifest, content = Manifest.read(self.path), read_file(self.path / name)
            if manifest.find(name, content):
                return content
            if manifest == seen:
                raise manifest.mismatch(self.path / name, content)
            seen = manifest

    def entry(self, name: str) -> Entry | None:
        """Return the manifest's entry of a file that is there, without reading the file.

        Only after a process died while it replaced the file, its content has to decide. None: there
        is no such file, or it has another size.
        """
        path, seen = self.path / name, None
        while path.exists():
            manifest = Manifest.read(self.path)
            known = manifest.files.get(name, ())
            if self._written.get(name) in known:
                known = (self._written[name],)
            if len(known) > 1:
                return manifest.find(name, read_file(path))
            if known and path.stat().st_size == known[0].size:
                return known[0]
            if manifest == seen:
                return None
            seen = manifest
        return None

    def parse(self, name: str, parser: Callable[[bytes], T]) -> T:
        """Return what a parser makes of a file's verified content.

        Raises:
            HydrofoilError: The file is missing, has changed, or the parser fails.
        """
        content = self.read(name)
        with self.parsing(name):
            return parser(content)

    @contextlib.contextmanager
    def parsing(self, name: str) -> Generator[None]:
        """Name the file if its content cannot be used.

        A run may come from elsewhere, with hashes that match content which hydrofoil never wrote.

        Raises:
            HydrofoilError: The code inside raised any other exception.
        """
        try:
            yield
        except HydrofoilError:
            raise
        except Exception as error:  # whatever json, zipfile, numpy or torch raise
            said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            path = self.path / name
            raise HydrofoilError(
                f"{path}: not a file as hydrofoil writes it: {said}.{cure(path)}"
            ) from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file of the run.

        Raises:
            HydrofoilError: It is missing, has changed, or holds no JSON object.
        """
        return self.parse(name, _json_object)

    def write(self, name: str, content: bytes, *, epoch: int | None = None) -> Path:
        """Write one file atomically, and return its path."""
        self.write_all({name: content}, places={name: (epoch, None)})
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write one file of the run as JSON."""
        return self.write(name, json_bytes(content))

    def write_all(
        self,
        contents: Mapping[str, bytes],
        *,
        aside: Mapping[str, str] | None = None,
        places: Mapping[str, tuple[int | None, int | None]] | None = None,
    ) -> None:
        """Write files of the run in this order, each atomically.

        The manifest goes first and names both the old and the new contents, so that a process that
        dies anywhere in between leaves files that are known. Costs three waits for the disk.

        Args:
            contents: By name; with none, the manifest forgets what has been replaced.
            aside: Names under which to keep the files that are replaced: new name by old.
            places: Epoch and step that the manifest notes of a file.

        Raises:
            HydrofoilError: The system refused; the files on disk are still complete.
        """
        before = Manifest.read(self.path) if (self.path / NAME).exists() else Manifest()
        # A damaged file is not moved aside: it would replace the intact one before it.
        moves = {old: new for old, new in (aside or {}).items() if self._on_disk(old, before)}
        now = {name: self._on_disk(name, before) for name in (*contents, *moves.values())}
        coming = {
            name: Entry.of(content, *(places or {}).get(name, (None, None)))
            for name, content in contents.items()
        }
        coming |= {new: moved for old, new in moves.items() if (moved := now[old])}
        known = self._certified(before)
        for name, new in coming.items():
            known[name] = tuple(dict.fromkeys(one for one in (new, now[name]) if one))
            self._written.pop(name, None)  # until all is done, only the disk can tell
        manifest = Manifest(known)
        first = {NAME: manifest.to_bytes()} if manifest != before else {}
        grown = [self.path / LOG] if (self.path / LOG).exists() else []
        files = {self.path / name: content for name, content in {**first, **contents}.items()}
        staged = stage_all(files, sync=grown) if files else {}
        try:
            for name in first:
                put_in_place(staged[self.path / name], self.path / name)
                sync_folder(self.path)
            for name in contents:
                if name in moves:
                    put_in_place(self.path / name, self.path / moves[name])
                put_in_place(staged[self.path / name], self.path / name)
        finally:
            for beside in staged.values():  # what is in place is not there any more
                discard(beside)
        for folder in {(self.path / name).parent for name in contents}:
            sync_folder(folder)
        if LOG in contents:
            self._log = None
        self._written.update(coming)

    def _certified(self, before: Manifest) -> dict[str, tuple[Entry, ...]]:
        """Return what the manifest should say of the files as they are now."""
        known = dict(before.files)
        for name, some in before.files.items():
            settled = name in self._written or len(some) > 1
            entry = self._on_disk(name, before) if settled else None
            known[name] = (entry,) if entry else some
        if (self.path / LOG).exists():
            known[LOG] = (self._log_entry(),)
        return known

    def _on_disk(self, name: str, known: Manifest) -> Entry | None:
        """Return the entry of a file as it is on disk; None if it is missing or damaged."""
        if name in self._written:
            return self._written[name]
        path = self.path / name
        return known.find(name, read_file(path)) if path.exists() else None

    def _log_entry(self) -> Entry:
        """Return the entry of the log's complete lines, hashing those that are new."""
        path, hashed = self.path / LOG, self._log
        stat = path.stat()
        if hashed is None or hashed.inode != stat.st_ino or hashed.size > stat.st_size:
            hashed, part = _Hashed(stat.st_ino), self.read(LOG)
        else:
            with path.open("rb") as file:
                file.seek(hashed.size)
                part = file.read()
        complete = part.rfind(b"\n") + 1  # the next line that is appended replaces a partial one
        hashed.sha.update(part[:complete])
        hashed.size += complete
        self._log = hashed
        return Entry(hashed.size, hashed.sha.hexdigest())


def _json_object(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise TypeError("not a JSON object")
    return cast("dict[str, Any]", found)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return an object as indented JSON."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
