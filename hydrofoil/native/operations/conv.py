"""Convolution, fused with ReLU and max-pooling.

The C is in `conv_code.py`.

Axes: F weights as the code lays them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from hydrofoil.native.layout import Buffer, Pair, padded
from hydrofoil.native.operations import conv_code
from hydrofoil.native.operations.base import Operation, Place, Site, View
from hydrofoil.native.operations.pointwise import Pointwise
from hydrofoil.native.operations.pool import Pool
from hydrofoil.native.operations.window import Window, read_window
from hydrofoil.native.unsupported import Unsupported

NO_POOLING = Window()
MOST_POSITIONS = 32_768  # the list of positions is on a thread's stack, which may be 512 KB


@dataclass(frozen=True, kw_only=True)
class Conv(Operation):
    """Convolution, then ReLU, then max-pooling; the last two are optional.

    Args:
        window: The convolution's.
        outputs: Output channels.
        bias: Whether it has biases.
        relu: Whether ReLU follows.
        pool: The max-pooling's window; trivial without pooling.
    """

    window: Window
    outputs: int
    bias: bool
    relu: bool = False
    pool: Window = NO_POOLING

    @property
    def positions(self) -> Pair:
        """Rows and columns of the convolution's output, before pooling."""
        return self.window.positions(self.source)

    @property
    def run(self) -> int:
        """Floats in a row of the window: columns times channels."""
        return self.window.kernel[1] * self.source.channels

    @property
    def row_floats(self) -> int:
        """Floats of one row of the window in the weights: complete vectors, zeros at the end."""
        return padded(self.run)

    @property
    def channel_floats(self) -> int:
        """Floats of the weights of one output channel."""
        return self.window.kernel[0] * self.row_floats

    @property
    def bias_start(self) -> int:
        """Offset of the biases, which come last."""
        return self.outputs * self.channel_floats

    @property
    def padded_outputs(self) -> int:
        """Floats between two positions of the convolution's own output."""
        return padded(self.outputs)

    @property
    def pooled(self) -> bool:
        """Whether max-pooling follows."""
        return not self.pool.trivial

    @property
    def kept_places(self) -> int:
        """How many places per image the pooling notes."""
        return self.result.height * self.result.width * self.padded_outputs

    @property
    def sums_by_group(self) -> bool:
        """The weights' gradient is summed by groups of images: no bit depends on the threads."""
        return True

    @property
    def border(self) -> Pair:
        """The padding."""
        return self.window.padding

    @property
    def weight_floats(self) -> int:
        """Floats of all weights and biases."""
        return self.bias_start + self.padded_outputs

    @property
    def scratch_floats(self) -> int:
        """Floats of the convolution's output before pooling, and what its last vectors reach."""
        height, width = self.positions
        return height * width * self.padded_outputs + 16

    def memory(self) -> list[str]:
        """Return the places that pooling keeps, the weights laid out for forward, the gradients."""
        laid = self.window.kernel[0] * self.run * self.padded_outputs
        return [
            f"int32_t {self.name}_kept[BATCH * {self.kept_places}];",
            f"float {self.name}_laid[{laid}];",
            f"float {self.name}_gradient[GROUPS][{self.weight_floats}];",
        ]

    @property
    def summary(self) -> str:
        """One line for comments."""
        text = f"{super().summary}, {self.window.kernel[0]}×{self.window.kernel[1]}"
        return text + ", ReLU" * self.relu + ", max-pooling" * self.pooled

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward, backward and update."""
        return [conv_code.forward(self), conv_code.back(self), conv_code.update(self, slots)]

    def setup(self, place: Place) -> list[str]:
        """Lay the weights out for the forward pass."""
        name = self.name
        return [f"{name}_lay_out({place.weights()}, net->{name}_laid, 0, {self.outputs});"]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the calls for image n."""
        name, bias = self.name, place.weights(self.bias_start)
        return [
            f"{name}_convolve({place.source}, net->{name}_laid, {bias}, me->scratch);",
            f"{name}_finish(me->scratch, {place.result}, {self._kept});",
        ]

    @property
    def _kept(self) -> str:
        return f"net->{self.name}_kept + n * {self.kept_places}"

    def clear(self) -> list[str]:
        """Set the gradients of the thread's groups to zero."""
        gradient = f"net->{self.name}_gradient"
        return [f"memset({gradient}[k0], 0, (size_t)(k1 - k0) * sizeof {gradient}[0]);"]

    def back(self, place: Place) -> list[str]:
        """Return the calls for image n."""
        name = self.name
        d_source = "NULL" if self.first else place.d_source
        clear = f"memset({d_source}, 0, {self.source.stride * 4});"
        gradient = f"net->{name}_gradient[k]"
        return [
            *([] if self.first else [clear]),
            f"{name}_back({place.source}, {place.result}, {place.d_result}, {self._kept}, "
            f"{place.weights()}, {d_source}, {gradient}, {gradient} + {self.bias_start});",
        ]

    def update(self, place: Place) -> list[str]:
        """Return the call: each thread updates some channels."""
        name, outputs = self.name, self.outputs
        return [
            f"{name}_update(&r, {place.updated}, net->{name}_gradient[0], net->{name}_laid, "
            f"cut({outputs}, t, threads), cut({outputs}, t + 1, threads));"
        ]

    def merged(self, following: Operation) -> "Conv | None":
        """Fuse ReLU, and one max-pooling, which nothing may follow but ReLU before it."""
        if self.pooled:
            return None
        if isinstance(following, Pointwise) and following.kind == "relu" and not self.relu:
            return replace(self, relu=True, result=following.result)
        if isinstance(following, Pool) and following.kind == "max":
            return replace(self, pool=following.window, result=following.result)
        return None

    def views(self, flat_F: Tensor, start: int) -> Iterator[View]:
        """Yield weights and biases."""
        rows, columns = self.window.kernel
        weights = flat_F[start : start + self.bias_start].view(self.outputs, rows, self.row_floats)
        channels = self.source.channels
        yield View("weight", weights[..., : self.run].unflatten(2, (columns, channels)))
        if self.bias:
            first = start + self.bias_start
            yield View("bias", flat_F[first : first + self.outputs])

    def ordered(self, tensor: Tensor) -> Tensor:
        """Return output channel, row, column, input channel."""
        return tensor if tensor.ndim == 1 else tensor.permute(0, 2, 3, 1)


def make(site: Site, layer: nn.Module) -> Conv:
    """Return a convolution's operation, unfused."""
    conv = cast("nn.Conv2d", layer)
    window = read_window(site, conv)
    height, width = window.positions(site.source)
    if height * width > MOST_POSITIONS:
        raise Unsupported(f"{site.layer}: Conv2d to {height}×{width} positions")
    return Conv(
        layer=site.layer,
        name=site.name,
        source=site.source,
        result=Buffer(f"{site.name}_out", conv.out_channels, height, width),
        window=window,
        outputs=conv.out_channels,
        bias=conv.bias is not None,
    )
