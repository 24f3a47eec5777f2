"""Train and test recipes over several seeds, and keep what proves the figures in records/.

    python bench/records.py records/2026-11-21-five-tutorials --seeds 3 [--recipes mnist-cnn …]

runs `hydrofoil train RECIPE --seed S --test` for each, one after the other or --jobs at a time,
copies recipe, log and environment of every run, and writes summary.json. With --collect it only
gathers runs that are there. It ends with each recipe's section [expect], for its file.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RECIPES = ["cifar10-lenet", "cifar10-cnn3", "mnist-mlp", "cifar10-lenet-linear", "mnist-cnn"]
KEPT = ["recipe.toml", "environment.json", "log.jsonl"]


def train(recipe: str, seed: int, runs: Path) -> Path:
    """Train and test one recipe with one seed; what is done already is not repeated."""
    run = runs / f"{recipe}-{seed}"
    if (run / "recipe.toml").exists():
        commands = [["resume", run.name], ["test", run.name]]
    else:
        commands = [["train", recipe, "--seed", str(seed), "--run", run.name, "--test"]]
    for command in commands if not (run / "test.json").exists() else []:
        subprocess.run([sys.executable, "-m", "hydrofoil.cli", *command], check=True, cwd=runs)
    return run


def summarize(recipe: str, runs: list[Path]) -> dict[str, Any]:
    """Return the mean accuracy over seeds with its spread, and the seconds that training took."""
    tests = [json.loads((run / "test.json").read_text()) for run in runs]
    accuracies = [test["accuracy"] for test in tests]
    seconds = [
        sum(
            event["train_seconds"] + event["valid_seconds"]
            for event in map(json.loads, (run / "log.jsonl").read_text().splitlines())
            if event["event"] == "epoch"
        )
        for run in runs
    ]
    return {
        "recipe": recipe,
        "n": len(runs),
        "test_accuracy": accuracies,
        "mean": statistics.mean(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "test_loss": [test["loss"] for test in tests],
        "kept_epoch": [test["epoch"] for test in tests],
        "weights": [test["weights"] for test in tests],
        "training_seconds": seconds,
    }


def expect_section(summary: dict[str, Any]) -> str:
    """Return what a recipe's section [expect] says of these seeds, without what was printed."""
    accuracies = ", ".join(f"{accuracy:.4f}" for accuracy in summary["test_accuracy"])
    return "\n".join([
        f"# {summary['recipe']}",
        "[expect]",
        f"test_accuracy = {summary['mean']:.4f}",
        f"spread        = {summary['standard_deviation'] or 0:.4f}",
        f"accuracies    = [{accuracies}]",
    ])  # fmt: skip


def main() -> None:
    """Train what is missing, gather it, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one CPU thread each")
    parser.add_argument("--collect", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if arguments.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"
    arguments.runs.mkdir(exist_ok=True)
    summaries = []
    for recipe in arguments.recipes:
        if not arguments.collect:
            with ThreadPoolExecutor(arguments.jobs) as pool:
                list(
                    pool.map(
                        lambda s, r=recipe: train(r, s, arguments.runs), range(arguments.seeds)
                    )
                )
        runs = [arguments.runs / f"{recipe}-{seed}" for seed in range(arguments.seeds)]
        for run in runs:
            (arguments.record / run.name).mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                shutil.copy(run / name, arguments.record / run.name / name)
        summaries.append(summarize(recipe, runs))
        one = summaries[-1]
        each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in one["test_accuracy"])
        print(f"{recipe:22} {100 * one['mean']:.2f} %  ({each}; n = {one['n']})", flush=True)
    (arguments.record / "summary.json").write_text(json.dumps(summaries, indent=2) + "\n")
    print("\n\n".join(map(expect_section, summaries)))


if __name__ == "__main__":
    main()
