"""The application, and the arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
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
    """Return the path that was typed: an empty one would be the folder that one stands in."""
    text = str(given)  # a default is a path already
    if not text or "\0" in text:
        raise typer.BadParameter("expected a path, and got an empty one.")
    return Path(text)


def _check_trackers(names: list[str] | None) -> list[str]:
    """Refuse a tracker that is unknown or not installed while the command line is read."""
    if names:
        from hydrofoil.observe.track import check_trackers

        check_trackers(names)
    return names or []


RecipeName = Annotated[str, argument("RECIPE", "A shipped recipe's name, or a file's path.")]


Overrides = Annotated[
    list[str] | None, argument("[FIELD=VALUE]...", "Override: train.epochs=3 optimizer.lr=0.01")
]


RunFolder = Annotated[Path, argument("RUN", "The run folder.", parser=path_of)]


NewRun = Annotated[
    Path | None,
    option("--run", "DIR", "The run folder to make; default: runs/<recipe>-<n>.", parser=path_of),
]


Seed = Annotated[int | None, option("--seed", "N", "The recipe's train.seed.", min=0)]


Device = Annotated[str, option("--device", "NAME", "auto (default), cpu, cuda, cuda:1 or mps.")]


DataRoot = Annotated[
    str, option("--data-root", "DIR", "Where the sets lie; default: HYDROFOIL_DATA or the cache.")
]


Track = Annotated[
    list[str] | None,
    option(
        "--track",
        "NAME",
        "Also tell tensorboard or mlflow; may be given twice.",
        callback=_check_trackers,
    ),
]


OtherEpochs = Annotated[
    list[str] | None, argument("[train.epochs=N]", "Train for another number of epochs.")
]


Execute = Annotated[
    str | None,
    option("--execute", "NAME", "Go on with eager, compile, graph or native; default: as begun."),
]


Prove = Annotated[
    bool, typer.Option("--prove", help="Only show, in a few steps, that resuming is exact.")
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


ModelCode = Annotated[
    str | None,
    option(
        "--model-code", "FILE.py:NAME", "Run this file: its NAME makes the network to use here."
    ),
]
