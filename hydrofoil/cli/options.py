"""The application, and the arguments and options that several verbs share."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from hydrofoil.cli import completion
from hydrofoil.cli.verbs import Verb, Verbs

BEGAN = perf_counter()  # about when the process began: what comes before takes some 50 ms


class Application(typer.Typer):
    """hydrofoil's application: its verbs take a recipe's fields as options."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        """Register a verb."""
        return super().command(name, cls=Verb, **options)


app = Application(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def argument(name: str, help: str, **options: Any) -> Any:
    """Return a positional argument, as typer takes it."""
    return typer.Argument(metavar=name, help=help, show_default=False, **options)


def option(flag: str, name: str, help: str, **limits: Any) -> Any:
    """Return an option, as typer takes it."""
    return typer.Option(flag, metavar=name, help=help, show_default=False, **limits)


def path_of(given: str | Path) -> Path:
    """Return the path that was typed: an empty one would mean the current folder."""
    text = str(given)  # a default is a path already
    if not text or "\0" in text:
        raise typer.BadParameter("expected a path, and got an empty one.")
    return Path(text)


def run_of(given: str | Path) -> Path:
    """Return the path of a run that was typed as a path, as its name in runs/, or as last."""
    from hydrofoil.run.find import run_path

    return run_path(path_of(given))


def existing_run(given: str | Path) -> Path:
    """Return the path of a run, which has to exist."""
    from hydrofoil.run.find import find_run_folder

    return find_run_folder(path_of(given))


def dashed_name(given: Sequence[str]) -> str:
    """Say how to name a file that begins with a dash; nothing where no argument is such a file."""
    for word in given[: given.index("--")] if "--" in given else given:
        if word.startswith("-") and word != "-" and Path(word).exists():
            return f"{word} is a file: names that begin with a dash go after --, or as ./{word}"
    return ""


def named(given: str) -> str:
    """Return the name of an image, a folder or a pattern."""
    return str(path_of(given)) if given != "-" else given


def _check_trackers(names: list[str] | None) -> list[str]:
    """Refuse a tracker that is unknown or not installed while the command line is read."""
    if names:
        from hydrofoil.observe.track import check_trackers

        check_trackers(names)
    return names or []


RecipeName = Annotated[
    str,
    argument(
        "RECIPE", "A shipped recipe's name, or a file's path.", autocompletion=completion.recipes
    ),
]


RecipeOrSource = Annotated[
    str,
    argument(
        "RECIPE|SOURCE",
        "A shipped recipe's name, a recipe file, or images from which a recipe is derived: the "
        "path of a folder, table or archive, or a published dataset's name.",
        autocompletion=completion.recipes,
    ),
]


Source = Annotated[
    str,
    argument(
        "SOURCE",
        "Images: the path of a folder, table or archive, or a published dataset's name.",
    ),
]


Overrides = Annotated[
    list[str] | None,
    argument(
        "[FIELD=VALUE]...",
        "Override: epochs=3 lr=0.01, or --epochs 3 --lr 0.01",
        autocompletion=completion.overrides,
    ),
]


RunFolder = Annotated[
    Path,
    argument(
        "RUN",
        "A run's folder, its name in runs/, or last.",
        parser=existing_run,
        autocompletion=completion.runs,
    ),
]


RunFolders = Annotated[
    list[Path],
    argument(
        "RUN...",
        "One run, or several, by folder or by name.",
        parser=run_of,
        autocompletion=completion.runs,
    ),
]


Shown = Annotated[
    str,
    argument(
        "DATASET|RECIPE|RUN",
        "A dataset, a recipe or a run.",
        autocompletion=completion.recipes_and_runs,
    ),
]


NewRun = Annotated[
    Path | None,
    option("--run", "DIR", "The run folder to make; default: runs/<recipe>-<n>.", parser=path_of),
]


Seed = Annotated[int | None, option("--seed", "N", "The recipe's train.seed.", min=0)]


Device = Annotated[str, option("--device", "NAME", "auto (default), cpu, cuda, cuda:1 or mps.")]


DataRoot = Annotated[
    str, option("--data-root", "DIR", "The datasets' folder; default: HYDROFOIL_DATA or the cache.")
]


Track = Annotated[
    list[str] | None,
    option(
        "--track",
        "NAME",
        "Also log to tensorboard or mlflow (repeatable).",
        callback=_check_trackers,
    ),
]


TimeBudget = Annotated[
    str,
    option(
        "--budget",
        "TIME",
        "Choose the epochs so that all of it, test included, ends in this time: 30s, 2m, 1h.",
    ),
]


OtherEpochs = Annotated[
    list[str] | None, argument("[epochs=N]", "Train for another number of epochs.")
]


Execute = Annotated[
    str | None,
    option("--execute", "NAME", "Resume with eager, compile, graph or native; default: as before."),
]


Prove = Annotated[
    bool,
    typer.Option("--prove", help="Verify on a few steps that resuming is bit-exact."),
]


Full = Annotated[
    bool, typer.Option("--full", help="Of a test: all classes, and the confusion matrix.")
]


Verbose = Annotated[
    bool, typer.Option("--verbose", help="Also say what the executor's steps add up to.")
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


ModelCode = Annotated[
    str | None,
    option(
        "--model-code", "FILE.py:NAME", "Run this file: its NAME makes the network to use here."
    ),
]


Images = Annotated[
    list[str],
    argument(
        "IMAGE...",
        "Image files, folders of them, patterns ('scans/*.png'), or - for standard input. Names "
        "that begin with a dash go after --.",
        parser=named,
    ),
]


Invert = Annotated[
    bool, typer.Option("--invert", help="Exchange dark and bright, whatever the training set.")
]


AsIs = Annotated[
    bool,
    typer.Option(
        "--as-is",
        help="Only crop and resize: do not invert, cut out or center as the training images were.",
    ),
]


Center = Annotated[
    bool,
    typer.Option(
        "--center",
        help="Cut out the drawing, scale and center it, as MNIST's makers did; by itself only "
        "where the training images were made so.",
    ),
]


Background = Annotated[
    str | None,
    option(
        "--background",
        "COLOR",
        "What transparency is composed onto: white (default; black where the image would vanish on "
        "white), black or #rrggbb.",
    ),
]
