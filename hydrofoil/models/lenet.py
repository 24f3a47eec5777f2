"""LeNet as two tutorials have it: 5×5 convolutions without padding, after LeCun et al. 1998."""

from torch import nn

from hydrofoil.models.cnn import convolutions, linear_layers
from hydrofoil.models.layers import flat_features
from hydrofoil.recipe.models import LeNet, LeNetLinear


def lenet(spec: LeNet, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, fc1, fc2, fc3 and what stands between them."""
    layers = convolutions(spec, shape[0], kernel=5, padding=0)
    return layers | linear_layers(spec, flat_features(layers, shape), classes)


def lenet_linear(
    spec: LeNetLinear, shape: tuple[int, int, int], classes: int
) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, lin1 and what stands between them."""
    layers = convolutions(spec, shape[0], kernel=5, padding=0)
    return layers | {"lin1": nn.Linear(flat_features(layers, shape), classes)}
