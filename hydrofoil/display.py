"""What a notebook shows of a value: report/ draws it, and is imported when a notebook asks.

Values such as `Pictures` come before report/ along the flow and import nothing from it.
"""

from importlib import import_module


def notebook_html(kind: str, value: object) -> str:
    """Return a value's `_repr_html_`, as `hydrofoil.report.notebook.<kind>_html` draws it."""
    drawn: object = getattr(import_module("hydrofoil.report.notebook"), f"{kind}_html")(value)
    return str(drawn)
