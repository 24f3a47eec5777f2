"""resnet: the papers' parameters, torchvision's arithmetic."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TheirResNet

from hydrofoil import build, read_recipe, resume, train
from hydrofoil.device import pick_device
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import DropPath


def network(name: str, *fields: str) -> Classifier:
    return build(
        read_recipe("cifar10-lenet", [f"model.name={name}", *fields]), (3, 32, 32), "abcdefghij"
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # 0.27 M (He et al. 2016, table 6), here with 1×1 shortcuts: 269,722 and two of them.
        ("resnet-20", 269_722 + 16 * 32 + 64 + 32 * 64 + 128),
        ("wrn-16-4", 2_748_890),  # 2.7 M (Zagoruyko and Komodakis 2016, table 4)
    ],
)
def test_named_settings_have_the_papers_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in network(name).parameters()) == parameters


def test_the_forward_pass_and_the_gradient_are_torchvisions() -> None:
    ours = network("resnet", "model.widths=[64, 128, 256, 512]", "model.depth=1").network
    theirs = TheirResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()  # type: ignore[assignment]
    theirs.load_state_dict(ours.state_dict())
    images_NCHW = torch.randn(4, 3, 16, 16)
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        torch.testing.assert_close(ours(images_NCHW), theirs(images_NCHW), atol=1e-4, rtol=1e-4)
    ours(images_NCHW).square().sum().backward()
    theirs(images_NCHW).square().sum().backward()
    weights = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-2, rtol=1e-3)


def test_each_of_a_named_settings_fields_may_be_overridden() -> None:
    made = network("wrn-16-4", "model.widths=[8, 16]", "model.depth=1", "model.stem=4").network
    shapes = [tuple(p.shape) for n, p in made.named_parameters() if n.endswith("conv1.weight")]
    assert shapes == [(4, 3, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3)]
    assert read_recipe("cifar10-lenet", ["model.name=resnet-20"]).model.widths == (16, 32, 64)


def test_stochastic_depth_rises_over_the_blocks_to_the_given_fraction() -> None:
    made = network("resnet", "model.depth=2", "model.drop_path=0.3")
    found = [layer.p for layer in made.network.modules() if isinstance(layer, DropPath)]
    assert found == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


@pytest.mark.parametrize("name", ["resnet", "wrn-16-4"])
def test_a_run_with_dropout_and_stochastic_depth_resumes_bit_identically(
    tmp_path: Path, name: str
) -> None:
    fields = [f"model.name={name}", "model.widths=[8, 8]", "model.depth=1", "model.dropout=0.2"]
    fields += ["model.drop_path=0.3", "data.train=128", "epochs=2"]
    whole = train("digits", fields, run=tmp_path / "whole")
    train("digits", [*fields, "epochs=1"], run=tmp_path / "parts")
    resumed = resume(tmp_path / "parts", epochs=2)
    weights = [run.load_best(pick_device("cpu"))[0].weights_hash() for run in (whole, resumed)]
    assert weights[0] == weights[1]
