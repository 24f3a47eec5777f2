"""A progress bar in the last line of a terminal, on standard error."""

import os
import sys
import time
from typing import TextIO

from hydrofoil.terminal import columns, length, shortened

UPDATE_SECONDS = 0.1  # between two drawings
FULL, EMPTY, LEAST, MOST = "━", "─", 10, 40  # characters of the bar, and how many


class Bar:
    """A line that is drawn over itself, and is gone before anything else is printed.

    It needs no escape sequences, so that every console shows it. Where standard error is no
    terminal, or a dumb one, nothing is drawn.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = columns(self.stream) is not None and os.environ.get("TERM") != "dumb"
        self.drawn = time.perf_counter()
        self.visible = False

    def due(self, after: float = UPDATE_SECONDS) -> bool:
        """Tell whether it is time to draw."""
        return self.terminal and time.perf_counter() - self.drawn >= after

    def update(self, name: str, done: float, total: float, *words: str) -> None:
        """Draw so much of the total, between a name and words; those that do not fit are left out.

        Args:
            name: What goes on.
            done: So far.
            total: In the end; 0: unknown.
            words: What else to say, the most important first.
        """
        self.drawn = time.perf_counter()
        width = (columns(self.stream) or 80) - 1
        line = bar_line(name, done, total, words, width)
        # Back to the line's start, so that what a key echoes, such as ^C, is cleared with the bar.
        self._write(f"\r{line}{' ' * (width - length(line))}\r")
        self.visible = True

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        if self.visible:
            self._write(f"\r{' ' * ((columns(self.stream) or 80) - 1)}\r")
            self.visible = False

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def bar_line(name: str, done: float, total: float, words: tuple[str, ...], width: int) -> str:
    """Return a bar as a line of at most so many columns.

    >>> bar_line("epoch 2/4", 1, 4, ("1:30 left", "loss 0.1"), 40)
    'epoch 2/4  ━━━─────────   25%  1:30 left'
    >>> bar_line("epoch 2/4", 1, 4, ("1:30 left",), 24)
    'epoch 2/4  25%'
    """
    share = min(1.0, done / total) if total else 0.0
    shown = [f"{share:4.0%}" if total else "", *words]
    while len(shown) > 1 and _taken(name, shown) + LEAST + 2 > width:
        shown.pop()
    size = min(MOST, width - _taken(name, shown) - 2)
    filled = round(share * size)
    bar = f"{FULL * filled}{EMPTY * (size - filled)}" if size >= LEAST else ""
    shown = shown if bar else [part.strip() for part in shown]
    return shortened("  ".join(filter(None, [name, bar, *shown])), width)


def _taken(name: str, shown: list[str]) -> int:
    return length(name) + sum(length(part) + 2 for part in shown if part)
