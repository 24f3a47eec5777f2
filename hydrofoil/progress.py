"""Follows what takes long: a training run, epoch by epoch, all kept in its folder; a download."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from hydrofoil.data.download import Download
from hydrofoil.models.classifier import Classifier
from hydrofoil.report import text
from hydrofoil.run import Run
from hydrofoil.train.executors import Executor, Prepared
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.train.state import State

# Saving syncs the disk, some 20 ms: longer than the epochs of a small set. A run that is killed
# repeats what it did since it was last saved; one that stops in any other way saves before it ends.
SAVE_SECONDS = 1.0


class Follower:
    """Watches steps and keeps epochs.

    The bar appears on a terminal's standard error once an epoch takes longer than a second; every
    `train.log_every` steps the running loss is told and logged.

    Args:
        run: Where log and weights are kept.
        say: Takes each line for a person.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.every = run.recipe.train.log_every
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.start = self.began = self.drawn = time.perf_counter()
        self.unsaved: dict[str, bytes] = {}
        self.saved = -SAVE_SECONDS
        self.epoch = self.first = 0  # the epoch that is watched, and its steps at the first look
        self.seen = (0.0, 0)  # loss and pictures of this epoch at the last line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()
        self._save()

    def prepared(self, prepared: Prepared) -> Executor:
        """Tell and log which executor runs the steps, and return it."""
        executor = prepared.executor
        self.run.log(
            {
                "event": "executor",
                "name": executor.name,
                "threads": executor.threads,
                "seconds": prepared.seconds,
            }
        )
        self.say(f"{prepared.line}\n")
        return executor

    def watch(self, progress: Progress) -> None:
        """Follow the steps."""
        if progress.epoch != self.epoch:
            self.epoch, self.first = progress.epoch, progress.step
            self.began, self.seen = time.perf_counter(), (0.0, 0)
        if self.every and progress.step % self.every == 0:
            self._tell_running_loss(progress)
        # The sums are read, and the device waited for, ten times a second at most.
        if self.terminal:
            now = time.perf_counter()
            if now - self.drawn > 0.1 and now - self.began > 1:
                self.drawn = now
                self._draw(progress, (progress.step - self.first) / (now - self.began))

    def keep(self, epoch: Epoch, model: Classifier, state: State) -> None:
        """Log an epoch, keep its weights, and tell of it."""
        self._clear()
        self.run.log(epoch.as_dict())
        if epoch.best:
            self.unsaved |= self.run.best_files(model, epoch.number)
        self.unsaved |= self.run.last_files(model, state)
        if time.perf_counter() - self.saved > SAVE_SECONDS:
            self._save()
        self.say(text.epoch_line(epoch.as_dict(), self.run.recipe))

    def _save(self) -> None:
        """Write what the run can go on from: the best weights first, as the last tell of them."""
        for name in ("best.safetensors", "last.safetensors", "last.json"):
            if name in self.unsaved:
                self.run.write(name, self.unsaved[name])
        self.unsaved.clear()
        self.saved = time.perf_counter()

    def summary(self, state: State) -> dict[str, Any]:
        """Tell which epoch was kept, and return what a program wants to know of the training."""
        seconds = time.perf_counter() - self.start
        self.run.log({"event": "trained", "epochs": state.epoch, "seconds": seconds})
        kept = [epoch for epoch in self.run.epochs() if epoch["epoch"] == state.best_epoch]
        self.say(
            f"\nkept: epoch {state.best_epoch}, {text.kept_by(self.run.recipe)}; "
            f"trained in {seconds:.1f} s"
        )
        return {
            "run": str(self.run.path),
            "epochs": state.epoch,
            "kept": kept[-1] if kept else None,
            "seconds": seconds,
        }

    def _tell_running_loss(self, progress: Progress) -> None:
        """Tell and log the mean loss of the steps since the last line."""
        scores = progress.sums.read()
        total, count = self.seen
        loss = (scores.loss * scores.count - total) / (scores.count - count)
        self.seen = (scores.loss * scores.count, scores.count)
        self._clear()
        self.run.log(
            {"event": "loss", "epoch": progress.epoch, "step": progress.step, "loss": loss}
        )
        self.say(
            f"epoch {progress.epoch}, step {progress.step:,} of {progress.steps:,}: "
            f"mean loss of the last {self.every:,} steps {loss:.3f}"
        )

    def _draw(self, progress: Progress, rate: float) -> None:
        """Draw the bar, with loss and rate."""
        from rich import progress as rich
        from rich.console import Console

        if self.bar is None:
            columns = (
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[now]}"),
                rich.TimeRemainingColumn(),
            )
            console = Console(stderr=True)
            self.bar = rich.Progress(*columns, console=console, transient=True, auto_refresh=False)
            self.bar.start()
            self.bar.add_task(f"epoch {progress.epoch}", total=progress.steps, now="")
        now = f"loss {progress.sums.read().loss:.4f}  {rate:,.0f} steps/s"
        self.bar.update(self.bar.task_ids[0], completed=progress.step, now=now, refresh=True)

    def _clear(self) -> None:
        """Take the bar away, so that a line can be told."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class DownloadFollower:
    """Tells of a download: lines, and on a terminal's standard error a bar after a second.

    Where there is no terminal, a line every half minute.

    Args:
        say: Takes each line for a person.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.name, self.began, self.told = "", 0.0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def say(self, line: str) -> None:
        """Tell a line."""
        self._clear()
        self._say(line)

    def update(self, download: Download) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if download.name != self.name:
            self._clear()
            self.name, self.began, self.told = download.name, now, now
        if now - self.told < (0.1 if self.terminal else 30) or now - self.began < 1:
            return
        self.told = now
        if not self.terminal:
            self._say(text.download_line(download))
            return
        from rich import progress as rich
        from rich.console import Console

        if self.bar is None:
            columns = (
                rich.TextColumn("{task.description}", markup=False),
                rich.BarColumn(),
                rich.TextColumn("{task.fields[now]}", markup=False),
            )
            console = Console(stderr=True)
            self.bar = rich.Progress(*columns, console=console, transient=True, auto_refresh=False)
            self.bar.start()
            self.bar.add_task(download.name, total=download.total, now="")
        line = text.download_line(download).partition(": ")[2]
        self.bar.update(self.bar.task_ids[0], completed=download.done, now=line, refresh=True)

    def _clear(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
