"""What was trained with `fit` becomes a run: its weights and figures are those of `train`."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import hydrofoil as hf
from hydrofoil.run.events import DataLoaded, Kept, Trained
from tests.resume_steps import command

QUICK = ["train.epochs=3", "data.train=200", "model.name=mlp", "model.hidden=[12]",
         "train.execute=eager"]  # fmt: skip


class Own(nn.Module):
    """One hidden layer, with dropout that is not ours."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.hidden = nn.Linear(channels * height * width, 16)
        self.output = nn.Linear(16, classes)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(images_NCHW.flatten(1)))
        return self.output(nn.functional.dropout(hidden, 0.2, self.training))


class Other(Own):
    """Other code for the same weights."""


def fitted(overrides: list[str], network: Any = None) -> tuple[Any, ...]:
    """Return what `keep` takes, after `fit`, and the state."""
    recipe = hf.read_recipe("digits", overrides)
    pictures = hf.load("digits")
    split = hf.draw_split(pictures, **recipe.split_options())
    model = hf.build(recipe, pictures.shape, pictures.classes, network)
    state = hf.State.fresh(model, recipe)
    epochs = list(hf.fit(model, pictures, split, recipe, state=state))
    return (model, pictures, split, recipe, epochs), state


def figures(run: hf.Run) -> list[Any]:
    """Return the epochs of a run, without their seconds."""
    zero = {"train_seconds": 0.0, "valid_seconds": 0.0}
    return [epoch.model_copy(update=zero) for epoch in run.epochs()]


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    select=st.sampled_from(["last", "valid.loss", "valid.accuracy"]),
    optimizer=st.sampled_from(["sgd", "adam"]),
    own=st.booleans(),
    execute=st.sampled_from(["eager", "native"]),
)
def test_fit_and_keep_give_the_weights_and_figures_of_train(
    seed: int, select: str, optimizer: str, own: bool, execute: str, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    overrides = [*QUICK[:-1], f"train.execute={'eager' if own else execute}", f"train.seed={seed}",
                 f"train.select={select}", f"optimizer.name={optimizer}"]  # fmt: skip
    network = Own if own else None
    if own:
        overrides = [one for one in overrides if not one.startswith("model.")]
    parts, state = fitted(overrides, network)
    kept = hf.keep(*parts, state=state, run=folder / "kept")
    trained = hf.train("digits", overrides, model=network, run=folder / "trained")
    for name in ("best", "last"):
        ours, theirs = (load_file(run.path / f"{name}.safetensors") for run in (kept, trained))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert figures(kept) == figures(trained)
    assert kept.recipe == trained.recipe
    assert kept.test().accuracy == trained.test().accuracy
    again = hf.resume(kept, epochs=4) if kept.recipe.schedule.name == "constant" else None
    if again is not None:
        assert figures(again) == figures(hf.resume(trained, epochs=4))


def test_the_log_says_that_it_was_kept_and_not_trained_by_a_session(tmp_path: Path) -> None:
    parts, state = fitted(QUICK)
    run = hf.keep(*parts, state=state, run=tmp_path / "r")
    assert run.log.all(Kept) == [Kept(epochs=3, resumable=True, executor="eager")]
    assert len(run.log.all(DataLoaded)) == 1
    assert run.log.all(Trained) == []
    assert run.log.executor() == "eager"


def test_every_verb_works_on_a_run_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts, _ = fitted([*QUICK, "train.select=last"])
    run = hf.keep(*parts)
    assert run.path == Path("runs/digits-1")
    run.plot().save("curves.png")
    assert run.test().count == len(parts[2].test)
    page = run.report().read_text("utf-8")
    assert "trained with hf.fit and kept with hf.keep; without its state" in page
    assert run.predict(parts[1].pictures_NCHW[0]).label in parts[1].classes
    for words in (["show", "runs/digits-1"], ["test", "runs/digits-1"], ["report", "runs/digits-1"],
                  ["runs"], ["show", "last"]):  # fmt: skip
        status, said = command(*words)
        assert status == 0, said
    assert "cannot be resumed" in command("show", "runs/digits-1")[1]
    hf.keep(*fitted([*QUICK, "optimizer.lr=0.1"])[0])
    status, said = command("compare", "runs/digits-1", "runs/digits-2")
    assert status == 0, said


def test_without_a_state_the_run_has_the_last_weights_and_says_so(tmp_path: Path) -> None:
    overrides = [*QUICK, "train.select=valid.loss", "optimizer.lr=1.2", "train.epochs=6"]
    (model, *rest, epochs), _ = fitted(overrides)
    assert not epochs[-1].best
    with pytest.warns(UserWarning, match="the weights are of epoch 6: those of epoch"):
        run = hf.keep(model, *rest, epochs, run=tmp_path / "r")
    assert run.recipe.train.select == "last"
    assert run.model.weights_hash() == model.weights_hash()
    with pytest.raises(hf.HydrofoilError, match="kept without its state"):
        hf.resume(run, epochs=7)
    assert command("resume", str(run.path))[0] == 2


def test_a_bare_network_is_kept_with_its_code_and_opened_with_the_same_code(tmp_path: Path) -> None:
    recipe = hf.read_recipe("digits", ["train.epochs=1", "data.train=200"])
    pictures = hf.load("digits")
    split = hf.draw_split(pictures, **recipe.split_options())
    network = Own(pictures.shape, 10)
    epochs = list(hf.fit(network, pictures, split, recipe))
    run = hf.keep(network, pictures, split, recipe, epochs, run=tmp_path / "r")
    assert "class Own" in (run.path / "model.py").read_text("utf-8")
    accuracy = run.test().accuracy
    opened = hf.Run.open(run.path, model=Own)
    assert hf.test(opened, again=True).accuracy == accuracy
    with pytest.raises(hf.HydrofoilError, match="Give the same code"):
        _ = hf.Run.open(run.path, model=Other).model
    with pytest.raises(hf.HydrofoilError, match="runs only on request"):
        _ = hf.Run.open(run.path).model


def test_the_function_that_made_a_network_can_be_given_as_its_code(tmp_path: Path) -> None:
    def small(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def large(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, classes))

    parts, state = fitted(["train.epochs=1", "data.train=200"], small)
    run = hf.keep(*parts, state=state, code=small, run=tmp_path / "r")
    assert "def small" in (run.path / "model.py").read_text("utf-8")
    assert run.recipe.model.model_dump()["code"] == "small"
    with pytest.raises(hf.HydrofoilError, match="model: of another model"):
        hf.keep(*parts, state=state, code=large, run=tmp_path / "other")
    assert not (tmp_path / "other").exists()
    unknown = hf.keep(*parts, state=state, run=tmp_path / "unknown")  # of torch's own class
    assert not (unknown.path / "model.py").exists()
    assert unknown.model.weights_hash() == run.model.weights_hash()


def test_a_wrapped_network_keeps_its_own_normalization(tmp_path: Path) -> None:
    recipe = hf.read_recipe("digits", ["train.epochs=1", "data.train=200"])
    pictures = hf.load("digits")
    split = hf.draw_split(pictures, **recipe.split_options())
    model = hf.Classifier(Own(pictures.shape, 10), pictures.shape, pictures.classes, (0.1,), (0.7,))
    epochs = list(hf.fit(model, pictures, split, recipe))
    run = hf.keep(model, pictures, split, recipe, epochs, run=tmp_path / "r")
    opened = hf.Run.open(run.path, model=Own).model
    expected, got = (one.eval()(pictures.pictures_NCHW[:9]) for one in (model, opened))
    assert torch.equal(expected, got)


def test_what_does_not_belong_together_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    parts, state = fitted(QUICK)
    model, pictures, split, _, epochs = parts
    other, later = fitted(QUICK)
    cases: list[tuple[str, Any, Any]] = [
        ("epochs: none: expected every epoch", (*parts[:4], []), state),
        ("epochs: 2, 3: expected every epoch", (*parts[:4], epochs[1:]), state),
        ("epochs: expected what hf.fit yields", (*parts[:4], epochs[0]), state),
        ("epochs: expected what hf.fit yields", (*parts[:4], [0.9]), state),
        ("the recipe trains 2 epochs",
         (model, pictures, split, hf.read_recipe("digits", ["epochs=2"]), epochs), None),
        ("state: of another model", parts, later),
        ("state: 3 epochs done", (*parts[:4], epochs[:2]), state),
    ]  # fmt: skip
    for message, given_parts, given_state in cases:
        with pytest.raises(hf.HydrofoilError, match=message):
            hf.keep(*given_parts, state=given_state, run=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert other[0].weights_hash() == model.weights_hash()


def test_a_network_that_is_prepared_twice_leaves_the_global_generator_alone() -> None:
    recipe = hf.read_recipe("digits", ["train.epochs=1", "data.train=64"])
    pictures = hf.load("digits")
    split = hf.draw_split(pictures, **recipe.split_options())
    network = Own(pictures.shape, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(hf.fit(network, pictures, split, recipe))
        before = torch.get_rng_state()
        list(hf.fit(network, pictures, split, recipe))
    assert torch.equal(before, torch.get_rng_state())
