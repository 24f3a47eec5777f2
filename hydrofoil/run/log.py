"""log.jsonl: one object an epoch, and one an event.

Appending costs no wait for the disk: the next file that is written waits for the log too.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from hydrofoil.errors import HydrofoilError
from hydrofoil.files import not_written, write_all
from hydrofoil.run.manifest import Files, Manifest


class Log:
    """The log of one run.

    Args:
        files: Of the run.
    """

    def __init__(self, files: Files) -> None:
        self.files, self.path = files, files.path / "log.jsonl"

    def append(self, *events: Mapping[str, Any]) -> None:
        """Append objects to log.jsonl, in the place of a line that was left unfinished.

        The disk is waited for with the next file of the run, whose manifest then knows them.
        """
        if not events:
            return
        path = self.path
        content = self.files.read("log.jsonl") if path.exists() else b""
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                whole = content.rfind(b"\n") + 1
                try:
                    os.ftruncate(handle, whole)
                    os.lseek(handle, whole, os.SEEK_SET)
                    write_all(handle, _lines(events))
                except OSError:
                    os.ftruncate(handle, whole)  # all of the lines, or none
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise not_written(path, error) from error

    def events(self) -> list[dict[str, Any]]:
        """Return the log; a last line that a dying process left unfinished is passed over."""
        path, known = self.path, Manifest.read(self.files.path)
        if not path.exists() and not (known and known.files.get("log.jsonl")):
            return []
        lines = self.files.read("log.jsonl").decode("utf-8", errors="replace").splitlines()
        events: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                events.append(_event(json.loads(line)))
            except (TypeError, ValueError, RecursionError) as error:
                if number < len(lines):
                    raise HydrofoilError(f"{path}: line {number} is broken: {error}.") from error
        return events

    def times_tested(self) -> int:
        """Return how often this run opened the test split; the log counts, test.json repeats it."""
        return sum(event.get("event") == "test" for event in self.events())

    def executor(self) -> str | None:
        """Return what ran the steps last, as the log has it; None: nothing yet."""
        names = [event.get("name") for event in self.events() if event.get("event") == "executor"]
        return names[-1] if names and isinstance(names[-1], str) else None

    def imported(self) -> bool:
        """Tell whether the weights came from elsewhere."""
        return any(event.get("event") == "imported" for event in self.events())

    def forget_after(self, epoch: int, step: int = 0) -> None:
        """Drop from the log what came after some steps of the epoch that follows: it comes again.

        Args:
            epoch: Whole epochs to keep.
            step: Steps of the next one whose running losses are kept.
        """

        def stays(event: Mapping[str, Any]) -> bool:
            number = event.get("epoch", 0) if event.get("event") in ("epoch", "loss") else 0
            return number <= epoch or (number == epoch + 1 and event.get("step", step + 1) <= step)

        events = self.events()
        kept = [event for event in events if stays(event)]
        if len(kept) < len(events):
            self.files.write("log.jsonl", _lines(kept))


def _lines(events: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def _event(found: Any) -> dict[str, Any]:
    """Return a line of the log.

    Raises:
        TypeError, ValueError: It is no object, or its place in the training is no count.
    """
    event = dict(found)
    for name in ("epoch", "step"):
        if type(event.get(name, 0)) is not int:
            raise TypeError(f"{name} = {event[name]!r}")
    return event
