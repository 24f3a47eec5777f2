"""The step's forward and backward through torch.compile.

Axes: N pictures.
"""

import torch
from torch import Tensor

from hydrofoil.evaluate.metrics import Sums
from hydrofoil.models.layers import dropout_table, dropouts
from hydrofoil.train.state import unchanged
from hydrofoil.train.step import Eager


class Compiled(Eager):
    """The executor that has torch.compile generate the kernels of whole batches.

    A smaller last batch goes through the model as it is: compiling for its size, too, would never
    pay. Preparing takes 10 to 70 s on a CPU for kernels that are not cached.

    Raises:
        RuntimeError: torch cannot compile here: no C++ compiler, say.
    """

    name = "compile"

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        device, network = self.model.device, self.model.network
        self.compiled = torch.compile(self.model)
        self._draws = torch.zeros(len(dropouts(network)), 2, dtype=torch.int32, device=device)
        batch_N = torch.zeros(self.batch_size, dtype=torch.int64, device=device)
        self.model.train()
        with unchanged(self.model, self.optimizer):
            self.train_steps(batch_N, 0, 0, Sums(device))

    def train_steps(self, index_N: Tensor, epoch: int, step: int, sums: Sums) -> None:
        """Train on the indexed pictures: see `Eager.train_steps`."""
        whole = len(index_N) // self.batch_size
        self.forward = self.compiled
        for layer, draw in zip(dropouts(self.model.network), self._draws.unbind(), strict=True):
            layer.draw = draw
        if whole:
            super().train_steps(index_N[: whole * self.batch_size], epoch, step, sums)
        self.forward = self.model
        if whole * self.batch_size < len(index_N):
            super().train_steps(index_N[whole * self.batch_size :], epoch, step + whole, sums)

    def key_dropout(self, epoch: int, step: int) -> None:
        """Name the draw in tensors: a number would be compiled in."""
        draws = dropout_table(self.model.network, self.seed, epoch, step, 1)[0]
        self._draws.copy_(draws, non_blocking=True)
