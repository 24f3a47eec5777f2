import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import literal
import pytest
import torch
from PIL import Image

from hydrofoil import Run, __version__, read_recipe, shipped_recipes
from hydrofoil.cli.main import app, main
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.run.events import RunningLoss
from tests import published
from tests.conftest import REAL_RECIPES, Cli

QUICK = "train.epochs=2"


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, not tested; copy it before changing it."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.raises(SystemExit):
        main(["train", "digits", QUICK, "--run", str(path), "--json"])
    return path


def size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def run_path(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from hydrofoil.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_every_verb_explains_itself(cli: Cli) -> None:
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert set(verbs) >= {"recipes", "show", "train", "resume", "test", "predict", "import"}
    for verb in verbs:
        status, output, _ = cli(verb, "--help")
        assert status == 0
        assert "--json" in output
    assert cli()[0] == 0


def test_the_version_is_the_packages(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, f"hydrofoil {__version__}\n")


def test_recipes_are_listed_and_printed(cli: Cli) -> None:
    _, output, _ = cli("recipes")
    assert all(name in output for name in shipped_recipes())
    _, output, _ = cli("recipes", "mnist-cnn")
    assert 'name  = "mnist-cnn"' in output
    assert set(json.loads(cli("recipes", "--json")[1])) == set(shipped_recipes())
    content = json.loads(cli("recipes", "mnist-cnn", "--json")[1])
    assert content["train"]["batch_size"] == 64
    assert "Images per step" in cli("recipes", "--fields")[1]


@pytest.mark.parametrize("name", SOURCES)
def test_a_set_is_shown_with_counts_statistics_and_a_picture(name: str, cli: Cli) -> None:
    status, output, _ = cli("show", name)
    assert status == 0
    assert f"{SOURCES[name].classes} classes" in output
    assert "channel means" in output
    assert not Path(f"{name}.png").exists()
    assert "saved: " in cli("show", name, "--save")[1]
    assert size(f"{name}.png")[0] > 400
    content = json.loads(cli("show", name, "--json")[1])
    assert content["shape"] == list(SOURCES[name].shape)
    part = "train" if SOURCES[name].files else "all"
    assert len(content["counts"][part]) == SOURCES[name].classes


def test_counts_are_shown_per_class_and_split(cli: Cli) -> None:
    content = json.loads(cli("show", "cifar10", "--json")[1])
    assert content["counts"]["train"]["cat"] == 60
    assert content["counts"]["test"]["cat"] == 10


def test_one_digit_is_drawn_large_with_its_pixels(cli: Cli) -> None:
    status, output, _ = cli("show", "mnist", "--pixels", "1", "--save")
    assert status == 0
    assert "saved: mnist-pixels-1.png" in output
    assert min(size("mnist-pixels-1.png")) > 1000
    assert "expected an image of mnist, 0 to 699" in cli("show", "mnist", "--pixels", "700")[2]


def test_one_class_is_drawn_and_an_unknown_one_answered(cli: Cli) -> None:
    assert cli("show", "cifar10", "--class", "cat", "--out", "cats.png")[0] == 0
    assert Path("cats.png").stat().st_size > 5000
    status, _, errors = cli("show", "cifar10", "--class", "cta")
    assert status == 2
    assert "Did you mean 'cat'" in errors


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_a_recipe_is_shown_layer_by_layer_without_its_data(
    name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYDROFOIL_DATA", str(tmp_path / "none"))
    status, output, _ = cli("show", name)
    assert status == 0
    assert "multiply-adds" in output
    assert "/ 2 + 1 = " in output or name == "mnist-mlp"
    content = json.loads(cli("show", name, "--json")[1])
    network = literal.TUTORIALS[name].network()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert sum(layer["parameters"] for layer in content["layers"]) == parameters


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_a_tutorial_goes_from_data_to_a_tested_model_in_one_command(name: str, cli: Cli) -> None:
    status, output, errors = cli("train", name, QUICK, "--test", "--run", "r")
    assert status == 0, errors
    assert " 2/2 " in output
    assert "test accuracy" in output
    assert "95% interval" in output
    if name == "cifar10-lenet-linear":
        assert output.count("cannot be compared with published results") == 2
    if not read_recipe(name).data.valid:
        assert "there is no validation split" in output
    tested = json.loads(Path("r/test.json").read_text())
    assert sum(map(sum, tested["confusion"])) == tested["count"]
    assert tested["accuracy"] == tested["correct"] / tested["count"]
    assert {path.name for path in Path("r/figures").iterdir()} >= {
        "predictions.png",
        "confusion.png",
    }


def test_training_ends_with_the_next_command_and_keeps_the_whole_run(cli: Cli) -> None:
    status, output, _ = cli("train", "digits", QUICK, "--seed", "3")
    assert status == 0
    assert output.rstrip().endswith("next: hydrofoil test runs/digits-1")
    run = Run.open("runs/digits-1")
    assert run.recipe.train.seed == 3
    assert len(run.epochs()) == 2
    assert run.environment()["command"][:3] == ["hydrofoil", "train", "digits"]
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "recipe.toml", "environment.json", "split.npz", "log.jsonl",
        "best.safetensors", "last.safetensors", "manifest.json",
    }  # fmt: skip


def test_the_running_loss_is_the_mean_of_the_last_steps(cli: Cli) -> None:
    _, output, _ = cli("train", "digits", QUICK, "train.log_every=10", "--run", "r")
    events = Run.open("r").log.all(RunningLoss)
    assert [event.step for event in events] == [10, 20, 30, 40] * 2
    assert f"mean loss of the last 10 steps {events[0].loss:.3f}" in output
    _, _, _ = cli("train", "digits", QUICK, "train.log_every=30", "--run", "s")
    whole = Run.open("s").log.all(RunningLoss)
    assert whole[0].loss == pytest.approx(sum(event.loss for event in events[:3]) / 3)


def test_json_is_all_that_stands_on_standard_output(cli: Cli, run_path: Path) -> None:
    Image.new("L", (20, 20)).save("p.png")
    calls = [
        ("train", "digits", QUICK, "--run", "r", "--test"),
        ("resume", "r"),
        ("test", run_path),
        ("predict", run_path, "p.png"),
        ("show", run_path),
        ("show", "digits"),
    ]
    for call in calls:
        status, output, errors = cli(*call, "--json")
        assert status == 0, errors
        json.loads(output)


def test_every_opening_of_the_test_split_is_counted(cli: Cli, run_path: Path) -> None:
    results = [json.loads(cli("test", run_path, "--again", "--json")[1]) for _ in range(3)]
    assert [result["opened"] for result in results] == [1, 2, 3]
    assert len({result["weights"] for result in results}) == 1
    (run_path / "test.json").unlink()  # forgetting the result does not forget the look
    assert json.loads(cli("test", run_path, "--json")[1])["opened"] == 4
    assert "opened its test split 5 times" in cli("test", run_path, "--again")[1]


def test_a_run_is_shown_with_its_curves(cli: Cli, run_path: Path) -> None:
    status, output, _ = cli("show", run_path)
    assert status == 0
    assert " 2/2 " in output
    assert f"not tested yet: hydrofoil test {run_path}" in output
    assert not (run_path / "figures").exists()
    cli("show", run_path, "--save")
    assert (run_path / "figures" / "curves.png").stat().st_size > 5000
    cli("test", run_path)
    assert "truth ↓  predicted →" not in cli("show", run_path)[1]
    assert "truth ↓  predicted →" in cli("show", run_path, "--full")[1]


def test_predict_answers_for_several_pictures(cli: Cli, run_path: Path) -> None:
    Image.new("RGB", (60, 40), "white").save("a.png")
    Image.new("L", (8, 8)).save("b.bmp")
    status, output, _ = cli("predict", run_path, "a.png", "b.bmp")
    assert status == 0
    assert "color → gray; cropped from 60×40 to the central 40×40; resized" in output
    answers = json.loads(cli("predict", run_path, "a.png", "b.bmp", "--json")[1])
    assert [answer["picture"] for answer in answers] == ["a.png", "b.bmp"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_tutorials_checkpoint_becomes_a_run_that_tests_the_same(suffix: str, cli: Cli) -> None:
    torch.manual_seed(0)
    network = literal.Cnn()
    weights = Path(f"tutorial.{suffix}")
    if suffix == "pt":
        torch.save(network.state_dict(), weights)
    else:
        from safetensors.torch import save_file

        save_file(network.state_dict(), weights)
    assert cli("import", "mnist-cnn", weights, "--run", "r")[0] == 0
    result = json.loads(cli("test", "r", "--json")[1])
    loaders = literal.loaders("mnist-cnn", os.environ["HYDROFOIL_DATA"])
    theirs = literal.check(network, loaders["test"])
    assert result["accuracy"] == theirs["accuracy"]
    assert result["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert cli("show", "r")[0] == 0


def wrong_inputs() -> dict[str, tuple[tuple[str, ...], list[str]]]:
    return {
        "no such verb": (("trian",), ["trian"]),
        "no such option": (("train", "digits", "--sede", "1"), ["--sede"]),
        "no recipe": (("train",), ["RECIPE"]),
        "unknown recipe": (("train", "digit"), ["unknown recipe 'digit'", "'digits'"]),
        "unknown recipe file": (("train", "./none.toml"), ["none.toml", "No such file"]),
        "unknown field": (("train", "digits", "train.epoch=1"), ["train.epoch", "'epochs'"]),
        "wrong type": (("train", "digits", "train.epochs=two"), ['"two"', "integer"]),
        "zero size": (("train", "digits", "train.batch_size=0"), ["train.batch_size = 0"]),
        "negative size": (("train", "digits", "train.epochs=-1"), ["train.epochs = -1"]),
        "negative seed": (("train", "digits", "--seed", "-1"), ["--seed"]),
        "unknown model": (("train", "digits", "model.name=resnat"), ["'resnat'", "lenet"]),
        "unknown source": (("train", "digits", "data.source=mnits"), ["'mnits'", "'mnist'"]),
        "model too large": (("train", "digits", "model.name=lenet"), ["too small"]),
        "unknown device": (("train", "digits", "--device", "gpu"), ["--device gpu"]),
        "no CUDA": (("train", "digits", "--device", "cuda:99"), ["no such device"]),
        "no such run": (("test", "runs/none"), ["runs/none", "no such run folder"]),
        "no run": (("test", "."), ["not a run folder"]),
        "no run to resume": (("resume", "."), ["not a run folder"]),
        "no run to predict": (("predict", ".", "x.png"), ["not a run folder"]),
        "nothing to show": (("show", "cifra10"), ["'cifra10'", "'cifar10'"]),
        "figure of no kind": (("show", "digits", "--out", "x.jpg"), ["x.jpg", ".png"]),
        "a file for a run": (
            ("test", "busy/mine.txt"),
            ["busy/mine.txt", "a run folder was expected"],
        ),
        "no weights": (("import", "digits", "none.pt"), ["none.pt", "No such file"]),
        "class of no set": (("show", "mnist-cnn", "--class", "3"), ["'mnist-cnn' is not one"]),
        "class and pixels": (("show", "mnist", "--class", "3", "--pixels", "1"), ["one of them"]),
        "field of a set": (("show", "cifar10", "data.valid=1"), ["data.valid = 1"]),
        "out of memory": (
            ("train", "digits", "model.name=mlp", "model.hidden=[2000000000, 2000000000]"),
            ["out of memory", "model"],
        ),
        "test of no split": (("train", "digits", "data.test=0", "--test"), ["no test split"]),
        "run in the way": (("train", "digits", "--run", "busy"), ["busy: not empty"]),
        "no path for a run": (("train", "digits", "--run", ""), ["--run", "an empty one"]),
        "no path of a run": (("test", ""), ["RUN", "an empty one"]),
        "endless number": (("train", "digits", f"train.epochs={'9' * 5000}"), ["train.epochs"]),
        "deep list": (("train", "digits", f"data.mean={'[' * 5000}"), ["data.mean", "a list"]),
        "deep recipe": (("train", "busy/deep.toml"), ["busy/deep.toml: not TOML"]),
        "binary recipe": (("train", "busy/binary.toml"), ["binary.toml", "expected UTF-8 text"]),
        "folder for a recipe": (
            ("train", "busy/../busy"),
            ["no images found", "a folder for each class"],
        ),
        "long path": (("test", "x" * 300), ["File name too long"]),
        "unwritable": (("train", "digits", "--run", "/proc/run"), ["/proc/run"]),
    }


@pytest.mark.parametrize("case", wrong_inputs())
def test_wrong_input_ends_in_two_with_a_short_cure(case: str, cli: Cli) -> None:
    Path("busy").mkdir()
    Path("busy/mine.txt").write_text("mine")
    Path("busy/deep.toml").write_text("a = " + "[" * 5000)
    Path("busy/binary.toml").write_bytes(b"\xff\xfe")
    before = sorted(path.name for path in Path("busy").iterdir())
    arguments, parts = wrong_inputs()[case]
    status, output, errors = cli(*arguments)
    assert status == 2, errors
    assert output == ""
    assert all(part in errors for part in parts), errors
    assert 1 <= len(errors.strip().splitlines()) <= 3, errors
    assert "Traceback" not in errors
    assert not Path("runs").exists()
    assert sorted(path.name for path in Path("busy").iterdir()) == before


def test_a_bug_of_ours_prints_its_traceback_and_where_to_go_with_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by us")

    monkeypatch.setattr("hydrofoil.recipe.read.shipped_recipes", broken)
    status, _, errors = cli("recipes")
    assert status == 1
    assert errors.startswith("Traceback")
    assert "ZeroDivisionError: by us" in errors
    assert errors.splitlines()[-1].startswith("This is a bug in hydrofoil: please report it")


def test_a_missing_or_truncated_set_leaves_no_run_behind(cli: Cli, tmp_path: Path) -> None:
    published.write_mnist(tmp_path / "data")
    images = tmp_path / "data/MNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    status, _, errors = cli("train", "mnist-cnn", "--data-root", tmp_path / "data")
    assert status == 2
    assert "train-images-idx3-ubyte" in errors
    assert not Path("runs").exists()


def test_a_picture_that_is_none_is_named(cli: Cli, run_path: Path) -> None:
    Path("p.png").write_text("hello")
    status, output, errors = cli("predict", run_path, "p.png")
    assert (status, output) == (2, "")
    assert "p.png: not an image" in errors


def test_other_pictures_than_the_runs_are_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli("train", "mnist-cnn", "train.epochs=1", "--run", "r")[0] == 0
    published.write_mnist(tmp_path / "other", train=500)
    status, _, errors = cli("test", "r", "--data-root", tmp_path / "other")
    assert status == 2
    assert "not the images that the run was trained on" in errors
    assert not Path("r/test.json").exists()


def test_weights_for_another_number_of_classes_are_refused(cli: Cli) -> None:
    network = literal.Cnn()
    network.fc1 = torch.nn.Linear(784, 9)
    torch.save(network.state_dict(), "nine.pt")
    status, _, errors = cli("import", "mnist-cnn", "nine.pt")
    assert status == 2
    assert "fc1.weight is 9×784, expected fc1.weight is 10×784" in errors
    assert not Path("runs").exists()


def test_a_run_without_test_pictures_says_so(cli: Cli) -> None:
    status, output, _ = cli("train", "digits", QUICK, "data.test=0", "--run", "r")
    assert status == 0
    assert "next: hydrofoil test" not in output
    status, _, errors = cli("test", "r")
    assert status == 2
    assert "data.test=0.2" in errors


def test_a_finished_run_is_not_trained_again(cli: Cli, run_path: Path) -> None:
    before = (run_path / "best.safetensors").read_bytes()
    status, output, _ = cli("resume", run_path)
    assert status == 0
    assert "2 of 2 epochs are done" in output
    assert (run_path / "best.safetensors").read_bytes() == before
    assert len(Run.open(run_path).epochs()) == 2


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(cli: Cli, tmp_path: Path) -> None:
    recipe = ["digits", "train.epochs=60"]
    process: Any = subprocess.Popen(
        [sys.executable, "-m", "hydrofoil.cli", "train", *recipe, "--run", "stopped"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith(" 3/60"):
            break
    time.sleep(0.03)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Resume with: hydrofoil resume stopped" in errors
    assert "Traceback" not in errors
    done = Run.open("stopped").checkpoints.epoch()
    assert 2 <= done < 60
    assert f"stopped after {done} of 60 epochs" in errors
    assert {p.name for p in Path("stopped").iterdir() if p.name.startswith(".")} <= {".lock"}
    status, output, errors = cli("resume", "stopped")
    assert status == 0, errors
    assert f"{done} of 60 epochs are done" in output
    assert cli("train", *recipe, "--run", "straight")[0] == 0
    stopped, straight = (
        Run.open(path).weights.load(torch.device("cpu")) for path in ("stopped", "straight")
    )
    assert stopped[1] == straight[1]
    assert stopped[0].weights_hash() == straight[0].weights_hash()
    logs = [
        [(e.number, e.train, e.valid, e.best) for e in Run.open(path).epochs()]
        for path in ("stopped", "straight")
    ]
    assert logs[0] == logs[1]


def test_imported_weights_are_not_trained_over(cli: Cli) -> None:
    torch.save(literal.Cnn().state_dict(), "t.pt")
    cli("import", "mnist-cnn", "t.pt", "--run", "r")
    before = Path("r/best.safetensors").read_bytes()
    status, _, errors = cli("resume", "r")
    assert status == 2
    assert "were imported" in errors
    assert Path("r/best.safetensors").read_bytes() == before


def test_the_next_command_works_as_it_stands(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.write_mnist(tmp_path / "my data")
    monkeypatch.delenv("HYDROFOIL_DATA")
    arguments = [
        "train",
        "mnist-cnn",
        "train.epochs=1",
        "--data-root",
        "my data",
        "--run",
        "my run",
    ]
    _, output, _ = cli(*arguments)
    last = output.strip().splitlines()[-1]
    assert last.startswith("next: hydrofoil test 'my run'")
    assert "not tested yet: hydrofoil test 'my run'" in cli("show", "my run")[1]
    assert cli(*shlex.split(last)[2:])[0] == 0


def test_a_figure_that_cannot_be_written_is_named_after_the_text(cli: Cli) -> None:
    status, output, errors = cli("show", "digits", "--out", "/proc/x.png")
    assert status == 2
    assert "channel means" in output
    assert errors.startswith("/proc/x.png: cannot be written")


def test_a_terminal_without_unicode_is_no_error() -> None:
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "hydrofoil.cli", "show", "mnist-cnn"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "convolution 3x3, 1 > 8" in done.stdout


def test_output_cut_off_by_a_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m hydrofoil.cli recipes | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
