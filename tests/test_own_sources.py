"""Every kind of source that the user's own images may have, through every verb."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import hydrofoil as hf
from tests.conftest import Cli
from tests.sets import CLASSES, KINDS, as_png, image, write_folder

SHORT = (
    "train.epochs=1",
    "train.batch_size=16",
    "model.name=mlp",
    "model.hidden=[8]",
    "train.execute=eager",
)


def walk(cli: Cli, source: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """Take a source through every verb, and return what each one printed."""
    said: dict[str, str] = {}

    def command(verb: str, *arguments: object) -> str:
        status, output, errors = cli(verb, *arguments)
        assert status == 0, f"{verb}: {errors}"
        said[verb] = output + errors
        return output

    pictures = hf.load(source)
    assert pictures.shape == (3, 16, 16)
    assert pictures.classes == classes
    data = f"data.source={source}"
    Path("unseen.png").write_bytes(as_png(image(1, 99, (50, 40))))
    assert "16×16" in command("show", "digits", data)
    assert "16×16" in command("show", source)
    checked = ("check", source, "--only", "copies,files,shortcuts,drift", "--out", "checked")
    assert cli(*checked)[0] in (0, 1)
    found = json.loads(Path("checked/check.json").read_text("utf-8"))
    assert found["count"] == len(pictures)
    assert Path("checked/check.html").stat().st_size
    derived = command("train", source, "epochs=1", "execute=eager", "--run", "derived")
    assert "derived from" in derived
    assert "source = " in command("new", source)
    assert "test accuracy" in command("train", "digits", data, *SHORT, "--run", "r", "--test")
    assert "test accuracy" in command("test", "r", "--csv", "test.csv")
    command("predict", "r", "unseen.png", "--csv", "predictions.csv")
    (prediction,) = json.loads(command("predict", "r", "unseen.png", "--json"))
    assert set(prediction["probabilities"]) == set(classes)
    command("explain", "r", "unseen.png")
    command("report", "r")
    command("resume", "r", "train.epochs=2")
    assert hf.Run.open("r").split().pictures_hash == pictures.hash
    quick = (*SHORT, "b.optimizer.lr=0.1", "--seeds", "2")
    assert "verdict" in command("compare", "digits", "digits", data, *quick)
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_source_goes_through_every_verb(kind: str, tmp_path: Path, cli: Cli) -> None:
    named = "npz" not in kind and kind not in ("medmnist", "keras")
    walk(cli, KINDS[kind](tmp_path), CLASSES if named or kind == "plain npz" else ("0", "1", "2"))


# ── hostile names ────────────────────────────────────────────────────────────────────────────────

# Of classes: all that can be shown is allowed, and is only text wherever it goes.
HOSTILE = (
    "=cmd|' /C calc'!A0", "a, b; \"c\"", "<img src=x onerror=alert(1)>", "{{ 7 * 7 }} %s {0}",
    "日本語 🐱 ñ", "../../etc/passwd", "$(touch canary) `touch canary`", "x" * 120,
)  # fmt: skip
IN_FOLDERS = tuple(name for name in HOSTILE if "/" not in name)
FILES = ("-rf.png", "$(touch canary).png", "a;b,c\"d'.png", "<b>.png", "日本.png", "%s {}.png")


def _folder(root: Path) -> Path:
    for label, name in enumerate(IN_FOLDERS):
        (root / "pets" / name).mkdir(parents=True)
        for number, file in enumerate(FILES):
            (root / "pets" / name / file).write_bytes(as_png(image(label, number)))
    return root / "pets"


def _archive(root: Path) -> Path:
    with zipfile.ZipFile(root / "pets.zip", "w") as archive:
        for label, name in enumerate(IN_FOLDERS):
            for number, file in enumerate(FILES):
                archive.writestr(f"pets/{name}/{file}", as_png(image(label, number)))
    return root / "pets.zip"


def _table(root: Path) -> Path:
    rows = io.StringIO()
    written = csv.writer(rows)
    written.writerow(["path", "label"])
    (root / "photos").mkdir()
    for label, name in enumerate(HOSTILE):
        for number in range(len(FILES)):
            (root / "photos" / f"{label}-{number}.png").write_bytes(as_png(image(label, number)))
            written.writerow([f"photos/{label}-{number}.png", name])
    (root / "pets.csv").write_text(rows.getvalue(), "utf-8")
    return root / "pets.csv"


def _arrays(root: Path) -> Path:
    images = [np.asarray(image(k, n, (16, 16))) for k in range(len(HOSTILE)) for n in range(6)]
    np.savez(root / "pets.npz", images=np.stack(images), labels=np.repeat(np.array(HOSTILE), 6))
    return root / "pets.npz"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
@pytest.mark.parametrize(
    "write",
    [_folder, _table, *(pytest.param(f, marks=pytest.mark.slow) for f in (_archive, _arrays))],
)
def test_hostile_names_are_only_text_in_every_verb(
    write: Callable[[Path], Path], tmp_path: Path, cli: Cli
) -> None:
    classes = tuple(sorted(HOSTILE if write in (_table, _arrays) else IN_FOLDERS))
    walk(cli, write(tmp_path), classes)
    assert not Path("canary").exists()
    page = Path("r/report.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }} %s {0}" in page
    with Path("test.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} <= set(classes)
    pages = list(Path("runs/compare").rglob("*.html"))
    assert pages
    assert all("<img src=x" not in page.read_text("utf-8") for page in pages)
    names = [one.name for one in hf.Run.open("r").test().classes]
    assert tuple(names) == classes


# ── from Python ──────────────────────────────────────────────────────────────────────────────────


def forms() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every form in which Python may hold a set, and what makes it."""
    drawn = [(image(label, number, (16, 16)), label) for number in range(12) for label in range(3)]
    arrays_NHWC = np.stack([np.asarray(made) for made, _ in drawn])
    tensors_NCHW = torch.from_numpy(arrays_NHWC).permute(0, 3, 1, 2).contiguous()
    labels = [label for _, label in drawn]
    names = [CLASSES[label] for label in labels]
    dataset = TensorDataset(tensors_NCHW, torch.tensor(labels))
    yield "arrays", lambda: (arrays_NHWC, names)
    yield "floats", lambda: (tensors_NCHW.float() / 255, labels)
    yield "tensors", lambda: (tensors_NCHW, torch.tensor(labels))
    yield "Pillow images", lambda: ([made for made, _ in drawn], names)
    yield "torch dataset", lambda: dataset
    yield "loader", lambda: DataLoader(dataset, batch_size=8)
    yield "pictures", lambda: hf.Pictures(tensors_NCHW, names)
    yield "hostile names", lambda: hf.Pictures(tensors_NCHW, labels, HOSTILE[:3])
    yield "frame", _frame


def _frame() -> Any:
    import pandas as pd

    files = sorted(write_folder(Path("pets"), 12).rglob("*.png"))
    frame = pd.DataFrame({"path": map(str, files), "label": [file.parent.name for file in files]})
    return frame


@pytest.mark.parametrize("form", [name for name, _ in forms()])
def test_each_form_in_python_goes_through_every_function(form: str) -> None:
    given = dict(forms())[form]()
    options = ("train.epochs=1", *SHORT[1:])
    run = hf.train("digits", options, pictures=given, run="r", test=True)
    whole = hf.Run.open("r").split()
    assert sum(len(getattr(whole, part)) for part in ("train", "valid", "test")) == 36
    result = run.test()
    assert result.count == len(whole.test)
    classes = tuple(one.name for one in result.classes)
    assert classes in (CLASSES, ("0", "1", "2"), HOSTILE[:3])
    prediction = run.predict(image(1, 99, (50, 40)))
    assert prediction.label in classes
    picture_CHW = prediction.picture_CHW
    assert hf.occlusion(run, picture_CHW, classes[0]).drops_HW.shape == (16, 16)
    assert run.report().read_text("utf-8").count("<img src=x") == 0
    resumed = hf.resume(run, ["train.epochs=2"], pictures=given)
    assert len(resumed.epochs()) == 2
    other = hf.train("digits", options, pictures=given, run="runs/b", test=True, lr=0.1)
    run.test(again=True)  # with the weights of the second epoch
    compared = hf.compare("r", "runs/b")
    assert {side.pictures for side in compared.sides} == {result.count}
    assert 0 <= other.test().balanced_accuracy <= 1


def test_a_comparison_on_own_images_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "pets")
    changes = ("data.source=./pets", "b.optimizer.lr=0.1", *SHORT)
    first = hf.compare("digits", "digits", changes, seeds=2)
    monkeypatch.setattr("hydrofoil.session.compare.train", None)
    again = hf.compare("digits", "digits", changes, seeds=2)
    assert again.as_dict()["verdict"] == first.as_dict()["verdict"]


def test_a_frame_is_read_as_its_fields_say(tmp_path: Path) -> None:
    from pandas import DataFrame

    folder = write_folder(tmp_path / "pets")
    files = sorted(folder.rglob("*.png"))
    frame = DataFrame({"file": map(str, files), "kind": [file.parent.name for file in files]})
    run = hf.train(
        frame, path="file", label="kind", size=12, epochs=1, execute="eager", run=tmp_path / "r"
    )
    assert run.model.shape == (3, 12, 12)
    assert run.model.classes == CLASSES
    found = hf.check(frame, only=("copies",), path="file", label="kind", size=12)
    assert found.pictures.shape == (3, 12, 12)
