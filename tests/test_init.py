"""Training starts from given weights, with a new last layer for other classes, or frozen layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hydrofoil import HydrofoilError, Run, State, build, draw_split, fit, load, read_recipe
from hydrofoil.cli.main import main
from hydrofoil.models.code import with_network
from hydrofoil.ship.initial import initialize

QUICK = ("train.epochs=1", "train.batch_size=100")


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture
def first(capsys: pytest.CaptureFixture[str]) -> Path:
    status, _, err = cli(capsys, "train", "digits", *QUICK, "--run", "first")
    assert status == 0, err
    return Path("first")


def best(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "best.safetensors")


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_frozen_layers_keep_the_given_weights_and_the_others_learn(
    first: Path, execute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        *QUICK, "train.init=first", 'train.freeze=["conv*", "fc1"]', f"train.execute={execute}"
    )  # fmt: skip
    status, out, err = cli(capsys, "train", "digits", *arguments, "--seed", 5, "--run", "r")
    assert status == 0, err
    assert "note: starts from the weights of first" in out
    assert ("executor: eager" in out and "native is not available:" in out) or execute == "eager"
    for name, tensor in best("r").items():
        frozen = name.startswith(("conv", "fc1"))
        assert torch.equal(tensor, best(first)[name]) == frozen, name
    checkpoint = load_file("r/last.safetensors")
    assert {n.split("/")[1].split(".")[0] for n in checkpoint if n.startswith("optimizer/")} == {
        "fc2", "fc3",
    }  # fmt: skip
    assert cli(capsys, "resume", "r", "--prove")[0] == 0
    recipe = Run.open("r").recipe
    assert recipe.train.init == "first"
    assert len(recipe.train.init_sha256) == 64


def test_a_file_of_other_names_starts_a_training(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {f"module.{name}": tensor.half() for name, tensor in best(first).items()}
    torch.save({"state_dict": weights}, "w.pt")
    arguments = (*QUICK, "train.init=w.pt", 'train.freeze=["fc*", "conv1", "conv2"]')
    status, out, _ = cli(capsys, "train", "digits", *arguments, "--run", "r")
    assert status == 0
    assert "note: 12 tensors converted from float16 to float32" in out
    assert torch.equal(best("r")["fc1.weight"], best(first)["fc1.weight"].half().float())


def test_another_number_of_classes_gets_a_new_last_layer_and_says_so(first: Path) -> None:
    recipe = read_recipe("digits", ["train.init=first"])
    model, drawn = (build(recipe, (1, 8, 8), ["cat", "dog", "cow"]) for _ in "12")
    _, notes = initialize(model, recipe)
    assert "fc3 is new, for 3 classes: the given weights are for 10 classes" in notes
    for name, tensor in model.network.state_dict().items():
        expected = drawn.network.state_dict() if name.startswith("fc3") else best(first)
        assert torch.equal(tensor, expected[name]), name


def test_other_classes_of_the_same_number_get_a_new_last_layer_too(first: Path) -> None:
    recipe = read_recipe("digits", ["train.init=first"])
    model = build(recipe, (1, 8, 8), list("abcdefghij"))
    _, notes = initialize(model, recipe)
    assert "fc3 is new, for 10 classes: the given weights are for other classes" in notes
    same = build(recipe, (1, 8, 8), list("0123456789"))
    assert not [note for note in initialize(same, recipe)[1] if "is new" in note]


def test_the_recipes_hash_is_of_the_weights_and_not_of_their_place(first: Path) -> None:
    def resolved(place: str) -> Any:
        recipe = read_recipe("digits", [f"train.init={place}"])
        return initialize(build(recipe, (1, 8, 8), list("0123456789")), recipe)[0]

    Path("moved").mkdir()
    Path("moved/w.bin").write_bytes((first / "best.safetensors").read_bytes())
    assert resolved("first").hash() == resolved("moved/w.bin").hash()
    assert resolved("first").hash() != read_recipe("digits").hash()
    recipe = read_recipe("digits", ["train.init=first", f"train.init_sha256={'0' * 64!r}"])
    model = build(recipe, (1, 8, 8), list("0123456789"))
    with pytest.raises(HydrofoilError, match=r"these weights have SHA-256 .*, expected 0000"):
        initialize(model, recipe)


def test_a_run_that_was_killed_before_its_first_save_starts_from_the_weights_again(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*QUICK, "train.init=first", "train.execute=eager")
    assert cli(capsys, "train", "digits", *arguments, "--run", "r")[0] == 0
    expected = best("r")
    for name in ("last.safetensors", "previous.safetensors", "best.safetensors"):
        Path("r", name).unlink(missing_ok=True)
    status, _, err = cli(capsys, "resume", "r")
    assert status == 0, err
    assert all(torch.equal(tensor, expected[name]) for name, tensor in best("r").items())


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
            nn.Flatten(),
            nn.Linear(144, 10),
        )


def test_a_frozen_layer_runs_as_in_evaluation() -> None:
    recipe = with_network(read_recipe("digits", [*QUICK, 'train.freeze=["0"]']), Normed)
    pictures = load("digits")
    model = build(recipe, pictures.shape, pictures.classes, Normed)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    state = State.fresh(model, recipe)
    list(fit(model, pictures, draw_split(pictures, test=0.2), recipe, state=state))
    after = model.network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"2.weight", "2.bias"}  # not even running means
    assert not model.network[0][3].training
    assert model.network[2].training


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["train.freeze=3"], r"train\.freeze\.0 = 3: expected a valid string"),
        (['train.freeze=["conv4"]'], r"train\.freeze: the network has no 'conv4'\. Did you mean"),
        (['train.freeze=["*"]'], r"no parameter to train"),
        (["train.init=nowhere"], r"nowhere: the weights cannot be read: No such file"),
        (["train.init=first", "model.name=lenet", "model.widths=[2]"], r"first: of another model"),
        (["train.init=first/recipe.toml"], r"recipe\.toml: .*not"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_run_is_made(
    first: Path, fields: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    status, _, err = cli(capsys, "train", "digits", *QUICK, *fields, "--run", "r")
    assert status == 2
    assert re.search(message, err), err
    assert not Path("r").exists()
