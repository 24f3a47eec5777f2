"""The step captured as a CUDA graph and replayed: no launch from Python, no wait for the device.

Axes: N pictures, S steps, L dropout layers, B pictures of a batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import dropout_table, dropouts
from hydrofoil.train.state import unchanged
from hydrofoil.train.step import Eager

WARM_UP = 3  # steps before capturing: libraries choose kernels and make their workspaces in them


class Graph(Eager):
    """The executor that replays one captured step.

    What changes from step to step lies on the device: the order and dropout's keys of some steps,
    and the number of the step, which the graph itself counts up. So an epoch is replayed without a
    host sync. A smaller last batch goes through torch as it is.

    Raises:
        RuntimeError: There is no CUDA device, or an operation cannot be captured.
    """

    name = "graph"
    stride = 256  # steps a call: some tenths of a second are queued at most

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        device, network = self.model.device, self.model.network
        layers = len(dropouts(network))
        self._order_N = torch.zeros(self.stride * self.batch_size, dtype=torch.int64, device=device)
        self._keys_SL2 = torch.zeros(self.stride, layers, 2, dtype=torch.int32, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._within_B = torch.arange(self.batch_size, device=device)
        self._sums = Sums(device)
        self._in_graph = False
        self._prepare()

    def _prepare(self) -> None:
        """Capture a step at the optimiser's present rates, which are baked into the graph."""
        self.model.train()
        self._rates = _rates(self.optimizer)
        undo = _make_capturable(self.optimizer, self.model.device)
        self._in_graph = True
        try:
            with unchanged(self.model, self.optimizer):
                self._replay = self._capture(self._one_step)
        except BaseException:
            undo()
            raise
        finally:
            self._in_graph = False

    def train_steps(self, index_N: Tensor, epoch: int, step: int, sums: Sums) -> None:
        """Train on the indexed pictures: see `Eager.train_steps`."""
        if _rates(self.optimizer) != self._rates:
            self._prepare()
        for part_N in index_N.split(self.stride * self.batch_size):
            whole = len(part_N) // self.batch_size
            pictures = whole * self.batch_size
            if whole:
                self._sums.loss.copy_(sums.loss)  # no bit depends on where calls are cut
                self._sums.right.copy_(sums.right)
                self._replay_steps(part_N[:pictures], epoch, step, whole)
                sums.loss.copy_(self._sums.loss)
                sums.right.copy_(self._sums.right)
                sums.count += pictures
            if pictures < len(part_N):
                super().train_steps(part_N[pictures:], epoch, step + whole, sums)
            step += whole

    def _replay_steps(self, index_N: Tensor, epoch: int, step: int, steps: int) -> None:
        """Put some steps' order and keys where the graph reads them, and replay it for each."""
        self._order_N[: len(index_N)].copy_(index_N, non_blocking=True)
        if self._keys_SL2.numel():
            table = dropout_table(self.model.network, self.seed, epoch, step, steps)
            if self._keys_SL2.is_cuda:
                table = table.pin_memory()
            self._keys_SL2[:steps].copy_(table, non_blocking=True)
        self._step.zero_()
        self._in_graph = True  # where replaying is calling
        try:
            for _ in range(steps):
                self._replay()
        finally:
            self._in_graph = False

    def _one_step(self) -> None:
        """Train on the batch whose number stands on the device, and count it up."""
        index_B = self._order_N[self._step * self.batch_size + self._within_B]
        super().train_steps(index_B, 0, 0, self._sums)
        self._step += 1

    def key_dropout(self, epoch: int, step: int) -> None:
        """Point the layers at the keys that the graph reads; outside it, at this step's own."""
        if not self._in_graph:
            super().key_dropout(epoch, step)
            return
        draws = self._keys_SL2[self._step][0].unbind()
        for layer, draw in zip(dropouts(self.model.network), draws, strict=True):
            layer.draw = draw

    def _capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what replays the work."""
        if self.model.device.type != "cuda":
            raise RuntimeError("a CUDA graph needs a CUDA device")
        device = self.model.device
        with torch.cuda.device(device):  # cuda:1 is not the current one
            beside = torch.cuda.Stream(device)
            beside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP):
                    work()
            torch.cuda.current_stream(device).wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=beside):
                work()
        return graph.replay


def _rates(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what an update depends on beside the tensors."""
    skipped = ("params", "capturable")
    return [{k: v for k, v in g.items() if k not in skipped} for g in optimizer.param_groups]


def _make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> Callable[[], None]:
    """Let Adam count its steps on the device (SGD counts none); return what takes it back."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]

    def move(capturable: list[bool], place: torch.device) -> None:
        for group, value in zip(groups, capturable, strict=True):
            group["capturable"] = value
        for state in optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(place)

    if device.type == "cuda":
        move([True] * len(groups), device)
    return lambda: move(before, torch.device("cpu"))
