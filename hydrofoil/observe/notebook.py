"""A training in a Jupyter notebook: one display that is updated, with a row for each epoch."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from hydrofoil.data.published.download import Download
from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.recipe.derive import Choice
from hydrofoil.recipe.schema import why_early
from hydrofoil.report import text
from hydrofoil.report.charts import tag
from hydrofoil.report.notebook import training_html
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.wording import duration, plural

UPDATE_SECONDS = 0.1  # between two updates of the display
MOST_EPOCHS = 20  # rows of the table


def in_notebook() -> bool:
    """Tell whether the code runs in a Jupyter kernel; a terminal's IPython is none."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def show_link(path: Path) -> None:
    """Show a link to a file in a notebook; elsewhere, nothing."""
    if in_notebook():
        from IPython.display import HTML, display

        # A notebook's page may not open file:// links; relative ones are served beside it.
        href = path.as_uri() if path.is_absolute() else quote(path.as_posix())
        display(HTML(tag("a", path, href=href, target="_blank")))


class NotebookProgress(Observer):
    """Shows a training as a table that grows: one row an epoch, a bar, and the time that is left.

    It is one output, which is replaced; of a long training it shows the best epoch and the last.
    """

    def __init__(self) -> None:
        self.display, self.run = Display(), None
        self.total = self.done = 0
        self.first = self.began = 0.0
        self.epochs: list[Epoch] = []
        self.notes: tuple[str, ...] = ()
        self.choices: tuple[Choice, ...] = ()
        self.line = ""

    run: Run | None

    def prepared(self, start: Start) -> None:
        """Show an empty bar, the notes, and the epochs of earlier sessions."""
        self.run, self.notes, self.choices = start.run, start.notes, start.choices
        self.total, self.done = start.run.recipe.train.epochs, start.state.epoch
        self.epochs = start.run.epochs()[: self.done] if start.resumed else []
        self.first, self.began = float(self.done), time.perf_counter()
        self.line = f"of {plural(self.total, 'epoch')}"
        self._show(self.done, force=True)

    def steps(self, progress: Progress) -> None:
        """Move the bar, and say how long the whole training still takes."""
        done = progress.epoch - 1 + progress.step / progress.steps
        self.line = f"epoch {progress.epoch} of {self.total}{self._left(done)}"
        self._show(done)

    def epoch(self, epoch: Epoch) -> None:
        """Add a row."""
        self.done = epoch.number
        self.epochs.append(epoch)
        self.line = f"epoch {epoch.number} of {self.total}{self._left(epoch.number)}"
        self._show(self.done)

    def ended(self, end: Ended) -> None:
        """Show the result in place of the time that is left."""
        if self.run is None:
            return
        if end.error is not None:
            self.line = f"stopped: {type(end.error).__name__}"
        elif end.best_epoch:
            kept = text.selected_by(end.run.recipe)
            early = why_early(end.run.recipe.train, len(self.epochs), end.best_epoch)
            first = f"{early}; " if early else ""
            self.line = f"{first}best weights: epoch {end.best_epoch}, {kept}; {end.seconds:.1f} s"
        self._show(self.done, force=True)

    def _left(self, done: float) -> str:
        """Return the time that the rest of the training takes, at the speed until now."""
        spent, part = time.perf_counter() - self.began, done - self.first
        if part <= 0 or spent < 1 or done >= self.total:
            return ""
        return f", {duration(spent / part * (self.total - done))} left"

    def _show(self, done: float, *, force: bool = False) -> None:
        if not self.display.due(force=force):
            return
        title = str(self.run.path) if self.run else ""
        epochs = shown_epochs(self.epochs)
        hidden = len(self.epochs) - len(epochs)
        bar = tag("progress", value=done, max=self.total)
        html = training_html(title, bar, self.line, epochs, self.notes, hidden, self.choices)
        self.display.show(html, f"{title}: {self.line}")


def shown_epochs(epochs: Sequence[Epoch]) -> list[Epoch]:
    """Return all epochs; of many, the first, the best and the last ones."""
    if len(epochs) <= MOST_EPOCHS:
        return list(epochs)
    best = [epoch for epoch in epochs if epoch.best][-1:]
    chosen = {epoch.number: epoch for epoch in (epochs[0], *best, *epochs[2 - MOST_EPOCHS :])}
    return [chosen[number] for number in sorted(chosen)]


class NotebookDownload:
    """Shows a download."""

    def __init__(self) -> None:
        self.display = Display()

    def say(self, line: str) -> None:
        """Show a line without a bar."""
        self.display.show(bar_html("", 0, 0, line), line)

    def update(self, download: Download) -> None:
        """Move the bar."""
        line = text.download_line(download)
        if self.display.due(force=download.done == download.total):
            html = bar_html(download.name, download.done, download.total, line)
            self.display.show(html, line)


class Display:
    """One output of a notebook's cell, made when it is first shown and replaced after that."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.shown = 0.0

    def due(self, *, force: bool) -> bool:
        """Tell whether to show something: ten times a second at most, unless it is forced."""
        waited = time.perf_counter() - self.shown
        return self.handle is None or force or waited >= UPDATE_SECONDS

    def show(self, html: Markup, plain: str) -> None:
        """Show HTML; where a notebook shows none, a line."""
        from IPython.display import display

        self.shown = time.perf_counter()
        content = {"text/html": str(html), "text/plain": plain}
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def bar_html(title: str, done: float, total: float, line: str) -> Markup:
    """Return a bar as HTML.

    >>> bar_html("runs/a", 1.0, 4, "epoch 1/4")
    Markup('<div>runs/a <progress value="1" max="4"></progress> <code>epoch 1/4</code></div>')
    """
    bar = tag("progress", value=done, max=total) if total else ""
    return tag("div", title, " " if title else "", bar, " " if bar else "", tag("code", line))
