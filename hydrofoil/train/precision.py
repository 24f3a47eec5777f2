"""Which number format training steps compute in: a rule over network and device.

It is never a measurement, so that two runs of a recipe on one machine are bit-identical.
"""

import torch

from hydrofoil.device import bfloat16_support
from hydrofoil.models import CHANNELS_LAST
from hydrofoil.recipe.schema import Recipe


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
