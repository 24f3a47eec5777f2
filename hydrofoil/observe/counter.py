"""A progress bar for many small things, on a terminal's standard error."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any


class Counter:
    """Shows how many are done, once it takes longer than a second.

    Args:
        noun: What is counted, in the plural.
        names: Lists all of them; called when the bar first appears, to count them.
    """

    def __init__(self, noun: str, names: Callable[[], Iterable[object]]) -> None:
        self.noun, self.names = noun, names
        self.terminal = sys.stderr.isatty()
        self.began = self.drawn = time.perf_counter()
        self.total: int | None = None
        self.bar: Any = None

    def update(self, done: int) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if not self.terminal or now - self.began < 1 or now - self.drawn < 0.1:
            return
        self.drawn = now
        self.bar = self.bar or self._started()
        rate = f"{done / (now - self.began):,.0f} {self.noun}/s"
        self.bar.update(self.bar.task_ids[0], completed=done, now=rate, refresh=True)

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _started(self) -> Any:
        from rich import progress as rich
        from rich.console import Console

        if self.total is None:
            self.total = sum(1 for _ in self.names())
        columns = (
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[now]}", markup=False),
            rich.TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        bar = rich.Progress(*columns, console=console, transient=True, auto_refresh=False)
        bar.start()
        bar.add_task(self.noun, total=self.total, now="")
        return bar
