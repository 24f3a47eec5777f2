"""The share of a training's time that goes into saving it, at the default interval.

    python bench/saving.py [RECIPE]... [--fraction 1] [--set FIELD=VALUE]... [--json FILE]

Trains each shipped recipe as `hydrofoil train` does, into a folder of its own, and prints how often
checkpoints were saved, the seconds that this took (serializing, hashing, waiting for the disk),
their share of the seconds from preparing the first step to the last file, and the seconds that
looking took whether the numbers are finite. The disk is the one that TMPDIR is on.

The save at the end, which every training makes, however short, is counted in and told apart.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import hydrofoil as hf
from hydrofoil.observe.observer import Ended, Observer
from hydrofoil.run.environment import environment
from hydrofoil.train.guard import Guard


class Watch(Observer):
    """Keeps how the training ended, with the seconds of each save."""

    end: Ended

    def ended(self, end: Ended) -> None:
        """Take the end."""
        self.end = end


def measure(recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Train once; return seconds and counts."""
    watch, passes, checks = Watch(), Guard.passes, list[float]()

    def timed(self: Guard, *arguments: Any, **options: Any) -> bool:
        began = time.perf_counter()
        try:
            return passes(self, *arguments, **options)
        finally:
            checks.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Guard, "passes", timed):
        hf.train(recipe, overrides, run=Path(folder, "run"), observers=[watch])
    seconds, saves = watch.end.seconds, watch.end.save_seconds
    return {
        "recipe": recipe,
        "overrides": overrides,
        "seconds": seconds,
        "saves": len(saves),
        "save_seconds": sum(saves),
        "last_save_seconds": saves[-1],
        "check_seconds": sum(checks),
        "share": sum(saves) / seconds,
        "share_without_last": sum(saves[:-1]) / seconds,
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("recipes", nargs="*", default=hf.shipped_recipes())
    parser.add_argument("--fraction", type=float, default=1.0, help="of the epochs")
    parser.add_argument("--set", action="append", default=[], help="a recipe's field=value")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run() -> None:
    """Measure and print."""
    given = parse()
    rows: list[dict[str, Any]] = []
    print(f"{'recipe':22}{'train s':>9}{'saves':>7}{'save s':>9}{'share':>8}{'but last':>10}"
          f"{'check s':>9}")  # fmt: skip
    for name in given.recipes:
        epochs = max(1, round(hf.read_recipe(name).train.epochs * given.fraction))
        row = measure(name, [f"train.epochs={epochs}", *given.set])
        rows.append(row)
        print(
            f"{name:22}{row['seconds']:9.2f}{row['saves']:7d}{row['save_seconds']:9.3f}"
            f"{row['share']:8.2%}{row['share_without_last']:10.2%}{row['check_seconds']:9.3f}"
        )
    if given.json:
        machine = environment(torch.device("cpu"), [])
        given.json.write_text(json.dumps({"environment": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    run()
