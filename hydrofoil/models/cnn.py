"""The networks of 3×3 convolutions with padding that two tutorials train."""

from torch import nn

from hydrofoil.models.layers import Dropout, flat_features
from hydrofoil.recipe.schema import Cnn, Cnn3


def _convolutions(channels: int, widths: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return convolution, ReLU and pooling for each width, then flatten."""
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(widths, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = width
    return layers | {"flatten": nn.Flatten()}


def cnn3(spec: Cnn3, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, conv3, fc1, fc2, fc3 and what stands between them."""
    layers = _convolutions(shape[0], (16, 32, 64))
    return layers | {
        "dropout1": Dropout(spec.dropout),
        "fc1": nn.Linear(flat_features(layers, shape), 120),
        "relu4": nn.ReLU(),
        "dropout2": Dropout(spec.dropout),
        "fc2": nn.Linear(120, 60),
        "relu5": nn.ReLU(),
        "dropout3": Dropout(spec.dropout),
        "fc3": nn.Linear(60, classes),
    }


def cnn(_: Cnn, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, fc1 and what stands between them."""
    layers = _convolutions(shape[0], (8, 16))
    return layers | {"fc1": nn.Linear(flat_features(layers, shape), classes)}
