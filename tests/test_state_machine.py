"""The command line as a state machine: whatever a person does, in whatever order.

Never a traceback, never a lost best checkpoint, and whenever a training ends it has the bits of one
that nothing happened to.
"""

import math
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from hydrofoil.train.executors.eager import Eager
from tests.black_box import TINY, Told, cli, end_of, tensors_of

SELECTS = ("valid.loss", "valid.accuracy", "last")
MOST = 5  # epochs
FILES = [
    "recipe.toml", "environment.json", "split.npz", "log.jsonl", "best.safetensors",
    "last.safetensors", "previous.safetensors", "test.json", "answers.npz", "shown.npz",
    "manifest.json", "figures/predictions.png", "figures/curves.png", "report.html",
]  # fmt: skip
BEST, LAST = "best.safetensors", "last.safetensors"
TRAIN_STEPS = Eager.train_steps


def recipe(select: str, epochs: int) -> list[str]:
    return [*TINY, f"train.select={select}", f"train.epochs={epochs}", "train.execute=eager",
            "train.save_steps=9"]  # fmt: skip


@cache
def straight(select: str, epochs: int) -> dict[str, Any]:
    """Return what a training comes to that nothing happens to."""
    undisturbed = mock.patch.object(Eager, "train_steps", TRAIN_STEPS)
    with undisturbed, tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        assert cli("train", *recipe(select, epochs), "--run", run).status == 0
        return end_of(run)


@cache
def goodness(select: str) -> dict[int, float]:
    """Return how good each epoch's weights are, by the recipe's select: the more the better."""
    lines = [line for line in straight(select, MOST)["log"] if line["event"] == "epoch"]
    part, _, number = select.partition(".")
    return {
        line["epoch"]: line["epoch"] if part == "last"
        else line["valid"][number] * (-1 if number == "loss" else 1)
        for line in lines
    }  # fmt: skip


@contextmanager
def at_step(number: int, do: Callable[[], object]) -> Generator[list[int]]:
    """Do something before a step of that number, counted from 1; yields the steps that came."""
    steps = list[int]()

    def train_steps(self: Eager, *arguments: Any, **options: Any) -> None:
        steps.append(1)
        if len(steps) == number:
            do()
        TRAIN_STEPS(self, *arguments, **options)

    with mock.patch.object(Eager, "train_steps", train_steps):
        with mock.patch("hydrofoil.train.guard.CHECK_SECONDS", 0.0):  # look after each step
            yield steps


def interrupt() -> None:
    raise KeyboardInterrupt


STOPS: dict[int, Callable[[], object]] = {
    130: lambda: os.kill(os.getpid(), signal.SIGINT),
    143: lambda: os.kill(os.getpid(), signal.SIGTERM),
    0: interrupt,  # from Python's own code, wherever it is
}


@dataclass
class Known:
    """What the machine knows of a run.

    Args:
        path: Its folder.
        select: Of its recipe.
        epochs: That it is to train.
        best: How good the best weights are that were kept; none yet.
        damage: Files that were deleted or changed: what they were, and what they are now.
        unchecked: Its manifest was deleted: what was changed is not known to anybody.
    """

    path: Path
    select: str
    epochs: int
    best: float = -math.inf
    damage: dict[str, tuple[bytes, bytes | None]] = field(default_factory=dict[str, Any])
    unchecked: bool = False

    def content(self, name: str) -> bytes | None:
        path = self.path / name
        return path.read_bytes() if path.exists() else None

    def forget_healed(self) -> None:
        """Forget the damage to files that were written anew."""
        self.damage = {
            name: (before, now)
            for name, (before, now) in self.damage.items()
            if self.content(name) == now
        }


class CommandLine(RuleBasedStateMachine):
    """Two run folders, and everything that can be done to them."""

    names = st.sampled_from(["a", "b"])
    steps = st.integers(1, 30)
    stops = st.sampled_from(list(STOPS))
    numbers = st.integers(1, MOST)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="."))
        self.runs: dict[str, Known] = {}
        self.picture = self.folder / "picture.png"
        Image.new("L", (8, 8), 90).save(self.picture)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def command(self, *arguments: object) -> Told:
        told = cli(*arguments)
        assert told.keeps_the_contract(), (arguments, told)
        for run in self.runs.values():
            run.forget_healed()
        return told

    # ── training ─────────────────────────────────────────────────────────────────────────────────

    @initialize(first=st.sampled_from(SELECTS), second=st.sampled_from(SELECTS), step=steps)
    def begin(self, first: str, second: str, step: int) -> None:
        self.train_anew("a", first, 3, step, 143)
        self.train_anew("b", second, 2, 0, 0)

    @rule(name=names, select=st.sampled_from(SELECTS), epochs=numbers)
    def train_again(self, name: str, select: str, epochs: int) -> None:
        """What lies in a folder stays as it is."""
        path = self.folder / name
        before = {one: one.read_bytes() for one in path.rglob("[!.]*") if one.is_file()}
        told = self.command("train", *recipe(select, epochs), "--run", path)
        assert told.status == 2
        assert before == {one: one.read_bytes() for one in path.rglob("[!.]*") if one.is_file()}

    @rule(name=names, select=st.sampled_from(SELECTS), epochs=numbers, step=steps, stop=stops)
    def train_anew(self, name: str, select: str, epochs: int, step: int, stop: int) -> None:
        """Throw a run away, and train another, which is stopped at a step; 0: it is not."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        run = self.runs[name] = Known(self.folder / name, select, epochs)
        with at_step(step, STOPS[stop]) as came:
            told = self.command("train", *recipe(select, epochs), "--run", run.path)
        self.stopped(run, told, stop, 0 < step <= len(came))

    @rule(name=names)
    def resume(self, name: str) -> None:
        self.go_on(name)

    @rule(name=names, epochs=numbers)
    def extend(self, name: str, epochs: int) -> None:
        self.go_on(name, f"train.epochs={epochs}", epochs=epochs)

    @rule(name=names, step=steps, stop=stops)
    def resume_and_stop(self, name: str, step: int, stop: int) -> None:
        with at_step(step, STOPS[stop]) as came:
            self.go_on(name, stop=stop, came=came, step=step)

    @rule(name=names)
    def prove(self, name: str) -> None:
        """It changes nothing, but that the manifest forgets what was replaced."""
        path = self.folder / name
        before = {file: self.runs[name].content(file) for file in FILES}
        self.command("resume", path, "--prove")
        before["manifest.json"] = self.runs[name].content("manifest.json")
        assert before == {file: self.runs[name].content(file) for file in FILES}

    def go_on(
        self,
        name: str,
        *overrides: str,
        epochs: int = 0,
        stop: int | None = None,
        came: list[int] | None = None,
        step: int = 0,
    ) -> None:
        run = self.runs[name]
        lost = LAST in run.damage
        told = self.command("resume", run.path, *overrides)
        if lost and told.status != 2:  # from the one before, which may know an older best
            assert f"{LAST}: " in told.out or run.unchecked
            run.best = -math.inf
        if told.status == 0 and epochs:
            run.epochs = epochs
        if told.status == 2:
            assert run.damage or epochs
        elif stop is not None and came is not None:
            self.stopped(run, told, stop, len(came) >= step)
        else:
            self.ended(run, told)

    def ended(self, run: Known, told: Told) -> None:
        """A training came to its end: its bits are those of one that nothing happened to."""
        assert told.status == 0, told
        if not run.unchecked:
            assert end_of(run.path) == straight(run.select, run.epochs)

    def stopped(self, run: Known, told: Told, stop: int, hit: bool) -> None:
        if hit:
            assert told.status == (stop or 130), told
            assert "Resume with: hydrofoil resume" in told.err
        else:
            self.ended(run, told)

    @rule(name=names, verb=st.sampled_from(["train", "resume", "test"]), step=steps)
    def start_a_second_one(self, name: str, verb: str, step: int) -> None:
        """While a run is written nobody else may: and the one that writes does not notice."""
        run, second = self.runs[name], list[Told]()
        others = {"train": ["train", *recipe(run.select, 1), "--run", run.path]}
        other = others.get(verb, [verb, run.path])
        with at_step(step, lambda: second.append(cli(*other))):
            self.go_on(name)
        for told in second:
            assert told.status == 2
            assert told.keeps_the_contract()

    # ── the other verbs ──────────────────────────────────────────────────────────────────────────

    @rule(name=names, verb=st.sampled_from(["test", "show", "report", "predict", "explain"]))
    def look(self, name: str, verb: str) -> None:
        run = self.runs[name]
        more = [self.picture] if verb in ("predict", "explain") else []
        whole = not run.damage and run.content(BEST)
        told = self.command(verb, run.path, *more)
        assert told.status == 0 or not whole, told

    @rule(tested=st.booleans(), verb=st.sampled_from(["compare", "report"]))
    def look_at_both(self, tested: bool, verb: str) -> None:
        for run in self.runs.values() if tested else ():
            self.command("resume", run.path)
            self.command("test", run.path)
        more = ["--runs", self.folder / "kept"] if verb == "compare" else []
        self.command(verb, *(run.path for run in self.runs.values()), *more)

    # ── what happens to files ────────────────────────────────────────────────────────────────────

    def damage(self, name: str, file: str, change: Callable[[bytes], bytes | None]) -> None:
        run = self.runs[name]
        content = run.content(file)
        if not content:
            return
        now = change(content)
        if now == content:
            return
        path = run.path / file
        path.unlink() if now is None else path.write_bytes(now)
        run.damage[file] = run.damage.get(file, (content, None))[0], now
        run.unchecked |= file == "manifest.json" and now is None

    @rule(name=names, file=st.sampled_from(FILES))
    def delete(self, name: str, file: str) -> None:
        self.damage(name, file, lambda content: None)

    @rule(
        name=names, file=st.sampled_from(FILES), at=st.integers(0, 1 << 16), bit=st.integers(0, 7)
    )
    def flip(self, name: str, file: str, at: int, bit: int) -> None:
        def change(content: bytes) -> bytes:
            place = at % len(content)
            flipped = bytes([content[place] ^ 1 << bit])
            return content[:place] + flipped + content[place + 1 :]

        self.damage(name, file, change)

    @rule(name=names, file=st.sampled_from(FILES), part=st.floats(0, 1, exclude_max=True))
    def cut(self, name: str, file: str, part: float) -> None:
        self.damage(name, file, lambda content: content[: int(part * len(content))])

    @rule(name=names, old=st.sampled_from(["lr = ", "seed = ", "epochs = ", "mlp", "["]))
    def change_the_recipe(self, name: str, old: str) -> None:
        def change(content: bytes) -> bytes:
            return content.replace(old.encode(), b"7" if old == "[" else old.encode() + b"1", 1)

        self.damage(name, "recipe.toml", change)

    @rule(name=names)
    def put_back(self, name: str) -> None:
        """Put back what was deleted or changed, unless it was written anew since."""
        run = self.runs[name]
        for file, (before, _) in run.damage.items():
            (run.path / file).write_bytes(before)
        run.damage.clear()

    # ── what is always so ────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_best_weights_are_there(self) -> None:
        for run in self.runs.values():
            if BEST in run.damage:
                run.best = -math.inf
                continue
            if run.best == -math.inf and not run.content(BEST):
                continue
            weights, about = tensors_of(run.path / BEST)
            assert weights
            best = goodness(run.select)[int(about["epoch"])]
            assert best >= run.best or run.unchecked
            run.best = best


def check(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        CommandLine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # a step takes a tenth of a second: nothing is shrunk
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sixty_things_that_a_person_may_do() -> None:
    check(examples=3, steps=20)


@pytest.mark.slow
def test_two_thousand_things_that_a_person_may_do() -> None:
    check(examples=40, steps=50)
