"""A check of images as lines for the terminal; `cli` prints them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydrofoil.check.finding import Finding, Row
from hydrofoil.check.result import Check, levels_line
from hydrofoil.data.listing import shown
from hydrofoil.terminal import colored, table
from hydrofoil.wording import all_of, by, isolated, percent, percent_range, plural, sentence

MOST_ROWS = 3  # of a finding in the terminal; the page and the JSON have more
MOST_FIGURES = 8  # rows of a table there
MOST_NAMES = 4  # images of a row there
STYLES = {"serious": ("bold", "red"), "warning": ("bold", "yellow"), "note": ("bold",)}
# How names of figures end that are shares.
SHARES = (
    "share", "rate", "accuracy", "interval", "probability", "recall", "separated", "error", "doubt",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Figures of a finding as a table; cells are text."""

    name: str
    head: list[str]
    rows: list[list[str]]
    more: int


def check_lines(check: Check) -> str:
    """Return a check as text: its findings, each with its first rows and what to do."""
    pictures = check.pictures
    parts = [f"{count:,} {part}" for part, count in check.parts.items() if count]
    said = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    lines = [
        f"{shown(pictures.source)}: {plural(len(pictures), 'image')} of {by(pictures.shape)}, "
        f"{pictures.K:,} classes{said}: {levels_line(check)}"
    ]
    before = ""
    for finding in check.findings:
        lines += [] if finding.level == before == "note" else [""]
        lines += _finding_lines(check, finding)
        before = finding.level
    if check.not_checked:
        lines.append("")
    lines += [f"not checked: {name}: {why}" for name, why in check.not_checked.items()]
    return "\n".join(lines)


def _finding_lines(check: Check, finding: Finding) -> list[str]:
    word = colored(f"{finding.level}:", *STYLES[finding.level])
    lines = [f"{word} {shown_text(finding.title)}"]
    if finding.level == "note":  # nothing to do: the page and the JSON have the rest
        return lines
    lines += [f"  {sentence(shown_text(line))}" for line in finding.text]
    for one in figure_tables(finding, MOST_FIGURES):
        text = table([one.head, *one.rows])
        lines += [f"  {line}" for line in text.split("\n")]
        lines += [f"  and {one.more:,} more"] if one.more else []
    lines += [f"  - {_row_line(check, row)}" for row in finding.rows[:MOST_ROWS]]
    more = len(finding.rows) - MOST_ROWS
    return [*lines, f"  and {more:,} more"] if more > 0 else lines


def _row_line(check: Check, row: Row) -> str:
    names: list[str] = []
    for place, at in enumerate(row.images[:MOST_NAMES]):
        about = [shown_text(check.class_of(at)), check.part_of(at)]
        # What the folders of its path say already is not repeated.
        about = [word for word in about if word not in check.name_of(at).split("/")[:-1]]
        about += [shown_text(row.captions[place])] if row.captions[place : place + 1] else []
        said = ", ".join(filter(None, about))
        names.append(f"{check.name_of(at)} ({said})" if said else check.name_of(at))
    more = len(row.images) - MOST_NAMES
    names += [f"{more:,} more"] if more > 0 else []
    text = shown_text(row.text)
    return ": ".join(filter(None, [text, all_of(names) if names else ""]))


def figure_tables(finding: Finding, most: int) -> list[Table]:
    """Return those of a finding's figures that are tables: lists of mappings with the same keys.

    Figures whose names end as `SHARES` says are shown as percentages.

    Args:
        finding: The finding.
        most: Rows of a table.
    """
    return [
        _table(name, cast("Sequence[Mapping[str, Any]]", value), most)
        for name, value in finding.figures.items()
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
    ]


def shown_text(text: str) -> str:
    r"""Return text without what no page and no JSON can hold: halves of characters, controls.

    >>> shown_text("caf\udce9\x00.png is the same as a.png")
    'caf\\udce9\\x00.png is the same as a.png'
    """
    return "".join(one if one.isprintable() or one == " " else ascii(one)[1:-1] for one in text)


def _table(name: str, rows: Sequence[Mapping[str, Any]], most: int) -> Table:
    head = list(rows[0])
    cells = [[_cell(key, row.get(key)) for key in head] for row in rows[:most]]
    words = [key.replace("_", " ").replace("auc", "AUC") for key in head]
    return Table(name.replace("_", " "), words, cells, len(rows) - len(cells))


def _cell(key: str, value: Any) -> str:
    """Return a figure as text: a share as a percentage, by its name."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        bounds = cast("Sequence[float]", value)
        return percent_range(bounds) if key.endswith(SHARES) else " to ".join(map(str, bounds))
    if key.endswith(SHARES) and isinstance(value, int | float):
        return percent(value, 1)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else isolated(shown_text(str(value)))
