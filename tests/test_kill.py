"""SIGKILL at random moments: a run that is resumed ends with the bits of one that was not killed.

Every second kill is aimed: the process is halted, its folder looked at, and it is killed there if
it is inside a save, and else let go on. So how many are inside a save is known, not estimated.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.black_box import TINY, Forks, Process, end_of, staged, tensors_of, unknown_to_manifest


@dataclass(frozen=True)
class Subject:
    """What is killed.

    Args:
        begin: Its command line for a run folder.
        go_on: The one that goes on after a kill.
        saving: What in the folder shows that a process is, or died, inside a save.
        broken: What in the folder cannot be read back.
        end: All that it came to.
    """

    begin: Callable[[Path], list[str]]
    go_on: Callable[[Path], list[str]]
    saving: Callable[[Path], set[str]]
    broken: Callable[[Path], list[str]]
    end: Callable[[Path], Any]


@dataclass
class Found:
    """What a number of kills came to."""

    kills: int = 0
    inside: int = 0
    broken: list[str] = field(default_factory=list[str])
    other_ends: list[str] = field(default_factory=list[str])


def kill_many(
    forks: Forks, folder: Path, subject: Subject, kills: int, rng: random.Random
) -> Found:
    """Kill runs and what goes on with them, so often; compare each end with that of one unkilled.

    A third of the processes that go on are killed, too.
    """
    forks.run(folder, *subject.begin(folder / "first"))  # builds what is built once
    began = time.monotonic()
    told = forks.run(folder, *subject.begin(folder / "straight"))
    seconds = time.monotonic() - began  # says where to kill, and decides nothing
    assert told.status == 0, told
    expected, found = subject.end(folder / "straight"), Found()
    for number in range(10 * kills):
        run = folder / f"run-{number}"
        process, chance = forks.start(folder, *subject.begin(run)), 1.0
        while True:
            before = subject.saving(run)
            if found.kills < kills and rng.random() < chance:
                aimed = found.kills % 2 == 0
                kill(process, lambda: bool(subject.saving(run) - before), aimed, seconds, rng)  # noqa: B023
            told = process.wait()
            if told.status != -signal.SIGKILL:
                break
            found.kills += 1
            found.inside += bool(subject.saving(run) - before)
            found.broken += subject.broken(run)
            process, chance = forks.start(folder, *subject.go_on(run)), 1 / 3
        if told.status != 0 or subject.end(run) != expected:
            found.other_ends.append(f"{run.name}: {told}")
        shutil.rmtree(run)
        if found.kills >= kills:
            break
    assert found.kills == kills
    return found


def kill(
    process: Process,
    is_saving: Callable[[], bool],
    aimed: bool,
    seconds: float,
    rng: random.Random,
) -> None:
    """Kill a process after some of the seconds that it may last; aimed: inside its next save."""
    time.sleep(seconds * rng.random() * (0.8 if aimed else 1))
    while aimed and process.halt() and not is_saving():
        process.send(signal.SIGCONT)
        time.sleep(rng.random() * 2e-3)
    process.send(signal.SIGKILL)


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks() as server:
        yield server


# ── hydrofoil ────────────────────────────────────────────────────────────────────────────────────


def hydrofoil(execute: str) -> Subject:
    short = (*TINY, "train.epochs=3", f"train.execute={execute}")

    def begin(run: Path) -> list[str]:
        # Every third run is saved at its epochs' ends alone: the first save comes after one.
        steps = 13 if int(run.name.partition("-")[2] or 0) % 3 == 2 else 3
        return ["train", *short, f"train.save_steps={steps}", "--run", run.name]

    def go_on(run: Path) -> list[str]:
        return ["resume", run.name] if (run / "recipe.toml").exists() else begin(run)

    def broken(run: Path) -> list[str]:
        found: list[str] = []
        checkpoints = [run / f"{name}.safetensors" for name in ("last", "previous")]
        if (run / "best.safetensors").exists() and not any(map(Path.exists, checkpoints)):
            found.append(f"{run}: no checkpoint")  # the two are saved at once
        for path in run.glob("[!.]*.safetensors"):
            try:
                tensors_of(path)
            except Exception as error:
                found.append(f"{path}: {error}")
        return found + (unknown_to_manifest(run) if (run / "manifest.json").exists() else [])

    return Subject(begin, go_on, lambda run: {path.name for path in staged(run)}, broken, end_of)


def check_kills(forks: Forks, folder: Path, execute: str, kills: int, seed: int) -> Found:
    found = kill_many(forks, folder, hydrofoil(execute), kills, random.Random(seed))
    assert found.broken == []
    assert found.other_ends == []
    assert found.inside >= 0.3 * found.kills
    return found


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_killed_run_ends_as_one_that_was_not_killed(
    execute: str, forks: Forks, tmp_path: Path
) -> None:
    check_kills(forks, tmp_path, execute, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_hundred_killed_runs_end_as_one_that_was_not_killed(
    execute: str, forks: Forks, tmp_path: Path
) -> None:
    check_kills(forks, tmp_path, execute, kills=100, seed=1)


# ── the control ──────────────────────────────────────────────────────────────────────────────────

STEPS = 30


def train_plainly(folder: str) -> None:
    """Train as many a script does: torch.save in place, torch.load to go on."""
    path = Path(folder) / "last.pt"
    weights, first = torch.zeros(100_000), 1
    if path.exists():
        state = torch.load(path, weights_only=True)
        weights, first = state["weights"], state["step"] + 1
    path.parent.mkdir(exist_ok=True)
    for step in range(first, STEPS + 1):
        weights += torch.rand(100_000, generator=torch.Generator().manual_seed(step))
        torch.save({"weights": weights, "step": step}, path)


def load_plainly(run: Path) -> Any:
    state = torch.load(run / "last.pt", weights_only=True)
    return state["step"], state["weights"].sum().item()


def broken_plainly(run: Path) -> list[str]:
    try:
        load_plainly(run)
    except FileNotFoundError:
        return []
    except Exception as error:
        return [f"{run}: {error}"]
    return []


def test_the_same_kills_break_what_is_saved_in_place(forks: Forks, tmp_path: Path) -> None:
    def command(run: Path) -> list[str]:
        return ["tests.test_kill:train_plainly", run.name]

    plain = Subject(
        command, command, lambda run: set(broken_plainly(run)), broken_plainly, load_plainly
    )
    found = kill_many(forks, tmp_path, plain, kills=2, rng=random.Random(0))
    assert found.inside
    assert found.broken
    assert found.other_ends
