"""The command line: one short function a verb, which parses, calls and prints. Nothing else prints.

Heavy imports stand inside the verbs: `hydrofoil --help` answers before torch would be loaded.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO, TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil import __version__
from hydrofoil.errors import HydrofoilError

if TYPE_CHECKING:
    import torch

    from hydrofoil.data.pictures import Pictures
    from hydrofoil.data.split import Split
    from hydrofoil.models.classifier import Classifier
    from hydrofoil.recipe import Recipe
    from hydrofoil.run import Run
    from hydrofoil.sides import Job
    from hydrofoil.track import Tracking
    from hydrofoil.train.state import State

REPOSITORY = Path(__file__).parents[1]  # in a clone or an editable install

BUG = "This is a bug in hydrofoil: please report it with the text above and `hydrofoil --version`."

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _argument(name: str, help: str, **options: Any) -> Any:
    return typer.Argument(metavar=name, help=help, show_default=False, **options)


def _option(flag: str, name: str, help: str, **limits: Any) -> Any:
    return typer.Option(flag, metavar=name, help=help, show_default=False, **limits)


def _path(given: str | Path) -> Path:
    """Return the path that was typed: an empty one would be the folder that one stands in."""
    text = str(given)  # a default is a path already
    if not text or "\0" in text:
        raise typer.BadParameter("expected a path, and got an empty one.")
    return Path(text)


def _check_trackers(names: list[str] | None) -> list[str]:
    """Refuse a tracker that is unknown or not installed while the command line is read."""
    if names:
        from hydrofoil.track import check_trackers

        check_trackers(names)
    return names or []


RecipeName = Annotated[str, _argument("RECIPE", "A shipped recipe's name, or a file's path.")]
Overrides = Annotated[
    list[str] | None, _argument("[FIELD=VALUE]...", "Override: train.epochs=3 optimizer.lr=0.01")
]
RunFolder = Annotated[Path, _argument("RUN", "The run folder.", parser=_path)]
NewRun = Annotated[
    Path | None,
    _option("--run", "DIR", "The run folder to make; default: runs/<recipe>-<n>.", parser=_path),
]
Seed = Annotated[int | None, _option("--seed", "N", "The recipe's train.seed.", min=0)]
Device = Annotated[str, _option("--device", "NAME", "auto (default), cpu, cuda, cuda:1 or mps.")]
DataRoot = Annotated[
    str, _option("--data-root", "DIR", "Where the sets lie; default: HYDROFOIL_DATA or the cache.")
]
Track = Annotated[
    list[str] | None,
    _option(
        "--track",
        "NAME",
        "Also tell tensorboard or mlflow; may be given twice.",
        callback=_check_trackers,
    ),
]
OtherEpochs = Annotated[
    list[str] | None, _argument("[train.epochs=N]", "Train for another number of epochs.")
]
Execute = Annotated[
    str | None,
    _option("--execute", "NAME", "Go on with eager, compile, graph or native; default: as begun."),
]
Prove = Annotated[
    bool, typer.Option("--prove", help="Only show, in a few steps, that resuming is exact.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with a status.

    0: done; 2: what a person can mend, said in one to three lines; 130 and 143: stopped by Ctrl-C
    or SIGTERM; 1: a proof or benchmark failed, or a bug of ours, with its traceback.
    """
    usage_error: Any = typer.BadParameter.__bases__[0]  # click's; newer versions of typer carry it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → or – shows ? for it
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        status = app(args=given or ["--help"], standalone_mode=False, obj=given)
    except HydrofoilError as error:
        _tell(error)
        status = 2
    except usage_error as error:
        _tell(f"{error.format_message()}\n{_hint(error)}")
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        _tell("stopped.")
        status = 130
    except OSError as error:  # that nobody nearer has put into words
        name = f"{error.filename}: " if error.filename else ""
        _tell(f"{name}{error.strerror or error}.")
        status = 2
    except Exception as error:
        status = _say_unexpected(error)
    sys.exit(status if isinstance(status, int) else 0)


def _hint(usage_error: Any) -> str:
    """Say where help is; a recipe's field that was written as an option is written otherwise."""
    field = str(getattr(usage_error, "option_name", "")).lstrip("-").replace("-", "_")
    if field:
        from hydrofoil.recipe import documented_fields

        for section, name, _, _ in documented_fields():
            if section and name.rpartition(".")[2] == field:
                dotted = name if "." in name else f"{section.split()[0].strip('[]')}.{name}"
                return f"A recipe's field is given without dashes: {dotted}=VALUE"
    context = getattr(usage_error, "ctx", None)
    verb = f" {context.info_name}" if context is not None and context.parent is not None else ""
    return f"See: hydrofoil{verb} --help"


def _say_unexpected(error: Exception) -> int:
    """Tell a lack of memory, which can be mended, from a bug of ours; return the exit status."""
    # torch's own OutOfMemoryError is a RuntimeError.
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "memory" in str(error)
    ):
        said = str(error).splitlines()[0][:150] if str(error) else ""
        _tell(f"out of memory: {said}\nTry a smaller train.batch_size or model.")
        return 2
    import traceback

    traceback.print_exception(error)
    _tell(BUG)
    return 1


def _tell(line: object) -> None:
    """Print a line on standard error; where nothing can be written there, the status must do."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _print(line: object) -> None:
    """Print a line; its reader may go away (| head): no run is lost for that."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from hydrofoil.files import not_written

        raise not_written(Path("standard output"), error) from error


def _note(line: str) -> None:
    """Tell what goes on on standard error: standard output is the verb's answer."""
    print(line, file=sys.stderr, flush=True)


def _sayer(as_json: bool) -> Callable[[object], None]:
    """Return what prints a line for a person, and nothing where the output is for a program."""
    return (lambda line: None) if as_json else _print


def _print_json(as_json: bool, content: object) -> None:
    if as_json:
        _print(json.dumps(content, indent=2, ensure_ascii=False))


def _print_version(asked: bool) -> None:
    if asked:
        _print(f"hydrofoil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """From small pictures to a tested model. Try: hydrofoil train digits --test."""


@app.command()
def recipes(
    name: Annotated[str | None, _argument("[RECIPE]", "Print this one.")] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="Explain what a recipe may say.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the shipped recipes, or print one."""
    from hydrofoil.recipe import (
        documented_fields,
        read_recipe,
        recipe_text,
        shipped_recipes,
    )

    say = _sayer(as_json)
    if fields:
        from hydrofoil.report import text

        say(text.field_lines())
        _print_json(as_json, documented_fields())
        return
    if name is not None:
        recipe = read_recipe(name)
        say(recipe_text(name).rstrip())
        _print_json(as_json, recipe.model_dump(mode="json"))
        return
    abouts = {known: read_recipe(known).about for known in shipped_recipes()}
    width = max(map(len, abouts))
    say("\n".join(f"{known:{width}}  {about}" for known, about in abouts.items()))
    say("\nTrain one with: hydrofoil train RECIPE")
    _print_json(as_json, abouts)


@app.command()
def show(
    what: Annotated[str, _argument("SET|RECIPE|RUN", "A set, a recipe or a run folder.")],
    overrides: Overrides = None,
    class_name: Annotated[str, _option("--class", "NAME", "Only pictures of this class.")] = "",
    pixels: Annotated[
        int | None, _option("--pixels", "I", "Draw picture I with each pixel's value.", min=0)
    ] = None,
    out: Annotated[
        Path | None,
        _option("--out", "FILE", "Where to draw; default: here, or in the run.", parser=_path),
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Print the C that native steps of a recipe run.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Show a set, a recipe or a run: pictures and sizes, layers and costs, learning curves."""
    from hydrofoil.files import write_whole
    from hydrofoil.progress import DownloadFollower
    from hydrofoil.report.show import show as find

    if out is not None and out.suffix.lower() != ".png":
        raise HydrofoilError(f"--out {out}: figures are PNG: expected a name that ends in .png.")
    if code:
        line, text = _expected(what, overrides or [], device)
        _sayer(as_json)(text)
        _print_json(as_json, {"executor": line, "code": text})
        return
    content: dict[str, Any] = {}
    with DownloadFollower(_note) as watcher:
        found = find(what, overrides or [], data_root, class_name, pixels, watcher)
    for one in found:
        content |= one.content
        _sayer(as_json)(f"{one.text}\n")
        if one.png:
            write_whole(out or one.path, one.png)
            content["drawn"] = str(out or one.path)
            _sayer(as_json)(f"drawn: {out or one.path}\n")
        if "layers" in one.content:
            content["executor"] = _expected(what, overrides or [], device)[0]
            _sayer(as_json)(content["executor"])
    _print_json(as_json, content)


def _expected(name: str, overrides: Sequence[str], device: str) -> tuple[str, str]:
    """Return the line on what would run a recipe's steps, and its C."""
    from hydrofoil.device import pick_device
    from hydrofoil.recipe import read_recipe
    from hydrofoil.train.executors import expected

    choice, code = expected(read_recipe(name, overrides), pick_device(device))
    return choice.line, code.rstrip() or f"/* no native code */ {choice.line}"


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
    as_json: Json = False,
) -> None:
    """Train a recipe, and keep everything in a run folder."""
    from hydrofoil.device import pick_device, pick_threads
    from hydrofoil.environment import environment
    from hydrofoil.models import build
    from hydrofoil.models.summary import total_multiply_adds
    from hydrofoil.progress import Follower
    from hydrofoil.recipe import read_recipe
    from hydrofoil.report import text
    from hydrofoil.run import Run, command
    from hydrofoil.timing import CPU, Stopwatch
    from hydrofoil.train.executors import prepare
    from hydrofoil.train.loop import fit
    from hydrofoil.train.state import State

    say = _sayer(as_json)
    seeded = [*(overrides or []), *([] if seed is None else [f"train.seed={seed}"])]
    recipe, place = read_recipe(recipe_name, seeded), pick_device(device)
    clock = Stopwatch(CPU)
    pictures, split = _pictures_and_split(recipe, data_root)
    data_seconds = clock.seconds()
    if then_test:
        _check_testable(recipe, split)
    model = build(recipe, pictures.shape, pictures.classes).to(place)
    pick_threads(total_multiply_adds(model.network, pictures.shape) * recipe.train.batch_size)
    state = State.fresh(model, recipe)
    run = Run.create(run_folder, recipe, split, environment(place, context.obj))
    say(f"{text.recipe_lines(recipe)}\n{text.split_line(recipe, split)}\nrun: {run.path}")
    with run.writing(), _tracking(run, track) as tracking:
        _log_data(run, pictures, split, data_seconds)
        with _stoppable(run, data_root), Follower(run, say, model, state) as follower:
            executor = follower.prepared(prepare(model, pictures, split, recipe, state))
            for epoch in fit(
                model, pictures, split, recipe,
                state=state, executor=executor, watch=tracking.watch(follower.watch),
            ):  # fmt: skip
                follower.keep(epoch)
        summary = follower.summary()
        if then_test:
            summary["test"] = _test(run, place, pictures, say)
            say(f"next: {command('report', run.path)} --open")
        else:
            say(f"next: {command('test' if len(split.test) else 'show', run.path, data_root)}")
    _print_json(as_json, summary)


@app.command()
def resume(
    run_folder: RunFolder,
    overrides: OtherEpochs = None,
    execute: Execute = None,
    prove: Prove = False,
    track: Track = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, from its last checkpoint."""
    from hydrofoil.device import pick_device, restore_threads, resumed_device
    from hydrofoil.models import build
    from hydrofoil.progress import Follower
    from hydrofoil.resuming import changes, keep_extended
    from hydrofoil.run import Run, command
    from hydrofoil.timing import CPU, Stopwatch
    from hydrofoil.train.executors import prepare
    from hydrofoil.train.loop import fit
    from hydrofoil.train.state import State

    say, _ = _sayer(as_json), pick_device(device)  # a wrong one is refused before all else
    if prove and overrides:
        raise HydrofoilError(f"--prove changes nothing of a run: expected no {overrides[0]}.")
    with Run.open(run_folder).writing():
        run, notes = _resumable(run_folder, overrides or [])
        recipe, split = run.recipe, run.split()
        began = run.environment()
        place = resumed_device(device, began.get("device"))
        restore_threads(began.get("threads"))
        clock = Stopwatch(CPU)
        pictures = _load(recipe, data_root)
        seconds = clock.seconds()
        split.check(pictures)
        model = build(recipe, pictures.shape, pictures.classes).to(place)
        state = State.fresh(model, recipe)
        notes += [*run.load_last(model, state, only_read=prove), *changes(run, place)]
        if not state.epoch + state.step:  # it was killed before its first save
            state.executor = run.executor()
        _say_resumed(run, state, notes, say)
        if prove:
            return _prove(run, model, pictures, split, state, execute, as_json)
        keep_extended(run)
        _log_data(run, pictures, split, seconds)
        with (
            _stoppable(run, data_root),
            _tracking(run, track) as tracking,
            Follower(run, say, model, state) as follower,
        ):
            executor = follower.prepared(
                prepare(model, pictures, split, recipe, state, execute=execute)
            )
            for epoch in fit(
                model, pictures, split, recipe,
                state=state, executor=executor, watch=tracking.watch(follower.watch),
            ):  # fmt: skip
                follower.keep(epoch)
        summary = follower.summary()
        say(f"next: {command('test' if len(split.test) else 'show', run.path, data_root)}")
    _print_json(as_json, {**summary, "notes": notes})


@app.command("import")
def import_weights(
    context: typer.Context,
    recipe_name: RecipeName,
    weights: Annotated[
        Path, _argument("WEIGHTS", "A state dict: .pt, .pth or .safetensors.", parser=_path)
    ],
    overrides: Overrides = None,
    run_folder: NewRun = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Make a run from weights that a tutorial saved, to test and use them here."""
    import torch

    from hydrofoil.environment import environment
    from hydrofoil.models import build
    from hydrofoil.recipe import read_recipe
    from hydrofoil.run import Run, command
    from hydrofoil.ship.adopt import read_weights

    say, recipe = _sayer(as_json), read_recipe(recipe_name, overrides or [])
    found = read_weights(weights)
    pictures, split = _pictures_and_split(recipe, data_root)
    model = build(recipe, pictures.shape, pictures.classes)
    model.load_weights(found, str(weights))
    run = Run.create(run_folder, recipe, split, environment(torch.device("cpu"), context.obj))
    with run.writing():
        run.save_best(model, epoch=0)
        run.log({"event": "imported", "weights": model.weights_hash()})
    say(f"run: {run.path}, with the weights of {weights}")
    say("note: whether they were trained on pictures of this run's test split is not known here.")
    say(f"next: {command('test', run.path, data_root)}")
    _print_json(as_json, {"run": str(run.path), "weights": model.weights_hash()})


@app.command()
def test(
    run_folder: RunFolder,
    track: Track = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Test a run's kept weights, and draw predictions and the worst mistakes."""
    from hydrofoil.device import pick_device
    from hydrofoil.run import Run

    run, place = Run.open(run_folder), pick_device(device)
    with run.writing(), _tracking(run, track):
        pictures = _load(run.recipe, data_root)
        result = _test(run, place, pictures, _sayer(as_json))
    _print_json(as_json, result)


@app.command()
def predict(
    run_folder: RunFolder,
    pictures: Annotated[
        list[Path], _argument("PICTURE...", "Picture files, of any size.", parser=_path)
    ],
    device: Device = "auto",
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark on bright pictures for a bright on dark set.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a run's model sees in pictures of any format and size."""
    from hydrofoil.device import pick_device
    from hydrofoil.report import text
    from hydrofoil.run import Run
    from hydrofoil.ship.predict import predict as classify

    model, _ = Run.open(run_folder).load_best(pick_device(device))
    predictions = [(str(path), classify(model, path, invert=invert)) for path in pictures]
    _sayer(as_json)("\n".join(text.prediction_lines(path, one) for path, one in predictions))
    _print_json(as_json, [{"picture": path, **one.as_dict()} for path, one in predictions])


@app.command()
def explain(
    run_folder: RunFolder,
    pictures: Annotated[
        list[Path], _argument("PICTURE...", "Picture files, of any size.", parser=_path)
    ],
    class_name: Annotated[
        str, _option("--class", "NAME", "Explain this class; default: the answer.")
    ] = "",
    invert: Annotated[
        bool, typer.Option("--invert", help="Dark on bright pictures for a bright on dark set.")
    ] = False,
    out: Annotated[
        Path | None,
        _option("--out", "DIR", "Where to draw; default: the run's figures.", parser=_path),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show why a run's model answers as it does: Grad-CAM, occlusion, feature maps, filters."""
    from hydrofoil.device import pick_device
    from hydrofoil.files import write_whole
    from hydrofoil.report.explain import explain as find
    from hydrofoil.report.explain import figure_names, filters_figure
    from hydrofoil.run import Run

    run = Run.open(run_folder)
    if out is not None and (out.suffix.lower() == ".png" or out.is_file()):
        raise HydrofoilError(f"--out {out}: a figure for each picture: expected a folder's name.")
    model, _ = run.load_best(pick_device(device))
    say, folder, contents = _sayer(as_json), out or run.path / "figures", list[dict[str, Any]]()
    explained = [find(model, path, class_name, invert=invert) for path in pictures]
    for one, name in zip(explained, figure_names(pictures), strict=True):
        write_whole(folder / name, one.png)
        say(f"{one.text}\n  drawn: {folder / name}")
        contents.append({**one.content, "drawn": str(folder / name)})
    layer, png = filters_figure(model)
    write_whole(folder / "filters.png", png)
    say(f"the filters of {layer}, drawn: {folder / 'filters.png'}")
    filters = {"layer": layer, "drawn": str(folder / "filters.png")}
    _print_json(as_json, {"run": str(run.path), "pictures": contents, "filters": filters})


@app.command()
def report(
    run_folders: Annotated[
        list[Path], _argument("RUN...", "One run folder, or several.", parser=_path)
    ],
    out: Annotated[
        Path | None,
        _option(
            "--out",
            "FILE",
            "Where to write; default: report.html in the run, or beside them.",
            parser=_path,
        ),
    ] = None,
    then_open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run, or of several side by side."""
    from hydrofoil.files import write_whole
    from hydrofoil.report.page import run_page, runs_page

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise HydrofoilError(f"--out {out}: expected a name that ends in .html.")
    if len(run_folders) == 1:
        page, path = run_page(run_folders[0]), run_folders[0] / "report.html"
    else:
        page, path = runs_page(run_folders), run_folders[0].resolve().parent / "report.html"
    write_whole(out or path, page)
    _sayer(as_json)(f"written: {out or path}")
    _print_json(as_json, {"written": str(out or path), "bytes": len(page)})
    if then_open:
        import webbrowser

        if not webbrowser.open((out or path).resolve().as_uri()):
            _tell(f"No browser was found: open {out or path} by hand.")


@app.command()
def compare(
    context: typer.Context,
    a: Annotated[str, _argument("A", "A recipe, a run folder, a folder of runs, or 'runs/x-*'.")],
    b: Annotated[str, _argument("B", "The same, to be judged against A.")],
    overrides: Annotated[
        list[str] | None,
        _argument("[FIELD=VALUE]...", "Override in both; b.optimizer.lr=0.01 in B alone."),
    ] = None,
    seeds: Annotated[
        int | None, _option("--seeds", "N", "Of each recipe; default: 10.", min=1)
    ] = None,
    runs: Annotated[
        Path,
        _option(
            "--runs", "DIR", "Where missing runs are made; default: runs/compare.", parser=_path
        ),
    ] = Path("runs/compare"),
    points: Annotated[
        float | None,
        _option("--difference", "POINTS", "How many seeds would show this? Default: the observed."),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Say whether B is better than A, over several seeds; trains and tests what is missing."""
    from hydrofoil.files import write_whole
    from hydrofoil.report.comparison import comparison_lines, differs_line
    from hydrofoil.report.page import comparison_page
    from hydrofoil.sides import compare_jobs, differing, kept_path, plan

    if points is not None and not 0 < points <= 100:
        raise HydrofoilError(f"--difference {points:g}: expected points of accuracy, 0 to 100.")
    say, sides = _sayer(as_json), plan(a, b, overrides or [], seeds, runs)
    say(differs_line(differing(*(jobs[0].recipe for jobs in sides))))
    try:
        _complete(context, sides, device, data_root, say)
    except (KeyboardInterrupt, typer.Exit) as left:
        _tell(f"Go on with the comparison: {shlex.join(['hydrofoil', *context.obj])}")
        raise typer.Exit(getattr(left, "exit_code", 130)) from None
    kept = kept_path(*sides, runs)
    comparison = compare_jobs(*sides, points, kept)
    content = comparison.as_dict()
    write_whole(kept, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    page = kept.with_suffix(".html")
    write_whole(page, comparison_page(comparison))
    say(f"\n{comparison_lines(comparison)}\n\nkept: {kept}, and as a page: {page}")
    _print_json(as_json, content)


@app.command()
def bench(
    names: Annotated[
        list[str] | None, _argument("[RECIPE]...", "Default: the five tutorials.")
    ] = None,
    fraction: Annotated[
        float | None, _option("--fraction", "F", "Of the epochs, for a quick look; default: 1.")
    ] = None,
    repeats: Annotated[int | None, _option("--repeats", "N", "Rounds; default: 3.", min=1)] = None,
    cores: Annotated[int | None, _option("--cores", "N", "Default: all.", min=1)] = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Time whole jobs of the tutorials as they stand and of hydrofoil, in turn. Takes hours."""
    import importlib.util
    import subprocess

    script = REPOSITORY / "bench" / "tutorials.py"
    if not script.is_file():
        raise HydrofoilError(
            "bench: bench/tutorials.py lies in hydrofoil's repository, and not in this install.\n"
            "Clone the repository, and run there: pip install -e . && hydrofoil bench"
        )
    if importlib.util.find_spec("torchvision") is None:
        raise HydrofoilError(
            "bench: the tutorials' own side needs torchvision, which is not installed.\n"
            "Install it with: pip install torchvision"
        )
    given = {"--fraction": fraction, "--repeats": repeats, "--cores": cores}
    command = [sys.executable, str(script), *(names or []), *(["--json", "-"] if as_json else [])]
    for flag, value in [*given.items(), ("--root", data_root or None)]:
        command += [] if value is None else [flag, str(value)]
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    status = subprocess.run(command, env=environment).returncode
    if status:
        raise typer.Exit(status if status > 0 else 1)


def _complete(
    context: typer.Context,
    sides: "Sequence[Sequence[Job]]",
    device: str,
    data_root: str,
    say: Callable[[object], None],
) -> None:
    """Train and test what a comparison still lacks, a line a run.

    The sides take turns, so that what an interruption leaves is pairs.
    """
    import torch

    from hydrofoil.report.text import percent
    from hydrofoil.run import Run

    turns = [one for pair in zip_longest(*sides) for one in zip("AB", pair, strict=True) if one[1]]
    threads = torch.get_num_threads()
    for number, (letter, job) in enumerate(turns, start=1):
        torch.set_num_threads(threads)  # a small recipe's one thread is not the next one's choice
        began = time.perf_counter()
        try:
            done = _complete_run(context, job, device, data_root)
        except HydrofoilError as error:
            raise HydrofoilError(f"{letter}, {job.path}: {error}") from error
        took = "" if done == "there" else f" in {time.perf_counter() - began:.1f} s"
        accuracy = percent((Run.open(job.path).test() or {}).get("accuracy"))
        seed = job.recipe.train.seed
        say(f"{number} of {len(turns)}: {letter}, seed {seed}: {accuracy}, {done}{took}")


def _complete_run(context: typer.Context, job: "Job", device: str, data_root: str) -> str:
    """Take a run to its test by the verbs as they stand, and say what was done."""
    state = job.state()
    with redirect_stdout(StringIO()):  # their lines are not this verb's
        if state == "missing":
            name, own = job.name, list(job.overrides)
            train(context, name, own, job.path, None, device, data_root, then_test=True)
        elif state == "unfinished":
            resume(job.path, device=device, data_root=data_root)
        if state in ("unfinished", "untested"):
            test(job.path, device=device, data_root=data_root)
    return {
        "missing": "trained", "unfinished": "resumed", "untested": "tested", "ready": "there"
    }[state]  # fmt: skip


def _resumable(folder: Path, overrides: Sequence[str]) -> "tuple[Run, list[str]]":
    """Open a run to go on with, for other epochs if that is asked; return it and some notes."""
    from hydrofoil.resuming import extend
    from hydrofoil.run import Run, command

    run = Run.open(folder)
    if run.imported():
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

    for note in notes:
        say(f"note: {note}")
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
) -> None:
    """Print what `resume --prove` compared; leave with 1 if it is not the same."""
    from hydrofoil.resuming import prove

    proof = prove(run, model, pictures, split, state, execute)
    same = f"the same bits in {proof.tensors} tensors, and the same sums."
    told = f"DIFFERENT: {', '.join(proof.differing[:6])}" if proof.differing else same
    _sayer(as_json)(f"{proof.compared}:\n{told}")
    _print_json(as_json, proof.as_dict())
    if proof.differing:
        raise typer.Exit(1)


def _load(recipe: "Recipe", data_root: str) -> "Pictures":
    """Load a recipe's set from the root given here, or the recipe's, or the default."""
    from hydrofoil.data.sources import load
    from hydrofoil.progress import DownloadFollower

    with DownloadFollower(_note) as watcher:
        return load(recipe.data.source, data_root or recipe.data.root, watcher)


def _check_testable(recipe: "Recipe", split: "Split") -> None:
    """Refuse to test what has no test split."""
    if not len(split.test):
        raise HydrofoilError(
            f"{recipe.name}: no test split: {recipe.data.source} publishes none, and data.test = 0."
            "\nTrain with data.test=0.2, say."
        )


def _pictures_and_split(recipe: "Recipe", data_root: str) -> "tuple[Pictures, Split]":
    """Load a recipe's set and draw its split."""
    from hydrofoil.data.split import draw_split

    pictures = _load(recipe, data_root)
    return pictures, draw_split(pictures, **recipe.split_options())


def _log_data(run: "Run", pictures: "Pictures", split: "Split", seconds: float) -> None:
    """Log how long reading the set took, and how many pictures of each class each part has."""
    from hydrofoil.data.split import PARTS

    counts = {part: pictures.counts(getattr(split, part)) for part in PARTS}
    run.log({"event": "data", "seconds": seconds, "counts": counts})


def _tracking(run: "Run", names: list[str] | None) -> "Tracking":
    """Return what tells the trackers of a run; one that fails is told of on standard error."""
    from hydrofoil.track import Tracking

    return Tracking(run, names or [], lambda line: print(line, file=sys.stderr))


@contextmanager
def _stoppable(run: "Run", data_root: str) -> Generator[None]:
    """On Ctrl-C or SIGTERM, say how to go on, and leave with 130 or 143."""
    from hydrofoil.report import text
    from hydrofoil.run import command

    try:
        yield
    except KeyboardInterrupt as stopped:
        done, steps = run.epochs_kept(), run.steps_kept()
        part = f" and {text.plural(steps, 'step')}" if steps else ""
        go_on = command("resume", run.path, data_root)
        _tell(
            f"\nstopped after {done} of {run.recipe.train.epochs} epochs{part}.\n"
            f"Go on with: {go_on}"
        )
        raise typer.Exit(128 + getattr(stopped, "number", 2)) from None


def _test(
    run: "Run", device: "torch.device", pictures: "Pictures", say: Callable[[object], None]
) -> dict[str, Any]:
    """Open the test split, count the opening, keep what was found, and draw the figures."""
    from hydrofoil.evaluate.score import answer
    from hydrofoil.evaluate.test import shown_pictures, test_report
    from hydrofoil.report import text
    from hydrofoil.report.results import result_figures
    from hydrofoil.report.words import findings
    from hydrofoil.timing import Stopwatch

    split = run.split()
    split.check(pictures)
    _check_testable(run.recipe, split)
    model, epoch = run.load_best(device)
    clock = Stopwatch(device)
    answers = answer(model, pictures, split.test).cpu()
    seconds = clock.seconds()
    valid = answer(model, pictures, split.valid).cpu() if len(split.valid) else None
    opened = run.times_tested() + 1
    result = test_report(answers, valid, model, run.recipe, epoch=epoch, opened=opened)
    accuracy = result["accuracy"]
    run.log({"event": "test", "opened": opened, "accuracy": accuracy, "seconds": seconds})
    run.keep_answers(test=answers, valid=valid)
    run.keep_shown(pictures, shown_pictures(result))
    run.write_json("test.json", result)
    found = "\n".join(findings(result))
    say(f"{run.path}\n{text.test_lines(result)}\n\n{found}\n")
    for name, png in result_figures(pictures, result).items():
        say(f"drawn: {run.write(f'figures/{name}.png', png)}")
    return result


if __name__ == "__main__":
    main()
