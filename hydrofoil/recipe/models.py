"""The sections [model]: one for each family of networks."""

from typing import Annotated, Literal

from pydantic import Field

from hydrofoil.recipe.fields import Fields, Fraction, Widths

Activation = Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh", "sigmoid"]


class Mlp(Fields):
    """A multilayer perceptron: hidden layers, then a linear one."""

    name: Literal["mlp"]
    hidden: Widths = (512, 512)
    """Units of each hidden layer."""
    activation: Activation = "relu"
    """The function after each hidden layer."""
    norm: Literal["none", "batch", "layer"] = "none"
    """The normalization between each hidden layer and its activation."""
    dropout: Fraction = 0.2
    """The fraction of activations set to zero after each hidden layer while training."""


class Convolutional(Fields):
    """Convolutions, each with an activation and a 2×2 max-pooling."""

    widths: Annotated[Widths, Field(min_length=1)] = (8, 16)
    """Channels of each convolution."""
    activation: Activation = "relu"
    """The function after each convolution and hidden layer."""
    norm: Literal["none", "batch", "group", "layer"] = "none"
    """The normalization between each convolution and its activation."""


class LeNet(Convolutional):
    """5×5 convolutions without padding, then hidden layers and a linear one."""

    name: Literal["lenet"]
    widths: Annotated[Widths, Field(min_length=1)] = (6, 16)
    """Channels of each convolution."""
    hidden: Widths = (120, 84)
    """Units of each hidden layer after the convolutions."""


class LeNetLinear(Convolutional):
    """5×5 convolutions without padding, then one linear layer."""

    name: Literal["lenet-linear"]
    widths: Annotated[Widths, Field(min_length=1)] = (6, 16)
    """Channels of each convolution."""


class Cnn3(Convolutional):
    """3×3 convolutions, then hidden layers and a linear one, with dropout before each."""

    name: Literal["cnn3"]
    widths: Annotated[Widths, Field(min_length=1)] = (16, 32, 64)
    """Channels of each convolution."""
    hidden: Widths = (120, 60)
    """Units of each hidden layer after the convolutions."""
    dropout: Fraction = 0.25
    """The fraction of activations set to zero before each linear layer while training."""


class Cnn(Convolutional):
    """3×3 convolutions, then a linear layer."""

    name: Literal["cnn"]
    hidden: Widths = ()
    """Units of each hidden layer after the convolutions."""


class Custom(Fields):
    """The user's own network, given by --model-code or in Python: a recipe runs no code."""

    name: Literal["custom"]
    code: str = ""
    """The class or function, as in --model-code FILE.py:NAME."""
    sha256: str = ""
    """SHA-256 of the file's text, which the run stores; other code is refused."""


Model = Annotated[Mlp | LeNet | LeNetLinear | Cnn3 | Cnn | Custom, Field(discriminator="name")]
