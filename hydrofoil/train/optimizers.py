"""A literal table from an optimizer's name to torch's own; which parameters each one updates."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hydrofoil.device import fast_bfloat16
from hydrofoil.errors import HydrofoilError
from hydrofoil.recipe import optimizers as specs

NORMS = (
    nn.modules.batchnorm._NormBase,  # pyright: ignore[reportPrivateUsage] - all batch and instance norms
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
# What torch begins a slot with, where that is not zero.
FIRST_VALUES = {"mu_product": 1.0}

Groups = list[dict[str, Any]]


class _Light(torch.optim.Optimizer):
    """Lets an optimizer be made without importing torch's compiler, which costs over a second.

    `torch.optim.Optimizer.add_param_group` imports it only to tell it to keep off. Native steps
    need the optimizer as the home of its state alone.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as torch's optimizer does."""
        add = torch.optim.Optimizer.add_param_group
        getattr(add, "__wrapped__", add)(self, param_group)


class SGD(_Light, torch.optim.SGD):
    """torch's SGD, and with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
        params: As torch's SGD takes them, and so are the options.
        decoupled: Weights shrink by lr * weight_decay of themselves, whatever their gradient.
    """

    def __init__(self, params: Any, *, decoupled: bool = False, **options: Any) -> None:
        super().__init__(params, **options)
        self.decoupled = decoupled

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        update: Any = torch.optim.SGD.step
        if getattr(update, "hooked", False):  # torch wraps it, and would call step hooks twice
            update = update.__wrapped__
        decays = [group["weight_decay"] for group in self.param_groups]
        if not self.decoupled or not any(decays):
            update(self)
            return
        for group, decay in zip(self.param_groups, decays, strict=True):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * decay)
            group["weight_decay"] = 0.0
        try:
            update(self)
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay


class Adam(_Light, torch.optim.Adam):
    """torch's Adam."""


class AdamW(_Light, torch.optim.AdamW):
    """torch's AdamW."""


class NAdam(_Light, torch.optim.NAdam):
    """torch's NAdam."""


class RMSprop(_Light, torch.optim.RMSprop):
    """torch's RMSprop."""


class Adagrad(_Light, torch.optim.Adagrad):
    """torch's Adagrad."""


class _Matrices(_Light, torch.optim.Muon):
    """torch's Muon, which takes matrices alone; in float32 where bfloat16 is slow."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient, as torch does."""
        if fast_bfloat16(self.param_groups[0]["params"][0].device.type):
            super().step()
            return
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Update one matrix: torch's formula with another order of its products."""
        state = self.state[matrix]  # pyright: ignore[reportArgumentType]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer, momentum = state["momentum_buffer"], group["momentum"]
        buffer.lerp_(gradient, 1 - momentum)
        update = gradient.lerp(buffer, momentum) if group["nesterov"] else buffer
        update = orthogonalize(update, group["ns_steps"], group["ns_coefficients"], group["eps"])
        rows, columns = matrix.shape
        ratio = max(1.0, rows / columns) ** 0.5
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * max(rows, columns) ** 0.5
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * ratio)


def orthogonalize(
    matrix: Tensor, steps: int, coefficients: tuple[float, float, float], eps: float
) -> Tensor:
    """Return what torch's Muon makes of an update, by fewer products, in the update's precision.

    A Newton-Schulz step multiplies X from the left by a polynomial Q of its Gram matrix X Xᵀ. The
    next Gram matrix is Q (X Xᵀ) Q, so all steps work on a small square matrix, and X itself is
    read twice: at the beginning and at the end.
    """
    a, b, c = coefficients
    wide = matrix.mT if matrix.size(0) > matrix.size(1) else matrix
    wide = wide / wide.norm().clamp(min=eps)
    gram = wide @ wide.mT
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for step in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product if step else factor
        gram = factor @ gram @ factor
    update = product @ wide
    return update.mT if matrix.size(0) > matrix.size(1) else update


class Muon(_Light):
    """torch's Muon for the hidden layers' weights, AdamW or SGD for all other parameters.

    Muon updates matrices, so a filter's channels, rows and columns count as one axis (Jordan et
    al. 2024, https://kellerjordan.github.io/posts/muon/). As that page advises, another optimizer
    updates biases, norms and the last layer. The updates are torch's own; here is only which
    parameter goes where.

    Args:
        groups: Two lists of parameters: `kind` "matrices" and "others"; `ratio` is what the
            learning rate is multiplied by.
        lr: Of the matrices.
        others: Makes the optimizer of the others, from their list and rate.
        normalize: Scale each matrix to norm √rows before its update (Jordan 2024, airbench94_muon).
        options: Muon's.
    """

    def __init__(
        self, groups: Groups, lr: float, others: "Builder", *, normalize: bool, **options: Any
    ) -> None:
        super().__init__(groups, {"lr": lr})
        self.normalize = normalize
        self._flat = {
            p: nn.Parameter(p.detach().reshape(len(p), -1)) for p in self._of("matrices")["params"]
        }
        rest = self._of("others")
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if self._flat:
            self._parts["matrices"] = _Matrices(list(self._flat.values()), lr=lr, **options)
        if rest["params"]:
            self._parts["others"] = others(rest["params"], lr=lr * rest["ratio"])

    def _of(self, kind: str) -> dict[str, Any]:
        return next(group for group in self.param_groups if group["kind"] == kind)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for kind, part in self._parts.items():
            group = self._of(kind)
            part.param_groups[0]["lr"] = float(group["lr"]) * group["ratio"]
            if kind == "others":
                part.state = self.state  # the home of all slots is here
        for parameter, matrix in self._flat.items():
            if self.normalize and parameter.grad is not None:
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            self._share(parameter, matrix)
        for part in self._parts.values():
            part.step()
        for parameter, matrix in self._flat.items():
            if matrix.data_ptr() != parameter.data_ptr():  # in another order in memory
                parameter.copy_(matrix.view_as(parameter))

    def _share(self, parameter: nn.Parameter, matrix: nn.Parameter) -> None:
        """Let a matrix hold a filter's weights, gradient and slots."""
        matrix.data = parameter.detach().reshape(len(parameter), -1)
        gradient = parameter.grad
        matrix.grad = None if gradient is None else gradient.reshape(len(parameter), -1)
        if gradient is not None:
            self._parts["matrices"].state[matrix] = self.state[parameter]


Builder = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: dict[str, Builder] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "muon": Muon,
}


def build_optimizer(spec: specs.AnyOptimizer, network: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimizer for a recipe's section, of the parameters that are trained.

    `foreach` updates all tensors in a handful of calls: on four cores 0.6 ms less of a 4 ms LeNet
    step than torch's default on CPU. It is bit-identical to it for all but NAdam.

    Raises:
        HydrofoilError: Every parameter is frozen, or there is none.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise HydrofoilError(
            "the network has no parameter to train: expected one at least.\n"
            "Freeze fewer layers with train.freeze."
        )
    if isinstance(spec, specs.Muon):
        return _build_muon(spec, network, trained)
    options = spec.model_dump(exclude={"name", "decay_biases"})
    groups: Groups | list[nn.Parameter] = trained
    if spec.weight_decay and not spec.decay_biases:
        groups = _by_decay(network, trained)
    return OPTIMIZERS[spec.name](groups, foreach=spec.name != "nadam", **options)


def _by_decay(network: nn.Module, parameters: Sequence[nn.Parameter]) -> Groups:
    """Return the parameters in two groups: those with weight decay, and biases and norms."""
    spared = biases_and_norms(network)
    weights = [parameter for parameter in parameters if parameter not in spared]
    others = [parameter for parameter in parameters if parameter in spared]
    groups: Groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def biases_and_norms(network: nn.Module) -> set[nn.Parameter]:
    """Return the biases of a network, the parameters of its norms, and all others of one axis."""
    found = {parameter for parameter in network.parameters() if parameter.ndim < 2}
    for layer in network.modules():
        if isinstance(layer, NORMS):
            found |= set(layer.parameters(recurse=False))
    return found | {p for name, p in network.named_parameters() if name.endswith("bias")}


def _build_muon(
    spec: specs.Muon, network: nn.Module, trained: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return Muon; the last layer is the last one with a matrix in the state dict's order."""
    spared = biases_and_norms(network)
    weights = [parameter for parameter in network.parameters() if parameter not in spared]
    matrices = [p for p in trained if p not in spared and p is not weights[-1]]
    chosen = set(matrices)
    others = [parameter for parameter in trained if parameter not in chosen]
    groups: Groups = [
        {"kind": "matrices", "params": matrices, "ratio": 1.0},
        {"kind": "others", "params": others, "ratio": spec.others_lr / spec.lr},
    ]
    fields = {"momentum", "nesterov", "weight_decay", "normalize", "ns_steps", "adjust_lr_fn"}
    return Muon(groups, spec.lr, _builder_of_others(spec), **spec.model_dump(include=fields))


def _builder_of_others(spec: specs.Muon) -> Builder:
    """Return what makes the optimizer of the parameters that are not Muon's."""
    decay, momentum = spec.others_weight_decay, spec.others_momentum
    if spec.others == "adamw":
        return partial(AdamW, weight_decay=decay, foreach=True)
    return partial(
        SGD,
        momentum=momentum,
        nesterov=spec.nesterov and momentum > 0,
        weight_decay=decay,
        decoupled=True,
        foreach=True,
    )


# ── slots, as checkpoints keep them ──────────────────────────────────────────────────────────────


def slots_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return every tensor that an optimizer keeps, as found, by parameter/slot."""
    return {
        f"{name}/{slot}": torch.as_tensor(value)
        for name, parameter in network.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if value is not None  # momentum 0 leaves its buffer empty
    }


def restore_slots(
    optimizer: torch.optim.Optimizer, network: nn.Module, slots: dict[str, Tensor]
) -> None:
    """Put back what `slots_of` returned.

    torch keeps numbers, such as counts of steps, on the CPU; an executor that wants them elsewhere
    moves them.

    Raises:
        KeyError: The network has no such parameter.
    """
    parameters = dict(network.named_parameters())
    for name, tensor in slots.items():
        parameter, _, slot = name.rpartition("/")
        owner = parameters[parameter]
        place = torch.device("cpu") if tensor.ndim == 0 else owner.device
        optimizer.state[owner][slot] = tensor.to(place)
