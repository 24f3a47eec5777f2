"""Trackers, read back with the readers of TensorBoard and MLflow themselves."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hydrofoil import HydrofoilError, Run
from hydrofoil.cli.main import main
from hydrofoil.observe import track
from hydrofoil.observe.observer import Ended
from hydrofoil.observe.scalars import hyperparameters, metric_name
from hydrofoil.observe.track import TRACKERS, Tracking, check_trackers
from hydrofoil.run.events import RunningLoss

TRAIN = ["train", "digits", "train.epochs=3", "train.log_every=10", "train.execute=eager"]
EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, tested and tracked by TensorBoard; copy it before changing it."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert call(*TRAIN, "--test", "--track", "tensorboard", "--json", "--run", path) == 0
    return path


@pytest.fixture
def path(tracked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tracked, tmp_path / "run"))


def board(path: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(path / "tensorboard"), size_guidance=EVERYTHING)
    accumulator.Reload()
    return accumulator


def shown(path: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = board(path)
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def float32(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return pairs as event files hold them."""
    return [(step, torch.tensor(value, dtype=torch.float32).item()) for step, value in values]


def expected(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what should be told, from the run's own files."""
    events = [json.loads(line) for line in (path / "log.jsonl").read_text("utf-8").splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    told: dict[str, list[tuple[int, float]]] = {}
    for part in ("train", "valid"):
        for field in ("loss", "accuracy"):
            told[f"{field}/{part}"] = [(e["epoch"], e[part][field]) for e in epochs]
    told["learning_rate"] = [(e["epoch"], Run.open(path).recipe.optimizer.lr) for e in epochs]
    told["pictures_per_second"] = [
        (e["epoch"], e["train"]["count"] / e["train_seconds"]) for e in epochs
    ]
    size = Run.open(path).recipe.train.batch_size
    steps = -(-epochs[0]["train"]["count"] // size)
    told["loss/running"] = [
        (e["step"] + steps * (e["epoch"] - 1), e["loss"]) for e in events if e["event"] == "loss"
    ]
    tests = [event for event in events if event["event"] == "test"]
    if tests:
        test = json.loads((path / "test.json").read_text("utf-8"))
        last = test["opened"]
        told["test/accuracy"] = [(e["opened"], e["accuracy"]) for e in tests]
        told["test/loss"] = [(last, test["loss"])]
        told["test/balanced_accuracy"] = [(last, test["balanced_accuracy"])]
        told["test/accuracy_low"] = [(last, test["interval"][0])]
        told["test/accuracy_high"] = [(last, test["interval"][1])]
        told |= {f"recall/{one['name']}": [(last, one["recall"])] for one in test["classes"]}
    return told


def assert_told(path: Path) -> None:
    assert shown(path) == {tag: float32(values) for tag, values in expected(path).items()}


def test_tensorboard_shows_the_numbers_of_the_log_and_of_the_test(tracked: Path) -> None:
    assert len(expected(tracked)["loss/valid"]) == 3
    assert len(expected(tracked)["loss/running"]) > 3
    assert_told(tracked)


def test_tensorboard_shows_the_figures_as_they_are(tracked: Path) -> None:
    accumulator = board(tracked)
    drawn = {path.stem for path in (tracked / "figures").glob("*.png")}
    assert {"predictions", "confusion"} <= drawn
    assert set(accumulator.Tags()["images"]) == {f"test/{name}" for name in drawn}
    for name in drawn:
        (image,) = accumulator.Images(f"test/{name}")
        assert image.encoded_image_string == (tracked / "figures" / f"{name}.png").read_bytes()
        assert image.step == 1


def hparams(path: Path, tag: str) -> Any:
    content = board(path).SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return HParamsPluginData.FromString(content)


def test_tensorboard_compares_runs_by_their_hyperparameters(tracked: Path) -> None:
    session = hparams(tracked, "session_start_info").session_start_info
    assert session.group_name == ""  # a name that runs share would have them averaged
    fields = session.hparams
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in fields.items()}
    recipe = Run.open(tracked).recipe
    assert values == hyperparameters(recipe)
    assert values["train.epochs"] == 3
    assert values["optimizer.lr"] == recipe.optimizer.lr
    assert values["data.mean"] == json.dumps(list(recipe.data.mean))
    assert "data.root" not in values
    assert hparams(tracked, "session_end_info").session_end_info.status == 1  # success


def test_times_do_not_run_backwards(tracked: Path) -> None:
    accumulator = board(tracked)
    for tag in accumulator.Tags()["scalars"]:
        times = [event.wall_time for event in accumulator.Scalars(tag)]
        assert all(early <= late for early, late in pairwise(times))


def test_an_event_file_does_not_name_the_machine(tracked: Path) -> None:
    import platform

    (file,) = (tracked / "tensorboard").iterdir()
    assert platform.node() not in file.name.split(".")


def test_a_second_test_adds_its_opening_and_doubles_nothing(path: Path) -> None:
    assert call("test", path, "--again", "--track", "tensorboard", "--json") == 0
    assert [step for step, _ in shown(path)["test/accuracy"]] == [1, 2]
    assert_told(path)
    assert len(board(path).Images("test/confusion")) == 1


def test_a_run_that_was_not_tracked_is_told_whole(path: Path) -> None:
    shutil.rmtree(path / "tensorboard")
    assert call("test", path, "--again", "--track", "tensorboard", "--json") == 0
    assert len(shown(path)["loss/train"]) == 3
    assert_told(path)


def stop_at_epoch_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come when the third epoch is about to be kept."""
    from hydrofoil.observe.recorder import Recorder

    keep = Recorder.epoch

    def keep_two(self: Recorder, *arguments: Any) -> None:
        if arguments[0].number == 3:
            raise KeyboardInterrupt
        keep(self, *arguments)

    monkeypatch.setattr(Recorder, "epoch", keep_two)


def test_resuming_continues_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at_epoch_3(patch)
        assert call(*TRAIN, "--track", "tensorboard", "--json", "--run", path) == 130
    assert_told(path)  # the running losses of the third epoch too
    before = shown(path)
    assert [step for step, _ in before["loss/valid"]] == [1, 2]
    assert hparams(path, "session_end_info").session_end_info.status == 0  # stopped: unknown
    assert call("resume", path, "--track", "tensorboard", "--json") == 0
    after = shown(path)
    assert [step for step, _ in after["loss/valid"]] == [1, 2, 3]
    assert after["loss/running"][: len(before["loss/running"])] == before["loss/running"]
    assert_told(path)


def test_who_looks_on_while_a_run_is_resumed_sees_nothing_twice(path: Path) -> None:
    watching = board(path)
    assert len(watching.Scalars("loss/valid")) == 3
    assert call("test", path, "--again", "--track", "tensorboard", "--json") == 0
    watching.Reload()
    assert [event.step for event in watching.Scalars("loss/valid")] == [1, 2, 3]


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("when", ["__init__", "tell", "end"])
def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(track.TensorBoard, when, fail)
    path = tmp_path / "run"
    assert call(*TRAIN, "--test", "--track", "tensorboard", "--run", path, "--json") == 0
    output, errors = capfd.readouterr()
    assert json.loads(output)["epochs"] == 3
    assert errors.count("\n") == 1
    assert errors.startswith("--track tensorboard: OSError: [Errno 28] No space left on device: ")
    assert len(Run.open(path).epochs()) == 3
    assert (path / "test.json").exists()


def test_a_disk_that_fills_up_leaves_what_was_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shown(path)
    monkeypatch.setattr(track.TensorBoard, "tell", fail)
    assert call("test", path, "--again", "--track", "tensorboard", "--json") == 0
    monkeypatch.undo()
    assert call("test", path, "--again", "--track", "tensorboard", "--json") == 0
    assert shown(path)["loss/train"] == before["loss/train"]
    assert [step for step, _ in shown(path)["test/accuracy"]] == [1, 2, 3]
    assert len(list((path / "tensorboard").iterdir())) == 1


def test_a_failing_tracker_leaves_the_others_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(track.TensorBoard):
        tell = fail

    monkeypatch.setitem(TRACKERS, "broken", Broken)
    said: list[str] = []
    tracking, run = Tracking(["broken", "tensorboard"], said.append), Run.open(path)
    tracking.begin(run)
    assert list(tracking.trackers) == ["tensorboard"]
    tracking.ended(Ended(run))
    assert len(said) == 1
    assert_told(path)


def test_steps_tell_the_trackers_while_they_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "LOOK_SECONDS", -1)
    run, tracking = Run.open(path), Tracking(["tensorboard"], pytest.fail)
    tracking.begin(run)
    run.log.append(RunningLoss(epoch=4, step=1, loss=0.5))
    tracking.steps(None)  # type: ignore[arg-type]
    assert shown(path)["loss/running"][-1] == (3 * tracking.steps_an_epoch + 1, 0.5)
    tracking.ended(Ended(run))


def test_a_mistyped_tracker_is_answered_before_anything_is_made(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*TRAIN, "--track", "tensorbord", "--run", tmp_path / "run") == 2
    _, errors = capfd.readouterr()
    assert errors.startswith("--track tensorbord: no such tracker. Did you mean 'tensorboard'?")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "install"),
    [("tensorboard", "pip install -e '.[track]'"), ("mlflow", "pip install mlflow")],
)
def test_a_tracker_that_is_not_installed_is_answered_before_anything_is_made(
    name: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in TRACKERS[name].needs:
        monkeypatch.setitem(sys.modules, module, None)
    for variable in TRACKERS[name].environment:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(HydrofoilError) as error:
        check_trackers([name])
    first, second = str(error.value).splitlines()
    assert first.startswith(f"--track {name}: not installed: ")
    assert second == f"Install it with: {install}"


def test_without_a_tracker_none_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from hydrofoil.cli.main import app;"
        f"app({[*TRAIN[:2], 'train.epochs=1', TRAIN[-1], '--json']!r}, standalone_mode=False,"
        " obj=[]);"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorboard', 'mlflow')],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["epochs"] == 1
    assert done.stderr == "[]\n"


def test_names_that_mlflow_refuses_stay_apart() -> None:
    names = ["recall/a/b", "recall/a?b", "recall/..", "recall/", "recall/ß", "loss/train"]
    assert len({metric_name(name) for name in names}) == len(names)
    assert metric_name("recall/..") == "recall/_2e__2e_"


# ── MLflow, where it is installed ────────────────────────────────────────────────────────────────


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client, with a store in a folder."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for variable, value in TRACKERS["mlflow"].environment.items():
        monkeypatch.setenv(variable, value)
    return mlflow.MlflowClient()


def only_run(client: Any) -> Any:
    experiment = client.get_experiment_by_name("hydrofoil")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def assert_mlflow_told(client: Any, path: Path) -> None:
    run = only_run(client)
    told = expected(path)
    assert set(run.data.metrics) == {metric_name(name) for name in told}
    for name, values in told.items():
        history = client.get_metric_history(run.info.run_id, metric_name(name))
        assert [(metric.step, metric.value) for metric in history] == values, name


def test_mlflow_shows_a_run_and_goes_on_with_it(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine"
    with monkeypatch.context() as patch:
        stop_at_epoch_3(patch)
        assert call(*TRAIN, "--track", "mlflow", "--json", "--run", path) == 130
    assert only_run(client).info.status == "KILLED"
    assert call("resume", path, "--track", "mlflow", "--json") == 0
    assert (
        call("test", path, "--again", "--track", "mlflow", "--track", "tensorboard", "--json") == 0
    )
    run = only_run(client)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    fields = hyperparameters(Run.open(path).recipe)
    assert run.data.params == {name: str(value) for name, value in fields.items()}
    kept = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert kept == {"recipe.toml", "test.json", "figures"}
    for artifact in client.list_artifacts(run.info.run_id, "figures"):
        local = Path(client.download_artifacts(run.info.run_id, artifact.path))
        assert local.read_bytes() == (path / artifact.path).read_bytes()
    assert_mlflow_told(client, path)
    assert_told(path)


def test_a_run_that_mlflow_lost_is_told_anew(client: Any, path: Path) -> None:
    assert call("test", path, "--again", "--track", "mlflow", "--json") == 0
    client.delete_run(only_run(client).info.run_id)
    assert call("test", path, "--again", "--track", "mlflow", "--json") == 0
    assert_mlflow_told(client, path)


def test_a_server_that_is_away_stops_nothing(
    client: Any, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert call("test", path, "--again", "--track", "mlflow", "--json") == 0
    output, errors = capfd.readouterr()
    assert json.loads(output)["opened"] == 2
    assert errors.count("--track mlflow: ") == 1
