"""Ctrl-C and SIGTERM during a training: the step ends and is saved; a second one interrupts."""

import os
import signal
import sys
from types import FrameType
from typing import Any

from hydrofoil.observe.observer import Ended, Observer, Start
from hydrofoil.run.folder import Run
from hydrofoil.train.loop import Epoch, Progress
from hydrofoil.wording import plural

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal stopped a training after a complete step; the run is saved and can be resumed.

    Args:
        number: The signal's number; the exit status is 128 more.
        run: The run that was stopped, with `run.path`; None until the session adds it.
    """

    def __init__(self, number: int, run: Run | None = None) -> None:
        super().__init__(number)
        self.number, self.run = number, run

    def __str__(self) -> str:
        if self.run is None:
            return signal.Signals(self.number).name
        path = str(self.run.path)
        return f"{stopped_line(self.run)} Resume with hydrofoil.resume({path!r})."


def stopped_line(run: Run) -> str:
    """Return how far a stopped run is."""
    steps = run.checkpoints.step()
    part = f" and {plural(steps, 'step')}" if steps else ""
    return f"stopped after {run.checkpoints.epoch()} of {run.recipe.train.epochs} epochs{part}."


class Stopping(Observer):
    """Turns a signal into `Stopped` at the next step that can be saved.

    The second signal does what it did before the training began: Ctrl-C raises KeyboardInterrupt.

    Args:
        exits: The second signal ends the process at once instead, as a command line does.
    """

    def __init__(self, *, exits: bool = False) -> None:
        self.exits, self.number = exits, 0
        self._before: dict[int, Any] = {}

    def prepared(self, start: Start) -> None:
        """Note signals from now on."""
        self.begin()

    def steps(self, progress: Progress) -> None:
        """Stop where the step is known to be good."""
        if progress.checked:
            self.check()

    def epoch(self, epoch: Epoch) -> None:
        """Stop after an epoch."""
        self.check()

    def ended(self, end: Ended) -> None:
        """Restore the handlers; a signal that came during the last save is not lost."""
        self.end()
        if end.error is None:
            self.check()

    def begin(self) -> None:
        """Note signals from now on, and none from before; ignored signals stay ignored."""
        self.number = 0
        try:
            self._before = {
                number: signal.signal(number, self._note)
                for number in SIGNALS
                if signal.getsignal(number) is not signal.SIG_IGN  # by nohup, or & in a script
            }
        except ValueError:  # not the main thread: its signals are somebody else's
            self._before = {}

    def end(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def check(self) -> None:
        """Raise what was noted, where the run can be saved.

        Raises:
            Stopped: A signal came.
        """
        if self.number:
            raise Stopped(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number = number
        elif self.exits:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\n")  # below the bar
            os._exit(128 + number)
        else:
            self.end()
            signal.raise_signal(number)
