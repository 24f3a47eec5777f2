"""The step captured as a CUDA graph and replayed: no launch from Python, no wait for the device.

Axes: N pictures, C channels, H rows, W columns, S steps, L dropout layers, 2 halves of a key,
B pictures of a batch, K classes.
"""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import on_cuda
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.models.classifier import Classifier
from hydrofoil.native import Unsupported
from hydrofoil.train.feed import Feed, count_steps
from hydrofoil.train.options import StepOptions
from hydrofoil.train.schedules import keep_rate_on_device
from hydrofoil.train.state import unchanged
from hydrofoil.train.step import Step

WARM_UP = 3  # steps before capturing: libraries choose kernels and make their workspaces in them
# A capture that fails in older versions leaves the allocator unusable (pytorch #180395).
LEAST_TORCH = (2, 12)


class Tables:
    """The tables of one epoch on the device, read at a step that the device itself counts.

    They stay where they are as long as the graph lives; a new epoch is copied into them.

    Args:
        pictures: Pictures of the dataset, the most that an epoch can have.
        batch_size: Pictures per step.
        layers: Dropout layers.
        device: Where the graph runs.
    """

    def __init__(self, pictures: int, batch_size: int, layers: int, device: torch.device) -> None:
        pictures = max(pictures, (WARM_UP + 1) * batch_size)  # capturing takes as many steps
        steps = count_steps(pictures, batch_size)
        self.batch_size = batch_size
        self.order_N = torch.zeros(pictures, dtype=torch.int64, device=device)
        self.draws_SL2 = torch.zeros(steps, layers, 2, dtype=torch.int32, device=device)
        self.rates_S = torch.zeros(steps, dtype=torch.float32, device=device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self._within_B = torch.arange(batch_size, device=device)
        self.side = 0  # a captured step has images of one size
        self._loaded: Feed | None = None

    def load(self, feed: Feed, first: int) -> None:
        """Copy an epoch's tables, unless they are there already, and begin at a step."""
        if feed is not self._loaded:
            rates_S = feed.rates_S.to(torch.float32)
            if self.rates_S.is_cuda:
                rates_S = rates_S.pin_memory()
            self.order_N[: len(feed.order_N)].copy_(feed.order_N, non_blocking=True)
            self.draws_SL2[: feed.steps].copy_(feed.draws_SL2, non_blocking=True)
            self.rates_S[: feed.steps].copy_(rates_S, non_blocking=True)
            self._loaded = feed
        self.step.fill_(first)

    def batch(self, step: int) -> Tensor:
        """Return the indices of the present step's pictures; the argument is not used."""
        return self.order_N[self.step * self.batch_size + self._within_B]

    def rate(self, step: int) -> Tensor:
        """Return the present step's learning rate."""
        return self.rates_S[self.step][0]

    def draws(self, step: int) -> Tensor:
        """Return draws_L2 of the present step."""
        return self.draws_SL2[self.step][0]

    def mixed(self, step: int) -> None:
        """Return no second labels: images are not mixed in captured steps."""


class Graph:
    """The executor that replays one captured step.

    Order, learning rates and dropout keys of an epoch are copied to the device once, and the graph
    counts its steps itself. So an epoch is replayed without a host sync, and another learning rate
    needs no other graph. A smaller last batch is trained by `Step` as it is.

    Args:
        model: Trained in place, on a CUDA device.
        optimizer: Of the model's parameters.
        pictures: The dataset, on the model's device.
        batch_size: Pictures per step.
        options: What a step does beside these.

    Raises:
        Unsupported: The device, torch's version or the optimizer is not served.
        RuntimeError: An operation of the network cannot be captured; model and optimizer are as
            they were.
    """

    name = "graph"
    steps_per_call = 256  # a few tenths of a second are queued at most

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        *,
        batch_size: int,
        options: StepOptions | None = None,
    ) -> None:
        if reason := graph_problem(model, optimizer):
            raise Unsupported(reason)
        keep_rate_on_device(optimizer, model.device)
        self.step = Step(model, optimizer, pictures, options)
        self.batch_size = batch_size
        layers = len(self.step.dropouts)
        self._tables = Tables(len(pictures), batch_size, layers, model.device)
        self._tables.rates_S.copy_(optimizer.param_groups[0]["lr"])  # warming up leaves it in place
        self._sums = Sums(model.device)
        self._prepare()

    @property
    def threads(self) -> int:
        """CPU threads that torch uses beside the device."""
        return torch.get_num_threads()

    def train_steps(self, feed: Feed, first: int, stop: int, sums: Sums) -> None:
        """Train on some batches of an epoch: see `Step.train_steps`."""
        self._tables.side = feed.side
        if self._captured != self._surroundings():
            self._prepare()
        whole = min(stop, len(feed.order_N) // self.batch_size)
        if first < whole:
            self._tables.load(feed, first)
            _copy(self._sums, sums)  # results do not depend on where calls begin and end
            for _ in range(first, whole):
                self._replay()
            _copy(sums, self._sums)
            sums.count += (whole - first) * self.batch_size
        if max(first, whole) < stop:
            self.step.train_steps(feed, max(first, whole), stop, sums)

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return self.step.score(index_N)

    def _prepare(self) -> None:
        """Capture a step, and leave model and optimizer as they were."""
        model, optimizer = self.step.model, self.step.optimizer
        model.train()
        self._tables.step.zero_()
        try:
            with unchanged(model, optimizer):
                self._replay = capture(self._one_step, model.device)
        finally:
            optimizer.zero_grad()  # a failed capture leaves gradients without values
        self._captured = self._surroundings()

    def _one_step(self) -> None:
        """Train on the batch whose number the device holds, and count it up."""
        self.step.train_steps(self._tables, 0, 1, self._sums)
        self._tables.step += 1

    def _surroundings(self) -> list[Any]:
        """Return what a captured step depends on: addresses, numbers of the update, and sizes.

        A checkpoint that is restored puts other tensors in place of the optimizer's: a replay would
        read memory that was freed.
        """
        model, optimizer = self.step.model, self.step.optimizer
        tensors = [
            *model.parameters(),
            *model.buffers(),
            self.step.pictures.pictures_NCHW,
            self.step.pictures.labels_N,
            *([] if self.step.class_weights_K is None else [self.step.class_weights_K]),
        ]
        for slots in optimizer.state.values():
            tensors += [value for value in slots.values() if isinstance(value, Tensor)]
        addresses = [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]
        options = [
            (name, value.data_ptr() if isinstance(value, Tensor) else value)
            for group in optimizer.param_groups
            for name, value in group.items()
            if name != "params"
        ]
        options_of_step = self.step.options
        step = [
            options_of_step.label_smoothing,
            options_of_step.clip,
            options_of_step.l1,
            self._tables.side,
        ]
        return [addresses, options, *step]


def graph_problem(model: Classifier, optimizer: torch.optim.Optimizer) -> str:
    """Return why a training cannot be captured, as far as that is known beforehand, or ""."""
    if not on_cuda(model.device):
        return "needs a CUDA device"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH:
        return f"needs torch {'.'.join(map(str, LEAST_TORCH))} or later, found {torch.__version__}"
    if not keep_rate_on_device(optimizer, model.device):
        return f"{type(optimizer).__name__} cannot read its learning rate from the device"
    return ""


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function that replays some work, after a few warm-up runs.

    The last step of warming up must not wait for the device: so an operation that cannot be
    captured is found before the capture begins, which not every version of torch survives.

    Raises:
        RuntimeError: The work fails or cannot be captured; all of it has ended.
    """
    with torch.cuda.device(device):  # cuda:1 is not the current one
        current = torch.cuda.current_stream(device)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(current)
        try:
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP - 1):
                    work()
                with _waiting_is_an_error():
                    work()
        finally:  # running steps must not overwrite what the caller restores
            current.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Another thread, such as a notebook's, may allocate at the same time.
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            work()
    return graph.replay


@contextmanager
def _waiting_is_an_error() -> Generator[None]:
    """Let torch raise at an operation that makes the host wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "… is a prototype feature", at its first use
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _copy(to: Sums, source: Sums) -> None:
    """Copy what one holds on the device into the other."""
    for name, tensor in vars(source).items():
        if isinstance(tensor, Tensor):
            getattr(to, name).copy_(tensor)
