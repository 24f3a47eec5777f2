"""The verbs that train and test: train, resume, test."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil.cli.options import (
    BEGAN,
    DataRoot,
    Device,
    Execute,
    Full,
    Json,
    ModelCode,
    NewRun,
    OtherEpochs,
    Overrides,
    Prove,
    RecipeOrSource,
    RunFolder,
    Seed,
    Source,
    TimeBudget,
    Track,
    Verbose,
    app,
    option,
    path_of,
)
from hydrofoil.cli.printing import note, print_error, print_json, print_verbatim, printer
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    from hydrofoil.data.pictures import Pictures
    from hydrofoil.evaluate.result import TestResult
    from hydrofoil.observe.console import Console
    from hydrofoil.observe.observer import Observer
    from hydrofoil.recipe.schema import Recipe
    from hydrofoil.run.folder import Run
    from hydrofoil.session.prove import Proof


@app.command()
def train(
    context: typer.Context,
    recipe_name: RecipeOrSource,
    overrides: Overrides = None,
    run_folder: NewRun = None,
    seed: Seed = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    then_test: Annotated[
        bool, typer.Option("--test", help="Also evaluate the best weights on the test split.")
    ] = False,
    track: Track = None,
    model_code: ModelCode = None,
    verbose: Verbose = False,
    full: Full = False,
    budget: TimeBudget = "",
    as_json: Json = False,
) -> None:
    """Train a recipe, or one derived from images, and save everything in a run folder."""
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import Console, DownloadProgress
    from hydrofoil.run.commands import command
    from hydrofoil.session.budget import Budget, spent_line
    from hydrofoil.session.train import train as train_run
    from hydrofoil.train.budget import seconds_of

    say = printer(as_json)
    limit = Budget(seconds_of(budget), BEGAN) if budget else ""
    console = Console(say, verbose=verbose)
    with stoppable(data_root), DownloadProgress(note) as watcher:
        run = train_run(
            recipe_name, overrides or [],
            run=run_folder, seed=seed, device=device, data_root=data_root, test=then_test,
            observers=_observers(console, track), watcher=watcher, command=context.obj,
            model=load_network(model_code), budget=limit,
        )  # fmt: skip
    tested: dict[str, Any] = {}
    if then_test:
        say("")
        tested["test"] = _say_test(run, say, full=full).to_dict()
        say(f"next: {command('report', run.path)} --open")
    else:
        _say_result(run, say)
        say(_next(run, data_root))
    if line := spent_line(run):
        say(line)
    if as_json:
        print_json(as_json, _summary(run, console) | tested)


@app.command()
def new(
    source: Source,
    overrides: Overrides = None,
    model_code: ModelCode = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Print the recipe that train derives from images, with the reason of each choice, as TOML."""
    from hydrofoil.models.code import load_network
    from hydrofoil.models.derived import new_recipe
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.report.text import choices_table
    from hydrofoil.terminal import columns

    with DownloadProgress(note) as watcher:
        found = new_recipe(
            source, overrides or [], data_root=data_root, watcher=watcher,
            network=load_network(model_code),
        )  # fmt: skip
    if not as_json:
        print_verbatim(found.toml().rstrip())
        if columns() is None:  # the recipe goes into a file
            note(choices_table(found.choices, sys.stderr))
    content = {"recipe": found.recipe.model_dump(mode="json")}
    print_json(as_json, content | {"choices": [vars(choice) for choice in found.choices]})


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
    """Resume a run that was stopped, from its last checkpoint."""
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import Console, DownloadProgress
    from hydrofoil.session.prove import prove as prove_run
    from hydrofoil.session.resume import resume as resume_run

    if prove and overrides:
        raise HydrofoilError(f"--prove changes nothing of a run: expected no {overrides[0]}.")
    say = printer(as_json)
    console = Console(say)
    with stoppable(data_root), DownloadProgress(note) as watcher:
        if prove:
            proof = prove_run(
                run_folder, execute=execute, device=device, data_root=data_root, watcher=watcher,
                model=load_network(model_code),
            )  # fmt: skip
            return _print_proof(proof, as_json)
        run = resume_run(
            run_folder, overrides or [], execute=execute, device=device, data_root=data_root,
            observers=_observers(console, track), watcher=watcher, model=load_network(model_code),
        )  # fmt: skip
    _say_result(run, say)
    say(_next(run, data_root))
    if as_json:
        print_json(as_json, _summary(run, console) | {"notes": list(console.notes)})


@app.command()
def test(
    run_folder: RunFolder,
    track: Track = None,
    model_code: ModelCode = None,
    csv: Annotated[
        Path | None,
        option("--csv", "FILE", "Also list every test image in a table.", parser=path_of),
    ] = None,
    full: Full = False,
    again: Annotated[
        bool, typer.Option("--again", help="Open the test split again; it is counted.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Evaluate a run's best weights on its test split, and save figures."""
    from hydrofoil.files import write_whole
    from hydrofoil.models.code import load_network
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.observe.track import Tracking
    from hydrofoil.run.folder import Run
    from hydrofoil.session.test import test as test_run
    from hydrofoil.ship.table import answers_csv

    run = Run.open(run_folder)
    before = run.log.times_tested()
    with DownloadProgress(note) as watcher:
        test_run(
            run, device=device, data_root=data_root, observers=[Tracking(track or [], note)],
            watcher=watcher, model=load_network(model_code), again=again,
        )  # fmt: skip
    say = printer(as_json)
    stored = _stored_line(run) if run.log.times_tested() == before else ""
    result = _say_test(run, say, full=full, stored=stored)
    if csv is not None:
        classes = tuple(one.name for one in result.classes)
        write_whole(csv, answers_csv(run.results.answers()["test"], classes))
        say(f"written: {csv}")
    print_json(as_json, result.to_dict())


def _observers(console: "Console", track: list[str] | None) -> "list[Observer]":
    """Return the observers of a training; the failure of a tracker is only a note."""
    from hydrofoil.observe.signals import Stopping
    from hydrofoil.observe.track import Tracking

    return [Tracking(track or [], note), console, Stopping(exits=True)]


def _next(run: "Run", data_root: str) -> str:
    """Return the command that comes after a training."""
    from hydrofoil.run.commands import command

    verb = "test" if len(run.split().test) else "show"
    return f"next: {command(verb, run.path, data_root)}"


def _summary(run: "Run", console: "Console") -> dict[str, Any]:
    """Return the summary of a training for --json."""
    end, epochs = console.end, run.epochs()
    best = [epoch for epoch in epochs if end and epoch.number == end.best_epoch]
    return {
        "run": str(run.path),
        "epochs": len(epochs),
        "best": best[-1].to_dict() if best else None,
        "seconds": end.seconds if end else 0.0,
        "choices": [vars(choice) for choice in console.choices],
        "diagnosis": [finding.as_dict() for finding in run.diagnosis()],
    }


def _say_result(run: "Run", say: Callable[[object], None]) -> None:
    """Print the result of a training once more, for anyone who reads only the last lines."""
    from hydrofoil.report import text

    if best := text.best_epoch(run.epochs(), run.recipe):
        say(text.emphasized(text.epochs_result(best)))


def _stored_line(run: "Run") -> str:
    """Say that the test was not run again, and how old its stored result is."""
    from datetime import datetime

    from hydrofoil.run.events import Tested

    last = run.log.all(Tested)[-1]
    date = f"{datetime.fromisoformat(last.date):%Y-%m-%d %H:%M}" if last.date else "an earlier test"
    times = "once" if last.opened == 1 else f"{last.opened} times"
    return f"stored result of {date}; opened {times} (--again opens the test split again)"


def _say_test(
    run: "Run", say: Callable[[object], None], *, full: bool, stored: str = ""
) -> "TestResult":
    """Print the latest test of a run, its result once more at the end, and return it."""
    from hydrofoil.report import text
    from hydrofoil.report.results import figure_names
    from hydrofoil.report.words import findings
    from hydrofoil.run.commands import command
    from hydrofoil.wording import all_of

    result = run.results.test()
    assert result  # noqa: S101 - it was written a moment ago
    say(f"{run.path}\n{text.test_lines(result, full=full)}")
    if not full:
        say(f"all classes, and the confusion matrix: {command('test', run.path)} --full")
    say("\n" + "\n".join(findings(result)))
    drawn = all_of([f"{name}.png" for name in figure_names(result)])
    say(f"\nfigures: {drawn} in {run.path / 'figures'}")
    if stored:
        say(stored)
    say(f"\n{text.emphasized(text.test_result_line(result))}")
    return result


def _print_proof(proof: "Proof", as_json: bool) -> None:
    """Print what `resume --prove` compared; exit with 1 if it differs."""
    from hydrofoil.observe.console import notes_lines, progress_line
    from hydrofoil.run.folder import Run

    say = printer(as_json)
    for line in notes_lines(proof.notes):
        say(line)
    say(progress_line(Run.open(proof.run), proof.epochs, proof.steps))
    same = f"bit-identical: {proof.tensors} tensors, and the same sums."
    differing = f"DIFFERENT: {', '.join(proof.differing[:6])}"
    say(f"{proof.compared}:\n{differing if proof.differing else same}")
    print_json(as_json, proof.as_dict())
    if proof.differing:
        raise typer.Exit(1)


def load_pictures(recipe: "Recipe", data_root: str) -> "Pictures":
    """Load a recipe's images, and show a download."""
    from hydrofoil.observe.console import DownloadProgress
    from hydrofoil.session.data import read_pictures

    with DownloadProgress(note) as watcher:
        return read_pictures(recipe, data_root, None, watcher)[0]


@contextmanager
def stoppable(data_root: str, then: str = "") -> Generator[None]:
    """On Ctrl-C or SIGTERM in a training, say how to resume, and exit with 130 or 143.

    Args:
        data_root: As given, for the command to resume.
        then: One more line to print.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        from hydrofoil.observe.signals import Stopped

        if not isinstance(stopped, Stopped) or stopped.run is None:
            raise
        print_error(f"\n{_stopped_lines(stopped.run, data_root)}{then}")
        raise typer.Exit(128 + stopped.number) from None
    except HydrofoilError as error:
        from hydrofoil.device import DeviceError
        from hydrofoil.run.commands import command

        if not isinstance(error, DeviceError) or error.run is None:
            raise
        resume = command("resume", error.run.path, data_root)
        raise HydrofoilError(f"{error}.\nResume on the CPU with: {resume} --device cpu") from error


def _stopped_lines(run: "Run", data_root: str) -> str:
    """Say how far a stopped run is, and how to resume it."""
    from hydrofoil.observe.signals import stopped_line
    from hydrofoil.run.commands import command

    return f"{stopped_line(run)}\nResume with: {command('resume', run.path, data_root)}"
