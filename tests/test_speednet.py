"""speednet: its stem is what the training images say, its shapes follow from widths and depth."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hydrofoil import HydrofoilError, Pictures, build, draw_split, fit, load, read_recipe
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import DropPath, set_draws
from hydrofoil.models.whitening import EPS, WhiteningConv2d, initialize_from_images
from hydrofoil.recipe.schema import Recipe
from hydrofoil.train.executors import prepare
from hydrofoil.train.state import State


def recipe_with(*fields: str) -> Recipe:
    small = ["model.name=speednet", "model.widths=[8, 12, 16]", "model.dropout=0"]
    return read_recipe("digits", [*small, "train.epochs=1", *fields])


def network(shape: tuple[int, int, int], *fields: str) -> Classifier:
    return build(recipe_with(*fields), shape, "abcde")


def random_pictures(count: int, shape: tuple[int, int, int], seed: int = 0) -> Pictures:
    source = torch.Generator().manual_seed(seed)
    # Neighboring pixels are alike, as in photographs: noise alone would be white already.
    coarse = torch.rand(count, shape[0], 4, 4, generator=source)
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    noisy = 200 * smooth + 55 * torch.rand(count, *shape, generator=source)
    return Pictures(noisy.to(torch.uint8), torch.arange(count) % 5)


@settings(deadline=None, max_examples=15)
@given(
    st.tuples(st.sampled_from([1, 3]), st.integers(8, 40), st.integers(8, 40)),
    st.lists(st.integers(2, 12), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_images_of_any_size_give_a_logit_per_class(
    shape: tuple[int, int, int], widths: list[int], depth: int
) -> None:
    model = network(shape, f"model.widths={widths}", f"model.depth={depth}").eval()
    pictures_NCHW = torch.randint(256, (3, *shape), dtype=torch.uint8)
    assert model(pictures_NCHW).shape == (3, 5)
    # The same network takes smaller images, as progressive resizing gives it.
    assert model(pictures_NCHW[:, :, :8, :8]).shape == (3, 5)


def test_the_filters_whiten_the_patches_of_the_training_images() -> None:
    pictures = random_pictures(60, (3, 12, 10))
    model = network((3, 12, 10))
    initialize_from_images(model, pictures, torch.arange(60))
    stem = model.network.get_submodule("stem")
    assert isinstance(stem, WhiteningConv2d)
    images_NCHW = model.normalize(pictures.pictures_NCHW).double()
    maps_NCHW = nn.functional.conv2d(images_NCHW, stem.weight.double())
    outputs_DP = maps_NCHW.transpose(0, 1).flatten(1)
    patches_DP = (
        images_NCHW.unfold(2, 2, 1).unfold(3, 2, 1).permute(1, 4, 5, 0, 2, 3).reshape(12, -1)
    )
    values_D = torch.linalg.eigvalsh(torch.cov(patches_DP, correction=0)).flip(0)
    expected_DD = torch.diag(values_D / (values_D + EPS))
    found_DD = torch.cov(outputs_DP, correction=0)
    torch.testing.assert_close(found_DD[:12, :12], expected_DD, atol=1e-4, rtol=1e-4)
    assert torch.equal(stem.weight[12:], -stem.weight[:12])


def test_the_filters_depend_on_training_images_alone_and_not_on_their_order() -> None:
    pictures, other = random_pictures(40, (1, 9, 9)), random_pictures(40, (1, 9, 9), seed=1)
    train_N = torch.arange(0, 40, 2)
    other.pictures_NCHW[train_N] = pictures.pictures_NCHW[train_N]
    weights: list[torch.Tensor] = []
    for images, index_N in ((pictures, train_N), (other, train_N.flip(0))):
        model = network((1, 9, 9))
        initialize_from_images(model, images, index_N)
        weights.append(model.network.state_dict()["stem.weight"])
    assert torch.equal(*weights)


def test_filters_that_were_set_are_not_set_again() -> None:
    model = network((1, 9, 9))
    assert not model.network.state_dict()["stem.whitened"]
    initialize_from_images(model, random_pictures(40, (1, 9, 9)), torch.arange(40))
    before = model.weights_hash()
    initialize_from_images(model, random_pictures(40, (1, 9, 9), seed=1), torch.arange(40))
    assert model.weights_hash() == before
    loaded = network((1, 9, 9))
    loaded.load_weights(model.network.state_dict())
    initialize_from_images(loaded, random_pictures(40, (1, 9, 9), seed=1), torch.arange(40))
    assert loaded.weights_hash() == before


def test_training_sets_the_filters_and_then_leaves_them_as_they_are() -> None:
    recipe = recipe_with()
    pictures = load(recipe.data)
    split = draw_split(pictures, **recipe.split_options())
    model, expected = (build(recipe, pictures.shape, pictures.classes) for _ in range(2))
    initialize_from_images(expected, pictures, split.train)
    list(fit(model, pictures, split, recipe))
    weights, first = model.network.state_dict(), expected.network.state_dict()
    assert weights["stem.whitened"]
    assert torch.equal(weights["stem.weight"], first["stem.weight"])
    assert not torch.equal(weights["stem.bias"], first["stem.bias"])


def test_large_images_are_sampled_evenly_over_the_set() -> None:
    pictures = random_pictures(4, (1, 8, 8))
    model = network((1, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydrofoil.models.whitening.MOST_IMAGES", 2)
        initialize_from_images(model, pictures, torch.arange(4))
    again = network((1, 8, 8))
    initialize_from_images(again, pictures, torch.tensor([0, 2]))
    assert model.weights_hash() == again.weights_hash()


def test_dirac_initialization_passes_channels_on() -> None:
    groups = network((3, 16, 16), "model.widths=[32, 32]").network
    maps_NCHW = torch.rand(2, 24, 15, 15)
    first = groups.get_submodule("group1.conv1")
    assert torch.equal(first(maps_NCHW)[:, :24], maps_NCHW)
    assert first(maps_NCHW)[:, 24:].abs().max() > 0
    default = network((3, 16, 16), "model.widths=[32]", "model.initialization=default").network
    assert not torch.equal(default.get_submodule("group1.conv1")(maps_NCHW)[:, :24], maps_NCHW)


def test_a_residual_group_adds_its_first_convolution_to_its_last() -> None:
    fields = ["model.depth=3", "model.residual=true", "model.widths=[6]"]
    with_it = network((3, 12, 12), *fields).eval().network
    without = network((3, 12, 12), "model.depth=3", "model.widths=[6]").eval().network
    without.load_state_dict(with_it.state_dict())
    maps_NCHW = torch.rand(2, 24, 11, 11)
    one, other = (made.get_submodule("group1") for made in (with_it, without))
    first = nn.Sequential(
        one.get_submodule("conv1"), nn.MaxPool2d(2), one.get_submodule("norm1"), nn.GELU()
    )
    torch.testing.assert_close(one(maps_NCHW), first(maps_NCHW) + other(maps_NCHW))


def test_stochastic_depth_skips_a_branch_for_a_fraction_of_the_images() -> None:
    layer = DropPath(0.25)
    branch_NCHW = torch.rand(4000, 2, 2, 1) + 0.5
    set_draws([layer], torch.tensor([[3, 4]], dtype=torch.int32))
    passed = layer(branch_NCHW)
    kept_N = passed.flatten(1).abs().sum(1) > 0
    assert abs(kept_N.double().mean() - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
    torch.testing.assert_close(passed[kept_N], branch_NCHW[kept_N] / 0.75)
    assert torch.equal(layer(branch_NCHW), passed)
    assert torch.equal(layer.eval()(branch_NCHW), branch_NCHW)


def test_stochastic_depth_rises_over_the_groups() -> None:
    model = network((3, 16, 16), "model.residual=true", "model.drop_path=0.3")
    found = [layer.p for layer in model.network.modules() if isinstance(layer, DropPath)]
    assert found == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["model.drop_path=0.1"], r"model\.drop_path = 0\.1: it skips residual convolutions"),
        (["model.residual=true", "model.depth=1"], r"model\.depth = 1 with model\.residual"),
        (["model.initialization=zeros"], r"model\.initialization = \"zeros\": expected 'dirac'"),
        (["model.logit_scale=0"], r"model\.logit_scale = 0: expected greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: list[str], message: str) -> None:
    with pytest.raises(HydrofoilError, match=message):
        recipe_with(*fields)


def test_native_refuses_the_network_and_says_which_layer() -> None:
    recipe = recipe_with("train.execute=native")
    pictures: Any = load(recipe.data)
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    prepared = prepare(model, pictures, split, recipe, State.fresh(model, recipe))
    assert prepared.executor.name == "eager"
    assert prepared.refused["native"].startswith("stem: ")
