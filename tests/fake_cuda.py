"""CUDA graphs, streams and memory pools emulated on CPU tensors, for tests without a GPU.

`emulated` replaces torch.cuda's streams and graphs and watches every ATen operation:

* Capturing records the operations with the tensors that they read and write, and leaves no trace in
  memory, as a real capture executes nothing: what was there is put back, and the memory of the
  graph's own pool is filled with NaN.
* Replaying runs the recorded operations on the same memory, and no Python of the step. Tensors from
  outside the pool are held by weak references, so reading memory that was given back is found.
* Each access to memory is checked for its order among streams, by vector clocks: after the last
  write, and a write after the last reads.
* Operations that wait for the device fail while capturing, and where torch is told to fail at them.
* A device that is lost fails at each operation on its memory, as CUDA does from then on.

What it cannot show: real kernels, cuDNN, speed, and torch.cuda's own faults.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from hydrofoil.train import step
from hydrofoil.train.executors import graph

WAITS = {
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero",
    "aten.equal", "aten._unique2", "aten.bincount", "aten.repeat_interleave",
}  # fmt: skip
LOST = "CUDA error: an illegal memory access was encountered"


class DanglingError(Exception):
    """A graph used memory that had been given back."""


class Stream:
    """A queue of work; its clock holds what of each stream is known to be done."""

    def __init__(self, *_: object, **__: object) -> None:
        self.clock: dict[int, int] = {id(self): 0}

    def wait_stream(self, other: "Stream") -> None:
        """Begin later work after what the other has been given so far."""
        for stream, count in other.clock.items():
            self.clock[stream] = max(self.clock.get(stream, 0), count)

    def tick(self) -> tuple[int, int]:
        """Return the event of an operation that is given to the stream now."""
        self.clock[id(self)] += 1
        return id(self), self.clock[id(self)]

    def is_after(self, event: tuple[int, int]) -> bool:
        """Tell whether work given now runs after an event."""
        return self.clock.get(event[0], 0) >= event[1]


class World(TorchDispatchMode):
    """The state of the emulated device; sees every operation.

    Attributes:
        races: Accesses to memory that no wait puts in order.
        captures: Graphs that were captured.
        replays: Steps that were replayed.
        lose_at: The replay at which the device is lost; 0: never.
    """

    def __init__(self) -> None:
        super().__init__()
        self.default = self.current = Stream()
        self.streams = [self.default]  # ids stay unique while they live
        self.graph: Graph | None = None
        self.access: dict[int, list[Any]] = {}
        self.races: list[str] = []
        self.captures = self.replays = self.lose_at = 0
        self.sync_mode: Any = 0
        self.quiet = self.lost = False
        self.on_device: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.quiet:
            return func(*args, **kwargs)
        read, written = storages((args, kwargs)), written_by(func, args, kwargs)
        if self.lost and any(self.is_on_device(key) for key in read):
            raise torch.AcceleratorError(LOST)
        if str(func).rpartition(".")[0] in WAITS:
            if self.graph is not None:
                raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
            if self.sync_mode == "error":
                raise RuntimeError(f"called a synchronizing CUDA operation: {func}")
        if self.graph is not None:
            self.graph.before(read, written)
            out = func(*args, **kwargs)
            self.graph.record(func, args, kwargs, out, read)
            return out
        out = func(*args, **kwargs)
        made = storages(out)
        self.check_order(str(func), {**read, **made}, written | (made.keys() - read.keys()))
        if func is not torch.ops.aten._to_copy.default and any(map(self.is_on_device, read)):
            self.on_device |= {key: StorageWeakRef(made[key]) for key in made}
        return out

    def is_on_device(self, key: int) -> bool:
        """Tell whether a storage lies on the emulated device, as far as graphs have shown."""
        known = self.on_device.get(key)
        return known is not None and not known.expired()

    def check_order(self, name: str, touched: dict[int, Any], written: set[int]) -> None:
        """Note an operation's accesses, and which of them nothing puts in order."""
        event = self.current.tick()
        for key, storage in touched.items():
            known = self.access.get(key)
            if known is None or known[0].expired():
                known = self.access[key] = [StorageWeakRef(storage), None, {}]
            _, write, reads = known
            if write and not self.current.is_after(write):
                self.races.append(f"{name} beside a write")
            if key not in written:
                reads[event[0]] = event
                continue
            if not all(map(self.current.is_after, reads.values())):
                self.races.append(f"{name} writes beside a read")
            known[1:] = event, {}


def storages(values: Any) -> dict[int, Any]:
    """Return the storages of all tensors in nested values, by their address as objects."""
    flat = [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]
    found = [tensor.untyped_storage() for tensor in flat]
    return {storage._cdata: storage for storage in found}


def written_by(func: Any, args: Any, kwargs: dict[str, Any]) -> set[int]:
    """Return the storages that an operation's schema says it writes."""
    written: set[int] = set()
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written |= storages(args[at] if at < len(args) else kwargs.get(argument.name)).keys()
    return written


class Outside:
    """A tensor from outside a graph's pool: the graph knows its address and keeps it not alive."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.layout = tensor.storage_offset(), tensor.size(), tensor.stride()
        self.dtype = tensor.dtype

    def get(self) -> torch.Tensor:
        """Return the tensor."""
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            raise DanglingError(f"a graph uses memory that was given back: {self.layout}")
        tensor = torch.empty(0, dtype=self.dtype)
        return tensor.set_(storage, *self.layout)


class Inside:
    """A tensor of the graph's pool, which lives as long as the graph."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def get(self) -> torch.Tensor:
        """Return the tensor."""
        return self.tensor


class Graph:
    """A tape of operations."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tape: list[tuple[Any, list[Any], Any, list[Any]]] = []
        self.outside: dict[int, StorageWeakRef] = {}
        self.inside: dict[int, Any] = {}
        self.saved: list[tuple[StorageWeakRef, Any]] = []
        self.saved_keys: set[int] = set()

    def before(self, read: dict[int, Any], written: set[int]) -> None:
        """Keep what an operation is about to overwrite outside the pool."""
        for key, storage in read.items():
            if key in self.inside:
                continue
            self.outside.setdefault(key, StorageWeakRef(storage))
            if key in written and key not in self.saved_keys:
                self.saved_keys.add(key)
                self.saved.append((StorageWeakRef(storage), storage.clone()))

    def record(self, func: Any, args: Any, kwargs: Any, out: Any, read: dict[int, Any]) -> None:
        """Put an operation on the tape; what it makes is in the pool."""
        made = {k: s for k, s in storages(out).items() if k not in read and k not in self.outside}
        self.inside |= made
        kept = [
            value.detach()
            if isinstance(value, torch.Tensor) and value.untyped_storage()._cdata in made
            else None
            for value in tree_flatten(out)[0]
        ]
        flat, spec = tree_flatten((args, kwargs))
        self.tape.append((func, [self.held(value) for value in flat], spec, kept))

    def held(self, value: Any) -> Any:
        """Return an argument as the tape keeps it."""
        if not isinstance(value, torch.Tensor):
            return value
        known = value.untyped_storage()._cdata in self.inside
        return Inside(value.detach()) if known else Outside(value)

    def finish(self) -> None:
        """Undo what capturing has done to memory."""
        for weak, before in self.saved:
            storage = torch.UntypedStorage._new_with_weak_ptr(weak.cdata)
            if storage is not None:
                storage.copy_(before)
        for storage in self.inside.values():
            if storage.nbytes():
                storage.fill_(0xFF)

    def replay(self) -> None:
        """Run the tape."""
        world = self.world
        if world.replays + 1 == world.lose_at:
            world.lost = True
        if world.lost:
            raise torch.AcceleratorError(LOST)
        world.replays += 1
        touched: dict[int, Any] = {}
        with silence(world), torch.no_grad():
            for func, flat, spec, kept in self.tape:
                real = [v.get() if isinstance(v, Inside | Outside) else v for v in flat]
                args, kwargs = tree_unflatten(real, spec)
                out = tree_flatten(func(*args, **kwargs))[0]
                for new, old in zip(out, kept, strict=True):
                    if old is not None and new.data_ptr() != old.data_ptr():
                        old.copy_(new)
            for key, weak in self.outside.items():
                storage = torch.UntypedStorage._new_with_weak_ptr(weak.cdata)
                if storage is not None:
                    touched[key] = storage
        world.check_order("a replay", touched, self.saved_keys & touched.keys())


@contextmanager
def silence(world: World) -> Generator[None]:
    """Let operations pass unwatched."""
    before, world.quiet = world.quiet, True
    try:
        yield
    finally:
        world.quiet = before


class Cuda:
    """What torch.cuda is replaced by."""

    def __init__(self, world: World) -> None:
        self.world = world

    def new_stream(self, *_: object) -> Stream:
        """Stand for torch.cuda.Stream."""
        self.world.streams.append(Stream())
        return self.world.streams[-1]

    @contextmanager
    def stream(self, stream: Stream) -> Generator[None]:
        """Stand for torch.cuda.stream."""
        before, self.world.current = self.world.current, stream
        try:
            yield
        finally:
            self.world.current = before

    @contextmanager
    def graph(self, graph: Graph, stream: Stream, **_: object) -> Generator[None]:
        """Stand for torch.cuda.graph, which synchronizes the device before it captures."""
        for other in self.world.streams:
            stream.wait_stream(other)
        self.world.graph = graph
        self.world.captures += 1
        try:
            with self.stream(stream):
                yield
        finally:
            self.world.graph = None
            self.world.on_device |= graph.outside
            with silence(self.world):
                graph.finish()

    @contextmanager
    def device(self, _: object) -> Generator[None]:
        """Stand for torch.cuda.device."""
        yield

    def set_sync_debug_mode(self, mode: Any) -> None:
        """Stand for torch.cuda.set_sync_debug_mode."""
        self.world.sync_mode = mode


@contextmanager
def emulated() -> Generator[World]:
    """Let the CPU pass for a CUDA device in `Graph` and `Step`; yields what is seen of it."""
    world = World()
    cuda = Cuda(world)

    def check(optimizer: torch.optim.Optimizer) -> None:
        if world.graph is not None and not all(g["capturable"] for g in optimizer.param_groups):
            raise RuntimeError("Attempting CUDA graph capture of step() but capturable is False")

    with pytest.MonkeyPatch.context() as patch:
        replaced: Iterable[tuple[str, Callable[..., Any]]] = (
            ("Stream", cuda.new_stream),
            ("stream", cuda.stream),
            ("current_stream", lambda *_: world.current),
            ("CUDAGraph", lambda: Graph(world)),
            ("graph", cuda.graph),
            ("device", cuda.device),
            ("get_sync_debug_mode", lambda: world.sync_mode),
            ("set_sync_debug_mode", cuda.set_sync_debug_mode),
        )
        for name, value in replaced:
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", check)
        patch.setattr(step, "on_cuda", lambda _: True)
        patch.setattr(graph, "on_cuda", lambda _: True)
        with world:
            yield world
