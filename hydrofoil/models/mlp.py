"""The multilayer perceptron of the mnist-mlp tutorial."""

from torch import nn

from hydrofoil.models.layers import Dropout
from hydrofoil.recipe.schema import Mlp


def mlp(spec: Mlp, shape: tuple[int, int, int], classes: int) -> dict[str, nn.Module]:
    """Return the layers fc1, fc2, …: linear, ReLU, dropout for each hidden layer, then linear."""
    channels, height, width = shape
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    features = channels * height * width
    for number, hidden in enumerate(spec.hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(features, hidden)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = Dropout(spec.dropout)
        features = hidden
    layers[f"fc{len(spec.hidden) + 1}"] = nn.Linear(features, classes)
    return layers
