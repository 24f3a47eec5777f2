"""Each tutorial as it stands against hydrofoil's recipe: whole jobs, alternating, on this machine.

    python bench/tutorials.py [RECIPE …] --root DATA [--repeats 3] [--fraction 0.1] [--json FILE]

A job is everything a person waits for: from the command to the tested model, imports and reading
the data included. Each side runs in a process of its own, in turn. Printed for each recipe: seconds
of both sides, their ratio (median of the pairs, with its range), training alone (steps and
validation), milliseconds a step against the floor (the arithmetic that the shapes ask for, over
the peak that a matrix product reaches here), peak memory and accuracy of both.

`--fraction` scales the epochs down for a quick look; the output says so.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from hydrofoil import build, read_recipe
from hydrofoil.data.sources import find_source
from hydrofoil.models.summary import total_multiply_adds

HERE = Path(__file__).parent
RECIPES = ["cifar10-lenet", "cifar10-cnn3", "mnist-mlp", "cifar10-lenet-linear", "mnist-cnn"]


@dataclass(frozen=True)
class Job:
    """One side's whole job: seconds of all and of training, peak memory, test accuracy."""

    seconds: float
    training_seconds: float
    peak_megabytes: float
    accuracy: float


def run(command: Sequence[str], root: str) -> tuple[float, float, str]:
    """Run a process; return its seconds, its peak resident memory in MB, and its output."""
    environment = {**os.environ, "HYDROFOIL_DATA": root}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # this child's own peak, not the largest of all
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        output.seek(0)
        return seconds, usage.ru_maxrss / 1024, output.read()


def literal(name: str, epochs: int, root: str) -> Job:
    """Run the tutorial's own loop."""
    script = str(HERE / "literal.py")
    seconds, peak, output = run(
        [sys.executable, script, name, "--root", root, "--epochs", str(epochs)], root
    )
    result = json.loads(output)
    training = sum(epoch["seconds"] for epoch in result["epochs"])
    return Job(seconds, training, peak, result["test"]["accuracy"])


def ours(name: str, epochs: int, root: str) -> Job:
    """Run hydrofoil's recipe."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hydrofoil.cli", "train", name, f"train.epochs={epochs}"]
        seconds, peak, output = run([*command, "--run", f"{folder}/run", "--test", "--json"], root)
        log = Path(folder, "run", "log.jsonl").read_text().splitlines()
    epochs_run = [event for event in map(json.loads, log) if event["event"] == "epoch"]
    training = sum(epoch["train_seconds"] + epoch["valid_seconds"] for epoch in epochs_run)
    return Job(seconds, training, peak, json.loads(output)["test"]["accuracy"])


def peak_gflops() -> float:
    """Return the best that a float32 matrix product reaches on this machine now, in GFLOP/s."""
    a, b = torch.randn(2, 1024, 1024).unbind()
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began) / 1e9)
    return best


def floor_seconds(name: str, gflops: float) -> tuple[float, int]:
    """Return the least seconds of a step (backward is twice forward), and steps an epoch."""
    recipe = read_recipe(name)
    source = find_source(recipe.data.source)
    network = build(recipe, source.shape, [""] * source.classes).network
    flops = 3 * 2 * total_multiply_adds(network, source.shape) * recipe.train.batch_size
    pictures = {"mnist": 60_000, "cifar10": 50_000}[recipe.data.source]
    data = recipe.data
    train = 48_000 if data.merge else round(pictures * (1 - data.valid))
    return flops / (gflops * 1e9), ceil(train / recipe.train.batch_size)


def compare(name: str, arguments: argparse.Namespace, gflops: float) -> dict[str, Any]:
    """Run both sides in turn, and gather what came of it."""
    epochs = max(1, round(read_recipe(name).train.epochs * arguments.fraction))
    pairs = [
        (literal(name, epochs, arguments.root), ours(name, epochs, arguments.root))
        for _ in range(arguments.repeats)
    ]
    ratios = sorted(theirs.seconds / mine.seconds for theirs, mine in pairs)
    training = sorted(theirs.training_seconds / mine.training_seconds for theirs, mine in pairs)
    floor, steps = floor_seconds(name, gflops)
    return {
        "recipe": name,
        "epochs": epochs,
        "fraction": arguments.fraction,
        "n": len(pairs),
        "literal": [asdict(theirs) for theirs, _ in pairs],
        "hydrofoil": [asdict(mine) for _, mine in pairs],
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "training_ratio": statistics.median(training),
        "floor_seconds_a_step": floor,
        "literal_seconds_a_step": pairs[0][0].training_seconds / epochs / steps,
        "hydrofoil_seconds_a_step": pairs[0][1].training_seconds / epochs / steps,
    }


GROUPS = f"{'':21} {'whole job, s':>17} {'literal ÷ ours':>18} {'ratio':>8}"
GROUPS += f" {'milliseconds a step':>25} {'peak MB':>15} {'accuracy, %':>15}"
COLUMNS = f"{'recipe':21} {'literal':>8} {'ours':>8} {'ratio':>6} {'range':>11} {'training':>8}"
COLUMNS += f" {'literal':>8} {'ours':>8} {'floor':>7}" + 2 * f" {'literal':>8} {'ours':>6}"


def line(one: dict[str, Any]) -> str:
    """Return one recipe's row: medians of both sides, under COLUMNS."""

    def both(field: str) -> list[float]:
        sides = (one["literal"], one["hydrofoil"])
        return [statistics.median(job[field] for job in jobs) for jobs in sides]

    seconds, memory, accuracy = both("seconds"), both("peak_megabytes"), both("accuracy")
    spread = "–".join(f"{ratio:.1f}" for ratio in one["ratio_range"])
    step = [1e3 * one[f"{side}_seconds_a_step"] for side in ("literal", "hydrofoil", "floor")]
    return " ".join(
        [
            f"{one['recipe']:21} {seconds[0]:8.1f} {seconds[1]:8.1f}",
            f"{one['ratio']:6.1f} {spread:>11} {one['training_ratio']:8.1f}",
            f"{step[0]:8.2f} {step[1]:8.2f} {step[2]:7.3f}",
            f"{memory[0]:8.0f} {memory[1]:6.0f} {100 * accuracy[0]:8.2f} {100 * accuracy[1]:6.2f}",
        ]
    )


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--root", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gflops = peak_gflops()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {gflops:.0f} GFLOP/s at best")
    if arguments.fraction != 1:
        print(f"QUICK LOOK: {arguments.fraction:g} of the epochs; start-up weighs too much")
    print(f"{GROUPS}\n{COLUMNS}")
    results: list[dict[str, Any]] = []
    for name in arguments.recipes:
        results.append(compare(name, arguments, gflops))
        print(line(results[-1]), flush=True)
    mean = statistics.geometric_mean(one["ratio"] for one in results)
    print(f"geometric mean of the ratios: {mean:.1f} (n = {arguments.repeats} pairs a recipe)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"gflops": gflops, "results": results}, indent=2))


if __name__ == "__main__":
    main()
