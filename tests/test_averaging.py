"""Test-time augmentation: averaged over copies, and reported beside the plain figure.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

import hydrofoil as hf
from hydrofoil.evaluate.averaging import averaged_logits
from hydrofoil.report.page import run_page
from hydrofoil.report.text import test_lines as lines_of
from tests.conftest import Cli


def literally(model: hf.Classifier, pictures_NCHW: Tensor) -> Tensor:
    """Return airbench's `infer_mirror_translate`, written out."""

    def mirror(inputs_NCHW: Tensor) -> Tensor:
        return 0.5 * model(inputs_NCHW) + 0.5 * model(inputs_NCHW.flip(-1))

    model.eval()
    height, width = pictures_NCHW.shape[2:]
    padded = pad(pictures_NCHW.float(), (1,) * 4, "reflect").to(torch.uint8)
    moved = [padded[:, :, 0:height, 0:width], padded[:, :, 2 : height + 2, 2 : width + 2]]
    return 0.5 * mirror(pictures_NCHW) + 0.5 * torch.stack([mirror(m) for m in moved]).mean(0)


@torch.no_grad()
def test_logits_are_averaged_as_airbench_does() -> None:
    pictures = hf.load("digits")
    model = hf.build("digits", pictures.shape, pictures.classes)
    index_N = torch.arange(3, 600)
    plain_NCHW = pictures.pictures_NCHW[index_N]
    got_NK = averaged_logits(model, pictures, index_N, "flip-shift")
    assert got_NK is not None
    assert torch.allclose(got_NK, literally(model, plain_NCHW), atol=1e-5)
    flip_NK = averaged_logits(model, pictures, index_N, "flip")
    assert flip_NK is not None
    assert torch.allclose(flip_NK, (model(plain_NCHW) + model(plain_NCHW.flip(3))) / 2, atol=1e-5)
    assert averaged_logits(model, pictures, index_N, "none") is None


def test_it_stands_beside_the_plain_figure_which_it_does_not_change(
    tmp_path: Path, cli: Cli
) -> None:
    runs = [hf.train("digits", epochs=12, shift=1, run=tmp_path / kind, test_time=kind, test=True)
            for kind in ("none", "flip-shift")]  # fmt: skip
    plain, beside = (run.results.test() for run in runs)
    assert plain is not None and beside is not None  # noqa: PT018 - for the type
    assert plain.test_time is None
    same = {"correct", "loss", "confusion", "calibration", "examples", "weights"}
    assert plain.model_dump(include=same) == beside.model_dump(include=same)
    found = beside.test_time
    assert found is not None
    assert found.correct == beside.correct + found.gained - found.lost
    answers = runs[1].results.answers()["test"]
    averaged_NK = averaged_logits(runs[1].model, hf.load("digits"), answers.index_N, "flip-shift")
    assert averaged_NK is not None
    assert int((averaged_NK.argmax(1) == answers.labels_N).sum()) == found.correct
    text = lines_of(beside, full=False)
    assert text.startswith(f"test accuracy {100 * beside.accuracy:.2f}%")
    copies = "flip-shift: logits averaged over mirrored and shifted copies"
    said = f"with test-time augmentation ({copies}) {100 * found.accuracy:.2f}%"
    assert said in text
    assert "test-time" not in lines_of(plain, full=False)
    page = run_page(runs[1].path).decode()
    assert "With test-time augmentation (flip-shift" in page
    assert "test-time" not in run_page(runs[0].path).decode()
    assert "test-time augmentation" in beside._repr_html_()
    status, printed = cli("test", runs[1].path, "--json")[:2]
    assert status == 0, printed
