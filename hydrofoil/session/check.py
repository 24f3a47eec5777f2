"""Checks a dataset, or the images of a run, before they are trusted; keeps nothing but findings.

Axes: N images, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from hydrofoil.check.apply import Applied, agreed_changes, checks_for, write_table
from hydrofoil.check.copies import MOST_SEARCHED, Copies, find_copies, kept_together
from hydrofoil.check.doubtful import doubtful_labels
from hydrofoil.check.drift import check_drift
from hydrofoil.check.duplicates import find_leaks, leaks, repeated
from hydrofoil.check.files import check_files
from hydrofoil.check.finding import Finding
from hydrofoil.check.folds import Plan, out_of_fold, predicted_by, reason_not_to_train
from hydrofoil.check.near import LEAST_SIDE
from hydrofoil.check.result import Check
from hydrofoil.check.review import NoiseEstimate, noise_estimate, read_votes
from hydrofoil.check.shortcuts import check_shortcuts
from hydrofoil.data.facts import Facts, read_facts
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download, Watcher
from hydrofoil.data.source import described, load
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError, nearest
from hydrofoil.recipe.schema import Data
from hydrofoil.run.find import LAST, run_path
from hydrofoil.run.folder import Run
from hydrofoil.session.data import given_pictures, own_threads, read_pictures
from hydrofoil.session.observing import default_watcher
from hydrofoil.wording import percent

CHECKS = ("copies", "files", "shortcuts", "drift", "labels")  # in this order; labels train


@own_threads()
def check(
    source: Any,
    *,
    only: Sequence[str] = (),
    device: str = "auto",
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    **fields: Any,
) -> Check:
    """Return what is wrong with a set of images; prints nothing, writes only to the cache.

    Args:
        source: A dataset's name, the path of own images, a run, or images as `hf.Pictures` takes
            them. Of a run, its split is checked, and its test accuracy without leaked images.
        only: The checks to make: copies, files, shortcuts, drift, labels; default: all.
        device: Where models for the labels are trained: auto, cpu, cuda, cuda:1 or mps.
        data_root: The datasets' folder; default: HYDROFOIL_DATA or the user's cache.
        watcher: Shows progress.
        fields: Of a recipe's section [data], for own images: size=32, label="species".

    Raises:
        HydrofoilError: There is no such set or run, or it cannot be read.
    """
    return _prepared(source, device, data_root, watcher, fields).check(_known(only))


def apply(
    source: Any,
    agreed: str,
    table: Path,
    *,
    device: str = "auto",
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    **fields: Any,
) -> Applied:
    """Write own images as a table, with the changes that were agreed to; no image is changed.

    Args:
        source: As `check` takes it.
        agreed: A file of choices, which the page saves, or kinds of findings, such as
            leak,duplicates; only the checks that make these findings are made.
        table: Its name ends in .csv; it is itself a source.
        device: As in `check`, and what follows, too.
        data_root: The datasets' folder.
        watcher: Shows progress.
        fields: Of [data].

    Raises:
        HydrofoilError: As `agreed_changes` and `write_table`.
    """
    names = checks_for(agreed)
    making = _prepared(source, device, data_root, watcher, fields)
    found = making.check(names)
    return write_table(found, making.facts, agreed_changes(found, agreed), table)


def count_votes(
    source: Any,
    votes: Path,
    *,
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    **fields: Any,
) -> NoiseEstimate:
    """Return the rate of wrong labels with its interval, by votes on the page of a review.

    Args:
        source: As `check` takes it.
        votes: The file that the page saved.
        data_root: The datasets' folder.
        watcher: Shows progress.
        fields: Of [data].

    Raises:
        HydrofoilError: As `read_votes` and `noise_estimate`.
    """
    making = _prepared(source, "cpu", data_root, watcher, fields)
    return noise_estimate(read_votes(votes, making.pictures))


def _known(only: Sequence[str]) -> Sequence[str]:
    """Return the checks to make; all by default.

    Raises:
        HydrofoilError: There is no such check.
    """
    for name in only:
        if name not in CHECKS:
            raise HydrofoilError(f"unknown check '{name}'. {nearest(name, CHECKS)}")
    return only or CHECKS


def _prepared(
    source: Any,
    device: str,
    data_root: str | Path,
    watcher: Watcher | None,
    fields: dict[str, Any],
) -> "_Making":
    """Read the images that are meant; see `check` for the arguments."""
    watcher = default_watcher(watcher)
    run = _run_of(source)
    data = _data_of(run or source, fields)
    pictures = _pictures(run or source, data, fields, data_root, watcher)
    split = run.split() if run and run.has_split() else given_split(pictures)
    return _Making(pictures, split, data, run, watcher, device)


def _run_of(source: Any) -> Run | None:
    """Return the run that is meant, if it is one."""
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path):
        path = run_path(source)
        if str(source) == LAST or (path / "recipe.toml").is_file():
            return Run.open(path)
    return None


def _data_of(source: Any, fields: dict[str, Any]) -> Data | None:
    """Return the section [data] that says how a source is read; None: it is images already."""
    if isinstance(source, Run):
        if fields:
            raise HydrofoilError(
                f"{source.path}: a run, whose recipe says which images it has: remove "
                f"data.{next(iter(fields))}."
            )
        return source.recipe.data
    if isinstance(source, str | Path):
        return described(source, fields)
    return None


def _pictures(
    source: Any,
    data: Data | None,
    fields: dict[str, Any],
    data_root: str | Path,
    watcher: Watcher | None,
) -> Pictures:
    if isinstance(source, Run):
        given = getattr(source, "pictures", None)
        return read_pictures(source.recipe, data_root, given, watcher)[0]
    if data is not None:
        return load(data, data_root, watcher)
    return given_pictures(source, described("./", fields), watcher)


def given_split(pictures: Pictures) -> Split | None:
    """Return the parts that a set has of its own; None if it has none."""
    train_N, valid_N, test_N = pictures.given_parts
    if len(train_N) == len(pictures):
        return None
    return Split(train_N, valid_N, test_N, pictures)


class _Making:
    """The checks of one set, one after the other."""

    def __init__(
        self,
        pictures: Pictures,
        split: Split | None,
        data: Data | None,
        run: Run | None,
        watcher: Watcher | None,
        device: str,
    ) -> None:
        self.pictures, self.split, self.data, self.run = pictures, split, data, run
        self.watcher, self.device = watcher, device
        self.findings: list[Finding] = []
        self.seconds: dict[str, float] = {}
        self.not_checked: dict[str, str] = {}

    def check(self, names: Sequence[str]) -> Check:
        """Make some checks, and return what they found and how long each took."""
        for name in CHECKS:
            if name not in names:
                self.not_checked[name] = "not requested"
                continue
            began = perf_counter()
            getattr(self, f"_{name}")()
            self.seconds[name] = perf_counter() - began
        return Check(self.pictures, self.findings, self.split, self.seconds, self.not_checked)

    @cached_property
    def copies(self) -> Copies:
        """The copies in the set."""
        return find_copies(self.pictures, self._progress("near copies"))

    @cached_property
    def facts(self) -> Facts | None:
        """What is known of the files."""
        return read_facts(self.data, self.pictures, self.watcher) if self.data else None

    def _copies(self) -> None:
        pictures = self.pictures
        if not self.copies.searched:
            self.not_checked["near copies"] = f"more than {MOST_SEARCHED:,} images"
        elif min(pictures.shape[1:]) < LEAST_SIDE:
            self.not_checked["near copies"] = f"images below {LEAST_SIDE} pixels show too little"
        if self.split is not None:
            found = leaks(pictures, self.split, self.copies)
            if self.run is not None and self.run.results.test():
                answers = self.run.results.answers()["test"]
                correct_N = answers.logits_NK.argmax(1) == answers.labels_N
                found = [self._with_accuracy(one, answers.index_N, correct_N) for one in found]
            self.findings += found
        self.findings += repeated(pictures, self.copies, self.split)

    def _files(self) -> None:
        self.findings += check_files(self.pictures, self.facts)

    def _shortcuts(self) -> None:
        self.findings += check_shortcuts(self.pictures, self.facts)

    def _drift(self) -> None:
        if self.split is None:
            self.not_checked["drift"] = "the images have no parts that could differ"
        else:
            self.findings += check_drift(self.pictures, self.split)

    def _labels(self) -> None:
        if reason := reason_not_to_train(self.pictures):
            self.not_checked["labels"] = reason
            return
        together = kept_together(self.pictures, self.copies)
        found = out_of_fold(
            self.pictures,
            groups_N=together.groups_N,
            device=self.device,
            watch=self._progress("training on folds"),
        )
        trained = {"folds": found.plan.folds, "epochs": found.plan.epochs}
        self.findings += doubtful_labels(self.pictures, found.probabilities_NK, trained)
        if self.run is None:
            self._score_leak(found.plan)

    def _score_leak(self, plan: Plan) -> None:
        """Say what a leak does to a test, by a network that is trained on the training part."""
        at = next((at for at, one in enumerate(self.findings) if one.kind == "leak"), None)
        if at is None or self.split is None or not self.findings[at].figures["certain"]:
            return
        train_N, test_N = self.split.train, self.split.test
        predicted_N = predicted_by(self.pictures, train_N, test_N, plan, device=self.device)
        correct_N = predicted_N == self.pictures.labels_N.cpu()[test_N]
        self.findings[at] = self._with_accuracy(self.findings[at], test_N, correct_N)

    def _with_accuracy(self, finding: Finding, index_N: Tensor, correct_N: Tensor) -> Finding:
        """Add to a leak what a test shows without the leaked images.

        Args:
            finding: The leak; another finding is returned as it is.
            index_N: The tested images.
            correct_N: Whether the model was right.
        """
        if finding.kind != "leak" or self.split is None:
            return finding
        matches = find_leaks(self.copies, self.split, "test")
        leaked = torch.tensor([m.held_out for m in matches if m.certain], dtype=torch.int64)
        leaked_N = torch.isin(index_N, leaked)
        if not bool(leaked_N.any()) or bool(leaked_N.all()):
            return finding
        test, rest, among = (
            float(some.double().mean())
            for some in (correct_N, correct_N[~leaked_N], correct_N[leaked_N])
        )
        whose = "The run's" if self.run else "With a network that was trained for this check, the"
        said = (
            f"{whose} test accuracy is {percent(test)}: {percent(rest)} without these images, "
            f"{percent(among)} of them alone."
        )
        figures = {"test_accuracy": test, "without_leaked": rest, "of_leaked": among}
        return replace(finding, text=(said, *finding.text), figures={**finding.figures, **figures})

    def _progress(self, what: str) -> Callable[[float, float], None]:
        """Return what shows how many images a check has done."""
        began = perf_counter()

        def show(done: float, total: float) -> None:
            if self.watcher:
                rate = done / max(perf_counter() - began, 1e-9)
                self.watcher.update(Download(what, "", int(done), int(total), rate, "images"))

        return show
