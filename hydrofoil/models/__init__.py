"""A literal table from a model's name to what makes its layers, or a module; one file a family.

Axes: C channels, W the 256 values of a byte, in a row.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hydrofoil.errors import HydrofoilError
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.cnn import cnn, cnn3
from hydrofoil.models.code import Network, as_code, check_code, prepare_network, unasked
from hydrofoil.models.lenet import lenet, lenet_linear
from hydrofoil.models.mlp import mlp
from hydrofoil.models.resnet import resnet
from hydrofoil.models.speednet import speednet
from hydrofoil.models.timm import own_normalization, timm_network
from hydrofoil.randomness import key
from hydrofoil.recipe.models import Custom, Timm
from hydrofoil.recipe.read import as_recipe
from hydrofoil.recipe.schema import Recipe
from hydrofoil.recipe.source import is_path

Layers = dict[str, nn.Module] | nn.Module
MODELS: dict[str, Callable[[Any, tuple[int, int, int], int], Layers]] = {
    "mlp": mlp,
    "lenet": lenet,
    "lenet-linear": lenet_linear,
    "cnn3": cnn3,
    "cnn": cnn,
    "speednet": speednet,
    "resnet": resnet,
    "resnet-20": resnet,
    "wrn-16-4": resnet,
    "timm": timm_network,
}

# These get images in the channels-last order, in which torch's convolutions are about twice as
# fast on a CPU. The tutorials' networks keep the order in which they were measured.
CHANNELS_LAST = {"speednet", "resnet", "resnet-20", "wrn-16-4", "timm"}


def build(
    recipe: str | Path | Recipe,
    shape: tuple[int, int, int],
    classes: Sequence[str],
    network: Network | None = None,
) -> Classifier:
    """Return a recipe's network, with its initial weights drawn from the recipe's seed.

    The layers stand in one nn.Sequential under the tutorials' own names, so that what is read in
    models/ is what runs, and its state dict is the tutorial's. Initialization is torch's default,
    drawn layer by layer as the tutorial's class would.

    Any other network is given: from normalized float32 N×C×H×W to one logit for each class.

    Args:
        recipe: Gives the model, the normalization and the seed: a recipe, or its name or path.
        shape: Channels, height and width of the images.
        classes: Their class names.
        network: Takes the place of the recipe's model: a class or function that makes it, called
            with the seed set; or a module, of which a copy is used, with the weights that it has.

    Raises:
        HydrofoilError: The images are too small for the model, or have another number of channels
            than the recipe's mean and deviation; or a given network does not fit them.

    >>> from hydrofoil.recipe.read import read_recipe
    >>> model = build(read_recipe("mnist-cnn"), (1, 28, 28), "0123456789")
    >>> list(model.network.state_dict())
    ['conv1.weight', 'conv1.bias', 'conv2.weight', 'conv2.bias', 'fc1.weight', 'fc1.bias']
    """
    recipe = as_recipe(recipe)
    # torch's layers draw from the CPU's global generator: it is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(recipe.train.seed, "weights"))
        made = _network(recipe, shape, len(classes), network)
    mean, std = recipe.data.mean or (0.0,), recipe.data.std or (1.0,)
    timms = recipe.model if network is None and isinstance(recipe.model, Timm) else None
    pretrained = timms if timms and timms.pretrained else None
    if pretrained and not recipe.train.init:
        mean, std = own_normalization(pretrained, shape[0]).values()
    model = Classifier(made, shape, classes, mean, std)
    model.pretrained = pretrained
    model.channels_last = network is None and recipe.model.name in CHANNELS_LAST
    model.fit, model.own = recipe.data.fit, is_path(recipe.data.source)
    model.freeze(recipe.train.freeze)
    bytes_1C1W = torch.arange(256, dtype=torch.uint8).expand(1, shape[0], 1, 256)
    largest = model.normalize(bytes_1C1W).abs().max().item()
    if not isfinite(largest):
        raise HydrofoilError(
            f"data.std = {list(std)}: pixels become {largest:g} by it; "
            "expected deviations of pixels scaled to [0, 1], such as 0.5."
        )
    return model


def _network(
    recipe: Recipe, shape: tuple[int, int, int], classes: int, given: Network | None
) -> nn.Module:
    """Return the given network, or else the one that a recipe names."""
    if given is not None:
        code = as_code(given)
        check_code(recipe, code.section, recipe.name)
        network = code(shape, classes)
        prepare_network(network, shape, classes, code.name)
        return network
    if isinstance(recipe.model, Custom):
        raise unasked(recipe, None)
    made = MODELS[recipe.model.name](recipe.model, shape, classes)
    return made if isinstance(made, nn.Module) else nn.Sequential(OrderedDict(made))
