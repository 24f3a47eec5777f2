"""Windows, minimal containers and network disks, as far as they can be imitated here."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hydrofoil import HydrofoilError, Run, draw_split, load, read_recipe
from hydrofoil.cli.main import app
from hydrofoil.run import commands
from tests.resume_steps import command

HIDDEN = ("fcntl", "resource", "pwd", "grp", "termios")
QUICK = ("digits", "train.epochs=1", "train.execute=eager")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a process without POSIX modules, os.fork and a C compiler."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in HIDDEN:
        (hidden / f"{name}.py").write_text(
            f"raise ModuleNotFoundError(\"No module named '{name}'\")\n"
        )
    (hidden / "sitecustomize.py").write_text(
        "import os, signal\n"
        "for name in ('fork', 'getuid', 'sched_getaffinity', 'pread', 'pwrite'):\n"
        "    vars(os).pop(name, None)\n"
        "for name in ('SIGKILL', 'SIGALRM', 'SIGHUP', 'SIGUSR1', 'setitimer'):\n"
        "    vars(signal).pop(name, None)\n"
    )
    path = f"{hidden}{os.pathsep}{Path(__file__).parents[1]}"
    windows = {"USERNAME": "someone"}  # always set there, and torch asks for it
    return {**os.environ, **windows, "PYTHONPATH": path, "PATH": "", "OMP_NUM_THREADS": "1"}


def test_every_verb_works_without_posix_modules_and_a_compiler(elsewhere: dict[str, str]) -> None:
    Image.fromarray(load("digits").pictures_NCHW[0, 0].numpy()).save("image.png")
    verbs = [
        ["recipes"], ["show", "digits"], ["train", *QUICK, "--test", "--run", "r"],
        ["resume", "r", "train.epochs=2"], ["resume", "r", "--prove"], ["test", "r"],
        ["show", "r"], ["report", "r"], ["predict", "r", "image.png"],
        ["explain", "r", "image.png"], ["train", *QUICK[:2], "--run", "auto"],
        ["train", *QUICK, "--test", "--seed", "1", "--run", "s"], ["compare", "r", "s"],
        ["cache"], ["runs"], ["ls"], ["new", "digits"],
        ["check", "digits", "--only", "copies,files,shortcuts"],
        ["find-lr", *QUICK, "--steps", "20"],
        ["tune", *QUICK, "lr=0.01|0.02", "--trials", "1", "--seeds", "0"],
        ["import", "digits", "r/best.safetensors", "--run", "imported"],
    ]  # fmt: skip
    known = {c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands}
    assert {verb[0] for verb in verbs} == {name.rstrip("_") for name in known} - {"bench"}
    code = (  # one process: torch is imported once
        "from hydrofoil.cli.main import main\n"
        f"for verb in {verbs!r}:\n"
        "    try:\n"
        "        main(verb)\n"
        "    except SystemExit as left:\n"
        "        assert not left.code, verb\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=elsewhere, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_disk_without_locks_costs_a_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    status, told = command("train", *QUICK, "--run", "r")
    assert status == 0, told
    assert "note: r cannot be locked" in told
    assert Run.open("r").checkpoints.epoch() == 1


def test_another_error_of_a_lock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("digits")
    run = Run.create(None, recipe, draw_split(load("digits")), {})

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HydrofoilError, match="cannot be locked"), run.writing():
        pass


@pytest.mark.parametrize("name", ["my runs/first", "läufe/試行", "back\\slash", "quo'te\"s", "a&b"])
def test_a_run_may_have_any_name_and_the_printed_commands_work(name: str) -> None:
    status, told = command("train", *QUICK, "--run", name)
    assert status == 0, told
    (line,) = [line for line in told.splitlines() if line.startswith("next: ")]
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line.removeprefix('next: ')}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["hydrofoil", "test", name]
    assert command("test", name)[0] == 0
    assert command("report", name)[0] == 0


@pytest.mark.parametrize("name", ["con", "AUX", "runs/nul", "nul.txt", "com1/x", "a. ", "x."])
def test_names_that_windows_reserves_are_refused_everywhere(name: str) -> None:
    status, told = command("train", *QUICK, "--run", name)
    assert status == 2
    assert told.startswith(f"{name}: ")
    assert "--run" in told
    assert not Path(name).exists()


def test_commands_are_quoted_as_each_systems_shell_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = Path("my run")
    assert commands.command("test", path) == "hydrofoil test 'my run'"
    monkeypatch.setattr(commands.os, "name", "nt")
    assert commands.command_line(["hydrofoil", "test", "my run"]) == 'hydrofoil test "my run"'
