"""The wishes of the tutorials, one by one and the useful ones together, for cifar10-cnn3.

    python bench/wishes.py records/2026-11-25-wishes [--epochs 50] [--seeds 5] [--only flip muon]
                           [--minutes 9] [--table docs/better.md]

Trains every wish and the recipe as it is with the same seeds, on the real CIFAR-10. Every finished
run is kept as a JSON file in the record's folder, and the command continues where it stopped:
seed by seed, so that all wishes have as many seeds when it is interrupted; --minutes ends it after
the run that is being trained then. Accuracy on the validation split says what is useful; the test
split only reports. When every wish has its seeds, the useful ones are trained together: of each
kind the best, if the 95% interval of its paired difference is above zero. --table writes the page
from the files, without any training.
"""

import argparse
import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import hydrofoil as hf
from hydrofoil import HydrofoilError
from hydrofoil.compare.statistics import Difference, seed_difference
from hydrofoil.device import describe_device

RECIPE = "cifar10-cnn3"
FEWEST = 2  # seeds of a difference


@dataclass(frozen=True)
class Wish:
    """One change of the recipe.

    Args:
        name: For the command line and the files.
        kind: Of the wishes of one kind, at most one joins the others.
        says: What it is, for the page; a term in [brackets] is one of the glossary.
        fields: What it sets.
        times: The factor of the number of epochs.
    """

    name: str
    kind: str
    says: str
    fields: tuple[str, ...]
    times: float = 1.0


ALONE = Wish("recipe", "", "The recipe as it is.", ())
WISHES = (
    Wish("lr-half", "optimizer", "Half the [learning rate].", ("lr=0.005",)),
    Wish("lr-double", "optimizer", "Twice the learning rate.", ("lr=0.02",)),
    Wish("momentum-less", "optimizer", "Less momentum: 0.8.", ("momentum=0.8",)),
    Wish("momentum-more", "optimizer", "More momentum: 0.95.", ("momentum=0.95",)),
    Wish("nesterov", "optimizer", "Nesterov's momentum: the gradient is taken a step ahead.",
         ("nesterov=true",)),
    Wish("adamw", "optimizer", "AdamW: each weight has a step size of its own.",
         ("optimizer=adamw", "lr=0.001", "weight_decay=0.01")),
    Wish("nadam", "optimizer", "NAdam: Adam with Nesterov's momentum.",
         ("optimizer=nadam", "lr=0.001")),
    Wish("rmsprop", "optimizer", "RMSprop: the gradient over its recent root mean square.",
         ("optimizer=rmsprop", "lr=0.0005")),
    Wish("adagrad", "optimizer", "Adagrad: the step shrinks with the sum of squared gradients.",
         ("optimizer=adagrad", "lr=0.01")),
    Wish("muon", "optimizer", "Muon: the update of each matrix is made orthogonal.",
         ("optimizer=muon", "lr=0.01", "others=adamw", "others_lr=0.001")),
    Wish("batch-64", "batch", "A batch of 64 and a learning rate of 0.03: fewer, larger [step]s.",
         ("batch_size=64", "lr=0.03")),
    Wish("flip", "flip", "Mirror half of the images left to right, anew in each epoch.",
         ("augment.flip=random",)),
    Wish("shift", "shift", "Move each image by up to 4 pixels, with a reflected border.",
         ("augment.shift=4",)),
    Wish("cutout", "cutout", "Hide a square of 8×8 pixels of each image.", ("augment.cutout=8",)),
    Wish("deeper", "network", "Deeper: a fourth [convolution], of 64 channels.",
         ("model.widths=[16, 32, 64, 64]",)),
    Wish("wider", "network", "Wider: 32, 64 and 128 channels.", ("model.widths=[32, 64, 128]",)),
    Wish("deeper-wider", "network", "Deeper and wider: 32, 64, 128 and 128 channels.",
         ("model.widths=[32, 64, 128, 128]",)),
    Wish("batch-norm", "norm", "Batch normalization before each activation.",
         ("model.norm=batch",)),
    Wish("group-norm", "norm", "Group normalization, which does not depend on the batch.",
         ("model.norm=group",)),
    Wish("dropout-0", "dropout", "No [dropout].", ("model.dropout=0",)),
    Wish("dropout-10", "dropout", "Less dropout: 0.1.", ("model.dropout=0.1",)),
    Wish("dropout-50", "dropout", "More dropout: 0.5.", ("model.dropout=0.5",)),
    Wish("l1", "l1", "L1: the loss grows with the sum of the weights' sizes.",
         ("train.l1=0.00001",)),
    Wish("l2", "l2", "L2: the loss grows with the sum of the squared weights.",
         ("weight_decay=0.0005",)),
    Wish("smoothing", "smoothing", "Label smoothing of 0.1: no class is to be certain.",
         ("label_smoothing=0.1",)),
    Wish("one-cycle", "schedule", "One cycle: the learning rate rises to 0.03, and falls to zero.",
         ("schedule=one-cycle", "lr=0.03", "select=last")),
    Wish("cosine", "schedule", "The learning rate falls to zero along a cosine.",
         ("schedule=cosine", "select=last")),
    Wish("gelu", "activation", "GELU as [activation function].", ("activation=gelu",)),
    Wish("silu", "activation", "SiLU.", ("activation=silu",)),
    Wish("tanh", "activation", "tanh, which saturates.", ("activation=tanh",)),
    Wish("elu", "activation", "ELU.", ("activation=elu",)),
    Wish("leaky-relu", "activation", "Leaky ReLU.", ("activation=leaky-relu",)),
    Wish("ema", "average", "Average the weights over the last steps, exponentially.",
         ("train.average=ema",)),
    Wish("half-epochs", "epochs", "Half of the [epoch]s.", (), 0.5),
    Wish("double-epochs", "epochs", "Twice the epochs.", (), 2.0),
)  # fmt: skip
TOGETHER = "together"
Runs = dict[str, dict[int, dict[str, Any]]]  # by wish, then by seed


def epochs_of(wish: Wish, epochs: int) -> int:
    """Return how many epochs a wish is trained for."""
    return max(1, round(wish.times * epochs))


def file_of(record: Path, wish: Wish, epochs: int, seed: int) -> Path:
    """Return where a run is kept; another setting of the same wish has another file."""
    settings = json.dumps([RECIPE, wish.fields, epochs_of(wish, epochs)])
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return record / "runs" / f"{wish.name}-{digest}-{seed}.json"


def train(wish: Wish, epochs: int, seed: int) -> dict[str, Any]:
    """Train and test one wish with one seed, and return what is kept of it."""
    fields = [*wish.fields, f"train.epochs={epochs_of(wish, epochs)}"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = hf.train(RECIPE, fields, run=Path(folder, "run"), seed=seed, test=True)
        seconds = time.perf_counter() - began
        result, done = run.results.test(), run.epochs()
        recipe, executor = run.recipe, run.log.executor()
    assert result  # noqa: S101 - it was tested a moment ago
    best = [epoch for epoch in done if epoch.best][-1]
    valid = best.selected  # of averaged weights, if those are tested
    assert valid  # noqa: S101 - the recipe holds images out
    return {
        "wish": wish.name,
        "seed": seed,
        "fields": fields,
        "valid_accuracy": valid.accuracy,
        "valid_loss": valid.loss,
        "test_accuracy": result.accuracy,
        "best_epoch": best.number,
        "epochs": recipe.train.epochs,
        "seconds": sum(epoch.train_seconds + epoch.valid_seconds for epoch in done),
        "whole_seconds": seconds,
        "executor": executor,
        "weights": result.weights,
        "device": describe_device(hf.pick_device("cpu")),
        "machine": platform.platform(),
        "torch": version("torch"),
    }


def stored(record: Path, wishes: Sequence[Wish], epochs: int, seeds: int) -> Runs:
    """Return the runs that are kept, by wish and seed."""
    found: Runs = {}
    for wish in wishes:
        for seed in range(seeds):
            path = file_of(record, wish, epochs, seed)
            if path.exists():
                found.setdefault(wish.name, {})[seed] = json.loads(path.read_text("utf-8"))
    return found


def difference(runs: Runs, name: str, part: str) -> Difference | None:
    """Return a wish's paired difference to the recipe, over their common seeds; None: too few."""
    base, other = runs.get(ALONE.name, {}), runs.get(name, {})
    seeds = sorted(base.keys() & other.keys())
    if len(seeds) < FEWEST:
        return None
    a, b = (np.array([side[seed][f"{part}_accuracy"] for seed in seeds]) for side in (base, other))
    return seed_difference(a, b, paired=True)


def useful(runs: Runs, wishes: Sequence[Wish]) -> list[Wish]:
    """Return the best wish of each kind, where the validation accuracy is significantly higher.

    The number of epochs is left out: it buys accuracy with time.
    """
    best: dict[str, tuple[float, Wish]] = {}
    for wish in wishes:
        found = difference(runs, wish.name, "valid")
        if wish.kind in ("", "epochs") or not found or not found.interval:
            continue
        if found.interval[0] > 0 and found.points > best.get(wish.kind, (0.0, wish))[0]:
            best[wish.kind] = found.points, wish
    return [wish for _, wish in best.values()]


def together(parts: Sequence[Wish]) -> Wish:
    """Return the wish that sets what several set.

    The learning rate and what selects the epoch belong to optimizer and schedule: a later wish that
    sets a field again wins, in the order of the list.
    """
    fields: dict[str, str] = {}
    for part in parts:
        fields |= {field.partition("=")[0]: field for field in part.fields}
    names = ", ".join(part.name for part in parts)
    return Wish(TOGETHER, "", f"Together: {names}.", tuple(fields.values()))


def play(
    record: Path, wishes: Sequence[Wish], epochs: int, seeds: int, until: float
) -> tuple[bool, dict[str, str]]:
    """Train what is missing; return whether all is done, and the wishes that cannot be trained."""
    (record / "runs").mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}
    for seed in range(seeds):
        for wish in wishes:
            path = file_of(record, wish, epochs, seed)
            if path.exists() or wish.name in refused:
                continue
            if time.monotonic() > until:
                return False, refused
            try:
                result = train(wish, epochs, seed)
            except HydrofoilError as error:
                refused[wish.name] = str(error).partition("\n")[0]
                print(f"{wish.name}: {refused[wish.name]}", flush=True)
                continue
            beside = path.with_suffix(".new")
            beside.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
            beside.replace(path)
            print(
                f"{wish.name:16} seed {seed}: validation {result['valid_accuracy']:.2%}, "
                f"test {result['test_accuracy']:.2%}, {result['seconds']:.1f} s, "
                f"{result['executor']}",
                flush=True,
            )
    return True, refused


def all_wishes(record: Path, wishes: Sequence[Wish], epochs: int, seeds: int) -> list[Wish]:
    """Return the wishes, and the useful ones together where each has all its seeds."""
    runs = stored(record, wishes, epochs, seeds)
    parts = useful(runs, wishes)
    if len(parts) < 2:
        return list(wishes)
    both = together(parts)
    longer = Wish(f"{TOGETHER}-longer", "", "The same, twice the epochs.", both.fields, 2.0)
    return [*wishes, both, longer]


# ── the page ─────────────────────────────────────────────────────────────────────────────────────

PAGE = """# What makes a network better

The tutorials end with a list of wishes: tune the hyperparameters, try other optimizers, augment the
images, make the network deeper, deal with overfitting. Here each wish is one change of
[`{recipe}`](recipes.md), trained with the same {seeds} as the recipe itself on the real CIFAR-10,
{epochs} each unless the row says otherwise. The useful ones together: of each kind of wish the
best, where the *validation* accuracy is significantly higher. The test accuracy only reports.

A difference is [paired](glossary.md) by seed, in percentage points of test accuracy, with its 95%
[interval](glossary.md): where the interval contains zero, there is no significant difference. Of
{count} intervals, about one in twenty misses zero by luck. Seconds are those of training and
validation, with native steps unless the row names another executor. Every row can be repeated with
its fields, for example `hydrofoil compare {recipe} b.lr=0.005 --seeds 5`.

{table}

{words}

{machine}
`python bench/wishes.py {record} --epochs {per_run}` measures the rows again; with
`--table docs/better.md` it writes this page from the runs in [records](../{record}/).
"""


def page(record: Path, wishes: Sequence[Wish], epochs: int, seeds: int) -> str:
    """Return docs/better.md from the runs that are kept."""
    runs = stored(record, wishes, epochs, seeds)
    rows = [wish for wish in wishes if wish.name in runs]
    known = {seed for found in runs.values() for seed in found}
    machines = sorted({run["device"] for found in runs.values() for run in found.values()})
    return PAGE.format(
        recipe=RECIPE,
        seeds=f"{len(known)} seeds" if len(known) != 1 else "1 seed",
        epochs=f"{epochs} epochs",
        per_run=epochs,
        count=len(rows) - 1,
        table="\n".join(table(runs, rows)),
        words="\n".join(f"* **{wish.name}.** {linked(wish.says)}" for wish in rows[1:]),
        machine=f"Machine: {'; '.join(machines)}, other work beside it." if machines else "",
        record=f"records/{record.name}",
    )


def table(runs: Runs, wishes: Sequence[Wish]) -> list[str]:
    """Return the rows of the page's table."""
    lines = [
        "| wish | fields | validation, % | test, % | difference, points | seconds | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for wish in wishes:
        found = list(runs[wish.name].values())
        valid, test, seconds = (
            np.mean([run[field] for run in found])
            for field in ("valid_accuracy", "test_accuracy", "seconds")
        )
        executors = sorted({run["executor"] for run in found} - {"native"})
        fields = " ".join(f"`{field}`" for field in wish.fields)
        times = f"epochs × {wish.times:g}" if wish.times != 1 else ""
        lines.append(
            f"| {wish.name} | {' '.join(filter(None, [fields, times])) or '–'} | {100 * valid:.2f} "
            f"| {100 * test:.2f} | {_points(runs, wish)} "
            f"| {seconds:.0f}{''.join(f' ({one})' for one in executors)} | {len(found)} |"
        )
    return lines


def _points(runs: Runs, wish: Wish) -> str:
    found = difference(runs, wish.name, "test") if wish.name != ALONE.name else None
    if found is None:
        return "–"
    if found.interval is None:
        return f"{found.points:+.2f}"
    low, high = found.interval
    return f"{found.points:+.2f} ({low:+.2f} to {high:+.2f})"


def linked(text: str) -> str:
    """Return text whose terms in brackets link to the glossary.

    >>> linked("Half the [learning rate].")
    'Half the [learning rate](glossary.md).'
    """
    return text.replace("]", "](glossary.md)")


def main() -> None:
    """Train what is missing, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="WISH")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--table", type=Path, metavar="FILE.md")
    asked = parser.parse_args()
    if unknown := set(asked.only) - {wish.name for wish in WISHES}:
        parser.error(f"--only {sorted(unknown)[0]}: expected of {[w.name for w in WISHES]}")
    wishes = [ALONE, *(one for one in WISHES if not asked.only or one.name in asked.only)]
    until = time.monotonic() + 60 * asked.minutes
    settings = asked.epochs, asked.seeds
    if asked.table is None:
        done, _ = play(asked.record, wishes, *settings, until)
        if done and not asked.only:
            done, _ = play(asked.record, all_wishes(asked.record, wishes, *settings), *settings,
                           until)  # fmt: skip
        print("all done" if done else "stopped by --minutes: the same command continues")
    rows = all_wishes(asked.record, wishes, *settings)
    runs = stored(asked.record, rows, *settings)
    print("\n".join(table(runs, [wish for wish in rows if wish.name in runs])))
    if asked.table is not None:
        asked.table.write_text(page(asked.record, rows, *settings), "utf-8")


if __name__ == "__main__":
    main()
