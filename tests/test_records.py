"""The README's figures are those in records/; slow tests train the recipes again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hydrofoil import build, draw_split, fit, load, read_recipe, score
from tests.conftest import REAL_RECIPES

ROOT = Path(__file__).parents[1]
BARS = {
    "cifar10-lenet": 0.52,
    "cifar10-cnn3": 0.64,
    "mnist-mlp": 0.976,
    "cifar10-lenet-linear": 0.53,
    "mnist-cnn": 0.98,
}
REAL_DATA = os.environ.get("HYDROFOIL_DATA", "")  # read before any fixture hides it


def summaries() -> dict[str, dict[str, Any]]:
    (path,) = (ROOT / "records").glob("*-five-tutorials/summary.json")
    return {one["recipe"]: {**one, "folder": path.parent} for one in json.loads(path.read_text())}


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_recorded_mean_of_three_seeds_reaches_the_tutorial(name: str) -> None:
    one = summaries()[name]
    tests = []
    for seed in range(3):
        folder = one["folder"] / f"{name}-{seed}"
        tests.append(json.loads((folder / "test.json").read_text()))
        recipe = read_recipe(str(folder / "recipe.toml"))
        assert recipe.hash() == read_recipe(name, [f"train.seed={seed}"]).hash()
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert sum(event["event"] == "epoch" for event in events) == recipe.train.epochs
    assert one["test_accuracy"] == [test["correct"] / test["count"] for test in tests]
    assert one["mean"] == pytest.approx(sum(one["test_accuracy"]) / 3)
    assert one["mean"] >= BARS[name]


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_readme_quotes_the_record(name: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{name}`")]
    assert f"{100 * summaries()[name]['mean']:.2f}%" in row


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="needs the real sets under HYDROFOIL_DATA")
@pytest.mark.parametrize("name", ["cifar10-lenet", "cifar10-lenet-linear", "mnist-cnn"])
def test_the_mean_of_ten_seeds_of_a_short_recipe_reaches_what_it_expects(name: str) -> None:
    # Seeds of the two-epoch recipes differ by two points, so three would not be enough.
    accuracies: list[float] = []
    for seed in range(10):
        recipe = read_recipe(name, [f"train.seed={seed}"])
        pictures = load(recipe.data.source, REAL_DATA)
        split = draw_split(pictures, **recipe.split_options())
        model = build(recipe, pictures.shape, pictures.classes)
        list(fit(model, pictures, split, recipe))
        accuracies.append(score(model, pictures, split.test).accuracy)
    assert sum(accuracies) / 10 >= BARS[name], accuracies
