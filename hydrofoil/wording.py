"""Numbers and names as text, without any knowledge of what they are about.

One style everywhere, in the terminal, on pages and in figures: 1,797 images, 98.89%, 97.2–99.6%.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share as a percentage; a dash for None.

    >>> percent(0.6476), percent(0.5, 0), percent(None)
    ('64.76%', '50%', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def percent_range(bounds: Sequence[float], digits: int = 1) -> str:
    """Return an interval of shares.

    >>> percent_range((0.972, 0.9961))
    '97.2–99.6%'
    """
    low, high = bounds
    return f"{100 * low:.{digits}f}–{percent(high, digits)}"


def interval(bounds: Sequence[float], digits: int = 1) -> str:
    """Return a 95% interval of shares with its name.

    >>> interval((0.972, 0.9961))
    '95% interval 97.2–99.6%'
    """
    return f"95% interval {percent_range(bounds, digits)}"


def points(share: float | None, digits: int = 2) -> str:
    """Return a difference of shares in percentage points; a dash for None.

    >>> points(0.0123)
    '1.23 points'
    """
    return "–" if share is None else f"{100 * share:.{digits}f} points"


def duration(seconds: float) -> str:
    """Return a time that is left.

    >>> duration(7.2), duration(83), duration(7390)
    ('0:07', '1:23', '2:03:10')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_taken(seconds: float) -> str:
    """Return a time that something takes.

    >>> time_taken(44.4), time_taken(200), time_taken(7390)
    ('44 s', '3 min', '2 h 3 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "epoch"), plural(2000, "step")
    ('1 epoch', '2,000 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def gigabytes(size: int) -> str:
    """Return a number of bytes.

    >>> gigabytes(3_072_000_000)
    '3.07 GB'
    """
    return f"{size / 1e9:.2f} GB"


def all_of(names: Sequence[str]) -> str:
    """Return names as a sentence lists them.

    >>> all_of(["A", "B", "C"])
    'A, B and C'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def by(shape: Sequence[int]) -> str:
    """Return a shape in words.

    >>> by((3, 32, 32)), by(())
    ('3×32×32', 'one number')
    """
    return "×".join(map(str, shape)) or "one number"


def isolated(name: str) -> str:
    """Return a name with its writing direction isolated: one in Arabic would reorder the figures.

    >>> isolated("cat"), isolated("\u05d0")
    ('cat', '\u2068א\u2069')
    """
    return name if name.isascii() else f"\u2068{name}\u2069"


def flat(content: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names.

    >>> flat({"name": "a", "train": {"epochs": 2}})
    {'name': 'a', 'train.epochs': 2}
    """
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{section}{name}.")
        else:
            found[f"{section}{name}"] = value
    return found


def sentence(text: str) -> str:
    """Return text with its first letter in upper case and a period at its end.

    >>> sentence("B is better than A")
    'B is better than A.'
    """
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
