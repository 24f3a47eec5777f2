"""bfloat16 steps: near float32, resumed bit-identically, and chosen by a rule."""

from pathlib import Path

import pytest
import torch

from hydrofoil import HydrofoilError, Run, build, draw_split, fit, load, read_recipe, resume, train
from hydrofoil.device import BFLOAT16_FLAGS, pick_device
from hydrofoil.evaluate.metrics import Sums
from hydrofoil.recipe.changes import agree, changed_fields
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.executors import expected, prepare
from hydrofoil.train.executors.eager import Eager
from hydrofoil.train.feed import make_feed
from hydrofoil.train.optimizers import build_optimizer
from hydrofoil.train.options import StepOptions
from hydrofoil.train.precision import with_precision
from hydrofoil.train.state import State

CPU = torch.device("cpu")
SMALL = ["model.name=speednet", "model.widths=[16, 16]", "train.epochs=2", "data.train=256"]


def recipe_with(*fields: str) -> Recipe:
    return read_recipe("digits", [*SMALL, *fields])


def cpu_with(patch: pytest.MonkeyPatch, *flags: str) -> None:
    for question, flag in BFLOAT16_FLAGS.items():
        patch.setattr(torch.cpu, question, lambda found=flag in flags: found, raising=False)


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_auto_is_bfloat16_on_a_cpu_that_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    cpu_with(monkeypatch, flag)
    found, why = with_precision(recipe_with("precision=auto"), CPU)
    assert (found.train.precision, why) == ("bfloat16", f"bfloat16, since the CPU has {flag}")
    line, _ = expected(recipe_with("precision=auto"), CPU)
    assert line.startswith(f"executor: eager; bfloat16, since the CPU has {flag}; native")


def test_auto_is_float32_on_other_cpus_and_for_networks_that_native_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu_with(monkeypatch)
    assert with_precision(recipe_with("precision=auto"), CPU)[0].train.precision == "float32"
    cpu_with(monkeypatch, "amx_bf16")
    plain = read_recipe("digits", ["precision=auto"])
    assert with_precision(plain, CPU)[0].train.precision == "float32"
    assert expected(plain, CPU)[0].startswith("executor: native")


def test_a_chosen_precision_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_with(monkeypatch)
    for chosen in ("float32", "bfloat16"):
        recipe = recipe_with(f"precision={chosen}")
        assert with_precision(recipe, CPU) == (recipe, "")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"train\.precision = \"float16\": expected 'float32'"):
        recipe_with("precision=float16")


def test_a_run_names_the_precision_that_auto_chose_and_agrees_with_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_with(monkeypatch, "avx512_bf16")
    recipe = recipe_with("precision=auto", "epochs=1")
    run = train(recipe, run=tmp_path / "run")
    assert run.recipe.train.precision == "bfloat16"
    assert "train.precision" not in changed_fields(recipe, run.recipe)
    name = "train.precision"
    assert agree({name: "auto"}, {name: "bfloat16"})
    assert not agree({name: "float32"}, {name: "bfloat16"})


def test_native_refuses_bfloat16_and_eager_runs_it() -> None:
    recipe = read_recipe("digits", ["precision=bfloat16", "execute=native", "epochs=1"])
    pictures = load(recipe.data)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    prepared = prepare(model, pictures, split, recipe, State.fresh(model, recipe))
    assert prepared.executor.name == "eager"
    assert prepared.refused["native"].startswith("train.precision = bfloat16: the generated code")


def one_step(chosen: str, *fields: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of a first step, and the gradients, which are float32 as the weights are."""
    recipe = recipe_with(f"precision={chosen}", *fields)
    pictures = load(recipe.data)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    model.train()
    optimizer = build_optimizer(recipe.optimizer, model.network)
    step = Eager(model, optimizer, pictures, batch_size=32, options=StepOptions(precision=chosen))
    sums = Sums(CPU)
    layers = len(step.dropouts)
    step.train_steps(make_feed(recipe, split.train, pictures.labels_N, 1, layers), 0, 1, sums)
    gradients = {name: p.grad for name, p in model.network.named_parameters() if p.grad is not None}
    assert all(one.dtype == torch.float32 for one in (*gradients.values(), *model.parameters()))
    return sums.read().loss, gradients


@pytest.mark.parametrize("name", ["speednet", "cnn3"])
def test_a_step_in_bfloat16_is_near_the_one_in_float32(name: str) -> None:
    fields = [f"model.name={name}", "model.widths=[16, 16]", "model.dropout=0"]
    (exact, true), (loss, near) = (one_step(chosen, *fields) for chosen in ("float32", "bfloat16"))
    assert loss != exact
    assert abs(loss - exact) < 0.02 * exact  # 8 bits of mantissa: 0.4% a rounding
    both = [torch.cat([gradients[p].flatten() for p in true]) for gradients in (true, near)]
    assert (both[1] - both[0]).norm() < 0.1 * both[0].norm()


def test_evaluation_is_float32_whatever_training_was() -> None:
    recipe = recipe_with("precision=bfloat16", "epochs=1")
    pictures = load(recipe.data)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    executor = prepare(model, pictures, split, recipe, State.fresh(model, recipe)).executor
    list(fit(model, pictures, split, recipe))
    found = executor.score(split.valid)
    with torch.no_grad():
        logits_NK = model.eval().network(model.normalize(pictures.pictures_NCHW[split.valid]))
    loss = torch.nn.functional.cross_entropy(logits_NK, pictures.labels_N[split.valid])
    assert logits_NK.dtype == torch.float32
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)


def test_a_run_in_bfloat16_resumes_bit_identically(tmp_path: Path) -> None:
    fields = ["precision=bfloat16", "model.dropout=0.2", "model.residual=true", "model.depth=2"]
    fields += ["model.drop_path=0.2"]
    whole = train(recipe_with(*fields), run=tmp_path / "whole")
    train(recipe_with(*fields, "epochs=1"), run=tmp_path / "parts")
    resumed = resume(tmp_path / "parts", epochs=2)
    weights = [Run.open(run.path).load_best(pick_device("cpu"))[0] for run in (whole, resumed)]
    assert weights[0].weights_hash() == weights[1].weights_hash()
