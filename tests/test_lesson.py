"""The lesson: it runs as it stands, and shows what its text says."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import hydrofoil as hf

LESSON = Path(__file__).parents[1] / "docs" / "lesson.ipynb"


def gap(run: hf.Run) -> float:
    last = run.epochs()[-1]
    assert last.valid is not None
    return last.train.accuracy - last.valid.accuracy


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The lesson, executed in an empty folder."""
    folder = tmp_path_factory.mktemp("lesson")
    notebook = nbformat.read(LESSON, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(LESSON.parents[1]))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
        ).execute()
    return notebook, folder / "lesson"


def test_the_lesson_is_committed_small_and_without_outputs() -> None:
    assert LESSON.stat().st_size < 300_000
    notebook = nbformat.read(LESSON, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    assert all(len(cell.source.splitlines()) <= 10 for cell in code)


def test_each_experiment_asks_a_question() -> None:
    cells = nbformat.read(LESSON, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    experiments = text.split("\n## ")[1:]
    assert len(experiments) == 4
    assert all("**Question:**" in experiment for experiment in experiments)


def test_a_hundred_images_overfit_more_than_all_of_them(lesson: Any) -> None:
    _, runs = lesson
    small, large = (hf.Run.open(runs / name) for name in ("small", "large"))
    assert len(small.split().train) == 100
    assert gap(small) > gap(large) + 0.05
    assert small.epochs()[-1].train.accuracy > 0.98


def test_dropout_raises_the_training_loss_of_the_lesson(lesson: Any) -> None:
    _, runs = lesson
    without, with_dropout = (hf.Run.open(runs / f"dropout-{share}") for share in (0.0, 0.5))
    assert with_dropout.epochs()[-1].train.loss > without.epochs()[-1].train.loss


def test_the_best_epoch_of_a_hundred_images_comes_long_before_the_last(lesson: Any) -> None:
    _, runs = lesson
    losses = [
        epoch.valid.loss for epoch in hf.Run.open(runs / "small").epochs() if epoch.valid
    ]  # fmt: skip
    assert losses.index(min(losses)) < 100
    assert losses[-1] > min(losses)


def test_the_learning_rates_of_the_lesson_are_too_small_fair_and_too_large(lesson: Any) -> None:
    notebook, runs = lesson
    accuracies = [
        last.accuracy
        for lr in (0.0001, 0.001, 0.02, 1.0)
        if (last := hf.Run.open(runs / f"lr-{lr}").epochs()[-1].valid)
    ]
    assert accuracies[0] < accuracies[1] < accuracies[2]
    assert accuracies[3] < accuracies[0]
    streams = [
        out.text for cell in notebook.cells for out in cell.get("outputs", []) if "text" in out
    ]
    assert "lr 1.0: training" in "".join(streams)


def test_the_cells_of_the_lesson_show_figures_and_tables(lesson: Any) -> None:
    notebook, _ = lesson
    shown = [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    assert sum(html.count("<svg") for html in shown) >= 8
    assert sum("best weights" in html for html in shown) >= 5
    assert sum(len(html) for html in shown) < 300_000
