"""The recipe mnist-cnn in other libraries against hydrofoil: whole jobs, in turn, on this machine.

    python bench/peers.py [PEER …] --root DATA [--repeats 3] [--fraction 0.2] [--json FILE]

A job is everything a person waits for: from the command to the tested model, imports and reading
the data included. In each round every side runs once, in a process of its own, and each round
begins with another side. Printed for each: seconds (median and range), their ratio to hydrofoil's
(median of the rounds' ratios, with its range), peak memory, accuracy on the test set, version; then
the fastest of the others.

Each library is used as its own documentation shows it (the page stands in each function), with its
default data loading, workers, progress bar, logger and checkpoints. All train the same network on
all 60 000 pictures with Adam at 0.001, batches of 64 in a new order each epoch, hold nothing out,
and read the test set once, after the last epoch. What differs is what a library chooses by itself:
Keras draws other first weights and keeps channels last, as its documentation does.

`literal` is the tutorial's plain torch loop (bench/literal.py); it stays on the CPU, while the
others take a CUDA device where there is one. The other peers come with `pip install -e '.[bench]'`:
Lightning 2.6.6, Keras 3.15.1, fastai 2.8.12 and skorch 1.4.0 share one environment with torch
2.15.0 and torchvision 0.29.2 on Python 3.11 (tried on 2026-11-21).

`--fraction` scales the epochs down for a quick look; the output says so.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Heavy modules are imported inside functions: a side pays for its own imports and no other's.

HERE = Path(__file__).parent
EPOCHS = 5
BATCH_SIZE = 64
LEARNING_RATE = 0.001


@dataclass(frozen=True)
class Tested:
    """What one side reports of itself: accuracy on the test set, epochs trained, version."""

    accuracy: float
    epochs: int
    version: str


@dataclass(frozen=True)
class Job:
    """One side's whole job: seconds from command to tested model, peak memory, what it reports."""

    seconds: float
    peak_megabytes: float
    tested: Tested


def network() -> Any:
    """Return the recipe's network as a torch module, for the peers that train torch modules."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )  # fmt: skip


def loaders(root: str) -> tuple[Any, Any]:
    """Return torch's loaders of torchvision's MNIST, train and test, without workers."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    train = MNIST(root, train=True, transform=ToTensor())
    test = MNIST(root, train=False, transform=ToTensor())
    return DataLoader(train, BATCH_SIZE, shuffle=True), DataLoader(test, BATCH_SIZE)


def arrays(root: str) -> list[Any]:
    """Return train pictures, train labels, test pictures and test labels as arrays of bytes.

    It stands where the documentation fetches the set as arrays (`keras.datasets.mnist.load_data`,
    `fetch_openml`). It reads the published files directly, which costs a peer less than either, and
    spares it the import of torchvision.
    """
    import numpy as np

    found = []
    for part in ("train", "t10k"):
        for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
            path = Path(root, "MNIST", "raw", f"{part}-{kind}-ubyte")
            found.append(np.fromfile(path, np.uint8, offset=header))
    return [found[0].reshape(-1, 28, 28), found[1], found[2].reshape(-1, 28, 28), found[3]]


def lightning(root: str, epochs: int) -> Tested:
    """Train with Lightning, after "Lightning in 15 minutes" and "Validate and test a model".

    The guide's loader has no workers. Lightning warns that some would help; it is left as it is.
    """
    import lightning as L
    import torch
    import torch.nn.functional as F

    class Classifier(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            loss = F.cross_entropy(self.network(x), y)
            self.log("train_loss", loss)
            return loss

        def test_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            self.log("test_accuracy", (self.network(x).argmax(1) == y).float().mean())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    train, test = loaders(root)
    model = Classifier()
    trainer = L.Trainer(max_epochs=epochs)
    trainer.fit(model=model, train_dataloaders=train)
    reached = trainer.current_epoch
    (result,) = trainer.test(model, dataloaders=test)
    return Tested(result["test_accuracy"], reached, L.__version__)


def keras(root: str, epochs: int) -> Tested:
    """Train with Keras on torch, after its example "Simple MNIST convnet".

    Left out of the example: its validation split, which the recipe does not have. Labels stay
    whole numbers, which spares Keras the one-hot vectors.
    """
    os.environ["KERAS_BACKEND"] = "torch"  # read when keras is imported
    import keras
    import numpy as np
    from keras import layers

    x_train, y_train, x_test, y_test = arrays(root)
    x_train = np.expand_dims(x_train.astype("float32") / 255, -1)
    x_test = np.expand_dims(x_test.astype("float32") / 255, -1)
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            layers.Conv2D(8, kernel_size=(3, 3), padding="same", activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(16, kernel_size=(3, 3), padding="same", activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.Adam(learning_rate=LEARNING_RATE),
        metrics=["accuracy"],
    )
    history = model.fit(x_train, y_train, batch_size=BATCH_SIZE, epochs=epochs)
    _, accuracy = model.evaluate(x_test, y_test, batch_size=BATCH_SIZE, verbose=0)
    return Tested(float(accuracy), len(history.epoch), keras.__version__)


def fastai(root: str, epochs: int) -> Tested:
    """Train with fastai, after its page "Pure PyTorch to fastai", whose example is MNIST.

    That page hands torch's loaders to `DataLoaders`. fastai's other way, a `DataBlock` of picture
    files, would have 70 000 files written first and decoded in every epoch: slower, so not taken.
    """
    from functools import partial

    import fastai
    import torch.nn.functional as F
    from fastai.vision.all import (
        Callback,
        CancelValidException,
        DataLoaders,
        Learner,
        OptimWrapper,
        accuracy,
    )
    from torch.optim import Adam

    class NoValidation(Callback):
        """Spare fastai the pass over the test set that its `fit` makes after every epoch."""

        def before_validate(self) -> None:
            raise CancelValidException

    train, test = loaders(root)
    # torch's Adam: fastai's own defaults to other betas, another epsilon and weight decay.
    adam = partial(OptimWrapper, opt=Adam)
    learn = Learner(
        DataLoaders(train, test),
        network(),
        loss_func=F.cross_entropy,
        opt_func=adam,
        metrics=accuracy,
    )
    learn.fit(epochs, LEARNING_RATE, cbs=NoValidation())  # the page's one cycle is another recipe
    reached = len(learn.recorder.values)
    _, right = learn.validate()
    return Tested(float(right), reached, fastai.__version__)


def skorch(root: str, epochs: int) -> Tested:
    """Train with skorch, after its notebook "MNIST with SciKit-Learn and skorch".

    Left out: the fifth of the pictures that it holds out by default (`train_split=None`, as its FAQ
    says). The FAQ also gives the shuffling.
    """
    import skorch
    import torch
    from sklearn.metrics import accuracy_score

    x_train, y_train, x_test, y_test = arrays(root)
    x_train = x_train.reshape(-1, 1, 28, 28).astype("float32") / 255
    x_test = x_test.reshape(-1, 1, 28, 28).astype("float32") / 255
    net = skorch.NeuralNetClassifier(
        network,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    net.fit(x_train, y_train.astype("int64"))
    accuracy = accuracy_score(y_test, net.predict(x_test))
    return Tested(float(accuracy), len(net.history), skorch.__version__)


LIBRARIES: dict[str, Callable[[str, int], Tested]] = {
    "lightning": lightning,
    "keras": keras,
    "fastai": fastai,
    "skorch": skorch,
}
PEERS = ["literal", *LIBRARIES]


def side(name: str, root: str, epochs: int) -> None:
    """Run one library's job in this process; print what it reports as the last line."""
    root = str(Path(root).resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where logs and checkpoints go, and go away
        tested = LIBRARIES[name](root, epochs)
        os.chdir(HERE)
    print(f"\n{json.dumps(asdict(tested))}")


def job(name: str, root: str, epochs: int) -> Job:
    """Run one side in a process of its own, and gather what came of it."""
    from tutorials import run

    if name == "hydrofoil":
        with tempfile.TemporaryDirectory() as folder:
            verb = ["-m", "hydrofoil.cli", "train", "mnist-cnn", f"train.epochs={epochs}"]
            command = [sys.executable, *verb, "--run", f"{folder}/run", "--test", "--json"]
            seconds, peak, output = run(command, root)
            log = Path(folder, "run", "log.jsonl").read_text().splitlines()
        reached = sum(json.loads(event)["event"] == "epoch" for event in log)
        accuracy = json.loads(output)["test"]["accuracy"]
        tested = Tested(accuracy, reached, version("hydrofoil"))
    elif name == "literal":
        script = [str(HERE / "literal.py"), "mnist-cnn"]
        command = [sys.executable, *script, "--root", root, "--epochs", str(epochs)]
        seconds, peak, output = run(command, root)
        result = json.loads(output)
        tested = Tested(result["test"]["accuracy"], len(result["epochs"]), version("torch"))
    else:
        script = [str(HERE / "peers.py"), "--side", name]
        command = [sys.executable, *script, "--root", root, "--epochs", str(epochs)]
        seconds, peak, output = run(command, root)
        tested = Tested(**json.loads(output.splitlines()[-1]))
    if tested.epochs != epochs:
        raise SystemExit(f"{name} trained {tested.epochs} epochs, {epochs} were asked for")
    return Job(seconds, peak, tested)


def summarize(rounds: Sequence[dict[str, Job]]) -> list[dict[str, Any]]:
    """Return one row a side: medians over the rounds, and the ratios to hydrofoil's seconds.

    A ratio is taken within a round, where both sides had the same machine, and only then the
    median over the rounds.
    """
    rows = []
    for name in rounds[0]:
        jobs = [one[name] for one in rounds]
        seconds = [one.seconds for one in jobs]
        ratios = [one[name].seconds / one["hydrofoil"].seconds for one in rounds]
        rows.append(
            {
                "side": name,
                "version": jobs[0].tested.version,
                "n": len(jobs),
                "seconds": statistics.median(seconds),
                "seconds_range": [min(seconds), max(seconds)],
                "ratio": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
                "peak_megabytes": statistics.median(one.peak_megabytes for one in jobs),
                "accuracy": statistics.median(one.tested.accuracy for one in jobs),
            }
        )
    return rows


COLUMNS = f"{'side':10} {'seconds':>8} {'range':>13} {'÷ ours':>7} {'range':>11}"
COLUMNS += f" {'peak MB':>8} {'accuracy, %':>12}  version"


def line(row: dict[str, Any]) -> str:
    """Return one side's row under COLUMNS."""
    seconds = "–".join(f"{value:.1f}" for value in row["seconds_range"])
    ratios = "–".join(f"{value:.2f}" for value in row["ratio_range"])
    shown = f"torch {row['version']}" if row["side"] == "literal" else row["version"]
    return " ".join(
        [
            f"{row['side']:10} {row['seconds']:8.1f} {seconds:>13}",
            f"{row['ratio']:7.2f} {ratios:>11}",
            f"{row['peak_megabytes']:8.0f} {100 * row['accuracy']:12.2f}  {shown}",
        ]
    )


def fastest(rows: Sequence[dict[str, Any]]) -> str:
    """Name the fastest of the others, and say how its seconds stand to hydrofoil's."""
    others = [row for row in rows if row["side"] != "hydrofoil"]
    best = min(others, key=lambda row: row["seconds"])
    spread = "–".join(f"{value:.2f}" for value in best["ratio_range"])
    return (
        f"fastest of the others: {best['side']}, {best['ratio']:.2f} times hydrofoil's seconds "
        f"({spread}, n = {best['n']})"
    )


def turned(sides: Sequence[str], number: int) -> list[str]:
    """Return the order of a round: no side is always the one that finds the files uncached."""
    start = number % len(sides)
    return [*sides[start:], *sides[:start]]


def problem(peers: Sequence[str], root: str) -> str | None:
    """Say what keeps the comparison from running, or nothing."""
    from hydrofoil.errors import nearest

    for name in peers:
        if name not in PEERS:
            return f"unknown peer '{name}'. {nearest(name, PEERS)}"
        if name in LIBRARIES and find_spec(name) is None:
            return (
                f"{name} is not installed here. Install the peers with pip install -e '.[bench]', "
                f"or name those that are to run: {', '.join(PEERS)}."
            )
    if not Path(root, "MNIST", "raw").is_dir():
        return f"{root} holds no MNIST/raw: expected torchvision's files of the set there."
    return None


def compare(arguments: argparse.Namespace) -> None:
    """Run all sides in turn, and print the table."""
    import torch

    epochs = max(1, round(EPOCHS * arguments.fraction))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    print(f"mnist-cnn, epochs: {epochs}; torch {torch.__version__}, {device}, {threads} threads")
    if arguments.fraction != 1:
        print(f"QUICK LOOK: {arguments.fraction:g} of the epochs; start-up weighs too much")
    sides, rounds = ["hydrofoil", *arguments.peers], []
    for number in range(arguments.repeats):
        done: dict[str, Job] = {}
        for name in turned(sides, number):
            done[name] = job(name, arguments.root, epochs)
            print(f"round {number + 1}: {name} {done[name].seconds:.1f} s", flush=True)
        rounds.append(done)
    rows = summarize(rounds)
    print(COLUMNS, *map(line, rows), fastest(rows), sep="\n")
    if arguments.json:
        settings = {"epochs": epochs, "fraction": arguments.fraction, "device": device}
        settings |= {"threads": threads, "torch": torch.__version__}
        jobs = [{name: asdict(one) for name, one in done.items()} for done in rounds]
        arguments.json.write_text(
            json.dumps({**settings, "summary": rows, "rounds": jobs}, indent=2)
        )


def main(words: Sequence[str] | None = None) -> None:
    """Compare, or run the one side that `--side` names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--root", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.side:
        side(arguments.side, arguments.root, arguments.epochs)
        return
    arguments.peers = arguments.peers or PEERS
    if found := problem(arguments.peers, arguments.root):
        parser.error(found)
    compare(arguments)


if __name__ == "__main__":
    main()
