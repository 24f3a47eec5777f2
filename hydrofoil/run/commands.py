"""Command lines that messages tell the user to type."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path


def command(verb: str, path: Path, data_root: str = "") -> str:
    """Return a command that works as it is printed, also where a path has spaces."""
    root = ["--data-root", data_root] if data_root else []
    return command_line(["hydrofoil", verb, str(path), *root])


def command_line(arguments: Sequence[str]) -> str:
    """Return arguments as they would be typed into this system's shell.

    >>> command_line(["hydrofoil", "test", "runs/my run"]).replace('"', "'")
    "hydrofoil test 'runs/my run'"
    """
    return subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)
