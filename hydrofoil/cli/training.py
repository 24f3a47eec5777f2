"""The verbs that train and test: train, resume, test."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil.cli.options import (
    DataRoot,
    Device,
    Execute,
    Json,
    ModelCode,
    NewRun,
    OtherEpochs,
    Overrides,
    Prove,
    RecipeName,
    RunFolder,
    Seed,
    Track,
    app,
)
from hydrofoil.cli.printing import note, print_error, print_json, printer
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    import torch

    from hydrofoil.data.pictures import Pictures
    from hydrofoil.data.split import Split
    from hydrofoil.models.classifier import Classifier
    from hydrofoil.models.code import NetworkCode
    from hydrofoil.observe.track import Tracking
    from hydrofoil.recipe.schema import Recipe
    from hydrofoil.run.folder import Run
    from hydrofoil.train.state import State


@app.command()
def train(
    context: typer.Context,
    recipe_name: RecipeName,
    overrides: Overrides = None,
    run_folder: NewRun = None,
    seed: Seed = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    then_test: Annotated[bool, typer.Option("--test", help="Test the kept weights too.")] = False,
    track: Track = None,
    model_code: ModelCode = None,
    as_json: Json = False,
) -> None:
    """Train a recipe, and keep everything in a run folder."""
    from hydrofoil.device import pick_device
    from hydrofoil.models.code import load_network, with_network
    from hydrofoil.observe.progress import Follower
    from hydrofoil.recipe.read import read_recipe
    from hydrofoil.report import text
    from hydrofoil.run.commands import command
    from hydrofoil.run.environment import environment
    from hydrofoil.run.folder import Run
    from hydrofoil.session.start import untrained
    from hydrofoil.timing import CPU, Stopwatch
    from hydrofoil.train.executors import prepare
    from hydrofoil.train.loop import fit

    say, place, network = printer(as_json), pick_device(device), load_network(model_code)
    seeded = [*(overrides or []), *([] if seed is None else [f"train.seed={seed}"])]
    recipe = with_network(read_recipe(recipe_name, seeded), network)
    clock = Stopwatch(CPU)
    (pictures, split), seconds = pictures_and_split(recipe, data_root), clock.seconds()
    if then_test:
        check_testable(recipe, split)
    recipe, model, state, notes = untrained(recipe, pictures, place, network)
    code = network.text if network else ""
    run = Run.create(run_folder, recipe, split, environment(place, context.obj), code)
    say(f"{text.recipe_lines(recipe)}\n{text.split_line(recipe, split)}\nrun: {run.path}")
    for line in notes:
        say(f"note: {line}")
    with run.writing(), _tracking(run, track) as tracking:
        _log_data(run, pictures, split, seconds)
        with _stoppable(run, data_root), Follower(run, say, model, state) as follower:
            executor = follower.prepared(prepare(model, pictures, split, recipe, state))
            for epoch in fit(
                model, pictures, split, recipe,
                state=state, executor=executor, watch=tracking.watch(follower.watch),
            ):  # fmt: skip
                follower.keep(epoch)
        summary = follower.summary()
        if then_test:
            summary["test"] = _test(run, place, pictures, say, network)
            say(f"next: {command('report', run.path)} --open")
        else:
            say(f"next: {command('test' if len(split.test) else 'show', run.path, data_root)}")
    print_json(as_json, summary)


@app.command()
def resume(
    run_folder: RunFolder,
    overrides: OtherEpochs = None,
    execute: Execute = None,
    prove: Prove = False,
    track: Track = None,
    model_code: ModelCode = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, from its last checkpoint."""
    from hydrofoil.device import pick_device, restore_threads, resumed_device
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.progress import Follower
    from hydrofoil.run.commands import command
    from hydrofoil.run.folder import Run
    from hydrofoil.session.resume import changes, keep_extended
    from hydrofoil.session.start import restored
    from hydrofoil.timing import CPU, Stopwatch
    from hydrofoil.train.executors import prepare
    from hydrofoil.train.loop import fit

    say, _ = printer(as_json), pick_device(device)  # a wrong one is refused before all else
    if prove and overrides:
        raise HydrofoilError(f"--prove changes nothing of a run: expected no {overrides[0]}.")
    with Run.open(run_folder).writing():
        run, notes = _resumable(run_folder, overrides or [])
        recipe, split = run.recipe, run.split()
        began = run.environment()
        place = resumed_device(device, began.get("device"))
        restore_threads(began.get("threads"))
        clock = Stopwatch(CPU)
        pictures = load_pictures(recipe, data_root)
        seconds = clock.seconds()
        split.check(pictures)
        network = load_network(model_code)
        model, state, told = restored(run, pictures, place, network, only_read=prove)
        notes += [*told, *changes(run, place)]
        _say_resumed(run, state, notes, say)
        if prove:
            return _prove(run, model, pictures, split, state, execute, as_json, network)
        keep_extended(run)
        _log_data(run, pictures, split, seconds)
        with (
            _stoppable(run, data_root),
            _tracking(run, track) as tracking,
            Follower(run, say, model, state) as follower,
        ):
            prepared = prepare(model, pictures, split, recipe, state, execute=execute)
            executor = follower.prepared(prepared)
            for epoch in fit(
                model, pictures, split, recipe,
                state=state, executor=executor, watch=tracking.watch(follower.watch),
            ):  # fmt: skip
                follower.keep(epoch)
        summary = follower.summary()
        say(f"next: {command('test' if len(split.test) else 'show', run.path, data_root)}")
    print_json(as_json, {**summary, "notes": notes})


@app.command()
def test(
    run_folder: RunFolder,
    track: Track = None,
    model_code: ModelCode = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Test a run's kept weights, and draw predictions and the worst mistakes."""
    from hydrofoil.device import pick_device
    from hydrofoil.models.code import load_network
    from hydrofoil.run.folder import Run

    run, place, network = Run.open(run_folder), pick_device(device), load_network(model_code)
    with run.writing(), _tracking(run, track):
        pictures = load_pictures(run.recipe, data_root)
        result = _test(run, place, pictures, printer(as_json), network)
    print_json(as_json, result)


def _resumable(folder: Path, overrides: Sequence[str]) -> "tuple[Run, list[str]]":
    """Open a run to go on with, for other epochs if that is asked; return it and some notes."""
    from hydrofoil.run.commands import command
    from hydrofoil.run.folder import Run
    from hydrofoil.session.resume import extend

    run = Run.open(folder)
    if run.log.imported():
        raise HydrofoilError(
            f"{run.path}: its weights were imported, so there is no training to go on with.\n"
            f"Test them with: {command('test', run.path)}"
        )
    return extend(run, overrides)


def _say_resumed(
    run: "Run", state: "State", notes: Sequence[str], say: Callable[[object], None]
) -> None:
    """Say from where a run goes on."""
    from hydrofoil.report.text import plural

    for line in notes:
        say(f"note: {line}")
    part = f", and {plural(state.step, 'step')} of the next" if state.step else ""
    say(f"{run.path}: {state.epoch} of {run.recipe.train.epochs} epochs are done{part}")


def _prove(
    run: "Run",
    model: "Classifier",
    pictures: "Pictures",
    split: "Split",
    state: "State",
    execute: str | None,
    as_json: bool,
    network: "NetworkCode | None",
) -> None:
    """Print what `resume --prove` compared; leave with 1 if it is not the same."""
    from hydrofoil.session.resume import prove

    proof = prove(run, model, pictures, split, state, execute, network)
    same = f"the same bits in {proof.tensors} tensors, and the same sums."
    told = f"DIFFERENT: {', '.join(proof.differing[:6])}" if proof.differing else same
    printer(as_json)(f"{proof.compared}:\n{told}")
    print_json(as_json, proof.as_dict())
    if proof.differing:
        raise typer.Exit(1)


def load_pictures(recipe: "Recipe", data_root: str) -> "Pictures":
    """Load a recipe's set from the root given here, or the recipe's, or the default."""
    from hydrofoil.data.source import load
    from hydrofoil.observe.progress import DownloadFollower

    with DownloadFollower(note) as watcher:
        return load(recipe.data.source, data_root or recipe.data.root, watcher)


def check_testable(recipe: "Recipe", split: "Split") -> None:
    """Refuse to test what has no test split."""
    if not len(split.test):
        raise HydrofoilError(
            f"{recipe.name}: no test split: {recipe.data.source} publishes none, and data.test = 0."
            "\nTrain with data.test=0.2, say."
        )


def pictures_and_split(recipe: "Recipe", data_root: str) -> "tuple[Pictures, Split]":
    """Load a recipe's set and draw its split."""
    from hydrofoil.data.split import draw_split

    pictures = load_pictures(recipe, data_root)
    return pictures, draw_split(pictures, **recipe.split_options())


def _log_data(run: "Run", pictures: "Pictures", split: "Split", seconds: float) -> None:
    """Log how long reading the set took, and how many pictures of each class each part has."""
    from hydrofoil.data.split import PARTS

    counts = {part: pictures.counts(getattr(split, part)) for part in PARTS}
    run.log.append({"event": "data", "seconds": seconds, "counts": counts})


def _tracking(run: "Run", names: list[str] | None) -> "Tracking":
    """Return what tells the trackers of a run; one that fails is told of on standard error."""
    from hydrofoil.observe.track import Tracking

    return Tracking(run, names or [], note)


@contextmanager
def _stoppable(run: "Run", data_root: str) -> Generator[None]:
    """On Ctrl-C or SIGTERM, say how to go on, and leave with 130 or 143."""
    from hydrofoil.report import text
    from hydrofoil.run.commands import command

    try:
        yield
    except KeyboardInterrupt as stopped:
        done, steps = run.checkpoints.epoch(), run.checkpoints.step()
        part = f" and {text.plural(steps, 'step')}" if steps else ""
        go_on = command("resume", run.path, data_root)
        print_error(
            f"\nstopped after {done} of {run.recipe.train.epochs} epochs{part}.\n"
            f"Go on with: {go_on}"
        )
        raise typer.Exit(128 + getattr(stopped, "number", 2)) from None


def _test(
    run: "Run",
    device: "torch.device",
    pictures: "Pictures",
    say: Callable[[object], None],
    network: "NetworkCode | None",
) -> dict[str, Any]:
    """Open the test split, count the opening, keep what was found, and draw the figures."""
    from hydrofoil.data.split import draw_split
    from hydrofoil.evaluate.score import answer
    from hydrofoil.evaluate.test import shown_pictures, test_report
    from hydrofoil.report import text
    from hydrofoil.report.results import result_figures
    from hydrofoil.report.words import findings
    from hydrofoil.timing import Stopwatch

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
    result = test_report(answers, valid, model, run.recipe, epoch=epoch, opened=opened)
    accuracy = result["accuracy"]
    run.log.append({"event": "test", "opened": opened, "accuracy": accuracy, "seconds": seconds})
    run.results.save_answers(test=answers, valid=valid)
    run.results.save_shown(pictures, shown_pictures(result))
    run.files.write_json("test.json", result)
    found = "\n".join(findings(result))
    say(f"{run.path}\n{text.test_lines(result)}\n\n{found}\n")
    for name, png in result_figures(pictures, result).items():
        say(f"drawn: {run.files.write(f'figures/{name}.png', png)}")
    return result
