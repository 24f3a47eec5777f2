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
from hydrofoil.files import read_file

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
