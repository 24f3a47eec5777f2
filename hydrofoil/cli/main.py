"""The command line: one short function per verb, which parses, calls and prints.

Heavy imports are inside the verbs, so that `hydrofoil --help` does not import torch.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from hydrofoil import __version__
from hydrofoil.cli import (
    caching,
    checking,
    comparing,
    listing,
    looking,
    predicting,
    rates,
    shipping,
    training,
    tuning,
)
from hydrofoil.cli.options import app, dashed_name
from hydrofoil.cli.printing import print_error, print_line
from hydrofoil.errors import HydrofoilError, closest
from hydrofoil.terminal import prepare_stream

__all__ = ["app", "main"]
VERBS = (
    listing,
    looking,
    checking,
    training,
    rates,
    predicting,
    shipping,
    comparing,
    tuning,
    caching,
)  # each registers its verbs with the application
BUG = "This is a bug in hydrofoil: please report it with the text above and `hydrofoil --version`."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a status.

    0: done; 2: an error that the user can fix, in one to three lines; 130 and 143: stopped by
    Ctrl-C or SIGTERM; 1: a proof or benchmark failed, or a bug in hydrofoil, with its traceback.
    """
    usage_error: Any = typer.BadParameter.__bases__[0]  # click's; newer versions of typer carry it
    for stream in (sys.stdout, sys.stderr):
        prepare_stream(stream)  # a terminal without → or – shows > or - for it
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(
            args=given or ["--help"], prog_name="hydrofoil", standalone_mode=False, obj=given
        )
    except HydrofoilError as error:
        print_error(error)
        status = 2
    except usage_error as error:
        print_error(_usage_lines(error, given))
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


def _usage_lines(usage_error: Any, given: Sequence[str]) -> str:
    """Say what is wrong with a command line, what was probably meant, and where help is."""
    verb, parameters = _verb(getattr(usage_error, "ctx", None))
    see = f"See: hydrofoil{f' {verb}' if verb else ''} --help"
    typed = str(getattr(usage_error, "option_name", ""))
    if dashed := dashed_name(given):
        return f"{usage_error.format_message()}\n{dashed}"
    if not (verb and typed.startswith("--")):
        return f"{usage_error.format_message()}\n{see}"
    return f"{_unknown_option(typed[2:], verb, parameters)}\n{see}"


def _verb(context: Any) -> tuple[str, Sequence[Any]]:
    """Return the name and parameters of the verb that was called; neither if there was none."""
    if context is None or context.parent is None:
        return "", []
    return context.info_name, context.command.params


def _unknown_option(typed: str, verb: str, parameters: Sequence[Any]) -> str:
    """Name the verb's option or the recipe's field that was probably meant."""
    from hydrofoil.recipe.naming import is_field, short_names

    takes_fields = any(parameter.name == "overrides" for parameter in parameters)
    if is_field(typed) and not takes_fields:
        return f"--{typed}: a field of a recipe; {verb} takes none."
    own = {name.lstrip("-") for parameter in parameters for name in parameter.opts}
    fields = {name.replace("_", "-") for name in short_names()} if takes_fields else set[str]()
    close = closest(typed, own | fields | {"help"})
    return f"unknown option --{typed}.{f' Did you mean --{close}?' if close else ''}"


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
    """From small images to a tested model. Try: hydrofoil train digits --test."""
