"""The tutorials' first experiments are one field each: activation, norm, widths."""

from typing import Any

import pytest
import torch
from torch import nn

from hydrofoil import HydrofoilError, build, draw_split, fit, load, read_recipe, summarize

FLAT = ["mlp", "lenet", "lenet-linear", "cnn3", "cnn"]  # their layers stand in one sequence
CONVOLUTIONAL = [name for name in FLAT if name != "mlp"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky-relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU,
    "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip


def network(name: str, *fields: str, shape: Any = (3, 32, 32)) -> nn.Sequential:
    options = [f"model.name={name}", *(f"model.{field}" for field in fields)]
    made = build(read_recipe("mnist-cnn", options), shape, "abcde").network
    assert isinstance(made, nn.Sequential)
    return made


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", FLAT)
def test_the_activation_stands_after_every_hidden_layer(name: str, activation: str) -> None:
    usual, other = network(name), network(name, f"activation={activation}")
    kinds = [type(layer) for layer in usual]
    expected = [ACTIVATIONS[activation] if kind is nn.ReLU else kind for kind in kinds]
    assert [type(layer) for layer in other] == expected
    for one, its in zip(usual.state_dict().items(), other.state_dict().items(), strict=True):
        assert one[0] == its[0]
        assert torch.equal(one[1], its[1])  # the activation draws nothing


@pytest.mark.parametrize(
    ("name", "norm", "kind"),
    [(name, "batch", nn.BatchNorm2d) for name in CONVOLUTIONAL]
    + [("cnn", "group", nn.GroupNorm), ("cnn3", "layer", nn.GroupNorm)]
    + [("mlp", "batch", nn.BatchNorm1d), ("mlp", "layer", nn.LayerNorm)],
)
def test_a_norm_stands_between_layer_and_activation(name: str, norm: str, kind: type) -> None:
    layers = list(network(name, f"norm={norm}"))
    first = nn.Linear if name == "mlp" else nn.Conv2d
    places = [number for number, layer in enumerate(layers) if isinstance(layer, kind)]
    assert len(places) == sum(isinstance(layer, nn.ReLU) for layer in layers) - (
        0
        if name == "mlp"
        else len(getattr(read_recipe("mnist-cnn", [f"model.name={name}"]).model, "hidden", ()))
    )
    for place in places:
        assert isinstance(layers[place - 1], first)
        assert isinstance(layers[place + 1], nn.ReLU)


def test_layer_norm_of_maps_is_over_all_of_an_image() -> None:
    (norm,) = [
        layer
        for layer in network("cnn", "norm=layer", "widths=[6]")
        if isinstance(layer, nn.GroupNorm)
    ]
    maps_NCHW = torch.randn(2, 6, 5, 5) * 3 + 1
    expected = nn.functional.layer_norm(maps_NCHW, (6, 5, 5))
    torch.testing.assert_close(norm(maps_NCHW), expected)


@pytest.mark.parametrize(
    ("name", "fields", "shapes"),
    [
        ("mlp", ["hidden=[7, 5, 3]"], [(7, 3072), (5, 7), (3, 5), (5, 3)]),
        ("mlp", ["hidden=[]"], [(5, 3072)]),
        ("cnn", ["widths=[4]", "hidden=[9]"], [(4, 3, 3, 3), (9, 4 * 16 * 16), (5, 9)]),
        ("cnn3", ["widths=[2, 3]", "hidden=[]"], [(2, 3, 3, 3), (3, 2, 3, 3), (5, 3 * 8 * 8)]),
        ("lenet", ["widths=[8, 9]"], [(8, 3, 5, 5), (9, 8, 5, 5), (120, 225), (84, 120), (5, 84)]),
        ("lenet-linear", ["widths=[8]"], [(8, 3, 5, 5), (5, 8 * 14 * 14)]),
    ],
)
def test_widths_are_the_layers_sizes(name: str, fields: list[str], shapes: list[Any]) -> None:
    weights = [tuple(p.shape) for p in network(name, *fields).parameters() if p.ndim > 1]
    assert weights == shapes


def test_another_models_sizes_are_left_behind() -> None:
    assert read_recipe("mnist-mlp", ["model.name=cnn"]).model.widths == (8, 16)
    given = read_recipe("mnist-mlp", ["model.widths=[3]", "model.name=cnn"])
    assert given.model.widths == (3,)
    assert read_recipe("mnist-mlp", ["model.name=mlp"]).model.hidden == (512, 512)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("model.activation=swish", r"model\.activation = \"swish\": expected 'relu', 'leaky-relu'"),
        ("model.norm=instance", r"model\.norm = \"instance\": expected 'none', 'batch'"),
        ("model.widths=[]", r"model\.widths"),
        ("model.widths=[0]", r"model\.widths"),
    ],
)
def test_what_a_family_does_not_take_is_refused(field: str, message: str) -> None:
    with pytest.raises(HydrofoilError, match=message):
        read_recipe("mnist-cnn", [field])


@pytest.mark.parametrize(
    "fields",
    [["model.name=mlp", "model.norm=batch", "model.activation=gelu", "model.hidden=[20]"],
     ["model.name=cnn", "model.norm=group", "model.activation=silu"]],
)  # fmt: skip
def test_where_native_has_no_code_eager_trains_and_norms_count(fields: list[str]) -> None:
    recipe = read_recipe("digits", [*fields, "train.epochs=2", "train.execute=native"])
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    first, last = fit(model, pictures, split, recipe)
    assert last.train.loss < first.train.loss
    lines = summarize(model.network, pictures.shape)
    assert any(line.name == "norm1" and line.parameters for line in lines)
