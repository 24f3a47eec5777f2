"""The answers of the sides of a comparison, and the figures that follow from them.

Axes: S seeds, N images.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hydrofoil.compare.jobs import Job, folder_name
from hydrofoil.compare.labels import slug
from hydrofoil.compare.plan import Plan
from hydrofoil.compare.several import Comparisons, compare_several
from hydrofoil.compare.statistics import SideAnswers
from hydrofoil.compare.verdict import Comparison, compare
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.score import Answers
from hydrofoil.run.commands import command
from hydrofoil.run.folder import Run

MOST_LETTERS = 40  # of a file's name, so that its path fits a line of 80
ValidAnswers = Mapping[Path, Answers]  # by run folder


def side_answers(jobs: Sequence[Job], letter: str = "", label: str = "") -> SideAnswers:
    """Read the test answers of a side's runs.

    Raises:
        HydrofoilError: A run's test.json and answers.npz are from two tests: one was interrupted.
    """
    runs = [Run.open(job.path) for job in jobs]
    answers = [run.results.answers()["test"] for run in runs]
    results = [run.results.test() for run in runs]
    for run, test, result in zip(runs, answers, results, strict=True):
        if result is None or result.correct != int((test.predicted_N == test.labels_N).sum()):
            raise HydrofoilError(
                f"{run.path}: test.json and answers.npz do not match: a test was interrupted.\n"
                f"Test it again with: {command('test', run.path)}"
            )
    warnings = dict.fromkeys(text for result in results if result for text in result.warnings)
    opened = tuple(run.log.times_tested() for run in runs)
    return _side(runs, answers, letter, label, tuple(warnings), opened)


def valid_side_answers(
    jobs: Sequence[Job], answers: ValidAnswers, letter: str = "", label: str = ""
) -> SideAnswers:
    """Return a side's answers to its validation images; its test split stays closed."""
    runs = [Run.open(job.path) for job in jobs]
    return _side(runs, [answers[job.path] for job in jobs], letter, label)


def _side(
    runs: Sequence[Run],
    answers: Sequence[Answers],
    letter: str,
    label: str,
    warnings: tuple[str, ...] = (),
    opened: tuple[int, ...] = (),
) -> SideAnswers:
    return SideAnswers(
        name=runs[0].recipe.name,
        seeds=tuple(run.recipe.train.seed for run in runs),
        correct_SN=np.stack([(one.predicted_N == one.labels_N).numpy() for one in answers]),
        index_SN=np.stack([one.index_N.numpy() for one in answers]),
        runs=tuple(str(run.path) for run in runs),
        warnings=warnings,
        opened=opened,
        letter=letter,
        label=label,
        balanced_accuracies=tuple(one.metrics().balanced_accuracy for one in answers),
    )


def compare_plan(
    plan: Plan, target_points: float | None, valid: ValidAnswers | None = None
) -> Comparison | Comparisons:
    """Compare the runs of all sides, tested or with their answers to the validation images.

    Args:
        plan: With finished runs.
        target_points: The difference of interest, in points; None: the observed one.
        valid: The validation answers, where these are compared.

    Raises:
        HydrofoilError: The runs used different files of the dataset.
    """
    jobs = [job for side in plan.sides for job in side.jobs]
    hashes = {Run.open(job.path).split().pictures_hash for job in jobs}
    if len(hashes) > 1:
        raise HydrofoilError(
            f"{jobs[0].recipe.data.source}: the runs used different files of this dataset "
            f"(hashes {', '.join(sorted(digest[:12] for digest in hashes))}).\n"
            "Accuracies on different images cannot be compared: train all runs on the same files."
        )
    answers = [
        side_answers(side.jobs, side.letter, label)
        if valid is None
        else valid_side_answers(side.jobs, valid, side.letter, label)
        for side, label in zip(plan.sides, plan.labels, strict=True)
    ]
    earlier = _earlier_seed_counts(comparison_path(plan))
    if len(answers) > 2:
        return compare_several(
            answers, differs=plan.differs, target_points=target_points, seed_counts=earlier,
            part=plan.part,
        )  # fmt: skip
    a, b = answers
    differs = {name: (values[0], values[1]) for name, values in plan.differs.items()}
    return compare(
        a, b, differs=differs, target_points=target_points, seed_counts=earlier, part=plan.part
    )


def comparison_path(plan: Plan) -> Path:
    """Return the path of a comparison's results, named after what differs, or by its sides' number.

    Such as compare-digits-lr-0.02-lr-0.05-1a2b3c4d.json or compare-digits-5-sides-1a2b3c4d.json;
    the last part is a hash of all fields.
    """
    folders = [folder_name(recipe) for recipe in plan.recipes]
    digest = hashlib.sha256(json.dumps(folders).encode()).hexdigest()[:8]
    names = list(dict.fromkeys(recipe.name for recipe in plan.recipes))
    labels = [slug(label) for label in plan.labels if label not in names]
    part = ["valid"] if plan.part == "valid" else []
    text = "-".join(filter(None, [*map(slug, names), *labels]))
    if len(text) > MOST_LETTERS:
        short = "-".join(filter(None, map(slug, names)))[: MOST_LETTERS - 8].strip("-.")
        text = f"{short}-{len(plan.sides)}-sides"
    return plan.folder / f"{'-'.join(['compare', text, *part, digest])}.json"


def _earlier_seed_counts(saved: Path) -> list[int]:
    """Return the numbers of seeds of earlier comparisons; empty for a missing or broken file."""
    try:
        counts = json.loads(saved.read_text("utf-8"))["seed_counts"]
        return [int(count) for count in counts]
    except (OSError, ValueError, KeyError, TypeError):
        return []
