"""Splits that keep what belongs together on one side, and no class out of training.

Axes: N pictures, G groups, K classes.
"""

import torch
from torch import Tensor


def draw_groups(
    groups_N: Tensor, labels_N: Tensor, classes: int, valid: float, test: float, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions of train, valid and test pictures: each group is in one of them.

    The largest groups go first, each to the part that still lacks most of the group's pictures,
    class by class; so parts are stratified as well as whole groups allow. Pictures that are alone
    in their group then fill the parts, each class by its share.

    Args:
        groups_N: The group of each picture.
        labels_N: Its class.
        classes: How many there are.
        valid: Fraction of the pictures for validation.
        test: Fraction for testing.
        order: A permutation of the pictures, which decides between equal groups.
    """
    shares = (1 - valid - test, valid, test)
    _, group_N, sizes_G = groups_N.unique(return_inverse=True, return_counts=True)
    alone_N = sizes_G[group_N] == 1
    part_N = torch.zeros_like(labels_N)
    part_N[~alone_N] = _largest_first(group_N, labels_N, classes, shares, order)[~alone_N]
    singles = order[alone_N[order]]
    singles = singles[labels_N[singles].argsort(stable=True)]
    for part in (1, 2):
        missing = round(shares[part] * len(order)) - int((part_N == part).sum())
        taken, singles = every_nth(singles, min(max(missing, 0), len(singles)))
        part_N[taken] = part
    train_N, valid_N, test_N = ((part_N == part).nonzero().flatten() for part in range(3))
    return train_N, valid_N, test_N


def _largest_first(
    group_N: Tensor, labels_N: Tensor, classes: int, shares: tuple[float, ...], order: Tensor
) -> Tensor:
    """Return the part of each picture in a group of several; 0 for the others."""
    count = int(group_N.max()) + 1
    counts_GK = torch.zeros(count, classes, dtype=torch.float64)
    ones_N = torch.ones(len(group_N), dtype=torch.float64)
    counts_GK.index_put_((group_N, labels_N), ones_N, accumulate=True)
    first_G = torch.full((count,), len(order)).scatter_reduce(
        0, group_N[order], torch.arange(len(order)), "amin"
    )
    by_draw = first_G.argsort()
    ranked = by_draw[counts_GK.sum(1)[by_draw].argsort(descending=True, stable=True)]
    lacking = [share * counts_GK.sum(0) for share in shares]
    chosen_G = torch.zeros(count, dtype=torch.int64)
    for group in ranked[counts_GK.sum(1)[ranked] > 1].tolist():
        needs = [
            float((lack * counts_GK[group]).sum()) if share else float("-inf")
            for lack, share in zip(lacking, shares, strict=True)
        ]
        part = max(range(3), key=needs.__getitem__)
        lacking[part] = lacking[part] - counts_GK[group]
        chosen_G[group] = part
    return chosen_G[group_N]


def every_nth(by_class: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take `count` evenly spaced elements and return them and the rest.

    In a list that is sorted by class and shuffled within, each class then gives its share, to
    within one picture, and the total is exact.
    """
    at = torch.arange(len(by_class), dtype=torch.int64)
    taken = (at + 1) * count // max(len(by_class), 1) > at * count // max(len(by_class), 1)
    return by_class[taken].sort().values, by_class[~taken]


def keep_trained(train_N: Tensor, *held_out: Tensor, labels_N: Tensor) -> tuple[Tensor, ...]:
    """Return the parts with every class in training: a class of one picture is trained on.

    Args:
        train_N: Positions of the training pictures.
        held_out: Those of each part that was drawn from the same pictures.
        labels_N: The class of every picture.
    """
    parts = list(held_out)
    trained = set(labels_N[train_N].tolist())
    for at, part_N in enumerate(parts):
        moved: list[int] = []
        for position in part_N.tolist() if len(part_N) else ():
            label = int(labels_N[position])
            if label not in trained:
                trained.add(label)
                moved.append(position)
        if moved:
            gone_N = torch.tensor(moved)
            parts[at] = part_N[~torch.isin(part_N, gone_N)]
            train_N = torch.cat([train_N, gone_N])
    return (train_N, *parts)
