"""hydrofoil as a person meets it, the command line and the run folder: for the harnesses that judge
it from outside (tests/test_kill.py, test_failing_calls.py, test_corruption.py, ...).

What lies in a folder is read here by hashlib, json and the safetensors package, not by hydrofoil.

As a program it is a server that has imported everything and forks a process for each command line,
so that a process costs milliseconds: see `Forks`.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import safe_open

STATUSES = {0, 2, 130, 143}

# Small enough to train in a fifth of a second: 13 steps an epoch.
TINY = ("digits", "model.name=mlp", "model.hidden=[12]", "train.batch_size=100",
        "train.log_every=4", "train.select=valid.loss")  # fmt: skip


@dataclass(frozen=True)
class Told:
    """How a command ended: its exit status, and what stood on both outputs."""

    status: int
    out: str
    err: str

    def keeps_the_contract(self) -> bool:
        """Tell whether it ended as promised: no traceback, and an error of one to three lines."""
        return (
            self.status in STATUSES
            and "Traceback" not in self.err + self.out
            and (self.status != 2 or 1 <= len(self.err.strip().splitlines()) <= 3)
        )


def cli(*arguments: object) -> Told:
    """Run a command line in this process."""
    main = importlib.import_module("hydrofoil.cli.main").main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            return Told(int(left.code or 0), out.getvalue(), err.getvalue())
        except BaseException as error:  # the command line itself let it through
            return Told(1, out.getvalue(), f"{err.getvalue()}Traceback: {error!r}")
    raise AssertionError("main leaves with a status")


# ── the run folder ───────────────────────────────────────────────────────────────────────────────


def tensors_of(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hash of every tensor of a safetensors file, and its metadata; raise if broken."""
    with safe_open(path, framework="np") as file:
        hashes = {
            name: hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest()
            for name in sorted(file.keys())
        }
        return hashes, dict(file.metadata() or {})


def without_seconds(content: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same twice."""
    return {name: value for name, value in content.items() if not name.endswith("seconds")}


def end_of(run: Path) -> dict[str, Any]:
    """Return what a run came to: all bits of weights and optimizer, the counters, the log."""
    last, metadata = tensors_of(run / "last.safetensors")
    best, about = tensors_of(run / "best.safetensors")
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "last": last,
        "numbers": without_seconds(json.loads(metadata["numbers"])),
        "best": best,
        "epoch of best": about["epoch"],
        "log": [without_seconds(e) for e in events if e["event"] in ("epoch", "loss")],
    }


def staged(run: Path) -> list[Path]:
    """Return the files that were written beside their place and not yet put there."""
    return [path for path in run.rglob(".*-*") if path.is_file()]


def unknown_to_manifest(run: Path) -> list[str]:
    """Return the files whose SHA-256 is not in the run's manifest; of a log, its first part's."""
    files = json.loads((run / "manifest.json").read_bytes())["files"]
    found: list[str] = []
    for path in sorted(path for path in run.rglob("[!.]*") if path.is_file()):
        name, content = str(path.relative_to(run)), path.read_bytes()
        known = files.get(name, [])
        if name == "manifest.json" or (name == "log.jsonl" and not known):
            continue
        parts = [content[: one["size"]] if name == "log.jsonl" else content for one in known]
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        if not any(one["sha256"] == digest for one, digest in zip(known, digests, strict=True)):
            found.append(name)
    return found


# ── processes ────────────────────────────────────────────────────────────────────────────────────

IMPORTED = [
    "torch", "torch._dynamo", "sklearn.datasets", "safetensors.torch", "hydrofoil.cli.main",
    "hydrofoil.session.train", "hydrofoil.session.resume", "hydrofoil.models.summary",
    "hydrofoil.report.text",
]  # fmt: skip


class Forks:
    """A server that forks a process for each command line; for `with`."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.black_box"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.ended: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()

    def start(self, folder: Path, *arguments: object, gate: Path | None = None) -> "Process":
        """Start a command line in a folder, which gets its output as `told`.

        Args:
            folder: Where it runs.
            arguments: Of hydrofoil; or a function `module:name` and its own, as strings.
            gate: It waits until this file exists.
        """
        job = {"folder": str(folder), "arguments": [str(a) for a in arguments]}
        number = self._ask({**job, "gate": str(gate) if gate else ""})
        assert number
        return Process(self, number, folder)

    def run(self, folder: Path, *arguments: object) -> Told:
        """Run a command line to its end."""
        return self.start(folder, *arguments).wait()

    def status(self, number: int, *, or_halted: bool = False) -> int | None:
        """Wait until a process ends, or is halted, too.

        Returns:
            Its exit status, below zero for the signal that ended it; None: it is halted.
        """
        if number not in self.ended:
            status = self._ask({"wait": number, "or_halted": or_halted})
            if status is None:
                return None
            self.ended[number] = status
        return self.ended[number]

    def _ask(self, job: dict[str, Any]) -> int | None:
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


@dataclass(frozen=True)
class Process:
    """One process of `Forks`; its number stays its own until it was waited for."""

    forks: Forks
    number: int
    folder: Path

    def send(self, signal_number: int) -> None:
        if self.number not in self.forks.ended:
            os.kill(self.number, signal_number)

    def halt(self) -> bool:
        """Let it stand still, until SIGCONT; return whether it does: it may have ended."""
        self.send(signal.SIGSTOP)
        return self.forks.status(self.number, or_halted=True) is None

    def wait(self) -> Told:
        """Wait until it ends."""
        status = self.forks.status(self.number)
        assert status is not None
        texts: list[str] = []
        for name in ("out", "err"):
            path = self.folder / f"{self.number}.{name}"
            # One that was killed at once had not opened them yet.
            texts.append(path.read_text(errors="replace") if path.exists() else "")
            path.unlink(missing_ok=True)
        return Told(status, *texts)


def serve() -> None:
    """Fork a process for each line that comes, and say its number; wait for it when asked to."""
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            status = os.waitpid(job["wait"], os.WUNTRACED if job["or_halted"] else 0)[1]
            code = None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
            print(json.dumps(code), flush=True)
            continue
        number = os.fork()
        if number == 0:
            become(job["folder"], job["arguments"], job["gate"])
        print(json.dumps(number), flush=True)


def become(folder: str, arguments: Sequence[str], gate: str) -> None:
    """Be the process that was asked for; does not return."""
    os.chdir(folder)
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        handle = os.open(f"{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, stream.fileno())
        os.close(handle)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while gate and not os.path.exists(gate):
        signal.sigtimedwait([], 0.001)
    module, _, function = arguments[0].partition(":")
    status = 1
    try:
        if function:
            getattr(importlib.import_module(module), function)(*arguments[1:])
        else:
            importlib.import_module("hydrofoil.cli.main").main(arguments)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 0
    except BaseException:
        importlib.import_module("traceback").print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
