"""Which executor runs the steps: the rule, the fallbacks, and that all agree.

Axes: N pictures.
"""

import json
import shutil
import sys
from dataclasses import replace
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
from hydrofoil.run.events import ExecutorChosen, RunningLoss
from hydrofoil.train import executors
from hydrofoil.train.executors.compiled import Compiled
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.optimizers import build_optimizer
from hydrofoil.train.options import StepOptions
from tests.conftest import REAL_RECIPES
from tests.feeds import take_steps


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


# ── the rule ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("epochs", [1, 100_000])
@pytest.mark.parametrize("name", [*REAL_RECIPES, "digits"])
def test_auto_is_native_on_a_cpu_with_a_compiler_however_long_a_run_is(
    name: str, epochs: int
) -> None:
    model, _, _, recipe, state = parts(name, f"train.epochs={epochs}")
    names, refused, _ = executors.choose(
        model, state.optimizer, "auto", recipe.train.batch_size, StepOptions()
    )
    assert (names, refused) == (["native", "eager"], {})


def test_auto_is_a_graph_on_a_gpu_and_eager_where_neither_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, _, _, _, state = parts("digits")
    for kind, expected in (("cuda", ["graph", "eager"]), ("mps", ["eager"])):
        monkeypatch.setattr(Classifier, "device", torch.device(kind))
        monkeypatch.setattr(executors, "graph_problem", lambda *_: "")
        names, *_ = executors.choose(model, state.optimizer, "auto", 32, StepOptions())
        assert names == expected


def run_of(name: str, *overrides: str) -> tuple[dict[str, torch.Tensor], str, list[Any]]:
    assert run_command("train", "digits", "train.epochs=2", *overrides, "--run", name) == 0
    run = Run.open(name)
    losses = [(epoch.train, epoch.valid) for epoch in run.epochs()]
    return load_file(f"{name}/best.safetensors"), run.recipe.train.execute, losses


@pytest.mark.usefixtures("own_caches")
def test_the_same_command_twice_is_the_same_model_whatever_ran_in_between(
    own_caches: Path,
) -> None:
    first = run_of("first")
    assert first[1] == "native"
    assert run_command("train", "digits", "model.name=cnn", "train.epochs=1", "--run", "other") == 0
    assert (
        run_command("train", "digits", "train.execute=eager", "train.epochs=1", "--run", "e") == 0
    )
    torch.set_num_threads(2)  # as another library may
    second = run_of("second")
    shutil.rmtree(own_caches)
    third = run_of("third")
    again = run_command("train", "first/recipe.toml", "--run", "fourth")
    assert again == 0
    for run in (second, third, (load_file("fourth/best.safetensors"), *first[1:])):
        assert all(torch.equal(run[0][name], tensor) for name, tensor in first[0].items())
        assert run[1:] == first[1:]
    recipes = [Path(name, "recipe.toml").read_text() for name in ("first", "second", "fourth")]
    assert recipes[0] == recipes[1] == recipes[2]


def test_executor_threads_and_precision_are_resolved_into_the_runs_recipe() -> None:
    assert run_command("train", "digits", "train.epochs=1", "--run", "r") == 0
    train = Run.open("r").recipe.train
    assert (train.execute, train.threads, train.precision) == ("native", 1, "float32")
    assert run_command("train", "digits", "train.epochs=1", "train.threads=2", "--run", "s") == 0
    assert Run.open("s").recipe.train.threads == 2
    assert (
        Run.open("s").recipe.hash() == Run.open("r").recipe.hash() == read_recipe("digits").hash()
    )


def test_fit_uses_the_recipes_threads_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("hydrofoil.device.available_threads", lambda: 2)
    used: dict[str, int] = {}
    for name, execute in (("mnist-cnn", "eager"), ("digits", "eager"), ("digits", "native")):
        model, pictures, split, recipe, _ = parts(
            name, "train.epochs=2", f"train.execute={execute}"
        )
        torch.set_num_threads(3)
        few = replace(split, train=split.train[:64])

        def watch(_: Any, at: str = f"{name} {execute}") -> None:
            used[at] = torch.get_num_threads()

        for _ in fit(model, pictures, few, recipe, watch=watch):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3
    assert used == {"mnist-cnn eager": 2, "digits eager": 1, "digits native": 1}


def test_a_cache_that_cannot_be_written_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model, pictures, split, recipe, state = parts("digits", "train.execute=native")
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.executor.name == prepared.recipe.train.execute == "native"
    assert "the code is compiled in every run" in prepared.line


# ── what takes over ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_native_takes_over_from_graph() -> None:
    model, pictures, split, recipe, state = parts("digits", "train.execute=graph")
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.executor.name == state.executor == "native"
    assert prepared.line == (
        "executor: native, 1 thread; graph is not available: needs a CUDA device"
    )


def test_a_layer_without_native_code_leaves_the_steps_to_eager() -> None:
    _, pictures, split, recipe, _ = parts("digits", "train.epochs=1")
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(144, 10))
    model = Classifier(network, pictures.shape, pictures.classes)
    state = State.fresh(model, recipe)
    prepared = prepare(model, pictures, split, recipe, state)
    assert prepared.line.count("\n") == 0
    assert prepared.line == (
        "executor: eager, 1 thread; native is not available: 1: no native code for PReLU"
    )
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
    assert line == (
        "executor: eager, 1 thread; native is not available: no C compiler (cc, gcc or clang)"
    )


def test_an_unknown_executor_is_refused() -> None:
    model, pictures, split, recipe, state = parts("digits")
    with pytest.raises(
        HydrofoilError, match=r"train\.execute = 'fast': expected auto, graph, native"
    ):
        prepare(model, pictures, split, recipe, state, execute="fast")


# ── they agree ───────────────────────────────────────────────────────────────────────────────────


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
        executor = kind(model.train(), state.optimizer, pictures, batch_size=batch)
        sums = Sums(model.device)
        take_steps(executor, epoch_order(split.train, 0, 1)[: 11 * batch - 1], 1, 1, sums)
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
    assert "executor: native, 1 thread\n" in capsys.readouterr().out
    (event,) = Run.open("r").log.all(ExecutorChosen)
    assert event.name == "native"
    assert (event.threads or 0) >= 1
    with safe_open("r/last.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["numbers"])["executor"] == "native"


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_stopped_run_resumes_with_its_own_executor_bit_identically(execute: str) -> None:
    chosen = f"train.execute={execute}"
    assert run_command("train", "digits", "train.epochs=4", chosen, "--run", "complete") == 0
    assert run_command("train", "digits", "train.epochs=1", chosen, "--run", "stopped") == 0
    assert run_command("resume", "stopped", "train.epochs=4") == 0
    complete, stopped = (Run.open(name) for name in ("complete", "stopped"))
    names = [event.name for event in stopped.log.all(ExecutorChosen)]
    assert names == [execute, execute]
    assert same_tensors("complete/last.safetensors", "stopped/last.safetensors")
    assert complete.epochs()[-1].train == stopped.epochs()[-1].train


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_states_executor_takes_precedence_over_the_recipes(execute: str) -> None:
    other = "native" if execute == "eager" else "eager"
    model, pictures, split, recipe, state = parts("digits", f"train.execute={other}")
    state.executor = execute
    made = executors.prepare(model, pictures, split, recipe, state)
    assert (made.executor.name, made.recipe.train.execute) == (execute, execute)


def test_a_run_can_be_resumed_by_another_executor() -> None:
    assert (
        run_command("train", "digits", "train.epochs=2", "train.execute=native", "--run", "r") == 0
    )
    assert run_command("resume", "r", "train.epochs=3", "--execute", "eager") == 0
    names = [e.name for e in Run.open("r").log.all(ExecutorChosen)]
    assert names == ["native", "eager"]
    losses = [epoch.train.loss for epoch in Run.open("r").epochs()]
    assert losses == sorted(losses, reverse=True)


def test_every_executor_logs_the_running_loss() -> None:
    for execute in ("eager", "native"):
        arguments = ("train.epochs=2", f"train.execute={execute}", "train.log_every=15")
        assert run_command("train", "digits", *arguments, "--run", execute) == 0
    told = [
        [(e.epoch, e.step, e.loss) for e in Run.open(name).log.all(RunningLoss)]
        for name in ("eager", "native")
    ]
    assert [one[:2] for one in told[0]] == [(1, 15), (1, 30), (2, 15), (2, 30)]
    assert [one[:2] for one in told[1]] == [one[:2] for one in told[0]]
    assert [one[2] for one in told[0]] == pytest.approx([one[2] for one in told[1]], rel=1e-3)


def test_ctrl_c_between_native_calls_keeps_the_whole_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = executors.Native.train_steps

    def interrupted(self: Any, feed: Any, first: int, stop: int, sums: Any) -> None:
        steps(self, feed, first, stop, sums)
        if feed.epoch == 3:
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
    assert json.loads(capsys.readouterr().out)["executor"] == "executor: native"
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
        assert done.stdout.splitlines()[-2:] == ["0", "False False False"]


def test_a_set_may_have_fewer_pictures_than_a_batch() -> None:
    _, pictures, _, recipe, _ = parts("digits", "train.epochs=2")
    few = Pictures(pictures.pictures_NCHW[:20], pictures.labels_N[:20], pictures.classes, "few")
    split = draw_split(few, valid=0.2, test=0.2)
    for kind in (Eager, executors.Native):
        model = build(recipe, few.shape, few.classes).train()
        optimizer = build_optimizer(recipe.optimizer, model.network)
        executor = kind(model, optimizer, few, batch_size=32)
        sums = Sums(model.device)
        take_steps(executor, split.train, 1, 1, sums)
        assert sums.read().count == len(split.train)
