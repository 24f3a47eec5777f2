"""What a recipe expects over seeds, and where one run lies in it."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

import hydrofoil as hf
from hydrofoil.cli.main import main
from hydrofoil.evaluate.expectation import expected, interval
from hydrofoil.recipe.read import parse_recipe, read_recipe, shipped_recipes
from hydrofoil.recipe.schema import Expect, Recipe

FAST = ["train.epochs=1", "train.execute=eager"]


def measured(*accuracies: float, **fields: Any) -> Expect:
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    return Expect(test_accuracy=mean, spread=spread, accuracies=accuracies, **fields)


def with_expect(recipe: Recipe, expect: Expect) -> Recipe:
    return recipe.model_copy(update={"expect": expect})


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_mean_and_the_spread_of_a_shipped_recipe_are_those_of_its_seeds(name: str) -> None:
    expect = read_recipe(name).expect
    if not expect.seeds:
        return
    assert expect.test_accuracy == pytest.approx(statistics.mean(expect.accuracies), abs=1e-4)
    assert expect.spread == pytest.approx(statistics.stdev(expect.accuracies), abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 10, 31, 32, 60])
def test_the_range_of_one_more_seed_is_that_of_scipy(seeds: int) -> None:
    accuracies = [0.5 + 0.01 * (-1) ** seed for seed in range(seeds)]
    expect = measured(*accuracies)
    assert expect.spread is not None
    assert expect.test_accuracy is not None
    scale = expect.spread * (1 + 1 / seeds) ** 0.5
    low, high = student.interval(0.95, seeds - 1, loc=expect.test_accuracy, scale=scale)
    assert interval(expect) == pytest.approx((low, high), abs=2e-5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1))
def test_a_run_lies_among_the_seeds_as_counting_says(seeds: list[float], accuracy: float) -> None:
    expect = measured(*seeds)
    found = expected(with_expect(read_recipe("digits"), expect), accuracy)
    assert found
    assert found.interval
    assert expect.test_accuracy is not None
    low, high = found.interval
    assert 0 <= low <= expect.test_accuracy + 1e-9
    assert expect.test_accuracy - 1e-9 <= high <= 1
    counted = len([one for one in seeds if accuracy - one > 5e-5])
    assert found.lower == counted
    if expect.spread:
        assert found.deviations == pytest.approx((accuracy - expect.test_accuracy) / expect.spread)
    else:
        assert found.deviations is None


def test_a_changed_recipe_is_not_compared_but_another_seed_is() -> None:
    changed = expected(read_recipe("digits", ["lr=0.5", "seed=7"]), 0.9)
    assert changed
    assert changed.unlike == "changed: optimizer.lr 0.02 → 0.5"
    assert (changed.deviations, changed.lower, changed.interval) == (None, None, None)
    assert changed.mean is not None
    seeded = expected(read_recipe("digits", ["seed=7", "log_every=5"]), 0.9)
    assert seeded
    assert seeded.unlike == ""
    assert seeded.lower == 0


def test_what_a_recipe_of_ones_own_expects_holds_for_the_recipe_as_it_is_written() -> None:
    own = with_expect(read_recipe("digits"), measured(0.5, 0.6)).toml()
    own = own.replace('name = "digits"', 'name = "mine"', 1)
    assert parse_recipe(own, "mine", ["seed=3"]).expect.seeds == 2
    assert parse_recipe(own, "mine", ["lr=0.5"]).expect == Expect()


def test_a_recipe_that_expects_nothing_says_nothing() -> None:
    assert expected(with_expect(read_recipe("digits"), Expect()), 0.9) is None


def own_recipe(folder: Path, expect: Expect) -> Path:
    """A file of a recipe of the user's own that trains in a moment."""
    recipe = with_expect(read_recipe("digits", FAST), expect).model_copy(update={"name": "mine"})
    path = folder / "mine.toml"
    path.write_text(recipe.toml())
    return path


def test_the_terminal_json_and_the_page_say_where_a_run_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_recipe(tmp_path, measured(0.05, 0.06, 0.07, printed=0.9))
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(path), "--run", str(tmp_path / "r"), "--test"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "3 seeds of mine: 6.00% ± 1.00, mean and standard deviation (the original printed 90%)"
        in said
    )
    result = json.loads((tmp_path / "r" / "test.json").read_text())
    accuracy, found = result["accuracy"], result["expected"]
    assert found["deviations"] == pytest.approx((accuracy - 0.06) / 0.01)
    assert found["lower"] == sum(one < accuracy for one in (0.05, 0.06, 0.07))
    side = "above" if accuracy > 0.06 else "below"
    away = f"{abs(accuracy - 0.06) / 0.01:.1f} standard deviations {side} that mean"
    assert f"This run is {away}; {found['lower']} of the 3 were lower." in said
    page = (hf.Run.open(tmp_path / "r").report(tmp_path / "r.html")).read_text("utf-8")
    assert "seeds of mine" in page
    assert "95 in 100 seeds" in page


def test_a_run_that_is_not_finished_or_has_another_split_is_not_compared(tmp_path: Path) -> None:
    path = own_recipe(tmp_path, measured(0.05, 0.06))
    digits = hf.load("digits")
    split = hf.Split(range(1000), range(1000, 1200), range(1200, 1797), digits)
    run = hf.train(path, run=tmp_path / "other", split=split)
    found = run.test().expected
    assert found
    assert found.unlike == "its images were split in another way"
    recipe = (run.path / "recipe.toml").read_text()
    run.files.write("recipe.toml", recipe.replace("epochs = 1\n", "epochs = 3\n").encode())
    found = hf.test(run.path, again=True).expected
    assert found
    assert found.unlike == "1 of 3 epochs are done"


def test_images_that_are_not_the_recipes_are_not_compared(tmp_path: Path) -> None:
    path = own_recipe(tmp_path, measured(0.05, 0.06))
    digits = hf.load("digits")
    other = hf.Pictures(255 - digits.pictures_NCHW, digits.labels_N, digits.classes)
    found = hf.train(path, run=tmp_path / "r", pictures=other).test().expected
    assert found
    assert found.unlike == "it has other images"
