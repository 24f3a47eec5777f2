"""A progress bar for many small things, on a terminal's standard error."""

import time
from collections.abc import Callable, Iterable

from hydrofoil.observe.bar import Bar
from hydrofoil.wording import duration


class Counter:
    """Shows how many are done, once it takes longer than a second.

    Args:
        noun: What is counted, in the plural.
        names: Lists all of them; called when the bar first appears, to count them.
    """

    def __init__(self, noun: str, names: Callable[[], Iterable[object]]) -> None:
        self.noun, self.names = noun, names
        self.began, self.bar = time.perf_counter(), Bar()
        self.total: int | None = None

    def update(self, done: int) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if not self.bar.due() or now - self.began < 1:
            return
        if self.total is None:
            self.total = sum(1 for _ in self.names())
        rate = done / (now - self.began)
        left = f"{duration((self.total - done) / rate)} left" if rate else ""
        name = f"{done:,} of {self.total:,} {self.noun}"
        self.bar.update(name, done, self.total, left, f"{rate:,.0f} {self.noun}/s")

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        self.bar.clear()
