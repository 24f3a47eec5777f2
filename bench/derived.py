"""A derived recipe against the five tutorial networks at their own settings, on sets of images.

PYTHONPATH=. python bench/derived.py ./pets ./leaves [--seeds 3] [--out FILE.json]

Each seed splits a set once, the same for all. Times include reading, decoding and the test, not the
imports; the first of a set's trainings decodes it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import hydrofoil as hf
from hydrofoil.device import describe_device
from hydrofoil.errors import HydrofoilError

TUTORIALS = ("mnist-mlp", "mnist-cnn", "cifar10-lenet", "cifar10-lenet-linear", "cifar10-cnn3")
DERIVED = "derived"


def measure(source: str, name: str, seed: int, fields: list[str]) -> dict[str, Any]:
    """Train and test one recipe on a set; the error where its network does not fit the images."""
    overrides = [*fields, *([] if name == DERIVED else [f"data.source={source}"])]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        try:
            run = hf.train(
                source if name == DERIVED else name, overrides,
                run=Path(folder, "run"), seed=seed, test=True,
            )  # fmt: skip
        except HydrofoilError as error:
            return {"error": str(error).partition("\n")[0]}
        seconds = time.perf_counter() - began
        result, executor = run.results.test(), run.log.executor()
    assert result  # noqa: S101 - it was tested a moment ago
    return {
        "accuracy": result.accuracy, "count": result.count, "seconds": seconds,
        "epochs": run.recipe.train.epochs, "executor": executor,
    }  # fmt: skip


def table(source: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a set's rows as Markdown: mean accuracies, and the difference to the best tutorial."""
    means = {
        name: mean(one["accuracy"] for one in rows)
        for name, rows in found.items()
        if all("accuracy" in one for one in rows)
    }
    best = max((name for name in means if name != DERIVED), key=means.__getitem__)
    pairs = zip(found[DERIVED], found[best], strict=True)
    gains = [100 * (ours["accuracy"] - theirs["accuracy"]) for ours, theirs in pairs]
    spread = f" ± {stdev(gains):.2f}" if len(gains) > 1 else ""
    lines = [
        f"{Path(source).name}: derived − {best}: {mean(gains):+.2f}{spread} points over "
        f"{len(gains)} seeds ({', '.join(f'{gain:+.2f}' for gain in gains)}).",
        "",
        "| recipe | test accuracy, mean | each seed | test images | epochs | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        if name not in means:
            lines.append(f"| {name} | – | {rows[0]['error']} | | | |")
            continue
        each = ", ".join(f"{100 * one['accuracy']:.1f}" for one in rows)
        seconds = mean(one["seconds"] for one in rows)
        lines.append(
            f"| {name} | {100 * means[name]:.2f}% | {each} | {rows[0]['count']} | "
            f"{rows[0]['epochs']} | {seconds:.1f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure every recipe on every set, and print a table for each set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[DERIVED, *TUTORIALS])
    parser.add_argument("--fields", nargs="*", default=[], help="of all, such as data.size=32")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {describe_device(torch.device('cpu'))}\n")
    everything: dict[str, Any] = {}
    for source in map(str, map(Path.resolve, map(Path, arguments.sources))):
        found: dict[str, list[dict[str, Any]]] = {}
        for seed in range(arguments.seeds):
            for name in arguments.only:
                one = measure(source, name, seed, arguments.fields)
                found.setdefault(name, []).append(one)
                print(Path(source).name, seed, name, one, file=sys.stderr, flush=True)
        print("\n".join(table(source, found)), flush=True)
        everything[Path(source).name] = found
        if arguments.out:
            arguments.out.write_text(json.dumps(everything, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
