"""A network of the user's own, from `hf.train` to the report, and `show --model-code`.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hydrofoil as hf
from hydrofoil import HydrofoilError
from hydrofoil.cli.main import main
from hydrofoil.report.page import run_page

CPU = torch.device("cpu")
CODE = """
from torch import nn


class FromFile(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Conv2d(shape[0], 4, 3)
        self.output = nn.Linear(4 * 6 * 6, classes)

    def forward(self, images_NCHW):
        return self.output(self.first(images_NCHW).relu().flatten(1))
"""


class MyNet(nn.Module):
    """Two branches, which no nn.Sequential can express."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(shape[0], 6, 5, padding=2)
        self.narrow = nn.Conv2d(shape[0], 6, 3, padding=1)
        self.output = nn.Linear(6 * shape[1] * shape[2], classes)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        both_NCHW = self.wide(images_NCHW) + self.narrow(images_NCHW)
        return self.output(both_NCHW.relu().flatten(1))


class OtherNet(MyNet):
    """The same layers with other code."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_NK."""
        return super().forward(-images_NCHW)


def test_a_network_of_the_users_own_trains_resumes_tests_predicts_and_reports() -> None:
    straight = hf.train("digits", ["train.epochs=3"], model=MyNet, seed=1, run="straight")
    run = hf.train("digits", ["train.epochs=2"], model=MyNet, seed=1, run="own")
    run = hf.resume(run, epochs=3, model=MyNet)
    models = [its.weights.load(CPU, MyNet)[0] for its in (straight, run)]
    assert models[0].weights_hash() == models[1].weights_hash()
    result = hf.test(run, model=MyNet)
    pictures, test = hf.load("digits"), run.split().test
    predictions = hf.predict(models[1], list(pictures.pictures_NCHW[test]))
    labels = [pictures.classes[label] for label in pictures.labels_N[test].tolist()]
    correct = sum(p.label == label for p, label in zip(predictions, labels, strict=True))
    assert correct == result.correct > 0.8 * result.count
    page = run_page(run.path, MyNet)
    assert b"MyNet" in page
    assert "class MyNet" in Path("own/model.py").read_text()


def test_other_code_is_refused_by_its_hash() -> None:
    run = hf.train("digits", ["train.epochs=1"], model=MyNet)
    with pytest.raises(HydrofoilError, match="SHA-256"):
        hf.resume(run, epochs=2, model=OtherNet)
    with pytest.raises(HydrofoilError, match="only on request"):
        hf.test(run.path)  # a run that is opened again needs its code again


def test_show_describes_a_network_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("networks.py").write_text(CODE)
    with pytest.raises(SystemExit) as left:
        main(["show", "digits", "train.epochs=1", "--model-code", "networks.py:FromFile", "--json"])
    assert left.value.code == 0
    content = json.loads(capsys.readouterr().out)
    parameters = {layer["name"]: layer["parameters"] for layer in content["layers"]}
    assert parameters == {"first": 4 * (9 + 1), "output": 10 * (144 + 1)}
    assert content["recipe"]["model"]["code"] == "FromFile"
    with pytest.raises(SystemExit) as left:
        main(["show", "mnist-cnn", "--model-code", "networks.py:FromFile"])
    assert left.value.code == 2
    assert "FromFile" in capsys.readouterr().err  # made for images of 8×8 pixels
