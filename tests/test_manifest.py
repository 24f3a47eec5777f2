"""A run's files are whole, whatever the process died of, and what was changed since is refused."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hydrofoil import Classifier, HydrofoilError, Run, State, build, draw_split, load, read_recipe
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.run.events import Trained
from hydrofoil.run.manifest import NAME, Manifest
from tests.resume_steps import command, model

CPU = torch.device("cpu")
READERS: dict[str, Callable[[Run], object]] = {
    "recipe.toml": lambda run: Run.open(run.path),
    "environment.json": lambda run: run.environment(),
    "split.npz": lambda run: run.split(),
    "log.jsonl": lambda run: run.log.events(),
    "best.safetensors": lambda run: run.weights.load(CPU),
    "last.safetensors": lambda run: run.files.read("last.safetensors"),
    "previous.safetensors": lambda run: run.files.read("previous.safetensors"),
    "test.json": lambda run: run.results.test(),
    "answers.npz": lambda run: run.results.answers(),
    "shown.npz": lambda run: run.results.shown(),
    "reference.npz": lambda run: run.weights.load(CPU),
    "figures/confusion.png": lambda run: run.files.read("figures/confusion.png"),
    "manifest.json": lambda run: run.environment(),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    with model("plain"):
        quick = ("train.epochs=3", "train.execute=eager", "train.save_steps=30")
        assert command("train", "digits", *quick, "--test", "--run", path)[0] == 0
    return path


@pytest.fixture
def run(finished: Path) -> Run:
    return Run.open(shutil.copytree(finished, "run"))


def flipped(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def swapped(content: bytes, rng: random.Random) -> bytes:
    while True:
        first, second = sorted(rng.sample(range(len(content)), 2))
        if content[first] != content[second]:
            break
    new = bytearray(content)
    new[first], new[second] = content[second], content[first]
    return bytes(new)


def test_the_manifest_knows_every_file(run: Run) -> None:
    known = Manifest.read(run.path)
    files = {str(p.relative_to(run.path)) for p in run.path.rglob("[!.]*") if p.is_file()}
    assert set(known.files) == files - {NAME}
    assert set(READERS) - set(known.files) == {NAME}
    assert {len(contents) for contents in known.files.values()} == {1}


@pytest.mark.parametrize("change", [flipped, cut, swapped])
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_was_changed_is_refused_by_name(
    name: str, change: Callable[[bytes, random.Random], bytes], run: Run
) -> None:
    rng, path = random.Random(f"{name} {change.__name__}"), run.path / name
    content = path.read_bytes()
    for _ in range(25):
        path.write_bytes(change(content, rng))
        with pytest.raises(HydrofoilError, match="checksum mismatch") as caught:
            READERS[name](run)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value).splitlines()) <= 3
    path.write_bytes(content)
    READERS[name](run)


@pytest.mark.parametrize("verb", ["predict", "resume"])
@pytest.mark.parametrize("name", READERS)
def test_no_verb_loads_what_was_changed(verb: str, name: str, run: Run) -> None:
    path, rng = run.path / name, random.Random(verb)
    path.write_bytes(flipped(path.read_bytes(), rng))
    status, told = command(verb, run.path, *(["x.png"] if verb == "predict" else []))
    assert "Traceback" not in told
    if status == 2 and name != "manifest.json" and "x.png: " not in told:
        assert f"{path}: checksum mismatch" in told
    if verb == "resume" and name == "last.safetensors":  # the one before it is whole
        assert status == 0
        assert f"note: {path}: checksum mismatch" in told
        assert "note: resuming from previous.safetensors" in told
        assert Run.open(run.path).checkpoints.epoch() == 3
    if verb == "resume" and name == "best.safetensors":  # it is in the checkpoint, too
        assert status == 0
        assert Run.open(run.path).weights.load(CPU)[1] == 3


@pytest.mark.parametrize(("verb", "name"), [("show", "log.jsonl"), ("test", "split.npz")])
def test_what_a_verb_reads_is_refused_by_name(verb: str, name: str, run: Run) -> None:
    path = run.path / name
    path.write_bytes(flipped(path.read_bytes(), random.Random(0)))
    status, told = command(verb, run.path)
    assert status == 2
    assert f"{path}: checksum mismatch" in told


def test_a_file_under_another_ones_name_is_refused(run: Run) -> None:
    for first, second in (("last", "previous"), ("best", "last")):
        paths = [run.path / f"{name}.safetensors" for name in (first, second)]
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, reversed(contents), strict=True):
            path.write_bytes(content)
        for path in paths:
            with pytest.raises(HydrofoilError, match=f"{path.name}: checksum mismatch"):
                run.files.read(path.name)
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)


def test_lines_after_the_last_that_is_known_may_be_half_written(run: Run) -> None:
    before = run.log.events()
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"event": "loss", "ep')
    assert run.log.events() == before
    mine = Trained(epochs=3, seconds=1.0)
    run.log.append(mine)
    assert run.log.events() == [*before, mine]


def test_a_log_that_lost_its_end_is_refused(run: Run) -> None:
    path = run.path / "log.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(HydrofoilError, match=r"log\.jsonl: checksum mismatch"):
        run.log.events()
    path.unlink()
    with pytest.raises(HydrofoilError, match=r"log\.jsonl: cannot be read"):
        run.log.events()


def test_a_run_of_another_format_or_without_a_manifest_is_refused(run: Run) -> None:
    path = run.path / NAME
    content = path.read_bytes()
    files = json.loads(content)["files"]
    own = hashlib.sha256(json.dumps([2, files]).encode()).hexdigest()
    other = {"format": 2, "files": files, "sha256": own}
    for document in (other, {"files": files}):
        path.write_text(json.dumps(document))
        for verb in ("show", "test", "resume", "report", "predict"):
            arguments = ["x.png"] if verb == "predict" else []
            status, told = command(verb, run.path, *arguments)
            expected = f"format {document.get('format', 'unknown')}, expected 1"
            assert status == (0 if verb == "report" else 2), told
            found = told if verb != "report" else (run.path / "report.html").read_text()
            assert f"{run.path}: made by another version of hydrofoil: {expected}" in found
    path.unlink()
    status, told = command("test", run.path)
    assert status == 2
    assert f"{path}: missing, so the files beside it cannot be verified" in told


def test_the_place_of_a_checkpoint_is_known_without_reading_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), real(path))[1])
    assert (run.checkpoints.epoch(), run.checkpoints.step(), run.weights.epoch()) == (3, 0, 3)
    assert set(read) == {NAME}


def test_saving_reads_no_more_of_the_log_than_is_new(
    training: tuple[Run, Classifier, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model, state = training
    save_epoch(run, model, state, 3)
    read = list[str]()
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), real(path))[1])
    save_epoch(run, model, state, 4)
    assert set(read) == {NAME}
    assert [one.number for one in Run.open(run.path).epochs()] == [1, 2, 3, 4]


# ── a process that dies in a save ────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """Stands for a process that is gone: nothing that it calls afterwards has any effect."""


CALLS = ("open", "write", "fsync", "replace", "ftruncate", "unlink", "close")


def kill_at(number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Let the system call of that number, counted from 1, and all after it, not be made."""
    made: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            if len(made) >= number:
                if name == "close":
                    real(*arguments)  # the system closes a dead process's files
                raise Killed
            if name == "write" and len(made) == number - 1:  # a part of it was written
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Killed
            return real(*arguments, **options)

        return call

    for name in CALLS:
        patch.setattr(os, name, counted(name))
    return made


@pytest.fixture
def training() -> tuple[Run, Classifier, State]:
    recipe = read_recipe("digits", ["train.epochs=9"])
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    run = Run.create(Path("killed"), recipe, split, {})
    for epoch in (1, 2):
        save_epoch(run, model, state, epoch)
    return run, model, state


def save_epoch(run: Run, model: Classifier, state: State, epoch: int) -> None:
    """Let the weights be those of an epoch, count it, and save it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(epoch)
    state.epoch = epoch - 1
    state.finish(model, "last", None)
    numbers = {"train_seconds": 1.0, "valid_seconds": 0.0, "learning_rate": 0.1}
    run.log.append(Epoch(number=epoch, train=Scores(1.0, 1, 2), valid=None, best=True, **numbers))
    run.checkpoints.save(model, state.tensors(model), state.numbers())


def filled(model: Classifier) -> set[float]:
    return {float(value) for p in model.parameters() for value in p.detach().flatten().unique()}


def test_a_process_killed_at_any_call_of_a_save_leaves_a_whole_checkpoint(
    training: tuple[Run, Classifier, State],
) -> None:
    run, model, state = training
    before = Path("before")
    shutil.copytree(run.path, before)
    number, epochs_found, calls = 0, [], ["save"]
    while number <= len(calls):
        number += 1
        shutil.rmtree(run.path)
        shutil.copytree(before, run.path)
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(number, patch)
            try:
                save_epoch(Run(run.path, run.recipe), model, state, 3)
            except Killed:
                pass
        again = Run.open(run.path)
        kept = again.weights.load(CPU)[1]
        assert again.epochs()[-1].number == max(
            kept, again.checkpoints.epoch()
        )  # as `show` reads it
        with again.writing():
            fresh = build(run.recipe, model.shape, model.classes)
            found = State.fresh(fresh, run.recipe)
            assert again.checkpoints.load(fresh, found) == []
            epochs_found.append(found.epoch)
            assert filled(fresh) == {float(found.epoch)}
            best, epoch = again.weights.load(CPU)
            assert (epoch, filled(best)) == (found.epoch, {float(epoch)})
            assert [one.number for one in again.log.all(Epoch)] == list(range(1, found.epoch + 1))
            save_epoch(again, fresh, found, found.epoch + 1)
        assert not [path for path in run.path.iterdir() if path.name.startswith(".last")]
        assert Run.open(run.path).checkpoints.epoch() == found.epoch == epochs_found[-1] + 1
        for name in ("last.safetensors", "previous.safetensors", "best.safetensors"):
            Run.open(run.path).files.read(name)
    assert {2, 3} == set(epochs_found)
    assert epochs_found == sorted(epochs_found)
    assert number > 20


def test_a_call_that_fails_in_a_save_leaves_a_whole_checkpoint_and_a_sentence(
    training: tuple[Run, Classifier, State],
) -> None:
    run, model, state = training
    before = Path("before")
    shutil.copytree(run.path, before)
    for call in ("open", "write", "fsync", "replace"):
        number = failed = 1
        while failed:
            failed = 0
            shutil.rmtree(run.path)
            shutil.copytree(before, run.path)
            process = Run(run.path, run.recipe)
            with pytest.MonkeyPatch.context() as patch:
                count = 0
                real = getattr(os, call)

                def refused(*arguments: Any, real: Any = real, **options: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == number:  # noqa: B023
                        raise OSError(28, "No space left on device")
                    return real(*arguments, **options)

                patch.setattr(os, call, refused)
                try:
                    save_epoch(process, model, state, 3)
                except HydrofoilError as error:
                    failed = 1
                    assert "cannot be written: No space left on device.\nThe disk" in str(error)
            fresh = build(run.recipe, model.shape, model.classes)
            found = State.fresh(fresh, run.recipe)
            other = Run.open(run.path)
            assert other.checkpoints.load(fresh, found) == []
            assert filled(fresh) == {float(found.epoch)}
            assert found.epoch in ((2, 3) if failed else (3,))
            save_epoch(process, model, state, 4)  # the same process, once there is room
            assert Run.open(run.path).checkpoints.epoch() == 4
            for name in ("last.safetensors", "previous.safetensors", "best.safetensors"):
                Run.open(run.path).files.read(name)
            number += 1
        assert number > 2
