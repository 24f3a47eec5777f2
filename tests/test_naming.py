"""What people type for a field: short names, dashes, other words, sections, and Python's values."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrofoil import HydrofoilError, read_recipe
from hydrofoil.recipe.changes import changed_fields, optimizer_notes
from hydrofoil.recipe.naming import field_names, full_name, overrides_of, short_names
from tests.conftest import Cli

UNIQUE = [name for name in field_names() if len(short_names()[name.rpartition(".")[2]]) == 1]


@given(st.sampled_from(UNIQUE), st.sampled_from([str.upper, str.lower, str.title]), st.booleans())
def test_every_spelling_of_a_field_names_it(name: str, case: type[str], dashes: bool) -> None:
    last = name.rpartition(".")[2]
    for typed in (name, last):
        spelled = case(typed.replace("_", "-") if dashes else typed)
        expected = "name" if typed == "name" else name
        assert full_name(spelled) == expected


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("learning_rate", "optimizer.lr"), ("optimizer.learning-rate", "optimizer.lr"),
        ("batch", "train.batch_size"), ("optimizer", "optimizer.name"), ("model", "model.name"),
        ("schedule", "schedule.name"), ("dataset", "data.source"), ("name", "name"),
        ("train.epoks", "train.epoks"),
    ],
)  # fmt: skip
def test_other_words_for_a_field(typed: str, name: str) -> None:
    assert full_name(typed) == name


def test_a_mistyped_short_name_is_answered_with_the_nearest_field() -> None:
    with pytest.raises(HydrofoilError, match=r"epoks: no such field .* train\.epochs\?"):
        full_name("epoks")
    with pytest.raises(HydrofoilError, match="hydrofoil recipes --fields"):
        full_name("zebra")


def test_short_names_give_the_recipe_of_the_long_ones() -> None:
    short = ["epochs=3", "learning_rate=.5", "batch-size=16", "hidden=32", "optimizer=sgd"]
    long = ["train.epochs=3", "optimizer.lr=0.5", "train.batch_size=16", "model.hidden=[32]"]
    assert read_recipe("digits", short) == read_recipe("digits", long)


def test_python_values_become_overrides() -> None:
    fields = {
        "epochs": np.int64(5), "lr": np.float64(0.25), "hidden": (64, 32), "source": "mnist",
        "root": Path("a b"), "merge": True, "mean": np.array([0.5]),
    }  # fmt: skip
    recipe = read_recipe("digits", overrides_of(fields))
    assert (recipe.train.epochs, recipe.optimizer.lr, recipe.data.merge) == (5, 0.25, True)
    assert recipe.model.hidden == (64, 32)  # type: ignore[union-attr]
    assert (recipe.data.source, recipe.data.root, recipe.data.mean) == ("mnist", "a b", (0.5,))
    with pytest.raises(HydrofoilError, match=r"lr = .*: expected a string, a number"):
        overrides_of({"lr": object()})
    with pytest.raises(HydrofoilError, match=r"Did you mean optimizer\.lr"):
        overrides_of({"lrr": 1})


def test_another_optimizer_starts_from_its_own_defaults_and_this_is_said() -> None:
    base, adam = read_recipe("digits"), read_recipe("digits", ["optimizer=adam"])
    assert (adam.optimizer.lr, adam.optimizer.weight_decay) == (0.001, 0.0)
    (line,) = optimizer_notes(base, adam)
    assert line == (
        "optimizer.lr = 0.001, adam's default: the recipe's 0.02 was for sgd; "
        "sgd's momentum 0.9, nesterov and weight_decay 0.002 are dropped."
    )
    given = ["optimizer=adam", "lr=0.02", "weight_decay=0.1"]
    (line,) = optimizer_notes(base, read_recipe("digits", given), given)
    assert line.startswith(
        "optimizer.lr = 0.02, as given; sgd's momentum 0.9 and nesterov are dropped"
    )
    assert not optimizer_notes(base, read_recipe("digits", ["lr=0.5", "optimizer=sgd"]))


def test_switching_to_an_optimizer_and_back_is_its_default() -> None:
    assert read_recipe("mnist-cnn", ["optimizer=sgd"]).optimizer.lr == 0.001  # torch's


def test_changed_fields_are_those_that_differ_and_count() -> None:
    base = read_recipe("digits")
    changed = read_recipe("digits", ["epochs=3", "about=mine", "optimizer=adam"])
    assert changed_fields(base, changed) == {
        "train.epochs": (40, 3), "optimizer.name": ("sgd", "adam"), "optimizer.lr": (0.02, 0.001),
        "optimizer.weight_decay": (0.002, 0.0),
    }  # fmt: skip


def test_a_whole_section_as_one_override_is_read_and_described_as_its_fields_are() -> None:
    section = ['optimizer={name="adam", lr=0.1}']
    adam = read_recipe("digits", section)
    assert adam == read_recipe("digits", ["optimizer=adam", "lr=0.1"])
    (line,) = optimizer_notes(read_recipe("digits"), adam, section)
    assert line.startswith("optimizer.lr = 0.1, as given;")


def test_a_whole_section_is_taken_on_the_command_line(cli: Cli) -> None:
    status, _, errors = cli("show", "digits", "expect={test_accuracy=0.9}")
    assert (status, errors) == (0, "")
