"""Any network is described by running it: shapes, parameters and multiply-adds of blocks too."""

from typing import Any

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hydrofoil import Classifier, grad_cam, summarize
from hydrofoil.evaluate.explain import feature_maps
from hydrofoil.models.summary import total_multiply_adds
from hydrofoil.models.trace import trace


class Functional(nn.Module):
    """A tutorial's class: activation, pooling and flattening are functions in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool, self.fc1 = nn.MaxPool2d(2), nn.Linear(400, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc1(torch.flatten(x, 1))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding="same" if stride == 1 else 1)
        self.bn1, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.down = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.scale = nn.Parameter(torch.ones(1))  # learned, but no layer's

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.down(x) + self.scale * self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = Block(3, 8, 1), Block(8, 12, 2)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(x)).mean((2, 3)))


class Attention(nn.Module):
    """A patch embedding, attention twice over, and a product of matrices: no layer's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.place = nn.Parameter(torch.randn(16, 16))
        self.mix = nn.Parameter(torch.randn(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT + self.place
        x = x + self.attend(x, x, x, need_weights=False)[0]
        x = F.scaled_dot_product_attention(x, x, x)
        return x.mean(1) @ self.mix


NETWORKS: dict[str, Any] = {
    "functions in forward": Functional,
    "residual": Residual,
    "attention": Attention,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "adaptive, dilated, ceiled": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, dilation=2, groups=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 10),
    ),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_and_parameters_are_torchs_own_count(name: str) -> None:
    torch.manual_seed(0)
    network, images_NCHW = NETWORKS[name]().eval(), torch.zeros(1, 3, 32, 32)
    # torch's counter passes over fused attention, so attention is multiplied out for it.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(images_NCHW)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    lines = summarize(network, (3, 32, 32))
    assert sum(line.multiply_adds for line in lines) == counter.get_total_flops() // 2
    assert total_multiply_adds(network, (3, 32, 32)) == counter.get_total_flops() // 2
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert sum(line.parameters for line in lines) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_tracing_leaves_no_trace(name: str) -> None:
    network = NETWORKS[name]().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    trace(network, (3, 32, 32))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(layer.training and not layer._forward_hooks for layer in network.modules())  # pyright: ignore[reportPrivateUsage]


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), kernel=st.integers(1, 4),
    stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    ceil=st.booleans(), kind=st.sampled_from(["conv", "max", "avg"]),
)  # fmt: skip
def test_the_arithmetic_of_a_size_is_left_out_where_it_would_be_wrong(
    size: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int,
    ceil: bool, kind: str,
) -> None:  # fmt: skip
    padding = min(padding, kernel // 2)  # torch's own limit for pooling
    layer = {
        "conv": lambda: nn.Conv2d(2, 3, kernel, stride, padding, dilation),
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil),
        "avg": lambda: nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil),
    }[kind]()
    try:
        expected = tuple(layer(torch.zeros(1, 2, *size)).shape[1:])
    except RuntimeError:
        return  # too small: torch refuses to run it
    (line,) = summarize(nn.Sequential(layer), (2, *size))
    assert line.output == expected
    if line.arithmetic:
        results = [int(part.rpartition("= ")[2]) for part in line.arithmetic.split(", ")]
        assert results in ([expected[1]], list(expected[1:]))
    elif kind == "conv":
        assert dilation > 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [("functions in forward", "conv2"), ("residual", "layer2"), ("resnet18", "layer1.1.relu")],
)
def test_grad_cam_of_any_network_is_captums_at_the_last_maps(name: str, layer: str) -> None:
    torch.manual_seed(1)
    network = NETWORKS[name]().eval()
    side = 8 if name == "resnet18" else 32  # its later layers leave one pixel of it
    model = Classifier(network, (3, side, side), [str(k) for k in range(10)], (0.5,), (0.5,))
    images_NCHW = torch.randint(256, (3, 3, side, side), dtype=torch.uint8)
    found = grad_cam(model, images_NCHW, torch.tensor([1, 2, 3]))
    assert found.layer == layer
    if layer.endswith("relu"):  # called twice in its block: captum hooks the block instead
        layer = layer.removesuffix(".relu")
    captum = LayerGradCam(network, network.get_submodule(layer))
    inputs_NCHW = model.normalize(images_NCHW).requires_grad_()
    expected_N1HW = captum.attribute(
        inputs_NCHW, target=torch.tensor([1, 2, 3]), relu_attributions=True
    )
    torch.testing.assert_close(
        found.coarse_NHW, torch.as_tensor(expected_N1HW).detach()[:, 0], rtol=1e-4, atol=1e-7
    )
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_feature_maps_of_any_network_are_what_its_layers_put_out() -> None:
    network = Residual().eval()
    model = Classifier(network, (3, 32, 32), [str(k) for k in range(10)])
    image_CHW = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    maps = {one.layer: one.maps_MHW for one in feature_maps(model, image_CHW)}
    with torch.no_grad():
        conv1 = network.layer1.conv1(model.normalize(image_CHW[None]))
    assert torch.equal(maps["layer1.conv1"], conv1[0])
    assert torch.equal(maps["layer1.bn1"], network.layer1.bn1(conv1)[0])
    assert {"layer2.down", "layer2.conv2"} < maps.keys()
