"""The networks of 3×3 convolutions with padding that two tutorials train."""

from torch import nn

from hydrofoil.models.layers import Dropout, activation, flat_features, norm_of_maps
from hydrofoil.recipe.models import Cnn, Cnn3, Convolutional, LeNet


def convolutions(
    spec: Convolutional, channels: int, kernel: int, padding: int
) -> dict[str, nn.Module]:
    """Return convolution, norm, activation and pooling for each width, then flatten."""
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(spec.widths, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, width, kernel, padding=padding)
        layers |= norm_of_maps(spec.norm, width, number)
        layers |= activation(spec.activation, number)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels = width
    return layers | {"flatten": nn.Flatten()}


def linear_layers(
    spec: LeNet | Cnn3 | Cnn, features: int, classes: int, dropout: float | None = None
) -> dict[str, nn.Module]:
    """Return fc1, fc2, …: linear and activation for each hidden width, then linear.

    Args:
        spec: Says `hidden` and `activation`.
        features: That come in.
        classes: That go out.
        dropout: The probability of a dropout layer before each linear one; None: no such layers.
    """
    layers: dict[str, nn.Module] = {}
    for number, units in enumerate((*spec.hidden, classes), start=1):
        if dropout is not None:
            layers[f"dropout{number}"] = Dropout(dropout)
        layers[f"fc{number}"] = nn.Linear(features, units)
        if number <= len(spec.hidden):
            layers |= activation(spec.activation, len(spec.widths) + number)
        features = units
    return layers


def cnn3(spec: Cnn3, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, conv3, fc1, fc2, fc3 and what stands between them."""
    layers = convolutions(spec, shape[0], kernel=3, padding=1)
    return layers | linear_layers(spec, flat_features(layers, shape), classes, spec.dropout)


def cnn(spec: Cnn, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers conv1, conv2, fc1 and what stands between them."""
    layers = convolutions(spec, shape[0], kernel=3, padding=1)
    return layers | linear_layers(spec, flat_features(layers, shape), classes)
