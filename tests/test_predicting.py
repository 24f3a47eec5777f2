"""Many files from any source, on the command line and from Python; novelty and the threshold."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hydrofoil as hf
from hydrofoil import Classifier, HydrofoilError, Run, predict
from hydrofoil.cli.main import main
from hydrofoil.evaluate.novelty import Novelty, answer_with_features
from hydrofoil.evaluate.score import logits_of
from hydrofoil.report.words import _no_better_than_one_class
from hydrofoil.ship.inputs import find_images
from hydrofoil.ship.predict import predict_stream
from tests.conftest import Cli

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                "digits",
                "train.epochs=12",
                "train.execute=eager",
                "--run",
                str(path),
                "--json",
            ]
        )
    return path


@pytest.fixture(scope="module")
def model(run_path: Path) -> Classifier:
    return Run.open(run_path).weights.load(CPU)[0]


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, list[int]]:
    pictures = hf.load("digits")
    return pictures.pictures_NCHW, pictures.labels_N.tolist()


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def saved(picture_CHW: torch.Tensor, name: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_CHW[0].numpy()).save(name)
    return name


# ── from Python ──────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_source_gives_the_same_prediction(
    model: Classifier, run_path: Path, digits: tuple[torch.Tensor, list[int]]
) -> None:
    picture_CHW = digits[0][0]
    pixels, path = picture_CHW[0].numpy(), Path(saved(picture_CHW, "digit.png"))
    content = path.read_bytes()
    expected = predict(model, picture_CHW)
    sources: list[Any] = [
        path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content),
        Image.open(path), Image.fromarray(pixels), pixels, pixels[..., None], pixels / 255,
        (pixels / 255).astype(np.float32), picture_CHW, picture_CHW[0], picture_CHW.float() / 255,
    ]  # fmt: skip
    for source in sources:
        found = predict(model, source)
        assert found.label == expected.label
        assert found.probabilities == pytest.approx(expected.probabilities)
    for owner in (run_path, str(run_path), Run.open(run_path)):
        assert predict(owner, path).probabilities == pytest.approx(expected.probabilities)


def test_several_in_are_a_list_out_in_the_same_order(
    model: Classifier, digits: tuple[torch.Tensor, list[int]]
) -> None:
    pictures_NCHW = digits[0][:150]
    expected = [model.classes[k] for k in logits_of(model, pictures_NCHW).argmax(1).tolist()]
    as_array = pictures_NCHW.permute(0, 2, 3, 1).numpy()
    mixed = [pictures_NCHW[0], as_array[1], as_array[2:5], *pictures_NCHW[5:150]]
    for several in (pictures_NCHW, pictures_NCHW.double() / 255, as_array, list(as_array), mixed):
        assert [found.label for found in predict(model, several)] == expected
    assert len(predict(model, pictures_NCHW[:1])) == 1
    assert predict(model, []) == []


@given(
    channels=st.sampled_from([1, 3, 4]), rows=st.integers(1, 40), columns=st.integers(5, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_an_array_is_classified_as_its_png_is(
    model: Classifier, channels: int, rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, columns, channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
    assert predict(model, pixels) == predict(model, file.getvalue())
    tensor_CHW = torch.from_numpy(pixels).permute(2, 0, 1)
    if tuple(tensor_CHW.shape) != model.shape:
        assert predict(model, tensor_CHW) == predict(model, pixels)


@pytest.mark.parametrize(
    ("given_", "complaint"),
    [
        (np.full((8, 8), 300), r"an array of int64 from 300 to 300: expected 0 to 255"),
        (np.full((8, 8), 255.0), r"with values from 255 to 255: expected 0 to 1"),
        (np.full((8, 8), -0.5), r"expected 0 to 1"),
        (np.full((8, 8), np.nan), r"expected 0 to 1"),
        (np.zeros((5, 8, 9), np.uint8), r"an array of 5×8×9: expected 1 to 4 channels at the end"),
        (np.zeros(64, np.uint8), r"an array of 64: expected H×W, H×W×C or N×H×W×C"),
        (np.zeros((0, 8), np.uint8), r"an array of 0×8"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"expected 1 to 4 channels before rows"),
        (torch.full((1, 8, 8), -1), r"a tensor of int64 from -1 to -1: expected 0 to 255"),
        (torch.full((1, 8, 8), 2.0), r"a tensor of float32 with values from 2 to 2"),
        (7, r"an int as image: expected a path, bytes"),
        (None, r"None as image"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_expected(
    model: Classifier, given_: Any, complaint: str
) -> None:
    with pytest.raises(HydrofoilError, match=complaint):
        predict(model, given_)


def test_a_stream_passes_errors_on_and_reads_no_further_than_it_has_to(model: Classifier) -> None:
    asked: list[int] = []

    def sources() -> Any:
        for number in range(1000):
            asked.append(number)
            yield str(number), np.zeros((8, 8), np.uint8) if number % 2 else b"no image"

    from hydrofoil.ship.inputs import to_sources

    def prepared() -> Any:
        for name, source in sources():
            yield name, to_sources(source, model.shape)[0][0]

    answers = predict_stream(model, prepared())
    first = [next(answers) for _ in range(10)]
    assert [answer.name for answer in first] == [str(number) for number in range(10)]
    assert [answer.error is None for answer in first] == [False, True] * 5
    assert len(asked) <= 64


# ── novelty and the threshold ────────────────────────────────────────────────────────────────────


def test_novelty_is_a_share_of_the_validation_images(
    model: Classifier, run_path: Path, digits: tuple[torch.Tensor, list[int]]
) -> None:
    assert model.novelty is not None
    split = Run.open(run_path).split()
    assert model.novelty.calibrated_on == "validation"
    shares = np.array([found.novelty for found in predict(model, digits[0][split.valid])])
    # Of their own calibration images, each share of them is less unusual than that share.
    np.testing.assert_allclose(np.sort(shares), np.arange(len(shares)) / len(shares), atol=0.02)
    rng = np.random.default_rng(0)
    noise_NCHW = torch.from_numpy(rng.integers(0, 256, (100, 1, 8, 8), np.uint8))
    unlike = predict(model, noise_NCHW)
    assert np.mean([found.novelty for found in unlike]) > np.mean(shares) + 0.2
    said = [found for found in unlike if any("unlike the training" in n for n in found.notes)]
    assert said == [found for found in unlike if found.novelty >= 0.995]


def test_the_distance_is_the_literal_one(model: Classifier, digits: Any) -> None:
    from scipy.spatial.distance import cdist

    assert model.novelty is not None
    _, features_ND = answer_with_features(model, digits[0][:50])
    features = features_ND.numpy().astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    training = model.novelty.training_MD.numpy().astype(np.float64)
    training /= np.linalg.norm(training, axis=1, keepdims=True)
    fifth = np.sort(cdist(features, training), axis=1)[:, 4]
    calibration = model.novelty.distances_Q.numpy()
    expected = [(calibration < distance - 1e-3).mean() for distance in fifth]
    most = [(calibration < distance + 1e-3).mean() for distance in fifth]
    found = model.novelty.of(features_ND).numpy()
    assert (found >= np.array(expected) - 1e-9).all()
    assert (found <= np.array(most) + 1e-9).all()


def test_novelty_of_other_weights_is_not_used(run_path: Path, tmp_path: Path) -> None:
    import shutil

    copied = Path(shutil.copytree(run_path, tmp_path / "copy"))
    run = Run.open(copied)
    model, epoch = run.weights.load(CPU)
    with torch.no_grad():
        next(iter(model.network.parameters())).add_(0.01)
    run.weights.save(model, epoch)
    again, _ = Run.open(copied).weights.load(CPU)
    assert again.novelty is None
    assert again.statistics == model.statistics
    assert predict(again, np.zeros((8, 8), np.uint8)).novelty is None


def test_a_damaged_reference_is_named(run_path: Path, tmp_path: Path) -> None:
    import shutil

    copied = Path(shutil.copytree(run_path, tmp_path / "copy"))
    (copied / "reference.npz").write_bytes(b"damaged")
    with pytest.raises(HydrofoilError, match=r"reference\.npz"):
        Run.open(copied).weights.load(CPU)


def test_calibration_arrays_of_another_kind_are_refused(model: Classifier) -> None:
    assert model.novelty is not None
    arrays = model.novelty.arrays()
    assert Novelty.from_arrays(arrays).weights == model.novelty.weights
    for name, value in (("training_MD", np.zeros(3)), ("distances_Q", np.zeros((2, 2)))):
        with pytest.raises(ValueError, match="float"):
            Novelty.from_arrays({**arrays, name: value})


def test_below_the_threshold_none_of_the_classes_is_the_answer(
    model: Classifier, cli: Cli, run_path: Path, digits: Any
) -> None:
    path = saved(digits[0][0], "digit.png")
    found = predict(model, path)
    assert predict(model, path, threshold=found.probability).label == found.label
    below = predict(model, path, threshold=1.0)
    assert (below.label, below.most_probable) == (None, found.label)
    status, output, _ = cli("predict", run_path, path, "--threshold", "1")
    assert (status, output.splitlines()[0]) == (
        0, f"digit.png: none of these (most probable: {found.label})"
    )  # fmt: skip
    assert (
        json.loads(cli("predict", run_path, path, "--threshold", "1", "--json")[1])[0]["class"]
        is None
    )
    status, _, errors = cli("predict", run_path, path, "--threshold", "1.5")
    assert (status, errors) == (2, "threshold = 1.5: expected a probability from 0 to 1.\n")


# ── the command line ─────────────────────────────────────────────────────────────────────────────


def test_folders_and_patterns_stand_for_their_images(digits: Any) -> None:
    names = [
        "b/2.png",
        "b/10.png",
        "a.png",
        "b/c/x.JPG",
        "b/.hidden.png",
        "b/note.txt",
        "b/[1].png",
    ]
    for name in names:
        saved(digits[0][0], "x.png")
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(Path("x.png").read_bytes())
    assert list(find_images(["b", "a.png", "-"])) == [
        "b/10.png", "b/2.png", "b/[1].png", "b/c/x.JPG", "a.png", "-"
    ]  # fmt: skip
    assert list(find_images(["b/*.png"])) == ["b/10.png", "b/2.png", "b/[1].png"]
    assert list(find_images(["b/**/*.JPG"])) == ["b/c/x.JPG"]
    assert list(find_images(["b/[1].png"])) == ["b/[1].png"]  # a file of that very name
    Path("empty").mkdir()
    for nothing, complaint in (("empty", "no image file in"), ("*.tiff", "no file matches")):
        (error,) = find_images([nothing])
        assert isinstance(error, HydrofoilError)
        assert complaint in str(error)


def test_a_bad_file_is_named_and_the_others_are_classified(
    cli: Cli, run_path: Path, digits: Any
) -> None:
    for number in (1, 3):
        saved(digits[0][number], f"many/{number}.png")
    Path("many/2.png").write_text("no image")
    status, output, errors = cli("predict", run_path, "many", "--csv", "table.csv")
    assert status == 2
    assert [line.partition(":")[0] for line in output.splitlines() if not line.startswith(" ")] == [
        "many/1.png", "many/3.png"
    ]  # fmt: skip
    assert "many/2.png: not an image" in errors
    assert errors.endswith("1 of 3 images could not be read.\n")
    rows = rows_of("table.csv")
    assert [row["image"] for row in rows] == [f"many/{number}.png" for number in (1, 2, 3)]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    status, output, _ = cli("predict", run_path, "many", "--json")
    content = json.loads(output)
    assert status == 2
    assert [entry.get("class") for entry in content] == [
        rows[0]["prediction"], None, rows[2]["prediction"]
    ]  # fmt: skip
    assert "not an image" in content[1]["error"]


def test_many_images_get_a_line_each(cli: Cli, run_path: Path, digits: Any) -> None:
    for number in range(12):
        saved(digits[0][number], f"many/{number:02d}.png")
    status, output, errors = cli("predict", run_path, "many")
    assert (status, errors) == (0, "")
    assert [line[:11] for line in output.splitlines()] == [f"many/{n:02d}.png" for n in range(12)]


def test_standard_input_and_names_that_begin_with_a_dash(run_path: Path, digits: Any) -> None:
    path = saved(digits[0][0], "-x.png")

    def hydrofoil(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        with open(path, "rb") as file:
            return subprocess.run(
                [sys.executable, "-m", "hydrofoil", "predict", str(run_path), *arguments],
                stdin=file, capture_output=True,
            )  # fmt: skip

    read = hydrofoil("-")
    assert read.returncode == 0
    assert read.stdout.startswith(b"standard input: 0")
    named = hydrofoil("--", "-x.png")
    assert named.stdout.replace(b"-x.png", b"standard input") == read.stdout
    wrong = hydrofoil("-x.png")
    assert wrong.returncode == 2
    assert b"-x.png is a file: names that begin with a dash go after --" in wrong.stderr


def test_what_the_network_sees_is_saved(
    cli: Cli, run_path: Path, model: Classifier, digits: Any
) -> None:
    saved(255 - digits[0][0], "a.png")
    saved(digits[0][1], "b.png")
    status, output, _ = cli("predict", run_path, "a.png", "--show-input", "seen.png")
    assert (status, "seen.png" in output) == (0, True)
    np.testing.assert_array_equal(np.asarray(Image.open("seen.png")), digits[0][0][0].numpy())
    content = json.loads(
        cli(
            "predict",
            run_path,
            "a.png",
            "b.png",
            "--as-is",
            "--show-input",
            "out/seen.png",
            "--json",
        )[1]
    )
    assert [entry["shown"] for entry in content] == ["out/seen-1.png", "out/seen-2.png"]
    np.testing.assert_array_equal(
        np.asarray(Image.open("out/seen-1.png")), 255 - digits[0][0][0].numpy()
    )
    assert cli("predict", run_path, "a.png", "--show-input", "seen.jpg")[0] == 2


def test_explain_prepares_as_predict_does(cli: Cli, run_path: Path, digits: Any) -> None:
    saved(255 - digits[0][0], "ink.png")
    for options in ([], ["--as-is"], ["--invert"]):
        (predicted,) = json.loads(cli("predict", run_path, "ink.png", *options, "--json")[1])
        explained = json.loads(cli("explain", run_path, "ink.png", *options, "--json")[1])
        assert {key: explained["pictures"][0][key] for key in predicted} == predicted


def test_test_lists_every_image(cli: Cli, run_path: Path) -> None:
    status, output, _ = cli("test", run_path, "--csv", "test.csv", "--json")
    assert status == 0
    result, run = json.loads(output), Run.open(run_path)
    rows = rows_of("test.csv")
    assert [int(row["index"]) for row in rows] == run.split().test.tolist()
    assert sum(row["correct"] == "true" for row in rows) / len(rows) == result["accuracy"]
    labels = hf.load("digits").labels_N
    assert all(row["label"] == str(int(labels[int(row["index"])])) for row in rows)
    assert all((row["label"] == row["prediction"]) == (row["correct"] == "true") for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_a_bar_appears_on_a_terminal_and_nothing_of_it_elsewhere() -> None:
    code = (
        "import time; from hydrofoil.observe.counter import Counter\n"
        "c = Counter('images', lambda: range(40))\n"
        "for n in range(1, 31): time.sleep(0.05); c.update(n)\n"
        "c.clear()"
    )
    import pty

    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other side is closed
        pass
    assert b" of 40 images" in shown
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


# ── accuracy that is worth nothing ───────────────────────────────────────────────────────────────


def result(counts: dict[str, int], correct: int) -> Any:
    from hydrofoil.evaluate.metrics import wilson

    total = sum(counts.values())
    classes = [SimpleNamespace(name=name, count=count) for name, count in counts.items()]
    bounds = list(wilson(correct, total))
    return SimpleNamespace(accuracy=correct / total, interval=bounds, count=total, classes=classes)


def test_an_accuracy_that_one_class_alone_would_reach_is_said() -> None:
    counts = {"cat": 800, "dog": 200}
    said = {
        correct: _no_better_than_one_class(result(counts, correct)) for correct in (790, 805, 900)
    }
    assert said[790] == [
        "The accuracy, 79.00%, is not above the share of the largest class: always predicting cat "
        "would be correct for 80.00% of the test images."
    ]
    assert "not significantly above" in said[805][0]
    assert said[900] == []
