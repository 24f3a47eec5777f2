import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from captum.attr import Occlusion as CaptumOcclusion
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from hydrofoil import Classifier, HydrofoilError, build, grad_cam, occlusion, predict, read_recipe
from hydrofoil.cli.main import main
from hydrofoil.evaluate.explain import FeatureMaps, feature_maps, first_filters
from hydrofoil.report import explanations
from hydrofoil.report.explain import explain
from tests.axes import names_held
from tests.conftest import Cli

# The last feature maps before a pooling, written down manually.
CONVOLUTIONAL = {
    "cifar10-lenet": ((3, 32, 32), "relu2"),
    "cifar10-cnn3": ((3, 32, 32), "relu3"),
    "cifar10-lenet-linear": ((3, 32, 32), "relu2"),
    "mnist-cnn": ((1, 28, 28), "relu2"),
    "digits": ((1, 8, 8), "relu3"),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def built(recipe: str, shape: tuple[int, int, int]) -> Classifier:
    return build(read_recipe(recipe), shape, [f"class {k}" for k in range(10)])


def classifier(*layers: nn.Module, shape: tuple[int, int, int], classes: int = 3) -> Classifier:
    names = [f"class {k}" for k in range(classes)]
    return Classifier(nn.Sequential(*layers), shape, names, (0.3,), (0.4,))


def captums_grad_cam(model: Classifier, layer: str, pictures_NCHW: Tensor, target: Any) -> Tensor:
    oracle = LayerGradCam(model.network, model.network.get_submodule(layer))
    values = model.normalize(pictures_NCHW)
    return oracle.attribute(values, target, relu_attributions=True)[:, 0].detach()


def captums_occlusion(
    model: Classifier,
    picture_CHW: Tensor,
    target: int,
    patch: tuple[int, int],
    stride: tuple[int, int],
    fill: Tensor,
) -> Tensor:
    def probabilities(pictures_NCHW: Tensor) -> Tensor:
        with torch.no_grad():
            return model(pictures_NCHW.to(torch.uint8)).double().softmax(1)

    found = CaptumOcclusion(probabilities).attribute(
        picture_CHW[None].double(),
        target=target,
        sliding_window_shapes=(len(picture_CHW), *patch),
        strides=(len(picture_CHW), *stride),
        baselines=fill.double().view(1, -1, 1, 1).expand(1, *picture_CHW.shape),
        perturbations_per_eval=64,
    )
    return found[0, 0]


@pytest.mark.parametrize("recipe", CONVOLUTIONAL)
@pytest.mark.parametrize("count", [1, 5])
def test_grad_cam_is_captums(recipe: str, count: int) -> None:
    shape, layer = CONVOLUTIONAL[recipe]
    model, pictures_NCHW = built(recipe, shape), noise(count, *shape)
    for classes_N in (None, torch.arange(count) % 10):
        with names_held() as seen:
            found = grad_cam(model, pictures_NCHW, classes_N)
        assert seen["coarse_NHW"]
        model.eval()
        target = model(pictures_NCHW).argmax(1) if classes_N is None else classes_N
        assert found.layer == layer
        assert torch.equal(found.classes_N, target)
        expected_NHW = captums_grad_cam(model, layer, pictures_NCHW, target)
        torch.testing.assert_close(found.coarse_NHW, expected_NHW, rtol=1e-4, atol=1e-7)
        assert found.heat_NHW.shape == (count, *shape[1:])
        assert 0 <= found.heat_NHW.min() <= found.heat_NHW.max() <= 1


@st.composite
def networks(draw_: st.DrawFn) -> Classifier:
    """Small networks of padded and bare convolutions, norms, activations, and poolings."""
    shape = (
        draw_(st.sampled_from([1, 2, 3])),
        draw_(st.integers(15, 20)),
        draw_(st.integers(15, 20)),
    )
    channels, layers = shape[0], list[nn.Module]()
    for _ in range(draw_(st.integers(1, 3))):
        kernel = draw_(st.sampled_from([1, 3]))
        width = draw_(st.integers(1, 5))
        padding = draw_(st.integers(0, kernel // 2))
        layers.append(nn.Conv2d(channels, width, kernel, draw_(st.integers(1, 2)), padding))
        if draw_(st.booleans()):
            layers.append(nn.BatchNorm2d(width))
        inplace = draw_(st.booleans())
        layers.append(
            draw_(st.sampled_from([nn.ReLU(inplace), nn.Tanh(), nn.Dropout(0.5, inplace)]))
        )
        channels = width
    if draw_(st.booleans()):
        layers.append(
            draw_(st.sampled_from([nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1)]))
        )
    torch.manual_seed(draw_(st.integers(0, 9)))
    layers += [nn.Flatten(), nn.LazyLinear(4)]
    model = classifier(*layers, shape=shape, classes=4)
    model.eval()(noise(1, *shape))  # settles the lazy layer
    return model


@settings(max_examples=40)
@given(networks(), st.integers(1, 3), st.integers(0, 3))
def test_grad_cam_of_any_small_network_is_captums(
    model: Classifier, count: int, target: int
) -> None:
    pictures_NCHW = noise(count, *model.shape, seed=target)
    modules = list(model.network)
    spatial = []
    values = model.normalize(pictures_NCHW)
    for number, layer in enumerate(modules):
        values = layer(values)
        if values.ndim == 4 and values[0, 0].numel() > 1:
            spatial.append(number)
    convolved = [n for n in spatial if isinstance(modules[n], nn.Conv2d)]
    found = grad_cam(model, pictures_NCHW, torch.full((count,), target))
    follow = convolved[-1]
    while isinstance(modules[follow + 1], nn.BatchNorm2d | nn.ReLU | nn.Tanh | nn.Dropout):
        follow += 1
    assert found.layer == str(follow)
    for layer in model.modules():  # captum's hooks and work in place do not go together
        if hasattr(layer, "inplace"):
            layer.inplace = False
    expected_NHW = captums_grad_cam(model, found.layer, pictures_NCHW, target)
    torch.testing.assert_close(found.coarse_NHW, expected_NHW, rtol=1e-3, atol=1e-6)
    positive_N = expected_NHW.amax((1, 2)) > 0
    assert torch.equal(found.heat_NHW.amax((1, 2)), positive_N.float())


def test_where_cells_stretch_over_the_picture_the_heat_is_captums_interpolation() -> None:
    """Windows without overlap and without a rest: plain resizing is exact."""
    shape = (1, 12, 20)
    model = classifier(
        nn.Conv2d(1, 5, 2, 2), nn.AvgPool2d(2), nn.Conv2d(5, 4, 1), nn.Flatten(),
        nn.Linear(60, 3), shape=shape,
    )  # fmt: skip
    pictures_NCHW = noise(4, *shape)
    found = grad_cam(model, pictures_NCHW, torch.tensor([0, 1, 2, 0]))
    coarse_N1HW = captums_grad_cam(model, "2", pictures_NCHW, torch.tensor([0, 1, 2, 0]))[:, None]
    expected_NHW = LayerAttribution.interpolate(coarse_N1HW, shape[1:], "bilinear")[:, 0]
    expected_NHW = expected_NHW / expected_NHW.amax((1, 2), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(found.heat_NHW, expected_NHW, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_cell_is_laid_on_the_middle_of_what_it_sees(axis: int) -> None:
    """The oracle finds that middle by gradient: averages see their windows evenly."""

    def evenly(kernel: int, stride: int, padding: int) -> nn.Conv2d:
        layer = nn.Conv2d(1, 1, kernel, stride, padding, bias=False)
        nn.init.constant_(layer.weight, 1)
        return layer

    layers = [evenly(5, 1, 0), nn.AvgPool2d(2), evenly(3, 2, 1), evenly(5, 1, 0)]
    shape = (1, 40, 48)
    seen = nn.Sequential(*layers)
    picture = torch.ones(1, *shape, requires_grad=True)
    maps = seen(picture)
    number = maps.shape[axis + 1] // 2  # away from the padding
    (slope,) = torch.autograd.grad(maps.select(axis + 1, number).sum(), picture)
    along = slope[0, 0].sum(2 - axis)
    middle = float((along * torch.arange(len(along))).sum() / along.sum())

    class OneCell(nn.Module):
        """Lets one row or column of the maps through, so that only it has heat."""

        def forward(self, values: Tensor) -> Tensor:
            kept = torch.zeros_like(values)
            kept.select(axis + 1, number).fill_(1)
            return values * kept

    head = nn.Linear(maps.numel(), 1)
    nn.init.constant_(head.weight, 1)
    model = classifier(*layers, OneCell(), nn.Flatten(), head, shape=shape, classes=1)
    model._centered = False  # so that bright pixels stay positive
    found = grad_cam(model, torch.full(shape, 255, dtype=torch.uint8))
    heat = found.heat_NHW[0].sum(2 - axis)
    assert float((heat * torch.arange(len(heat))).sum() / heat.sum()) == pytest.approx(middle)


class LeftHalf(nn.Module):
    """A network that looks at nothing right of the middle."""

    def forward(self, values: Tensor) -> Tensor:
        values = values.clone()
        values[..., values.shape[-1] // 2 :] = 0
        return values


def test_where_a_network_does_not_look_nothing_is_hot() -> None:
    shape = (3, 16, 24)
    model = classifier(
        LeftHalf(), nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 16 * 24, 3), shape=shape,
    )  # fmt: skip
    picture_CHW = noise(*shape)
    for k in range(3):
        heat_HW = grad_cam(model, picture_CHW, torch.tensor([k])).heat_NHW[0]
        assert heat_HW[:, 12 + 2 :].max() == 0  # two windows see two pixels further
        hidden = occlusion(model, picture_CHW, k, patch=(4, 4), stride=(2, 2))
        assert hidden.drops_HW[:, 12 + 2 :].abs().max() == 0  # so does the last patch that counts
        assert hidden.drops_HW[:, :12].abs().max() > 0
        assert hidden.columns[0] < 12


def test_a_class_without_positive_evidence_has_no_heat() -> None:
    model = classifier(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2), shape=(1, 8, 8), classes=2
    )
    nn.init.constant_(model.network[3].weight, -1)
    found = grad_cam(model, noise(2, 1, 8, 8))
    assert found.heat_NHW.abs().max() == 0
    assert found.coarse_NHW.abs().max() == 0


@pytest.mark.parametrize("recipe", [*CONVOLUTIONAL, "mnist-mlp"])
def test_occlusion_is_captums(recipe: str) -> None:
    shape = CONVOLUTIONAL.get(recipe, ((1, 28, 28), ""))[0]
    model, picture_CHW = built(recipe, shape).eval(), noise(*shape)
    with names_held() as seen:
        found = occlusion(model, picture_CHW)
    assert seen["covered_PHW"]
    answer = predict(model, picture_CHW)
    assert model.classes[found.class_index] == answer.label
    assert found.before == pytest.approx(answer.probability, rel=1e-5)
    fill = picture_CHW.double().mean((1, 2)).round()
    expected = captums_occlusion(
        model, picture_CHW, found.class_index, found.patch, found.stride, fill
    )
    torch.testing.assert_close(found.drops_HW.float(), expected, rtol=1e-4, atol=1e-7)


@settings(max_examples=25)
@given(st.data())
def test_occlusion_with_any_patch_is_captums(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(*bounds)) for bounds in ((1, 3), (2, 9), (2, 9)))
    C, *sides = shape
    patch = tuple(data.draw(st.integers(1, side)) for side in sides)
    stride = tuple(data.draw(st.integers(1, side)) for side in patch)
    fill = tuple(data.draw(st.integers(0, 255)) for _ in range(C))
    target = data.draw(st.integers(0, 2))
    torch.manual_seed(target)
    model = classifier(
        nn.Conv2d(C, 4, 2), nn.Tanh(), nn.Flatten(),
        nn.Linear(4 * (sides[0] - 1) * (sides[1] - 1), 3), shape=shape,
    )  # fmt: skip
    picture_CHW = noise(*shape, seed=sum(shape))
    found = occlusion(model, picture_CHW, target, patch=patch, stride=stride, fill=fill)
    expected = captums_occlusion(model, picture_CHW, target, patch, stride, torch.tensor(fill))
    torch.testing.assert_close(found.drops_HW.float(), expected, rtol=1e-4, atol=1e-7)


def test_the_strongest_place_is_what_its_numbers_say() -> None:
    """Covering it manually gives the reported probability and prediction."""
    model, picture_CHW = built("mnist-cnn", (1, 28, 28)), noise(1, 28, 28)
    found = occlusion(model, picture_CHW, 3)
    (top, bottom), (left, right) = found.rows, found.columns
    covered_CHW = picture_CHW.clone()
    covered_CHW[:, top : bottom + 1, left : right + 1] = round(float(picture_CHW.double().mean()))
    answer = predict(model, covered_CHW)
    assert answer.probabilities["class 3"] == pytest.approx(found.after, rel=1e-5)
    assert answer.label == model.classes[found.answer]
    drop = found.before - found.after
    assert drop >= float(found.drops_HW.max()) > 0  # no mean exceeds the largest


def test_a_flat_picture_in_its_own_color_changes_nothing() -> None:
    model = built("mnist-mlp", (1, 28, 28))
    found = occlusion(model, torch.full((1, 28, 28), 99, dtype=torch.uint8))
    assert found.drops_HW.abs().max() < 1e-6
    assert found.after == pytest.approx(found.before)


@pytest.mark.parametrize("recipe", [*CONVOLUTIONAL, "mnist-mlp"])
def test_explaining_leaves_the_model_as_it_was(recipe: str) -> None:
    shape = CONVOLUTIONAL.get(recipe, ((1, 28, 28), ""))[0]
    model = built(recipe, shape).train()
    layers = list(model.network)
    layers[0].eval()  # frozen manually
    modes, weights = [layer.training for layer in layers], model.weights_hash()
    first, second = [explain(model, noise(*shape)).content for _ in range(2)]
    assert first == second  # no dropout
    assert [layer.training for layer in layers] == modes
    assert model.training
    assert model.weights_hash() == weights
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gradients_are_taken_where_the_caller_takes_none() -> None:
    model, pictures_NCHW = built("mnist-cnn", (1, 28, 28)), noise(3, 1, 28, 28)
    with torch.no_grad():
        found = grad_cam(model, pictures_NCHW)
    assert not found.heat_NHW.requires_grad
    assert torch.equal(found.heat_NHW, grad_cam(model, pictures_NCHW).heat_NHW)


def test_one_picture_is_a_batch_of_one_and_large_batches_are_cut() -> None:
    model, pictures_NCHW = built("digits", (1, 8, 8)), noise(300, 1, 8, 8)
    whole = grad_cam(model, pictures_NCHW)
    assert whole.heat_NHW.shape == (300, 8, 8)
    for n in (0, 249, 250, 299):
        one = grad_cam(model, pictures_NCHW[n])
        torch.testing.assert_close(one.heat_NHW[0], whole.heat_NHW[n], rtol=1e-4, atol=1e-5)


def test_a_layer_that_stands_twice_runs_twice() -> None:
    relu = nn.ReLU()
    model = classifier(
        nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu, nn.Flatten(), nn.Linear(32, 3),
        shape=(1, 8, 8),
    )  # fmt: skip
    assert grad_cam(model, noise(1, 8, 8)).layer == "3"
    maps = feature_maps(model, noise(1, 8, 8))
    assert [one.layer for one in maps] == ["0", "1", "2", "3"]


def test_a_convolution_that_leaves_one_pixel_is_passed_over() -> None:
    """LeNet-5 as published ends its convolutions in one of 1×1 (LeCun et al. 1998)."""
    model = classifier(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5, 3), shape=(1, 8, 8),
    )  # fmt: skip
    assert grad_cam(model, noise(1, 8, 8)).layer == "1"


@pytest.mark.parametrize("recipe", CONVOLUTIONAL)
def test_feature_maps_are_what_hooks_see(recipe: str) -> None:
    shape, _ = CONVOLUTIONAL[recipe]
    model, picture_CHW = built(recipe, shape).eval(), noise(*shape)
    seen: dict[str, Tensor] = {}
    for name, layer in model.network.named_children():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    with names_held():
        found = feature_maps(model, picture_CHW)
    seen.clear()
    with torch.no_grad():
        model(picture_CHW[None])
    spatial = {name: maps[0] for name, maps in seen.items() if maps.ndim == 4}
    spatial = {name: maps for name, maps in spatial.items() if maps[0].numel() > 1}
    assert [one.layer for one in found] == list(spatial)
    for one in found:
        assert torch.equal(one.maps_MHW, spatial[one.layer])
        assert one.new == one.layer.startswith("conv")
        strengths = one.maps_MHW.abs().mean((1, 2))
        kept = one.strongest(3)
        assert len(kept) == 3
        assert kept.tolist() == sorted(kept.tolist())
        others = torch.ones(len(strengths), dtype=torch.bool)
        others[kept] = False
        assert strengths[kept].min() >= strengths[others].max()


def test_filters_are_the_first_layers_weights_round_zero() -> None:
    for recipe, shape, layer, filters in [
        ("cifar10-lenet", (3, 32, 32), "conv1", (6, 3, 5, 5)),
        ("mnist-cnn", (1, 28, 28), "conv1", (8, 1, 3, 3)),
        ("mnist-mlp", (1, 28, 28), "fc1", (512, 1, 28, 28)),
        ("mnist-mlp", (3, 9, 7), "fc1", (512, 3, 9, 7)),
    ]:
        model = built(recipe, shape)
        found = first_filters(model)
        weights = model.network.get_submodule(layer).weight.detach()
        assert (found.layer, tuple(found.filters_NCHW.shape)) == (layer, filters)
        assert found.filters_NCHW.abs().max() == 1
        torch.testing.assert_close(found.filters_NCHW.flatten() * found.largest, weights.flatten())
    pooled = classifier(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), shape=(1, 8, 8))
    with pytest.raises(HydrofoilError, match=r"takes 1×8×8 pictures"):
        first_filters(pooled)


def test_a_perceptron_has_no_grad_cam_and_says_why() -> None:
    model = built("mnist-mlp", (1, 28, 28))
    with pytest.raises(HydrofoilError, match="feature maps, and this network has none: flatten"):
        grad_cam(model, noise(1, 28, 28))
    assert feature_maps(model, noise(1, 28, 28)) == []
    explained = explain(model, noise(1, 28, 28))
    assert explained.content["grad_cam"] is None
    assert "has none" in explained.text
    assert "covering" in explained.text


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda m: grad_cam(m, noise(1, 9, 8)), r"1×9×8: expected 1×8×8"),
        (lambda m: grad_cam(m, noise(0, 1, 8, 8)), r"0×1×8×8: it holds no images"),
        (lambda m: grad_cam(m, torch.full((1, 8, 8), 2.0)), r"from 2 to 2: expected 0 to 1"),
        (lambda m: grad_cam(m, noise(1, 8, 8), torch.tensor([10])), r"10: expected 0 to 9"),
        (lambda m: grad_cam(m, noise(1, 8, 8), torch.tensor([1, 2])), r"2 for 1 images"),
        (lambda m: grad_cam(m, noise(1, 8, 8), ["five"]), r"'five' is not one of the classes"),
        (lambda m: occlusion(m, noise(1, 8, 8), -1), r"-1: expected 0 to 9"),
        (lambda m: occlusion(m, noise(1, 8, 8), patch=(9, 2)), r"1 to 8×8 pixels"),
        (lambda m: occlusion(m, noise(1, 8, 8), patch=(2, 2), stride=(3, 1)), r"stride 3×1"),
        (lambda m: occlusion(m, noise(1, 8, 8), fill=(1, 2)), r"expected 1 values of 0 to 255"),
        (lambda m: occlusion(m, noise(1, 8, 8), fill=(256,)), r"fill \[256\]"),
        (lambda m: occlusion(m, noise(2, 1, 8, 8)), r"2 pictures: expected one"),
        (lambda m: feature_maps(m, noise(3, 8, 8)), r"3 pictures: expected one"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[Classifier], Any], complaint: str) -> None:
    with pytest.raises(HydrofoilError, match=complaint) as caught:
        call(built("digits", (1, 8, 8)))
    assert len(str(caught.value).splitlines()) <= 3


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize(("signed", "name"), [(False, "inferno"), (True, "PuOr_r")])
def test_heat_has_the_colors_of_matplotlibs_map(signed: bool, name: str) -> None:
    heat_HW = torch.linspace(-1 if signed else 0, 1, 41)[None].repeat(2, 1)
    black_CHW = torch.zeros(1, 2, 41, dtype=torch.uint8)
    shown = pixels(explanations.heat_overlay(black_CHW, heat_HW, signed=signed))
    gray = 128 if signed else 0
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 41))[:, :3] * 255
    expected = explanations.HEAT * colors + (1 - explanations.HEAT) * gray
    assert np.abs(shown[0] - expected).max() <= 6


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9)])
def test_an_overlay_is_the_picture_at_a_whole_factor(shape: tuple[int, int, int]) -> None:
    picture_CHW, heat_HW = noise(*shape), torch.rand(shape[1:], generator=torch.Generator())
    small = pixels(explanations.heat_overlay(picture_CHW, heat_HW))
    large = pixels(explanations.heat_overlay(picture_CHW, heat_HW, scale=3))
    assert small.shape == (*shape[1:], 3)
    assert (large == np.kron(small, np.ones((3, 3, 1), int))).all()


def test_zero_weight_is_gray_and_the_largest_white() -> None:
    model = built("mnist-cnn", (1, 28, 28))
    with torch.no_grad():
        model.network.conv1.weight.zero_()
        model.network.conv1.weight[0, 0, 1, 1] = 2
        model.network.conv1.weight[1, 0, 0, 2] = -2
    shown = pixels(explanations.filters(first_filters(model)))
    side = 21  # 64 / 3 pixels, rounded
    counts = {v: int((shown == v).all(2).sum()) for v in (0, 128)}
    assert counts[128] >= (8 * 9 - 2) * side * side
    assert counts[0] >= side * side


def test_a_column_is_one_map_on_its_way_through_the_network() -> None:
    maps_MHW = torch.zeros(4, 6, 6)
    maps_MHW[0], maps_MHW[2] = -9, 1  # the negative one is the strongest until ReLU
    after = FeatureMaps("relu", maps_MHW.relu(), new=False)
    layers = [FeatureMaps("conv", maps_MHW), after, FeatureMaps("conv2", maps_MHW)]
    rows = explanations._MapRows(layers, most=1)._chosen()
    assert [row.tolist() for row in rows] == [[2], [2], [0]]


# ── the command line ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A run of a convolutional network and one of a perceptron, of an epoch each."""
    found: dict[str, Path] = {}
    for name, model in (("cnn", "cnn"), ("mlp", "mlp")):
        found[name] = tmp_path_factory.mktemp("runs") / name
        with pytest.raises(SystemExit):
            main(
                ["train", "digits", "train.epochs=2", "train.execute=eager", f"model.name={model}",
                 "--run", str(found[name]), "--json"]
            )  # fmt: skip
    return found


def saved(name: str, *shape: int) -> Path:
    Image.fromarray(noise(*(shape or (40, 40))).numpy()).save(name)
    return Path(name)


def test_the_verb_explains_in_numbers_words_and_a_figure(
    cli: Cli, runs: Mapping[str, Path]
) -> None:
    path = saved("one.png")
    status, output, errors = cli("explain", runs["cnn"], path, "--invert")
    assert (status, errors) == (0, "")
    asked = json.loads(cli("predict", runs["cnn"], path, "--invert", "--json")[1])[0]
    whole = json.loads(cli("explain", runs["cnn"], path, "--invert", "--json")[1])
    (content,) = whole["pictures"]
    assert {key: content[key] for key in asked} == asked
    assert content["explained"] == asked["class"]
    hidden, heat = content["occlusion"], content["grad_cam"]
    assert f"{asked['class']} {100 * hidden['before']:.1f}%" in output
    assert f"rows {hidden['rows'][0]}–{hidden['rows'][1]}" in output
    assert f"from {100 * hidden['before']:.1f}% to {100 * hidden['after']:.1f}%" in output
    assert (heat["layer"], heat["maps"]) == ("relu2", [4, 4])
    assert f"half of the heat lies on {100 * heat['half_of_heat']:.0f}%" in output
    for drawn in (content["drawn"], whole["filters"]["drawn"]):
        assert Path(drawn).parent == runs["cnn"] / "figures"
        assert f"saved: {drawn}" in output
        with Image.open(drawn) as figure:
            assert figure.width > 300
    assert whole["filters"]["layer"] == "conv1"


def test_another_class_is_explained_and_an_unknown_one_answered(
    cli: Cli, runs: Mapping[str, Path]
) -> None:
    path = saved("one.png")
    for name in "07":
        status, output, _ = cli("explain", runs["cnn"], path, "--class", name, "--json")
        (content,) = json.loads(output)["pictures"]
        assert (status, content["explained"]) == (0, name)
        assert content["occlusion"]["before"] == pytest.approx(content["probabilities"][name])
    status, _, errors = cli("explain", runs["cnn"], path, "--class", "eight")
    assert status == 2
    assert "unknown class 'eight'. Known: 0, 1" in errors


def test_a_perceptron_is_explained_by_occlusion_and_filters(
    cli: Cli, runs: Mapping[str, Path]
) -> None:
    status, output, errors = cli("explain", runs["mlp"], saved("one.png"), "--out", "here")
    assert (status, errors) == (0, "")
    assert "Grad-CAM weights a convolution's feature maps, and this network has none" in output
    assert {path.name for path in Path("here").iterdir()} == {"explain-one.png", "filters.png"}
    content = json.loads(cli("explain", runs["mlp"], "one.png", "--json")[1])
    assert content["pictures"][0]["grad_cam"] is None
    assert content["filters"]["layer"] == "fc1"


def test_pictures_of_one_name_have_a_figure_each(cli: Cli, runs: Mapping[str, Path]) -> None:
    Path("a").mkdir()
    paths = [saved("a/one.png"), saved("one.png", 30, 20), saved("two.png", 9, 30, 3)]
    status, output, _ = cli("explain", runs["cnn"], *paths, "--out", "here", "--json")
    drawn = [one["drawn"] for one in json.loads(output)["pictures"]]
    assert status == 0
    assert drawn == [f"here/explain-{name}.png" for name in ("one", "one-2", "two")]
    assert all(Path(path).is_file() for path in drawn)


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("no run", "no such run folder"),
        ("no file", "missing.png: cannot be read: No such file"),
        ("a second that is none", "text.png: not an image"),
        ("no picture", "text.png: not an image"),
        ("untrained", "best.safetensors"),
        ("a file for --out", "expected the name of a folder"),
    ],
)
def test_wrong_input_exits_with_2(
    case: str, complaint: str, cli: Cli, runs: Mapping[str, Path], tmp_path: Path
) -> None:
    run, picture, more = runs["cnn"], saved("one.png"), list[str]()
    if case == "no run":
        run = Path("nowhere")
    elif case == "no file":
        picture = Path("missing.png")
    elif case == "no picture":
        picture = Path("text.png")
        picture.write_text("hello")
    elif case == "untrained":
        run = Path(shutil.copytree(run, tmp_path / "copy"))
        (run / "best.safetensors").unlink()
    elif case == "a second that is none":
        Path("text.png").write_text("hello")
        more = ["text.png", "--out", "here"]
    else:
        more = ["--out", "figure.png"]
    status, output, errors = cli("explain", run, picture, *more)
    assert (status, output) == (2, "")
    assert complaint in errors
    assert len(errors.splitlines()) <= 3
    assert not Path("here").exists()  # all or nothing


def test_explaining_imports_no_matplotlib(runs: Mapping[str, Path]) -> None:
    saved("one.png")
    code = (
        "import sys\n"
        "from hydrofoil.cli.main import main\n"
        f"try: main(['explain', {str(runs['cnn'])!r}, 'one.png', '--json'])\n"
        "except SystemExit as left: assert not left.code\n"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
