"""A notebook: a table while it trains, and images, runs and results that display themselves."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import hydrofoil as hf
from hydrofoil.evaluate.metrics import Scores
from hydrofoil.observe.notebook import bar_html, in_notebook, shown_epochs

CELLS = [
    "import hydrofoil as hf\npictures = hf.load('digits')\npictures",
    "run = hf.train('digits', ['train.epochs=3', 'train.execute=eager'])",
    "run",
    "result = hf.test(run)\nresult",
    "import os, signal\n"
    "class Stop(hf.Observer):\n"
    "    def epoch(self, epoch):\n"
    "        os.kill(os.getpid(), signal.SIGINT)\n"
    "hf.train('digits', ['train.epochs=3', 'train.execute=eager'], run='b', observers=[Stop()])",
    "compared = hf.compare('digits', 'b.lr=0.1', epochs=1, train=64, seeds=2)",
]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cells, executed by a Jupyter kernel of this very interpreter."""
    folder = tmp_path_factory.mktemp("notebook")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("OMP_NUM_THREADS", "1")
        client = NotebookClient(
            made, timeout=60, allow_errors=True, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
    return made, folder


def html(cell: Any) -> str:
    """Return the one display of a cell."""
    (output,) = [one for one in cell.outputs if "text/html" in one.get("data", {})]
    return output["data"]["text/html"]


def test_images_show_as_a_grid_with_counts(notebook: Any) -> None:
    made, _ = notebook
    shown = html(made.cells[0])
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.width > 12 * 8
    assert image.height > 10 * 8
    assert len(image.convert("RGBA").getcolors()) > 10
    pictures = hf.load("digits")
    assert "1,797 images of 1×8×8" in shown
    counts = [int((pictures.labels_N == k).sum()) for k in range(10)]
    assert [int(found) for found in re.findall(r">(\d{3})</span>", shown)] == counts
    assert len(shown) < 40_000


def test_a_training_shows_one_table_with_a_row_for_each_epoch(notebook: Any) -> None:
    made, folder = notebook
    shown = html(made.cells[1])
    assert '<progress value="3" max="3">' in shown
    assert "best weights: epoch 3" in shown
    assert [one.output_type for one in made.cells[1].outputs] == ["display_data"]
    rows = re.findall(r"<tr[^>]*>(<td>.*?)</tr>", shown)
    found = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    epochs = hf.Run.open(folder / "runs/digits-1").epochs()
    assert found == [
        [
            str(epoch.number),
            f"{epoch.train.loss:.4f}",
            f"{100 * epoch.train.accuracy:.2f}%",
            f"{epoch.valid.loss:.4f}" if epoch.valid else "–",
            f"{100 * epoch.valid.accuracy:.2f}%" if epoch.valid else "–",
            "best" if epoch.number == 3 else "",
        ]
        for epoch in epochs
    ]


def test_a_long_training_keeps_a_short_table_with_the_best_epoch() -> None:
    def epoch(number: int) -> hf.Epoch:
        scores = Scores(1.0, 1, 2)
        return hf.Epoch(
            number=number, train=scores, valid=scores, best=number in (1, 7),
            train_seconds=1.0, valid_seconds=1.0, learning_rate=0.1,
        )  # fmt: skip

    shown = shown_epochs([epoch(number) for number in range(1, 301)])
    assert len(shown) <= 20
    assert [one.number for one in shown][:3] == [1, 7, 283]
    assert shown[-1].number == 300


def test_a_run_shows_its_curves_and_its_state(notebook: Any) -> None:
    made, folder = notebook
    shown = html(made.cells[2])
    assert shown.count("<svg") == shown.count("</svg>") == 2
    assert "digits: 3 of 3 epochs" in shown
    assert "runs/digits-1" in shown
    run = hf.Run.open(folder / "runs/digits-1")
    assert "test accuracy" in run._repr_html_()  # tested since


def test_a_test_result_shows_its_accuracy_and_a_row_for_each_class(notebook: Any) -> None:
    made, folder = notebook
    shown = html(made.cells[3])
    result = hf.Run.open(folder / "runs/digits-1").results.test()
    assert result is not None
    assert f"{100 * result.accuracy:.2f}% of 359, " in shown
    folded = shown[shown.index("<details>") : shown.index("</details>")]
    rows = re.findall(r"<tr><td>(\w+)</td>.*?</tr>", folded)
    assert rows == [one.name for one in result.classes]
    again = result.model_copy(update={"opened": 3})
    assert "opened its test split 3 times" in again._repr_html_()


def test_ctrl_c_in_a_notebook_names_the_run_and_the_kernel_lives(notebook: Any) -> None:
    made, folder = notebook
    (error,) = [one for one in made.cells[4].outputs if one.output_type == "error"]
    assert error.ename == "Stopped"
    assert error.evalue == "stopped after 1 of 3 epochs. Resume with hydrofoil.resume('b')."
    assert "stopped" in html(made.cells[4])
    assert hf.Run.open(folder / "b").checkpoints.epoch() == 1


def test_a_comparison_shows_one_table_for_all_its_trainings(notebook: Any) -> None:
    made, folder = notebook
    cell = made.cells[len(CELLS) - 1]
    assert [one.output_type for one in cell.outputs] == ["display_data"]
    runs = sorted(path.parent for path in folder.glob("runs/compare/**/recipe.toml"))
    assert len(runs) == 4
    assert "best weights: epoch 1" in html(cell)


def test_names_cannot_become_markup() -> None:
    assert "<b>" not in bar_html("<b>", 1, 2, "<b>")
    assert not in_notebook()
