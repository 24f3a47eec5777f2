"""What a search may choose: ranges and choices, and what is refused before anything runs."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrofoil import HydrofoilError, read_recipe
from hydrofoil.tune.space import (
    Choices,
    Range,
    read_space,
    space_words,
    split_words,
    with_values,
)
from tests.conftest import Cli

DIGITS = read_recipe("digits")


@pytest.mark.parametrize(
    ("word", "field", "samples"),
    [
        ("lr=log:1e-3..1e-1", "optimizer.lr", (0.001, 0.1)),
        ("model.dropout=0..0.5", "model.dropout", (0.0, 0.5)),
        ("dropout=.1...5", "model.dropout", (0.1, 0.5)),
        ("batch-size=8..64", "train.batch_size", (8, 64)),
        ("train=100..1000", "data.train", (100, 1000)),
        ("train=0.1..0.5", "data.train", (0.1, 0.5)),
        ("optimizer=sgd|AdamW", "optimizer.name", ("sgd", "adamw")),
        ("widths=8,16,32|16,32,64", "model.widths", ([8, 16, 32], [16, 32, 64])),
        ("widths=[8, 16, 32]|[16, 32, 64]", "model.widths", ([8, 16, 32], [16, 32, 64])),
        ('activation="relu" | "gelu"', "model.activation", ("relu", "gelu")),
        ("nesterov=yes|no", "optimizer.nesterov", (True, False)),
        ("batch_size=16|32", "train.batch_size", (16, 32)),
    ],
)
def test_a_space_is_read_as_people_type_it(word: str, field: str, samples: object) -> None:
    (dimension,) = read_space([word], DIGITS).dimensions
    assert (dimension.field, dimension.samples()) == (field, samples)
    assert read_space([f"{field}={dimension}"], DIGITS).dimensions == (dimension,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no field to choose"),
        (["epoks=1..2"], "Did you mean train.epochs?"),
        (["lr=0.1..0.01"], "smaller number first, such as optimizer.lr=0.01..0.1"),
        (["lr=1..1"], "two different numbers"),
        (["lr=log:0..1"], "zero has no logarithm"),
        (["lr=-1..1"], "optimizer.lr = -1.0: expected greater than 0"),
        (["dropout=0..1.5"], "model.dropout = 1.5: expected less than 1"),
        (["lr=a..b"], "expected two numbers with two dots between them"),
        (["lr=0..inf"], "expected two numbers with two dots between them"),
        (["batch_size=1.5..3"], "expected whole numbers"),
        (["activation=1..2"], "expected choices, such as model.activation='relu|leaky-relu'"),
        (["optimizer=sgd|sgdd"], "no such optimizer. Did you mean 'sgd'?"),
        (["optimizer=sgd|"], "expected two or more values"),
        (["optimizer=sgd|SGD"], "is given twice"),
        (["lr=0.1|0.2", "optimizer.lr=0..1"], "given twice"),
        (["optimizer=adam|adamw", "nesterov=true|false"], "no such field in a recipe"),
        (["seed=0..3"], "runs of one recipe differ in it"),
        (["valid=0.1..0.2"], "it decides which images validate"),
        (["select=last|valid.loss"], "it decides by which figure trials are judged"),
        (["execute=eager|native"], "executors round differently"),
        (["test_time=none|flip"], "validation images, which are not augmented"),
        (["log_every=1..3"], "it does not affect the results"),
        (["test_accuracy=0..1"], "it does not affect the results"),
        (["about=a|b"], "it does not affect the results"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_with_what_to_do(words: list[str], said: str) -> None:
    with pytest.raises(HydrofoilError) as raised:
        read_space(words, DIGITS)
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_a_field_that_only_one_optimizer_has_is_checked_with_that_one() -> None:
    words = ["momentum=0.5..0.95", "optimizer=adam|sgd", "lr=log:1e-4..1e-1"]
    space = read_space(words, DIGITS)
    assert space.dimensions[0].field == "optimizer.name"
    assert {d.field for d in space.of(with_values(DIGITS, {"optimizer.name": "adam"}))} == {
        "optimizer.name",
        "optimizer.lr",
    }
    with pytest.raises(HydrofoilError, match="momentum = 1e\\+31"):
        read_space([*words[1:], "momentum=1..1e31"], DIGITS)


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.floats(0, 1))
def test_a_value_of_a_range_is_short_and_inside(low: float, factor: float, share: float) -> None:
    found = Range("optimizer.lr", low, low * factor)
    value = found.as_value(low + share * (found.high - low))
    assert found.low <= value <= found.high
    assert value in found.ends or len(f"{value:e}".partition("e")[0].rstrip("0")) <= 5


def test_a_space_in_python_is_that_of_the_command_line() -> None:
    words = space_words({"lr": "log:1e-3..1e-1", "widths": [[8, 16, 32], (16, 32, 64)]})
    assert read_space(words, DIGITS).dimensions == (
        Range("optimizer.lr", 0.001, 0.1, log=True),
        Choices("model.widths", ([8, 16, 32], [16, 32, 64])),
    )
    for wrong in ({"lr": (0.1, 0.2)}, {"lr": ["a"]}, "lr=0..1"):
        with pytest.raises(HydrofoilError):
            read_space(space_words(wrong), DIGITS)  # type: ignore[arg-type]


def test_what_is_no_range_stays_a_fixed_value() -> None:
    words = ["epochs=3", "data.source=../a|b", "lr=0..1", "root=../x", "widths=8,16,32"]
    assert split_words(words) == (["lr=0..1"], [w for w in words if w != "lr=0..1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits"], "no field to choose"),
        (["digits", "lr=0.1..0.01"], "smaller number first"),
        (["digist", "lr=0..1"], "Did you mean 'digits'"),
        (["digits", "lr=0..1", "epochs=0"], "train.epochs = 0"),
        (["digits", "lr=0..1", "--budget", "soon"], "expected a time with its unit"),
        (["digits", "lr=0..1", "--budget", "-3"], "expected a time"),
    ],
)
def test_mistakes_are_answered_without_importing_torch(arguments: list[str], said: str) -> None:
    code = (
        "import sys; from hydrofoil.cli.main import main\n"
        "try: main(['tune', *sys.argv[1:]])\n"
        "except SystemExit as left: status = left.code\n"
        "heavy = {'torch', 'numpy', 'optuna'} & set(sys.modules)\n"
        "sys.exit(9 if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())


def test_without_optuna_the_error_says_how_to_install_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, errors = cli("tune", "digits", "lr=0.01..0.1")
    assert status == 2
    assert "pip install -e '.[tune]'" in errors
