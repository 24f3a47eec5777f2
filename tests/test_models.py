import math
from typing import get_args

import literal
import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

from hydrofoil import Classifier, HydrofoilError, Recipe, build, read_recipe, summarize
from hydrofoil.models import MODELS
from hydrofoil.models.layers import Dropout, dropouts, set_draws
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.randomness import key, uniform_bits
from tests.conftest import REAL_RECIPES

CLASSES = tuple("abcdefghij")
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def recipe_with(model: str, *overrides: str) -> Recipe:
    return read_recipe("mnist-cnn", [f"model.name={model}", *overrides])


def built(name: str, seed: int = 0) -> Classifier:
    recipe = read_recipe(name, [f"train.seed={seed}"])
    return build(recipe, SHAPES[recipe.data.source], CLASSES)


def test_the_recipe_schema_names_the_models_that_there_are() -> None:
    union = get_args(Recipe.model_fields["model"].annotation)
    names = {tag for m in union for tag in get_args(m.model_fields["name"].annotation)}
    assert names == {*MODELS, "custom"}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 24)])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_forwards_and_every_weight_gets_a_gradient(
    model: str, shape: tuple[int, int, int]
) -> None:
    tiny = ["model.architecture=test_efficientnet"] if model == "timm" else []
    classifier = build(recipe_with(model, *tiny), shape, CLASSES[:7])
    pictures = torch.randint(256, (5, *shape), dtype=torch.uint8)
    layers = dropouts(classifier.network)
    set_draws(layers, torch.zeros(len(layers), 2, dtype=torch.int32))
    logits = classifier(pictures)
    assert logits.shape == (5, 7)
    logits.square().sum().backward()
    for name, parameter in classifier.network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_state_dicts_go_both_ways_between_a_tutorials_class_and_ours(name: str) -> None:
    theirs, ours = literal.TUTORIALS[name].network(), built(name)
    ours.load_weights(theirs.state_dict())
    pictures = torch.randint(256, (6, *ours.shape), dtype=torch.uint8)
    as_float = torch.stack(
        [
            literal.TUTORIALS[name].transform(picture.permute(1, 2, 0).numpy())
            for picture in pictures
        ]
    )
    assert torch.equal(ours.eval()(pictures), theirs.eval()(as_float))
    fresh = literal.TUTORIALS[name].network()
    fresh.load_state_dict(ours.network.state_dict())
    assert torch.equal(fresh.eval()(as_float), theirs(as_float))


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_initial_weights_are_what_the_tutorials_class_draws(name: str) -> None:
    ours = built(name, seed=5)
    torch.manual_seed(key(5, "weights"))
    theirs = literal.TUTORIALS[name].network()
    for parameter, tensor in theirs.state_dict().items():
        assert torch.equal(ours.network.state_dict()[parameter], tensor)


def test_building_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    built("mnist-cnn")
    assert torch.equal(torch.rand(1), expected)


def test_normalization_is_torchvisions_to_the_last_bit() -> None:
    classifier = built("cifar10-lenet")
    pictures = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    theirs = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for picture, ours in zip(pictures, classifier.normalize(pictures), strict=True):
        assert torch.equal(ours, theirs(transforms.ToTensor()(picture.permute(1, 2, 0).numpy())))


def test_only_raw_pictures_are_taken() -> None:
    with pytest.raises(TypeError, match=r"expected torch\.uint8"):
        built("mnist-cnn")(torch.zeros(1, 1, 28, 28))


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = literal.Cnn().state_dict()
    weights["conv2.bias"][3] = float("nan")
    with pytest.raises(
        HydrofoilError, match=r"x\.pt: conv2\.bias holds numbers that are not finite"
    ):
        built("mnist-cnn").load_weights(weights, "x.pt")


@pytest.mark.parametrize("field", ["mean", "std"])
def test_as_many_means_as_channels_or_one(field: str) -> None:
    overrides = ["data.mean=[0.5, 0.5]", "data.std=[0.5, 0.5]"]
    with pytest.raises(HydrofoilError, match=r"data\.mean has 2 numbers: expected 1 or 3"):
        build(recipe_with("mlp", *overrides), (3, 8, 8), CLASSES)
    assert build(recipe_with("mlp", "data.mean=[0.5]"), (3, 8, 8), CLASSES).mean_C11.shape == (
        3,
        1,
        1,
    )


@pytest.mark.parametrize("model", ["lenet", "lenet-linear", "cnn3", "cnn", "speednet"])
def test_pictures_too_small_for_a_model_are_refused(model: str) -> None:
    smallest = {"lenet": 16, "lenet-linear": 16, "cnn3": 8, "cnn": 4, "speednet": 8}[model]
    build(recipe_with(model), (1, smallest, smallest), CLASSES)
    with pytest.raises(HydrofoilError, match="too small"):
        build(recipe_with(model), (1, smallest, smallest - 1), CLASSES)


@pytest.mark.parametrize("name", ["lenet", "lenet-linear", "cnn3", "cnn"])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 22), (64, 19)])
def test_the_first_linear_layer_fits_the_maps_that_torch_computes(
    name: str, size: tuple[int, int]
) -> None:
    model = build(recipe_with(name), (3, *size), CLASSES).eval()
    assert model(torch.zeros(2, 3, *size, dtype=torch.uint8)).shape == (2, len(CLASSES))


def test_weights_of_another_model_or_class_count_are_refused_by_name() -> None:
    ours = built("cifar10-cnn3")
    with pytest.raises(HydrofoilError, match=r"x\.pt: of another model: it lacks conv3\.bias"):
        ours.load_weights(literal.LeNet().state_dict(), "x.pt")
    nine = literal.Cnn3()
    nine.fc3 = nn.Linear(60, 9)
    with pytest.raises(HydrofoilError, match=r"fc3\.weight is 9×60, expected 10×60"):
        ours.load_weights(nine.state_dict(), "x.pt")


def test_the_weights_hash_sees_every_parameter() -> None:
    model = built("mnist-cnn")
    hashes = {model.weights_hash()}
    for parameter in model.network.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        hashes.add(model.weights_hash())
    assert len(hashes) == 7
    assert built("mnist-cnn").weights_hash() in hashes


def test_arithmetic_with_a_rest_is_shown_rounded_down() -> None:
    lines = summarize(build(recipe_with("cnn3"), (1, 28, 28), CLASSES).network, (1, 28, 28))
    (pool,) = [line for line in lines if line.name == "pool3"]
    assert pool.arithmetic == "⌊(7 - 2 + 2·0) / 2⌋ + 1 = 3"


@pytest.mark.parametrize("name", REAL_RECIPES)
def test_the_summary_agrees_with_what_runs(name: str) -> None:
    model = built(name).eval()
    activation = torch.zeros(1, *model.shape)
    lines = summarize(model.network, model.shape)
    for layer, line in zip(model.network, lines, strict=True):
        activation = layer(activation)
        assert tuple(activation.shape[1:]) == line.output
        assert line.parameters == sum(parameter.numel() for parameter in layer.parameters())
        if line.parameter_arithmetic:
            formula = line.parameter_arithmetic.replace("·", "*")
            assert eval(formula) == line.parameters  # our own arithmetic, as shown
        for part in line.arithmetic.split(", "):
            left, _, right = part.replace("·", "*").partition(" = ")
            left = left.replace("⌊", "math.floor(").replace("⌋", ")")
            assert not left or eval(left, {"math": math}) == int(
                right
            )  # our own arithmetic, as shown


def test_lenets_published_sizes() -> None:
    lines = {line.name: line for line in summarize(built("cifar10-lenet").network, (3, 32, 32))}
    assert lines["conv1"].parameters == 456
    assert lines["conv1"].multiply_adds == 28 * 28 * 6 * 3 * 25
    assert lines["fc1"].output == (120,)
    assert sum(line.parameters for line in lines.values()) == 62_006
    assert total_multiply_adds(built("cifar10-lenet").network, (3, 32, 32)) == 651_720


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = Dropout(0.25).train()
    ones = torch.ones(400, 500)
    layer.draw = key(0, "dropout", 1, 1, 0)
    out = layer(ones)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    share = float((out == 0).float().mean())
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / ones.numel()) ** 0.5
    assert torch.equal(layer.eval()(ones), ones)


def test_masks_are_uniform_and_independent_of_their_neighbors() -> None:
    bits = uniform_bits(key(0, "dropout", 3, 5, 1), 1 << 18, torch.device("cpu")).double() / (
        1 << 24
    )
    counts = np.histogram(bits.numpy(), bins=64, range=(0, 1))[0]
    expected = len(bits) / 64
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert chi2 < 120  # 63 degrees of freedom: p = 2e-5
    following = uniform_bits(key(0, "dropout", 3, 6, 1), 1 << 18, torch.device("cpu")).double()
    for other in (bits.roll(1), bits.roll(512), following):
        assert abs(float(torch.corrcoef(torch.stack([bits, other]))[0, 1])) < 0.01


def test_dropout_without_a_draw_is_an_error() -> None:
    model = built("cifar10-cnn3").train()
    pictures_NCHW = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    layers = dropouts(model.network)
    set_draws(layers, torch.zeros(len(layers), 2, dtype=torch.int32))
    model(pictures_NCHW)
    set_draws(layers, None)
    with pytest.raises(HydrofoilError, match="dropout: in training mode without a draw"):
        model(pictures_NCHW)
    model.eval()(pictures_NCHW)
