"""Evaluates a run's best weights on its test split, and counts that it was opened.

Axes: N pictures.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.split import PARTS, Split
from hydrofoil.device import pick_device, use_threads
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.averaging import averaged_logits
from hydrofoil.evaluate.result import TestResult
from hydrofoil.evaluate.score import answer
from hydrofoil.evaluate.test import example_indices, test_result
from hydrofoil.models.code import Network, text_of
from hydrofoil.observe.observer import Observer
from hydrofoil.report.results import figure_names, result_figures
from hydrofoil.run.events import Tested
from hydrofoil.run.folder import Run
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.data import (
    check_testable,
    drawn_split,
    find_run,
    given_for,
    own_threads,
    read_pictures,
)
from hydrofoil.session.observing import Observers, all_observers, default_watcher, say_for
from hydrofoil.timing import Stopwatch
from hydrofoil.wording import plural


@own_threads()
def test(
    run: str | Path | Run,
    *,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Any = None,
    observers: Sequence[Observer] = (),
    track: Sequence[str] = (),
    watcher: Watcher | None = None,
    model: Network | None = None,
    again: bool = False,
) -> TestResult:
    """Evaluate a run's best weights on its test split; prints nothing.

    Writes test.json, the answer to every image, and the figures. The log counts how often the test
    split was opened. Where neither the weights nor the images have changed since the last test,
    its result is returned, and the test split stays closed.

    Args:
        run: The run, or its folder.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        pictures: The images that the run was trained on, in place of its recipe's dataset; default:
            what the run remembers.
        observers: Hear how it ended.
        track: Trackers: tensorboard, mlflow.
        watcher: Follows a download.
        model: The network of a run whose network is the user's own code; default: the same.
        again: Open the test split again, whatever is stored.

    Raises:
        HydrofoilError: No such run, no test split, no weights, or other images than it was trained
            on.
    """
    found, place = find_run(run), pick_device(device)
    model, pictures, data_root = given_for(run, model, pictures, data_root)
    watching = all_observers(observers, track)
    with found.writing(say_for(watcher)), Observers(found, watching):
        pictures, _ = read_pictures(found.recipe, data_root, pictures, default_watcher(watcher))
        stored = None if again else _stored(found, pictures, place, model)
        return stored or open_test_split(found, pictures, place, model)


def open_test_split(
    run: Run, pictures: Pictures, device: torch.device, network: Network | None = None
) -> TestResult:
    """Evaluate a run whose lock is held: open the test split, and write everything found."""
    use_threads(run.recipe.train.threads)
    split = _checked_split(run, pictures)
    model, epoch = run.weights.load(device, network)
    clock = Stopwatch(device)
    answers = answer(model, pictures, split.test).cpu()
    seconds = clock.seconds()
    valid = answer(model, pictures, split.valid).cpu() if len(split.valid) else None
    opened = run.log.times_tested() + 1
    differs = pictures.differs or ""
    result = test_result(
        answers, valid, model, run.recipe, epoch=epoch, opened=opened, differs=differs,
        unlike=_unlike(run, pictures, split),
        averaged_NK=averaged_logits(model, pictures, split.test, run.recipe.augment.test_time),
    )  # fmt: skip
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    event = Tested(opened=opened, accuracy=result.accuracy, seconds=seconds, date=now,
                   images=split.pictures_hash)  # fmt: skip
    run.log.append(event)
    run.results.save_answers(test=answers, valid=valid)
    run.results.save_shown(pictures, example_indices(result))
    run.results.save_test(result)
    for name, png in result_figures(pictures, result).items():
        run.files.write(f"figures/{name}.png", png)
    keep_reference(run, device, pictures, split, network)
    return result


def _unlike(run: Run, pictures: Pictures, split: Split) -> str:
    """Return why the accuracy that the recipe expects does not apply to a run; empty: it does."""
    recipe, done = run.recipe, len(run.epochs())
    if not recipe.train.is_over(done, run.weights.epoch()) and not run.log.imported():
        return f"{done} of {plural(recipe.train.epochs, 'epoch')} are done"
    if pictures.source != recipe.data.source or pictures.differs:
        return "it has other images"
    drawn = drawn_split(recipe, pictures)
    same = all(torch.equal(getattr(split, part), getattr(drawn, part)) for part in PARTS)
    return "" if same else "its images were split in another way"


def _checked_split(run: Run, pictures: Pictures) -> Split:
    """Return the run's split of these images; imported weights get one now."""
    if not run.has_split():
        run.save_split(drawn_split(run.recipe, pictures))
    split = run.split()
    split.check(pictures)
    check_testable(run.recipe, split)
    return split


def _stored(
    run: Run, pictures: Pictures, device: torch.device, network: Network | None
) -> TestResult | None:
    """Return the last test's result if it is complete and of these weights, code and images."""
    split, tests = _checked_split(run, pictures), run.log.all(Tested)
    if not tests or (network is not None and not text_of(network)):
        return None  # the code of the network may have changed
    model, _ = run.weights.load(device, network)
    try:
        result, shown = run.results.test(), run.results.shown()
        index_N = run.results.answers()["test"].index_N if result else None
    except (HydrofoilError, KeyError):  # damaged or missing: it is measured again
        return None
    if result is None or index_N is None:
        return None
    last = tests[-1]
    same = (result.opened, result.weights) == (len(tests), model.weights_hash())
    same = same and last.images == split.pictures_hash and torch.equal(index_N, split.test)
    if not same or set(example_indices(result).tolist()) != shown.keys():
        return None
    if missing := [name for name in figure_names(result) if not _figure(run, name).exists()]:
        drawn = result_figures(pictures, result)
        for name in missing:
            run.files.write(f"figures/{name}.png", drawn[name])
    keep_reference(run, device, pictures, split, network)
    return result


def _figure(run: Run, name: str) -> Path:
    return run.path / "figures" / f"{name}.png"
