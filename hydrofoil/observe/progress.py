"""Follows what takes long: a training run, epoch by epoch, all kept in its folder; a download."""

import signal
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from hydrofoil.data.download import Download
from hydrofoil.models.classifier import Classifier
from hydrofoil.native.build import compiler
from hydrofoil.observe.signals import Stopped, Stopping
from hydrofoil.report import text
from hydrofoil.run.folder import Run
from hydrofoil.train.executors import Executor, Prepared
from hydrofoil.train.guard import NotFiniteError
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.train.state import State

# Saving waits for the disk, 10 to 40 ms: longer than the epochs of a small set. So the next save is
# put off until this many times what the last one took, and five seconds at least, have gone by. A
# run that is killed repeats what it did since; one that stops otherwise saves before it ends.
SAVE_SHARE = 200
SAVE_SECONDS = 5.0


class Follower:
    """Watches steps, keeps epochs and checkpoints.

    The bar appears on a terminal's standard error once an epoch takes longer than a second; every
    `train.log_every` steps the running loss is told and logged.

    Args:
        run: Where log and weights are kept.
        say: Takes each line for a person.
        model: That is trained.
        state: Of its training.
    """

    def __init__(
        self, run: Run, say: Callable[[str], None], model: Classifier, state: State
    ) -> None:
        self.run, self.say, self.model, self.state = run, say, model, state
        self.every = run.recipe.train.log_every
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.start = self.began = self.drawn = self.saved = time.perf_counter()
        self.put_off = SAVE_SECONDS  # until the next save
        self.events: list[dict[str, Any]] = []  # not in the log yet: it is written with the weights
        self.unsaved: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # of the last epoch
        self.epoch = self.first = 0  # the epoch that is watched, and its steps at the first look
        self.stopping = Stopping()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._clear()
            if isinstance(error, NotFiniteError):
                self._forget_from(error.epoch, error.step)
                place = {"epoch": error.epoch, "step": error.step, "pictures": error.pictures}
                self.events.append({"event": "not finite", **place})
            if isinstance(error, Stopped):
                place = {"epoch": self.state.epoch, "step": self.state.step}
                name = signal.Signals(error.number).name
                self.events.append({"event": "stopped", "signal": name, **place})
                self._save()
            elif self.unsaved:
                self._save(*self.unsaved)
            else:
                self._log()
        finally:
            self.stopping.end()
        if error is None:
            self.stopping.check()  # a signal while the last epochs were saved

    def _forget_from(self, epoch: int, step: int) -> None:
        """Drop the running losses of a step that is undone, and of those after it."""
        self.events = [
            event
            for event in self.events
            if event["event"] != "loss" or (event["epoch"], event["step"]) < (epoch, step)
        ]

    def prepared(self, prepared: Prepared) -> Executor:
        """Tell and log which executor runs the steps, and return it; signals wait for it now."""
        executor = prepared.executor
        event: dict[str, Any] = {
            "event": "executor",
            "name": executor.name,
            "threads": executor.threads,
            "seconds": prepared.seconds,
        }
        if executor.name == "native":
            event["compiler"] = compiler()[1].partition("\n")[0]
        self.run.log(event)
        self.say(f"{prepared.line}\n")
        self.stopping.begin()
        return executor

    def watch(self, progress: Progress) -> None:
        """Follow the steps, and save where that is due or the run is asked to stop."""
        if progress.epoch != self.epoch:
            self.epoch, self.first = progress.epoch, progress.step
            self.began = time.perf_counter()
        if self.every and progress.step % self.every == 0:
            self._tell_running_loss(progress)
        # The sums are read, and the device waited for, ten times a second at most.
        if self.terminal:
            now = time.perf_counter()
            if now - self.drawn > 0.1 and now - self.began > 1:
                self.drawn = now
                self._draw(progress, (progress.step - self.first) / (now - self.began))
        if progress.checked:
            self.stopping.check()
            if progress.step < progress.steps and self._due(progress.step):
                self._save()

    def _due(self, step: int) -> bool:
        """Tell whether to save inside an epoch."""
        train, waited = self.run.recipe.train, time.perf_counter() - self.saved
        if train.save_steps and step % train.save_steps == 0:
            return True
        return bool(train.save_seconds) and waited > max(train.save_seconds, self.put_off)

    def keep(self, epoch: Epoch) -> None:
        """Keep an epoch, now or with the next, and tell of it."""
        self._clear()
        self.events.append(epoch.as_dict())
        waited = time.perf_counter() - self.saved
        if self.run.recipe.train.save_steps or waited > self.put_off:
            self._save()
        else:
            tensors = self.state.tensors(self.model)
            # On the CPU, so that they can be saved even if a GPU is lost meanwhile.
            copies = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()
            }
            self.unsaved = copies, self.state.numbers()
        self.say(text.epoch_line(epoch.as_dict(), self.run.recipe))
        self.stopping.check()

    def _save(
        self, tensors: dict[str, Tensor] | None = None, numbers: dict[str, Any] | None = None
    ) -> None:
        """Write all that the run can go on from: as it is now, or as it was."""
        began = time.perf_counter()
        tensors = tensors or self.state.tensors(self.model)
        self._log()
        self.run.save(self.model, tensors, numbers or self.state.numbers())
        self.unsaved = None
        self.saved = time.perf_counter()
        self.put_off = max(SAVE_SECONDS, SAVE_SHARE * (self.saved - began))

    def _log(self) -> None:
        self.run.log(*self.events)
        self.events.clear()

    def summary(self) -> dict[str, Any]:
        """Tell which epoch was kept, and return what a program wants to know of the training."""
        seconds, state = time.perf_counter() - self.start, self.state
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
        total, _, count = progress.sums.totals()
        before, pictures = self.state.told
        loss = (total - before) / (count - pictures)
        self.state.told = total, count
        self._clear()
        self.events.append(
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
