"""The window of a convolution or pooling: kernel, stride and padding, and the options refused."""

from dataclasses import dataclass
from typing import cast

from torch import nn

from hydrofoil.native.layout import Buffer, Pair
from hydrofoil.native.operations.base import Site
from hydrofoil.native.unsupported import Unsupported

# The values of each option that have native code.
SERVED: dict[str, tuple[object, ...]] = {
    "groups": (1,),
    "dilation": (1, (1, 1)),
    "padding_mode": ("zeros",),
    "ceil_mode": (False,),
    "return_indices": (False,),
    "count_include_pad": (True,),
    "divisor_override": (None,),
}


@dataclass(frozen=True)
class Window:
    """Kernel, stride and padding, each as rows and columns."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def trivial(self) -> bool:
        """Whether it covers one position and moves by one."""
        return self.kernel == self.stride == (1, 1)

    def positions(self, source: Buffer) -> Pair:
        """Return how many rows and columns of windows fit into a buffer."""
        return (
            (source.height - self.kernel[0] + 2 * self.padding[0]) // self.stride[0] + 1,
            (source.width - self.kernel[1] + 2 * self.padding[1]) // self.stride[1] + 1,
        )


def read_window(site: Site, layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Window:
    """Return a layer's window.

    Raises:
        Unsupported: The input is flat, or an option has no native code.
    """
    kind = type(layer).__name__
    if site.flat:
        raise Unsupported(f"{site.layer}: {kind} after Flatten")
    for option, served in SERVED.items():
        value = getattr(layer, option, served[0])
        if value not in served:
            raise Unsupported(f"{site.layer}: {kind} with {option}={value}")
    if isinstance(layer.padding, str):
        raise Unsupported(f"{site.layer}: {kind} with padding={layer.padding!r}")
    numbers = (layer.kernel_size, layer.stride, layer.padding)
    kernel, stride, padding = (cast("Pair", n) if isinstance(n, tuple) else (n, n) for n in numbers)
    return Window(kernel, stride, padding)
