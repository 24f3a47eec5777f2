import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrofoil import HydrofoilError, read_recipe, shipped_recipes
from hydrofoil.recipe import schema
from hydrofoil.recipe.models import LeNet
from hydrofoil.recipe.read import override, recipe_text


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_called_what_its_file_is_called(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.about


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    (tmp_path / "resolved.toml").write_text(recipe.toml(), "utf-8")
    again = read_recipe(str(tmp_path / "resolved.toml"))
    assert again == recipe
    assert again.hash() == recipe.hash()


def test_a_resolved_recipe_names_every_field() -> None:
    document = tomllib.loads(read_recipe("mnist-cnn").toml())
    assert set(document["train"]) == set(schema.Train.model_fields)
    left = {"size", "resident"}  # as published, and as the memory allows
    assert set(document["data"]) == set(schema.Data.model_fields) - left
    assert document["train"]["select"] == "last"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60))
def test_any_text_survives_being_written_as_toml(text: str) -> None:
    recipe = read_recipe("digits").model_copy(update={"about": text})
    assert tomllib.loads(recipe.toml())["about"] == text


@pytest.mark.parametrize(
    "section",
    [schema.Recipe, *(m for top in schema.Recipe.model_fields for m in schema.members(top))],
)
def test_every_field_is_documented_where_it_is_declared(section: type[schema.Fields]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description or name == "name", f"{section.__name__}.{name}"


def test_overrides_reach_any_field_by_its_dotted_name() -> None:
    recipe = read_recipe(
        "mnist-cnn",
        [
            "train.epochs=3",
            "optimizer.lr=.01",
            "data.mean=[0.1]",
            "model.name=lenet",
            "data.root=/a b",
        ],
    )
    assert recipe.train.epochs == 3
    assert recipe.optimizer.lr == 0.01
    assert recipe.data.mean == (0.1,)
    assert recipe.model.name == "lenet"
    assert recipe.data.root == "/a b"


def test_another_model_or_optimizer_leaves_the_files_other_fields_behind() -> None:
    recipe = read_recipe("cifar10-cnn3", ["optimizer.name=adam", "model.name=lenet"])
    assert recipe.model == LeNet(name="lenet")
    assert recipe.optimizer.lr == 0.001  # Adam's own: the file's 0.01 was for SGD
    assert not hasattr(recipe.optimizer, "momentum")
    with pytest.raises(HydrofoilError, match=r"model\.dropout: no such field"):
        read_recipe(
            "cifar10-cnn3", ["model.dropout=0.1", "model.name=lenet"]
        )  # asked for: an error


def test_what_is_held_out_decides_the_default_of_select() -> None:
    assert read_recipe("mnist-cnn").train.select == "last"
    assert read_recipe("mnist-cnn", ["data.valid=0.1"]).train.select == "valid.loss"


MISTAKES = {
    "train.epoch=3": ["train.epoch: no such field", "Did you mean 'epochs'?"],
    "train.epochs=0": ["train.epochs = 0", "expected greater than or equal to 1"],
    "train.epochs=-2": ["train.epochs = -2", "expected"],
    "train.epochs=2.5": ["train.epochs = 2.5", "expected a valid integer"],
    "train.epochs=many": ['train.epochs = "many"', "expected a valid integer"],
    "train.batch_size=0": ["train.batch_size = 0", "expected"],
    "train.batch_size=99999999999999999999": ["train.batch_size", "expected less than"],
    "train.batch_size=true": ["train.batch_size = true", "expected a valid integer"],
    "train.seed=-1": ["train.seed = -1", "expected"],
    "train.select=best": ['train.select = "best"', "'valid.loss'"],
    "train.select=valid.loss": ["data.valid = 0", "Set train.select=last"],
    "model.name=cnnn": ["model.name = 'cnnn'", "Did you mean 'cnn'?"],
    "model.dropout=0.1": ["model.dropout: no such field", "Known: activation, hidden"],
    "model=3": ["model.name = '3'", "no such model"],
    "optimizer.name=sdg": ["optimizer.name = 'sdg'", "Did you mean 'sgd'?"],
    "optimizer.lr=-0.1": ["optimizer.lr = -0.1", "expected greater than 0"],
    "optimizer.lr=inf": ["optimizer.lr", "expected a finite number"],
    "optimizer.momentum=0.9": ["optimizer.momentum: no such field", "betas"],
    "data.std=[0]": ["data.std.0 = 0", "greater than 0"],
    "data.mean=[0.1, 0.2]": ["data.mean has 2 numbers and data.std 1"],
    "data.valid=1.5": ["data.valid = 1.5", "less than 1"],
    "data.color=red": ["data.color: no such field"],
    "epoks=3": ["epoks: no such field", "Did you mean train.epochs?"],
    "epochs=0": ["train.epochs = 0", "expected greater than or equal to 1"],
    "optimizer.lr=1e308": ["optimizer.lr", "expected less than"],
    "data.std={a = 1}": ["expected a list, such as [0.5]"],
    "dtaa.valid=0.1": ["dtaa.valid: no such field", "Did you mean data.valid?"],
    "expect=3": ["expect: a section", "expect.test_accuracy"],
    "optimizer.betas=0.5": ["optimizer.betas = 0.5", "expected a list, such as [0.5]"],
    "data.train=0": ["data.train = 0", "a number of images", "a fraction below 1"],
    "data.train=1.5": ["data.train = 1.5", "a number of images"],
    "name=../evil": ["name", "expected letters, digits"],
    "train.epochs": ["expected FIELD=VALUE"],
    "train.epochs.more=1": ["'epochs' is a field, not a section"],
}  # fmt: skip


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_names_the_field_and_the_cure(override: str) -> None:
    with pytest.raises(HydrofoilError) as caught:
        read_recipe("mnist-cnn", [override])
    message = str(caught.value)
    assert all(part in message for part in MISTAKES[override]), message
    assert len(message.splitlines()) <= 3


def test_several_mistakes_are_counted() -> None:
    with pytest.raises(HydrofoilError, match="1 more"):
        read_recipe("mnist-cnn", ["train.epochs=0", "train.batch_size=0"])


def test_splits_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(HydrofoilError, match=r"data\.valid \+ data\.test = 1"):
        read_recipe("digits", ["data.valid=0.5", "data.test=0.5"])


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(HydrofoilError, match="nesterov"):
        read_recipe("cifar10-lenet", ["optimizer.momentum=0", "optimizer.nesterov=true"])


def test_an_unknown_recipe_is_answered_with_the_nearest_known_one() -> None:
    with pytest.raises(HydrofoilError, match="Did you mean 'mnist-cnn'"):
        read_recipe("mnist-cn")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"name = ", "not TOML"),
        (b"\xff\xfe", "expected UTF-8 text"),
        (b"", "missing"),
        (b'name = "x"\n[data]\nsource="digits"\n[model]\n[train]', "model.name: missing"),
        (None, "cannot be read"),
    ],
)  # fmt: skip
def test_a_broken_recipe_file_is_named(
    content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HydrofoilError, match=complaint) as caught:
        read_recipe(str(path))
    assert "mine.toml" in str(caught.value)


def test_a_recipes_text_is_the_file_with_its_comments() -> None:
    assert "# transforms.Normalize" in recipe_text("cifar10-cnn3")


def test_when_a_run_is_saved_is_no_part_of_what_it_computes() -> None:
    plain = read_recipe("digits")
    free = ["train.save_steps=3", "train.save_seconds=0", "train.log_every=2", "train.epochs=7"]
    assert read_recipe("digits", free).hash() == plain.hash()
    assert read_recipe("digits", ["train.batch_size=3"]).hash() != plain.hash()


def test_every_field_says_what_it_affects() -> None:
    recipe = read_recipe("digits")
    effects = recipe.effects()
    assert set(effects) == {
        *recipe.affecting("weights"), *recipe.affecting("results"), *recipe.affecting("nothing"),
    }  # fmt: skip
    assert {name for name, effect in effects.items() if effect.what == "nothing"} == {
        "name", "about", "data.root", "data.resident",
        "expect.test_accuracy", "expect.spread", "expect.accuracies", "expect.printed",
        "train.log_every", "train.save_steps", "train.save_seconds",
    }  # fmt: skip
    assert effects["train.epochs"].what == "results"
    cosine = override(recipe, ["schedule.name=cosine"])
    assert cosine.effects()["train.epochs"].what == "weights"


def test_the_hash_covers_what_affects_the_weights_and_nothing_else() -> None:
    plain = read_recipe("digits")
    other: dict[str, str] = {
        "name": "x", "about": "x", "data.root": "x", "expect.test_accuracy": "0.5",
        "expect.spread": "0.1", "expect.accuracies": "[0.5]", "expect.printed": "0.5",
        "train.execute": "eager", "train.threads": "3", "train.init": "x", "train.epochs": "9",
        "train.seed": "5", "train.init_sha256": "x", "data.valid": "0.3", "optimizer.lr": "0.5",
        "model.widths": "[3]",
    }  # fmt: skip
    for name, value in other.items():
        changed = override(plain, [f"{name}={value}"])
        differs = plain.effects()[name].what == "weights"
        assert (changed.hash() != plain.hash()) == differs, name
