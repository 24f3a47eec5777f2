"""The error that users can cause and fix, and the suggestion for a mistyped name."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile


class HydrofoilError(Exception):
    """An error the user can fix, in one to three lines: what came, what was expected, what to do.

    The command line prints the message on standard error and exits with status 2. Any other
    exception is a bug in hydrofoil and keeps its traceback.
    """


class InputError(HydrofoilError, ValueError):
    """A value that was passed in Python and does not fit; scikit-learn expects a ValueError."""


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant; empty if none is similar.

    A name that the word begins wins; a common beginning counts more than letters further on.

    >>> closest("epoks", ["eps", "epochs"]), closest("opt", ["dropout", "optimizer"])
    ('epochs', 'optimizer')
    >>> closest("zebra", ["eps", "epochs"])
    ''
    """
    known = sorted(known)
    begun = [name for name in known if len(word) >= 3 and name.startswith(word)]
    if begun:
        return min(begun, key=len)
    similar = get_close_matches(word, known, n=5)
    return max(similar, key=lambda name: _similarity(word, name), default="")


def _similarity(word: str, name: str) -> float:
    """Return how similar two names are, from 0 to 1: Winkler's rule on difflib's ratio."""
    ratio = SequenceMatcher(None, word, name).ratio()
    pairs = zip(word[:4], name[:4], strict=False)
    begins_alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return ratio + 0.1 * begins_alike * (1 - ratio)


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known name that was probably meant, and list all of them.

    >>> nearest("cifar-10", ["mnist", "cifar10"])
    "Did you mean 'cifar10'? Known: cifar10, mnist."
    >>> nearest("zebra", ["mnist", "cifar10"])
    'Known: cifar10, mnist.'
    """
    known = sorted(known)
    close = closest(word, known)
    hint = f"Did you mean '{close}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}."


def reason(error: OSError) -> str:
    """Return the operating system's reason without number and path ("No space left on device")."""
    return error.strerror or str(error)
