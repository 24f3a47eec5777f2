"""`test` again: the stored result while nothing changed, and a counted opening otherwise."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import hydrofoil as hf
from hydrofoil.session import test as session
from tests.black_box import cli

QUICK = ["train.epochs=1", "train.execute=eager"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tested"
    hf.train("digits", QUICK, run=path, test=True)
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> hf.Run:
    return hf.Run.open(shutil.copytree(made, tmp_path / "run"))


def opened(run: hf.Run) -> int:
    return hf.Run.open(run.path).log.times_tested()


def test_an_unchanged_run_answers_with_its_stored_result(
    run: hf.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: Any) -> None:
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(session, "answer", look)
    before = (run.path / "test.json").read_bytes()
    result = hf.test(run)
    assert result == run.results.test()
    assert (result.opened, opened(run)) == (1, 1)
    assert (run.path / "test.json").read_bytes() == before


def test_opening_it_again_is_counted_and_finds_the_same(run: hf.Run) -> None:
    first = run.results.test()
    again = hf.test(run, again=True)
    assert (again.opened, opened(run)) == (2, 2)
    assert first is not None
    assert {**again.to_dict(), "opened": 1} == first.to_dict()
    assert hf.test(run).opened == 2


def test_other_weights_are_a_new_opening(run: hf.Run) -> None:
    hf.resume(run, epochs=2)
    result = hf.test(run)
    assert (result.opened, result.epoch) == (2, 2)
    assert hf.test(run).opened == 2


@pytest.mark.parametrize("name", ["test.json", "answers.npz", "shown.npz"])
def test_an_incomplete_result_is_measured_again(name: str, run: hf.Run) -> None:
    (run.path / name).unlink()
    assert hf.test(run).opened == 2
    assert (run.path / name).exists()


def test_a_damaged_result_is_measured_again(run: hf.Run) -> None:
    path = run.path / "test.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    assert hf.test(run).opened == 2


def test_a_missing_figure_is_drawn_without_opening_the_split(run: hf.Run) -> None:
    path = run.path / "figures" / "confusion.png"
    before = path.read_bytes()
    path.unlink()
    assert hf.test(run).opened == 1
    assert path.read_bytes() == before


def test_other_test_images_are_a_new_opening(tmp_path: Path) -> None:
    """Imported weights get their split from the images of their first test."""
    model = hf.Run.open(hf.train("digits", QUICK, run=tmp_path / "a").path).load_best()[0]
    torch.save(model.network.state_dict(), tmp_path / "w.pt")
    run = tmp_path / "imported"
    assert cli("import", "digits", tmp_path / "w.pt", "--run", run).status == 0
    digits = hf.load("digits")
    assert hf.test(run, pictures=digits).opened == 1
    assert hf.test(run, pictures=digits).opened == 1
    inverted = hf.Pictures(
        255 - digits.pictures_NCHW, digits.labels_N, digits.classes, "digits", differs=""
    )
    with pytest.raises(hf.HydrofoilError, match="not the images"):
        hf.test(run, pictures=inverted)
    (run / "split.npz").unlink()
    assert hf.test(run, pictures=inverted).opened == 2


def test_a_network_whose_code_is_unknown_is_tested_again(tmp_path: Path) -> None:
    """Its weights may be the same and its forward pass another one."""
    names: dict[str, Any] = {"torch": torch}
    layers = "torch.nn.Flatten(), torch.nn.Linear(64, 10)"
    code = f"class Net(torch.nn.Sequential):\n def __init__(self): super().__init__({layers})"
    exec(code, names)
    run = hf.train("digits", QUICK, run=tmp_path / "own", model=names["Net"], test=True)
    assert hf.test(run, model=names["Net"]).opened == 2


def test_the_command_line_says_that_the_result_is_stored(run: hf.Run) -> None:
    told = cli("test", run.path)
    assert told.status == 0
    assert "stored result of 20" in told.out
    assert "opened once" in told.out
    told = cli("test", run.path, "--again")
    assert "stored result" not in told.out
    assert "opened its test split 2 times" in told.out
    assert "opened 2 times" in cli("test", run.path).out
