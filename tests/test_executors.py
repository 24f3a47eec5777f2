"""Who runs the steps: what is asked for, what pays, what takes over, and that all agree.

Axes: N pictures.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from hydrofoil import (
    Classifier,
    HydrofoilError,
    Pictures,
    Run,
    State,
    build,
    draw_split,
    fit,
    load,
    prepare,
    read_recipe,
)
from hydrofoil.cli.main import main
from hydrofoil.data.batches import epoch_order
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.train import executors
from hydrofoil.train.compiled import Compiled
from hydrofoil.train.costs import Costs
from hydrofoil.train.graph import Graph
from hydrofoil.train.optimizers import build_optimizer
from hydrofoil.train.step import Eager
from tests.conftest import REAL_RECIPES


def parts(name: str, *overrides: str) -> Any:
    recipe = read_recipe(name, overrides)
    pictures = load(recipe.data.source)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    return model, pictures, split, recipe, State.fresh(model, recipe)


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was measured or built here before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return tmp_path / "own"


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("own_caches")
def test_auto_takes_native_where_the_steps_pay_for_it_and_eager_where_they_do_not() -> None:
    model, _, _, recipe, state = parts("mnist-cnn")
    costs = Costs(model, state.optimizer, 64)
    costs.note("eager", 0.010)
    costs.note("native", 0.001)
    few = executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 300)
    many = executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 400)
    assert (few.names[0], many.names[0]) == ("eager", "native")  # 9 ms × 333 is what building costs
    assert many.line == (
        "executor: native, 400 steps of 10 ms by eager, 1 by native: "
        "3.6 s to save for 3 s of preparing"
    )


@pytest.mark.usefixtures("own_caches")
def test_native_that_is_built_already_pays_sooner() -> None:
    model, pictures, split, recipe, state = parts("mnist-cnn", "train.execute=native")
    prepare(model, pictures, split, recipe, state)
    costs = Costs(model, state.optimizer, 64)
    costs.note("eager", 0.010)
    costs.note("native", 0.001)
    assert executors.choose(model, state.optimizer, "auto", 64, 300).names[0] == "native"
    assert executors.choose(model, state.optimizer, "auto", 64, 20).names[0] == "eager"


@pytest.mark.usefixtures("own_caches")
def test_building_is_taken_to_last_as_it_last_did_here() -> None:
    model, _, _, recipe, state = parts("mnist-cnn")
    costs = Costs(model, state.optimizer, 64)
    costs.note("eager", 0.010)
    costs.note("native", 0.001)
    Costs.of_machine().note("building native", 60.0)
    assert (
        executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 6_000).names[0]
        == "eager"
    )
    assert (
        executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 7_000).names[0]
        == "native"
    )
    prepare(*parts("digits", "train.execute=native"))
    assert 0 < (Costs.of_machine().get("building native") or 0) < 60


@pytest.mark.usefixtures("own_caches")
def test_a_bound_decides_only_what_it_can() -> None:
    # mnist-mlp's native steps take longer than the 0.3 ms that any eager step of it takes at least.
    model, _, _, recipe, state = parts("mnist-mlp", "train.epochs=50000")
    bounded = executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 120_000)
    assert bounded.names[0] == "native"
    assert "0.3 ms at least by eager" in bounded.line
    assert Costs(model, state.optimizer, 20).get("eager") is None
    Costs(model, state.optimizer, 20).note("native", 0.0004)
    measured = executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 120_000)
    eager = Costs(model, state.optimizer, 20).get("eager")
    assert eager
    assert measured.names[0] == ("native" if 120_000 * (eager - 0.0004) > 3 else "eager")


@pytest.mark.usefixtures("own_caches")
def test_what_was_never_measured_is_measured_without_a_trace() -> None:
    model, _, _, recipe, state = parts("cifar10-cnn3")
    before = model.weights_hash()
    choice = executors.choose(model, state.optimizer, "auto", recipe.train.batch_size, 10)
    assert choice.names[0] == "eager"
    assert Costs(model, state.optimizer, 20).get("eager")
    assert model.weights_hash() == before
    assert not state.optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"eager": "x"}', '{"eager": -1}', "{}"])
def test_a_note_that_is_broken_is_a_note_that_is_not_there(own_caches: Path, content: str) -> None:
    model, _, _, _, state = parts("digits")
    costs = Costs(model, state.optimizer, 32)
    costs.note("eager", 0.5)
    assert Costs(model, state.optimizer, 32).get("eager") == 0.5
    costs.path.write_text(content)
    assert Costs(model, state.optimizer, 32).get("eager") is None
    assert Costs(model, state.optimizer, 33).get("eager") is None


def test_a_cache_that_cannot_be_written_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model, pictures, split, recipe, state = parts("digits", "train.execute=native")
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.executor.name == "native"
    assert "the code is compiled in every run" in prepared.line


# ── what takes over ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_native_takes_over_from_graph() -> None:
    model, pictures, split, recipe, state = parts("digits", "train.execute=graph")
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.executor.name == state.executor == "native"
    assert prepared.line == "executor: native, takes over; graph: needs a CUDA device"


def test_a_layer_without_native_code_leaves_the_steps_to_eager() -> None:
    _, pictures, split, recipe, _ = parts("digits", "train.epochs=1")
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(144, 10))
    model = Classifier(network, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.line.count("\n") == 0
    assert prepared.line.startswith("executor: eager, ")
    assert prepared.line.endswith("native: 1: no native code for PReLU")
    (epoch,) = fit(model, pictures, split, recipe, state=state, executor=prepared.executor)
    assert epoch.train.count == len(split.train)


def test_no_compiler_leaves_the_steps_to_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydrofoil.native.build.shutil.which", lambda _: None)
    executors.compiler.cache_clear()
    try:
        model, pictures, split, recipe, state = parts("digits", "train.execute=native")
        line = prepare(model, pictures, split, recipe, state).line
    finally:
        executors.compiler.cache_clear()
    assert line == "executor: eager, takes over; native: no C compiler (cc, gcc or clang)"


def test_an_executor_that_is_none_is_named() -> None:
    model, pictures, split, recipe, state = parts("digits")
    with pytest.raises(HydrofoilError, match="'fast': expected auto, graph, native"):
        prepare(model, pictures, split, recipe, state, execute="fast")


# ── they agree ───────────────────────────────────────────────────────────────────────────────────


class Recorded(Graph):
    """A graph whose replay is the captured function itself: all but CUDA's own part."""

    stride = 4

    def _capture(self, work: Callable[[], None]) -> Callable[[], None]:
        work()  # as warming up does, it may leave no trace
        return work


@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_what_a_graph_captures_is_eagers_step_to_the_last_bit(name: str) -> None:
    hashes: list[str] = []
    totals: list[Any] = []
    for kind in (Eager, Recorded):
        model, pictures, split, recipe, state = parts(name)
        batch = recipe.train.batch_size
        executor = kind(model.train(), state.optimizer, pictures, batch_size=batch, seed=3)
        sums = Sums(model.device)
        for epoch in (1, 2):
            order_N = epoch_order(split.train, 0, epoch)[: 9 * batch - 1]  # a smaller last batch
            executor.train_steps(order_N, epoch, 1, sums)
        hashes.append(model.weights_hash())
        totals.append(sums.read())
    assert hashes[0] == hashes[1]
    assert totals[0].right == totals[1].right
    assert totals[0].count == totals[1].count == 2 * (9 * batch - 1)
    assert totals[0].loss == pytest.approx(totals[1].loss, rel=1e-12)


def test_another_learning_rate_is_captured_anew() -> None:
    model, pictures, split, recipe, state = parts("digits")
    graph = Recorded(model, state.optimizer, pictures, batch_size=recipe.train.batch_size)
    captured = [graph._replay]
    for rate in (0.02, 0.02, 0.01):
        state.optimizer.param_groups[0]["lr"] = rate
        graph.train_steps(split.train[:64], 1, 1, Sums(model.device))
        captured.append(graph._replay)
    assert captured[0] == captured[1] == captured[2]
    assert graph._rates[0]["lr"] == 0.01


@pytest.mark.parametrize("execute", ["auto", "eager", "native"])
def test_a_batch_may_be_larger_than_the_set(execute: str) -> None:
    overrides = ("train.batch_size=1000000000", "train.epochs=1", f"train.execute={execute}")
    model, pictures, split, recipe, state = parts("digits", *overrides)
    (epoch,) = fit(model, pictures, split, recipe, state=state)
    assert epoch.train.count == len(split.train)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cifar10-lenet", "cifar10-cnn3"])
def test_compiled_steps_are_eagers_but_for_rounding(name: str) -> None:
    scores: list[Any] = []
    for kind in (Eager, Compiled):
        model, pictures, split, recipe, state = parts(name)
        batch = recipe.train.batch_size
        executor = kind(model.train(), state.optimizer, pictures, batch_size=batch, seed=3)
        sums = Sums(model.device)
        executor.train_steps(epoch_order(split.train, 0, 1)[: 11 * batch - 1], 1, 1, sums)
        scores.append(sums.read())
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-5)
    assert scores[0].count == scores[1].count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_the_same_for_eager_and_native(smoothing: float) -> None:
    losses: list[float] = []
    for execute in ("eager", "native"):
        overrides = ("train.epochs=2", f"train.label_smoothing={smoothing}")
        model, pictures, split, recipe, _ = parts("digits", *overrides, f"train.execute={execute}")
        losses.append(list(fit(model, pictures, split, recipe))[-1].train.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_smoothed_labels_give_another_training_but_the_same_kind_of_validation_loss() -> None:
    # torch's own definition, by hand: the validation loss is never smoothed.
    model, pictures, split, recipe, _ = parts(
        "digits", "train.epochs=1", "train.label_smoothing=0.2", "train.execute=eager"
    )
    (epoch,) = fit(model, pictures, split, recipe)
    logits_NK = model.eval()(pictures.pictures_NCHW[split.valid])
    loss = nn.functional.cross_entropy(logits_NK, pictures.labels_N[split.valid])
    assert epoch.valid is not None
    assert epoch.valid.loss == pytest.approx(loss.item(), rel=1e-5)


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def same_tensors(first: str, second: str) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_says_and_keeps_who_ran_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run_command("train", "digits", "train.epochs=2", "train.execute=native", "--run", "r") == 0
    )
    assert "executor: native, as asked for\n" in capsys.readouterr().out
    (event,) = [e for e in Run.open("r").log.events() if e["event"] == "executor"]
    assert event["name"] == "native"
    assert event["threads"] >= 1
    with safe_open("r/last.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["numbers"])["executor"] == "native"


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_stopped_run_goes_on_with_its_own_executor_to_the_same_bits(execute: str) -> None:
    asked = f"train.execute={execute}"
    other = f"train.execute={'native' if execute == 'eager' else 'eager'}"
    assert run_command("train", "digits", "train.epochs=4", asked, "--run", "whole") == 0
    assert run_command("train", "digits", "train.epochs=1", other, "--run", "cut") == 0
    assert run_command("train", "digits", "train.epochs=1", asked, "--run", "whole-1") == 0
    for name in ("last.safetensors", "best.safetensors", "manifest.json", "log.jsonl"):
        Path("cut", name).write_bytes(Path("whole-1", name).read_bytes())
    Path("cut/manifest.json").unlink()  # its recipe names the other executor
    assert run_command("resume", "cut", "train.epochs=4") == 0
    whole, cut = (Run.open(name) for name in ("whole", "cut"))
    names = [event["name"] for event in cut.log.events() if event["event"] == "executor"]
    assert names == [execute, execute]
    assert same_tensors("whole/last.safetensors", "cut/last.safetensors")
    assert whole.epochs()[-1]["train"] == cut.epochs()[-1]["train"]


def test_a_run_can_be_gone_on_with_by_another_executor() -> None:
    assert (
        run_command("train", "digits", "train.epochs=2", "train.execute=native", "--run", "r") == 0
    )
    assert run_command("resume", "r", "train.epochs=3", "--execute", "eager") == 0
    names = [e["name"] for e in Run.open("r").log.events() if e["event"] == "executor"]
    assert names == ["native", "eager"]
    losses = [epoch["train"]["loss"] for epoch in Run.open("r").epochs()]
    assert losses == sorted(losses, reverse=True)


def test_the_running_loss_is_told_where_asked_for_whoever_runs_the_steps() -> None:
    for execute in ("eager", "native"):
        arguments = ("train.epochs=2", f"train.execute={execute}", "train.log_every=15")
        assert run_command("train", "digits", *arguments, "--run", execute) == 0
    told = [
        [
            (e["epoch"], e["step"], e["loss"])
            for e in Run.open(name).log.events()
            if e["event"] == "loss"
        ]
        for name in ("eager", "native")
    ]
    assert [one[:2] for one in told[0]] == [(1, 15), (1, 30), (2, 15), (2, 30)]
    assert [one[:2] for one in told[1]] == [one[:2] for one in told[0]]
    assert [one[2] for one in told[0]] == pytest.approx([one[2] for one in told[1]], rel=1e-3)


def test_ctrl_c_between_native_calls_keeps_the_whole_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = executors.Native.train_steps

    def interrupted(self: Any, index_N: torch.Tensor, epoch: int, step: int, sums: Any) -> None:
        steps(self, index_N, epoch, step, sums)
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(executors.Native, "train_steps", interrupted)
        asked = ("train.epochs=4", "train.execute=native")
        assert run_command("train", "digits", *asked, "--run", "r") == 130
    assert run_command("resume", "r") == 0
    assert (
        run_command("train", "digits", "train.epochs=4", "train.execute=native", "--run", "s") == 0
    )
    assert same_tensors("r/last.safetensors", "s/last.safetensors")


def test_show_tells_who_would_run_a_recipe_and_prints_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command("show", "cifar10-lenet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["executor"].startswith(
        "executor: native, 25,000 steps"
    )
    assert run_command("show", "cifar10-lenet", "--code") == 0
    code = capsys.readouterr().out
    assert "conv2: Conv 6×14×14 -> 16×5×5, 5×5, ReLU, max-pooling" in code
    assert "static void conv2_back(" in code
    assert "int run(Job *job)" in code


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the process has loaded")
@pytest.mark.usefixtures("own_caches")
def test_a_native_run_does_not_load_torchs_compiler() -> None:
    # Its import would cost more than many a training.
    import subprocess

    code = (
        "import sys\nfrom hydrofoil.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as left: print(left.code)\n"
        "print(*(name in sys.modules for name in ('torch._dynamo', 'sklearn', 'torchvision')))"
    )
    for run, execute in (("cold", "native"), ("warm", "native"), ("auto", "auto")):
        given = ["train", "digits", f"train.execute={execute}", "--test", "--run", run]
        command = [sys.executable, "-c", code, *given]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # On a busy machine `auto` may take eager steps, which load that compiler by themselves.
        if "executor: native" in done.stdout or execute == "native":
            assert done.stdout.splitlines()[-2:] == ["0", "False False False"]


def test_a_set_may_have_fewer_pictures_than_a_batch() -> None:
    _, pictures, _, recipe, _ = parts("digits", "train.epochs=2")
    few = Pictures(pictures.pictures_NCHW[:20], pictures.labels_N[:20], pictures.classes, "few")
    split = draw_split(few, valid=0.2, test=0.2)
    for kind in (Eager, executors.Native, Recorded):
        model = build(recipe, few.shape, few.classes).train()
        optimizer = build_optimizer(recipe.optimizer, model.network)
        executor = kind(model, optimizer, few, batch_size=32)
        sums = Sums(model.device)
        executor.train_steps(split.train, 1, 1, sums)
        assert sums.read().count == len(split.train)
