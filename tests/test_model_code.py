"""Any module trains, saves, resumes, tests, explains and reports; its code runs only when asked."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hydrofoil import HydrofoilError, Run, State, build, draw_split, fit, load, read_recipe
from hydrofoil.cli.main import main
from hydrofoil.models.code import as_code, load_network, with_network

CODE = '''
import pathlib
import torch
from torch import nn
from torch.nn import functional as F

pathlib.Path(__file__).with_suffix(".ran").touch()


class Residual(nn.Module):
    """Blocks, two kinds of dropout, one of them a function, and tied weights."""

    def __init__(self, channels, num_classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3.weight = self.conv2.weight
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8 * 16, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv1(x)))
        x = F.max_pool2d(F.relu(x + self.conv3(self.conv2(x))), 2)
        return self.fc(self.drop(F.dropout(x.flatten(1), 0.1, self.training)))


def two_numbers(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def wrong(shape):
    raise RuntimeError("no network today")


number = 3
'''


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.conv(x)).flatten(1), 0.3, self.training)
        return self.fc(x)


@pytest.fixture
def code() -> Path:
    path = Path("networks.py")
    path.write_text(CODE)
    return path


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_a_file_of_code_goes_through_every_verb(
    code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("--model-code", f"{code}:Residual")
    status, out, err = cli(
        capsys, "train", "digits", "train.epochs=1", *ask, "--run", "r", "--test", "--json"
    )
    assert status == 0, err
    assert json.loads(out)["test"]["accuracy"] > 0.5
    run = Run.open("r")
    assert run.recipe.model.model_dump() == {
        "name": "custom", "code": "Residual", "sha256": hashlib.sha256(CODE.encode()).hexdigest(),
    }  # fmt: skip
    assert Path("r/model.py").read_text() == CODE
    kept = ("--model-code", "r/model.py:Residual")
    verbs = [
        ("resume", "r", "train.epochs=2"), ("resume", "r", "--prove"), ("test", "r"),
        ("predict", "r", "image.png"), ("explain", "r", "image.png"),
    ]  # fmt: skip
    from PIL import Image

    Image.new("L", (8, 8), 200).save("image.png")
    code.with_suffix(".ran").unlink()
    for verb in verbs:
        status, _, err = cli(capsys, *verb)
        assert status == 2, verb
        assert err.splitlines() == [
            "r: its network is the user's code (Residual), which runs only on request.",
            "Read it first, then add --model-code r/model.py:Residual, or model=… in Python.",
        ]
        assert not Path("r/model.ran").exists()  # nothing of it ran
        status, _, err = cli(capsys, *verb, *kept)
        assert status == 0, (verb, err)
        Path("r/model.ran").unlink()
    assert cli(capsys, "report", "r")[0] == 0
    assert not Path("r/model.ran").exists()
    assert "runs only on request" in Path("r/report.html").read_text()
    assert cli(capsys, "report", "r", *kept)[0] == 0
    assert "Residual" in Path("r/report.html").read_text()
    assert cli(capsys, "show", "r")[0] == 0


def test_a_recipe_causes_no_code_to_run(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = with_network(read_recipe("digits"), load_network(f"{code}:Residual"))
    code.with_suffix(".ran").unlink()
    Path("mine.toml").write_text(asked.toml())
    status, _, err = cli(capsys, "train", "./mine.toml")
    assert status == 2
    assert "the recipe's network is code (Residual), and a recipe runs none" in err
    assert "--model-code FILE.py:NAME" in err
    assert not code.with_suffix(".ran").exists()
    code.write_text(CODE + "# changed\n")
    status, _, err = cli(capsys, "train", "./mine.toml", "--model-code", f"{code}:Residual")
    assert status == 2
    assert "Give the same code" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("networks.py", r"--model-code networks\.py: expected FILE\.py:NAME"),
        ("networks.txt:Residual", r"expected FILE\.py:NAME"),
        ("missing.py:Residual", r"missing\.py: the model code cannot be read: No such file"),
        ("networks.py:Residua", r"defines no class or function Residua\. Did you mean 'Residual'"),
        ("networks.py:number", r"defines no class or function number"),
        ("broken.py:X", r"broken\.py: the model code does not run: SyntaxError: .*line 1"),
        ("raises.py:X", r"raises\.py: .*ZeroDivisionError: division by zero \(line 1 of raises"),
        ("networks.py:wrong", r"wrong: it cannot be made: RuntimeError: no network today"),
        (
            "networks.py:two_numbers",
            r"two_numbers: for 2 images it gives a tensor of 2×2: expected",
        ),
    ],
)
def test_code_that_makes_no_network_is_refused(code: Path, given: str, message: str) -> None:
    Path("broken.py").write_text("class X(:\n")
    Path("raises.py").write_text("1 / 0\n")
    with pytest.raises(HydrofoilError, match=message):
        build(read_recipe("digits"), (1, 8, 8), list("0123456789"), load_network(given))


def test_a_network_for_other_images_is_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"Plain: it does not take images of 3×8×8: RuntimeE"):
        build(read_recipe("mnist-cnn"), (3, 8, 8), list("0123456789"), Plain)


@pytest.mark.parametrize("given", [Plain, Plain(), lambda: Plain()])
def test_from_python_a_class_an_instance_or_a_function_trains_and_resumes_exactly(
    given: Any,
) -> None:
    options = ["train.epochs=2", "train.batch_size=64", "train.execute=native"]
    recipe = with_network(read_recipe("digits", options), given)
    assert recipe.model.name == "custom"
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    straight, begun, resumed = (
        build(recipe, pictures.shape, pictures.classes, given) for _ in range(3)
    )
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, last = fit(straight, pictures, split, recipe)
    assert torch.equal(torch.rand(3), expected)  # the generator is as it was
    assert last.train.loss < first.train.loss
    torch.manual_seed(7)  # functional dropout follows the key, not this
    state = State.fresh(begun, recipe)
    next(fit(begun, pictures, split, recipe, state=state))
    fresh = State.fresh(resumed, recipe)
    fresh.restore(resumed, state.tensors(begun), state.numbers())
    torch.manual_seed(9)
    list(fit(resumed, pictures, split, recipe, state=fresh))
    assert resumed.weights_hash() == straight.weights_hash()


def test_a_given_instance_is_copied_with_its_weights_and_a_class_is_drawn_by_the_seed() -> None:
    network = Plain()
    model = build(read_recipe("digits"), (1, 8, 8), list("0123456789"), network)
    assert model.network is not network
    assert torch.equal(model.network.state_dict()["fc.weight"], network.fc.weight)
    hashes = {
        build(
            read_recipe("digits", [f"train.seed={seed}"]), (1, 8, 8), list("0123456789"), Plain
        ).weights_hash()
        for seed in (1, 2, 1)
    }
    assert len(hashes) == 2


def test_the_text_of_a_class_is_known_by_its_hash() -> None:
    section = as_code(Plain()).section
    assert section.code == "Plain"
    assert section == as_code(Plain).section
    assert len(section.sha256) == 64
    other = read_recipe("digits").model_copy(update={"model": section})
    with pytest.raises(HydrofoilError, match="Give the same code"):
        with_network(other, nn.Linear)
