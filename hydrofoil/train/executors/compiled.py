"""The step's forward and backward through torch.compile.

Axes: N pictures, C channels, H rows, W columns, K classes, L dropout layers, 2 halves of a key.
"""

import torch
from torch import Tensor

from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import set_draws
from hydrofoil.train.feed import Feed, dropout_draws
from hydrofoil.train.options import StepOptions
from hydrofoil.train.state import unchanged
from hydrofoil.train.step import Step


class Compiled:
    """The executor that has torch.compile generate the kernels of whole batches.

    A smaller last batch goes through the model as it is: compiling for its size, too, would cost
    more than it saves. Preparing takes 10 to 70 s on a CPU for kernels that are not cached.

    Args:
        model: Trained in place.
        optimizer: Of the model's parameters.
        pictures: The dataset, on the model's device.
        batch_size: Pictures per step.
        options: What a step does beside these.

    Raises:
        RuntimeError: torch cannot compile here, for example without a C++ compiler.
    """

    name = "compile"
    steps_per_call = 1

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        *,
        batch_size: int,
        options: StepOptions | None = None,
    ) -> None:
        given = (model, optimizer, pictures, options)
        self.step = Step(*given)
        self.batch_size = batch_size
        self._whole = Step(*given, self._call_compiled)
        self._compiled = torch.compile(model)
        layers = len(self.step.dropouts)
        self._draws_L2 = torch.zeros(layers, 2, dtype=torch.int32, device=model.device)
        model.train()
        lr = [float(group["lr"]) for group in optimizer.param_groups]
        first = Feed(
            epoch=0,
            order_N=torch.zeros(batch_size, dtype=torch.int64),
            batch_size=batch_size,
            rates_S=torch.tensor(lr[:1], dtype=torch.float64),
            draws_SL2=dropout_draws(0, 0, 1, layers),
        ).to(model.device)
        with unchanged(model, optimizer):
            self._whole.train_steps(first, 0, 1, Sums(model.device))

    @property
    def threads(self) -> int:
        """CPU threads that work at a step."""
        return torch.get_num_threads()

    def train_steps(self, feed: Feed, first: int, stop: int, sums: Sums) -> None:
        """Train on some batches of an epoch: see `Step.train_steps`."""
        whole = max(first, min(stop, len(feed.order_N) // feed.batch_size))
        self._whole.train_steps(feed, first, whole, sums)
        self.step.train_steps(feed, whole, stop, sums)

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return self.step.score(index_N)

    def _call_compiled(self, pictures_NCHW: Tensor, draws_L2: Tensor) -> Tensor:
        """Return logits_NK by the compiled code, which reads each step's draws in one place."""
        self._draws_L2.copy_(draws_L2)
        set_draws(self.step.dropouts, self._draws_L2)
        return self._compiled(pictures_NCHW)
