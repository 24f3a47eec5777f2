"""LeNet as two tutorials have it: 5×5 convolutions without padding, after LeCun et al. 1998."""

from torch import nn

from hydrofoil.models.layers import flat_features
from hydrofoil.recipe.schema import LeNet, LeNetLinear


def _convolutions(shape: tuple[int, int, int]) -> tuple[dict[str, nn.Module], int]:
    """Return the layers that both variants share, and the number of features that come out."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(shape[0], 6, 5),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
    }
    return layers, flat_features(layers, shape)


def lenet(_: LeNet, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, fc1, fc2, fc3 and what stands between them."""
    layers, features = _convolutions(shape)
    return layers | {
        "fc1": nn.Linear(features, 120),
        "relu3": nn.ReLU(),
        "fc2": nn.Linear(120, 84),
        "relu4": nn.ReLU(),
        "fc3": nn.Linear(84, classes),
    }


def lenet_linear(_: LeNetLinear, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, lin1 and what stands between them."""
    layers, features = _convolutions(shape)
    return layers | {"lin1": nn.Linear(features, classes)}
