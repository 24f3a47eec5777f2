"""Networks of timm: made by name, fitted to small images, never downloaded."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from hydrofoil import HydrofoilError, build, read_recipe, resume, train
from hydrofoil.device import pick_device
from hydrofoil.models import timm as ours
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.timm import load_pretrained, stem_note


def network(name: str, *fields: str, shape: tuple[int, int, int] = (3, 32, 32)) -> Classifier:
    chosen = ["model.name=timm", f"model.architecture={name}", *fields]
    return build(read_recipe("cifar10-lenet", chosen), shape, "abcde")


def test_the_imagenet_stem_is_replaced_below_64_pixels_and_said() -> None:
    small, large = (network("resnet18", shape=(3, side, side)).network for side in (63, 64))
    stem = small.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert isinstance(small.get_submodule("maxpool"), nn.Identity)
    assert "3×3 convolution of stride 1 replaces 7×7 of stride 2" in stem_note(small)
    assert large.get_submodule("conv1").kernel_size == (7, 7)
    assert not stem_note(large)


def test_above_64_pixels_it_is_timms_network() -> None:
    made = network("test_resnet", shape=(3, 64, 64)).eval().network
    theirs = timm.create_model("test_resnet", num_classes=5).eval()
    theirs.load_state_dict(made.state_dict())
    images_NCHW = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(made(images_NCHW), theirs(images_NCHW))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit", "test_byobnet"])
def test_other_families_take_small_gray_images(name: str) -> None:
    made = network(name, "data.mean=0.5", "data.std=0.5", shape=(1, 32, 32)).eval()
    assert made(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"no such network in timm [0-9.]+\. Did you mean 'resnet\w+'"),
        ("inception_v3", r"architecture = inception_v3: it does not take images of 3×32×32: Run"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(name: str, message: str) -> None:
    with pytest.raises(HydrofoilError, match=message):
        network(name)


def test_without_the_package_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(HydrofoilError, match=r"pip install 'hydrofoil\[timm\]'"):
        network("resnet18")


def test_weights_that_are_not_in_the_cache_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(ours, "_in_hub_cache", lambda repository: None)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it used the network"))
    model = network("test_resnet", "model.pretrained=true")  # making it needs no weights
    with pytest.raises(HydrofoilError, match=r"test_resnet are not in the local cache"):
        load_pretrained(model)


def test_cached_weights_are_where_training_starts_but_for_replaced_layers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    theirs = timm.create_model("test_resnet")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(ours, "_in_hub_cache", lambda repository: tmp_path / "model.safetensors")
    fields = ["model.name=timm", "model.architecture=test_resnet", "model.pretrained=true"]
    fields += ["epochs=1", "lr=1e-30", "data.train=64", "weight_decay=0"]
    run = train("digits", fields, run=tmp_path / "run")
    model = run.load_best(pick_device("cpu"))[0]
    weights, first = dict(model.network.named_parameters()), dict(theirs.named_parameters())
    same = {
        name
        for name, parameter in weights.items()
        if parameter.shape == first[name].shape
        and torch.allclose(parameter, first[name], rtol=0, atol=1e-20)
    }
    assert {n.partition(".")[0] for n in weights.keys() - same} <= {"conv1", "fc"}
    assert len(same) > 10
    config = timm.get_pretrained_cfg("test_resnet")
    assert run.recipe.data.mean == pytest.approx((sum(config.mean) / 3,))  # digits are gray


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_run_resumes_bit_identically_with_timms_own_randomness(tmp_path: Path, name: str) -> None:
    fields = ["model.name=timm", f"model.architecture={name}", "model.dropout=0.2", "epochs=2"]
    fields += ["model.drop_path=0.3", "data.train=96", "data.size=32"]
    torch.manual_seed(1)
    whole = train("digits", fields, run=tmp_path / "whole")
    torch.manual_seed(2)
    train("digits", [*fields, "epochs=1"], run=tmp_path / "parts")
    resumed = resume(tmp_path / "parts", epochs=2)
    weights = [run.load_best(pick_device("cpu"))[0].weights_hash() for run in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_network_with_timms_weights_normalizes_as_they_were_trained_unless_a_file_starts_it() -> (
    None
):
    own = timm.get_pretrained_cfg("test_resnet").mean
    recipes = ["data.mean=0.25", "data.std=0.5", "model.pretrained=true"]
    assert network("test_resnet", *recipes).mean_C11.flatten().tolist() == pytest.approx(own)
    started = network("test_resnet", *recipes, "train.init=weights.safetensors")
    assert started.mean_C11.flatten().tolist() == [0.25] * 3


def test_the_note_names_new_parameters_that_stand_outside_layers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(ours, "_in_hub_cache", lambda repository: tmp_path / "model.safetensors")
    (note,) = load_pretrained(network("test_vit", "model.pretrained=true"))
    assert note.partition("new layers: ")[2].split(", ") == ["head", "pos_embed"]
