"""The benchmark of the wish list: what is useful, what is kept, and the page that is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import wishes

import hydrofoil as hf
from hydrofoil import HydrofoilError

BASE = (0.60, 0.61, 0.62)


def run(wish: wishes.Wish, seed: int, valid: float, test: float) -> dict[str, Any]:
    return {
        "wish": wish.name, "seed": seed, "fields": list(wish.fields), "valid_accuracy": valid,
        "test_accuracy": test, "seconds": 12.0, "executor": "native", "device": "a CPU",
    }  # fmt: skip


def keep(record: Path, wish: wishes.Wish, gains: tuple[float, ...], test: float = 0.0) -> None:
    """Store a run for each seed: the recipe's accuracy and a gain."""
    for seed, (base, gain) in enumerate(zip(BASE, gains, strict=True)):
        path = wishes.file_of(record, wish, 10, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run(wish, seed, base + gain, base + gain + test)))


def wish(name: str) -> wishes.Wish:
    return next(one for one in wishes.WISHES if one.name == name)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    keep(tmp_path, wishes.ALONE, (0, 0, 0))
    keep(tmp_path, wish("flip"), (0.02, 0.021, 0.019))
    keep(tmp_path, wish("wider"), (0.02, 0.022, 0.021))
    keep(tmp_path, wish("deeper"), (0.01, 0.011, 0.01))
    keep(tmp_path, wish("l1"), (-0.02, 0.03, 0.001), test=0.1)
    keep(tmp_path, wish("double-epochs"), (0.04, 0.041, 0.04))
    return tmp_path


def test_the_best_of_each_kind_is_useful_if_validation_shows_it_and_epochs_are_none(
    record: Path,
) -> None:
    runs = wishes.stored(record, [wishes.ALONE, *wishes.WISHES], 10, 3)
    assert [one.name for one in wishes.useful(runs, wishes.WISHES)] == ["flip", "wider"]


def test_the_useful_ones_together_set_what_each_sets_and_the_later_wins(record: Path) -> None:
    rows = wishes.all_wishes(record, [wishes.ALONE, *wishes.WISHES], 10, 3)
    both, longer = rows[-2:]
    assert both.name == "together"
    assert set(both.fields) == {*wish("flip").fields, *wish("wider").fields}
    assert wishes.epochs_of(longer, 10) == 20
    clash = wishes.together([wish("batch-64"), wish("one-cycle"), wish("lr-double")])
    assert [field for field in clash.fields if field.startswith("lr=")] == ["lr=0.02"]


def test_the_page_has_a_row_and_a_sentence_for_each_wish_that_was_trained(record: Path) -> None:
    rows = wishes.all_wishes(record, [wishes.ALONE, *wishes.WISHES], 10, 3)
    page = wishes.page(record, rows, 10, 3)
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line[:1] == "|"}
    trained = {"recipe", "flip", "wider", "deeper", "l1", "double-epochs"}
    assert lines.keys() - {"wish", "---"} == trained
    assert "| 63.00 | 63.00 | +2.00 (+1.75 to +2.25) | 12 | 3 |" in lines["flip"]
    assert "epochs × 2" in lines["double-epochs"]
    for name in trained - {"recipe"}:
        assert f"* **{name}.** " in page
    assert "[convolution](glossary.md)" in page


def test_what_is_done_is_not_trained_again_and_an_unknown_field_is_reported(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def train(one: wishes.Wish, epochs: int, seed: int) -> dict[str, Any]:
        trained.append((one.name, seed))
        if one.name == "muon":
            raise HydrofoilError("muon: no such optimizer.")
        return run(one, seed, 0.5, 0.5)

    monkeypatch.setattr(wishes, "train", train)
    chosen = [wishes.ALONE, wish("flip"), wish("gelu"), wish("muon")]
    done, refused = wishes.play(record, chosen, 10, 3, float("inf"))
    assert trained == [("gelu", 0), ("muon", 0), ("gelu", 1), ("gelu", 2)]
    assert (done, refused) == (True, {"muon": "muon: no such optimizer."})
    trained.clear()
    assert wishes.play(record, chosen[:3], 10, 3, float("inf")) == (True, {})
    assert wishes.play(record, [wish("silu")], 10, 3, 0.0) == (False, {})
    assert trained == []


def test_another_setting_of_a_wish_has_files_of_its_own(tmp_path: Path) -> None:
    flip = wish("flip")
    other = wishes.Wish("flip", "flip", "", ("augment.flip=alternating",))
    assert wishes.file_of(tmp_path, flip, 10, 0) != wishes.file_of(tmp_path, other, 10, 0)
    assert wishes.file_of(tmp_path, flip, 10, 0) != wishes.file_of(tmp_path, flip, 50, 0)


@pytest.mark.parametrize("one", wishes.WISHES, ids=lambda one: one.name)
def test_a_wish_is_a_recipe(one: wishes.Wish) -> None:
    changed = hf.read_recipe(wishes.RECIPE, list(one.fields))
    assert (changed != hf.read_recipe(wishes.RECIPE)) == bool(one.fields)
