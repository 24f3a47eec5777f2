"""Which number format training steps compute in: a rule over network and device.

It is never a measurement, so that two runs of a recipe on one machine are bit-identical.
"""

from typing import Any

import torch

from hydrofoil.device import on_cuda
from hydrofoil.models import CHANNELS_LAST
from hydrofoil.recipe.schema import Recipe

# Instructions that multiply bfloat16: torch's question for them, and what Linux calls them.
CPU_SUPPORT = {"_is_amx_tile_supported": "amx_bf16", "_is_avx512_bf16_supported": "avx512_bf16"}


def with_precision(recipe: Recipe, device: torch.device) -> tuple[Recipe, str]:
    """Return a recipe that names its number format, and the reason where `auto` chose bfloat16.

    `auto` is bfloat16 for speednet, resnet and timm on a CPU with AVX-512 BF16 or AMX, and on a GPU
    that computes in it; float32 for every other network, for which the native executor is faster,
    and on every other device.

    Args:
        recipe: Says train.precision.
        device: Where to train.
    """
    if recipe.train.precision != "auto":
        return recipe, ""
    chosen, why = "float32", ""
    if recipe.model.name in CHANNELS_LAST and (supported := bfloat16_support(device)):
        chosen, why = "bfloat16", f"bfloat16, since the {supported}"
    train = recipe.train.model_copy(update={"precision": chosen})
    return recipe.model_copy(update={"train": train}), why


def bfloat16_support(device: torch.device) -> str:
    """Return what makes bfloat16 fast on a device, in words; empty: nothing does."""
    if on_cuda(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "GPU computes in it" if fast else ""
    cpu: Any = torch.cpu
    for question, flag in CPU_SUPPORT.items() if device.type == "cpu" else ():
        if getattr(cpu, question, lambda: False)():  # private to torch, and perhaps gone one day
            return f"CPU has {flag}"
    return ""
