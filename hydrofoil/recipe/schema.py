"""What a recipe may say: the strict schema, where each field is documented under its declaration.

A recipe is a page of TOML, and data only: safe to open from a stranger, easy to diff. Reading it
resolves every default, so that two recipes are the same if and only if they are equal.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


# Of `train`: these decide nothing about the weights after an epoch.
FREE = ("epochs", "log_every", "save_steps", "save_seconds", "on_nan")


class Fields(BaseModel):
    """A frozen section of a recipe that knows its fields and no others."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class Data(Fields):
    """Which pictures, how they are normalized and how they are divided."""

    source: str
    """The set: digits, mnist, fashion-mnist, cifar10 or cifar100."""
    root: str = ""
    """The folder of the published files; empty: --data-root, HYDROFOIL_DATA or the user's cache."""
    mean: Annotated[tuple[Finite, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0.0,)
    """Subtracted from each channel of pixels scaled to [0, 1]; one number serves all channels."""
    std: Annotated[tuple[Above, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (1.0,)
    """What each channel is divided by after that; one number serves all channels."""
    valid: Fraction = 0.0
    """Fraction of the pictures outside the published test split, drawn by class for validation."""
    test: Fraction = 0.0
    """Fraction drawn by class for testing; for sets that publish no test split, or with `merge`."""
    merge: bool = False
    """Forget the published test split: draw train, valid and test from all pictures together."""

    @model_validator(mode="after")
    def _parts_leave_something_to_train_on(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(
                f"data.valid + data.test = {self.valid + self.test:g}: expected less than 1, "
                "so that pictures are left to train on"
            )
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"data.mean has {len(self.mean)} numbers and data.std {len(self.std)}: "
                "expected one for each channel in both"
            )
        return self


Widths = Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple)]
Activation = Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh", "sigmoid"]


class Mlp(Fields):
    """A multilayer perceptron: hidden layers, then a linear one."""

    name: Literal["mlp"]
    widths: Widths = (512, 512)
    """Units of each hidden layer."""
    activation: Activation = "relu"
    """The function after each hidden layer."""
    norm: Literal["none", "batch", "layer"] = "none"
    """The normalization between each hidden layer and its activation."""
    dropout: Fraction = 0.2
    """The share of activations set to zero after each hidden layer while training."""


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
    """The share of activations set to zero before each linear layer while training."""


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
    """SHA-256 of the file's text, which the run keeps; other code is refused."""


Model = Annotated[Mlp | LeNet | LeNetLinear | Cnn3 | Cnn | Custom, Field(discriminator="name")]


class Train(Fields):
    """How long, in which steps, and which weights are kept."""

    epochs: Positive
    """Passes over the training split."""
    batch_size: Positive
    """Pictures per step; the last batch of an epoch may be smaller."""
    select: Literal["last", "valid.loss", "valid.accuracy"] | None = None
    """Which epoch's weights are kept as best; default: valid.loss, or last if none is held out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What initialization, split, order and dropout are drawn from."""
    label_smoothing: Fraction = 0.0
    """The share of each label that is spread over all classes in the training loss."""
    init: str = ""
    """Start from these weights: a run folder or a file of weights; empty: drawn from the seed."""
    init_sha256: str = ""
    """SHA-256 of their tensors, which a run fills in; other weights are refused."""
    freeze: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Layers that are not trained, such as ["conv1", "layer1.*"]; they run as in evaluation."""
    execute: Literal["auto", "eager", "compile", "graph", "native"] = "auto"
    """What runs the steps; auto: native on a CPU, graph on a GPU, eager if they cannot run."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads for torch; 0: one for small steps, else all."""
    precision: Literal["float32"] = "float32"
    """The number format of weights, activations and gradients."""
    log_every: Annotated[int, Field(ge=0)] = 0
    """Print and log the mean loss of every so many steps; 0: only once an epoch."""
    save_steps: Annotated[int, Field(ge=0)] = 0
    """Save a checkpoint every so many steps inside an epoch, whatever it costs; 0: never."""
    save_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 30.0
    """Save inside an epoch after so many seconds without a checkpoint, 5 at least; 0: never."""
    on_nan: Literal["stop"] = "stop"
    """Where a loss or gradient is not finite: stop before the update, and keep what was good."""


class Sgd(Fields):
    """Stochastic gradient descent, torch.optim.SGD."""

    name: Literal["sgd"]
    lr: Above
    """Learning rate."""
    momentum: Amount = 0.0
    """How much of the last update goes into the next."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    decay_biases: bool = True
    """Whether biases and the parameters of norms decay too."""

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
    betas: Annotated[tuple[Fraction, Fraction], BeforeValidator(_as_tuple)] = (0.9, 0.999)
    """How slowly the running means of the gradient and of its square forget."""
    eps: Above = 1e-8
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty (adam) or decoupled decay (adamw)."""
    decay_biases: bool = True
    """Whether biases and the parameters of norms decay too."""


class NAdam(Fields):
    """Adam with Nesterov's momentum, torch.optim.NAdam."""

    name: Literal["nadam"]
    lr: Above = 0.002
    """Learning rate."""
    betas: Annotated[tuple[Fraction, Fraction], BeforeValidator(_as_tuple)] = (0.9, 0.999)
    """Decay rates of the first and second moment estimates."""
    eps: Above = 1e-8
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    momentum_decay: Amount = 0.004
    """How fast the momentum warms up."""
    decay_biases: bool = True
    """Whether biases and the parameters of norms decay too."""


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
    """Whether biases and the parameters of norms decay too."""


class Adagrad(Fields):
    """Adagrad, torch.optim.Adagrad."""

    name: Literal["adagrad"]
    lr: Above = 0.01
    """Learning rate."""
    lr_decay: Amount = 0.0
    """The rate of step t, counted from 0, is lr / (1 + t * lr_decay)."""
    initial_accumulator_value: Amount = 0.0
    """What each sum of squared gradients begins with."""
    eps: Above = 1e-10
    """Added to the denominator."""
    weight_decay: Amount = 0.0
    """L2 penalty, added to the gradient."""
    decay_biases: bool = True
    """Whether biases and the parameters of norms decay too."""


class Muon(Fields):
    """Muon for hidden weights, filters flattened; AdamW for biases, norms and the last layer."""

    name: Literal["muon"]
    lr: Above = 0.02
    """Learning rate of the hidden weights; the default is Jordan et al.'s (2024)."""
    momentum: Fraction = 0.95
    """Momentum factor."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Amount = 0.0
    """Decoupled weight decay of the hidden weights."""
    ns_steps: Annotated[int, Field(ge=1, le=99)] = 5
    """Newton-Schulz iterations that orthogonalize an update."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original"
    """How the rate follows a matrix's shape; match_rms_adamw takes AdamW's rates."""
    adamw_lr: Above = 0.001
    """Learning rate of AdamW's part; a schedule changes both in proportion."""
    adamw_weight_decay: Amount = 0.0
    """Decoupled weight decay of AdamW's part."""


AnyOptimizer = Sgd | Adam | NAdam | RmsProp | Adagrad | Muon
Optimizer = Annotated[AnyOptimizer, Field(discriminator="name")]


class _Schedule(Fields):
    """A learning rate for each step, as a factor of `optimizer.lr`."""

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return True


class _WarmUp(_Schedule):
    """A schedule that may begin with a warm-up."""

    warmup_epochs: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    """Epochs, or a fraction of one, in which the rate rises in equal steps to optimizer.lr."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The same in steps; give one of the two. The schedule begins after the warm-up."""

    @model_validator(mode="after")
    def _one_warm_up(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                "schedule.warmup_epochs and schedule.warmup_steps are both set: expected one"
            )
        return self


class ConstantSchedule(_WarmUp):
    """optimizer.lr in every step."""

    name: Literal["constant"] = "constant"

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return False


class StepSchedule(_WarmUp):
    """The rate is multiplied by `factor` every few epochs, torch.optim.lr_scheduler.StepLR."""

    name: Literal["step"]
    every: Positive
    """Epochs between two changes."""
    factor: Above = 0.1
    """What the rate is multiplied by at each change."""

    @property
    def needs_epochs(self) -> bool:
        """Whether the rates of all steps depend on the number of epochs."""
        return False


class CosineSchedule(_WarmUp):
    """Half a cosine from optimizer.lr to `final_lr`, step by step; CosineAnnealingLR."""

    name: Literal["cosine"]
    final_lr: Amount = 0.0
    """The rate that the step after the last would have."""


class LinearSchedule(_WarmUp):
    """A straight line from optimizer.lr to `final_lr`, step by step; LinearLR."""

    name: Literal["linear"]
    final_lr: Amount = 0.0
    """The rate that the step after the last would have."""


class OneCycleSchedule(_Schedule):
    """Up to optimizer.lr and down again along two half cosines; OneCycleLR (Smith & Topin 2017)."""

    name: Literal["one-cycle"]
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The fraction of all steps in which the rate rises."""
    div_factor: Annotated[float, Field(ge=1, le=1e9)] = 25.0
    """The first rate is optimizer.lr divided by this."""
    final_div_factor: Annotated[float, Field(ge=1, le=1e12)] = 1e4
    """The last rate is the first divided by this."""


def _constant_if_unnamed(value: object) -> object:
    """Let a section that gives a warm-up alone mean the constant schedule."""
    if isinstance(value, dict) and "name" not in value:
        return {"name": "constant", **cast("dict[str, object]", value)}
    return value


Schedule = Annotated[
    Annotated[
        ConstantSchedule | StepSchedule | CosineSchedule | LinearSchedule | OneCycleSchedule,
        Field(discriminator="name"),
    ],
    BeforeValidator(_constant_if_unnamed),
]


class Expect(Fields):
    """What the published original reached: what benchmarks and slow tests hold the recipe to."""

    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Test accuracy, from 0 to 1."""


class Recipe(Fields):
    """Everything that decides what a run computes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """What the recipe is called; its runs are kept in folders named after it."""
    about: str = ""
    """One line on what it trains and where it comes from."""
    data: Data
    """Which pictures, how they are normalized and how they are divided."""
    model: Model
    """Which network."""
    train: Train
    """How long, in which steps, and which weights are kept."""
    optimizer: Optimizer
    """What turns gradients into updates."""
    schedule: Schedule = ConstantSchedule()
    """How the learning rate changes from step to step."""
    expect: Expect = Expect()
    """What the published original reached."""

    @model_validator(mode="after")
    def _select_what_there_is(self) -> Self:
        select = self.train.select
        if select is None:
            select = "valid.loss" if self.data.valid else "last"
            # The schema is frozen for its users; its own default is resolved here, once.
            object.__setattr__(self, "train", self.train.model_copy(update={"select": select}))
        if select != "last" and not self.data.valid:
            raise ValueError(
                f'train.select = "{select}": expected "last", '
                "since data.valid = 0 holds nothing out\n"
                "Set train.select=last, or hold pictures out with data.valid=0.2"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        warmup = getattr(self.schedule, "warmup_epochs", 0.0)
        if warmup and warmup >= self.train.epochs:
            raise ValueError(
                f"schedule.warmup_epochs = {warmup:g}: "
                f"expected fewer than train.epochs ({self.train.epochs})"
            )
        return self

    def split_options(self) -> dict[str, Any]:
        """Return what `draw_split` needs beside the pictures."""
        data = self.data
        return {
            "valid": data.valid,
            "test": data.test,
            "merge": data.merge,
            "seed": self.train.seed,
        }

    def toml(self) -> str:
        """Return the recipe as TOML with every field in it; reading it gives an equal recipe."""
        plain = self.model_dump(mode="json", exclude_none=True)
        top = [
            f"{key} = {toml_value(value)}" for key, value in plain.items() if not _is_table(value)
        ]
        sections = [
            "\n".join([f"[{key}]", *(f"{k} = {toml_value(v)}" for k, v in _name_first(value))])
            for key, value in plain.items()
            if _is_table(value)
        ]
        return "\n\n".join(["\n".join(top), *sections]) + "\n"

    def hash(self) -> str:
        """Return the SHA-256, in hexadecimal, of all that decides the weights after each epoch.

        That is all but names, remarks, expectations, the data root, what is logged and saved when,
        what runs the steps on how many threads, and the number of epochs, unless the schedule
        depends on it.
        """
        free = {*FREE, "execute", "threads", "init"} - (
            {"epochs"} if self.schedule.needs_epochs else set()
        )
        plain = self.model_dump(
            mode="json",
            exclude={
                "name": True,
                "about": True,
                "expect": True,
                "data": {"root"},
                "train": free,
            },
        )
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _name_first(section: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(section.items(), key=lambda field: field[0] != "name")


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def toml_value(value: object) -> str:
    """Return a string, number, boolean or list as a TOML value, spelt as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, cast('list[object]', value)))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def members(section: str) -> list[type[Fields]]:
    """Return the schemas that a section may follow."""
    annotation = Recipe.model_fields[section].annotation
    return [
        m
        for m in (annotation, *get_args(annotation))
        if isinstance(m, type) and issubclass(m, Fields)
    ]


def tags(section: str) -> list[str]:
    """Return the names that a section's `name` may take."""
    return [tag for member in members(section) for tag in tags_of(member)]


def tags_of(member: type[Fields]) -> tuple[str, ...]:
    """Return the names that choose a schema."""
    return get_args(member.model_fields["name"].annotation)
