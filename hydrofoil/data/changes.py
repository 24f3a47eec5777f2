"""What happens to each training image of an epoch, drawn as a table.

A row is a function of the recipe's seed, the epoch and the image's position in the epoch alone, so
that any executor, window or resumed run changes an image in the same way.

Axes: N images in the order of the epoch, A numbers of an image's changes.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from hydrofoil.randomness import generator, key
from hydrofoil.recipe.augment import Augment

PLACES = 1 << 16  # a place along a side, so that the table does not depend on the images' size
ONE = 256  # a factor or share of 1
TURN, SIZE = 100, 1000  # units of a degree, of the size as it is
OPERATIONS, LEVELS = 14, 31  # of a policy


class Column(IntEnum):
    """The columns of the table; behind them are two for each operation of the policy."""

    FLIP = 0
    """1: mirrored."""
    DOWN = 1
    RIGHT = 2
    TURN = 3
    """Clockwise, in units of 1/100 degree."""
    SIZE = 4
    """Enlargement, in units of 1/1000."""
    BRIGHTNESS = 5
    CONTRAST = 6
    """Factors, in units of 1/256."""
    CUT_Y = 7
    CUT_X = 8
    """The middle of the square to hide, in units of 1/65536 of a side."""
    PARTNER = 9
    """How many images further in the batch, around its end, the other image of the pair is."""
    SHARE = 10
    """The share of the image itself, in units of 1/256."""
    BOX = 11
    """1: the other image's share is a box; 0: the two are blended."""
    BOX_Y = 12
    BOX_X = 13
    """The middle of that box, as of the square."""


def draw_changes(
    spec: Augment, seed: int, epoch: int, order_N: Tensor, batch_size: int, images: int
) -> Tensor | None:
    """Return changes_NA, int32, of one epoch; None: images are used as they are.

    Each column has a random stream of its own: another setting does not change what it draws.

    Args:
        spec: The recipe's section.
        seed: The recipe's.
        epoch: Counted from 1.
        order_N: Indices of the images in the order of the epoch.
        batch_size: Images per step; only images of one batch are mixed.
        images: Images of the dataset, beyond any index.
    """
    if not spec.active:
        return None
    count = len(order_N)
    operations = policy_operations(spec)
    changes_NA = torch.zeros(count, columns_of(spec), dtype=torch.int32)
    changes_NA[:, Column.SIZE] = SIZE
    changes_NA[:, [Column.BRIGHTNESS, Column.CONTRAST, Column.SHARE]] = ONE

    def whole(purpose: str, low: int, high: int) -> Tensor:
        """Return whole numbers from low to high, both included."""
        random = generator(seed, f"augment.{purpose}", epoch)
        return torch.randint(low, high + 1, (count,), generator=random, dtype=torch.int32)

    if spec.flip == "random":
        changes_NA[:, Column.FLIP] = whole("flip", 0, 1)
    elif spec.flip == "alternating":
        random = generator(seed, "augment.flip")
        first_N = torch.randint(2, (images,), generator=random, dtype=torch.int32)
        changes_NA[:, Column.FLIP] = (first_N[order_N.cpu()] + epoch) % 2
    columns: dict[Column, tuple[int, int]] = {
        Column.DOWN: (-spec.shift, spec.shift),
        Column.RIGHT: (-spec.shift, spec.shift),
        Column.TURN: _around(0, spec.rotate * TURN),
        Column.SIZE: _around(SIZE, spec.scale * SIZE),
        Column.BRIGHTNESS: _around(ONE, spec.brightness * ONE),
        Column.CONTRAST: _around(ONE, spec.contrast * ONE),
        Column.CUT_Y: (0, PLACES - 1 if spec.cutout else 0),
        Column.CUT_X: (0, PLACES - 1 if spec.cutout else 0),
    }
    for column, (low, high) in columns.items():
        if low < high:
            changes_NA[:, column] = whole(column.name.lower(), low, high)
    for number in range(operations):
        at = len(Column) + 2 * number
        level_N = torch.full((count,), spec.policy_magnitude, dtype=torch.int32)
        if spec.policy == "trivialaugment":
            level_N = whole(f"level.{number}", 0, LEVELS - 1)
        changes_NA[:, at] = whole(f"operation.{number}", 0, OPERATIONS - 1)
        changes_NA[:, at + 1] = level_N * (2 * whole(f"sign.{number}", 0, 1) - 1)
    if spec.mixes:
        _draw_pairs(spec, changes_NA, seed, epoch, batch_size)
    return changes_NA


def _around(middle: int, spread: float) -> tuple[int, int]:
    return middle - round(spread), middle + round(spread)


def columns_of(spec: Augment) -> int:
    """Return how many columns the table has."""
    return len(Column) + 2 * policy_operations(spec)


def policy_operations(spec: Augment) -> int:
    """Return how many operations the policy applies to an image."""
    return {"none": 0, "trivialaugment": 1}.get(spec.policy, spec.policy_operations)


def _draw_pairs(spec: Augment, changes_NA: Tensor, seed: int, epoch: int, batch_size: int) -> None:
    """Draw the other image of each pair, the shares, and the place of a box."""
    count = len(changes_NA)
    # NumPy draws the beta distribution from a generator, which torch's public functions do not.
    random = np.random.default_rng(key(seed, "augment.pairs", epoch))
    last = count - count // batch_size * batch_size
    others_N = np.full(count, batch_size - 1)
    others_N[count - last :] = last - 1
    partner_N = 1 + np.floor(random.random(count) * others_N).astype(np.int64)
    changes_NA[:, Column.PARTNER] = torch.from_numpy(np.where(others_N > 0, partner_N, 0))
    box_N = (
        random.random(count) < 0.5
        if spec.mixup and spec.cutmix
        else np.full(count, spec.cutmix > 0)
    )
    blend_N, area_N = (
        random.beta(alpha or 1.0, alpha or 1.0, count) for alpha in (spec.mixup, spec.cutmix)
    )
    share_N = np.rint(np.where(box_N, area_N, blend_N) * ONE).astype(np.int64)
    changes_NA[:, Column.SHARE] = torch.from_numpy(share_N)
    changes_NA[:, Column.BOX] = torch.from_numpy(box_N.astype(np.int64))
    for column in (Column.BOX_Y, Column.BOX_X):
        changes_NA[:, column] = torch.from_numpy(random.integers(0, PLACES, count))
