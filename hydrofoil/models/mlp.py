"""The multilayer perceptron of the mnist-mlp tutorial."""

from torch import nn

from hydrofoil.models.layers import Dropout, activation, norm_of_features
from hydrofoil.recipe.models import Mlp


def mlp(spec: Mlp, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return fc1, fc2, …: linear, norm, activation and dropout for each width, then linear."""
    channels, height, width = shape
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    features = channels * height * width
    for number, units in enumerate(spec.hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(features, units)
        layers |= norm_of_features(spec.norm, units, number)
        layers |= activation(spec.activation, number)
        layers[f"dropout{number}"] = Dropout(spec.dropout)
        features = units
    layers[f"fc{len(spec.hidden) + 1}"] = nn.Linear(features, classes)
    return layers
