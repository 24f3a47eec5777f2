"""The SHA-256 of every file of a run, so that a file that is not as it was written is refused.

A file is about to be replaced: the manifest then names the new content beside the old one, before
the file is touched. So whenever the process dies, what lies there is one of the two, and known.
Of a log, which grows, the first so many bytes are known.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hydrofoil.errors import HydrofoilError
from hydrofoil.files import discard, put_in_place, read_file, stage_all, sync_folder

NAME = "manifest.json"
GROWING = ("log.jsonl",)


@dataclass(frozen=True)
class Digest:
    """What a content is known by."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return a content's digest; about a millisecond for 2 MB."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What the files of a run are known by.

    Args:
        files: For each name the contents that it may have: one, or two while it is replaced.
    """

    files: Mapping[str, tuple[Digest, ...]] = field(default_factory=dict[str, tuple[Digest, ...]])

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return a folder's manifest; None if it has none: runs from before there was any.

        Raises:
            HydrofoilError: It is broken.
        """
        path = folder / NAME
        if not path.exists():
            return None
        content = read_file(path)
        try:
            files: dict[str, Any] = json.loads(content)["files"]
            read = {name: tuple(Digest(**one) for one in known) for name, known in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            read = {}
        manifest = cls(read)
        if manifest.to_bytes() != content:
            raise HydrofoilError(
                f"{path}: its content is not what was written, so no file here can be trusted.\n"
                "Put a copy of it back, or delete it to read the run as it is, unchecked."
            )
        return manifest

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON, with its own SHA-256; the same bytes for the same files."""
        files = {name: [vars(one) for one in self.files[name]] for name in sorted(self.files)}
        own = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return (json.dumps({"files": files, "sha256": own}, indent=1) + "\n").encode()

    def knows(self, name: str, content: bytes) -> Digest | None:
        """Return which of the known contents of a file this is; None: none of them."""
        nothing = (Digest.of(b""),) if name in GROWING else ()
        for known in self.files.get(name, nothing):
            part = content[: known.size] if name in GROWING else content
            if Digest.of(part) == known:
                return known
        return None

    def check(self, path: Path, name: str, content: bytes) -> None:
        """Make sure that a file's content is what was written.

        Raises:
            HydrofoilError: It is something else.
        """
        if self.knows(name, content) is None:
            expected = " or ".join(
                f"{one.size:,} bytes, SHA-256 {one.sha256[:12]}…"
                for one in self.files.get(name, ())
            )
            found = Digest.of(content)
            raise HydrofoilError(
                f"{path}: its content is not what was written: {found.size:,} bytes, "
                f"SHA-256 {found.sha256[:12]}…\n"
                f"Expected {expected or 'no such file'}, as {NAME} has it.{cure(path)}"
            )


def cure(path: Path) -> str:
    """Say what may be done about a file of a run that is broken or lost."""
    run = shlex.quote(str(path.parent))
    cures = {
        "recipe.toml": f"To train longer: hydrofoil resume {run} train.epochs=N; another recipe "
        "needs a run of its own.",
        "best.safetensors": f"Written again from the last checkpoint by: hydrofoil resume {run}",
        **dict.fromkeys(
            ("test.json", "answers.npz", "shown.npz", "reference.npz"),
            f"Written again by: hydrofoil test {run}",
        ),
    }
    return f"\n{cures[path.name]}" if path.name in cures else ""


class Files:
    """The files of one run folder, written and read as the manifest has them.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: dict[str, Digest] = {}  # what this process wrote is known without reading it

    def read(self, name: str) -> bytes:
        """Return a file of the run as it was written.

        Raises:
            HydrofoilError: It is missing, or its content is not what was written.
        """
        return read_checked(self.path, name)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file of the run.

        Raises:
            HydrofoilError: It is missing, or its content is not what was written.
        """
        path, text = self.path / name, self.read(name)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HydrofoilError(
                f"{path}: broken: {error}.\nDelete it; hydrofoil test writes test.json again."
            ) from error
        if not isinstance(content, dict):
            raise HydrofoilError(f"{path}: broken: it holds no object.")
        return content

    def write(self, name: str, content: bytes) -> Path:
        """Write one file of the run, whole or not at all, and return its path."""
        self.write_all({name: content})
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write one file of the run as JSON."""
        return self.write(name, json_bytes(content))

    def write_all(
        self, contents: Mapping[str, bytes], aside: Mapping[str, str] | None = None
    ) -> None:
        """Write files of the run in this order, each whole or not at all.

        The manifest goes first and names what is there and what comes, so that a process that dies
        anywhere in between leaves files that are known. Costs three waits for the disk.

        Args:
            contents: By name; with none, the manifest forgets what has been replaced.
            aside: Names under which to keep the files that are replaced: new name by old.

        Raises:
            HydrofoilError: The system refused; what lies there is still whole.
        """
        before = Manifest.read(self.path)
        # A broken file is not kept: it would take the place of the whole one before it.
        moves = {old: new for old, new in (aside or {}).items() if self._on_disk(old, before)}
        now = {name: self._on_disk(name, before) for name in (*contents, *moves.values())}
        coming = {name: Digest.of(content) for name, content in contents.items()}
        coming |= {new: moved for old, new in moves.items() if (moved := now[old])}
        known = self._certified(before)
        for name, new in coming.items():
            known[name] = tuple(dict.fromkeys(one for one in (new, now[name]) if one))
            self.written.pop(name, None)  # until all is done, only the disk can tell
        first = {NAME: Manifest(known).to_bytes()} if Manifest(known) != before else {}
        grown = [self.path / name for name in GROWING if (self.path / name).exists()]
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
        self.written.update(coming)

    def _certified(self, before: Manifest | None) -> dict[str, tuple[Digest, ...]]:
        """Return what the manifest should say of the files as they are; the log is read anew."""
        if before is None:  # a run from before there were manifests: taken as it is
            names = [path for path in self.path.rglob("[!.]*") if path.is_file()]
            return {
                str(path.relative_to(self.path)): (Digest.of(read_file(path)),) for path in names
            }
        known = dict(before.files)
        for name, some in before.files.items():
            settled = name in self.written or len(some) > 1
            digest = self._on_disk(name, before) if settled else None
            known[name] = (digest,) if digest else some
        for name in GROWING:
            if (self.path / name).exists():
                content = self.read(name)
                whole = content.rfind(b"\n") + 1  # `log` puts another in an unfinished line's place
                known[name] = (Digest.of(content[:whole]),)
        return known

    def _on_disk(self, name: str, known: Manifest | None) -> Digest | None:
        """Return by what the file is known that lies there now; None: none, or a broken one."""
        if name in self.written:
            return self.written[name]
        path = self.path / name
        if not path.exists():
            return None
        content = read_file(path)
        return known.knows(name, content) if known else Digest.of(content)


def read_checked(folder: Path, name: str) -> bytes:
    """Return a run's file, checked against the manifest.

    A writer may replace both meanwhile: what does not match is read again if the manifest changed.
    """
    path, seen = folder / name, None
    while True:
        known, content = Manifest.read(folder), read_file(path)
        if known is None or known.knows(name, content):
            return content
        if known == seen:
            known.check(path, name, content)
        seen = known


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return an object as JSON that people can read."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
