"""A run that was interrupted ends as one that was not: to the last bit, from every step.

Axes: N pictures.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from hydrofoil import Epoch, HydrofoilError, Observer, Run, State, build, load, resume
from hydrofoil.device import resumed_device
from hydrofoil.run.checkpoints import Checkpoints
from hydrofoil.run.events import ExecutorChosen, Extended
from tests.conftest import REAL_RECIPES
from tests.resume_steps import command, fingerprint, kept_at_each_step, model, resumed

CPU = torch.device("cpu")
SHORT = ("train.epochs=2", "train.log_every=2", "data.valid=0.2", "train.select=valid.loss")
NAMES = [*REAL_RECIPES, "digits", "normed"]


def in_a_fresh_process(kind: str, paths: list[Path]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.resume_steps", kind, *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def short_run(name: str, execute: str, pictures: int) -> tuple[str, str, list[str]]:
    """Return the kind of model, the recipe, and overrides for a few steps an epoch."""
    overrides = [*SHORT, f"train.execute={execute}", f"train.batch_size={pictures}"]
    if name == "cifar10-lenet-linear":
        overrides.remove("data.valid=0.2")
    if name == "normed":
        return "normed", "digits", [*overrides, "model.name=mlp"]
    return "plain", name, overrides


def check_resuming(name: str, execute: str, only: set[tuple[int, int]] | None = None) -> None:
    """Resume from each step, or from `only` those after so many epochs and steps; compare."""
    kind, recipe, overrides = short_run(name, execute, pictures=300 if name == "normed" else 100)
    with model(kind):
        status, told = command("train", recipe, *overrides, "--run", "straight")
        assert status == 0, told
        copies = kept_at_each_step("saved", recipe, overrides)
    expected = json.loads(json.dumps(fingerprint("straight")))
    assert json.loads(json.dumps(fingerprint("saved"))) == expected  # saving changes nothing
    at = {
        (run.checkpoints.epoch(), run.checkpoints.step()): run.path for run in map(Run.open, copies)
    }
    assert len(at) == len(copies) >= 8
    wanted = {place: path for place, path in at.items() if only is None or place in only}
    ends = in_a_fresh_process(kind, list(wanted.values()))
    assert [place for place, end in zip(wanted, ends, strict=True) if end != expected] == []


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_run_resumed_from_some_steps_ends_as_one_that_was_not_stopped(execute: str) -> None:
    check_resuming("normed", execute, only={(0, 3), (1, 0), (1, 2)})


@pytest.mark.slow
@pytest.mark.parametrize("execute", ["eager", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumed_from_any_step_ends_as_one_that_was_not_stopped(
    name: str, execute: str
) -> None:
    check_resuming(name, execute)


FRESH: dict[str, Any] = {
    "epoch": 0, "step": 0, "seconds": 0.0, "logged": (0.0, 0), "sums": (0.0, 0, 0),
    "best_epoch": 0, "best_value": None, "executor": None,
}  # fmt: skip


def test_a_checkpoint_without_any_one_of_its_items_ends_otherwise() -> None:
    # Native steps, though the recipe says eager; in epoch 3, while epoch 2 stays the best.
    overrides = ["train.epochs=3", "train.log_every=2", "data.valid=0.2", "train.save_steps=1",
                 "train.batch_size=100", "model.name=mlp", "model.hidden=[12]",
                 "model.dropout=0.35", "train.select=valid.loss", "optimizer.name=adam",
                 "optimizer.lr=0.3", "optimizer.betas=[0.99,0.9]",
                 "optimizer.weight_decay=0.002"]  # fmt: skip
    with model("plain"):
        copies = kept_at_each_step("r", "digits", [*overrides, "train.execute=native"])
        places = [
            (run.checkpoints.epoch(), run.checkpoints.step()) for run in map(Run.open, copies)
        ]
        stopped = Run.open(copies[places.index((2, 3))])
        text = stopped.recipe.toml().replace('execute = "native"', 'execute = "eager"')
        stopped.files.write("recipe.toml", text.encode())
        (stopped.path / "previous.safetensors").unlink()
        with safe_open(stopped.path / "last.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            numbers = {**json.loads(file.metadata()["numbers"]), "seconds": 1000.0}
        assert (len(tensors), numbers.keys()) == (4 * (1 + 1 + 3), FRESH.keys())

        def end(dropped: str) -> Any:
            some = {name: tensor for name, tensor in tensors.items() if name != dropped}
            if dropped.startswith("optimizer/"):  # as fresh ones are: a missing one is refused
                some[dropped] = torch.zeros_like(tensors[dropped])
            few = {name: FRESH[name] if name == dropped else numbers[name] for name in numbers}
            lame = Run.open(shutil.copytree(stopped.path, f"without-{dropped.replace('/', '-')}"))
            metadata = {"numbers": json.dumps(few), "recipe": lame.recipe.hash()}
            lame.files.write("last.safetensors", save(some, metadata))
            got = resumed(lame.path)
            seconds = lame.epochs()[-1].train_seconds if "log" in got else 0
            return got, seconds > 1000

        whole = end("nothing")
        assert whole[0]["numbers"]["best_epoch"] == 2
        assert whole[0] == fingerprint("r")
        assert [name for name in (*tensors, *numbers) if end(name) == whole] == []


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────

QUICK = ("digits", "train.execute=eager")


def test_a_finished_run_can_be_extended_to_the_bits_of_one_that_was_asked_for_as_much() -> None:
    assert command("train", *QUICK, "train.epochs=4", "--run", "whole")[0] == 0
    assert command("train", *QUICK, "train.epochs=2", "--test", "--run", "r")[0] == 0
    status, told = command("resume", "r", "train.epochs=4")
    assert status == 0, told
    assert "note: 2 epochs become 4, bit-identical to a run of 4 epochs" in told
    assert "note: the best weights so far, of epoch 2, will be replaced\n" in told
    assert "note: test.json describes the best weights so far\n" in told
    run = Run.open("r")
    assert run.recipe == Run.open("whole").recipe
    (event,) = run.log.all(Extended)
    assert event.epochs == (2, 4)
    assert fingerprint("r") == fingerprint("whole")
    again, told = command("resume", "r", "train.epochs=4")
    assert again == 0
    assert "become" not in told


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("optimizer.lr=1",), "expected train.epochs=N alone"),
        (("train.epochs=9", "train.batch_size=7"), "expected train.epochs=N alone"),
        (("train.seed=1",), "expected train.epochs=N alone"),
        (("train.epochs=1",), "train.epochs = 1: expected at least 2: as many have begun"),
        (("train.epoch=9",), "train.epoch: no such field"),
        (("train.epochs=9", "--prove"), "--prove changes nothing of a run"),
    ],
)
def test_any_other_change_to_a_run_is_refused(overrides: tuple[str, ...], said: str) -> None:
    assert command("train", *QUICK, "train.epochs=2", "--run", "r")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("r").iterdir() if path.is_file()}
    status, told = command("resume", "r", *overrides)
    assert status == 2
    assert said in told
    after = {path.name: path.read_bytes() for path in Path("r").iterdir() if path.is_file()}
    assert {**before, ".lock": b""} == {**after, ".lock": b""}


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_resuming_is_proved_without_changing_the_run(execute: str) -> None:
    recipe = ("digits", f"train.execute={execute}", "train.epochs=2")
    assert command("train", *recipe, "--run", "r")[0] == 0
    before = fingerprint("r")
    status, told = command("resume", "r", "--prove")
    assert status == 0
    assert f"epoch 3, steps 1 to 16 by {execute}, uninterrupted and from a checkpoint" in told
    assert "bit-identical: 36 tensors" in told  # 6 layers' weights and biases, best, momentum
    assert fingerprint("r") == before


def test_a_proof_that_fails_names_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("train", *QUICK, "train.epochs=1", "--run", "r")[0] == 0
    whole = State.tensors
    name = next(n for n in load_file("r/last.safetensors") if n.endswith("momentum_buffer"))
    monkeypatch.setattr(
        State, "tensors", lambda s, m: {n: t * (n != name) for n, t in whole(s, m).items()}
    )
    status, told = command("resume", "r", "--prove", "--json")
    assert status == 1
    assert name.split("/")[1] in json.loads(told)["differing"][0]


@pytest.mark.parametrize("item", ["network/", "optimizer/", "best/", "logged", "seconds"])
def test_a_proof_looks_at_what_saving_forgets(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither saved nor asked for by the saving side still has to be the same."""
    more = ("train.epochs=2", "train.save_steps=1", "train.log_every=1")
    with pytest.MonkeyPatch.context() as patch:
        save = Checkpoints.save

        def stopped(self: Checkpoints, model: Any, tensors: Any, numbers: dict[str, Any]) -> None:
            save(self, model, tensors, numbers)
            if (numbers["epoch"], numbers["step"]) == (1, 5):
                raise HydrofoilError("enough")

        patch.setattr(Checkpoints, "save", stopped)
        assert command("train", *QUICK, *more, "--run", "r")[0] == 2
    tensors, numbers = State.tensors, State.numbers
    name = next((n for n in load_file("r/last.safetensors") if n.startswith(item)), item)
    monkeypatch.setattr(
        State, "tensors", lambda s, m: {n: t for n, t in tensors(s, m).items() if n != name}
    )
    monkeypatch.setattr(
        State, "numbers", lambda s: {n: v for n, v in numbers(s).items() if n != name}
    )
    status, told = command("resume", "r", "--prove")
    assert status in (1, 2)
    assert "same bits" not in told


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_proof_needs_two_steps_an_epoch(execute: str) -> None:
    one = ("digits", f"train.execute={execute}", "train.epochs=1", "train.batch_size=5000")
    assert command("train", *one, "--run", "r")[0] == 0
    status, told = command("resume", "r", "--prove")
    assert status == 2
    assert "--prove saves between two steps of an epoch" in told


def test_a_run_killed_before_its_first_save_goes_on_with_the_executor_that_began() -> None:
    assert command("train", "digits", "train.execute=auto", "train.epochs=1", "--run", "r")[0] == 0
    run = Run.open("r")
    for name in ("best", "last"):
        (run.path / f"{name}.safetensors").unlink()
    # Whatever auto chose, and would choose now.
    began = ExecutorChosen(name="native", threads=1, seconds=0.5)
    run.files.write("log.jsonl", f"{began.to_json()}\n".encode())
    assert command("resume", "r")[0] == 0
    names = [event.name for event in run.log.all(ExecutorChosen)]
    assert names == ["native", "native"]


def test_a_run_goes_on_where_it_began_and_not_on_what_auto_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("hydrofoil.device.cuda_problem", lambda *_: "")
    assert resumed_device("auto", "cpu") == CPU
    assert resumed_device("auto", "cuda:1") == torch.device("cuda")  # it is not there any more
    assert resumed_device("cuda", "cpu") == torch.device("cuda")
    assert resumed_device("auto", None) == torch.device("cuda")


def test_what_differs_from_when_the_run_began_is_named() -> None:
    assert command("train", *QUICK, "train.epochs=1", "--run", "r")[0] == 0
    run = Run.open("r")
    run.files.write_json("environment.json", {**run.environment(), "torch": "1.0", "cpu": "8086"})
    status, told = command("resume", "r")
    assert status == 0
    assert (
        f"note: torch was 1.0 and is {torch.__version__}: the result may not be bit-identical"
        in told
    )
    assert "note: cpu was 8086 and is " in told
    assert told.count("note: ") == 2


def test_the_thread_count_is_the_one_that_the_run_began_with() -> None:
    assert command("train", *QUICK, "train.epochs=1", "train.threads=2", "--run", "r")[0] == 0
    before, threads = torch.get_num_threads(), list[int]()

    class Threads(Observer):
        def epoch(self, epoch: Epoch) -> None:
            threads.append(torch.get_num_threads())

    resume("r", epochs=2, observers=[Threads()])
    assert threads == [2]
    assert torch.get_num_threads() == before  # the caller's number is its own


def test_a_better_epoch_than_the_checkpoint_knows_does_not_stay_behind() -> None:
    """As after a kill between best.safetensors and the checkpoint."""
    overrides = ["train.execute=eager", "train.epochs=2", "train.batch_size=300"]
    copies = kept_at_each_step("r", "digits", overrides)
    places = [(run.checkpoints.epoch(), run.checkpoints.step()) for run in map(Run.open, copies)]
    stopped = Run.open(copies[places.index((1, 2))])
    stopped.files.write("best.safetensors", Path("r/best.safetensors").read_bytes())
    assert stopped.weights.load(CPU)[1] == 2
    pictures = load("digits")
    model = build(stopped.recipe, pictures.shape, pictures.classes)
    state = State.fresh(model, stopped.recipe)
    stopped.checkpoints.load(model, state)
    best, epoch = stopped.weights.load(CPU)
    assert epoch == state.best_epoch == 1
    assert (
        best.weights_hash()
        == Run.open(copies[places.index((1, 0))]).weights.load(CPU)[0].weights_hash()
    )
    assert [one.number for one in stopped.epochs()] == [1]
