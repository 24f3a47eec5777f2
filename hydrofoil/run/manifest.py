"""The manifest of a run folder: its format, and the SHA-256 of every file.

Before a file is replaced, the manifest names the new content beside the old one. So whenever the
process dies, the file on disk is one of the two, and known. Of the log, which grows, the manifest
knows a number of bytes from its beginning.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hydrofoil.errors import HydrofoilError
from hydrofoil.files import read_file
from hydrofoil.run.commands import command

FORMAT = 1  # of a run folder; no other format is read
NAME = "manifest.json"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Entry:
    """What the manifest knows of a file.

    Args:
        size: In bytes; of the log, those that are known.
        sha256: Of these bytes.
        epoch: Of weights: completed epochs.
        step: Of a checkpoint: completed steps of the next epoch.
    """

    size: int
    sha256: str
    epoch: int | None = None
    step: int | None = None

    @classmethod
    def of(cls, content: bytes, epoch: int | None = None, step: int | None = None) -> Self:
        """Return the entry of a content; hashing 2 MB takes about a millisecond."""
        return cls(len(content), hashlib.sha256(content).hexdigest(), epoch, step)

    def matches(self, name: str, content: bytes) -> bool:
        """Tell whether this is the entry of a file's content."""
        part = content[: self.size] if name == LOG else content
        return len(part) == self.size and hashlib.sha256(part).hexdigest() == self.sha256

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON has it."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Manifest:
    """What is known of the files of a run.

    Args:
        files: By name the contents that a file may have: one, or two while it is replaced.
    """

    files: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict[str, tuple[Entry, ...]])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return a folder's manifest.

        Raises:
            HydrofoilError: It is missing, damaged or of another format.
        """
        path = folder / NAME
        if not path.exists():
            raise HydrofoilError(
                f"{path}: missing, so the files beside it cannot be verified.\n"
                f"Put a copy of it back, or train again with: "
                f"{command('train', folder / 'recipe.toml')}"
            )
        content = read_file(path)
        try:
            document: dict[str, Any] = dict(json.loads(content))
            files: dict[str, Any] = document["files"]
        except (ValueError, KeyError, TypeError, RecursionError):
            document, files = {"format": FORMAT}, {}
        try:
            manifest = cls({n: tuple(Entry(**one) for one in some) for n, some in files.items()})
        except (TypeError, AttributeError):
            manifest = cls()
        if manifest.to_bytes() == content:
            return manifest
        found = document.get("format", "unknown")
        if found == "unknown" or (found != FORMAT and document.get("sha256") == _own(found, files)):
            raise HydrofoilError(
                f"{folder}: made by another version of hydrofoil: "
                f"format {found}, expected {FORMAT}.\n"
                f"Open it with that version, or train again with: "
                f"{command('train', folder / 'recipe.toml')}"
            )
        raise HydrofoilError(
            f"{path}: checksum mismatch: the file has changed since hydrofoil wrote it, "
            "so the files beside it cannot be verified.\nPut a copy of it back."
        )

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON, with its own SHA-256; the same bytes for the same files."""
        files = {name: [one.to_dict() for one in self.files[name]] for name in sorted(self.files)}
        document = {"format": FORMAT, "files": files, "sha256": _own(FORMAT, files)}
        return (json.dumps(document, indent=1) + "\n").encode()

    def find(self, name: str, content: bytes) -> Entry | None:
        """Return the entry that a file's content matches; None: it matches none."""
        nothing = (Entry.of(b""),) if name == LOG else ()
        for entry in self.files.get(name, nothing):
            if entry.matches(name, content):
                return entry
        return None

    def mismatch(self, path: Path, content: bytes) -> HydrofoilError:
        """Return the error that says what a file should have been."""
        expected = " or ".join(
            f"{one.size:,} bytes, SHA-256 {one.sha256[:12]}…"
            for one in self.files.get(path.name, ())
        )
        found = Entry.of(content)
        return HydrofoilError(
            f"{path}: checksum mismatch: the file has changed since hydrofoil wrote it: "
            f"{found.size:,} bytes, SHA-256 {found.sha256[:12]}….\n"
            f"Expected {expected or 'no such file'}.{cure(path)}"
        )


def _own(format: object, files: Mapping[str, Any]) -> str:
    """Return the manifest's own SHA-256."""
    return hashlib.sha256(json.dumps([format, files]).encode()).hexdigest()


def cure(path: Path) -> str:
    """Say how to replace a damaged or missing file of a run, where there is a way."""
    run = path.parent
    again = f"Write it again with: {command('test', run)}"
    cures = {
        "recipe.toml": f"To train longer: {command('resume', run)} train.epochs=N; another recipe "
        "needs its own run.",
        "best.safetensors": "Write it again from the last checkpoint with: "
        f"{command('resume', run)}",
        "test.json": again,
        "answers.npz": again,
        "shown.npz": again,
        "reference.npz": again,
    }
    return f"\n{cures[path.name]}" if path.name in cures else ""
