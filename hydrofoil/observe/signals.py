"""Ctrl-C and SIGTERM while a run is trained: finish the step, and save; the second time, leave."""

import os
import signal
import sys
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked to stop, and the step that was under way is finished.

    Args:
        number: Of the signal: the exit status is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopping:
    """Notes the first signal, and leaves at once with the second."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def begin(self) -> None:
        """Note signals from now on."""
        try:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        except ValueError:  # not the main thread: its signals are somebody else's
            self._before = {}

    def end(self) -> None:
        """Let signals do what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise what was noted: for where the run can be saved.

        Raises:
            Stopped: A signal came.
        """
        if self.number:
            raise Stopped(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # the bar hides the cursor
            os._exit(128 + number)
        self.number = number
