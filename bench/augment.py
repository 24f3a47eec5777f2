"""Images a second that are gathered and augmented: in C, by torch's index tensors, by torchvision.

python bench/augment.py [--images 1000] [--repeats 20] [--threads 1] [--out FILE.json]

One batch of 32×32 color images, drawn from 50,000, with flip and shift, and with cutout and
brightness, too. torchvision's transforms draw once for the whole batch, which is less work than a
draw for every image: "per image" calls them for each. The sides take turns; the median of the
repeats is reported, and the fastest.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torchvision.transforms import v2

from hydrofoil.data.augment import augmented, fill_of
from hydrofoil.data.changes import draw_changes
from hydrofoil.native.augment import NativePass
from hydrofoil.recipe.augment import Augment

SETTINGS = {
    "flip and shift": Augment(flip="random", shift=4),
    "flip, shift, cutout, brightness": Augment(flip="random", shift=4, cutout=8, brightness=0.2),
    "rotation and scale": Augment(rotate=15.0, scale=0.1),
}
Work = Callable[[], object]


def torchvisions(spec: Augment) -> v2.Transform:
    """Return torchvision's transforms that come nearest."""
    steps: list[v2.Transform] = []
    if spec.flip != "none":
        steps.append(v2.RandomHorizontalFlip())
    if spec.shift:
        steps.append(v2.RandomCrop(32, padding=spec.shift, padding_mode="reflect"))
    if spec.moves:
        scale = (1 - spec.scale, 1 + spec.scale)
        steps.append(
            v2.RandomAffine(spec.rotate, scale=scale, interpolation=v2.InterpolationMode.BILINEAR)
        )
    if spec.brightness:
        steps.append(v2.ColorJitter(brightness=spec.brightness))
    if spec.cutout:
        area = (spec.cutout / 32) ** 2
        steps.append(v2.RandomErasing(p=1.0, scale=(area, area), ratio=(1.0, 1.0)))
    return v2.Compose(steps)


def sides(spec: Augment, images: int, threads: int) -> dict[str, Work]:
    """Return what is compared: each gathers the images and changes them."""
    source_NCHW = torch.randint(256, (50_000, 3, 32, 32), dtype=torch.uint8)
    index_N = torch.randperm(len(source_NCHW))[:images]
    changes_NA = draw_changes(spec, 0, 1, index_N, images, len(source_NCHW))
    if changes_NA is None:
        raise ValueError("nothing to change")
    fill_C, out_NCHW = fill_of((0.5,), 3), torch.zeros(images, 3, 32, 32, dtype=torch.uint8)
    native = NativePass(spec, (3, 32, 32), changes_NA.shape[1], threads)
    oracle = torchvisions(spec)
    return {
        "C": lambda: native(source_NCHW, index_N, changes_NA, fill_C, out_NCHW),
        "torch index tensors": lambda: augmented(source_NCHW, index_N, changes_NA, spec, fill_C),
        "torchvision, one draw per batch": lambda: oracle(source_NCHW[index_N]),
        "torchvision, per image": lambda: [oracle(one) for one in source_NCHW[index_N]],
    }


def measure(work: dict[str, Work], images: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return images a second of each side, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name]()
    for _ in range(repeats):
        for name, call in work.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {"median": images / median(taken), "fastest": images / min(taken)}
        for name, taken in seconds.items()
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description="Images a second, augmented.")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {
        name: measure(sides(spec, given.images, given.threads), given.images, given.repeats)
        for name, spec in SETTINGS.items()
    }
    print(
        f"{given.images} images of 3×32×32, {given.threads} threads, {given.repeats} repeats, "
        f"torch {torch.__version__}, {platform.machine()}\n"
    )
    print("| | images a second, median | fastest | ms for the batch |\n|---|---|---|---|")
    for name, rows in found.items():
        for side, row in rows.items():
            took = 1000 * given.images / row["median"]
            print(f"| {name}: {side} | {row['median']:,.0f} | {row['fastest']:,.0f} | {took:.2f} |")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
