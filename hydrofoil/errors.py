"""The error that users can cause and fix, and the suggestion for a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


class HydrofoilError(Exception):
    """An error the user can fix, in one to three lines: what came, what was expected, what to do.

    The command line prints the message on standard error and exits with status 2. Any other
    exception is a bug in hydrofoil and keeps its traceback.
    """


class InputError(HydrofoilError, ValueError):
    """A value that was passed in Python and does not fit; scikit-learn expects a ValueError."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known name that was probably meant, and list all of them.

    >>> nearest("cifar-10", ["mnist", "cifar10"])
    "Did you mean 'cifar10'? Known: cifar10, mnist."
    >>> nearest("zebra", ["mnist", "cifar10"])
    'Known: cifar10, mnist.'
    """
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}."


def reason(error: OSError) -> str:
    """Return the operating system's reason without number and path ("No space left on device")."""
    return error.strerror or str(error)
