"""From a model to a plan: its layers as operations between buffers of fixed shape.

Convolution, ReLU and max-pooling become one operation. A layer or option that has no native code
raises `Unsupported`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from torch import nn

from hydrofoil.models.classifier import Classifier
from hydrofoil.native.layout import Buffer, Layout, lay_out
from hydrofoil.native.operations import Operation, Site, make_operation
from hydrofoil.native.unsupported import Unsupported

# A batch is cut into so many groups of images, with any number of threads, and a convolution's
# gradient is summed by groups: no bit depends on the threads, and more threads than this are idle.
MOST_GROUPS = 8


@dataclass(frozen=True)
class Plan:
    """A network as operations, from the images to the logits, and the layout of its weights."""

    operations: tuple[Operation, ...]
    layout: Layout
    batch: int

    @property
    def pictures(self) -> Buffer:
        """The normalized images."""
        return self.operations[0].source

    @property
    def logits(self) -> Buffer:
        """The input of the loss."""
        return self.operations[-1].result

    @property
    def groups(self) -> int:
        """Number of groups of images that a batch is cut into."""
        return min(self.batch, MOST_GROUPS)

    @property
    def draws(self) -> int:
        """Random draws per step."""
        return sum(operation.draws for operation in self.operations)


def make_plan(model: Classifier, batch: int) -> Plan:
    """Return the plan of a model for a batch size.

    Raises:
        Unsupported: A layer, or one of its options, has no native code.
    """
    _check_plain(model)
    merged = list(_merged(_walk(cast("nn.Sequential", model.network), model.shape)))
    if not merged:
        raise Unsupported("the network has no layers")
    operations = tuple(_bordered(merged))
    if not any(operation.weight_floats for operation in operations):
        raise Unsupported("the network has no layer with weights")
    logits = operations[-1].result
    if logits.height * logits.width != 1 or logits.channels != len(model.classes):
        raise Unsupported(f"the network ends in {logits.shape}, not in one logit per class")
    return Plan(operations, lay_out(operations), batch)


def _check_plain(model: Classifier) -> None:
    """Refuse what would run more than its layers: another forward method, or hooks."""
    if type(model) is not Classifier or type(model.network) is not nn.Sequential:
        raise Unsupported("a Classifier or Sequential of another class")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for module in model.modules():
        if any(getattr(module, name, None) for name in hooks):
            raise Unsupported(f"{type(module).__name__} with hooks")


def _walk(network: nn.Sequential, shape: tuple[int, ...]) -> Iterator[Operation]:
    """Yield an operation for each layer but Flatten, not yet merged and without borders."""
    source, flat, draws = Buffer("pictures", shape[0], shape[1], shape[2]), False, 0
    children = list(network.named_children())
    if len(children) != len(network):
        raise Unsupported("the same layer twice in the network")
    for name, layer in children:
        if type(layer) is nn.Flatten:
            if (layer.start_dim, layer.end_dim) != (1, -1):
                raise Unsupported(f"{name}: Flatten of other axes than all")
            flat = True
            continue
        operation = make_operation(Site(name, identifier(name), source, flat, draws), layer)
        draws += operation.draws
        source = operation.result
        if source.features < 1:
            raise Unsupported(f"{name}: the window is larger than its input")
        yield operation


def identifier(name: str) -> str:
    """Return a layer's name in C: unique, and different from the name of any gradient.

    >>> [identifier(name) for name in ("conv1", "1", "layer1", "d_x")]
    ['conv1', 'layer1', 'layer_6c6179657231', 'layer_645f78']
    """
    if name.isascii() and name.isdigit():
        return f"layer{name}"
    if name.isascii() and name.isidentifier() and not name.startswith(("layer", "d_")):
        return name
    return f"layer_{name.encode().hex()}"


def _merged(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the operations, each with its followers fused into it where it can take them."""
    waiting: Operation | None = None
    for operation in operations:
        together = waiting.merged(operation) if waiting else None
        if waiting and not together:
            yield waiting
        waiting = together or operation
    if waiting:
        yield waiting


def _bordered(operations: list[Operation]) -> Iterator[Operation]:
    """Yield the operations with the borders that their readers need, and the first one marked."""
    source = replace(operations[0].source, border=operations[0].border)
    weighted = False
    for operation, reader in zip(operations, [*operations[1:], None], strict=True):
        result = replace(operation.result, border=reader.border if reader else (0, 0))
        first = bool(operation.weight_floats) and not weighted
        weighted = weighted or first
        yield replace(operation, source=source, result=result, first=first)
        source = result
