"""The learning rate of each step, a function of recipe and step alone, and how it is set."""

from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor

from hydrofoil.recipe import schedules as specs
from hydrofoil.recipe.schema import Recipe

Factor = Callable[[int], float]  # from a step, counted from 0, to the rate


def rates(recipe: Recipe, steps: int, epoch: int) -> list[float]:
    """Return the learning rate of each step of an epoch.

    Args:
        recipe: Its optimizer.lr is the rate that the schedule changes.
        steps: Of an epoch.
        epoch: Counted from 1.

    >>> from hydrofoil.recipe.read import read_recipe
    >>> line = ["schedule.name=linear", "optimizer.lr=1", "train.epochs=2"]
    >>> rates(read_recipe("digits", line), steps=4, epoch=2)
    [0.5, 0.375, 0.25, 0.125]
    """
    rate = _schedule(recipe, steps)
    return [rate(step) for step in range((epoch - 1) * steps, epoch * steps)]


# Their fused updates read a learning rate that is a tensor on the device.
RATE_ON_DEVICE = (torch.optim.SGD, torch.optim.Adam)  # AdamW is an Adam


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Let the next update use a learning rate; nothing waits for a device."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = rate
        elif isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"].fill_(rate)


def keep_rate_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Let an optimizer's learning rate and counters lie on a GPU, and tell whether it can.

    A CUDA graph then reads another rate in each replay. Eager steps on a GPU use the same update,
    torch's fused one, so that both compute the same.
    """
    if not isinstance(optimizer, RATE_ON_DEVICE):
        return False
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
        group["foreach"], group["fused"] = False, True
        if "capturable" in group:
            group["capturable"] = True
    for slots in optimizer.state.values():
        if "step" in slots:
            slots["step"] = slots["step"].to(device)
    return True


def _schedule(recipe: Recipe, steps: int) -> Factor:
    """Return the function from a step of the whole training to its rate."""
    spec, base, train = recipe.schedule, recipe.optimizer.lr, recipe.train
    total = steps * (train.epochs - 1) + (train.last_steps or steps)
    if isinstance(spec, specs.OneCycleSchedule):
        return _one_cycle(spec, base, total)
    warmup = spec.warmup_steps or round(spec.warmup_epochs * steps)
    after = _after_warm_up(spec, base, steps, max(total - warmup, 1))
    return lambda step: base * (step + 1) / warmup if step < warmup else after(step - warmup)


def _after_warm_up(
    spec: specs.ConstantSchedule | specs.StepSchedule | specs.CosineSchedule | specs.LinearSchedule,
    base: float,
    steps: int,
    total: int,
) -> Factor:
    """Return a schedule's rates from the step after the warm-up on, of so many steps in all."""
    if isinstance(spec, specs.StepSchedule):
        return lambda step: base * spec.factor ** (step // (spec.every * steps))
    if isinstance(spec, specs.CosineSchedule):
        return lambda step: (
            spec.final_lr + (base - spec.final_lr) * (1 + cos(pi * step / total)) / 2
        )
    if isinstance(spec, specs.LinearSchedule):
        return lambda step: base + (spec.final_lr - base) * step / total
    return lambda step: base


def _one_cycle(spec: specs.OneCycleSchedule, base: float, total: int) -> Factor:
    """Return the rates of one rise and one fall over all steps."""
    first = base / spec.div_factor
    last = first / spec.final_div_factor
    peak, end = spec.pct_start * total - 1, total - 1  # the peak may fall between two steps

    def half_cosine(start: float, stop: float, part: float) -> float:
        return stop + (start - stop) * (1 + cos(pi * part)) / 2

    def rate(step: int) -> float:
        if step < peak:
            return half_cosine(first, base, step / peak)
        return half_cosine(base, last, (step - peak) / (end - peak))

    return rate
