"""Evaluates a run's best weights on its test split, and counts that it was opened."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.data.published.download import Watcher
from hydrofoil.data.split import draw_split
from hydrofoil.device import pick_device, use_threads
from hydrofoil.evaluate.result import TestResult
from hydrofoil.evaluate.score import answer
from hydrofoil.evaluate.test import example_indices, test_result
from hydrofoil.models.code import Network
from hydrofoil.observe.observer import Observer
from hydrofoil.report.results import result_figures
from hydrofoil.run.events import Tested
from hydrofoil.run.folder import Run
from hydrofoil.run.reference import keep_reference
from hydrofoil.session.data import check_testable, find_run, own_threads, read_pictures
from hydrofoil.session.observing import Observers, all_observers, default_watcher, say_for
from hydrofoil.timing import Stopwatch


@own_threads()
def test(
    run: str | Path | Run,
    *,
    device: str = "auto",
    data_root: str | Path = "",
    pictures: Pictures | None = None,
    observers: Sequence[Observer] = (),
    track: Sequence[str] = (),
    watcher: Watcher | None = None,
    model: Network | None = None,
) -> TestResult:
    """Evaluate a run's best weights on its test split; prints nothing.

    Writes test.json, the answer to every image, and the figures. Each call opens the test split
    once more, and the log counts it.

    Args:
        run: The run, or its folder.
        device: auto, cpu, cuda, cuda:1 or mps.
        data_root: Where the datasets are; default: data.root, HYDROFOIL_DATA or the user's cache.
        pictures: The images that the run was trained on, in place of its recipe's dataset.
        observers: Hear how it ended.
        track: Trackers: tensorboard, mlflow.
        watcher: Follows a download.
        model: The network of a run whose network is the user's own code.

    Raises:
        HydrofoilError: No such run, no test split, no weights, or other images than it was trained
            on.
    """
    found, place = find_run(run), pick_device(device)
    watching = all_observers(observers, track)
    with found.writing(say_for(watcher)), Observers(found, watching):
        pictures, _ = read_pictures(found.recipe, data_root, pictures, default_watcher(watcher))
        return open_test_split(found, pictures, place, model)


def open_test_split(
    run: Run, pictures: Pictures, device: torch.device, network: Network | None = None
) -> TestResult:
    """Evaluate a run whose lock is held: open the test split, and write everything found."""
    use_threads(run.recipe.train.threads)
    if not run.has_split():
        run.save_split(draw_split(pictures, **run.recipe.split_options()))
    split = run.split()
    split.check(pictures)
    check_testable(run.recipe, split)
    model, epoch = run.weights.load(device, network)
    clock = Stopwatch(device)
    answers = answer(model, pictures, split.test).cpu()
    seconds = clock.seconds()
    valid = answer(model, pictures, split.valid).cpu() if len(split.valid) else None
    opened = run.log.times_tested() + 1
    differs = pictures.differs or ""
    result = test_result(
        answers, valid, model, run.recipe, epoch=epoch, opened=opened, differs=differs
    )
    run.log.append(Tested(opened=opened, accuracy=result.accuracy, seconds=seconds))
    run.results.save_answers(test=answers, valid=valid)
    run.results.save_shown(pictures, example_indices(result))
    run.results.save_test(result)
    for name, png in result_figures(pictures, result).items():
        run.files.write(f"figures/{name}.png", png)
    keep_reference(run, device, pictures, split, network)
    return result
