"""The command line: one short function a verb, which parses, calls and prints. Nothing else prints.

Heavy imports stand inside the verbs: `hydrofoil --help` answers before torch would be loaded.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydrofoil.errors import HydrofoilError, nearest

if TYPE_CHECKING:
    import torch

    from hydrofoil.data.pictures import Pictures
    from hydrofoil.data.split import Split
    from hydrofoil.models.classifier import Classifier
    from hydrofoil.recipe import Recipe
    from hydrofoil.run import Run
    from hydrofoil.train.loop import Progress
    from hydrofoil.train.state import State

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From small pictures to a tested model. Try: hydrofoil train digits --test",
)

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FIELD=VALUE]...",
        help="Override fields: train.epochs=3 optimizer.lr=0.01",
        show_default=False,
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="The run folder; default: runs/<recipe>-<n>."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="The recipe's train.seed.")
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")
]
DataRoot = Annotated[
    str,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Where the published sets lie; default: HYDROFOIL_DATA or the cache.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0, 2 for what a person can mend, 130 for Ctrl-C."""
    usage_error = typer.BadParameter.__bases__[
        0
    ]  # click's, which newer versions of typer carry inside
    try:
        status = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except HydrofoilError as error:
        print(error, file=sys.stderr)
        status = 2
    except usage_error as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:  # none where a verb was asked for and its help came
            print(f"{message}\nhydrofoil VERB --help says what a verb takes.", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        print("stopped.", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _sayer(as_json: bool) -> Callable[[object], None]:
    """Return what prints a line for people: nothing when the output is for a program."""
    return (lambda line: None) if as_json else (lambda line: print(line, flush=True))


# ── recipes and show ─────────────────────────────────────────────────────────────────────────────


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Print this one.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the shipped recipes, or print one."""
    from hydrofoil.recipe import read_recipe, recipe_text, shipped_recipes

    if name is not None:
        recipe = read_recipe(name)
        _print_json(recipe.model_dump(mode="json")) if as_json else print(recipe_text(name), end="")
        return
    abouts = {known: read_recipe(known).about for known in shipped_recipes()}
    if as_json:
        _print_json(abouts)
        return
    width = max(map(len, abouts))
    print("\n".join(f"{known:{width}}  {about}" for known, about in abouts.items()))
    print("\nTrain one with: hydrofoil train RECIPE")


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SET|RECIPE|RUN", help="A set, a recipe or a run folder.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    class_name: Annotated[
        str, typer.Option("--class", metavar="NAME", help="Only pictures of this class.")
    ] = "",
    pixels: Annotated[
        int | None,
        typer.Option(
            "--pixels",
            min=0,
            metavar="I",
            help="Draw picture I large, each pixel's value in its cell.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.png", help="Where to draw; default: beside you, or in the run."
        ),
    ] = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Show a set, a recipe or a run: pictures and sizes, layers and costs, learning curves."""
    from hydrofoil.data.sources import SOURCES
    from hydrofoil.recipe import shipped_recipes

    if Path(what).is_dir():
        shown = _show_run(Path(what), out, _sayer(as_json))
    elif what in SOURCES:
        shown = _show_set(what, data_root, class_name, pixels, out, _sayer(as_json))
        if what in shipped_recipes() and pixels is None:
            shown |= _show_recipe(what, overrides or [], _sayer(as_json))
    elif what in shipped_recipes() or what.endswith(".toml"):
        shown = _show_recipe(what, overrides or [], _sayer(as_json))
    else:
        known = [*SOURCES, *shipped_recipes()]
        raise HydrofoilError(f"'{what}' is no set, recipe or run folder. {nearest(what, known)}")
    if as_json:
        _print_json(shown)


def _show_set(
    name: str,
    data_root: str,
    class_name: str,
    pixels: int | None,
    out: Path | None,
    say: Callable[[object], None],
) -> dict[str, Any]:
    """Print a set's numbers and draw its pictures."""
    import torch

    from hydrofoil import text
    from hydrofoil.data.sources import load
    from hydrofoil.data.split import draw_split
    from hydrofoil.report import draw
    from hydrofoil.run import write_whole

    pictures = load(name, data_root)
    if class_name and class_name not in pictures.classes:
        raise HydrofoilError(
            f"'{class_name}' is no class of {name}. {nearest(class_name, pictures.classes)}"
        )
    if pixels is not None:
        if pixels >= len(pictures):
            raise HydrofoilError(
                f"--pixels {pixels}: {name} has pictures 0 to {len(pictures) - 1}."
            )
        label = pictures.classes[int(pictures.labels_N[pixels])]
        path = out or Path(f"{name}-pixels-{pixels}.png")
        write_whole(
            path,
            draw.pixel_values(pictures.pictures_NCHW[pixels], f"{name}, picture {pixels}: {label}"),
        )
        say(f"{name}, picture {pixels}: {label}\ndrawn: {path}")
        return {"source": name, "picture": pixels, "class": label, "drawn": str(path)}
    split = draw_split(pictures)
    say(text.set_lines(pictures, split))
    first_N = split.train[: 4000 * pictures.K // 10]  # enough for every row, in the set's own order
    if class_name:
        wanted = pictures.labels_N[split.train] == pictures.classes.index(class_name)
        first_N = split.train[wanted][:100]
        grid = draw.picture_grid(
            pictures.pictures_NCHW[first_N],
            [f"{int(i)}" for i in first_N],
            heading=f"{name}: {class_name}, by number",
        )
    else:
        grid = draw.class_rows(
            pictures.pictures_NCHW[first_N],
            pictures.labels_N[first_N],
            pictures.classes,
            f"{name}: training pictures",
        )
    path = out or Path(f"{name}{'-' + class_name.replace('/', '-') if class_name else ''}.png")
    write_whole(path, grid)
    say(f"\ndrawn: {path}")
    means, deviations = pictures.channel_statistics(split.train)
    parts: dict[str, torch.Tensor] = {"train": split.train, "test": split.test}
    return {
        "source": name,
        "shape": list(pictures.shape),
        "hash": pictures.hash,
        "counts": {
            part: dict(zip(pictures.classes, pictures.counts(at), strict=True))
            for part, at in parts.items()
        },
        "mean": means,
        "std": deviations,
        "drawn": str(path),
    }


def _show_recipe(
    name: str, overrides: Sequence[str], say: Callable[[object], None]
) -> dict[str, Any]:
    """Print what a recipe trains, layer by layer."""
    from dataclasses import asdict

    from hydrofoil import text
    from hydrofoil.data.sources import find_source
    from hydrofoil.models import build
    from hydrofoil.models.summary import summarise
    from hydrofoil.recipe import read_recipe

    recipe = read_recipe(name, overrides)
    source = find_source(recipe.data.source)
    layers = summarise(build(recipe, source.shape, [""] * source.classes).network, source.shape)
    say(f"{text.recipe_lines(recipe)}\n\n{text.layer_lines(layers, source.shape)}")
    return {"recipe": recipe.model_dump(mode="json"), "layers": [asdict(layer) for layer in layers]}


def _show_run(path: Path, out: Path | None, say: Callable[[object], None]) -> dict[str, Any]:
    """Print a run's epochs and result, and draw its learning curves."""
    from hydrofoil import text
    from hydrofoil.report import draw
    from hydrofoil.run import Run, write_whole

    run = Run.open(path)
    epochs, test = run.epochs(), run.test()
    say(f"{text.recipe_lines(run.recipe)}\n{text.split_line(run.recipe, run.split())}\n")
    for epoch in epochs:
        say(text.epoch_line(epoch, run.recipe.train.epochs))
    drawn = None
    if epochs:
        drawn = out or run.path / "figures" / "curves.png"
        write_whole(drawn, draw.learning_curves(epochs, f"{run.path.name}: learning curves"))
        say(f"\ndrawn: {drawn}")
    left = run.recipe.train.epochs - len(epochs)
    if left > 0:
        say(f"{text.plural(left, 'epoch')} to go: hydrofoil resume {path}")
    say(f"\n{text.test_lines(test)}" if test else f"not tested yet: hydrofoil test {path}")
    return {
        "run": str(path),
        "recipe": run.recipe.model_dump(mode="json"),
        "epochs": epochs,
        "test": test,
        "drawn": str(drawn) if drawn else None,
    }


# ── train, resume and import ─────────────────────────────────────────────────────────────────────


@app.command()
def train(
    recipe_name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A shipped recipe, or a file's path.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    run_folder: RunOption = None,
    seed: Seed = None,
    device: Device = "auto",
    data_root: DataRoot = "",
    then_test: Annotated[
        bool,
        typer.Option("--test", help="Test the kept weights at the end, as hydrofoil test does."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe, and keep everything in a run folder."""
    from hydrofoil import text
    from hydrofoil.device import pick_device, pick_threads
    from hydrofoil.models import build
    from hydrofoil.models.summary import total_multiply_adds
    from hydrofoil.recipe import read_recipe
    from hydrofoil.run import Run, environment
    from hydrofoil.train.state import State

    say = _sayer(as_json)
    seeded = [*(overrides or []), *([] if seed is None else [f"train.seed={seed}"])]
    recipe, place = read_recipe(recipe_name, seeded), pick_device(device)
    pictures, split = _pictures_and_split(recipe, data_root)
    model = build(recipe, pictures.shape, pictures.classes).to(place)
    pick_threads(total_multiply_adds(model.network, pictures.shape) * recipe.train.batch_size)
    run = Run.create(run_folder, recipe, split, environment(place, sys.argv[1:]))
    with run.writing():
        say(f"{text.recipe_lines(recipe)}\n{text.split_line(recipe, split)}\nrun: {run.path}\n")
        summary = _fit(run, model, pictures, split, State.fresh(model, recipe), say)
        if then_test:
            summary["test"] = _test(run, model.device, pictures, say)
        elif len(split.test):
            say(f"next: hydrofoil test {run.path}")
    if as_json:
        _print_json(summary)


@app.command()
def resume(
    run_folder: RunArgument,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, from its last whole epoch."""
    import torch

    from hydrofoil import text
    from hydrofoil.data.sources import load
    from hydrofoil.device import pick_device
    from hydrofoil.models import build
    from hydrofoil.run import Run
    from hydrofoil.train.state import State

    say, run = _sayer(as_json), Run.open(run_folder)
    with run.writing():
        threads = run.environment().get("threads")
        if isinstance(threads, int) and threads > 0:
            torch.set_num_threads(
                threads
            )  # sums are cut by thread: another count gives other last bits
        recipe, split = run.recipe, run.split()
        pictures = load(recipe.data.source, data_root or recipe.data.root)
        split.check(pictures)
        model = build(recipe, pictures.shape, pictures.classes).to(pick_device(device))
        state = State.fresh(model, recipe)
        run.load_last(model, state)
        run.forget_after(state.epoch)
        if state.epoch >= recipe.train.epochs:
            say(f"{run.path}: all {text.plural(recipe.train.epochs, 'epoch')} are done already.")
        else:
            say(f"{run.path}: going on after epoch {state.epoch} of {recipe.train.epochs}\n")
        summary = _fit(run, model, pictures, split, state, say)
        say(f"next: hydrofoil test {run.path}")
    if as_json:
        _print_json(summary)


@app.command("import")
def import_weights(
    recipe_name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="The recipe that the weights belong to.", show_default=False
        ),
    ],
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS", help="A state dict: .pt, .pth or .safetensors.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    run_folder: RunOption = None,
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Make a run from weights that a tutorial saved, to test and use them here."""
    import torch

    from hydrofoil.models import build
    from hydrofoil.recipe import read_recipe
    from hydrofoil.run import Run, environment
    from hydrofoil.ship.adopt import read_weights

    recipe = read_recipe(recipe_name, overrides or [])
    found = read_weights(weights)
    pictures, split = _pictures_and_split(recipe, data_root)
    model = build(recipe, pictures.shape, pictures.classes)
    model.load_weights(found, str(weights))
    run = Run.create(run_folder, recipe, split, environment(torch.device("cpu"), sys.argv[1:]))
    with run.writing():
        run.save_best(model, epoch=0)
        run.log({"event": "imported", "file": weights.name, "weights": model.weights_hash()})
    say = _sayer(as_json)
    say(f"run: {run.path}, with the weights of {weights}")
    say(
        "note: how they were trained is not known here, nor whether on pictures of this run's test split."
    )
    say(f"next: hydrofoil test {run.path}")
    if as_json:
        _print_json({"run": str(run.path), "weights": model.weights_hash()})


def _pictures_and_split(recipe: "Recipe", data_root: str) -> "tuple[Pictures, Split]":
    """Load a recipe's set and draw its split."""
    from hydrofoil.data.sources import load
    from hydrofoil.data.split import draw_split

    pictures = load(recipe.data.source, data_root or recipe.data.root)
    data = recipe.data
    return pictures, draw_split(
        pictures, valid=data.valid, test=data.test, merge=data.merge, seed=recipe.train.seed
    )


def _fit(
    run: "Run",
    model: "Classifier",
    pictures: "Pictures",
    split: "Split",
    state: "State",
    say: Callable[[object], None],
) -> dict[str, Any]:
    """Train, and keep log, best and last weights after every epoch."""
    from hydrofoil import text
    from hydrofoil.train.loop import fit

    began, watcher = time.perf_counter(), _Watcher(run, say)
    try:
        for epoch in fit(model, pictures, split, run.recipe, state=state, watch=watcher):
            watcher.clear()
            run.log(epoch.as_dict())
            if epoch.best:
                run.save_best(model, epoch.number)
            run.save_last(model, state)
            say(text.epoch_line(epoch.as_dict(), run.recipe.train.epochs))
    except KeyboardInterrupt:
        watcher.clear()
        print(
            f"\nstopped after {text.plural(state.epoch, 'whole epoch')}; go on with: hydrofoil resume {run.path}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    finally:
        watcher.clear()
    seconds = time.perf_counter() - began
    best = next((one for one in reversed(run.epochs()) if one["epoch"] == state.best_epoch), {})
    say(f"\nkept: epoch {state.best_epoch}, {text.kept_by(run.recipe)}; trained in {seconds:.1f} s")
    return {"run": str(run.path), "epochs": state.epoch, "kept": best, "seconds": seconds}


class _Watcher:
    """Shows progress inside an epoch: a bar once it takes longer than a second, a line every `log_every` steps."""

    def __init__(self, run: "Run", say: Callable[[object], None]) -> None:
        self.run, self.say = run, say
        self.every = run.recipe.train.log_every
        self.bar: Any = None
        self.terminal = sys.stderr.isatty()
        self.began = self.drawn = time.perf_counter()
        self.epoch = 0
        self.seen = (0.0, 0)

    def __call__(self, progress: "Progress") -> None:
        if progress.epoch != self.epoch:
            self.epoch, self.seen, self.began = progress.epoch, (0.0, 0), time.perf_counter()
        if self.every and progress.step % self.every == 0:
            self._log_running_loss(progress)
        # Reading the clock costs 50 ns a step; the sums are read, and the device waited for, ten times a second.
        if (
            self.terminal
            and (now := time.perf_counter()) - self.drawn > 0.1
            and now - self.began > 1
        ):
            self.drawn = now
            self._draw(progress, progress.step / (now - self.began))

    def _log_running_loss(self, progress: "Progress") -> None:
        scores = progress.sums.read()
        total, count = self.seen
        loss = (scores.loss * scores.count - total) / (scores.count - count)
        self.seen = (scores.loss * scores.count, scores.count)
        self.run.log(
            {"event": "loss", "epoch": progress.epoch, "step": progress.step, "loss": loss}
        )
        self.clear()
        self.say(
            f"epoch {progress.epoch}, step {progress.step:6,}/{progress.steps:,}   mean loss of the last {self.every:,} steps {loss:.3f}"
        )

    def _draw(self, progress: "Progress", rate: float) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        if self.bar is None:
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"),
                TimeRemainingColumn(), console=Console(stderr=True), transient=True, auto_refresh=False,
            )  # fmt: skip
            self.bar.start()
            self.bar.add_task(f"epoch {progress.epoch}", total=progress.steps, now="")
        now = f"loss {progress.sums.read().loss:.4f}  {rate:,.0f} steps/s"
        self.bar.update(self.bar.task_ids[0], completed=progress.step, now=now, refresh=True)

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


# ── test and predict ─────────────────────────────────────────────────────────────────────────────


@app.command()
def test(
    run_folder: RunArgument,
    device: Device = "auto",
    data_root: DataRoot = "",
    as_json: Json = False,
) -> None:
    """Test a run's kept weights on the test split, and draw predictions and the worst mistakes."""
    from hydrofoil.data.sources import load
    from hydrofoil.device import pick_device
    from hydrofoil.run import Run

    run = Run.open(run_folder)
    with run.writing():
        pictures = load(run.recipe.data.source, data_root or run.recipe.data.root)
        result = _test(run, pick_device(device), pictures, _sayer(as_json))
    if as_json:
        _print_json(result)


def _test(
    run: "Run", device: "torch.device", pictures: "Pictures", say: Callable[[object], None]
) -> dict[str, Any]:
    """Open the test split, count the opening, write test.json and the figures."""
    from hydrofoil import text
    from hydrofoil.evaluate.score import answer
    from hydrofoil.evaluate.test import test_report
    from hydrofoil.report.results import result_figures

    split = run.split()
    split.check(pictures)
    if not len(split.test):
        raise HydrofoilError(
            f"{run.path}: the run has no test split: {run.recipe.data.source} publishes none, and data.test = 0.\n"
            "Train again with data.test=0.2, say."
        )
    model, epoch = run.load_best(device)
    opened = (run.test() or {}).get("opened", 0) + 1
    answers = answer(model, pictures, split.test).cpu()
    result = test_report(
        answers, model.classes, run.recipe, epoch=epoch, weights=model.weights_hash(), opened=opened
    )
    run.write_json("test.json", result)
    run.log(
        {
            "event": "test",
            "accuracy": result["accuracy"],
            "count": result["count"],
            "opened": opened,
        }
    )
    say(f"{run.path}\n{text.test_lines(result)}\n")
    for name, png in result_figures(pictures, answers, result, run.recipe.train.seed).items():
        say(f"drawn: {run.write(f'figures/{name}.png', png)}")
    return result


@app.command()
def predict(
    run_folder: RunArgument,
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="Picture files.", show_default=False)
    ],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what a run's model sees in pictures of any format and size."""
    from hydrofoil import text
    from hydrofoil.device import pick_device
    from hydrofoil.run import Run
    from hydrofoil.ship.predict import predict as classify

    model, _ = Run.open(run_folder).load_best(pick_device(device))
    predictions = {str(path): classify(model, path) for path in pictures}
    if as_json:
        _print_json(
            [
                {
                    "picture": path,
                    "class": p.label,
                    "probabilities": p.probabilities,
                    "done": list(p.done),
                }
                for path, p in predictions.items()
            ]
        )
        return
    print(
        "\n".join(
            text.prediction_lines(path, prediction) for path, prediction in predictions.items()
        )
    )


if __name__ == "__main__":
    main()
