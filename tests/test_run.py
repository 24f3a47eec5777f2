import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hydrofoil import HydrofoilError, Run, State, build, draw_split, load, read_recipe
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.files import write_whole
from hydrofoil.run.environment import environment
from hydrofoil.run.events import DataLoaded, ExecutorChosen, Tested

CPU = torch.device("cpu")


@pytest.fixture
def run() -> Run:
    recipe = read_recipe("digits", ["train.epochs=2"])
    split = draw_split(load("digits"), **recipe.split_options())
    return Run.create(None, recipe, split, environment(CPU, ["train", "digits"]))


def epoch_of(number: int) -> Epoch:
    train = Scores(0.5, 3, 4)
    return Epoch(
        number=number,
        train=train,
        valid=None,
        best=True,
        train_seconds=1.0,
        valid_seconds=0.0,
        learning_rate=0.1,
    )


def saved(run: Run) -> Any:
    pictures = load("digits")
    model = build(run.recipe, pictures.shape, pictures.classes)
    run.weights.save(model, epoch=2)
    return model


def test_a_new_run_takes_the_next_free_number_and_reads_back(run: Run) -> None:
    assert run.path == Path("runs/digits-1")
    again = Run.open(run.path)
    assert again.recipe == run.recipe
    assert again.environment()["torch"] == torch.__version__
    assert again.environment()["command"] == ["hydrofoil", "train", "digits"]
    assert again.results.test() is None
    assert again.epochs() == []
    second = Run.create(None, run.recipe, run.split(), {})
    assert second.path == Path("runs/digits-2")


def test_an_earlier_run_stays_as_it_is(run: Run) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(HydrofoilError, match="not empty"):
        Run.create(run.path, run.recipe, run.split(), {})
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_an_empty_folder_may_become_a_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", run.recipe, run.split(), {}).path.is_dir()


def test_a_file_in_the_place_of_a_run_is_refused(run: Run) -> None:
    Path("a-file").write_text("mine")
    with pytest.raises(HydrofoilError, match="a file of this name exists"):
        Run.create(Path("a-file"), run.recipe, run.split(), {})
    with pytest.raises(HydrofoilError, match=r"a file of this name exists|Not a directory"):
        Run.create(Path("a-file/run"), run.recipe, run.split(), {})


def test_what_is_no_run_is_refused_and_the_runs_beside_it_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(HydrofoilError, match=r"no such run folder(.|\n)*runs/digits-1"):
        Run.open("runs/digits-9")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HydrofoilError, match=r"holds no recipe\.toml"):
        Run.open(tmp_path / "folder")


def test_best_holds_exactly_the_networks_parameters_and_what_using_them_takes(run: Run) -> None:
    model = saved(run)
    tensors = load_file(run.path / "best.safetensors")
    assert set(tensors) == set(model.network.state_dict())
    with safe_open(run.path / "best.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert json.loads(metadata["model"])["name"] == run.recipe.model.name
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == ([0.3], [0.38])
    assert metadata["recipe"] == run.recipe.hash()
    again, epoch = run.weights.load(CPU)
    assert epoch == 2
    assert again.weights_hash() == model.weights_hash()


def test_before_the_first_epoch_there_are_no_weights(run: Run) -> None:
    with pytest.raises(HydrofoilError, match="hydrofoil resume"):
        run.weights.load(CPU)


def test_weights_of_another_model_in_a_run_are_refused(run: Run) -> None:
    saved(run)
    recipe = read_recipe("digits", ["model.name=mlp"])
    other = Run.create(None, recipe, run.split(), {})
    content = (run.path / "best.safetensors").read_bytes()
    other.files.write("best.safetensors", content)
    with pytest.raises(HydrofoilError, match=r"best\.safetensors: trained by another recipe"):
        other.weights.load(CPU)


def test_a_recipe_changed_under_a_run_is_refused_but_not_for_its_epochs(run: Run) -> None:
    model = saved(run)
    state = State.fresh(model, run.recipe)
    run.checkpoints.save(model, state.tensors(model), state.numbers())
    longer = Run(run.path, read_recipe("digits", ["train.epochs=9", "about=mine"]))
    assert longer.weights.load(CPU)[0].weights_hash() == model.weights_hash()
    changed = Run(run.path, read_recipe("digits", ["train.epochs=2", "data.mean=[0.4]"]))
    with pytest.raises(HydrofoilError, match="trained by another recipe"):
        changed.weights.load(CPU)
    with pytest.raises(HydrofoilError, match="trained by another recipe"):
        changed.checkpoints.load(model, State.fresh(model, run.recipe))


@pytest.mark.parametrize("keep", [0, 4, 100, 700, -1])
def test_cut_off_weights_are_named(run: Run, keep: int) -> None:
    saved(run)
    path = run.path / "best.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(HydrofoilError, match=r"best\.safetensors: checksum mismatch"):
        run.weights.load(CPU)


def test_the_log_passes_over_an_unfinished_last_line_and_names_a_broken_one(run: Run) -> None:
    run.log.append(epoch_of(1))
    run.log.append(epoch_of(2))
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"event": "ep')
    assert [epoch.number for epoch in run.epochs()] == [1, 2]
    run.log.forget_after(1)
    assert run.log.events() == [epoch_of(1)]
    run.files.write("log.jsonl", b'{"event": "loss", "epoch": null}\n{"event": "other"}\n')
    with pytest.raises(HydrofoilError, match=r"line 1 is not an event: loss\.epoch"):
        run.log.events()


def test_a_line_is_appended_in_the_place_of_an_unfinished_one(run: Run) -> None:
    run.log.append(Tested(opened=1, accuracy=0.5, seconds=1.0))
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"event": "loss", "ep')
    for _ in range(2):
        run.log.append(Tested(opened=2, accuracy=0.5, seconds=1.0))
    assert run.log.times_tested() == 3
    assert len((run.path / "log.jsonl").read_text().splitlines()) == 3


def test_a_run_that_cannot_be_made_whole_is_not_made(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, calls = os.fsync, 0

    def disk_full_after_some_files(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:  # the manifest, its folder, a file
            raise OSError(28, "No space left on device")
        whole(handle)

    monkeypatch.setattr(os, "fsync", disk_full_after_some_files)
    with pytest.raises(HydrofoilError, match="cannot be written: No space left"):
        Run.create(tmp_path / "half", run.recipe, run.split(), {})
    assert not (tmp_path / "half").exists()


def test_runs_that_lead_nowhere_are_named(run: Run, tmp_path: Path) -> None:
    split = run.split()
    (tmp_path / "runs").rename(tmp_path / "old")
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(HydrofoilError, match="a file of this name exists"):
        Run.create(None, run.recipe, split, {})


def test_a_lost_checkpoint_is_not_trained_over(run: Run) -> None:
    model = saved(run)
    state = State.fresh(model, run.recipe)
    state.epoch = 1
    state.finish(model, "last", None)
    run.checkpoints.save(model, state.tensors(model), state.numbers())
    run.log.append(epoch_of(1), epoch_of(2))
    last = (run.path / "last.safetensors").read_bytes()
    (run.path / "last.safetensors").unlink()
    with pytest.raises(HydrofoilError, match=r"last\.safetensors: missing(.|\n)*Train again"):
        run.checkpoints.load(model, state)
    (run.path / "last.safetensors").write_bytes(last)
    (run.path / "best.safetensors").unlink()
    with pytest.raises(HydrofoilError, match=r"best\.safetensors: missing(.|\n)*hydrofoil resume"):
        run.weights.load(CPU)


def test_what_was_logged_before_a_first_save_that_did_not_end_is_forgotten(run: Run) -> None:
    pictures = load("digits")
    model = build(run.recipe, pictures.shape, pictures.classes)
    chosen = ExecutorChosen(name="eager", threads=1, seconds=0.5)
    run.log.append(chosen, epoch_of(1))
    assert run.checkpoints.load(model, State.fresh(model, run.recipe)) == []
    assert run.log.events() == [chosen]


def test_a_first_checkpoint_that_was_lost_is_named_before_the_run_begins_anew(run: Run) -> None:
    model = saved(run)
    state = State.fresh(model, run.recipe)
    run.checkpoints.save(model, state.tensors(model), state.numbers())
    for name in ("last.safetensors", "previous.safetensors", "best.safetensors"):
        (run.path / name).unlink(missing_ok=True)
    assert run.checkpoints.load(model, state) == [
        f"{run.path / 'last.safetensors'}: missing",
        "no complete checkpoint: restarting from epoch 1",
    ]


@pytest.mark.parametrize(
    "line", ['{"event": "epoch"}', '{"event": "epoch", "train": 3}', '"x"', "5"]
)
def test_a_log_of_something_else_is_named(run: Run, line: str) -> None:
    (run.path / "log.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(HydrofoilError, match=r"log\.jsonl"):
        run.epochs()


def test_only_a_run_is_said_to_be_resumable(run: Run, tmp_path: Path) -> None:
    with pytest.raises(HydrofoilError, match="hydrofoil resume"):
        Run.create(run.path, run.recipe, run.split(), {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(HydrofoilError, match="not empty") as caught:
        Run.create(tmp_path / "mine", run.recipe, run.split(), {})
    assert "resume" not in str(caught.value)


def test_what_a_killed_writer_left_is_swept(run: Run) -> None:
    leftover = run.path / ".last.safetensors-0123abcd"
    leftover.write_bytes(b"half")
    own = [run.path / ".pre-commit-config.yaml", run.path / "figures" / ".my-notes"]
    (run.path / "figures").mkdir()
    for path in own:
        path.write_text("a person's")
    with run.writing():
        assert not leftover.exists()
    assert [path.read_text() for path in own] == ["a person's"] * 2


def test_a_folder_that_holds_a_persons_hidden_files_is_not_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".pre-commit-config.yaml").write_text("x")
    with pytest.raises(HydrofoilError, match="not empty"):
        Run.create(tmp_path / "mine", run.recipe, run.split(), {})


def test_an_unfinished_line_is_not_what_the_manifest_knows_of_a_log(run: Run) -> None:
    loaded = DataLoaded(seconds=0.5, counts={"train": (1, 2)})
    chosen = ExecutorChosen(name="eager", threads=1, seconds=0.5)
    run.log.append(loaded)
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"event": "lo')  # a process that died in writing it
    with run.writing():
        pass  # as a resume that finds no data set does
    with run.writing():
        run.log.append(chosen)
    assert run.log.events() == [loaded, chosen]


def test_a_command_line_that_is_no_text_is_noted_as_far_as_it_is() -> None:
    kept = environment(CPU, ["train", "digits", "--run", os.fsdecode(b"gr\xfcn")])["command"]
    assert kept[-1] == "gr\ufffdn"
    with pytest.raises(HydrofoilError, match="not text in UTF-8"):
        read_recipe("digits", [os.fsdecode(b"about=gr\xfcn")])


def test_one_process_writes_a_run_at_a_time(run: Run) -> None:
    with (
        run.writing(),
        pytest.raises(HydrofoilError, match="another process is writing"),
        Run.open(run.path).writing(),
    ):
        pass
    with run.writing():
        pass


def test_a_lock_is_as_good_as_the_process_that_holds_it(run: Run) -> None:
    code = (
        "import sys, time; from hydrofoil import Run\n"
        "with Run.open(sys.argv[1]).writing(): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as other:
        assert other.stdout
        other.stdout.readline()
        try:
            with (
                pytest.raises(HydrofoilError, match=f"another process .* \\(pid {other.pid}\\)"),
                run.writing(),
            ):
                pass
        finally:
            other.kill()
    with run.writing():
        pass
    assert (run.path / ".lock").read_text() == str(os.getpid())


def test_the_beginnings_of_a_run_that_was_killed_are_no_obstacle(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    for name in (".lock", "manifest.json", "environment.json", ".split.npz-0123abcd"):
        (folder / name).write_bytes(b"{")
    (folder / "manifest.json").write_bytes((run.path / "manifest.json").read_bytes())
    made = Run.create(folder, run.recipe, run.split(), {"threads": 1})
    assert Run.open(made.path).environment() == {"threads": 1}
    assert Run.open(made.path).split().pictures_hash == run.split().pictures_hash


def test_a_file_is_seen_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(HydrofoilError, match="file: cannot be written: No space left on device"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_have_the_rights_that_the_person_gives_new_files(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "Your quota"),
        (errno.EROFS, "mounted read-only"),
        (errno.EFBIG, "Files may not grow so large"),
        (errno.EIO, "The disk reports faults"),
        (errno.EACCES, "You may not write there"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace"])
def test_each_way_in_which_a_disk_refuses_has_its_sentence(
    number: int, sentence: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "file", b"old")
    real = os.close

    def refuse(handle: Any, *_: object) -> None:
        if call == "close":
            real(handle)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(HydrofoilError) as caught:
            write_whole(tmp_path / "file", b"new")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'file'}: cannot be written: {os.strerror(number)}."
    assert sentence in lines[1]
    assert len(lines) == 2
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_too_large_for_the_limit_is_an_error_and_no_signal(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from hydrofoil.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_whole(Path(sys.argv[1]), bytes(2000))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large")], capture_output=True, text=True
    )
    assert "Files may not grow so large" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_environment_names_neither_host_nor_user(run: Run) -> None:
    import getpass
    import socket

    home = environment(CPU, ["train", "--data-root", str(Path.home() / "data")])
    assert home["command"][-1] == "~/data"
    text = json.dumps(run.environment())
    assert socket.gethostname() not in text
    assert f"/{getpass.getuser()}" not in text
