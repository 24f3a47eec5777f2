"""What the sides of a comparison share, what is a side's own, and how their trainings went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hydrofoil.compare.jobs import Job, dataset, executors, fields
from hydrofoil.data.split import PARTS
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.run.commands import command_line
from hydrofoil.run.folder import Run

VERSIONS = ("hydrofoil", "git", "python", "torch", "numpy", "platform", "cpu", "device_name")


@dataclass(frozen=True)
class Curve:
    """The epochs of one run, in order; None where nothing was measured.

    Args:
        seed: The run's seed.
        best_epoch: The epoch of its best weights, counted from 1; 0: unknown.
        train_loss: Mean cross-entropy of the training steps, in nats per image.
        train_accuracy: Their accuracy, from 0 to 1.
        valid_loss: Mean cross-entropy on the validation split at the epoch's end, of the weights
            that are compared: the averaged ones, if there are any.
        valid_accuracy: Its accuracy.
    """

    seed: int
    best_epoch: int
    train_loss: tuple[float | None, ...]
    train_accuracy: tuple[float | None, ...]
    valid_loss: tuple[float | None, ...]
    valid_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class SideSetup:
    """What is one side's own.

    Args:
        letter: Such as "A".
        given: What the command names: a recipe, a run folder, a folder of runs, a pattern.
        recipe: The recipe's name.
        overrides: Those of this side alone, as they were given.
        fields: Every field that affects results and is not the same on all sides.
        network: The network's name.
        epochs: Passes over the training split.
        seeds: One for each run.
        executors: That ran the steps.
        threads: CPU threads of the runs.
        images: The images of each part of the split of the first run.
        seconds: Of reading, training and testing all runs, by their logs.
        commands: The command of each run.
        curves: The epochs of each run.
        notes: What another optimizer than the recipe's changes beside its name.
    """

    letter: str
    given: str
    recipe: str
    overrides: tuple[str, ...]
    fields: dict[str, Any]
    network: str
    epochs: int
    seeds: tuple[int, ...]
    executors: tuple[str, ...]
    threads: tuple[int, ...]
    images: dict[str, int]
    seconds: float
    commands: tuple[str, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What was compared, and how: all that a page needs to be understood without its command.

    Args:
        dataset: The dataset that all sides share.
        shared: The fields that affect results and are the same on all sides, by dotted name.
        overrides: Those of all sides, as they were given.
        sides: What is each side's own.
        versions: The versions and machines of the runs: more than one value where they differ.
        command: The command that compared them; empty for a call in Python.
        date: When, by ISO 8601 in UTC.
        seconds: Of this comparison, with the trainings that it needed.
    """

    dataset: str
    shared: dict[str, Any]
    overrides: tuple[str, ...]
    sides: tuple[SideSetup, ...]
    versions: dict[str, tuple[str, ...]]
    command: str
    date: str
    seconds: float


@dataclass(frozen=True)
class Given:
    """A side as the command gives it.

    Args:
        letter: Such as "A".
        what: A recipe, a run folder, a folder of runs, a pattern.
        overrides: Those of this side alone.
        jobs: Its runs, by ascending seed.
        notes: What another optimizer than the recipe's changes beside its name.
    """

    letter: str
    what: str
    overrides: tuple[str, ...]
    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()


def setup_of(
    sides: Sequence[Given], shared: Sequence[str], command: Sequence[str], seconds: float
) -> Setup:
    """Read from the runs what they were trained with, and how that went.

    Args:
        sides: With finished runs.
        shared: The overrides of all sides.
        command: The command line, without the program's name; empty for a call in Python.
        seconds: Of this comparison.

    Raises:
        HydrofoilError: A run is damaged.
    """
    tables = [fields(side.jobs[0].recipe) for side in sides]
    everywhere = {
        name: value
        for name, value in tables[0].items()
        if all(name in table and table[name] == value for table in tables[1:])
    }
    runs = [[Run.open(job.path) for job in side.jobs] for side in sides]
    return Setup(
        dataset=dataset(sides[0].jobs[0].recipe),
        shared=everywhere,
        overrides=tuple(shared),
        sides=tuple(
            _side_setup(side, own, {n: v for n, v in table.items() if n not in everywhere})
            for side, own, table in zip(sides, runs, tables, strict=True)
        ),
        versions=_versions([run for own in runs for run in own]),
        command=command_line(["hydrofoil", *command]) if command else "",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    )


def _side_setup(side: Given, runs: Sequence[Run], own: dict[str, Any]) -> SideSetup:
    recipe = side.jobs[0].recipe
    split = runs[0].split()
    ran = {name for job in side.jobs for name in executors(job)}
    return SideSetup(
        letter=side.letter,
        given=side.what,
        recipe=recipe.name,
        overrides=side.overrides,
        fields=own,
        network=getattr(recipe.model, "code", "") or recipe.model.name,
        epochs=recipe.train.epochs,
        seeds=tuple(run.recipe.train.seed for run in runs),
        executors=tuple(sorted(ran)),
        threads=tuple(sorted({run.recipe.train.threads for run in runs} - {0})),
        images={part: len(getattr(split, part)) for part in PARTS},
        seconds=sum(job.seconds() for job in side.jobs),
        commands=tuple(command_line(run.environment().get("command", [])) for run in runs),
        curves=tuple(map(_curve, runs)),
        notes=side.notes,
    )


def _curve(run: Run) -> Curve:
    epochs = run.epochs()
    parts: list[list[Scores | None]] = [[e.train for e in epochs], [e.selected for e in epochs]]
    train, valid = parts
    return Curve(
        run.recipe.train.seed,
        next((epoch.number for epoch in reversed(epochs) if epoch.best), 0),
        tuple(scores and scores.loss for scores in train),
        tuple(scores and scores.accuracy for scores in train),
        tuple(scores and scores.loss for scores in valid),
        tuple(scores and scores.accuracy for scores in valid),
    )


def _versions(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Return each version's values over all runs, in order of appearance."""
    found: dict[str, dict[str, None]] = {name: {} for name in VERSIONS}
    for run in runs:
        known = run.environment()
        for name in VERSIONS:
            if known.get(name):
                found[name][str(known[name])] = None
    return {name: tuple(values) for name, values in found.items() if values}
