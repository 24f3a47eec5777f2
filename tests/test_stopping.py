"""Ctrl-C and SIGTERM: the step is finished and saved; the second one ends the process at once."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hydrofoil import Run
from hydrofoil.observe.signals import Stopped, Stopping
from hydrofoil.run.checkpoints import Checkpoints
from hydrofoil.train import guard
from hydrofoil.train.step import Eager
from tests.resume_steps import command, fingerprint, resumed

LONG = ("digits", "train.epochs=3", "train.execute=eager", "train.log_every=7")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_lets_the_step_end_and_saves_it(
    name: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", *LONG, "--run", "straight")[0] == 0
    steps = Eager.train_steps

    def signalled(self: Any, index_N: Any, epoch: int, step: int, sums: Any) -> None:
        if (epoch, step) == (2, 9):
            os.kill(os.getpid(), getattr(signal, name))
        steps(self, index_N, epoch, step, sums)

    with monkeypatch.context() as patch:
        patch.setattr(Eager, "train_steps", signalled)
        patch.setattr(guard, "CHECK_SECONDS", 0.0)
        got, told = command("train", *LONG, "--run", "stopped")
    assert got == status, told
    assert "stopped after 1 of 3 epochs and 9 steps." in told
    assert "Resume with: hydrofoil resume stopped" in told
    run = Run.open("stopped")
    assert (run.checkpoints.epoch(), run.checkpoints.step()) == (1, 9)
    assert {"event": "stopped", "signal": name, "epoch": 1, "step": 9} in run.log.events()
    assert resumed("stopped") == fingerprint("straight")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_signal_ends_the_process_at_once_and_the_run_can_be_resumed() -> None:
    # The step never ends by itself: only the second signal can end this.
    code = (
        "import os, signal, sys, time\n"
        "from hydrofoil.cli.main import main\n"
        "from hydrofoil.train.step import Eager\n"
        "steps = Eager.train_steps\n"
        "def endless(self, index_N, epoch, step, sums):\n"
        "    steps(self, index_N, epoch, step, sums)\n"
        "    while (epoch, step) == (2, 9):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.01)\n"
        "Eager.train_steps = endless\n"
        "main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *LONG, "train.save_steps=5", "--run", "r"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    run = Run.open("r")
    assert (run.checkpoints.epoch(), run.checkpoints.step()) == (1, 5)
    assert command("train", *LONG, "train.save_steps=5", "--run", "straight")[0] == 0
    assert resumed("r") == fingerprint("straight")


def test_a_signal_while_the_last_epochs_are_saved_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = Checkpoints.save

    def signalled(self: Checkpoints, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, *arguments)

    # Once, at the end: the epochs take no five seconds.
    monkeypatch.setattr(Checkpoints, "save", signalled)
    monkeypatch.setattr("hydrofoil.observe.recorder.SAVE_SECONDS", 600.0)
    status, told = command("train", *LONG, "--test", "--run", "r")
    assert status == 143, told
    assert "stopped after 3 of 3 epochs." in told
    assert Run.open("r").results.test() is None


def test_a_thread_trains_without_touching_the_process_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        stopping = Stopping()
        stopping.begin()
        stopping.check()
        stopping.end()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_was_noted_is_raised_where_it_is_asked_for() -> None:
    stopping = Stopping()
    stopping.begin()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as caught:
            stopping.check()
    finally:
        stopping.end()
    assert caught.value.number == signal.SIGTERM
