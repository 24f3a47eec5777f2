"""What this machine gives: the device that a name means, threads, the user's cache folder."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import torch

from hydrofoil.errors import HydrofoilError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    `auto` is CUDA if there, else CPU.

    Raises:
        HydrofoilError: The name is none of these, or this machine lacks the device.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise HydrofoilError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps.")
    there = {
        "cpu": device.index in (None, 0),
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise HydrofoilError(
            f"--device {name}: this machine has no such device "
            f"that torch {torch.__version__} can use.\n"
            "Use --device auto to take what there is."
        )
    return device


MOST_THREADS = 1024  # that a run may ask for: OpenMP dies of a number that it cannot start


def resumed_device(name: str, before: object) -> torch.device:
    """Return the device to go on with: the one that is named, else the one that a run began on.

    Args:
        name: As `pick_device` takes it; "auto" where nothing was asked for.
        before: What the run's environment says; where this machine lacks that, `auto` decides.
    """
    if name == "auto" and isinstance(before, str):
        with contextlib.suppress(HydrofoilError):
            return pick_device(before)
    return pick_device(name)


def restore_threads(count: object) -> None:
    """Use as many CPU threads as a run began with: sums are cut by thread, so bits depend on it."""
    if type(count) is int and 0 < count <= MOST_THREADS:
        torch.set_num_threads(count)


def describe_device(device: torch.device) -> str:
    """Say what the device is: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def user_cache() -> Path:
    """Return hydrofoil's folder in the user's cache: sets, built code, measured costs."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches/hydrofoil").expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hydrofoil"
    except RuntimeError:  # no home folder
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir(), f"hydrofoil-{user}")


def available_threads() -> int:
    """Return how many CPU threads this process may use: OMP_NUM_THREADS, or the cores it has."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdigit() and int(given) > 0:
        return int(given)
    if hasattr(os, "sched_getaffinity"):  # Linux: what taskset and containers leave
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


ONE_THREAD_BELOW = 10_000_000  # multiply-adds of a step's forward pass; measured in docs/log.md


def pick_threads(multiply_adds: int) -> None:
    """Let torch use one CPU thread where a step is too small to share, else leave its choice.

    A rule and not a measurement, so that the same recipe gives the same bits twice on the same
    machine. OMP_NUM_THREADS, where a person has set it, stands.

    Args:
        multiply_adds: Of one step, forward.
    """
    if "OMP_NUM_THREADS" not in os.environ and multiply_adds < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
