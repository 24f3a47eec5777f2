"""Runs by name: a path, digits-1, last."""

from pathlib import Path

import pytest

from hydrofoil import HydrofoilError, Run, train
from hydrofoil.cli.main import main
from hydrofoil.run.find import run_path
from hydrofoil.run.listing import list_runs


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        train("digits", ["epochs=1", "lr=0.05"], seed=number)
    train("digits", ["epochs=1"], run="runs/compare/only-there")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "recipe.toml").write_text("no TOML")
    return tmp_path


def test_runs_are_found_by_name_and_listed(made: Path) -> None:
    assert Run.open("digits-1").path == Path("runs/digits-1")
    assert run_path("only-there") == Path("runs/compare/only-there")
    assert run_path("last") == Path("runs/broken")  # the newest, whatever is wrong with it
    assert run_path(made / "runs") == made / "runs"
    with pytest.raises(HydrofoilError, match=r"Did you mean runs/digits-1"):
        Run.open("digit-1")
    listed = {one.path.name: one for one in list_runs(Path("runs"))}
    assert listed["digits-1"].changed == {"train.epochs": 1, "train.seed": 1, "optimizer.lr": 0.05}
    assert (listed["digits-1"].epochs, listed["digits-1"].state) == (1, "finished")
    assert listed["digits-1"].valid == Run.open("digits-1").epochs()[-1].valid.accuracy  # type: ignore[union-attr]
    assert listed["broken"].state.startswith("damaged: recipe.toml: not TOML")
    with pytest.raises(HydrofoilError, match="no such folder"):
        list_runs(made / "none")


def test_a_run_that_diverged_is_called_so_and_not_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HydrofoilError, match="learning rate"):
        train("digits", ["lr=100", "epochs=2"])
    (listed,) = list_runs(Path("runs"))
    assert listed.state == "diverged"
    with pytest.raises(SystemExit):
        main(["show", "last"])
    shown = capsys.readouterr().out
    assert "resuming would stop there again" in " ".join(shown.split())
    assert "hydrofoil resume" not in shown
