"""How activations and weights lie in the memory of the generated code."""

from dataclasses import dataclass
from typing import Protocol

Pair = tuple[int, int]
LANES = 8  # floats in a vector of 32 bytes


def padded(count: int, multiple: int = LANES) -> int:
    """Return a count rounded up to a multiple, by default to complete vectors.

    >>> padded(6)
    8
    """
    return -(-count // multiple) * multiple


@dataclass(frozen=True)
class Buffer:
    """The activations of one image: rows, columns, channels, with a border of zeros as padding.

    Channels are adjacent, without gaps, so that one row of a window is a single run of floats. A
    vector of features has height and width 1.
    """

    name: str
    channels: int
    height: int = 1
    width: int = 1
    border: Pair = (0, 0)

    @property
    def row(self) -> int:
        """Floats from one row to the next."""
        return (self.width + 2 * self.border[1]) * self.channels

    @property
    def origin(self) -> int:
        """Offset of the first activation, behind the border."""
        return self.border[0] * self.row + self.border[1] * self.channels

    @property
    def stride(self) -> int:
        """Floats from one image to the next; the last vectors of an image may extend into them."""
        return padded((self.height + 2 * self.border[0]) * self.row + 2 * LANES, 16)

    @property
    def features(self) -> int:
        """Activations of an image."""
        return self.channels * self.height * self.width

    @property
    def run(self) -> int:
        """Activations of one row: they are adjacent."""
        return self.width * self.channels

    @property
    def shape(self) -> str:
        """The shape for messages and comments."""
        flat = self.height * self.width == 1
        return str(self.channels) if flat else f"{self.channels}×{self.height}×{self.width}"


class Weighted(Protocol):
    """What the layout needs to know of an operation."""

    @property
    def name(self) -> str:
        """The operation's name in C."""
        ...

    @property
    def weight_floats(self) -> int:
        """Floats of its weights, with padding; 0 without weights."""
        ...


@dataclass(frozen=True)
class Layout:
    """Offset of each operation's weights in the flat array, and the size of that array."""

    starts: dict[str, int]
    floats: int


def lay_out(operations: tuple[Weighted, ...]) -> Layout:
    """Return the layout: weights of one operation after another, each from a cache line on."""
    starts: dict[str, int] = {}
    end = 0
    for operation in operations:
        starts[operation.name] = end
        end += padded(operation.weight_floats, 16)
    return Layout(starts, end)
