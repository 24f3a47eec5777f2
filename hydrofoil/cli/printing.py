"""The only place that prints: answers on standard output, everything else on standard error."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def print_error(line: object) -> None:
    """Print a line on standard error; where nothing can be written there, the status must do."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def print_line(line: object) -> None:
    """Print a line; its reader may go away (| head): no run is lost for that."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from hydrofoil.files import not_written

        raise not_written(Path("standard output"), error) from error


def note(line: str) -> None:
    """Tell what goes on on standard error: standard output is the verb's answer."""
    print(line, file=sys.stderr, flush=True)


def printer(as_json: bool) -> Callable[[object], None]:
    """Return what prints a line for a person, and nothing where the output is for a program."""
    return (lambda line: None) if as_json else print_line


def print_json(as_json: bool, content: object) -> None:
    """Print a verb's answer as JSON where that was requested."""
    if as_json:
        print_line(json.dumps(content, indent=2, ensure_ascii=False))


class JsonArray:
    """Prints a JSON array item by item, so that a long one is never held in memory."""

    def __init__(self) -> None:
        self._items = 0

    def add(self, item: object) -> None:
        """Print the next item."""
        text = json.dumps(item, indent=2, ensure_ascii=False)
        print_line(f"{',' if self._items else '['}\n{text}")
        self._items += 1

    def end(self) -> None:
        """Close the array."""
        print_line("]" if self._items else "[]")
