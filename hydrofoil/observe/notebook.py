"""A progress bar in a Jupyter notebook: one display that is updated."""

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from hydrofoil.data.published.download import Download
from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.report import text
from hydrofoil.report.charts import tag
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Epoch, Progress

UPDATE_SECONDS = 0.1  # between two updates of the display


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
    """Shows how far a training is, the last epoch, and at the end the best one."""

    def __init__(self) -> None:
        self.display, self.run = NotebookBar(), None
        self.epochs = self.done = 0
        self.line = ""

    run: Run | None

    def prepared(self, start: Start) -> None:
        """Show an empty bar and the executor."""
        self.run, self.line = start.run, start.prepared.line
        self.epochs, self.done = start.run.recipe.train.epochs, start.state.epoch
        self._show(self.done, force=True)

    def steps(self, progress: Progress) -> None:
        """Move the bar."""
        self._show(progress.epoch - 1 + progress.step / progress.steps)

    def epoch(self, epoch: Epoch) -> None:
        """Show the epoch's losses and accuracies."""
        self.done = epoch.number
        if self.run:
            self.line = text.epoch_words(epoch, self.run.recipe)
        self._show(self.done)

    def ended(self, end: Ended) -> None:
        """Show the result in place of the last epoch."""
        if self.run is None:
            return
        if end.error is not None:
            self.line = f"stopped: {type(end.error).__name__}"
        elif end.best_epoch:
            kept = text.selected_by(end.run.recipe)
            self.line = f"best weights: epoch {end.best_epoch}, {kept}; {end.seconds:.1f} s"
        self._show(self.done, force=True)

    def _show(self, done: float, *, force: bool = False) -> None:
        title = str(self.run.path) if self.run else ""
        self.display.update(title, done, self.epochs, self.line, force=force)


class NotebookDownload:
    """Shows a download."""

    def __init__(self) -> None:
        self.display = NotebookBar()

    def say(self, line: str) -> None:
        """Show a line without a bar."""
        self.display.update("", 0, 0, line, force=True)

    def update(self, download: Download) -> None:
        """Move the bar."""
        line = text.download_line(download)
        last = download.done == download.total
        self.display.update(download.name, download.done, download.total, line, force=last)


class NotebookBar:
    """One output of a notebook's cell, made at the first update and replaced by the next ones."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.shown = 0.0

    def update(self, title: str, done: float, total: float, line: str, *, force: bool) -> None:
        """Show so much of the total between a title and a line, ten times a second at most."""
        now = time.perf_counter()
        if self.handle is not None and not force and now - self.shown < UPDATE_SECONDS:
            return
        from IPython.display import HTML, display

        self.shown = now
        html = HTML(bar_html(title, done, total, line))
        if self.handle is None:
            self.handle = display(html, display_id=True)
        else:
            self.handle.update(html)


def bar_html(title: str, done: float, total: float, line: str) -> Markup:
    """Return a bar as HTML.

    >>> bar_html("runs/a", 1.0, 4, "epoch 1/4")
    Markup('<div>runs/a <progress value="1" max="4"></progress> <code>epoch 1/4</code></div>')
    """
    bar = tag("progress", value=done, max=total) if total else ""
    return tag("div", title, " " if title else "", bar, " " if bar else "", tag("code", line))
