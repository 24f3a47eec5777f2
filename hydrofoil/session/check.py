"""Checks a dataset, or the images of a run, before they are trusted; trains nothing that is kept.

Axes: N images, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from hydrofoil.check.copies import Copies, find_copies
from hydrofoil.check.duplicates import find_leaks, leaks, repeated
from hydrofoil.check.finding import Finding
from hydrofoil.check.near import LEAST_SIDE
from hydrofoil.check.result import Check
from hydrofoil.data.convert import as_pictures
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Download, Watcher
from hydrofoil.data.source import load
from hydrofoil.data.split import Split
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe.schema import Data
from hydrofoil.run.find import LAST, run_path
from hydrofoil.run.folder import Run
from hydrofoil.session.data import own_threads, read_pictures
from hydrofoil.session.observing import default_watcher
from hydrofoil.wording import percent

CHECKS = ("copies",)


@own_threads()
def check(
    source: Any,
    *,
    only: Sequence[str] = (),
    data_root: str | Path = "",
    watcher: Watcher | None = None,
    **fields: Any,
) -> Check:
    """Return what is wrong with a set of images; prints nothing, writes only to the cache.

    Args:
        source: A dataset's name, the path of own images, a run, or images as `hf.Pictures` takes
            them. Of a run, its split is checked, and what its test would show without leaks.
        only: The checks to make: copies, files, shortcuts, drift, labels; default: all.
        data_root: The datasets' folder; default: HYDROFOIL_DATA or the user's cache.
        watcher: Shows how far it is.
        fields: Of a recipe's section [data], for own images: size=32, label="species".

    Raises:
        HydrofoilError: There is no such set or run, or it cannot be read.
    """
    unknown = [name for name in only if name not in CHECKS]
    if unknown:
        raise HydrofoilError(f"check '{unknown[0]}': expected some of {', '.join(CHECKS)}.")
    watcher = default_watcher(watcher)
    run = _run_of(source)
    pictures = _pictures(run or source, data_root, watcher, fields)
    split = run.split() if run and run.has_split() else given_split(pictures)
    making = _Making(pictures, split, run, watcher)
    for name in CHECKS:
        if name in (only or CHECKS):
            making.make(name)
        else:
            making.not_checked[name] = "not requested"
    return Check(pictures, making.findings, split, making.seconds, making.not_checked)


def _run_of(source: Any) -> Run | None:
    """Return the run that is meant, if it is one."""
    if isinstance(source, Run):
        return source
    if isinstance(source, str | Path):
        path = run_path(source)
        if str(source) == LAST or (path / "recipe.toml").is_file():
            return Run.open(path)
    return None


def _pictures(
    source: Any, data_root: str | Path, watcher: Watcher | None, fields: dict[str, Any]
) -> Pictures:
    if isinstance(source, Run):
        if fields:
            raise HydrofoilError(
                f"{source.path}: a run says itself which images it has: expected no "
                f"data.{next(iter(fields))}."
            )
        given = getattr(source, "pictures", None)
        return read_pictures(source.recipe, data_root, given, watcher)[0]
    if isinstance(source, str | Path | Data):
        return load(source, data_root, watcher, **fields)
    return as_pictures(source)


def given_split(pictures: Pictures) -> Split | None:
    """Return the parts that a set has of its own; None if it has none."""
    test = len(pictures) - pictures.published_test
    valid = test - pictures.published_valid
    if valid == len(pictures):
        return None
    at = torch.arange(len(pictures))
    return Split(at[:valid], at[valid:test], at[test:], pictures)


class _Making:
    """The checks of one set, one after the other."""

    def __init__(
        self, pictures: Pictures, split: Split | None, run: Run | None, watcher: Watcher | None
    ) -> None:
        self.pictures, self.split, self.run, self.watcher = pictures, split, run, watcher
        self.findings: list[Finding] = []
        self.seconds: dict[str, float] = {}
        self.not_checked: dict[str, str] = {}
        self.copies: Copies | None = None

    def make(self, name: str) -> None:
        """Make one check, and note how long it took."""
        began = perf_counter()
        getattr(self, f"_{name}")()
        self.seconds[name] = perf_counter() - began

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return what shows how many images a check has done."""
        began = perf_counter()

        def show(done: int, total: int) -> None:
            if self.watcher:
                rate = done / max(perf_counter() - began, 1e-9)
                self.watcher.update(Download(what, "", done, total, rate, "images"))

        return show

    def _copies(self) -> None:
        pictures = self.pictures
        self.copies = find_copies(pictures, self.progress("near copies"))
        if not self.copies.searched:
            self.not_checked["near copies"] = f"{len(pictures):,} images are too many for it"
        elif min(pictures.shape[1:]) < LEAST_SIDE:
            self.not_checked["near copies"] = f"images below {LEAST_SIDE} pixels show too little"
        if self.split is not None:
            found = leaks(pictures, self.split, self.copies)
            if self.run is not None:
                found = [_with_accuracy(one, self.run, self.split, self.copies) for one in found]
            self.findings += found
        self.findings += repeated(pictures, self.copies)


def _with_accuracy(finding: Finding, run: Run, split: Split, copies: Copies) -> Finding:
    """Add what the run's test shows without the leaked images, if it was tested."""
    if finding.kind != "leak" or not run.results.test():
        return finding
    answers = run.results.answers()["test"]
    correct_N = answers.logits_NK.argmax(1) == answers.labels_N
    leaked = [one.held_out for one in find_leaks(copies, split, "test") if one.certain]
    leaked_N = torch.isin(answers.index_N, torch.tensor(leaked, dtype=torch.int64))
    if not leaked or bool(leaked_N.all()):
        return finding
    test, rest, among = (
        float(some.double().mean())
        for some in (correct_N, correct_N[~leaked_N], correct_N[leaked_N])
    )
    said = (
        f"The run's test accuracy of {percent(test)} is {percent(rest)} without these images; of "
        f"them alone {percent(among)}."
    )
    figures = {"test_accuracy": test, "without_leaked": rest, "of_leaked": among}
    return replace(finding, text=(said, *finding.text), figures={**finding.figures, **figures})
