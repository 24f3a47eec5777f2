"""The training step: the only place where gradients are computed.

Axes: N pictures, C channels, H rows, W columns, K classes, L dropout layers, 2 halves of a key.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydrofoil.data.pictures import Pictures
from hydrofoil.device import on_cuda
from hydrofoil.evaluate.metrics import Metrics, Sums
from hydrofoil.evaluate.score import score
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.layers import dropouts, set_draws
from hydrofoil.train.feed import Pairs, Rows
from hydrofoil.train.optimizers import biases_and_norms
from hydrofoil.train.options import StepOptions
from hydrofoil.train.schedules import keep_rate_on_device, set_rate
from hydrofoil.train.sizes import shrink

Forward = Callable[[Tensor, Tensor], Tensor]  # from pictures_NCHW and draws_L2 to logits_NK


class Step:
    """Takes training steps by calling torch's operations one by one.

    Args:
        model: Trained in place.
        optimizer: Of the model's parameters.
        pictures: The dataset, on the model's device.
        options: What a step does beside these.
        forward: From pictures_NCHW and draws_L2 to logits_NK; default: the model itself.
    """

    def __init__(
        self,
        model: Classifier,
        optimizer: torch.optim.Optimizer,
        pictures: Pictures,
        options: StepOptions | None = None,
        forward: Forward | None = None,
    ) -> None:
        self.model, self.optimizer, self.pictures = model, optimizer, pictures
        self.options = options = options or StepOptions()
        weights_K = options.class_weights_K
        self.class_weights_K = None if weights_K is None else weights_K.to(model.device)
        self.trained = [p for p in model.network.parameters() if p.requires_grad]
        spared = biases_and_norms(model.network)
        self.penalized = [p for p in self.trained if p not in spared] if options.l1 else []
        self.dropouts = dropouts(model.network)
        self.forward = forward or self._call_model
        if on_cuda(model.device):
            keep_rate_on_device(optimizer, model.device)

    def train_steps(self, feed: Rows, first: int, stop: int, sums: Sums) -> None:
        """Train on some batches of an epoch, in order; nothing waits for the device.

        Args:
            feed: The epoch's tables, on the model's device.
            first: The first step to take, counted from 0.
            stop: The step to stop before.
            sums: The losses and correct predictions are added to them.
        """
        try:
            for step in range(first, stop):
                batch_N = feed.batch(step)
                labels_N = self.pictures.labels_N[batch_N]
                set_rate(self.optimizer, feed.rate(step))
                self.optimizer.zero_grad()
                pictures_NCHW = shrink(self.pictures.pictures_NCHW[batch_N], feed.side)
                with self.options.autocast(self.model.device):
                    logits_NK = self.forward(pictures_NCHW, feed.draws(step))
                if logits_NK.dtype == torch.bfloat16:
                    logits_NK = logits_NK.to(torch.float32)  # for the loss
                mixed = feed.mixed(step)
                loss = self._loss(logits_NK, labels_N, self.class_weights_K, mixed)
                loss.backward()
                self._change_gradients()
                self.optimizer.step()
                if self.class_weights_K is not None:  # what is reported counts every image alike
                    loss = self._loss(logits_NK.detach(), labels_N, mixed=mixed)
                sums.add(loss, logits_NK, labels_N if mixed is None else mixed.larger(labels_N))
        finally:
            set_draws(self.dropouts, None)  # no later forward pass reuses a mask

    def score(self, index_N: Tensor) -> Metrics:
        """Return loss, accuracy and confusion on the indexed pictures, in evaluation mode."""
        return score(self.model, self.pictures, index_N)

    @torch.no_grad()
    def _change_gradients(self) -> None:
        """Add the gradient of the L1 penalty, then limit the norm of all gradients together."""
        for parameter in self.penalized:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.sign(), alpha=self.options.l1)
        if self.options.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, self.options.clip)

    def _loss(
        self,
        logits_NK: Tensor,
        labels_N: Tensor,
        class_weights_K: Tensor | None = None,
        mixed: Pairs | None = None,
    ) -> Tensor:
        """Return the batch's mean loss; with weights, the weighted mean.

        Of images that are mixed in pairs, against both labels by their shares; class weights then
        weight each label's part, and the sum is divided by the number of images.
        """
        target = labels_N if mixed is None else mixed.shares_NK(labels_N, logits_NK)
        return cross_entropy(
            logits_NK, target, class_weights_K, label_smoothing=self.options.label_smoothing
        )

    def _call_model(self, pictures_NCHW: Tensor, draws_L2: Tensor) -> Tensor:
        """Return logits_NK; the one place where a network's dropout gets its keys."""
        set_draws(self.dropouts, draws_L2)
        return self.model(pictures_NCHW)
