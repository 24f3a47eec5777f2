"""The only place that prints: answers on standard output, everything else on standard error.

On a terminal, lines are wrapped at words to its width; see `terminal.py`.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hydrofoil.terminal import columns, wrap


def print_error(line: object) -> None:
    """Print a line on standard error; if that fails, the exit status is all there is."""
    with suppress(OSError):
        print(wrap(str(line), columns(sys.stderr)), file=sys.stderr, flush=True)


def print_line(line: object) -> None:
    """Print a line; a closed pipe (| head) does not end a training."""
    print_verbatim(wrap(str(line), columns()))


def print_verbatim(text: str) -> None:
    """Print what is not prose, such as JSON, TOML or C, without wrapping it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from hydrofoil.files import not_written

        raise not_written(Path("standard output"), error) from error


def note(line: str) -> None:
    """Print progress on standard error; standard output is for the result."""
    print(wrap(line, columns(sys.stderr)), file=sys.stderr, flush=True)


def printer(as_json: bool) -> Callable[[object], None]:
    """Return a function that prints a line, or with --json one that prints nothing."""
    return (lambda line: None) if as_json else print_line


def print_json(as_json: bool, content: object) -> None:
    """Print a verb's result as JSON if that was requested."""
    if as_json:
        print_verbatim(_json(content))


def _json(content: object) -> str:
    """Return JSON; a file name that is not in UTF-8 keeps its bytes as escapes."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, indent=2)
    return text


def open_page(path: Path) -> None:
    """Open a page in the browser, or say that none was found."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        print_error(f"No browser was found: open {path} manually.")


class JsonArray:
    """Prints a JSON array item by item, so that a long one is never held in memory."""

    def __init__(self) -> None:
        self._items = 0

    def add(self, item: object) -> None:
        """Print the next item."""
        print_verbatim(f"{',' if self._items else '['}\n{_json(item)}")
        self._items += 1

    def end(self) -> None:
        """Close the array."""
        print_verbatim("]" if self._items else "[]")
