"""Loss and accuracy of bfloat16 steps against float32 steps, over seeds, on the real CIFAR-10.

    HYDROFOIL_DATA=/path python bench/precision.py [--seeds 10] [--epochs 2] [--train 20000]
                         [--widths 16 32 64] [--recipe NAME] [--json FILE]

Trains each seed twice, from the same first weights, in the same order, and evaluates both in
float32 on the validation split: the test split stays closed. Which precision comes first takes
turns. What is measured is kept in the JSON file after each pair, and the same command continues
there. Differences are paired by seed: their mean, its 95% interval by Student's t, and the seconds
of training. The network is speednet; its settings stand in FIELDS, the same for both.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

import hydrofoil as hf
from hydrofoil.device import bfloat16_support, describe_device, pick_device

PRECISIONS = ("float32", "bfloat16")
FIELDS = {
    "model.name": "speednet",
    "optimizer.name": "adamw",
    "optimizer.lr": 0.01,
    "optimizer.weight_decay": 0.01,
    "schedule.name": "one-cycle",
    "train.batch_size": 500,
    "train.label_smoothing": 0.1,
    "train.execute": "eager",
    "data.mean": [0.4914, 0.4822, 0.4465],
    "data.std": [0.2470, 0.2435, 0.2616],
    "data.valid": 0.1,
    "train.select": "last",
}


def trained(recipe: hf.Recipe, pictures: hf.Pictures) -> dict[str, float]:
    """Train a recipe, and return its losses, accuracy and seconds."""
    split = hf.draw_split(pictures, **recipe.split_options())
    model = hf.build(recipe, pictures.shape, pictures.classes)
    *_, last = hf.fit(model, pictures, split, recipe)
    found = hf.score(model, pictures, split.valid)
    return {
        "train_loss": last.train.loss,
        "valid_loss": found.loss,
        "valid_accuracy": found.accuracy,
        "seconds": last.train_seconds * recipe.train.epochs,
    }


def difference(pairs: list[dict[str, Any]], what: str) -> str:
    """Return a quantity's means, and its paired difference with a 95% interval."""
    columns = [[pair[precision][what] for pair in pairs] for precision in PRECISIONS]
    deltas = [ours - theirs for theirs, ours in zip(*columns, strict=True)]
    line = f"{what:15} float32 {mean(columns[0]):.4f}  bfloat16 {mean(columns[1]):.4f}"
    if len(deltas) < 2:
        return line
    half = stats.t.ppf(0.975, len(deltas) - 1) * stdev(deltas) / len(deltas) ** 0.5
    p = stats.ttest_rel(*columns).pvalue
    low, high = mean(deltas) - half, mean(deltas) + half
    return f"{line}  difference {mean(deltas):+.4f} ({low:+.4f} to {high:+.4f}), p {p:.2f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train", type=int, default=20_000, help="images to train on")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--recipe", default="cifar10-cnn3", help="whose data and defaults are used")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    fields = {**FIELDS, "model.widths": args.widths, "train.epochs": args.epochs}
    fields["data.train"] = args.train
    setting = {"fields": fields, "recipe": args.recipe, "device": describe_device(pick_device())}
    setting["bfloat16"] = bfloat16_support(pick_device()) or "emulated"
    pairs: list[dict[str, Any]] = []
    if args.json and args.json.exists():
        before = json.loads(args.json.read_text("utf-8"))
        if before["setting"] != json.loads(json.dumps(setting)):
            sys.exit(f"{args.json}: of another setting; give another file.")
        pairs = before["pairs"]
    pictures = hf.load(hf.read_recipe(args.recipe).data)
    for seed in range(len(pairs), args.seeds):
        pair: dict[str, Any] = {"seed": seed}
        for precision in PRECISIONS[:: -1 if seed % 2 else 1]:
            chosen = {**fields, "train.seed": seed, "train.precision": precision}
            pair[precision] = trained(hf.read_recipe(args.recipe, chosen), pictures)
        pairs.append(pair)
        print(json.dumps(pair), flush=True)
        if args.json:
            args.json.write_text(
                json.dumps({"setting": setting, "pairs": pairs}, indent=1), "utf-8"
            )
    print(
        f"speednet {args.widths}, {args.epochs} epochs of {args.train:,} images, n = {len(pairs)}"
    )
    print(f"{setting['device']}; bfloat16: {setting['bfloat16']}")
    for what in ("train_loss", "valid_loss", "valid_accuracy", "seconds"):
        print(difference(pairs, what))


if __name__ == "__main__":
    main()
