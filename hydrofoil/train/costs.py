"""What preparing an executor cost on this machine, and what its steps took: a note for next time.

Kept in the user's cache folder, one small JSON file for each network, batch size, optimiser and
torch. A note that is missing, unreadable or cannot be written is a note that is not there.
"""

import contextlib
import hashlib
import json
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from hydrofoil.device import available_threads, user_cache
from hydrofoil.errors import HydrofoilError
from hydrofoil.files import write_whole
from hydrofoil.models.classifier import Classifier
from hydrofoil.native.build import processor


class Costs:
    """Seconds by name: "eager" or "native" for a step, "preparing graph", and so on.

    Args:
        model: Whose step is meant.
        optimizer: That updates it.
        batch_size: Of the step.
    """

    def __init__(
        self, model: Classifier, optimizer: torch.optim.Optimizer, batch_size: int
    ) -> None:
        machine = f"{model.device} {available_threads()} {torch.get_num_threads()} {processor()}"
        machine += f" {torch.__version__}"
        group = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "lr")}
        text = f"{machine} {model.shape} {model.network} {batch_size} {optimizer.__class__} {group}"
        self._open(hashlib.sha256(text.encode()).hexdigest()[:32])

    @classmethod
    def of_machine(cls) -> "Costs":
        """Return the notes that hold for any network here."""
        costs = cls.__new__(cls)
        costs._open("machine")
        return costs

    def _open(self, name: str) -> None:
        self.path = user_cache() / "costs" / f"{name}.json"
        self.seconds = _read(self.path)

    def get(self, name: str) -> float | None:
        """Return the noted seconds."""
        return self.seconds.get(name)

    def note(self, name: str, seconds: float) -> float:
        """Keep some seconds, unless fewer were kept before, and return those that are kept.

        A busy machine makes everything slower and nothing faster.
        """
        known = _read(self.path)
        seconds = min(seconds, known.get(name, seconds))
        self.seconds = {**known, name: seconds}
        with contextlib.suppress(HydrofoilError):
            write_whole(self.path, json.dumps(self.seconds).encode(), durable=False)
        return seconds


def _read(path: Path) -> dict[str, float]:
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        return {
            str(name): float(seconds)
            for name, seconds in content.items()
            if isfinite(float(seconds)) and float(seconds) >= 0
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
