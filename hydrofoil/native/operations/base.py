"""The protocol of an operation: one layer, or several fused ones, as memory and C functions.

An operation says what memory it needs, writes its C functions and the calls to them. `program.py`
places the calls in loops and between barriers by `Sharing` alone. A new layer is one module with a
subclass of `Operation` and one line in the table of `operations/__init__.py`.

Axes: F weights as the code lays them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from torch import Tensor, nn

from hydrofoil.native.layout import Buffer, Pair


class Sharing(Enum):
    """How the threads share an operation's forward pass of a batch."""

    IMAGES = auto()
    """Each thread computes its own images, one call per image, in a loop with its neighbors."""
    SPAN = auto()
    """Each thread computes its own images, all of them in one call."""
    OUTPUTS = auto()
    """Each thread computes its own outputs of all images, and the next operations keep to them."""
    CHANNELS = auto()
    """Each thread computes its own channels of all images, between two barriers."""


@dataclass(frozen=True)
class Site:
    """Where a layer stands in the network.

    Args:
        layer: The layer's name in the network.
        name: Its name in C.
        source: Its input.
        flat: Whether the input has been flattened.
        dropouts: Number of dropout layers before it.
    """

    layer: str
    name: str
    source: Buffer
    flat: bool
    dropouts: int


@dataclass(frozen=True)
class Place:
    """The C expressions that a call of an operation is written with.

    Args:
        source: Image n's input; `d_source` is the gradient of the loss with respect to it.
        result: Image n's output; `d_result` is its gradient.
        start: Offset of the operation's weights in the flat array.
        slots: Number of optimizer slots per weight.
        holder: The operation whose outputs the threads share, or "" where each thread has its own
            images.
    """

    source: str
    result: str
    d_source: str
    d_result: str
    start: int
    slots: int
    holder: str

    def weights(self, offset: int = 0) -> str:
        """Return the address of the weights, or of a float further on."""
        return f"job->w + {self.start + offset}"

    @property
    def updated(self) -> str:
        """The weights and the optimizer's state, as arguments of an update."""
        slots = "".join(f", job->s{i} + {self.start}" for i in range(self.slots))
        return self.weights() + slots

    def columns(self, source: Buffer) -> str:
        """Return which activations of a row the thread computes: first, end."""
        if not self.holder:
            return f"0, {source.run}"
        end = f"{self.holder}_o1"
        return f"{self.holder}_o0, {end} < {source.features} ? {end} : {source.features}"

    def span(self, outputs: int) -> str:
        """Return which images and outputs the thread computes: n0, n1, o0, o1."""
        if not self.holder:
            return f"n0, n1, 0, {outputs}"
        return f"0, count, {self.holder}_o0, {self.holder}_o1"


@dataclass(frozen=True)
class View:
    """One tensor of a layer in the flat array.

    Args:
        name: The layer's attribute.
        numbers: The view, in the order of `Operation.ordered`.
        trained: Whether the optimizer updates it, so that it has optimizer state.
    """

    name: str
    numbers: Tensor
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A layer, or several fused ones; the defaults are those of a layer without weights.

    Args:
        layer: Name of the layer that has the weights.
        name: Name in C.
        source: Input buffer.
        result: Output buffer.
        first: Whether this is the first operation with weights: backward ends here.
    """

    layer: str
    name: str
    source: Buffer
    result: Buffer
    first: bool = False

    # Properties that decide on loops and barriers.

    @property
    def sharing(self) -> Sharing:
        """How threads share it in training."""
        return Sharing.IMAGES

    @property
    def sharing_in_evaluation(self) -> Sharing:
        """How threads share it in evaluation."""
        return self.sharing

    @property
    def by_columns(self) -> bool:
        """Whether its calls can compute a part of an image's row."""
        return False

    @property
    def sums_by_group(self) -> bool:
        """Whether backward adds to the gradient of group k of the images."""
        return False

    @property
    def shared_vectors(self) -> int:
        """How many vectors of outputs or channels the threads share; 0: none."""
        return 0

    # Memory.

    @property
    def border(self) -> Pair:
        """Rows and columns of zeros that it needs around its input."""
        return (0, 0)

    @property
    def weight_floats(self) -> int:
        """Floats of its weights, with padding; 0 without weights."""
        return 0

    @property
    def scratch_floats(self) -> int:
        """Floats that a thread needs while it computes one image."""
        return 0

    @property
    def draws(self) -> int:
        """Random draws per step."""
        return 0

    def memory(self) -> list[str]:
        """Return the C declarations of what all threads see, besides input and output."""
        return []

    # C.

    @property
    def summary(self) -> str:
        """One line for comments."""
        return f"{self.name}: {type(self).__name__} {self.source.shape} -> {self.result.shape}"

    def functions(self, slots: int) -> list[str]:
        """Return the C functions, for an optimizer with so many slots."""
        raise NotImplementedError

    def setup(self, place: Place) -> list[str]:
        """Return the lines that run before the first step of a call."""
        return []

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the calls of the forward pass."""
        raise NotImplementedError

    def clear(self) -> list[str]:
        """Return the lines that run before the backward pass of a batch."""
        return []

    def back(self, place: Place) -> list[str]:
        """Return the calls of the backward pass."""
        raise NotImplementedError

    def update(self, place: Place) -> list[str]:
        """Return the calls that update the weights once all gradients are there."""
        return []

    # Between torch and C.

    def merged(self, following: "Operation") -> "Operation | None":
        """Return this operation with the following one fused into it, or None."""
        return None

    def views(self, flat_F: Tensor, start: int) -> Iterator[View]:
        """Yield the layer's tensors in a flat array, without padding."""
        yield from ()

    def ordered(self, tensor: Tensor) -> Tensor:
        """Return a view of a tensor of torch's in the order of the code: rows, columns, channels."""
        return tensor

    def check_batch(self, count: int) -> None:
        """Raise HydrofoilError where torch refuses to train on so few images."""

    def count_steps(self, layer: nn.Module, steps: int) -> None:
        """Add steps to the counter that the layer keeps, if it keeps one."""
