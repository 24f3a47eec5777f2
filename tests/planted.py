"""Trainings that are made to go wrong in a known way, or well, for the diagnosis to be held to.

What each one is decides its making, before any curve is seen: a rate 10 to 100 times the good one,
a few epochs, a hundred images, a network of two units, labels drawn at random. The thresholds of
hydrofoil/evaluate/diagnosis.py were chosen on other seeds, rates and sizes than these.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

import hydrofoil as hf
from hydrofoil.evaluate.diagnosis import Finding, diagnose
from hydrofoil.evaluate.result import Epoch

HIGH = ("learning rate too high", "diverging")
MLP = ("model=mlp", "hidden=64", "lr=0.05", "dropout=0.1", "epochs=30")
BARE = (*MLP, "hidden=256", "dropout=0", "weight_decay=0", "epochs=60")
ADAM = ("optimizer=adam", "model=mlp", "hidden=128", "dropout=0.2", "epochs=60")
CNN = ("valid=0.1", "batch_size=64")
MNIST_MLP = (*CNN, "lr=0.1")


@dataclass(frozen=True)
class Planted:
    """One training, and the kinds of finding of which the first should be one; none: healthy.

    Args:
        kinds: What its making implies.
        recipe: Shipped.
        overrides: Its settings.
        seed: Of the training and of what is drawn here.
        images: Training images that are kept; 0: all.
        noise: The share of labels that are drawn anew.
        hidden_class: Training images of this class are called by the next one's name.
    """

    kinds: tuple[str, ...]
    recipe: str
    overrides: tuple[str, ...]
    seed: int
    images: int = 0
    noise: float = 0.0
    hidden_class: int | None = None

    def __str__(self) -> str:
        made = [*self.overrides, f"seed {self.seed}"]
        made += [f"{self.images} images"] if self.images else []
        made += [f"labels {self.noise:.0%} random"] if self.noise else []
        made += [] if self.hidden_class is None else [f"class {self.hidden_class} hidden"]
        return f"{self.recipe}: {', '.join(made)}"


def digits(
    *kinds: str, of: tuple[str, ...] = (), seeds: int = 1, **made: object
) -> Iterator[Planted]:
    for seed in range(300, 300 + seeds):
        yield Planted(kinds, "digits", of, seed, **made)  # type: ignore[arg-type]


def mnist(
    *kinds: str, name: str, of: tuple[str, ...], seeds: int = 1, **made: object
) -> Iterator[Planted]:
    for seed in range(300, 300 + seeds):
        yield Planted(kinds, f"mnist-{name}", of, seed, **{"images": 6000, **made})  # type: ignore[arg-type]


def healthy() -> Iterator[Planted]:
    yield from digits(seeds=8)
    yield from digits(of=MLP, seeds=5)
    yield from digits(of=ADAM, seeds=3)
    yield from digits(of=("lr=0.03", "epochs=35"), seeds=2)
    yield from digits(of=("widths=[8, 16, 32]", "epochs=60"), seeds=2)
    yield from mnist(name="cnn", of=(*CNN, "epochs=20"), images=20000, seeds=2)
    yield from mnist(name="mlp", of=(*MNIST_MLP, "epochs=25"), images=20000, seeds=2)


def wrong() -> Iterator[Planted]:
    for rate in (0.15, 0.3, 0.8):
        yield from digits(*HIGH, of=(f"lr={rate}", "epochs=25"), seeds=2)
    for rate in (0.4, 0.8, 2):
        yield from digits(*HIGH, of=(*MLP, f"lr={rate}"))
    yield from digits(*HIGH, of=(*ADAM, "lr=0.2", "epochs=20"))
    for rate in (0.15, 0.5):
        yield from mnist(*HIGH, name="cnn", of=(*CNN, f"lr={rate}", "epochs=6"))
    yield from mnist(*HIGH, name="mlp", of=(*MNIST_MLP, "lr=5", "epochs=6"))
    for rate in (2e-4, 5e-4, 8e-4):
        yield from digits("learning rate too low", of=(f"lr={rate}", "epochs=25"))
    yield from digits("learning rate too low", of=(*MLP, "lr=0.0001", "epochs=20"), seeds=2)
    yield from mnist("learning rate too low", name="cnn", of=(*CNN, "lr=2e-5", "epochs=8"))
    yield from mnist("learning rate too low", name="mlp", of=(*MNIST_MLP, "lr=0.0015", "epochs=10"))
    for epochs in (4, 6, 8):
        yield from digits("underfitting", of=(f"epochs={epochs}",), seeds=2)
    yield from digits("underfitting", of=(*MLP, "lr=0.005", "epochs=3"))
    yield from mnist("underfitting", name="mlp", of=(*MNIST_MLP, "lr=0.05", "epochs=3"))
    yield from mnist("underfitting", name="cnn", of=(*CNN, "epochs=2"))
    for images in (80, 120):
        yield from digits("overfitting", of=BARE, images=images, seeds=2)
    yield from digits("overfitting", of=("dropout=0", "weight_decay=0", "epochs=90"), images=140)
    for noise in (0.25, 0.4):
        yield from digits("overfitting", of=BARE, noise=noise)
    yield from mnist(
        "overfitting", name="mlp", of=(*MNIST_MLP, "dropout=0", "epochs=40"), images=400
    )
    yield from mnist(
        "overfitting", name="mlp", of=(*MNIST_MLP, "dropout=0", "epochs=60"), images=2000, noise=0.4
    )
    for width in (2, 3):
        of = (*MLP, f"hidden={width}", "dropout=0", "epochs=60")
        yield from digits("plateau", of=of, seeds=2)
    yield from mnist("plateau", name="mlp", of=(*MNIST_MLP, "hidden=3", "dropout=0", "epochs=25"))
    yield from digits("not learning", of=("epochs=20",), noise=1.0, seeds=2)
    yield from digits("not learning", of=(*MLP, "hidden=8", "dropout=0.5", "epochs=10"), noise=1.0)
    yield from mnist("not learning", name="cnn", of=(*CNN, "epochs=3"), noise=1.0)
    yield from digits("validation too small", of=("valid=0.02",))
    yield from digits("validation too small", of=(*MLP, "valid=0.02"))
    for number in (3, 7):
        yield from digits("class never predicted", of=MLP, hidden_class=number)


TABLE = [*healthy(), *wrong()]


def train(planted: Planted) -> tuple[list[Epoch], list[Finding]]:
    """Train as planted, and return the epochs and what is found in them."""
    recipe = hf.read_recipe(planted.recipe, [*planted.overrides, f"seed={planted.seed}"])
    pictures = hf.load(recipe.data.source)
    draw = torch.Generator().manual_seed(planted.seed)
    labels_N = pictures.labels_N.clone()
    if planted.noise:
        anew = torch.rand(len(labels_N), generator=draw) < planted.noise
        labels_N[anew] = torch.randint(0, 10, (int(anew.sum()),), generator=draw)
    split = hf.draw_split(pictures, **recipe.split_options())
    if planted.hidden_class is not None:
        theirs = split.train[labels_N[split.train] == planted.hidden_class]
        labels_N[theirs] = (planted.hidden_class + 1) % 10
    pictures = hf.Pictures(
        pictures.pictures_NCHW, labels_N, pictures.classes, pictures.source,
        published_test=pictures.published_test,
    )  # fmt: skip
    kept = split.train
    if planted.images:
        kept = kept[torch.randperm(len(kept), generator=draw)[: planted.images]].sort().values
    split = hf.Split(kept, split.valid, split.test, pictures.hash)
    counts = {"train": pictures.counts(split.train), "valid": pictures.counts(split.valid)}
    epochs: list[Epoch] = []
    stopped = None
    try:
        epochs += hf.fit(
            hf.build(recipe, pictures.shape, pictures.classes), pictures, split, recipe
        )
    except hf.HydrofoilError:  # a loss that is not finite, which a run logs
        stopped = len(epochs) + 1, 1
    return epochs, diagnose(epochs, recipe, counts, pictures.classes, stopped)
