"""What the generator knows of a network: its layers as operations between buffers of fixed shape.

The walk fuses convolution, ReLU and max-pooling into one operation and decides every size, so that
the emitters only write it down. A layer or option that has no emitter raises `Unsupported`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import nn

from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import Dropout, windows

Pair = tuple[int, int]
LANES = 8  # floats in a vector of 32 bytes
ROWS_FROM_BYTES = 300_000  # a larger weight matrix is split over threads by rows: see `Linear.rows`
# A batch is cut into so many groups of pictures, however many threads there are, and a gradient of
# a convolution is summed by groups: no bit depends on the threads, and no more of them are of use.
MOST_GROUPS = 8
# Sums of batch normalisation and the places of a convolution's gradient lie on a thread's stack,
# which may be 512 KB.
MOST_NORM_CHANNELS = 16_384
MOST_POSITIONS = 32_768


class Unsupported(Exception):  # noqa: N818 - it tells, and the next executor takes over
    """The generator has no code for this; another executor must take over."""


def padded(count: int, multiple: int = LANES) -> int:
    """Return a count rounded up to a whole number of vectors.

    >>> padded(6)
    8
    """
    return -(-count // multiple) * multiple


@dataclass(frozen=True)
class Buffer:
    """One picture's activations: rows, columns, channels, with a border of zeros to pad with.

    Channels lie next to each other, without gaps, so that a window's row of (column, channel) is
    one run of floats. A vector of features has height and width 1.
    """

    name: str
    channels: int
    height: int = 1
    width: int = 1
    halo: Pair = (0, 0)

    @property
    def row(self) -> int:
        """Floats from one row to the next."""
        return (self.width + 2 * self.halo[1]) * self.channels

    @property
    def origin(self) -> int:
        """Where the first activation stands behind the border."""
        return self.halo[0] * self.row + self.halo[1] * self.channels

    @property
    def stride(self) -> int:
        """Floats from one picture to the next; a picture's last vectors may reach beyond it."""
        return padded((self.height + 2 * self.halo[0]) * self.row + 2 * LANES, 16)

    @property
    def features(self) -> int:
        """Activations of a picture."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> str:
        """The shape as a person writes it."""
        flat = self.height * self.width == 1
        return str(self.channels) if flat else f"{self.channels}×{self.height}×{self.width}"


@dataclass(frozen=True)
class Conv:
    """Convolution, then ReLU, then max-pooling; the last two may be absent (a window of 1)."""

    name: str
    layer: nn.Conv2d
    kernel: Pair
    stride: Pair
    padding: Pair
    source: Buffer
    result: Buffer
    relu: bool = False
    pool_kernel: Pair = (1, 1)
    pool_stride: Pair = (1, 1)
    pool_padding: Pair = (0, 0)
    first: bool = False  # nobody asks for the gradient of the pictures

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.layer.out_channels

    @property
    def positions(self) -> Pair:
        """Rows and columns of the convolution's output, before pooling."""
        (height, width), source = self.kernel, self.source
        return (
            (source.height - height + 2 * self.padding[0]) // self.stride[0] + 1,
            (source.width - width + 2 * self.padding[1]) // self.stride[1] + 1,
        )

    @property
    def run(self) -> int:
        """Floats in a row of the window: columns times channels."""
        return self.kernel[1] * self.source.channels


@dataclass(frozen=True)
class Linear:
    """A linear layer on all features of its source.

    A small one is computed by each thread for its own pictures. A large one (`rows`) is computed by
    each thread for its own output rows and all pictures, at the price of a barrier or two a step.
    """

    name: str
    layer: nn.Linear
    source: Buffer
    result: Buffer
    rows: bool
    first: bool = False


@dataclass(frozen=True)
class Pointwise:
    """ReLU, tanh or sigmoid by itself."""

    name: str
    kind: str
    source: Buffer
    result: Buffer


@dataclass(frozen=True)
class Pool:
    """Max- or average-pooling by itself."""

    name: str
    kind: str
    kernel: Pair
    stride: Pair
    padding: Pair
    source: Buffer
    result: Buffer


@dataclass(frozen=True)
class Drop:
    """Dropout; `number` counts the network's dropout layers, as the keys of its masks do."""

    name: str
    number: int
    p: float
    source: Buffer
    result: Buffer


@dataclass(frozen=True)
class Norm:
    """Batch normalisation over pictures and positions, or over pictures alone after Flatten."""

    name: str
    layer: nn.BatchNorm1d | nn.BatchNorm2d
    source: Buffer
    result: Buffer
    flat: bool
    first: bool = False

    @property
    def channels(self) -> int:
        """What has a mean and a deviation of its own: channels, or features after Flatten."""
        return self.source.features if self.flat else self.source.channels

    @property
    def area(self) -> int:
        """Positions of a picture that share a mean."""
        return self.source.features // self.channels


Operation = Conv | Linear | Pointwise | Pool | Drop | Norm
WEIGHTED = (Conv, Linear, Norm)
POINTWISE = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


@dataclass(frozen=True)
class Plan:
    """A network as operations, from the pictures to the logits."""

    pictures: Buffer
    operations: tuple[Operation, ...]
    batch: int
    dropouts: int

    @property
    def logits(self) -> Buffer:
        """What the loss is computed from."""
        return self.operations[-1].result

    @property
    def groups(self) -> int:
        """Into how many groups of pictures a batch is cut."""
        return min(self.batch, MOST_GROUPS)


def make_plan(model: Classifier, batch: int) -> Plan:
    """Return the plan of a model for a batch size.

    Raises:
        Unsupported: A layer, or one of its options, has no emitter.
    """
    network = model.network
    _check_plain(model)
    operations = tuple(_bordered(_fused(list(_walk(cast("nn.Sequential", network), model.shape)))))
    if not any(isinstance(operation, WEIGHTED) for operation in operations):
        raise Unsupported("the network has no layer with weights")
    logits = operations[-1].result
    if logits.height * logits.width != 1 or logits.channels != len(model.classes):
        raise Unsupported(f"the network ends in {logits.shape}, not in one logit for each class")
    dropouts = sum(isinstance(layer, Dropout) for layer in network.modules())
    return Plan(operations[0].source, operations, batch, dropouts)


def _check_plain(model: Classifier) -> None:
    """Refuse what would run more than its layers: another forward, or hooks."""
    if type(model) is not Classifier or type(model.network) is not nn.Sequential:
        raise Unsupported("a Classifier or Sequential of another class")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for module in model.modules():
        if any(getattr(module, name, None) for name in hooks):
            raise Unsupported(f"{type(module).__name__} with hooks")


def _walk(network: nn.Sequential, shape: tuple[int, ...]) -> Iterator[Operation]:
    """Yield an operation for each layer but Flatten, unfused and without borders."""
    source, flat, dropouts = Buffer("pictures", shape[0], shape[1], shape[2]), False, 0
    children = list(network.named_children())
    if len(children) != len(network):
        raise Unsupported("a layer stands twice in the network")
    for name, layer in children:
        if type(layer) is nn.Flatten:
            if (layer.start_dim, layer.end_dim) != (1, -1):
                raise Unsupported(f"{name}: Flatten of other axes than all")
            flat = True
            continue
        if flat and isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            raise Unsupported(f"{name}: {type(layer).__name__} after Flatten")
        operation = _operation(name, layer, source, flat, dropouts)
        dropouts += isinstance(operation, Drop)
        yield operation
        source = operation.result


def _operation(name: str, layer: nn.Module, source: Buffer, flat: bool, number: int) -> Operation:
    """Return one layer's operation."""
    c_name = _identifier(name)
    same = replace(source, name=f"{c_name}_out")
    kind = type(layer)
    if kind in POINTWISE:
        return Pointwise(c_name, POINTWISE[kind], source, same)
    if type(layer) is Dropout:
        return Drop(c_name, number, layer.p, source, same)
    if kind is nn.Linear:
        linear = cast("nn.Linear", layer)
        if not flat:
            raise Unsupported(f"{name}: Linear on pictures that were not flattened")
        rows = linear.weight.numel() * 4 >= ROWS_FROM_BYTES
        result = Buffer(f"{c_name}_out", linear.out_features)
        return Linear(c_name, linear, source, result, rows)
    if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
        return _norm(name, cast("nn.BatchNorm1d | nn.BatchNorm2d", layer), source, same, flat)
    if kind not in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):
        raise Unsupported(f"{name}: no native code for {kind.__name__}")
    _check_window(name, layer)
    (kernel_y, stride_y, pad_y), (kernel_x, stride_x, pad_x) = windows(layer)
    window = ((kernel_y, kernel_x), (stride_y, stride_x), (pad_y, pad_x))
    height = (source.height - kernel_y + 2 * pad_y) // stride_y + 1
    width = (source.width - kernel_x + 2 * pad_x) // stride_x + 1
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else source.channels
    result = Buffer(f"{c_name}_out", channels, height, width)
    if isinstance(layer, nn.Conv2d):
        if height * width > MOST_POSITIONS:
            raise Unsupported(f"{name}: Conv2d to {height}×{width} positions")
        return Conv(c_name, layer, *window, source, result)
    return Pool(
        c_name, "max" if isinstance(layer, nn.MaxPool2d) else "avg", *window, source, result
    )


def _norm(
    name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, source: Buffer, result: Buffer, flat: bool
) -> Norm:
    """Return batch normalisation's operation."""
    if isinstance(layer, nn.BatchNorm1d) != flat:
        where = "after" if flat else "before"
        raise Unsupported(f"{name}: {type(layer).__name__} {where} Flatten")
    if not layer.track_running_stats or layer.momentum is None:
        raise Unsupported(f"{name}: {type(layer).__name__} without running means of fixed momentum")
    norm = Norm(_identifier(name), layer, source, result, flat)
    if norm.channels > MOST_NORM_CHANNELS:
        raise Unsupported(f"{name}: {type(layer).__name__} of {norm.channels:,} features")
    return norm


def _identifier(name: str) -> str:
    """Return a layer's name as C can hold it; no two layers get the same, nor one a gradient's.

    >>> [_identifier(name) for name in ("conv1", "1", "layer1", "d_x")]
    ['conv1', 'layer1', 'layer_6c6179657231', 'layer_645f78']
    """
    if name.isascii() and name.isdigit():
        return f"layer{name}"
    if name.isascii() and name.isidentifier() and not name.startswith(("layer", "d_")):
        return name
    return f"layer_{name.encode().hex()}"


def _check_window(name: str, layer: nn.Module) -> None:
    """Refuse the options of convolution and pooling that have no code."""
    usual: dict[str, tuple[object, ...]] = {
        "groups": (1,),
        "dilation": (1, (1, 1)),
        "padding_mode": ("zeros",),
        "ceil_mode": (False,),
        "return_indices": (False,),
        "count_include_pad": (True,),
        "divisor_override": (None,),
    }
    for option, allowed in usual.items():
        value = getattr(layer, option, allowed[0])
        if value not in allowed:
            raise Unsupported(f"{name}: {type(layer).__name__} with {option}={value}")
    if isinstance(getattr(layer, "padding", 0), str):
        raise Unsupported(f"{name}: padding given as a word")


def _fused(operations: Sequence[Operation]) -> Iterator[Operation]:
    """Yield the operations, with ReLU and max-pooling drawn into the convolution before them."""
    waiting: Conv | None = None
    for operation in operations:
        if waiting and isinstance(operation, Pointwise) and operation.kind == "relu":
            if not waiting.relu and waiting.pool_kernel == waiting.pool_stride == (1, 1):
                waiting = replace(waiting, relu=True, result=operation.result)
                continue
        if waiting and isinstance(operation, Pool) and operation.kind == "max":
            if waiting.pool_kernel == waiting.pool_stride == (1, 1):
                waiting = replace(
                    waiting,
                    result=operation.result,
                    pool_kernel=operation.kernel,
                    pool_stride=operation.stride,
                    pool_padding=operation.padding,
                )
                continue
        if waiting:
            yield waiting
        waiting = operation if isinstance(operation, Conv) else None
        if not waiting:
            yield operation
    if waiting:
        yield waiting


def _bordered(operations: Sequence[Operation] | Iterator[Operation]) -> Iterator[Operation]:
    """Yield the operations with each buffer given the border that its reader pads with."""
    listed = list(operations)
    if not listed:
        raise Unsupported("the network has no layers")
    source = listed[0].source
    if isinstance(listed[0], Conv):
        source = replace(source, halo=listed[0].padding)
    weighted = False
    for operation, reader in zip(listed, [*listed[1:], None], strict=True):
        halo = reader.padding if isinstance(reader, Conv) else (0, 0)
        result = replace(operation.result, halo=halo)
        changed = replace(operation, source=source, result=result)
        if isinstance(changed, WEIGHTED):
            changed = replace(changed, first=not weighted)
            weighted = True
        yield changed
        source = result
