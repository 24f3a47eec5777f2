"""Recipes that are derived from a set: the choices, their reasons, and the training."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hydrofoil as hf
from hydrofoil.cli.main import main
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.errors import HydrofoilError
from hydrofoil.models import build
from hydrofoil.models.derived import derived_from, recipe_of
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.observe.notebook import NotebookProgress
from hydrofoil.recipe import derive as rules
from hydrofoil.recipe.derive import GIVEN, Derived, Facts, derive, name_of
from hydrofoil.recipe.read import parse_recipe, shipped_recipes, source_of
from hydrofoil.recipe.schema import Recipe, dotted
from hydrofoil.recipe.source import DATASETS
from hydrofoil.run.events import RecipeDerived
from tests.sets import CLASSES, write_folder

PARTS = {"valid": 0.1, "test": 0.2}
QUICK = ("epochs=2", "widths=4,8", "execute=eager")


def derived(facts: Facts, *overrides: str) -> Derived:
    def multiply_adds(recipe: Recipe) -> int:
        network = build(recipe, facts.shape, [""] * facts.classes).network
        return total_multiply_adds(network, facts.shape)

    return derive("./pets", facts, overrides, multiply_adds=multiply_adds)


def values(found: Derived) -> dict[str, object]:
    return dotted(found.recipe.model_dump(mode="json"))


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    output = capsys.readouterr()
    assert not end.value.code, output.err
    return output.out, output.err


# ── the choices ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts((3, 16, 16), 2, 4, {}), {"train.batch_size": 4, "train.epochs": 80}),
        (Facts((1, 8, 8), 10, 1258, PARTS), {"model.widths": [16, 32, 64]}),
        (Facts((3, 64, 64), 5, 1400, PARTS), {"model.widths": [8, 16, 32, 64]}),
        (Facts((3, 3, 90), 5, 1400, PARTS), {"model.name": "mlp"}),
        (Facts((3, 32, 32), 100, 45_000, {}), {"train.batch_size": 64}),
        (Facts((3, 32, 32), 3, 350, PARTS), {"train.batch_size": 32}),
        (Facts((1, 28, 28), 2, 1, {}), {"train.batch_size": 1}),
    ],
)
def test_choices_follow_the_facts(facts: Facts, expected: dict[str, object]) -> None:
    found = values(derived(facts))
    assert {name: found[name] for name in expected} == expected


@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    classes=st.integers(2, 300),
    images=st.integers(1, 10**6),
    parts=st.sampled_from([{}, PARTS, {"valid": 0.0, "test": 0.2}]),
)
@settings(max_examples=40, deadline=None)
def test_every_set_gets_a_recipe_that_fits_its_images(
    channels: int, height: int, width: int, classes: int, images: int, parts: dict[str, float]
) -> None:
    facts = Facts((channels, height, width), classes, images, parts)
    found = derived(facts)
    assert found.recipe.train.batch_size <= images
    assert found.recipe.train.epochs >= 1
    for choice in found.choices:
        assert choice.reason
        assert json.loads(choice.value) == values(found)[choice.field]


@pytest.mark.parametrize("side", [8, 28, 32, 64, 128])
@pytest.mark.parametrize("images", [200, 2000])
def test_the_multiply_adds_of_a_small_set_fit_the_time_budget(side: int, images: int) -> None:
    facts = Facts((3, side, side), 10, images, {})
    recipe = derived(facts).recipe
    network = build(recipe, facts.shape, [""] * 10).network
    forward_and_back = 3 * total_multiply_adds(network, facts.shape)
    assert recipe.train.epochs * images * forward_and_back / rules.RATE <= rules.BUDGET_SECONDS
    assert recipe.train.epochs >= 5


def test_an_own_value_is_kept_and_what_depends_on_it_follows() -> None:
    facts = Facts((3, 64, 64), 5, 2000, PARTS)
    plain, changed = derived(facts), derived(facts, "widths=96,96,96", "lr=0.02")
    assert changed.recipe.optimizer.lr == 0.02
    assert changed.recipe.train.epochs < plain.recipe.train.epochs
    reasons = {choice.field: choice.reason for choice in changed.choices}
    assert reasons["model.widths"] == reasons["optimizer.lr"] == GIVEN
    assert derived(facts, "epochs=7").recipe.train.epochs == 7


def test_another_network_or_optimizer_leaves_no_reason_of_ours_at_its_own_values() -> None:
    facts = Facts((3, 32, 32), 5, 2000, PARTS)
    found = derived(facts, "model=lenet", "optimizer=sgd")
    reasons = {choice.field: choice.reason for choice in found.choices}
    assert reasons["model.name"] == reasons["optimizer.name"] == GIVEN
    assert "model.widths" not in reasons
    assert found.recipe.optimizer.lr >= 0.01  # not AdamW's
    assert reasons["optimizer.momentum"]


def test_the_recipe_does_not_depend_on_the_seed() -> None:
    facts = Facts((3, 32, 32), 5, 2000, PARTS)
    first, second = (values(derived(facts, f"seed={seed}")) for seed in (1, 2))
    assert {name for name in first if first[name] != second[name]} == {"train.seed"}


@given(st.text(max_size=300))
def test_every_source_gives_a_name_that_recipes_may_have(source: str) -> None:
    name = name_of(source)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert len(name) <= 80
    assert name not in shipped_recipes()


# ── what a name stands for ───────────────────────────────────────────────────────────────────────


def test_the_names_of_published_datasets_are_those_of_the_catalogue() -> None:
    assert list(DATASETS) == list(SOURCES)


def test_recipes_come_before_datasets_and_datasets_before_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mnist", "pets"):
        Path(name).mkdir()
    found = [source_of(name) for name in ("digits", "mnist", "MNIST", "pets", "./mnist", "pest")]
    assert found == ["", "mnist", "mnist", "./pets", "./mnist", ""]


def test_a_run_is_not_a_source(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(HydrofoilError, match="a run, where a recipe or images were expected"):
        source_of(str(tmp_path))


def test_two_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HydrofoilError, match="given twice"):
        recipe_of(str(write_folder(tmp_path / "pets", 2)), ["data=./dogs"])
    with pytest.raises(HydrofoilError, match="given twice"):
        hf.train(tmp_path / "pets", pictures=hf.load("digits"))


# ── from images to a tested model ────────────────────────────────────────────────────────────────


def test_a_folder_becomes_a_tested_model_with_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 20)
    output, _ = run_cli(capsys, "train", "./pets", *QUICK, "--test")
    rows = [line for line in output.splitlines() if line.startswith(("norm", "epochs"))]
    assert [row.split()[:2] for row in rows] == [["norm", "batch"], ["epochs", "2"]]
    assert rows[1].endswith(GIVEN)
    assert "test accuracy" in output
    run = hf.Run.open("runs/pets-1")
    logged = [event for event in run.log.events() if isinstance(event, RecipeDerived)]
    assert ("train.epochs", "2", GIVEN) in logged[0].choices
    run_cli(capsys, "report", "runs/pets-1")
    assert "Why this recipe" in Path("runs/pets-1/report.html").read_text("utf-8")


def test_a_printed_recipe_trains_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 10)
    text, notes = run_cli(capsys, "new", "./pets", *QUICK)
    assert "reason" in notes
    assert re.search(r"^epochs = 2 +# your choice$", text, re.MULTILINE)
    Path("mine.toml").write_text(text, "utf-8")
    assert parse_recipe(text, "mine.toml") == recipe_of("./pets", QUICK).recipe
    run_cli(capsys, "train", "mine.toml", "--run", "a")
    run_cli(capsys, "train", "pets", *QUICK, "--run", "b")
    first, second = (hf.Run.open(name) for name in "ab")
    assert first.recipe == second.recipe
    assert first.model.weights_hash() == second.model.weights_hash()


def test_the_folder_one_is_in_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_folder(tmp_path / "pets", 3))
    assert recipe_of(".").recipe.name == recipe_of("../pets/").recipe.name == "pets"


def test_a_published_set_of_a_recipes_name_gets_a_recipe_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, _ = run_cli(capsys, "new", "digits")
    recipe = parse_recipe(text, "new")
    assert (recipe.name, recipe.data.source) == ("digits-images", "digits")
    mean = hf.load("digits").pictures_NCHW.double().mean().item() / 255
    assert recipe.data.mean == pytest.approx((mean,), abs=1e-4)


def test_json_has_the_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 6)
    for words in (("new",), ("train",), ("show",)):
        output, _ = run_cli(capsys, *words, "./pets", *QUICK, "--json")
        choices = {one["field"]: one for one in json.loads(output)["choices"]}
        assert choices["train.epochs"] == {
            "field": "train.epochs", "value": "2", "reason": GIVEN,
        }  # fmt: skip


def test_a_derived_recipe_is_compared_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 10)
    words = ("./pets", *QUICK, "--seeds", "2")
    assert "verdict" in run_cli(capsys, "compare", "./pets", "b.lr=0.1", *words)[0]
    assert "ready" in run_cli(capsys, "compare", words[0], *words, "b.lr=0.1")[0]


def test_a_folder_without_anything_is_not_a_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(HydrofoilError, match="contains no runs"):
        hf.compare("empty", "b.lr=1")


def test_a_set_with_parts_of_its_own_keeps_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", 6, ("train", "val", "test"))
    found = recipe_of(str(folder))
    assert (found.recipe.data.valid, found.recipe.data.test) == (0.0, 0.0)
    assert found.recipe.about.startswith("derived from")
    assert "18 training images" in found.recipe.about


def test_a_set_of_six_images_and_a_class_of_one_image_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 2)
    Path("pets/cat/1.png").unlink()
    assert len(hf.train("./pets", epochs=1).epochs()) == 1


def test_images_in_memory_are_trained_without_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (60, 12, 12, 3), np.uint8), ["a", "b", "c"] * 20
    run = hf.train(hf.Pictures(images, labels), epochs=1, test=True)
    assert run.path.name == "images-1"
    assert run.recipe.data.mean != (0.0,)
    assert run.results.test() is not None
    pair = hf.train((images, labels), epochs=1)
    assert pair.recipe == run.recipe
    assert pair.test().count == 12
    with pytest.raises(HydrofoilError, match="given in Python"):
        hf.test("images-1", again=True)


def test_given_parts_say_how_many_images_train() -> None:
    pictures = hf.load("digits")
    split = hf.Split(range(100), range(100, 150), range(150, 200), pictures)
    assert "100 training images" in derived_from(pictures, split=split).recipe.about


def test_the_own_network_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_folder(Path("pets"), 6)

    def net(channels: int, classes: int):
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, classes))

    run = hf.train(source, model=net, epochs=1)
    assert run.recipe.model.name == "custom"
    assert run.model.classes == CLASSES


@pytest.mark.parametrize("name", ["a b", "-x", "ünï", "#1", "'; rm", 'q"uote', "con", "digits"])
def test_hostile_folder_names_are_sources_like_others(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path(name), 4)
    text, _ = run_cli(capsys, "new", f"./{name}", *QUICK)
    assert parse_recipe(text, "new").data.source == f"./{name}"
    output, _ = run_cli(capsys, "train", f"./{name}", *QUICK, "--json")
    assert Path(json.loads(output)["run"]).is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("new", "mnist-cnn"), "a recipe, where images were expected"),
        (("new", "pest"), "unknown recipe 'pest'"),
        (("train", "./pest"), "no such file or folder"),
        (("train", "./pets", "epoks=3"), "no such field"),
        (("train", "./pets", "epochs=0"), "train.epochs = 0"),
        (("import", "./pets", "x.pt"), "hydrofoil train ./pets"),
    ],
)
def test_wrong_words_are_answered(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("pets"), 2)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_notebook_shows_why_the_recipe_is_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    progress = NotebookProgress()
    monkeypatch.setattr(progress.display, "show", lambda html, text: shown.append(str(html)))
    hf.train(write_folder(Path("pets"), 4), list(QUICK), observers=[progress])
    assert "why this recipe" in shown[-1]
    assert GIVEN in shown[-1]


def test_a_class_with_many_times_the_images_of_another_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets", 8)
    for number in range(3, 8):
        (folder / "cat" / f"{number}.png").unlink()
    found = {choice.field: choice for choice in recipe_of(str(folder)).choices}
    assert "train.balance" not in found  # 8 images and 3
    (folder / "cat" / "2.png").unlink()
    found = {choice.field: choice for choice in recipe_of(str(folder)).choices}
    assert "4 times" in found["train.balance"].reason
