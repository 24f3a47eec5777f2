"""Lines and progress bars for a terminal: of a training, of a download."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from hydrofoil.data.published.download import Download
from hydrofoil.observe.observer import Ended, Observer, Start, running_loss
from hydrofoil.report import text
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.wording import plural


class Console(Observer):
    """Says what a training does, line by line.

    A bar appears on a terminal's standard error once an epoch takes longer than a second; every
    `train.log_every` steps the running loss is printed.

    Args:
        say: Takes each line; the observer itself prints nothing.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.terminal, self.bar = say, sys.stderr.isatty(), Bar(counts=True)
        self.run: Run | None = None
        self.notes: tuple[str, ...] = ()
        self.end: Ended | None = None
        self.number = self.first = 0  # the current epoch, and its steps at the first look
        self.loss_before = 0.0, 0
        self.began = self.drawn = time.perf_counter()

    def prepared(self, start: Start) -> None:
        """Say what is trained, where, and by which executor."""
        self.run, self.notes = start.run, start.notes
        self.number, self.loss_before = start.state.epoch + 1, start.state.logged
        recipe, state = start.run.recipe, start.state
        if start.resumed:
            for line in notes_lines(start.notes):
                self.say(line)
            self.say(progress_line(start.run, state.epoch, state.step))
        else:
            self.say(text.recipe_lines(recipe))
            self.say(f"{text.split_line(recipe, start.split)}\nrun: {start.run.path}")
            for line in notes_lines(start.notes):
                self.say(line)
        self.say(f"{start.prepared.line}\n")

    def steps(self, progress: Progress) -> None:
        """Say the running loss where that is due, and move the bar."""
        if progress.epoch != self.number or not self.first:
            self.loss_before = self.loss_before if progress.epoch == self.number else (0.0, 0)
            self.number, self.first = progress.epoch, progress.step
            self.began = time.perf_counter()
        every = self.run.recipe.train.log_every if self.run else 0
        if every and progress.step % every == 0:
            loss, self.loss_before = running_loss(progress, self.loss_before)
            self.bar.clear()
            self.say(
                f"epoch {progress.epoch}, step {progress.step:,} of {progress.steps:,}: "
                f"mean loss of the last {every:,} steps {loss:.3f}"
            )
        now = time.perf_counter()  # the sums are read, and the device waited for, 10 times a second
        if self.terminal and now - self.drawn > 0.1 and now - self.began > 1:
            self.drawn = now
            rate = (progress.step - self.first) / (now - self.began)
            status = f"loss {progress.sums.read().loss:.4f}  {rate:,.0f} steps/s"
            self.bar.update(f"epoch {progress.epoch}", progress.step, progress.steps, status)

    def epoch(self, epoch: Epoch) -> None:
        """Say an epoch's losses and accuracies."""
        self.bar.clear()
        if self.run:
            self.say(text.epoch_line(epoch, self.run.recipe))

    def ended(self, end: Ended) -> None:
        """Say which weights are the best."""
        self.bar.clear()
        self.end = end
        if end.error is None and end.best_epoch:
            self.say(
                f"\nbest weights: epoch {end.best_epoch}, {text.selected_by(end.run.recipe)}; "
                f"trained in {end.seconds:.1f} s"
            )


def notes_lines(notes: Sequence[str]) -> list[str]:
    """Return what the user should know, a line each."""
    return [f"note: {note}" for note in notes]


def progress_line(run: Run, epochs: int, steps: int) -> str:
    """Return how far a run is, before it resumes."""
    part = f", and {plural(steps, 'step')} of the next" if steps else ""
    return f"{run.path}: {epochs} of {run.recipe.train.epochs} epochs are done{part}"


class DownloadProgress:
    """Says how a download goes: lines, and on a terminal's standard error a bar after a second.

    Without a terminal, a line every half minute.

    Args:
        say: Takes each line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.terminal, self.bar = sys.stderr.isatty(), Bar()
        self.name, self.began, self.said = "", 0.0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.clear()

    def say(self, line: str) -> None:
        """Pass a line on."""
        self.bar.clear()
        self._say(line)

    def update(self, download: Download) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if download.name != self.name:
            self.bar.clear()
            self.name, self.began, self.said = download.name, now, now
        if now - self.said < (0.1 if self.terminal else 30) or now - self.began < 1:
            return
        self.said = now
        line = text.download_line(download)
        if self.terminal:
            status = line.partition(": ")[2]
            self.bar.update(download.name, download.done, download.total, status)
        else:
            self._say(line)


class Bar:
    """A progress bar on standard error, imported and drawn at its first update.

    Args:
        counts: Also show how many of how many, and the time that is left.
    """

    def __init__(self, *, counts: bool = False) -> None:
        self.shown: Any = None
        self.counts = counts

    def update(self, name: str, done: int, total: int, status: str) -> None:
        """Show so much of the total, with a few words."""
        if self.shown is None:
            self.shown = self._start(name, total)
        self.shown.update(self.shown.task_ids[0], completed=done, status=status, refresh=True)

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed."""
        if self.shown is not None:
            self.shown.stop()
            self.shown = None

    def _start(self, name: str, total: int) -> Any:
        from rich import progress as rich
        from rich.console import Console as Terminal

        status = rich.TextColumn("{task.fields[status]}", markup=False)
        counted = [rich.MofNCompleteColumn(), status, rich.TimeRemainingColumn()]
        bar = rich.Progress(
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            *(counted if self.counts else [status]),
            console=Terminal(stderr=True),
            transient=True,
            auto_refresh=False,
        )
        bar.start()
        bar.add_task(name, total=total, status="")
        return bar
