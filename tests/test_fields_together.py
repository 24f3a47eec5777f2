"""Fields of a recipe that meet: averages, early ends, augmentation, precision, budgets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hydrofoil as hf
from hydrofoil.recipe.changes import changes_text
from hydrofoil.train.budget import Costs
from hydrofoil.train.executors import expected

EAGER = ("execute=eager", "train=200")


def parts(*overrides: str) -> tuple[hf.Recipe, hf.Pictures, hf.Split]:
    recipe = hf.read_recipe("digits", [*EAGER, *overrides])
    pictures = hf.load("digits")
    return recipe, pictures, hf.draw_split(pictures, **recipe.split_options())


def test_a_training_that_stopped_early_and_is_kept_without_its_state_opens_again() -> None:
    recipe, pictures, split = parts("epochs=9", "patience=1", "lr=2", "select=valid.loss")
    model = hf.build(recipe, pictures.shape, pictures.classes)
    epochs = list(hf.fit(model, pictures, split, recipe))
    assert len(epochs) < 9
    with pytest.warns(UserWarning, match="were not given"):
        hf.keep(model, pictures, split, recipe, epochs, run="r")
    assert hf.Run.open("r").recipe.train.patience == 0


def test_a_kept_model_with_a_mean_of_its_own_resumes_bit_identically_with_cutout() -> None:
    recipe, pictures, split = parts("epochs=2", "cutout=4", "select=last")
    runs = []
    for first in (1, 2):
        network = hf.build(recipe, pictures.shape, pictures.classes).network
        model = hf.Classifier(network, pictures.shape, pictures.classes, (0.5,), (0.4,))
        state, epochs = hf.State.fresh(model, recipe), []
        for epoch in hf.fit(model, pictures, split, recipe, state=state):
            epochs.append(epoch)
            if epoch.number == first:
                break
        runs.append(hf.keep(model, pictures, split, recipe, epochs, state=state, run=f"r{first}"))
    hf.resume("r1", pictures=pictures)
    hashes = {hf.Run.open(run.path).model.weights_hash() for run in runs}
    assert len(hashes) == 1


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_prove_compares_the_steps_of_a_last_epoch_that_ends_early(execute: str) -> None:
    recipe, pictures, split = parts("epochs=2", "train.last_steps=3", "select=last")
    model = hf.build(recipe, pictures.shape, pictures.classes)
    state = hf.State.fresh(model, recipe)
    epochs = [next(hf.fit(model, pictures, split, recipe, state=state))]
    hf.keep(model, pictures, split, recipe, epochs, state=state, run="r")
    assert not hf.prove("r", execute=execute).differing


def test_a_budget_with_early_stopping_and_sizes_is_planned() -> None:
    run = hf.train(
        "digits", ["model.name=speednet", "widths=[4]", "sizes=[8,8]", "patience=1", "lr=1",
                   "select=valid.loss", *EAGER],
        run="r", budget="8s",
    )  # fmt: skip
    assert run.recipe.train.patience == 1
    assert run.epochs()


@given(epochs=st.integers(1, 60), start=st.floats(0, 0.99), late=st.floats(0, 5))
def test_each_epoch_that_swa_averages_costs_its_pass(
    epochs: int, start: float, late: float
) -> None:
    plain = Costs(10, (0.1,), 0.2, 1.0, 2.0)
    averaged = Costs(10, (0.1,), 0.2, 1.0, 2.0, late_seconds=late, late_start=start)
    text = f"train.swa_start={start}"
    spec = hf.read_recipe("digits", ["average=swa", text, f"epochs={epochs}"]).train
    counted = epochs - spec.swa_after
    assert averaged.seconds(epochs) - plain.seconds(epochs) == pytest.approx(counted * late)


def test_a_kept_run_names_the_precision_that_auto_stands_for() -> None:
    recipe, pictures, split = parts("epochs=1", "precision=auto", "select=last")
    model = hf.build(recipe, pictures.shape, pictures.classes)
    epochs = list(hf.fit(model, pictures, split, recipe))
    run = hf.keep(model, pictures, split, recipe, epochs, run="r")
    assert hf.Run.open(run.path).recipe.train.precision == "float32"  # cnn3 runs natively


def test_test_time_augmentation_is_no_change_of_what_a_recipe_trains() -> None:
    assert changes_text(hf.read_recipe("digits", ["test_time=flip"])) == ""
    assert "epochs" in changes_text(hf.read_recipe("digits", ["test_time=flip", "epochs=3"]))


@pytest.mark.parametrize("field", ["clip=1", "precision=bfloat16", "sizes=[8]", "mixup=0.2"])
def test_there_is_no_c_for_a_recipe_that_native_refuses(field: str) -> None:
    model = ["model.name=speednet"] if "sizes" in field else []
    line, code = expected(hf.read_recipe("digits", [*model, field]), torch.device("cpu"))
    assert "native is not available" in line
    assert not code


def test_a_shorter_last_epoch_makes_the_weights_depend_on_the_number_of_epochs() -> None:
    short, long = (
        hf.read_recipe("digits", ["train.last_steps=3", f"epochs={count}"]) for count in (2, 5)
    )
    assert short.hash() != long.hash()
