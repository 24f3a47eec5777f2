"""What people have for a model: a classifier, a run, or a network alone.

Axes: N images.
"""

from pathlib import Path
from typing import Any

from torch import nn

from hydrofoil.data.convert import as_pictures, as_split, kind_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.device import pick_device
from hydrofoil.errors import InputError
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import prepare_network
from hydrofoil.recipe.read import as_recipe
from hydrofoil.recipe.schema import Recipe
from hydrofoil.wording import by

WRAP = (
    "model = hf.Classifier(network, pictures.shape, pictures.classes, "
    "recipe.data.mean, recipe.data.std)"
)


def as_classifier(given: Any) -> Classifier:
    """Return a model to evaluate: a classifier, or a run's best weights.

    Raises:
        InputError: It is a network whose normalization is not known, or no model.
    """
    if isinstance(given, Classifier):
        return given
    if hasattr(given, "load_best"):  # a run, which this stage does not know
        return given.load_best(pick_device("auto"))[0]
    if isinstance(given, nn.Module):
        raise InputError(
            f"{kind_of(given)} as model: expected a Classifier, which normalizes its images and "
            f"names their classes. Wrap it:\n{WRAP}\n"
            "with the mean and std that it was trained with."
        )
    raise not_a_model(given)


def as_trainable(given: Any, pictures: Pictures, recipe: Recipe) -> Classifier:
    """Return a model to train in place: a classifier, or a network with the recipe's normalization.

    Raises:
        InputError: It is no model, or a run.
        HydrofoilError: The network does not take such images.
    """
    if isinstance(given, Classifier):
        return given
    if hasattr(given, "load_best"):
        raise InputError(
            f"{kind_of(given)} as model: expected one to train.\n"
            f"Continue the run with hf.resume(run, epochs={recipe.train.epochs}), "
            "or train its weights apart from it: run.load_best()[0]."
        )
    if not isinstance(given, nn.Module):
        raise not_a_model(given)
    prepare_network(given, pictures.shape, pictures.K, type(given).__name__)
    mean, std = recipe.data.mean or (0.0,), recipe.data.std or (1.0,)
    return Classifier(given, pictures.shape, pictures.classes, mean, std).to(
        next((parameter.device for parameter in given.parameters()), pictures.labels_N.device)
    )


def as_training(
    model: Any, pictures: Any, split: Any, recipe: Any
) -> tuple[Classifier, Pictures, Split, Recipe]:
    """Return what a training is made of, from what people have.

    Raises:
        HydrofoilError: Something is of another kind, or does not fit the rest.
    """
    recipe = as_recipe(recipe)
    if isinstance(model, Classifier):
        found, given = as_pictures(pictures, model.classes), model
        if found.shape != model.shape:
            raise InputError(
                f"images of {by(found.shape)}: expected {by(model.shape)}, as the model takes them."
            )
    else:
        found = as_pictures(pictures)
        given = as_trainable(model, found, recipe)
    return given, found, as_split(split, found), recipe


def not_a_model(given: Any) -> InputError:
    """Return the error for something else where a model is expected."""
    if isinstance(given, type) and issubclass(given, nn.Module):
        return InputError(
            f"the class {given.__name__} as model: expected a model.\n"
            f"Make one: hf.build(recipe, pictures.shape, pictures.classes, {given.__name__})"
        )
    if isinstance(given, str | Path):
        return InputError(
            f"{str(given)!r} as model: expected a Classifier or a Run.\n"
            f"A run is hf.Run.open({str(given)!r}); a new model is "
            "hf.build(recipe, pictures.shape, pictures.classes)."
        )
    if isinstance(given, Recipe):
        return InputError(
            "a Recipe as model: expected a Classifier.\n"
            "Make one: hf.build(recipe, pictures.shape, pictures.classes)"
        )
    return InputError(f"{kind_of(given)} as model: expected a Classifier or a Run.")
