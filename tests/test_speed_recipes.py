"""The recipes for accuracy in little time, on generated images of their datasets' shapes."""

import pytest
import torch

from hydrofoil import Pictures, Run, read_recipe, train
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.models import build
from hydrofoil.train.schedules import rates

SPEEDNETS = ("cifar10-fast", "cifar10-94", "cifar10-96", "cifar100-70", "mnist-997", "fashion-95")
# Widths are what the recipes cost: narrow networks run the same code in a second.
QUICK = {"execute": "eager", "precision": "float32", "batch_size": 20}


def generated(source: str) -> Pictures:
    """Return a few random images of a published dataset's shape and classes."""
    shape, classes = SOURCES[source].shape, SOURCES[source].classes
    draw = torch.Generator().manual_seed(1)
    pixels_NCHW = torch.randint(0, 256, (160, *shape), generator=draw, dtype=torch.uint8)
    names = tuple(map(str, range(classes)))
    return Pictures(pixels_NCHW, torch.arange(160) % classes, names, source, published_test=40)


@pytest.mark.parametrize("name", [*SPEEDNETS, "mnist-99"])
def test_a_speed_recipe_trains_and_tests_on_images_of_its_datasets_shape(name: str) -> None:
    narrow = {"widths": (4, 4)} if name == "mnist-99" else {"widths": (4, 6, 8)}
    run = train(
        name, {**QUICK, **narrow, "epochs": 2}, pictures=generated(read_recipe(name).data.source),
        run="r", test=True,
    )  # fmt: skip
    result = Run.open("r").results.test()
    assert result
    assert result.count == 40
    expected = read_recipe(name).augment.test_time
    assert (result.test_time is not None) == (expected != "none")
    assert run.recipe.data.source == read_recipe(name).data.source


@pytest.mark.parametrize("name", SPEEDNETS)
def test_a_speed_recipes_network_answers_its_classes(name: str) -> None:
    recipe = read_recipe(name)
    source = SOURCES[recipe.data.source]
    model = build(recipe, source.shape, [""] * source.classes).eval()
    pixels_NCHW = generated(recipe.data.source).pictures_NCHW[:2]
    assert model(pixels_NCHW).shape == (2, source.classes)


@pytest.mark.parametrize("name", [*SPEEDNETS, "mnist-99"])
def test_a_speed_recipes_rate_ends_at_nearly_zero(name: str) -> None:
    recipe = read_recipe(name)
    assert rates(recipe, 100, recipe.train.epochs)[-1] < 0.002 * recipe.optimizer.lr


@pytest.mark.parametrize("name", ["mnist-99", "mnist-997"])
def test_recipes_of_digits_mirror_nothing(name: str) -> None:
    assert read_recipe(name).augment.flip == "none"
