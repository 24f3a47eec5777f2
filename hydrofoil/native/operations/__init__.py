"""The layers that have native code: one module each, and the table that finds them."""

from collections.abc import Callable

from torch import nn

from hydrofoil.models.layers import Dropout
from hydrofoil.native.operations import conv, dropout, linear, norm, pointwise, pool
from hydrofoil.native.operations.base import Operation, Place, Sharing, Site, View
from hydrofoil.native.unsupported import Unsupported

__all__ = ["LAYERS", "Operation", "Place", "Sharing", "Site", "View", "make_operation"]

LAYERS: dict[type[nn.Module], Callable[[Site, nn.Module], Operation]] = {
    nn.Conv2d: conv.make,
    nn.Linear: linear.make,
    nn.BatchNorm1d: norm.make,
    nn.BatchNorm2d: norm.make,
    nn.MaxPool2d: pool.make,
    nn.AvgPool2d: pool.make,
    nn.ReLU: pointwise.make,
    nn.Tanh: pointwise.make,
    nn.Sigmoid: pointwise.make,
    Dropout: dropout.make,
}


def make_operation(site: Site, layer: nn.Module) -> Operation:
    """Return a layer's operation.

    Raises:
        Unsupported: The layer, or one of its options, has no native code.
    """
    make = LAYERS.get(type(layer))  # not isinstance: a subclass may compute something else
    if make is None:
        raise Unsupported(f"{site.layer}: no native code for {type(layer).__name__}")
    return make(site, layer)
