"""Commands that messages tell a person to type."""

import shlex
from pathlib import Path


def command(verb: str, path: Path, data_root: str = "") -> str:
    """Return a command to type, which works as it stands, also where a path has spaces."""
    root = ["--data-root", data_root] if data_root else []
    return shlex.join(["hydrofoil", verb, str(path), *root])
