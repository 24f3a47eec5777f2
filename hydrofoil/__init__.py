"""From small images to a tested model: datasets are tensors, recipes are data, numbers have counts.

The public names are listed in __init__.pyi, as SPEC 1 of Scientific Python describes it. They are
imported when first used, so that ``import hydrofoil`` and ``hydrofoil --help`` do not import torch.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_LISTED = Path(__file__).with_suffix(".pyi").read_text("utf-8")
_HOMES = {n: m for m, n in re.findall(r"^from ([\w.]+) import (\w+) as \2$", _LISTED, re.MULTILINE)}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(ModuleType):
    """Keeps `hydrofoil.train` and `hydrofoil.compare` the functions, whatever was imported before.

    Python's import system would set them to the folders train/ and compare/ of the same names.
    `from hydrofoil.train.loop import fit` works all the same.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hydrofoil' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
