"""What a notebook shows of a value: report/ draws it, and is imported when a notebook asks.

Values such as `Pictures` come before report/ along the flow and import nothing from it.
"""

from importlib import import_module


def notebook_html(kind: str, value: object) -> str:
    """Return a value's `_repr_html_`, as `hydrofoil.report.notebook.<kind>_html` draws it."""
    drawn: object = getattr(import_module("hydrofoil.report.notebook"), f"{kind}_html")(value)
    return str(drawn)


def brief(text: object, most: int = 40) -> str:
    r"""Return a name on one line and shortened at its end, for a `repr`.

    >>> brief("a\nb"), brief("x" * 50, 5)
    ('a b', 'xxxx…')
    """
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
