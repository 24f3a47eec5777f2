"""The sections [optimizer]: one for each optimizer, with torch's names and defaults."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hydrofoil.recipe.fields import Above, Amount, AsPair, Fields, Fraction


class Sgd(Fields):
    """Stochastic gradient descent, torch.optim.SGD."""

    name: Literal["sgd"]
    lr: Above = 0.001
    """Learning rate."""
    momentum: Amount = 0.0
    """Momentum factor."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    decoupled: bool = False
    """Subtract lr * weight_decay * weight from the weights instead (Loshchilov & Hutter 2019)."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "optimizer.nesterov = true: expected optimizer.momentum above 0 with it"
            )
        return self


class Adam(Fields):
    """Adam, or AdamW with its decoupled weight decay; torch.optim.Adam and AdamW."""

    name: Literal["adam", "adamw"]
    lr: Above = 0.001
    """Learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], AsPair] = (0.9, 0.999)
    """Decay rates of the first and second moment estimates."""
    eps: Above = 1e-8
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty (adam) or decoupled decay (adamw)."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms."""


class NAdam(Fields):
    """Adam with Nesterov's momentum, torch.optim.NAdam."""

    name: Literal["nadam"]
    lr: Above = 0.002
    """Learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], AsPair] = (0.9, 0.999)
    """Decay rates of the first and second moment estimates."""
    eps: Above = 1e-8
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    momentum_decay: Amount = 0.004
    """How fast the momentum warms up."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms."""


class RmsProp(Fields):
    """RMSprop, torch.optim.RMSprop."""

    name: Literal["rmsprop"]
    lr: Above = 0.01
    """Learning rate."""
    alpha: Fraction = 0.99
    """Decay rate of the mean squared gradient."""
    eps: Above = 1e-8
    """Added to the denominator."""
    momentum: Amount = 0.0
    """Momentum factor."""
    centered: bool = False
    """Divide by the standard deviation of the gradient instead of its root mean square."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms."""


class Adagrad(Fields):
    """Adagrad, torch.optim.Adagrad."""

    name: Literal["adagrad"]
    lr: Above = 0.01
    """Learning rate."""
    lr_decay: Amount = 0.0
    """The rate of step t, counted from 0, is lr / (1 + t * lr_decay)."""
    initial_accumulator_value: Amount = 0.0
    """Initial value of each sum of squared gradients."""
    eps: Above = 1e-10
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    decay_biases: bool = True
    """Whether weight decay also applies to biases and the parameters of norms."""


class Muon(Fields):
    """Muon for hidden weights, filters flattened; AdamW or SGD for last layer, biases, norms."""

    name: Literal["muon"]
    lr: Above = 0.02
    """Learning rate of the hidden weights; the default is Jordan et al.'s (2024)."""
    momentum: Fraction = 0.95
    """Momentum factor."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Amount = 0.0
    """Decoupled weight decay of the hidden weights."""
    normalize: bool = False
    """Keep each hidden weight at norm √rows (Jordan 2024, airbench), so that lr turns it."""
    ns_steps: Annotated[int, Field(ge=1, le=99)] = 5
    """Newton-Schulz iterations that orthogonalize an update."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original"
    """How the rate follows a matrix's shape; match_rms_adamw takes AdamW's rates."""
    others: Literal["adamw", "sgd"] = "adamw"
    """What updates biases, norms and the last layer; sgd has `nesterov` as well."""
    others_lr: Above = 0.001
    """Its learning rate, of which sgd needs more; a schedule changes both in proportion."""
    others_momentum: Fraction = 0.9
    """Momentum factor of sgd."""
    others_weight_decay: Amount = 0.0
    """Its weight decay, decoupled with both."""


AnyOptimizer = Sgd | Adam | NAdam | RmsProp | Adagrad | Muon
Optimizer = Annotated[AnyOptimizer, Field(discriminator="name")]
