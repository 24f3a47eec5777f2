"""What only a CUDA device can show: run with -m gpu."""

import json
from pathlib import Path

import pytest
import torch

from hydrofoil import Run, State, build, draw_split, fit, load, read_recipe, score
from hydrofoil.cli import main
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import key_dropout
from hydrofoil.randomness import uniform_bits
from hydrofoil.timing import Stopwatch
from hydrofoil.train.step import train_step
from tests.conftest import REAL_RECIPES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def test_masks_are_the_same_on_every_device() -> None:
    for draw in (0, 1, (1 << 63) - 1, 0x9E3779B97F4A7C15 >> 1):
        assert torch.equal(
            uniform_bits(draw, 100_003, CUDA).cpu(), uniform_bits(draw, 100_003, CPU)
        )


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_an_epoch_on_the_gpu_is_the_cpus_epoch_but_for_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = read_recipe(name, ["train.epochs=1"])
    pictures = load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    losses = []
    for device in (CPU, CUDA):
        model = build(recipe, pictures.shape, pictures.classes).to(device)
        (epoch,) = fit(model, pictures, split, recipe)
        losses.append((epoch.train.loss, score(model, pictures, split.test).loss))
        assert epoch.train_seconds > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_command_line_trains_tests_and_predicts_on_the_gpu() -> None:
    for arguments in (
        ["train", "digits", "train.epochs=3", "--device", "cuda", "--run", "r", "--test"],
        ["test", "r", "--device", "cuda:0"],
        ["test", "r", "--device", "cpu"],
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
    assert json.loads(Path("r/test.json").read_text())["opened"] == 3
    assert Run.open("r").environment()["device_name"] == torch.cuda.get_device_name()


def test_a_step_never_waits_for_the_device() -> None:
    recipe = read_recipe("cifar10-cnn3", ["train.epochs=1"])
    pictures = load("cifar10").to(CUDA)
    model = build(recipe, pictures.shape, pictures.classes).to(CUDA).train()
    optimizer, sums = State.fresh(model, recipe).optimizer, Sums(CUDA)
    index_N = torch.arange(20, device=CUDA)
    for step in (1, 2, 3):  # the first prepares what later ones reuse
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            key_dropout(model.network, 0, 1, step)
            batch = pictures.pictures_NCHW[index_N], pictures.labels_N[index_N]
            train_step(model, optimizer, *batch, sums)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sums.read().count == 60


def test_seconds_are_the_devices_own() -> None:
    clock = Stopwatch(CUDA)
    torch.cuda._sleep(50_000_000)
    assert clock.seconds() > 0.005
