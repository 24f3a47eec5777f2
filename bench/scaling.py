"""Whether the time of a training step grows straight with the work, and not with the set's size.

    python bench/scaling.py [size batch width depth] [--rounds 5] [--steps 150] [--threads 1]
                            [--largest 1000000] [--json FILE]

Trains on made pictures of 1×28×28 (random bytes, repeated up to the size) with hydrofoil's own
`fit`, on the CPU, and prints for each setting the median microseconds of a step, with their range:

* size: mnist-cnn at batch 64, sets of 10 000 to 1 000 000 pictures (784 MB).
* batch: mnist-cnn at batches of 16 to 512, of 100 000 pictures.
* width: mnist-mlp at batch 64, one hidden layer of 64 to 1 024 units.
* depth: mnist-mlp at batch 64, 1 to 8 hidden layers of 128 units.

Every measured epoch is one call of `fit` on a random sample of the whole set, the same number of
steps at each size and never the same sample, so that the reads are spread over all of the set. One
unmeasured call comes first, for what is prepared once. Settings are measured in an order that
rotates from round to round, so that a busy minute of the machine does not fall on one of them.

Under each table stand two least-squares fits of time against work, which is the set's size, or the
multiply-adds that a step asks for: the slope of log time against log work (1: in proportion, 0: not
dependent) with its R², and the part of a straight line that does not grow, with its R². Where time
does not depend on work, R² says nothing; look at largest ÷ smallest.

A step's seconds are those that `fit` reports for the epoch, over its steps.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import torch

import hydrofoil as hf
from hydrofoil.run.environment import environment

CLASSES = tuple("0123456789")
MADE = 10_000  # different pictures; larger sets repeat them
SHAPE = (1, 28, 28)


@dataclass(frozen=True)
class Setting:
    """One row: a recipe on a set of so many pictures.

    Args:
        label: What varies, as it is printed.
        recipe: A shipped recipe's name.
        overrides: Of its fields.
        pictures: Size of the set.
        batch: Pictures a step.
        execute: What runs the steps.
    """

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    pictures: int = MADE
    batch: int = 64
    execute: str = "native"

    def read(self) -> hf.Recipe:
        """Return the recipe with what a measurement needs: one epoch, nothing held out."""
        fixed = ["train.epochs=1", "train.select=last", "data.valid=0"]
        fixed.append(f"train.execute={self.execute}")
        return hf.read_recipe(
            self.recipe, [*fixed, f"train.batch_size={self.batch}", *self.overrides]
        )

    def multiply_adds(self) -> int:
        """Return the multiply-adds of a step's forward pass."""
        network = hf.build(self.read(), SHAPE, CLASSES).network
        return self.batch * sum(layer.multiply_adds for layer in hf.summarize(network, SHAPE))


def settings(axis: str, largest: int = 1_000_000) -> list[Setting]:
    """Return the rows of a table.

    >>> [row.label for row in settings("size", largest=30_000)]
    ['10000', '30000']
    """
    if axis == "size":
        sizes = (10_000, 30_000, 100_000, 300_000, 1_000_000)
        return [Setting(str(n), "mnist-cnn", pictures=n) for n in sizes if n <= largest]
    if axis == "batch":
        sizes = (16, 32, 64, 128, 256, 512)
        return [Setting(str(n), "mnist-cnn", pictures=10 * MADE, batch=n) for n in sizes]
    layers = {
        "width": [[64], [128], [256], [512], [1024]],
        "depth": [[128] * count for count in range(1, 9)],
    }[axis]
    return [
        Setting(str(hidden[0] if axis == "width" else len(hidden)), "mnist-mlp",
                (f"model.hidden={hidden}",))
        for hidden in layers
    ]  # fmt: skip


def make_pictures(count: int) -> hf.Pictures:
    """Return a set of so many pictures: random ones, repeated, in memory of their own."""
    source = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (MADE, *SHAPE), dtype=torch.uint8, generator=source)
    labels = torch.randint(len(CLASSES), (MADE,), generator=source)
    times = -(-count // MADE)
    return hf.Pictures(
        pictures.repeat(times, 1, 1, 1)[:count].contiguous(),
        labels.repeat(times)[:count].contiguous(),
        CLASSES,
        "made",
    )


def sample(pictures: hf.Pictures, count: int, number: int) -> hf.Split:
    """Return a split that trains on so many pictures, drawn from all, each at most once."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(number))
    nothing = torch.empty(0, dtype=torch.int64)
    return hf.Split(order[:count].sort().values, nothing, nothing, "")  # fit asks for no hash


def step_seconds(setting: Setting, pictures: hf.Pictures, steps: int, number: int) -> float:
    """Train one epoch on a fresh sample, and return its seconds a step."""
    steps = min(steps, len(pictures) // setting.batch)
    recipe = setting.read()
    model = hf.build(recipe, SHAPE, CLASSES)
    split = sample(pictures, steps * setting.batch, number)
    (epoch,) = hf.fit(model, pictures, split, recipe)
    return epoch.train_seconds / steps


def measure(rows: Sequence[Setting], steps: int, rounds: int) -> list[list[float]]:
    """Return each row's seconds a step, one a round; rows take turns, each round begins later."""
    sets = {row.pictures: make_pictures(row.pictures) for row in rows}
    found: list[list[float]] = [[] for _ in rows]
    for number in range(rounds + 1):
        for turn in range(len(rows)):
            at = (turn + number) % len(rows)
            seconds = step_seconds(rows[at], sets[rows[at].pictures], steps, number)
            if number:  # the first round prepares: compiled code, the allocator, pages of the set
                found[at].append(seconds)
    return found


def least_squares(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return slope, intercept and R² of the straight line nearest to some points.

    >>> least_squares([1, 2, 3], [3, 5, 7])
    (2.0, 1.0, 1.0)
    """
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    intercept = mean_y - slope * mean_x
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - mean_y) ** 2 for b in y)
    return slope, intercept, 1 - rest / total if total else 1.0


def result(
    axis: str, rows: Sequence[Setting], seconds: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Return a table with its fits."""
    costs = [row.multiply_adds() for row in rows]
    medians = [statistics.median(some) for some in seconds]
    work = [float(row.pictures) for row in rows] if axis == "size" else [float(c) for c in costs]
    found: dict[str, Any] = {
        "axis": axis,
        "rows": [
            {
                "label": row.label,
                "pictures": row.pictures,
                "batch": row.batch,
                "multiply_adds_a_step": cost,
                "seconds_a_step": median,
                "all": list(some),
            }
            for row, cost, median, some in zip(rows, costs, medians, seconds, strict=True)
        ],
        "largest_over_smallest": max(medians) / min(medians),
    }
    if len(rows) > 1:
        slope, _, fit = least_squares([log(x) for x in work], [log(y) for y in medians])
        found |= {"log_slope": slope, "log_r2": fit}
        slope, start, fit = least_squares(work, medians)
        found |= {"line_slope": slope, "line_intercept": start, "line_r2": fit}
    return found


def lines(one: dict[str, Any]) -> list[str]:
    """Return a table as it is printed."""
    printed = [
        f"{one['axis']:>10} {'µs a step':>10} {'range':>17} {'µs a picture':>13} "
        f"{'ns per 1000 multiply-adds':>26}"
    ]
    for row in one["rows"]:
        microseconds = 1e6 * row["seconds_a_step"]
        spread = f"{1e6 * min(row['all']):.0f}–{1e6 * max(row['all']):.0f}"
        printed.append(
            f"{row['label']:>10} {microseconds:10.0f} {spread:>17} "
            f"{microseconds / row['batch']:13.2f} "
            f"{1e6 * microseconds / row['multiply_adds_a_step']:26.2f}"
        )
    if "log_slope" in one:
        work = "pictures" if one["axis"] == "size" else "multiply-adds"
        constant = one["line_intercept"]
        printed += [
            f"log time against log {work}: slope {one['log_slope']:.3f}, R² {one['log_r2']:.4f}; "
            f"largest ÷ smallest {one['largest_over_smallest']:.2f}",
            f"straight line: {1e6 * constant:.0f} µs that do not grow, R² {one['line_r2']:.4f}",
        ]
    return printed


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on; names no host, path or user."""
    known = environment(torch.device("cpu"), [])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": known["cpu"],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "threads": threads,
        **{name: known[name] for name in ("hydrofoil", "git", "python", "torch", "numpy")},
    }


def main() -> None:
    """Measure what was asked for, and print the tables."""
    axes = ["size", "batch", "width", "depth"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=", ".join(axes))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="a round; a smaller set gives fewer")
    parser.add_argument("--threads", type=int, default=1, help="at a step, at most")
    parser.add_argument("--execute", default="native", help="what runs the steps")
    parser.add_argument("--largest", type=int, default=1_000_000, help="set to make, in pictures")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if set(given.axes) - set(axes) or given.rounds < 1 or given.steps < 1:
        parser.error(f"expected axes of {', '.join(axes)}, and at least one round and one step")
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # what native code asks, too
    document: dict[str, Any] = {**machine(given.threads), "execute": given.execute}
    document |= {"n": given.rounds, "tables": []}
    print(
        f"torch {document['torch']}, {given.execute}, {given.threads} threads, "
        f"n = {given.rounds} rounds"
    )
    for axis in given.axes or axes:
        rows = [replace(row, execute=given.execute) for row in settings(axis, given.largest)]
        found = result(axis, rows, measure(rows, given.steps, given.rounds))
        document["tables"].append(found)
        print("", *lines(found), sep="\n", flush=True)
        if given.json:
            given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
