"""Lines and progress bars for a terminal: of a training, of a download."""

import time
from collections.abc import Callable, Sequence
from typing import Self

from hydrofoil.data.published.download import Download
from hydrofoil.observe.bar import UPDATE_SECONDS, Bar
from hydrofoil.observe.observer import Ended, Observer, Start, running_loss
from hydrofoil.recipe.derive import Choice
from hydrofoil.recipe.schema import why_early
from hydrofoil.report import text
from hydrofoil.run.diagnosis import sentences
from hydrofoil.run.folder import Run
from hydrofoil.train.feed import count_steps
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.wording import duration, plural

HEADING_EVERY = 20  # epochs on a terminal, so that the heading is always in sight


class Console(Observer):
    """Says what a training does, line by line.

    A bar appears on a terminal's standard error once the training takes longer than a second, with
    the time that is left of all its epochs; every `train.log_every` steps the running loss is
    printed.

    Args:
        say: Takes each line; the observer itself prints nothing.
        verbose: Also say how many steps there are, and how long preparing them took.
    """

    def __init__(self, say: Callable[[str], None], *, verbose: bool = False) -> None:
        self.say, self.verbose, self.bar = say, verbose, Bar()
        self.run: Run | None = None
        self.notes: tuple[str, ...] = ()
        self.choices: tuple[Choice, ...] = ()
        self.end: Ended | None = None
        self.number = self.lines = 0  # the current epoch, and the lines of epochs so far
        self.loss_before = 0.0, 0
        self.best: Epoch | None = None
        self.began: tuple[float, float] | None = None  # time and epochs at the first look

    def prepared(self, start: Start) -> None:
        """Say what is trained, where, and by which executor."""
        self.run, self.notes, self.choices = start.run, start.notes, start.choices
        self.number, self.loss_before = start.state.epoch + 1, start.state.logged
        recipe, state = start.run.recipe, start.state
        if start.resumed:
            self.best = text.best_epoch(start.run.epochs(), recipe)
            for line in notes_lines(start.notes):
                self.say(line)
            self.say(progress_line(start.run, state.epoch, state.step))
        else:
            self.say(text.recipe_lines(recipe))
            if start.choices:
                self.say(f"\n{text.choices_table(start.choices)}\n")
            self.say(f"{text.split_line(recipe, start.split)}\nrun: {start.run.path}")
            for line in notes_lines(start.notes):
                self.say(line)
        self.say(start.prepared.line)
        if self.verbose:
            self.say(verbose_line(start))
        self.say("")

    def steps(self, progress: Progress) -> None:
        """Say the running loss where that is due, and move the bar."""
        if progress.epoch != self.number:
            self.number, self.loss_before = progress.epoch, (0.0, 0)
        every = self.run.recipe.train.log_every if self.run else 0
        if every and progress.step % every == 0:
            loss, self.loss_before = running_loss(progress, self.loss_before)
            self.bar.clear()
            self.say(
                f"epoch {progress.epoch}, step {progress.step:,} of {progress.steps:,}: "
                f"mean loss of the last {every:,} steps {loss:.3f}"
            )
        now, done = time.perf_counter(), progress.epoch - 1 + progress.step / progress.steps
        self.began = self.began or (now, done)
        if now - self.began[0] > 1 and self.bar.due():
            self._draw(progress, done, (done - self.began[1]) / (now - self.began[0]))

    def _draw(self, progress: Progress, done: float, rate: float) -> None:
        """Draw the bar of the whole training; reading the sums waits for the device."""
        epochs = self.run.recipe.train.epochs if self.run else progress.epoch
        words = [f"{duration((epochs - done) / rate)} left"] if rate > 0 else []
        words.append(f"loss {progress.sums.read().loss:.4f}")
        if self.best and self.run and self.run.recipe.train.select != "last":
            words.append(f"best so far: epoch {self.best.number}")
        words.append(f"{rate * progress.steps:,.0f} steps/s")
        self.bar.update(f"epoch {progress.epoch}/{epochs}", done, epochs, *words)

    def epoch(self, epoch: Epoch) -> None:
        """Say an epoch's losses and accuracies, under a heading."""
        self.bar.clear()
        self.best = epoch if epoch.best else self.best
        if self.run:
            if not self.lines or (self.bar.terminal and self.lines % HEADING_EVERY == 0):
                self.say(text.epoch_heading(self.run.recipe))
            self.lines += 1
            self.say(text.epoch_line(epoch, self.run.recipe))

    def ended(self, end: Ended) -> None:
        """Say which weights are the best."""
        self.bar.clear()
        self.end = end
        if end.error is None and end.best_epoch:
            train = end.run.recipe.train
            if early := why_early(train, len(end.run.epochs()), end.best_epoch):
                self.say(f"\n{early}")
            self.say(
                f"\nbest weights: epoch {end.best_epoch}, {text.selected_by(end.run.recipe)}; "
                f"trained in {end.seconds:.1f} s"
            )
            for line in diagnosis_lines(end.run):
                self.say(line)


def diagnosis_lines(run: Run) -> list[str]:
    """Return what the curves of a run show, in sentences."""
    return sentences(run.diagnosis(), run.epochs(), run.recipe, ended=False)


def verbose_line(start: Start) -> str:
    """Return the arithmetic behind the executor: steps, images, seconds."""
    train, images = start.run.recipe.train, len(start.split.train)
    steps = count_steps(images, train.batch_size)
    total = steps * (train.epochs - 1) + (train.last_steps or steps)
    return (
        f"  {images:,} images in batches of {train.batch_size}: {plural(steps, 'step')} an epoch, "
        f"{total:,} in all; prepared in {start.prepared.seconds:.2f} s"
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
        self._say, self.bar = say, Bar()
        self.name, self.began, self.said = "", 0.0, 0.0
        self.lines: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.clear()

    def say(self, line: str) -> None:
        """Pass a line on, once: runs of one command read the same images."""
        self.bar.clear()
        if line not in self.lines:
            self.lines.add(line)
            self._say(line)

    def update(self, download: Download) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if download.name != self.name:
            self.bar.clear()
            self.name, self.began, self.said = download.name, now, now
        shown = self.bar.terminal
        if now - self.said < (UPDATE_SECONDS if shown else 30) or now - self.began < 1:
            return
        self.said = now
        if shown:
            words = text.download_words(download)
            self.bar.update(download.name, download.done, download.total, *words)
        else:
            self._say(text.download_line(download))
