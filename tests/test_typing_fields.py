"""Every field of a recipe is understood in every spelling that people type."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrofoil import HydrofoilError, Recipe, read_recipe
from hydrofoil.cli.main import main
from hydrofoil.recipe import naming
from hydrofoil.recipe.naming import overrides_of
from hydrofoil.recipe.schema import members

# A value for each field that differs from the recipe's, as Python and as text, and the choice of
# the section that has the field.
VALUES: dict[str, tuple[object, str, str]] = {
    "name": ("mine", "mine", ""),
    "about": ("a line", "a line", ""),
    "data.source": ("mnist", "mnist", ""),
    "data.root": ("some/folder", "some/folder", ""),
    "data.size": ((48, 32), "48,32", ""),
    "data.fit": ("pad", "Pad", ""),
    "data.path": ("file", "file", ""),
    "data.label": ("species", "species", ""),
    "data.split": ("fold", "fold", ""),
    "data.group": ("patient", "patient", ""),
    "data.unreadable": ("stop", "stop", ""),
    "data.resident": (True, "true", ""),
    "data.window": (512, "512", ""),
    "data.mean": ((0.25,), "0.25", ""),
    "data.std": ((0.5,), "[0.5]", ""),
    "data.train": (300, "300", ""),
    "data.valid": (0.25, ".25", ""),
    "data.test": (0.3, "0.3", ""),
    "data.merge": (True, "true", ""),
    "model.name": ("lenet", "lenet", ""),
    "model.widths": ((7, 8), "7,8", ""),
    "model.hidden": ((32,), "32", ""),
    "model.activation": ("leaky-relu", "Leaky_ReLU", ""),
    "model.norm": ("batch", "batch", ""),
    "model.dropout": (0.5, ".5", ""),
    "model.depth": (3, "3", "model.name=speednet"),
    "model.residual": (True, "yes", "model.name=speednet"),
    "model.initialization": ("default", "default", "model.name=speednet"),
    "model.logit_scale": (0.125, "0.125", "model.name=speednet"),
    "model.drop_path": (0.1, "0.1", "model.name=speednet model.residual=true"),
    "model.stem": (24, "24", "model.name=resnet"),
    "model.preactivation": (True, "true", "model.name=resnet"),
    "model.architecture": ("vgg11", "vgg11", "model.name=timm"),
    "model.pretrained": (True, "yes", "model.name=timm"),
    "model.code": ("mine.py:Net", "mine.py:Net", "model.name=custom"),
    "model.sha256": ("0" * 64, "0" * 64, "model.name=custom"),
    "train.epochs": (3, "3", ""),
    "train.batch_size": (16, "16", ""),
    "train.select": ("valid.loss", "valid.loss", ""),
    "train.seed": (5, "5", ""),
    "train.label_smoothing": (0.1, "0.1", ""),
    "train.sizes": ((24, 32), "24,32", ""),
    "train.clip": (0.5, "0.5", ""),
    "train.l1": (1e-4, "1e-4", ""),
    "train.average": ("ema", "EMA", ""),
    "train.ema_decay": (0.9, "0.9", ""),
    "train.swa_start": (0.5, "0.5", ""),
    "train.patience": (3, "3", "train.select=valid.loss"),
    "train.balance": ("sampling", "Sampling", ""),
    "train.init": ("runs/x", "runs/x", ""),
    "train.init_sha256": ("12", "12", ""),
    "train.freeze": (("conv1", "layer1.*"), "conv1,layer1.*", ""),
    "train.execute": ("eager", "eager", ""),
    "train.threads": (2, "2", ""),
    "train.precision": ("bfloat16", "bfloat16", ""),
    "train.log_every": (10, "10", ""),
    "train.save_steps": (4, "4", ""),
    "train.last_steps": (5, "5", ""),
    "train.save_seconds": (0.0, "0.0", ""),
    "optimizer.name": ("sgd", "SGD", ""),
    "optimizer.lr": (0.125, "0.125", ""),
    "optimizer.momentum": (0.5, "0.5", ""),
    "optimizer.nesterov": (False, "no", ""),
    "optimizer.weight_decay": (0.01, "1e-2", ""),
    "optimizer.decoupled": (True, "true", ""),
    "optimizer.decay_biases": (False, "False", ""),
    "optimizer.betas": ((0.8, 0.9), "0.8, 0.9", "optimizer.name=adam"),
    "optimizer.eps": (1e-6, "1e-6", "optimizer.name=adam"),
    "optimizer.momentum_decay": (0.01, "0.01", "optimizer.name=nadam"),
    "optimizer.alpha": (0.9, "0.9", "optimizer.name=rmsprop"),
    "optimizer.centered": (True, "yes", "optimizer.name=rmsprop"),
    "optimizer.lr_decay": (0.1, "0.1", "optimizer.name=adagrad"),
    "optimizer.initial_accumulator_value": (0.1, "0.1", "optimizer.name=adagrad"),
    "optimizer.normalize": (True, "true", "optimizer.name=muon"),
    "optimizer.ns_steps": (3, "3", "optimizer.name=muon"),
    "optimizer.adjust_lr_fn": ("match_rms_adamw", "match_rms_adamw", "optimizer.name=muon"),
    "optimizer.others": ("sgd", "sgd", "optimizer.name=muon"),
    "optimizer.others_lr": (0.25, "0.25", "optimizer.name=muon"),
    "optimizer.others_momentum": (0.25, "0.25", "optimizer.name=muon"),
    "optimizer.others_weight_decay": (0.25, "0.25", "optimizer.name=muon"),
    "schedule.name": ("cosine", "cosine", ""),
    "schedule.warmup_epochs": (1.5, "1.5", ""),
    "schedule.warmup_steps": (10, "10", ""),
    "schedule.every": (5, "5", "schedule.name=step schedule.every=7"),
    "schedule.factor": (0.5, "0.5", "schedule.name=step schedule.every=5"),
    "schedule.final_lr": (0.001, "0.001", "schedule.name=linear"),
    "schedule.pct_start": (0.5, "0.5", "schedule.name=one-cycle"),
    "schedule.div_factor": (5.0, "5.0", "schedule.name=one-cycle"),
    "schedule.final_div_factor": (5.0, "5.0", "schedule.name=one-cycle"),
    "augment.flip": ("random", "random", ""),
    "augment.shift": (2, "2", ""),
    "augment.rotate": (5.0, "5.0", ""),
    "augment.scale": (0.1, "0.1", ""),
    "augment.brightness": (0.25, "0.25", ""),
    "augment.contrast": (0.25, "0.25", ""),
    "augment.cutout": (3, "3", ""),
    "augment.policy": ("randaugment", "RandAugment", ""),
    "augment.policy_operations": (3, "3", ""),
    "augment.policy_magnitude": (5, "5", ""),
    "augment.mixup": (0.5, "0.5", ""),
    "augment.cutmix": (1.0, "1.0", ""),
    "augment.test_time": ("flip-shift", "flip-shift", ""),
    "expect.test_accuracy": (0.5, "0.5", ""),
    "expect.spread": (0.125, "0.125", ""),
    "expect.accuracies": ((0.5, 0.75), "0.5, 0.75", ""),
    "expect.printed": (0.25, "0.25", ""),
}
ALIASES = {
    "data.source": ["data", "dataset"],
    "data.valid": ["val", "validation"],
    "model.name": ["model"],
    "train.batch_size": ["batch", "bs"],
    "optimizer.name": ["optimizer"],
    "optimizer.lr": ["learning_rate", "optimizer.learning_rate"],
    "optimizer.weight_decay": ["wd"],
    "schedule.name": ["schedule"],
}


def value_of(recipe: Recipe, dotted: str) -> object:
    section, _, field = dotted.rpartition(".")
    return getattr(getattr(recipe, section) if section else recipe, field)


def spellings(dotted: str) -> list[str]:
    last = dotted.rpartition(".")[2]
    short = [] if last == "name" else [last]
    return [dotted, *short, *ALIASES.get(dotted, [])]


@st.composite
def typed_fields(draw: Callable[..., object]) -> tuple[str, str]:
    """A field's dotted name, and one way to type it."""
    dotted = draw(st.sampled_from(list(VALUES)))
    spelling = draw(st.sampled_from(spellings(str(dotted))))
    dashes = draw(st.booleans())
    return str(dotted), str(spelling).replace("_", "-") if dashes else str(spelling)


def test_the_table_has_every_field_of_the_schema() -> None:
    every = {
        f"{top}.{name}" if members(top) else top
        for top in Recipe.model_fields
        for section in members(top) or [Recipe]
        for name in (section.model_fields if members(top) else [top])
    }
    assert set(VALUES) == every


@given(typed_fields())
def test_every_spelling_of_a_field_gives_the_same_recipe(typed: tuple[str, str]) -> None:
    dotted, spelling = typed
    expected, text, choice = VALUES[dotted]
    base = read_recipe("digits", choice.split())
    recipe = read_recipe("digits", [*choice.split(), f"{spelling}={text}"])
    assert value_of(recipe, dotted) == expected
    assert dotted == "optimizer.name" or recipe != base
    assert recipe == read_recipe("digits", [*choice.split(), f"{dotted}={text}"])
    if not dotted.endswith(".name"):
        others = {name for name in VALUES if hasattr_path(base, name) and name != dotted}
        changed = {name for name in others if value_of(base, name) != value_of(recipe, name)}
        assert not changed


def hasattr_path(recipe: Recipe, dotted: str) -> bool:
    section, _, field = dotted.rpartition(".")
    return hasattr(getattr(recipe, section) if section else recipe, field)


@given(typed_fields())
def test_every_spelling_of_a_field_is_a_python_keyword(typed: tuple[str, str]) -> None:
    dotted, spelling = typed
    value, _, choice = VALUES[dotted]
    keyword = spelling.replace("-", "_").replace(".", "__")
    recipe = read_recipe("digits", [*choice.split(), *overrides_of({keyword: value})])
    assert value_of(recipe, dotted) == value


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["show", *words, "--json"])
    output, errors = capsys.readouterr()
    assert not left.value.code, errors
    return json.loads(output)["recipe"]


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        ("--epochs 3", "train.epochs=3"),
        ("--lr=0.1 --batch-size 16", "optimizer.lr=0.1 train.batch_size=16"),
        ("--batch_size=16", "train.batch_size=16"),
        ("--no-nesterov", "optimizer.nesterov=false"),
        ("--nesterov --merge", "optimizer.nesterov=true data.merge=true"),
        ("--nesterov no", "optimizer.nesterov=false"),
        ("--no-decay-biases --hidden 32", "optimizer.decay_biases=false model.hidden=[32]"),
        ("--optimizer adam --learning-rate 0.1", "optimizer.name=adam optimizer.lr=0.1"),
        ("--test 0.1 --train 300", "data.test=0.1 data.train=300"),  # show has no --test of its own
        ("--optimizer.lr 0.5", "optimizer.lr=0.5"),
        ("--name=mine", "name=mine"),
        ("--mean -0.5", "data.mean=[-0.5]"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_fields_are_options_before_and_after_the_recipe(
    options: str, overrides: str, before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options.split(), "digits"] if before else ["digits", *options.split()]
    expected = read_recipe("digits", overrides.split()).model_dump(mode="json")
    assert shown(capsys, *words) == expected


def test_overrides_may_come_before_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = shown(capsys, "epochs=3", "digits", "lr=0.5")
    assert recipe == read_recipe("digits", ["epochs=3", "lr=0.5"]).model_dump(mode="json")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(words))
    output, errors = capsys.readouterr()
    assert (left.value.code, output) == (2, "")
    assert 1 <= len(errors.strip().splitlines()) <= 3
    return errors


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("train digits epoks=3", ["epoks: no such field", "Did you mean train.epochs?"]),
        ("train digits --epoks 3", ["unknown option --epoks", "Did you mean --epochs?"]),
        ("train digits --lr", ["--lr: expected a value, such as --lr 0.001"]),
        ("train digits --no-lr 3", ["--no-lr: not a switch", "--lr VALUE"]),
        ("train digits --mdel-code x.py:N", ["Did you mean --model-code?"]),
        ("test runs/x --lr 3", ["--lr: a field of a recipe; test takes none"]),
        ("train digits --model.dropuot 1", ["model.dropuot: no such field", "'dropout'"]),
        ("train digits --select sometimes", ['train.select = "sometimes"']),
        ("show digits nesterov=maybe", ['optimizer.nesterov = "maybe"', "true or false"]),
    ],
)
def test_a_mistyped_field_is_answered_with_the_nearest(
    words: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    errors = refused(capsys, *words.split())
    assert all(part in errors for part in parts), errors


def test_a_verbs_own_option_wins_over_a_field_of_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = refused(capsys, "train", "digits", "--test", "--data.test", "0", "--seed", "4")
    assert "no test split" in errors  # --test takes no value, and the field is 0


def test_an_ambiguous_name_is_refused_with_the_full_names(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = naming.declarations()
    twice = {**declared, "schedule.momentum": declared["optimizer.momentum"]}
    monkeypatch.setattr(naming, "declarations", lambda: twice)
    monkeypatch.setattr(naming, "short_names", naming.short_names.__wrapped__)
    with pytest.raises(
        HydrofoilError, match=r"momentum: .*optimizer\.momentum, schedule\.momentum"
    ):
        read_recipe("digits", ["momentum=0.5"])


def test_python_values_of_every_kind_become_overrides() -> None:
    given = {
        "epochs": np.int64(3),
        "lr": np.float32(0.5),
        "hidden": np.array([8, 4]),
        "nesterov": True,
        "train": 0.5,
        "optimizer": {"momentum": 0.25},
    }
    recipe = read_recipe("digits", overrides_of(given))
    assert (recipe.train.epochs, recipe.optimizer.lr) == (3, 0.5)
    assert recipe.model.hidden == (8, 4)  # type: ignore[union-attr]
    assert recipe.optimizer.momentum == 0.25  # type: ignore[union-attr]
    assert recipe.data.train == 0.5
    with pytest.raises(HydrofoilError, match=r"lr = None: expected"):
        overrides_of({"lr": None})
    with pytest.raises(HydrofoilError, match=r"epoks: .* Did you mean train\.epochs"):
        overrides_of({"epoks": 3})


@pytest.mark.parametrize("model", ["mlp", "lenet", "cnn3", "cnn"])
def test_hidden_layers_have_one_name_in_every_model(model: str) -> None:
    recipe = read_recipe("digits", [f"model={model}", "hidden=32"])
    sizes = recipe.model.model_dump()
    assert sizes["hidden"] == (32,)
