"""How many copies the check finds, how often it is right, and how long it takes: for records/.

    HYDROFOIL_DATA=… python bench/check_copies.py TRUTH --out records/DATE-check-copies

TRUTH is the folder of published ground truth, of which README.md there says what each file holds.

Axes: N images, P pairs.
"""

import argparse
import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

import hydrofoil as hf
from hydrofoil.check.near import near_pairs
from hydrofoil.device import describe_device

FIRST = 432  # the length of the list of CIFAR-10's near-duplicates
KINDS = ("exact", "jpeg 60", "mirrored", "shifted by 2")
EACH = 100  # copies of each kind
AMONG = 10_000


def listed(truth: Path) -> dict[str, Any]:
    """Compare CIFAR-10's test with its training images, and these with each other."""
    images = hf.load("cifar10").pictures_NCHW
    began = time.perf_counter()
    pairs = near_pairs(images, torch.arange(50_000, 60_000), torch.arange(50_000))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    within = near_pairs(images, torch.arange(50_000))
    with (truth / "cifar10-near-duplicates.csv").open() as file:
        known = {
            int(row["test_index"]): int(row["same_photograph"]) for row in csv.DictReader(file)
        }
    best = pairs.best()
    found: dict[str, Any] = {}
    certain = int(best.certain_P.sum())
    for count in (certain, FIRST):
        first = [at - 50_000 for at in best.first_P[:count].tolist()]
        found[f"first {count}"] = {
            "in the list": sum(at in known for at in first),
            "read as the same photograph": sum(known.get(at, 0) for at in first),
            "read as another photograph": sum(known.get(at, 1) == 0 for at in first),
            "not in the list": [at for at in first if at not in known],
        }
    return {
        "certain": certain, "pairs": len(pairs), "seconds": round(seconds, 1), **found,
        "within train": {
            "certain pairs": int(within.certain_P.sum()),
            "seconds": round(time.perf_counter() - began, 1),
        },
    }  # fmt: skip


def changed(picture_CHW: Tensor, kind: str, rng: np.random.Generator) -> Tensor:
    """Return an image as a copy of it may look."""
    if kind == "jpeg 60":
        file = io.BytesIO()
        gray = len(picture_CHW) == 1
        pixels = picture_CHW[0] if gray else picture_CHW.permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=60)
        read = torch.from_numpy(np.array(Image.open(file)))
        return read[None] if gray else read.permute(2, 0, 1)
    if kind == "mirrored":
        return picture_CHW.flip(2)
    if kind == "shifted by 2":
        height, width = picture_CHW.shape[1:]
        down, right = ((2, 0), (0, 2), (-2, 0), (0, -2))[rng.integers(4)]
        wide = pad(picture_CHW[None].float(), (2, 2, 2, 2), "reflect")[0].byte()
        return wide[:, 2 - down : 2 - down + height, 2 - right : 2 - right + width]
    return picture_CHW


def planted(name: str) -> dict[str, Any]:
    """Plant copies into a set's test images, and search for them among all of these."""
    rng = np.random.default_rng(0)
    plain = hf.load(name).pictures_NCHW[-AMONG:]
    chosen = rng.permutation(AMONG)[: EACH * len(KINDS)].tolist()
    kinds = [kind for kind in KINDS for _ in range(EACH)]
    copies = [changed(plain[at], kind, rng) for at, kind in zip(chosen, kinds, strict=True)]
    began = time.perf_counter()
    pairs = near_pairs(torch.cat([plain, torch.stack(copies)]), torch.arange(AMONG + len(copies)))
    seconds = time.perf_counter() - began
    sure = pairs.where(pairs.certain_P)
    together = set(zip(sure.first_P.tolist(), sure.second_P.tolist(), strict=True))
    hits = {kind: 0 for kind in KINDS}
    for number, (at, kind) in enumerate(zip(chosen, kinds, strict=True)):
        hits[kind] += (at, AMONG + number) in together
    before = near_pairs(plain, torch.arange(AMONG))
    natural = before.where(before.certain_P)
    already = set(zip(natural.first_P.tolist(), natural.second_P.tolist(), strict=True))
    source = {AMONG + number: at for number, at in enumerate(chosen)}
    others = {
        tuple(sorted((source.get(one, one), source.get(other, other)))) for one, other in together
    }
    others = {pair for pair in others if pair[0] != pair[1]}
    return {
        "found": hits,
        "pairs without planted copies": len(already),
        "other pairs with planted copies": len(others - already),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Make all steps and print their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path, help="the folder of published ground truth")
    parser.add_argument("--out", type=Path, help="write results.json there")
    arguments = parser.parse_args()
    results = {
        "device": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "cifar10": listed(arguments.truth),
        **{f"planted in {name}": planted(name) for name in ("cifar10", "mnist")},
    }
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
