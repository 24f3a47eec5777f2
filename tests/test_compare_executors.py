"""A comparison is of runs by one executor, or says which two it found."""

import pytest

from hydrofoil.native.build import compiler
from tests.resume_steps import command

TINY = ("train.epochs=1", "model.name=mlp", "model.hidden=[8]", "b.optimizer.lr=0.01")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> object:
    """Return what hides the C compiler from here on."""

    def hide() -> None:
        monkeypatch.setattr("hydrofoil.native.build.shutil.which", lambda _: None)
        compiler.cache_clear()

    yield hide
    monkeypatch.undo()
    compiler.cache_clear()


def test_seeds_that_are_added_by_another_executor_are_refused(no_compiler: object) -> None:
    assert command("compare", "digits", "digits", *TINY, "--seeds", "1")[0] == 0
    no_compiler()  # type: ignore[operator]
    status, said = command("compare", "digits", "digits", *TINY, "--seeds", "2")
    assert status == 2
    assert "seed-0 was trained by native and runs/compare/digits-" in said
    assert "seed-1 by eager: expected one executor in all runs" in said
    assert "with train.execute=native on both sides" in said
    assert command("compare", "digits", "digits", *TINY, "--seeds", "1")[0] == 0


def test_runs_of_two_executors_are_refused_within_a_side_and_between_sides() -> None:
    for seed, execute in ((0, "native"), (1, "eager"), (2, "native")):
        options = (*TINY[:3], f"train.execute={execute}", "--seed", seed, "--test")
        folder = "a" if seed < 2 else "b"
        assert command("train", "digits", *options, "--run", f"{folder}/{seed}")[0] == 0
    status, said = command("compare", "a", "b")
    assert (status, said.count("\n")) == (2, 2)
    assert said.startswith("a/0 was trained by native and a/1 by eager: expected one executor")
    status, said = command("compare", "a/1", "b/2")
    assert status == 2
    assert "a/1 was trained by eager and b/2 by native" in said


def test_two_executors_can_be_compared_if_the_command_asks_for_it() -> None:
    fields = (*TINY[:3], "a.train.execute=eager", "b.train.execute=native")
    status, said = command("compare", "digits", "digits", *fields, "--seeds", "1")
    assert status == 0, said
    assert "train.execute" in said


def test_eager_runs_on_other_numbers_of_threads_are_refused_within_a_side() -> None:
    for seed in (0, 1):
        options = (*TINY[:3], "train.execute=eager", f"train.threads={seed + 1}", "--seed", seed)
        assert command("train", "digits", *options, "--test", "--run", f"a/{seed}")[0] == 0
    other = (*TINY[:3], "train.execute=eager", "optimizer.lr=0.01", "--test", "--run", "b")
    assert command("train", "digits", *other)[0] == 0
    status, said = command("compare", "a", "b")
    assert status == 2
    assert "a/0 was trained on 1 threads and a/1 on 2: expected one number" in said
