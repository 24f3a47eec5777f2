"""The command line: one short function per verb, which parses, calls and prints.

Heavy imports are inside the verbs, so that `hydrofoil --help` does not import torch.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from hydrofoil import __version__
from hydrofoil.cli import comparing, looking, predicting, shipping, training
from hydrofoil.cli.options import app, dashed_name
from hydrofoil.cli.printing import print_error, print_line
from hydrofoil.errors import HydrofoilError

__all__ = ["app", "main"]
VERBS = (
    looking,
    training,
    predicting,
    shipping,
    comparing,
)  # each registers its verbs with the application
BUG = "This is a bug in hydrofoil: please report it with the text above and `hydrofoil --version`."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a status.

    0: done; 2: an error that the user can fix, in one to three lines; 130 and 143: stopped by
    Ctrl-C or SIGTERM; 1: a proof or benchmark failed, or a bug in hydrofoil, with its traceback.
    """
    usage_error: Any = typer.BadParameter.__bases__[0]  # click's; newer versions of typer carry it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → or – shows ? for it
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(args=given or ["--help"], standalone_mode=False, obj=given)
    except HydrofoilError as error:
        print_error(error)
        status = 2
    except usage_error as error:
        print_error(f"{error.format_message()}\n{dashed_name(given) or _hint(error)}")
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        print_error("stopped.")
        status = 130
    except OSError as error:  # that no caller has turned into a HydrofoilError
        name = f"{error.filename}: " if error.filename else ""
        print_error(f"{name}{error.strerror or error}.")
        status = 2
    except Exception as error:
        status = _say_unexpected(error)
    sys.exit(status if isinstance(status, int) else 0)


def _hint(usage_error: Any) -> str:
    """Say where help is; a recipe's field that was written as an option is written otherwise."""
    field = str(getattr(usage_error, "option_name", "")).lstrip("-").replace("-", "_")
    if field:
        from hydrofoil.recipe.read import documented_fields

        for section, name, _, _ in documented_fields():
            if section and name.rpartition(".")[2] == field:
                dotted = name if "." in name else f"{section.split()[0].strip('[]')}.{name}"
                return f"A recipe's field is given without dashes: {dotted}=VALUE"
    context = getattr(usage_error, "ctx", None)
    verb = f" {context.info_name}" if context is not None and context.parent is not None else ""
    return f"See: hydrofoil{verb} --help"


def _say_unexpected(error: Exception) -> int:
    """Tell a lack of memory or a lost GPU from a bug of ours; return the exit status."""
    from hydrofoil.device import first_line, is_device_failure, is_out_of_memory

    if is_out_of_memory(error):
        print_error(f"out of memory: {first_line(error)}\nTry a smaller train.batch_size or model.")
        return 2
    if is_device_failure(error):
        print_error(f"the GPU failed: {first_line(error)}\nTry again with --device cpu.")
        return 2
    import traceback

    traceback.print_exception(error)
    print_error(BUG)
    return 1


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"hydrofoil {__version__}")
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
