"""Each tutorial as it stands against hydrofoil's recipe: whole jobs, alternating, on this machine.

    python bench/tutorials.py [RECIPE …] [--root DATA] [--cores 4] [--repeats 3] [--fraction 0.1]
                              [--json FILE] [--out FOLDER]

A job is everything a person waits for: from the command to the tested model, with imports, reading
the data, preparing, training, validation and testing. It runs in a process of its own, on the CPU.
A round is three jobs with one seed, in an order that changes from round to round:

* literal: `bench/literal.py`.
* cold: hydrofoil with empty caches: no generated code, no compiled kernels and no list of fonts
  (matplotlib keeps one). Python's bytecode, which pip writes when it installs, is there for both
  sides; `--no-bytecode` takes it away from the cold job. The system's cache of the disk is not
  emptied.
* warm: hydrofoil again, later in the round, with the caches that the cold job has filled.

Printed for each recipe: median seconds of the three; literal ÷ warm with its range, literal ÷ cold,
and that of training alone (steps and validation, warm), each the median of the rounds' ratios;
milliseconds a training step, against the floor (the arithmetic that the shapes ask for, backward
twice forward, over the peak that a matrix product reaches here); the peak memory of both and its
bound, twice the decoded set plus what a process needs that only imports torch; mean accuracy.
Peak memory is the largest of a process and its descendants, each by itself: see `launch.py`.

`--fraction` scales the epochs down for a quick look; the output says so. `--out` keeps both sides'
logs. A job that fails is reported, and costs its round's ratios alone; the exit status is then 1.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from children import (
    HERE,
    REPOSITORY,
    SideError,
    environment,
    keep,
    memory_gigabytes,
    pick_cores,
    probe,
    run,
)

import hydrofoil
from hydrofoil import HydrofoilError, build, load, read_recipe
from hydrofoil.data.source import data_root, find_source
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.run.environment import environment as versions

RECIPES = ["cifar10-lenet", "cifar10-cnn3", "mnist-mlp", "cifar10-lenet-linear", "mnist-cnn"]
PICTURES = {"mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # for training, for testing
SIDES = ("literal", "cold", "warm")
ORDERS = (("literal", "cold", "warm"), ("cold", "literal", "warm"), ("cold", "warm", "literal"))
KEPT = ("recipe.toml", "environment.json", "log.jsonl", "test.json")


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Args:
        recipes: Which, in which order.
        root: Where the published sets lie.
        cores: The cores that both sides may use; empty: all.
        repeats: Rounds of each recipe.
        fraction: Of the recipe's epochs.
        bytecode: The cold job finds Python's bytecode.
        json: Where the result goes; "-": to standard output, and the table nowhere.
        out: Where the logs go.
    """

    recipes: list[str]
    root: str
    cores: list[int]
    repeats: int
    fraction: float
    bytecode: bool
    json: str
    out: Path | None


@dataclass(frozen=True)
class Job:
    """One side's whole job.

    Args:
        seconds: From its start to its end.
        training_seconds: Steps and validation.
        train_seconds: Steps alone.
        peak_megabytes: The largest resident memory of the process or of one of its descendants.
        accuracy: On the test split.
    """

    seconds: float
    training_seconds: float
    train_seconds: float
    peak_megabytes: float
    accuracy: float


Jobs = dict[str, list[Job | None]]


def literal(name: str, epochs: int, seed: int, settings: Settings, folder: Path | None) -> Job:
    """Run the tutorial's own loop, and keep what it prints in the folder."""
    command = [sys.executable, str(HERE / "literal.py"), name, "--root", settings.root]
    command += ["--epochs", str(epochs), "--seed", str(seed)]
    seconds, peak, output = run(command, settings.root, cores=settings.cores)
    result = json.loads(output)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "literal.json").write_text(output)
    total, train = (
        sum(epoch[field] for epoch in result["epochs"]) for field in ("seconds", "train_seconds")
    )
    return Job(seconds, total, train, peak, result["test"]["accuracy"])


def ours(
    name: str, epochs: int, seed: int, settings: Settings, caches: Path, folder: Path | None
) -> Job:
    """Run hydrofoil's recipe with these caches, and keep its run's log in the folder."""
    variables = environment(settings.root, settings.cores, caches, bytecode=not settings.bytecode)
    with tempfile.TemporaryDirectory() as beside:  # it runs there: no path stands in its log
        command = [sys.executable, "-m", "hydrofoil.cli", "train", name, f"train.epochs={epochs}"]
        command += ["--seed", str(seed), "--device", "cpu", "--run", "run", "--test", "--json"]
        seconds, peak, output = run(
            command, settings.root, cores=settings.cores, variables=variables, folder=Path(beside)
        )
        keep([Path(beside, "run", kept) for kept in KEPT], folder)
        lines = Path(beside, "run", "log.jsonl").read_text().splitlines()
    done = [event for event in map(json.loads, lines) if event["event"] == "epoch"]
    train = sum(epoch["train_seconds"] for epoch in done)
    valid = sum(epoch["valid_seconds"] for epoch in done)
    return Job(seconds, train + valid, train, peak, json.loads(output)["test"]["accuracy"])


def play(
    name: str, epochs: int, number: int, settings: Settings, say: Callable[[str], None]
) -> dict[str, Job | None]:
    """Run one round; a side that fails is None, and so is warm where nothing filled its caches."""
    folder = settings.out / name / f"round-{number + 1}" if settings.out else None
    found: dict[str, Job | None] = dict.fromkeys(SIDES)
    with tempfile.TemporaryDirectory() as made:
        for side in ORDERS[number % len(ORDERS)]:
            if side == "warm" and found["cold"] is None:
                continue
            try:
                if side == "literal":
                    found[side] = literal(name, epochs, number, settings, folder)
                else:
                    kept = folder / side if folder else None
                    found[side] = ours(name, epochs, number, settings, Path(made), kept)
            except (SideError, OSError, ValueError, KeyError) as error:
                say(f"{name}, round {number + 1}: {side} failed: {error}")
    return found


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def middle(values: Sequence[float]) -> dict[str, Any]:
    """Return the median of some values, their range and their number.

    >>> middle([3.0, 1.0, 2.0])
    {'median': 2.0, 'range': [1.0, 3.0], 'n': 3}
    >>> middle([])
    {'median': None, 'range': None, 'n': 0}
    """
    if not values:
        return {"median": None, "range": None, "n": 0}
    return {
        "median": statistics.median(values),
        "range": [min(values), max(values)],
        "n": len(values),
    }


def ratios(jobs: Jobs, side: str, field: str = "seconds") -> dict[str, Any]:
    """Return literal ÷ a side over the rounds that have both."""
    pairs = zip(jobs["literal"], jobs[side], strict=True)
    return middle([getattr(a, field) / getattr(b, field) for a, b in pairs if a and b])


def figures(jobs: Jobs, steps: int) -> dict[str, Any]:
    """Return what some rounds come to.

    Args:
        jobs: Of each side, one a round; None: it failed.
        steps: That each job trained.
    """
    done = {side: [job for job in jobs[side] if job] for side in SIDES}
    both = {"literal": done["literal"], "hydrofoil": done["cold"] + done["warm"]}
    warm_steps = {"literal": done["literal"], "hydrofoil": done["warm"]}
    return {
        "seconds": {side: middle([job.seconds for job in done[side]]) for side in SIDES},
        "ratio_warm": ratios(jobs, "warm"),
        "ratio_cold": ratios(jobs, "cold"),
        "ratio_training": ratios(jobs, "warm", "training_seconds"),
        "seconds_a_step": {
            side: middle([job.train_seconds / steps for job in some])
            for side, some in warm_steps.items()
        },
        "peak_megabytes": {
            side: max((job.peak_megabytes for job in some), default=None)
            for side, some in both.items()
        },
        "accuracy": {
            side: statistics.mean(job.accuracy for job in some) if some else None
            for side, some in both.items()
        },
    }


def geometric_means(results: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the geometric mean over the recipes of each ratio; None where none has it."""
    means: dict[str, float | None] = {}
    for name in ("ratio_warm", "ratio_cold", "ratio_training"):
        there = [one[name]["median"] for one in results if one[name]["n"]]
        means[name] = statistics.geometric_mean(there) if there else None
    return means


def shapes(name: str) -> dict[str, float]:
    """Return what a recipe's shapes ask for.

    Returns:
        flops_a_step: Additions and multiplications; a step's backward pass is twice its forward.
        steps_an_epoch: The last one may be smaller.
        decoded_megabytes: The set's pictures as bytes, training and testing.
    """
    recipe = read_recipe(name)
    source = find_source(recipe.data.source)
    network = build(recipe, source.shape, [""] * source.classes).network
    published, test = PICTURES[recipe.data.source]
    data, everything = recipe.data, published + test
    train = (
        everything - round(everything * data.valid) - round(everything * data.test)
        if data.merge
        else published - round(published * data.valid)
    )
    forward = total_multiply_adds(network, source.shape) * recipe.train.batch_size
    return {
        "flops_a_step": 3 * 2 * forward,
        "steps_an_epoch": ceil(train / recipe.train.batch_size),
        "decoded_megabytes": everything * prod(source.shape) / 2**20,
    }


def compare(
    name: str, settings: Settings, measured: dict[str, float], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a recipe's rounds, and gather what came of them."""
    epochs = max(1, round(read_recipe(name).train.epochs * settings.fraction))
    asked = shapes(name)
    rounds = [play(name, epochs, number, settings, say) for number in range(settings.repeats)]
    jobs: Jobs = {side: [one[side] for one in rounds] for side in SIDES}
    found = figures(jobs, epochs * int(asked["steps_an_epoch"]))
    found["seconds_a_step"]["floor"] = asked["flops_a_step"] / (measured["gflops"] * 1e9)
    found["peak_megabytes"]["bound"] = (
        2 * asked["decoded_megabytes"] + measured["import_torch_megabytes"]
    )
    return {
        "recipe": name,
        "epochs": epochs,
        "fraction": settings.fraction,
        "n": settings.repeats,
        **found,
        **asked,
        "jobs": {
            side: [asdict(job) if job else None for job in some] for side, some in jobs.items()
        },
    }


# ── what is said of them ─────────────────────────────────────────────────────────────────────────

GROUPS = f"{'':20} {'whole job, s':>22}  {'literal ÷ hydrofoil':>32}  {'ms a step':>22}"
GROUPS += f"  {'peak MB':>19}  {'accuracy, %':>13}"
COLUMNS = f"{'recipe':20} {'literal':>8} {'cold':>6} {'warm':>6}"
COLUMNS += f"  {'warm':>6} {'range':>11} {'cold':>6} {'train':>6}"
COLUMNS += f"  {'literal':>7} {'ours':>7} {'floor':>6}"
COLUMNS += f"  {'literal':>7} {'ours':>5} {'bound':>5}  {'literal':>7} {'ours':>5}"


def cell(value: float | None, width: int, digits: int = 0) -> str:
    """Return a number at a width, or a dash where there is none.

    >>> cell(3.14159, 6, 1), cell(None, 3)
    ('   3.1', '  –')
    """
    return f"{'–':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def line(one: dict[str, Any]) -> str:
    """Return one recipe's row, under COLUMNS."""
    seconds, step, peak = one["seconds"], one["seconds_a_step"], one["peak_megabytes"]
    spread = one["ratio_warm"]["range"]
    between = "–".join(f"{ratio:.1f}" for ratio in spread) if spread else "–"
    milliseconds = [
        None if value is None else 1e3 * value
        for value in (step["literal"]["median"], step["hydrofoil"]["median"], step["floor"])
    ]
    shares = [None if value is None else 100 * value for value in one["accuracy"].values()]
    groups = [
        [f"{one['recipe']:20}", cell(seconds["literal"]["median"], 8, 1)]
        + [cell(seconds[side]["median"], 6, 1) for side in ("cold", "warm")],
        [cell(one["ratio_warm"]["median"], 6, 1), f"{between:>11}"]
        + [cell(one[name]["median"], 6, 1) for name in ("ratio_cold", "ratio_training")],
        [cell(milliseconds[0], 7, 3), cell(milliseconds[1], 7, 3), cell(milliseconds[2], 6, 3)],
        [cell(peak["literal"], 7), cell(peak["hydrofoil"], 5), cell(peak["bound"], 5)],
        [cell(shares[0], 7, 2), cell(shares[1], 5, 2)],
    ]
    return "  ".join(" ".join(group) for group in groups)


def head(settings: Settings, about: dict[str, Any]) -> str:
    """Return the lines above the table: what it was measured on, and what its words cover."""
    machine, measured = about["machine"], about["measured"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} of {machine['cores_there']} cores, "
        f"{machine['memory_gigabytes']:.0f} GB; torch {about['versions']['torch']}, "
        f"{measured['threads']} threads, {measured['gflops']:.0f} GFLOP/s at best; "
        f"load {about['load_average'][0]:.1f} at the start",
        f"cold: {about['cold']}; not emptied: the system's cache of the disk",
    ]
    if not settings.bytecode:
        lines.append(
            f"      (without bytecode `import torch` alone takes {measured['bytecode_seconds']:.1f}"
            " s longer; the literal loop always has it)"
        )
    if settings.fraction != 1:
        lines.append(
            f"QUICK LOOK: {settings.fraction:g} of the epochs, so start-up weighs too much"
        )
    return "\n".join([*lines, "", GROUPS, COLUMNS])


def tail(means: dict[str, float | None], results: Sequence[dict[str, Any]], repeats: int) -> str:
    """Return the line under the table."""
    warm, cold, training = (cell(mean, 0, 1) for mean in means.values())
    quick = "" if all(one["fraction"] == 1 for one in results) else " QUICK LOOK, no result."
    return (
        f"geometric means (recipes: {len(results)}, rounds of each: n = {repeats}): literal ÷ "
        f"hydrofoil {warm} warm, {cold} cold, training alone {training}.{quick}"
    )


def describe(settings: Settings) -> dict[str, Any]:
    """Return what the figures depend on: date, machine, versions; names no host, path or user."""
    known = versions(torch.device("cpu"), [])
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    covered = "no generated code, compiled kernels, list of fonts"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": {
            "cpu": known["cpu"],
            "platform": known["platform"],
            "cores": len(settings.cores) or there,
            "cores_there": there,
            "memory_gigabytes": memory_gigabytes(),
        },
        "versions": {name: known[name] for name in ("hydrofoil", "git", "python", "torch", "numpy")}
        | {"torchvision": version("torchvision")},
        "load_average": os.getloadavg(),
        "n": settings.repeats,
        "fraction": settings.fraction,
        "cold": covered if settings.bytecode else f"{covered}, Python bytecode",
        "peak_memory": "the largest of a process and its descendants, each by itself",
        "measured": probe(settings.root, settings.cores),
    }


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Return what was asked for.

    Raises:
        ValueError: It cannot be done; the message says why.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--root", default="", help="default: HYDROFOIL_DATA or the user's cache")
    parser.add_argument("--cores", type=int, help="run both sides on so many cores")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each recipe")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the recipe's epochs")
    parser.add_argument(
        "--no-bytecode",
        action="store_false",
        dest="bytecode",
        help="of any package for the cold job",
    )
    parser.add_argument("--json", default="", metavar="FILE", help="-: print JSON and no table")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keeps logs and summary.json")
    given = vars(parser.parse_args(arguments))
    given["recipes"] = given["recipes"] or RECIPES
    unknown = [name for name in given["recipes"] if name not in RECIPES]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no tutorial's recipe. Known: {', '.join(RECIPES)}.")
    if given["repeats"] < 1 or not 0 < given["fraction"] <= 1:
        raise ValueError("expected --repeats of at least 1, and --fraction above 0 and up to 1.")
    if given["out"] and given["out"].exists() and any(given["out"].iterdir()):
        raise ValueError(f"--out {given['out']}: not empty; expected a new folder.")
    given["root"] = str(data_root(given["root"]).resolve())
    given["cores"] = pick_cores(given["cores"])
    return Settings(**given)


def write(settings: Settings, document: dict[str, Any]) -> None:
    """Write all results until now, so that no later failure loses them."""
    text = json.dumps(document, indent=2) + "\n"
    if settings.json not in ("", "-"):
        Path(settings.json).write_text(text)
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "summary.json").write_text(text)


def bench(settings: Settings) -> dict[str, Any]:
    """Compare, print the table as it grows, and return all that came of it."""

    def say(text: str) -> None:
        if settings.json != "-":
            print(text, flush=True)

    def complain(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    for source in {read_recipe(name).data.source for name in settings.recipes}:
        load(source, settings.root)  # downloads it if need be: no side is to wait for that
    about = describe(settings)
    say(head(settings, about))
    results: list[dict[str, Any]] = []
    document: dict[str, Any] = {}
    for name in settings.recipes:
        results.append(compare(name, settings, about["measured"], complain))
        document = {**about, "geometric_means": geometric_means(results), "results": results}
        write(settings, document)
        say(line(results[-1]))
    say(tail(document["geometric_means"], results, settings.repeats))
    if settings.json == "-":
        print(json.dumps(document, indent=2))
    return document


def main() -> None:
    """Run the benchmark; leave with 0, 1 where a job failed, 2 for what a person can mend."""
    if Path(hydrofoil.__file__).resolve().parents[1] != REPOSITORY:
        print(
            "hydrofoil is imported from elsewhere than this repository, so another one would be "
            "described than is run.\nInstall this one: pip install -e . (or set PYTHONPATH)",
            file=sys.stderr,
        )
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running side ends too
    try:
        document = bench(parse())
    except (HydrofoilError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    jobs = [job for one in document["results"] for some in one["jobs"].values() for job in some]
    sys.exit(1 if None in jobs else 0)


if __name__ == "__main__":
    main()
