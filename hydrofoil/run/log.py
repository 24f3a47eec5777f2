"""log.jsonl: one event a line, each epoch among them.

Appending does not wait for the disk: the log is synced with the next file of the run.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import Epoch, complaint
from hydrofoil.files import BINARY, not_written, write_all
from hydrofoil.run.events import EVENT, Event, ExecutorChosen, Imported, Kept, RunningLoss, Tested
from hydrofoil.run.files import Files
from hydrofoil.run.manifest import LOG, Manifest

T = TypeVar("T", bound=Event)


class Log:
    """The log of one run.

    Args:
        files: Of the run.
    """

    def __init__(self, files: Files) -> None:
        self.files, self.path = files, files.path / LOG

    def append(self, *events: Event) -> None:
        """Append events; they replace an unfinished last line.

        They are synced and enter the manifest with the next file of the run.
        """
        if not events:
            return
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
            try:
                complete = _end_of_lines(handle)
                try:
                    os.ftruncate(handle, complete)
                    os.lseek(handle, complete, os.SEEK_SET)
                    write_all(handle, _lines(events))
                except OSError:
                    os.ftruncate(handle, complete)  # all of the lines, or none
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise not_written(self.path, error) from error

    def events(self) -> list[Event]:
        """Return the events; an unfinished last line is ignored.

        Raises:
            HydrofoilError: The file is missing or changed, or a line is not an event.
        """
        if not self.path.exists() and not Manifest.read(self.files.path).files.get(LOG):
            return []
        lines = self.files.read(LOG).split(b"\n")
        events: list[Event] = []
        # What follows the last newline is unfinished.
        for number, line in enumerate(lines[:-1], start=1):
            try:
                events.append(EVENT.validate_json(line))
            except ValidationError as error:
                raise HydrofoilError(
                    f"{self.path}: line {number} is not an event: {complaint(error)}."
                ) from error
        return events

    def all(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events() if isinstance(event, kind)]

    def times_tested(self) -> int:
        """Return how often this run opened its test split; test.json repeats the number."""
        return len(self.all(Tested))

    def executor(self) -> str | None:
        """Return the executor that last ran steps; None: no steps yet."""
        names = [
            event.name if isinstance(event, ExecutorChosen) else event.executor
            for event in self.events()
            if isinstance(event, ExecutorChosen | Kept)
        ]
        return (names[-1] or None) if names else None

    def kept(self) -> Kept | None:
        """Return the event of a run that was made of a training by `fit`."""
        return next(iter(self.all(Kept)), None)

    def imported(self) -> bool:
        """Tell whether the weights were imported."""
        return bool(self.all(Imported))

    def forget_after(self, epoch: int, step: int = 0) -> None:
        """Drop the events after a checkpoint: training will repeat them.

        Args:
            epoch: Completed epochs to keep.
            step: Steps of the next epoch whose running losses to keep.
        """

        def stays(event: Event) -> bool:
            if isinstance(event, Epoch):
                return event.number <= epoch
            if isinstance(event, RunningLoss):
                return (event.epoch, event.step) <= (epoch + 1, step) or event.epoch <= epoch
            return True

        events = self.events()
        kept = [event for event in events if stays(event)]
        if len(kept) < len(events):
            self.files.write(LOG, _lines(kept))


def _lines(events: Iterable[Event]) -> bytes:
    return "".join(f"{event.to_json()}\n" for event in events).encode()


def _end_of_lines(handle: int) -> int:
    """Return where the last complete line of an open file ends, reading from its end."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end:
        first = max(0, end - 4096)
        os.lseek(handle, first, os.SEEK_SET)
        newline = os.read(handle, end - first).rfind(b"\n")
        if newline >= 0:
            return first + newline + 1
        end = first
    return 0
