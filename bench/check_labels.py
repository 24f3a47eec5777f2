"""How many wrong labels the check finds, and how often it is right: figures for records/.

    HYDROFOIL_DATA=… python bench/check_labels.py TRUTH [STEP …] --out records/DATE-check-labels

TRUTH is the folder of published ground truth, of which README.md there says what each file holds.
Each step writes NAME.json into the folder of --out, and the table of all steps that are there is
written into its README.md. Steps: published digits mnist-10000 mnist mnist-5 cifar10 cifar10-5.

Axes: N images, K classes.
"""

import argparse
import csv
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hydrofoil as hf
from hydrofoil.check import labels as learning
from hydrofoil.check.doubtful import doubtful_labels
from hydrofoil.check.folds import out_of_fold
from hydrofoil.device import describe_device

FLAGS = {
    "flag_argmax": "argmax",
    "flag_conf_joint_only": "confident joint",
    "flag_cl_pbc": "class",
    "flag_cl_pbnr": "noise rate",
    "flag_cl_both": "both",
}
FEWEST_VOTES = 3  # for the given label, of five: fewer make a human-validated label error
FIRST = 50


def published(truth: Path) -> dict[str, Any]:
    """Compare our flags with the published ones, and with the suspects of two test sets."""
    agree: dict[str, float] = {}
    for noise in ("sparsity00", "sparsity40"):
        arrays = np.load(truth / f"confident-learning-cifar10-noise20-{noise}.npz")
        probabilities_NK = arrays["probabilities"].astype(float)
        labels_N = arrays["noisy"].astype(np.int64)
        for flag, method in FLAGS.items():
            ours_N = learning.METHODS[method](probabilities_NK, labels_N)
            agree[f"{noise} {flag}"] = float((ours_N == arrays[flag]).mean())
    suspects: dict[str, list[int]] = {}
    for name in ("cifar10", "mnist"):
        arrays = np.load(truth / f"label-errors-{name}-outoffold.npz")
        labels_N = arrays["labels"].astype(np.int64)
        probabilities_NK = arrays["probabilities"].astype(float)
        rows = list(csv.DictReader((truth / f"label-errors-{name}.csv").open()))
        ours = set(np.flatnonzero(learning.by_argmax(probabilities_NK, labels_N)).tolist())
        listed = {int(row["test_index"]) for row in rows}
        suspects[name] = [len(listed & ours), len(listed)]
    return {"agree": agree, "least": min(agree.values()), "suspects_among_ours": suspects}


def exchanged(pictures: hf.Pictures, share: float) -> hf.Pictures:
    """Return the set with so many labels exchanged at random for another class each."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randperm(len(pictures), generator=generator)[: round(share * len(pictures))]
    labels_N = pictures.labels_N.clone()
    shifts = torch.randint(1, pictures.K, wrong.shape, generator=generator)
    labels_N[wrong] = (labels_N[wrong] + shifts) % pictures.K
    return hf.Pictures(
        pictures.pictures_NCHW, labels_N, pictures.classes, pictures.source,
        pictures.published_test,
    )  # fmt: skip


def judge(source: str, truth: Path, share: float = 0.0, first: int = 0) -> dict[str, Any]:
    """Check the labels of a set, perhaps with exchanged ones, and compare with what is known."""
    clean = hf.load(source)
    if first:
        clean = hf.Pictures(clean.pictures_NCHW[:first], clean.labels_N[:first], clean.classes)
    pictures = exchanged(clean, share) if share else clean
    began, processor = time.perf_counter(), time.process_time()
    found = out_of_fold(pictures)
    findings = doubtful_labels(pictures, found.probabilities_NK)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    labels = findings[0]
    likely = [row.images[0] for row in labels.rows if row.changes]
    wrong_N = (pictures.labels_N != clean.labels_N).numpy()
    guess_N = found.probabilities_NK.argmax(1)
    result: dict[str, Any] = {
        "images": len(pictures),
        "exchanged": int(wrong_N.sum()),
        "plan": vars(found.plan),
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "accuracy": float((guess_N == clean.labels_N.numpy()).mean()),
        "levels": {finding.kind: finding.level for finding in findings},
        "likely_errors": len(likely),
        "possible_errors": labels.figures.get("possible_errors"),
        "estimated_noise_rate": labels.figures.get("estimated_noise_rate"),
        "confident_learning_noise_rate": labels.figures.get("confident_learning_noise_rate"),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if share:
        hits = int(wrong_N[likely].sum())
        result |= {"found": hits / wrong_N.sum(), "right": hits / max(len(likely), 1)}
    elif clean.published_test:
        result |= human_errors(source, truth, pictures, found.probabilities_NK)
    return result


def human_errors(
    source: str, truth: Path, pictures: hf.Pictures, probabilities_NK: learning.Floats
) -> dict[str, Any]:
    """Say where the human-validated errors of the test images are in our ranking of these."""
    start = len(pictures) - pictures.published_test
    labels_N = pictures.labels_N[start:].numpy()
    confidence_N = learning.self_confidence(probabilities_NK[start:], labels_N)
    rank_N = np.argsort(np.argsort(confidence_N, kind="stable"))
    rows = csv.DictReader((truth / f"label-errors-{source}.csv").open())
    validated = [int(row["test_index"]) for row in rows if int(row["votes_given"]) < FEWEST_VOTES]
    ranks = sorted(int(rank_N[image]) + 1 for image in validated)
    return {
        "validated_test_errors": len(ranks),
        f"in_first_{FIRST}": sum(rank <= FIRST for rank in ranks),
        "in_as_many_as_there_are": sum(rank <= len(ranks) for rank in ranks),
        "ranks": ranks,
    }


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "published": published,
    "digits": partial(judge, "digits"),
    "mnist-10000": partial(judge, "mnist", first=10_000),
    "mnist": partial(judge, "mnist"),
    "mnist-5": partial(judge, "mnist", share=0.05),
    "cifar10": partial(judge, "cifar10"),
    "cifar10-5": partial(judge, "cifar10", share=0.05),
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the figures of all steps as Markdown."""
    head = (
        "| set | images | exchanged | accuracy of the folds | estimated noise | likely errors | "
        "found | right | level | seconds | processor seconds |"
    )
    lines = [head, "|---" * 11 + "|"]
    for name, one in results.items():
        if "images" not in one:
            continue
        found, right = (
            f"{100 * one[key]:.1f}%" if key in one else "–" for key in ("found", "right")
        )
        lines.append(
            f"| {name} | {one['images']:,} | {one['exchanged']:,} | {100 * one['accuracy']:.2f}% | "
            f"{100 * one['estimated_noise_rate']:.2f}% | {one['likely_errors']:,} | {found} | "
            f"{right} | {one['levels']['labels']} | {one['seconds']:.0f} | "
            f"{one['processor_seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the steps and print their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("truth", type=Path, help="the folder of published ground truth")
    parser.add_argument("steps", nargs="*", choices=[*STEPS, []], help="default: all")
    parser.add_argument("--out", type=Path, help="write NAME.json and table.md there")
    arguments = parser.parse_args()
    folder: Path | None = arguments.out
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.steps or STEPS:
        results[name] = {
            **STEPS[name](arguments.truth),
            "torch": torch.__version__,
            "device": describe_device(torch.device("cpu")),
        }
        print(name, json.dumps(results[name]), flush=True)
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(json.dumps(results[name], indent=1) + "\n")
    if folder:
        stored = [folder / f"{name}.json" for name in STEPS]
        results = {path.stem: json.loads(path.read_text()) for path in stored if path.exists()}
        (folder / "table.md").write_text(table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
