"""The sections [model]: one for each family of networks."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hydrofoil.recipe.fields import Above, Fields, Fraction, Widths

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


class SpeedNet(Fields):
    """A whitening 2×2 stem and groups of 3×3 convolutions, each halved once by max-pooling."""

    norm: ClassVar = "batch"
    name: Literal["speednet"]
    widths: Annotated[Widths, Field(min_length=1)] = (64, 256, 256)
    """Channels of each group of convolutions."""
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    """Convolutions in each group."""
    residual: bool = False
    """Add the output of each group's first convolution to that of its last."""
    activation: Activation = "gelu"
    """The function after the stem and after each convolution."""
    initialization: Literal["dirac", "default"] = "dirac"
    """The first filters pass channels on unchanged; or torch's default initialization."""
    logit_scale: Above = 1 / 9
    """The logits are multiplied by this."""
    dropout: Fraction = 0.0
    """The fraction of features set to zero before the linear layer while training."""
    drop_path: Fraction = 0.0
    """The fraction of images that skip a residual branch: rises over the groups to this one."""

    @model_validator(mode="after")
    def _residual_groups_have_something_to_skip(self) -> Self:
        if self.residual and self.depth < 2:
            raise ValueError(
                f"model.depth = {self.depth} with model.residual: expected 2 or more convolutions, "
                "since the first one is not skipped"
            )
        if self.drop_path and not self.residual:
            raise ValueError(
                f"model.drop_path = {self.drop_path:g}: it skips residual convolutions, "
                "and the network has none\nSet model.residual=true, or model.drop_path=0"
            )
        return self


class Residual(Fields):
    """Basic blocks of two 3×3 convolutions; each group but the first halves the image."""

    norm: ClassVar = "batch"
    widths: Annotated[Widths, Field(min_length=1)] = (32, 64, 128)
    """Channels of each group of blocks."""
    depth: Annotated[int, Field(ge=1, le=200)] = 2
    """Blocks in each group."""
    stem: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Channels of the first convolution; 0: as the first group."""
    preactivation: bool = False
    """Norm and activation before each convolution, as in wide residual networks, not after it."""
    activation: Activation = "relu"
    """The function between convolutions."""
    dropout: Fraction = 0.0
    """The fraction of activations set to zero between a block's convolutions while training."""
    drop_path: Fraction = 0.0
    """The fraction of images that skip a block in training: rises over the blocks to this one."""


class ResNet(Residual):
    """Residual blocks in widths and depths of your choice."""

    name: Literal["resnet"]


class ResNet20(Residual):
    """ResNet-20 for small images (He et al. 2016), of 0.27 million parameters."""

    name: Literal["resnet-20"]
    widths: Annotated[Widths, Field(min_length=1)] = (16, 32, 64)
    """Channels of each group of blocks."""
    depth: Annotated[int, Field(ge=1, le=200)] = 3
    """Blocks in each group."""


class Wrn164(Residual):
    """WRN-16-4 (Zagoruyko and Komodakis 2016), of 2.75 million parameters."""

    name: Literal["wrn-16-4"]
    widths: Annotated[Widths, Field(min_length=1)] = (64, 128, 256)
    """Channels of each group of blocks."""
    stem: Annotated[int, Field(ge=0, le=2**31 - 1)] = 16
    """Channels of the first convolution; 0: as the first group."""
    preactivation: bool = True
    """Norm and activation before each convolution, as in wide residual networks, not after it."""


class Timm(Fields):
    """Any network of the package timm, which the extra `timm` installs."""

    norm: ClassVar = "batch"  # or layer norm: all of timm's have one
    name: Literal["timm"]
    architecture: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "resnet18"
    """Its name in timm, such as convnext_atto; timm.list_models() lists them in Python."""
    pretrained: bool = False
    """Start from timm's own weights, which must be in the local cache: nothing is downloaded."""
    dropout: Fraction = 0.0
    """timm's drop_rate: the dropout before the last layer, or as the architecture has it."""
    drop_path: Fraction = 0.0
    """timm's drop_path_rate: stochastic depth; 0 for an architecture without it."""


class Custom(Fields):
    """The user's own network, given by --model-code or in Python: a recipe runs no code."""

    name: Literal["custom"]
    code: str = ""
    """The class or function, as in --model-code FILE.py:NAME."""
    sha256: str = ""
    """SHA-256 of the file's text, which the run stores; other code is refused."""


Model = Annotated[
    Mlp | LeNet | LeNetLinear | Cnn3 | Cnn | SpeedNet | ResNet | ResNet20 | Wrn164 | Timm | Custom,
    Field(discriminator="name"),
]
