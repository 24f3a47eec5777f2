"""Out-of-fold probabilities: what models that never saw an image think of it.

Axes: N images, C channels, H rows, W columns, K classes, F folds, G groups.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from hydrofoil.check.copies import exact_groups, joined_groups, links_of, members_of
from hydrofoil.check.labels import FEWEST, Floats, Ints
from hydrofoil.check.network import network_of
from hydrofoil.data.pictures import Pictures
from hydrofoil.data.split import Split
from hydrofoil.device import available_threads, exact, pick_device
from hydrofoil.evaluate.metrics import probabilities
from hydrofoil.evaluate.score import logits_of
from hydrofoil.models import build
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.code import with_network
from hydrofoil.randomness import generator, key
from hydrofoil.recipe.naming import overrides_of
from hydrofoil.recipe.read import read_recipe
from hydrofoil.train.loop import Progress, fit

Watch = Callable[[float, float], None]  # images that training has seen, and will have seen

LARGE = 20_000  # images from here on: two folds if difficult, which leaves time for more epochs
EASY = 0.85  # accuracy of the quick training from which a narrow network is enough
MOST_SEEN = 1_300_000  # images in all epochs of all folds: 5 minutes on two fast cores
EPOCHS = (3, 15)  # at least and at most
EASY_EPOCHS, EASY_ROUNDS = 5, 2  # of large sets that are easy
SMALL_STEP = 32_768  # pixels: a step of fewer takes longer on two threads than on one
TRIED = 4_000  # images of the quick training
TRIED_STEPS = 250  # of 64 images
LOST = 0.05  # accuracy that mirrored images may lose in it, if mirroring keeps the class


@dataclass(frozen=True)
class Plan:
    """How the models of the folds are trained.

    Args:
        folds: How many parts, and models of a round.
        epochs: Of each model.
        batch_size: Images per step.
        widths: Channels of the network's blocks.
        shift: The largest shift of a training image, in pixels.
        mirror: Whether images are mirrored, in training and for prediction.
        lr: The highest learning rate.
        rounds: How often folds are drawn; an image's probabilities are the mean over its models.
    """

    folds: int
    epochs: int
    batch_size: int
    widths: tuple[int, ...]
    shift: int
    mirror: bool = False
    lr: float = 0.2
    rounds: int = 1


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What the folds' models think.

    Args:
        probabilities_NK: Of each class, by the model that did not see the image; NaN where that
            model saw no image of the label's class, since all of these are in the image's group.
        fold_N: The fold of each image in the first round.
        plan: How the models were trained.
    """

    probabilities_NK: Floats
    fold_N: Ints
    plan: Plan


@dataclass(frozen=True)
class Trial:
    """How well a quick training on a part of the set recognizes images that it did not see.

    Args:
        accuracy: On the images as they are, from 0 to 1.
        mirrored: On their mirror images.
    """

    accuracy: float
    mirrored: float

    @property
    def mirroring_keeps_class(self) -> bool:
        """True of photographs and false of characters: a mirrored 3 is not a digit."""
        return self.mirrored >= self.accuracy - LOST


def plan_for(pictures: Pictures, trial: Trial) -> Plan:
    """Return a plan by the number and size of the images, and by a quick training."""
    N, (_, H, W) = len(pictures), pictures.shape
    large, easy = N >= LARGE, trial.accuracy >= EASY
    folds = 2 if large and not easy else 3
    least, most = EPOCHS
    epochs = EASY_EPOCHS if large and easy else MOST_SEEN // (N * (folds - 1))
    return Plan(
        folds=folds,
        epochs=max(least, min(most, epochs)),
        batch_size=128 if large else 64,
        widths=(16, 32, 64) if easy else (32, 64, 128),
        shift=ceil(min(H, W) / 16) if min(H, W) >= 16 else 0,
        mirror=trial.mirroring_keeps_class,
        lr=0.1 if large else 0.05,
        rounds=EASY_ROUNDS if large and easy else 1,
    )


def reason_not_to_train(pictures: Pictures) -> str:
    """Return why folds of a set would say nothing about its labels; empty: they may.

    >>> from hydrofoil.data.source import load
    >>> reason_not_to_train(load("digits"))
    ''
    """
    counts_K = torch.bincount(pictures.labels_N.cpu(), minlength=pictures.K)
    if int((counts_K > FEWEST).sum()) >= 2:
        return ""
    return f"expected two classes of {FEWEST + 1} images or more"


def out_of_fold(
    pictures: Pictures,
    *,
    groups_N: Tensor | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    device: str = "auto",
    watch: Watch | None = None,
) -> OutOfFold:
    """Train a model for each fold on all others, and return what it thinks of the fold's images.

    Args:
        pictures: The set; published test images are folded like all others.
        groups_N: Images that have to stay together beside those of `pictures.groups_N` and exact
            duplicates: near-duplicates, say. A copy with another label would vouch for itself.
        plan: Default: `plan_for`, after a `quick_trial`.
        seed: Of folds, weights, order and augmentation.
        device: auto, cpu, cuda, cuda:1 or mps.
        watch: Called several times a second with the images that training has seen, and will have.

    Raises:
        HydrofoilError: There is no such device, or a training diverges.
    """
    place = pick_device(device)
    plan = plan or plan_for(pictures, quick_trial(pictures, seed, place))
    drawn = [
        draw_folds(pictures, plan.folds, key(seed, "round", number) % 2**31, groups_N)
        for number in range(plan.rounds)
    ]
    jobs = [(fold_N, fold) for fold_N in drawn for fold in range(plan.folds)]
    total = float(plan.epochs * sum(int((fold_N != fold).sum()) for fold_N, fold in jobs))
    labels_N = pictures.labels_N.cpu()
    found_NK = torch.zeros(len(pictures), pictures.K, dtype=torch.float64)
    seen = 0.0
    for number, (fold_N, fold) in enumerate(jobs):
        train_N = torch.from_numpy(np.flatnonzero(fold_N != fold))
        left_N = torch.from_numpy(np.flatnonzero(fold_N == fold))
        known_K = torch.bincount(labels_N[train_N], minlength=pictures.K) > 0
        found_NK[left_N[~known_K[labels_N[left_N]]]] = torch.nan
        left_N = left_N[known_K[labels_N[left_N]]]
        report = _reporter(watch, seen, len(train_N), total)
        seen += plan.epochs * len(train_N)
        if not len(left_N):
            continue
        model = _train(pictures, train_N, plan, key(seed, "fold", number) % 2**31, place, report)
        with exact(place, _threads(pictures, plan.batch_size) or available_threads()):
            found_NK[left_N] += predict(model, pictures, left_N, plan).cpu() / plan.rounds
    return OutOfFold(found_NK.numpy(), drawn[0], plan)


def predicted_by(
    pictures: Pictures,
    train_N: Tensor,
    index_N: Tensor,
    plan: Plan,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Tensor:
    """Return the classes that a model predicts for some images, trained on others, int64.

    Args:
        pictures: The set.
        train_N: The images to train on.
        index_N: Those to classify.
        plan: How to train, as a fold's model is.
        seed: Of weights, order and augmentation.
        device: auto, cpu, cuda, cuda:1 or mps.
    """
    place = pick_device(device)
    model = _train(pictures, train_N, plan, key(seed, "parts") % 2**31, place, None)
    with exact(place, _threads(pictures, plan.batch_size) or available_threads()):
        return predict(model, pictures, index_N, plan).argmax(1).cpu()


def predict(model: Classifier, pictures: Pictures, index_N: Tensor, plan: Plan) -> Tensor:
    """Return probabilities_NK of the indexed images.

    Args:
        model: Trained on other images.
        pictures: The set.
        index_N: Which of its images.
        plan: Says how an image may be varied; its probabilities are the mean over some variants.
    """
    parts: list[Tensor] = []
    for part_N in index_N.split(10_000):
        pictures_NCHW = pictures.pictures_NCHW[part_N.to(pictures.pictures_NCHW.device)]
        views = [probabilities(logits_of(model, view)) for view in _views(pictures_NCHW, plan)]
        parts.append(torch.stack(views).mean(0))
    return torch.cat(parts)


def _views(pictures_NCHW: Tensor, plan: Plan) -> Iterator[Tensor]:
    """Yield the images, and mirrored or, where that would change the class, shifted by a pixel."""
    yield pictures_NCHW
    if plan.mirror:
        yield pictures_NCHW.flip(3)
    elif plan.shift:
        for axis in (2, 3):
            places = torch.arange(pictures_NCHW.shape[axis], device=pictures_NCHW.device)
            for shift in (-1, 1):
                at = (places + shift).clamp(0, len(places) - 1)
                yield pictures_NCHW.index_select(axis, at)


def quick_trial(pictures: Pictures, seed: int, device: torch.device) -> Trial:
    """Train a narrow network for seconds on a part of the set, and test it on another."""
    order_N = torch.randperm(len(pictures), generator=generator(seed, "trial"))[:TRIED]
    train_N, test_N = order_N.chunk(2) if len(order_N) > 1 else (order_N, order_N)
    epochs = max(4, min(30, ceil(TRIED_STEPS * 64 / len(train_N))))
    quick = Plan(1, epochs, 64, (16, 32, 64), 0, lr=0.05)
    model = _train(pictures, train_N, quick, key(seed, "trial") % 2**31, device, None)
    labels_N = pictures.labels_N[test_N].cpu()
    pictures_NCHW = pictures.pictures_NCHW[test_N]
    accuracy, mirrored = (
        float((logits_of(model, shown_NCHW).argmax(1).cpu() == labels_N).double().mean())
        for shown_NCHW in (pictures_NCHW, pictures_NCHW.flip(3))
    )
    return Trial(accuracy, mirrored)


def _reporter(
    watch: Watch | None, seen: float, images: int, total: float
) -> Callable[[Progress], None] | None:
    if watch is None:
        return None

    def report(progress: Progress) -> None:
        watch(seen + (progress.epoch - 1 + progress.step / progress.steps) * images, total)

    return report


def _train(
    pictures: Pictures,
    train_N: Tensor,
    plan: Plan,
    seed: int,
    device: torch.device,
    watch: Callable[[Progress], None] | None,
) -> Classifier:
    """Return a network that was trained on the indexed images."""
    batch_size = min(plan.batch_size, len(train_N))
    while len(train_N) % batch_size == 1 and batch_size > 2:
        batch_size -= 1  # batch norm cannot train on a last batch of one image
    means, deviations = pictures.channel_statistics(train_N)
    fields = {
        "name": "folds", "mean": means, "std": [max(one, 1e-3) for one in deviations],
        "valid": 0.0, "test": 0.0, "select": "last", "seed": seed, "epochs": plan.epochs,
        "batch_size": batch_size, "execute": "eager", "optimizer": "sgd", "lr": plan.lr,
        "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "schedule": "one-cycle",
        "pct_start": 0.2, "div_factor": 5.0, "final_div_factor": 100.0,
        "threads": _threads(pictures, batch_size),
    }  # fmt: skip
    network = network_of(plan.widths, plan.shift, plan.mirror)
    recipe = with_network(read_recipe("digits", overrides_of(fields)), network)
    model = build(recipe, pictures.shape, pictures.classes, network).to(device)
    split = Split(train_N, (), (), pictures)
    for _ in fit(model, pictures.to(device), split, recipe, watch=watch):
        pass
    return model


def _threads(pictures: Pictures, batch_size: int) -> int:
    """Return the CPU threads of a step: one if it is too small to share, 0 for torch's choice."""
    _, H, W = pictures.shape
    return 1 if batch_size * H * W < SMALL_STEP else 0


# ── which images are in which fold ───────────────────────────────────────────────────────────────


def draw_folds(pictures: Pictures, folds: int, seed: int, groups_N: Tensor | None = None) -> Ints:
    """Return the fold of each image: stratified by class, groups and exact copies not separated.

    Args:
        pictures: The set.
        folds: How many.
        seed: What the draw depends on, beside the set.
        groups_N: See `out_of_fold`.
    """
    labels_N = pictures.labels_N.cpu().numpy()
    group_N = _together(pictures, groups_N)
    order_N = torch.randperm(len(pictures), generator=generator(seed, "folds")).numpy()
    sizes_G = np.bincount(group_N, minlength=len(pictures))
    fold_N = np.full(len(pictures), -1, np.int64)
    wanted_K = np.bincount(labels_N, minlength=pictures.K) / folds
    lacking_FK = np.tile(wanted_K, (folds, 1))
    for members_N in _members(group_N, sizes_G, order_N):
        counts_K = np.bincount(labels_N[members_N], minlength=pictures.K)
        fold = int((lacking_FK @ counts_K).argmax())
        fold_N[members_N] = fold
        lacking_FK[fold] -= counts_K
    alone_N = order_N[fold_N[order_N] < 0]
    for label in range(pictures.K):
        own_N = alone_N[labels_N[alone_N] == label]
        fold_N[own_N] = _dealt(lacking_FK[:, label], len(own_N), first=label)
    return fold_N


def _dealt(lacking_F: Floats, count: int, first: int) -> Ints:
    """Return folds for so many images of a class, each to the fold that lacks the most of them.

    Args:
        lacking_F: How many images of the class each fold lacks.
        count: Images to deal.
        first: Rotates which fold is preferred of those that lack the same: small classes would all
            be in the first ones.
    """
    folds = len(lacking_F)
    turn_F = (np.arange(folds) - first) % folds
    # The j-th image of a fold leaves lacking - j: the highest of these numbers are dealt first.
    after_FN = lacking_F[:, None] - np.arange(count)
    order = np.lexsort((np.repeat(turn_F, count), -after_FN.ravel()))
    return (order // max(count, 1))[:count]


def _members(group_N: Ints, sizes_G: Ints, order_N: Ints) -> list[Ints]:
    """Return the images of each group of two and more, the largest group first."""
    held_N = order_N[sizes_G[group_N[order_N]] > 1]
    by_group_N = held_N[np.argsort(group_N[held_N], kind="stable")]
    starts = np.flatnonzero(np.diff(group_N[by_group_N])) + 1
    groups = [part for part in np.split(by_group_N, starts) if len(part)]
    return sorted(groups, key=len, reverse=True)


def _together(pictures: Pictures, groups_N: Tensor | None) -> Ints:
    """Return a number for each image: the same for what is linked by a group or by equal pixels."""
    links = links_of(exact_groups(pictures))
    for given in (pictures.groups_N, groups_N):
        if given is not None:
            links += links_of(members_of(given))
    return np.array(joined_groups(len(pictures), links), np.int64)
