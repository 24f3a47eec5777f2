"""What only a CUDA device can show: run with -m gpu."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hydrofoil import (
    Run,
    State,
    build,
    draw_split,
    fit,
    grad_cam,
    load,
    occlusion,
    read_recipe,
    score,
)
from hydrofoil.cli.main import main
from hydrofoil.data.batches import epoch_order
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.randomness import uniform_bits
from hydrofoil.report.explain import explain
from hydrofoil.timing import Stopwatch
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph
from tests.conftest import REAL_RECIPES
from tests.feeds import take_steps

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


@pytest.mark.parametrize("kind", [Eager, Graph])
@pytest.mark.parametrize("name", ["cifar10-cnn3", "mnist-cnn"])  # dropout; Adam
def test_a_step_never_waits_for_the_device(name: str, kind: Any) -> None:
    recipe = read_recipe(name, ["train.epochs=1"])
    pictures = load(recipe.data.source).to(CUDA)
    model = build(recipe, pictures.shape, pictures.classes).to(CUDA).train()
    optimizer, sums = State.fresh(model, recipe).optimizer, Sums(CUDA)
    executor = kind(model, optimizer, pictures, batch_size=20)
    index_N = torch.arange(20, device=CUDA)
    for step in (1, 2, 3):  # the first prepares what later ones reuse
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            take_steps(executor, index_N, 1, step, sums)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sums.read().count == 60


@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_graphs_take_eagers_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = read_recipe(name)
    pictures = load(recipe.data.source).to(CUDA)
    split = draw_split(pictures, **recipe.split_options())
    batch = recipe.train.batch_size
    losses: list[float] = []
    for kind in (Eager, Graph):
        model = build(recipe, pictures.shape, pictures.classes).to(CUDA).train()
        optimizer = State.fresh(model, recipe).optimizer
        executor = kind(model, optimizer, pictures, batch_size=batch, label_smoothing=0.1)
        sums = Sums(CUDA)
        for epoch in (1, 2):
            order_N = epoch_order(split.train, 0, epoch)[: 9 * batch - 1].to(CUDA)
            take_steps(executor, order_N, epoch, 1, sums)
        losses.append(sums.read().loss)
        assert sums.count == 2 * (9 * batch - 1)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_seconds_are_the_devices_own() -> None:
    clock = Stopwatch(CUDA)
    torch.cuda._sleep(50_000_000)
    assert clock.seconds() > 0.005


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_gpu_explains_as_the_cpu_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = read_recipe(name)
    pictures = load(recipe.data.source)
    model = build(recipe, pictures.shape, pictures.classes)
    first_NCHW = pictures.pictures_NCHW[:3]
    drops, heats = [], []
    for device in (CPU, CUDA):
        one = model.to(device)
        drops.append(occlusion(one, first_NCHW[0].to(device), 0).drops_HW)
        assert explain(one, first_NCHW[0]).png
        if name != "mnist-mlp":
            heats.append(grad_cam(one, first_NCHW, torch.tensor([0, 1, 2])).heat_NHW.cpu())
    for of_cpu, of_gpu in filter(None, (drops, heats)):
        torch.testing.assert_close(of_gpu, of_cpu, rtol=1e-3, atol=1e-4)
