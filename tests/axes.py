"""Holds tensors' names against tensors: a name that ends in axes says the truth on every call."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

import hydrofoil

PACKAGE = str(Path(hydrofoil.__file__).parent)
NAME = re.compile(r"[a-z]\w*_([A-Z]*[A-Z1]*[A-Z]|[A-Z]1+)$")


def axes_of(name: str) -> str | None:
    """Return the axes that a name ends in: pictures_NCHW, mean_C11, labels_N."""
    match = NAME.match(name)
    return match.group(1) if match else None


def lies(local: dict[str, Any]) -> list[str]:
    """Return what the names among a function's local variables say wrongly.

    Axes that a whole function shares (C channels, K classes) must have one size in it.
    """
    found: list[str] = []
    shared: dict[str, int] = {}
    for name, value in local.items():
        axes = axes_of(name)
        if axes is None or not isinstance(value, torch.Tensor | np.ndarray):
            continue
        if value.ndim != len(axes):
            found.append(f"{name} has {value.ndim} axes")
            continue
        for axis, size in zip(axes, value.shape, strict=True):
            if (axis == "1" and size != 1) or (
                axis in "CK" and shared.setdefault(axis, size) != size
            ):
                found.append(f"{name} has {axis} = {size}")
    return found


@contextmanager
def names_held() -> Iterator[dict[str, int]]:
    """Check every return of every hydrofoil function inside; yields how often names were seen."""
    seen: dict[str, int] = {}
    wrong: list[str] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_filename.startswith(PACKAGE):
            where = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
            wrong.extend(f"{where}: {lie}" for lie in lies(frame.f_locals))
            for name in frame.f_locals:
                if axes_of(name):
                    seen[name] = seen.get(name, 0) + 1

    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(None)
    assert not wrong, sorted(set(wrong))
