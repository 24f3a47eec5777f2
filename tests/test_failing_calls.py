"""Writes, waits for the disk and renames that fail: the run stays whole, and the cause is named.

Three ways, from near to far: the calls of `os` replaced in this process, for each of them; the
system's own calls made to fail by strace, where it is installed; disks that are full.
"""

import errno
import os
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.black_box import TINY, Forks, Told, cli, end_of, tensors_of, unknown_to_manifest

# Two saves inside epochs and two at their ends.
SHORT = (*TINY, "train.epochs=2", "train.execute=eager")
LONG = (*SHORT, "train.save_steps=7")
CAUSES = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read-only",
    errno.EFBIG: "so large",
    errno.EIO: "faults",
}
CALLS = ("write", "fsync", "replace")


def names_the_cause(told: Told, number: int) -> bool:
    """Tell whether an error says what the system said, and in a sentence of its own what it is."""
    first, *rest = told.err.strip().splitlines()
    return os.strerror(number) in first and CAUSES[number] in " ".join(rest)


def check_left(run: Path) -> None:
    """Make sure that all that is read back is whole."""
    for path in run.glob("[!.]*.safetensors"):
        tensors_of(path)
    if (run / "manifest.json").exists():
        assert unknown_to_manifest(run) == []


def check_goes_on(run: Path, expected: Any, begin: tuple[str, ...]) -> None:
    """Make sure that the same command, or `resume`, ends as if nothing had been."""
    check_left(run)
    begun = (run / "recipe.toml").exists()
    told = cli("resume", run) if begun else cli("train", *begin, "--run", run)
    assert told.status == 0, told
    assert end_of(run) == expected


# ── the calls of this process ────────────────────────────────────────────────────────────────────


class Disk:
    """Counts calls of `os`, and lets one of them fail, or all from then on.

    Args:
        call: Which.
        number: From 1; 0: none.
        error: What the system says.
        lasting: All later calls of all kinds fail, too; a write first takes half of what it gets.
    """

    def __init__(self, call: str = "", number: int = 0, error: int = 0, lasting: bool = False):
        self.call, self.number, self.error, self.lasting = call, number, error, lasting
        self.count: Counter[str] = Counter()
        self.failed = False

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, self._replaced(name, getattr(os, name)))

    def _replaced(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count[name] += 1
            if self.failed and self.lasting:
                raise OSError(self.error, os.strerror(self.error))
            if (name, self.count[name]) == (self.call, self.number):
                self.failed = True
                if name == "write" and self.lasting and len(arguments[1]) > 1:
                    return real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **options)

        return call


def under(disk: Disk, *arguments: object) -> Told:
    with pytest.MonkeyPatch.context() as patch:
        disk.patch(patch)
        return cli(*arguments)


def check_every_call(begin: tuple[str, ...], errors: list[int], every: int) -> int:
    """Let each call of a training fail; return how often that ended it.

    Args:
        begin: The recipe.
        errors: What the system may say.
        every: 1: each error for each call, for once and for good; else one of these, in turn.
    """
    counts = Disk()
    assert under(counts, "train", *begin, "--run", "straight").status == 0
    expected, tried, ended = end_of(Path("straight")), 0, 0
    assert set(counts.count) == set(CALLS)
    for call in CALLS:
        for number in range(1, counts.count[call] + 1):
            for lasting in (False, True) if every == 1 else (number % 2 == 0,):
                tried += 1
                chosen = errors if every == 1 else [errors[tried % len(errors)]]
                for error in chosen:
                    run = Path("run")
                    disk = Disk(call, number, error, lasting)
                    told = under(disk, "train", *begin, "--run", run)
                    assert disk.failed
                    assert told.keeps_the_contract(), (call, number, told)
                    if told.status:
                        ended += 1
                        assert names_the_cause(told, error), (call, number, told)
                    check_goes_on(run, expected, begin)
                    shutil.rmtree(run)
    assert ended == tried * len(errors if every == 1 else [0])
    return ended


def test_whatever_call_of_a_training_fails_the_run_goes_on_to_the_same_bits() -> None:
    check_every_call((*SHORT, "train.epochs=1", "train.save_steps=7"), list(CAUSES), every=5)


@pytest.mark.slow
def test_whatever_call_of_a_longer_training_fails_with_whatever_error() -> None:
    check_every_call(LONG, list(CAUSES), every=1)


def test_where_a_call_of_a_test_fails_the_next_one_is_right() -> None:
    assert cli("train", *SHORT, "--run", "trained").status == 0
    counts = Disk()
    shutil.copytree("trained", "straight")
    assert under(counts, "test", "straight").status == 0
    expected = Path("straight/test.json").read_text()
    for call in CALLS:
        for number in range(1, counts.count[call] + 1, 2):
            error = list(CAUSES)[number % len(CAUSES)]
            run = Path(shutil.copytree("trained", "run"))
            told = under(Disk(call, number, error), "test", run)
            assert told.keeps_the_contract(), (call, number, told)
            assert told.status == 2, (call, number, told)
            assert names_the_cause(told, error), (call, number, told)
            check_left(run)
            assert cli("test", run).status == 0
            again = Path(run / "test.json").read_text()
            assert again in (expected, expected.replace('"opened": 1', '"opened": 2'))
            shutil.rmtree(run)


# ── the system's calls, by strace ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks() as server:
        yield server


class Strace:
    """Runs command lines whose N-th call fails.

    strace is let go on to a forked process that waits, so that the calls are counted from the first
    of the command line's own.
    """

    KINDS = {"write": "write", "fsync": "fsync", "rename": "rename,renameat,renameat2"}  # noqa: RUF012

    def __init__(self, forks: Forks, folder: Path) -> None:
        if not shutil.which("strace"):
            pytest.skip("strace is not installed")
        self.forks, self.folder = forks, folder

    def run(self, kind: str, number: int, error: int, *arguments: object) -> tuple[Told, list[str]]:
        """Run a command line whose N-th call of a kind fails, counted in each of its threads.

        Returns:
            How it ended; the calls that failed, as strace writes them down.
        """
        gate, log = self.folder / "gate", self.folder / "calls"
        gate.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        process = self.forks.start(self.folder, *arguments, gate=gate)
        names = self.KINDS[kind]
        failing = f"inject={names}:error={errno.errorcode[error]}:when={number}"
        strace = subprocess.Popen(
            ["strace", "-f", "-y", "-o", log, "-e", f"trace={names}", "-e", failing,
             "-p", str(process.number)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        status = Path(f"/proc/{process.number}/status")
        while "TracerPid:\t0\n" in status.read_text() and strace.poll() is None:
            time.sleep(1e-3)
        refused = strace.poll() is not None
        gate.touch()
        told = process.wait()
        strace.wait()
        if refused:
            pytest.skip("strace may not look at processes here")
        calls = log.read_text(errors="replace").splitlines()
        return told, [call for call in calls if call.endswith("(INJECTED)")]


def check_strace(strace: Strace, folder: Path, error: int) -> None:
    """Let each call of each kind fail, in a training that has a checkpoint."""
    forks = strace.forks
    assert forks.run(folder, "train", *SHORT, "train.epochs=1", "--run", "half").status == 0
    go_on = ("train.epochs=2",)
    shutil.copytree(folder / "half", folder / "straight")
    assert forks.run(folder, "resume", "straight", *go_on).status == 0
    expected, ended = end_of(folder / "straight"), Counter[str]()
    for kind in Strace.KINDS:
        number, hits = 1, ["one"]
        while hits:
            run = Path(shutil.copytree(folder / "half", folder / "run"))
            told, hits = strace.run(kind, number, error, "resume", run, *go_on)
            assert told.status in (0, 2), (hits, told)
            if not any(".err>" in hit for hit in hits):  # where the sentence itself would stand
                assert told.keeps_the_contract(), (hits, told)
            if hits and all(str(run) in hit for hit in hits):
                ended[kind] += 1
                assert told.status == 2, (hits, told)
                assert names_the_cause(told, error), (hits, told)
            check_left(run)
            assert forks.run(folder, "resume", "run", *go_on).status == 0
            assert end_of(run) == expected, hits
            shutil.rmtree(run)
            number += 1
    assert ended.keys() == Strace.KINDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("error", CAUSES, ids=errno.errorcode.get)
def test_any_call_that_the_system_refuses(error: int, forks: Forks, tmp_path: Path) -> None:
    check_strace(Strace(forks, tmp_path), tmp_path, error)


# ── full disks ───────────────────────────────────────────────────────────────────────────────────


def with_small_files(size: str, *arguments: str) -> None:
    """Run a command line whose files may not outgrow so many bytes."""
    from hydrofoil.cli.main import main

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
    main(arguments)


def test_files_that_may_not_grow_so_large(forks: Forks, tmp_path: Path) -> None:
    assert forks.run(tmp_path, "train", *LONG, "--run", "straight").status == 0
    expected, run, statuses = end_of(tmp_path / "straight"), tmp_path / "run", set[int]()
    largest = max(path.stat().st_size for path in (tmp_path / "straight").iterdir())
    for size in (600, 1500, 3000, 6000, largest - 100, largest - 1, largest):
        begin = ("train", *LONG, "--run", "run")
        told = forks.run(
            tmp_path, "tests.test_failing_calls:with_small_files", size, *begin, "--json"
        )
        statuses.add(told.status)
        assert told.keeps_the_contract(), (size, told)
        if told.status:
            assert names_the_cause(told, errno.EFBIG), (size, told)
        check_left(run)
        begun = (run / "recipe.toml").exists()
        assert forks.run(tmp_path, *(("resume", "run") if begun else begin)).status == 0
        assert end_of(run) == expected
        shutil.rmtree(run)
    assert statuses == {0, 2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of its own, 1 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk can only be mounted by root, on Linux")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(forks: Forks, tmp_path: Path, small_disk: Path) -> None:
    assert forks.run(tmp_path, "train", *LONG, "--run", "straight").status == 0
    expected, statuses = end_of(tmp_path / "straight"), set[int]()
    run, ballast = small_disk / "run", small_disk / "ballast"
    for free in (0, 4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 256):
        ballast.write_bytes(bytes((1024 - free) << 10))
        begin = ("train", *LONG, "--run", run)
        told = forks.run(tmp_path, *begin)
        statuses.add(told.status)
        assert told.keeps_the_contract(), (free, told)
        if told.status:
            assert names_the_cause(told, errno.ENOSPC), (free, told)
        check_left(run)
        ballast.unlink()
        begun = (run / "recipe.toml").exists()
        assert forks.run(tmp_path, *(("resume", run) if begun else begin)).status == 0
        assert end_of(run) == expected
        shutil.rmtree(run)
    assert statuses == {0, 2}
