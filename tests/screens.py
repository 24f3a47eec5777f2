"""A pseudo-terminal in which commands run, and what a person sees on it.

One process runs all commands, so that torch is imported once. Between two commands it writes a
mark, at which what came is cut into pieces, one for each command.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyte

TALL = 400  # lines, so that nothing scrolls away
CHILD = """
import fcntl, json, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from hydrofoil.cli.main import main
for size, no_color, arguments in json.loads(sys.argv[1]):
    termios.tcsetwinsize(0, size)
    os.environ.pop("NO_COLOR", None)
    os.environ.update({"NO_COLOR": "1"} if no_color else {})
    try:
        main(arguments)
    except SystemExit as left:
        sys.stdout.flush()
        os.write(1, b"\\x02%d\\x03" % (left.code or 0))
"""


@dataclass(frozen=True)
class Shown:
    """What a command left on a terminal.

    Args:
        raw: Everything that was written.
        status: The exit status.
        rows: Of the terminal.
        columns: Of the terminal.
    """

    raw: bytes
    status: int
    rows: int
    columns: int

    def lines(self) -> list[str]:
        """Return all lines on a terminal that is so wide and tall that it changes nothing."""
        return self._fed(TALL, 2 * self.columns)[0]

    def screen(self) -> list[str]:
        """Return the last screen as it is seen, without its empty lines."""
        return [line for line in self._fed(self.rows, self.columns)[0] if line]

    def styles(self, line: str) -> set[tuple[bool, str]]:
        """Return whether the characters of a line are bold, and their color."""
        lines, screen = self._fed(TALL, 2 * self.columns)
        cells = screen.buffer[max(place for place, one in enumerate(lines) if line in one)]
        return {(cells[x].bold, cells[x].fg) for x in range(len(line))}

    @cache  # noqa: B019 - for as long as the tests run
    def _fed(self, rows: int, columns: int) -> tuple[list[str], pyte.Screen]:
        screen = pyte.Screen(columns, rows)
        pyte.ByteStream(screen).feed(self.raw)
        return [line.rstrip() for line in screen.display], screen


@dataclass(frozen=True)
class Command:
    """A command line, the rows and columns of its terminal, and whether NO_COLOR is set."""

    arguments: Sequence[str]
    size: tuple[int, int]
    no_color: bool = False


def run(
    commands: Sequence[Command],
    folder: Path,
    keys: Mapping[int, tuple[bytes, bytes]] | None = None,
    **variables: str,
) -> list[Shown]:
    """Run commands one after another on a terminal.

    Args:
        commands: In their order.
        folder: The current one.
        keys: What to type in a command once it has written something: by its number.
        variables: Of the environment.
    """
    ours, theirs = os.openpty()
    given = [(command.size, command.no_color, command.arguments) for command in commands]
    environment = os.environ | {
        "TERM": "xterm-256color",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(given)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
        env=environment | variables,
    )  # fmt: skip
    os.close(theirs)
    shown: list[Shown] = []
    waiting, piece = dict(keys or {}), b""
    try:
        while part := _read(ours):
            piece += part
            after, typed = waiting.get(len(shown), (b"", b""))
            if after and after in piece:
                os.write(ours, typed)
                del waiting[len(shown)]
            while b"\x03" in piece and b"\x02" in piece:
                raw, _, rest = piece.partition(b"\x02")
                status, end, rest = rest.partition(b"\x03")
                if not end:
                    break
                shown.append(Shown(raw, int(status), *commands[len(shown)].size))
                piece = rest
    finally:
        process.kill() if len(shown) < len(commands) else None
        process.wait(60)
        os.close(ours)
    assert len(shown) == len(commands), piece.decode(errors="replace")
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""
