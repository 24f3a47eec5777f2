"""The one error that a person can cause and mend, and the hint that goes with a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


class HydrofoilError(Exception):
    """What a person can mend: one to three lines saying what came, what was expected, what to do.

    The command line prints the message on standard error and ends with exit status 2. Anything else
    that is raised is a bug of ours and keeps its traceback.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list them all.

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
    """Say why the operating system refused, without number and path ("No space left on device")."""
    return error.strerror or str(error)
