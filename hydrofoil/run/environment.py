"""The environment of a run, and how it differs now."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hydrofoil import __version__
from hydrofoil.device import describe_device

# Fields that results may depend on beside the recipe; `differences` compares them.
COMPARED = (
    "hydrofoil",
    "git",
    "python",
    "torch",
    "numpy",
    "platform",
    "cpu",
    "device_name",
    "compiler",
)


def environment(device: torch.device, arguments: Sequence[str]) -> dict[str, Any]:
    """Describe the environment of a run, without the names of host and user."""
    import numpy as np

    return {
        "hydrofoil": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "device": str(device),
        "device_name": describe_device(device),
        "threads": torch.get_num_threads(),
        "command": ["hydrofoil", *map(_plain, arguments)],
    }


def _plain(argument: str) -> str:
    """Return an argument without the user's name, with characters that are not text replaced."""
    return os.fsencode(argument.replace(str(Path.home()), "~")).decode(errors="replace")


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _git_revision() -> str | None:
    """Return the running code's revision, with "+" if it was changed since; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]  # not a project around us
    describe = [*git, "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        subprocess.run(tracked, capture_output=True, timeout=5, check=True)
        done = subprocess.run(describe, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between two environments; unknown values do not count.

    >>> differences({"torch": "2.14", "cpu": "a"}, {"torch": "2.15", "cpu": "a"})
    ['torch was 2.14 and is 2.15']
    """
    return [
        f"{name.replace('_', ' ')} was {before[name]} and is {now[name]}"
        for name in COMPARED
        if None not in (before.get(name), now.get(name)) and before[name] != now[name]
    ]
