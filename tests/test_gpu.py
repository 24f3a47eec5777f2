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
from hydrofoil.device import exact
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import dropouts
from hydrofoil.randomness import uniform_bits
from hydrofoil.report.explain import explain
from hydrofoil.timing import Stopwatch
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.executors.graph import Graph
from hydrofoil.train.feed import make_feed
from hydrofoil.train.options import StepOptions
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
        ["test", "r", "--again", "--device", "cuda:0"],
        ["test", "r", "--again", "--device", "cpu"],
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
    assert json.loads(Path("r/test.json").read_text())["opened"] == 3
    assert Run.open("r").environment()["device_name"] == torch.cuda.get_device_name()


def side(kind: Any, name: str, *overrides: str) -> Any:
    """Return an executor of a recipe on the GPU, a feed's maker, and what it trains."""
    recipe = read_recipe(name, ["train.epochs=2", *overrides])
    pictures = load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes).to(CUDA).train()
    state, batch = State.fresh(model, recipe), recipe.train.batch_size
    executor = kind(
        model, state.optimizer, pictures.to(CUDA), batch_size=batch,
        options=StepOptions(
            0.1, torch.arange(1.0, 11) if recipe.train.balance == "loss" else None
        ),
    )  # fmt: skip
    layers = len(dropouts(model.network))

    def feed(epoch: int) -> Any:
        return make_feed(recipe, split.train[: 9 * batch - 1], pictures.labels_N, epoch, layers).to(
            CUDA
        )

    return executor, feed, model, state


@pytest.mark.parametrize("execute", ["eager", "graph"])
def test_windows_on_the_gpu_are_bit_identical_to_a_set_that_lies_there(execute: str) -> None:
    pictures, ends = load("digits"), set[tuple[str, float]]()
    for resident in ("true", "false"):
        changes = ["train.epochs=2", "data.window=100", f"data.resident={resident}"]
        recipe = read_recipe("digits", [*changes, f"train.execute={execute}"])
        split = draw_split(pictures, valid=0.3)
        model = build(recipe, pictures.shape, pictures.classes).to(CUDA)
        *_, last = fit(model, pictures, split, recipe)
        assert last.valid is not None
        ends.add((model.weights_hash(), last.valid.loss))
    assert len(ends) == 1


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch's word on a prototype
@pytest.mark.parametrize("kind", [Eager, Graph])
@pytest.mark.parametrize("name", ["cifar10-cnn3", "mnist-cnn"])  # dropout; Adam
def test_a_step_never_waits_for_the_device(name: str, kind: Any) -> None:
    executor, feed, *_ = side(kind, name)
    sums, epoch = Sums(CUDA), feed(1)
    for step in range(3):  # the first prepares what later ones reuse
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            executor.train_steps(epoch, step, step + 1, sums)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sums.read().count == 3 * epoch.batch_size


def tensors_of(model: Any, state: State) -> dict[str, torch.Tensor]:
    tensors = state.tensors(model)
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "overrides",
    [(), ("schedule.name=cosine",), ("train.balance=loss",), ("train.balance=sampling",)],
    ids=["constant", "cosine", "weighted", "sampled"],
)
@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_graphs_take_eagers_steps(name: str, overrides: tuple[str, ...]) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for kind in (Eager, Graph):
        with exact(CUDA, 1):
            executor, feed, model, state = side(kind, name, *overrides)
            sums = Sums(CUDA)
            for epoch in (1, 2):
                table = feed(epoch)
                executor.train_steps(table, 0, table.steps, sums)
        found.append(tensors_of(model, state))
        assert sums.count == 2 * len(table.order_N)
    assert found[0].keys() == found[1].keys()
    for tensor_name, expected in found[0].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            found[1][tensor_name], expected, rtol=0, atol=1e-5 * scale + 1e-12,
            msg=lambda m, n=tensor_name: f"{n}: {m}",
        )  # fmt: skip


def test_a_run_by_graph_is_resumed_and_proved() -> None:
    for arguments, expected in (
        (["train", "digits", "train.epochs=2", "--device", "cuda", "--run", "r"], 0),
        (["resume", "r", "--prove"], 0),
        (["resume", "r", "train.epochs=3"], 0),
        (["resume", "r", "train.epochs=4", "--device", "cpu"], 0),
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == expected, arguments
    assert Run.open("r").recipe.train.execute == "graph"


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
