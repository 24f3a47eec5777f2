"""A run kept at each of its steps, and what resuming from there comes to: for tests/test_resume.py.

As a program it resumes run folders, in one fresh process, and prints a line of JSON for each:

    python -m tests.resume_steps (plain|normed) RUN...
"""

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors import safe_open
from torch import nn

from hydrofoil import Run, models
from hydrofoil.cli.main import main
from hydrofoil.evaluate.result import Record
from hydrofoil.models.layers import Dropout
from hydrofoil.run.checkpoints import Checkpoints


def normed(_: object, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return layers with batch normalization, of maps and of units, and dropout."""
    channels, height, width = shape
    return {
        "conv": nn.Conv2d(channels, 8, 3, padding=1),
        "norm": nn.BatchNorm2d(8),
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "drop": Dropout(0.25),
        "fc": nn.Linear(8 * (height // 2) * (width // 2), 16),
        "norm2": nn.BatchNorm1d(16),
        "fc2": nn.Linear(16, classes),
    }


@contextlib.contextmanager
def model(kind: str) -> Generator[None]:
    """Let the model `mlp` be the one with batch normalization; and wait for no disk."""
    changed = {"mlp": normed} if kind == "normed" else {}
    with mock.patch.dict(models.MODELS, changed), mock.patch("os.fsync"):
        yield


def command(*arguments: object) -> tuple[int, str]:
    """Run a command line; return its exit status and what it printed to both outputs."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            return int(left.code or 0), told.getvalue()
    raise AssertionError("main leaves with a status")


def kept_at_each_step(run: str, recipe: str, overrides: Sequence[str]) -> list[Path]:
    """Train, saving after each step; return a copy of the run folder as it was at each save."""
    copies: list[Path] = []
    save = Checkpoints.save

    def save_and_copy(self: Checkpoints, *arguments: Any) -> None:
        save(self, *arguments)
        copies.append(self.path.with_name(f"{self.path.name}-{len(copies) + 1:03d}"))
        shutil.copytree(self.path, copies[-1])

    with mock.patch.object(Checkpoints, "save", save_and_copy):
        status, told = command("train", recipe, *overrides, "train.save_steps=1", "--run", run)
    assert status == 0, told
    return copies


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Return what a run came to: every tensor and number, and the log, but for seconds."""

    def hashes(name: str) -> dict[str, str]:
        with safe_open(Path(path) / name, framework="np") as file:
            return {
                key: hashlib.sha256(file.get_tensor(key).tobytes()).hexdigest()
                for key in sorted(file.keys())
            } | {"epoch": file.metadata().get("epoch", "")}

    with safe_open(Path(path) / "last.safetensors", framework="np") as file:
        numbers = json.loads(file.metadata()["numbers"])
    return {
        "best": hashes("best.safetensors"),
        "last": hashes("last.safetensors"),
        "numbers": {name: value for name, value in numbers.items() if name != "seconds"},
        "log": [
            {name: value for name, value in event.items() if not name.endswith("seconds")}
            for event in map(Record.to_dict, Run.open(path).log.events())
            if event["event"] in ("epoch", "loss")
        ],
    }


def resumed(path: str | Path) -> dict[str, Any]:
    """Resume a run, and return its fingerprint, or what was told where that failed."""
    status, told = command("resume", path)
    return fingerprint(path) if status == 0 else {"status": status, "told": told}


if __name__ == "__main__":
    with model(sys.argv[1]):
        for argument in sys.argv[2:]:
            print(json.dumps(resumed(argument)))
