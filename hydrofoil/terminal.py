"""How text is laid out on a terminal: its width, wrapping, tables, color and characters.

Only a terminal has a width. Into a pipe or a file every line goes as it is, without colors, so that
grep and diff work. Nothing here prints: `cli/printing.py` does.
"""

import codecs
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO
from unicodedata import category, east_asian_width

LEAST = 24  # columns: no layout is made for a narrower terminal
COLORS = {"bold": "1", "green": "32", "yellow": "33", "red": "31"}
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
# What is never broken: what a label announces as a path, a command to the end of its line, a path
# with spaces at the start of an error, a number and its unit, and anything in quotation marks.
UNBROKEN = re.compile(
    r"(?<=^saved: ).+?(?=, and |$)|(?<=^run: ).+|(?<=^written: ).+"
    r"|(?:(?<=: )|(?<=^))(?:hydrofoil|pip|python|git|apt-get) .+"
    r"|^[^:\s]*[/\\][^:]*(?=: )"
    r"|(?<!\S)[\d.,]+ (?:s|ms|MB|kB/s|points)\b"
    r"|`[^`]+`|(?<!\w)'[^']+'(?!\w)|(?<!\w)\"[^\"]+\"(?!\w)"
)
# For a terminal whose encoding lacks a character, such as Windows' legacy console.
PLAIN = str.maketrans(
    {"×": "x", "→": ">", "–": "-", "—": "-", "−": "-", "·": "*", "↓": "v", "…": "~", "±": "~",
     "━": "=", "─": "-", "⌊": "[", "⌋": "]", "≥": ">", "≤": "<", "\u2068": "", "\u2069": ""}
)  # fmt: skip
REPLACE = "hydrofoil.plain"  # the name of the encoding error handler


def columns(stream: TextIO | None = None) -> int | None:
    """Return the width of the terminal behind a stream; None where it is not a terminal.

    Args:
        stream: Default: standard output.
    """
    stream = stream or sys.stdout
    if stream is None or not _is_terminal(stream):
        return None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # it has no size
        width = 0
    # The legacy console of Windows breaks a line that fills its last column.
    return max(LEAST, (width or 80) - (os.name == "nt"))


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def colored(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """Return text in colors where a terminal shows them: not with NO_COLOR, nor on a dumb one.

    Args:
        text: One line.
        styles: Of bold, green, yellow and red.
        stream: Where it will be printed; default: standard output.
    """
    if not has_color(stream):
        return text
    return f"\x1b[{';'.join(COLORS[style] for style in styles)}m{text}\x1b[0m"


def has_color(stream: TextIO | None = None) -> bool:
    """Tell whether a stream is a terminal that shows colors, and the user wants them."""
    known = os.environ
    if (
        known.get("NO_COLOR")
        or known.get("TERM") == "dumb"
        or not _is_terminal(stream or sys.stdout)
    ):
        return False
    return os.name != "nt" or "WT_SESSION" in known or "TERM" in known


def length(text: str) -> int:
    r"""Return how many columns a line takes: two for a wide character, none for colors and marks.

    >>> length("cat"), length("猫"), length("\x1b[1mcat\x1b[0m")
    (3, 2, 3)
    """
    text = ESCAPE.sub("", text)
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def wrap(text: str, width: int | None, indent: int = 2) -> str:
    r"""Wrap lines at words; a path or a command is never broken, but moves to a line of its own.

    Lines that fit stay as they are, so tables that were made for this width are safe.

    Args:
        text: One or more lines.
        width: Columns; None leaves the text as it is. For a stream: `columns(stream)`.
        indent: Of continuation lines, beyond that of their line.

    >>> wrap("The rate is too high.\nSee: hydrofoil train --help", 24).split("\n")
    ['The rate is too high.', 'See:', '  hydrofoil train --help']
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        if length(line) <= width:
            lines.append(line)
        else:
            start = len(line) - len(line.lstrip(" "))
            lines += _fill(_words(line[start:]), width, " " * start, " " * (start + indent))
    return "\n".join(lines)


def _words(line: str) -> list[tuple[str, str]]:
    """Return the parts between which a line may be broken, each with the spaces before it."""
    pieces: list[str] = [""]
    at = 0
    for found in UNBROKEN.finditer(line):
        # What touches an unbroken part, a bracket or a comma, stays with it on both sides.
        before, *more = re.split(r"( +)", line[at : found.start()])
        pieces[-1] += before
        pieces += more
        pieces[-1] += found[0]
        at = found.end()
    after, *more = re.split(r"( +)", line[at:])
    pieces[-1] += after
    pieces += more
    words: list[tuple[str, str]] = []
    spaces = ""
    for piece in filter(None, pieces):
        if piece.isspace():
            spaces = piece
        else:
            words.append((spaces, piece))
            spaces = ""
    return words


def _fill(words: list[tuple[str, str]], width: int, first: str, later: str) -> list[str]:
    lines: list[str] = []
    line, empty = first, True
    for spaces, word in words:
        if not empty and length(line) + len(spaces) + length(word) > width:
            lines.append(line)
            line, empty = later, True
        line += word if empty else spaces + word
        empty = False
    return [*lines, line]


def shortened(text: str, width: int) -> str:
    """Return text in at most so many columns, with … for what is left out.

    >>> shortened("automobile", 6), shortened("cat", 6)
    ('autom…', 'cat')
    """
    if length(text) <= width:
        return text
    kept, room = "", width - 1
    for character in text:
        room -= _columns_of(character)
        if room < 0:
            break
        kept += character
    return f"{kept}…"


def table(
    rows: Sequence[Sequence[object]],
    left: int = 1,
    *,
    width: int | None = -1,
    optional: Sequence[int] = (),
    flows: bool = False,
) -> str:
    r"""Return rows as aligned columns: the first `left` to the left, the others to the right.

    Args:
        rows: Of equally many cells, usually with a heading first.
        left: How many columns are aligned to the left.
        width: Columns of the terminal; None: any; default: those of standard output.
        optional: Columns to leave out where the table is too wide, the first of them first.
        flows: The last column is text, which continues on more lines.

    A table that is too wide even so gets its first column shortened.

    >>> table([["class", "count"], ["cat", 10]])
    'class  count\ncat       10'
    >>> table([["lr", "The learning rate."]], 2, width=16, flows=True).split("\n")
    ['lr  The learning', '    rate.']
    """
    width = columns() if width == -1 else width
    cells = [[str(cell) for cell in row] for row in rows]
    kept = list(range(len(cells[0])))
    for column in optional:
        if width is not None and sum(_widths(cells, kept)) + 2 * (len(kept) - 1) > width:
            kept.remove(column)
    widths = _widths(cells, kept)
    if width is not None:
        too_much = sum(widths) + 2 * (len(widths) - 1) - width
        narrow = -1 if flows else 0
        if too_much > 0:
            widths[narrow] = max(8 if flows else 4, widths[narrow] - too_much)
    lines: list[str] = []
    for row in cells:
        lines += _row([row[place] for place in kept], widths, [p < left for p in kept], flows)
    return "\n".join(lines)


def _widths(cells: list[list[str]], kept: list[int]) -> list[int]:
    return [max(length(row[place]) for row in cells) for place in kept]


def _row(row: list[str], widths: list[int], lefts: list[bool], flows: bool) -> list[str]:
    """Return the lines of one row."""
    more: list[str] = []
    if flows:
        row[-1], *more = wrap(row[-1], widths[-1], 0).split("\n")
        indent = " " * (sum(widths[:-1]) + 2 * (len(widths) - 1))
        more = [indent + line for line in more]
    else:
        row = [shortened(cell, width) for cell, width in zip(row, widths, strict=True)]
    cells: list[str] = []
    for cell, width, left in zip(row, widths, lefts, strict=True):
        space = " " * (width - length(cell))
        cells.append(cell + space if left else space + cell)
    return ["  ".join(cells).rstrip(), *more]


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that an encoding lacks; ? where nothing does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end].translate(PLAIN)
    return missing.encode("ascii", "replace").decode("ascii"), error.end


def prepare_stream(stream: Any) -> None:
    """Let a stream print every character: where its encoding lacks one, a similar one stands."""
    codecs.register_error(REPLACE, _plain)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=REPLACE)
