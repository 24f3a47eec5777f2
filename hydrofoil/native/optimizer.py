"""The C of the optimizers: one function that updates eight weights from their gradient.

Learning rate and the other numbers are arguments of a call, so that changing them compiles nothing.
The terms of the update, such as momentum, are part of the code.
"""

from dataclasses import dataclass
from typing import Any

import torch

from hydrofoil.native.text import c
from hydrofoil.native.unsupported import Unsupported

# A smaller epsilon is zero in float32, and 0 / 0 would turn the padding into NaN.
LEAST_EPS = 2e-38


@dataclass(frozen=True)
class Rule:
    """An optimizer's update as the generator writes it.

    Args:
        kind: sgd, adam or adamw.
        slots: Names of torch's state tensors of a parameter's shape.
        nesterov: SGD with Nesterov's momentum.
        decay: Whether there is any weight decay.
        decoupled: SGD with decoupled weight decay.
    """

    kind: str
    slots: tuple[str, ...]
    nesterov: bool = False
    decay: bool = False
    decoupled: bool = False


def make_rule(optimizer: torch.optim.Optimizer) -> Rule:
    """Return the rule of an optimizer of torch's.

    Raises:
        Unsupported: The optimizer, or one of its options, has no native code.
    """
    kinds: dict[type, str] = {
        torch.optim.SGD: "sgd",
        torch.optim.Adam: "adam",
        torch.optim.AdamW: "adamw",
    }
    # hydrofoil's own classes differ from torch's in their constructor only.
    bases = type(optimizer).__mro__
    kind = kinds.get(next(b for b in bases if not b.__module__.startswith("hydrofoil.")))
    if kind is None:
        raise Unsupported(f"optimizer {type(optimizer).__name__}")
    if len(optimizer.param_groups) != 1:
        raise Unsupported("an optimizer with several groups of parameters")
    group: dict[str, Any] = optimizer.param_groups[0]
    for option in ("dampening", "maximize", "amsgrad", "differentiable", "capturable"):
        if group.get(option):
            raise Unsupported(f"optimizer {type(optimizer).__name__} with {option}={group[option]}")
    if isinstance(group["lr"], torch.Tensor):
        raise Unsupported("a learning rate in a tensor")
    if kind != "sgd" and not group["eps"] >= LEAST_EPS:
        raise Unsupported(f"optimizer {type(optimizer).__name__} with eps={group['eps']}")
    decay = bool(group["weight_decay"])
    if kind == "sgd":
        slots = ("momentum_buffer",) if group["momentum"] else ()
        decoupled = decay and bool(getattr(optimizer, "decoupled", False))
        return Rule(kind, slots, bool(group["nesterov"]), decay, decoupled)
    return Rule(
        "adamw" if group.get("decoupled_weight_decay") else kind,
        ("exp_avg", "exp_avg_sq"),
        decay=decay,
    )


def numbers(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the numbers that `rates` reads in the code: lr, decay, momentum or betas, eps."""
    group: dict[str, Any] = optimizer.param_groups[0]
    first, second = group.get("betas", (group.get("momentum", 0.0), 0.0))
    return [group["lr"], group["weight_decay"], first, second, group.get("eps", 0.0)]


def rates(rule: Rule) -> str:
    """Return the type Rates, the function that fills it before a step, and `update`."""
    adam = rule.kind != "sgd"
    correction = c(
        """
        const double first = 1 - pow(numbers[2], (double)step), second = 1 - pow(numbers[3], (double)step);
        r.rate = (float)(numbers[0] / first);
        r.root = (float)(1 / sqrt(second));
        """
    )
    return c(
        """
        typedef struct {
            float lr, decay, first, second, rate, root, eps, keep, rest_first, rest_second;
        } Rates;

        /* numbers: learning rate, weight decay, momentum or beta1, beta2, eps; steps count from 1. */
        static Rates rates(const double *numbers, int64_t step) {
            Rates r = {(float)numbers[0], (float)numbers[1], (float)numbers[2], (float)numbers[3]};
            r.keep = (float)(1 - numbers[0] * numbers[1]);
            r.eps = (float)numbers[4];
            r.rest_first = (float)(1 - numbers[2]);
            r.rest_second = (float)(1 - numbers[3]);
            (void)step;
            $correction
            return r;
        }

        $update
        """,
        correction=correction if adam else "", update=_adam(rule) if adam else _sgd(rule),
    )  # fmt: skip


def _sgd(rule: Rule) -> str:
    """Return SGD's update, in torch's order of operations."""
    lines = ["v8 weight = load(w);"]
    if rule.decay:
        lines.append("weight *= r->keep;" if rule.decoupled else "g += r->decay * weight;")
    if rule.slots:
        lines += ["const v8 m = r->first * load(s0) + g;", "store(s0, m);"]
        lines.append("g += r->first * m;" if rule.nesterov else "g = m;")
    lines.append("store(w, weight - r->lr * g);")
    return c(
        """
        INLINE void update(const Rates *r, float *w$slots, v8 g) {
            $lines
        }
        """,
        slots=", float *s0" if rule.slots else "", lines="\n".join(lines),
    )  # fmt: skip


def _adam(rule: Rule) -> str:
    """Return Adam's update; AdamW shrinks the weights instead of adding to the gradient."""
    decay = ""
    if rule.decay:
        decay = "weight *= r->keep;" if rule.kind == "adamw" else "g += r->decay * weight;"
    return c(
        """
        INLINE v8 roots(v8 x) {
            for (int i = 0; i < 8; i++) x[i] = sqrtf(x[i]);  /* one instruction */
            return x;
        }

        INLINE void update(const Rates *r, float *w, float *s0, float *s1, v8 g) {
            v8 weight = load(w), m = load(s0), v = load(s1);
            $decay
            m += (g - m) * r->rest_first;
            v = r->second * v + r->rest_second * g * g;
            store(s0, m);
            store(s1, v);
            store(w, weight - r->rate * m / (roots(v) * r->root + r->eps));
        }
        """,
        decay=decay,
    )  # fmt: skip
