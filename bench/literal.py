"""The five tutorials as they stand: torchvision set, DataLoader, workers, plain optimizer and loop.

This is what hydrofoil is compared with, so it shares no code with it: networks, data and loop are
written from the tutorials' description. It keeps their mathematics and their way of working, and
leaves out only what no longer runs (`dataiter.next()`, `np.Inf`) and the losses that were divided
by the wrong count.

    python bench/literal.py cifar10-lenet --root DATA [--epochs 1] [--seed 0] [--threads 4]

prints one JSON object: seconds, losses and accuracy by epoch, and the accuracy on the test set.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Sampler,
    SubsetRandomSampler,
    random_split,
)
from torchvision import datasets, transforms


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class Cnn3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(64 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 60)
        self.fc3 = nn.Linear(60, 10)
        self.dropout = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = self.pool(F.relu(self.conv3(x)))
        x = x.view(-1, 64 * 4 * 4)
        x = self.dropout(x)
        x = F.relu(self.fc1(x))
        x = self.dropout(x)
        x = F.relu(self.fc2(x))
        x = self.dropout(x)
        return self.fc3(x)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, 10)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 28 * 28)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        return self.fc3(x)


class LeNetLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.lin1 = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.lin1(torch.flatten(x, 1))


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, stride=1, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, stride=1, padding=1)
        self.fc1 = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc1(x.reshape(x.shape[0], -1))


@dataclass(frozen=True)
class Tutorial:
    """One tutorial: its network, data, loader and optimizer."""

    network: Callable[[], nn.Module]
    dataset: Callable[..., Any]
    transform: Callable[[Any], torch.Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    epochs: int
    batch_size: int
    workers: int = 0
    held_out: bool = False
    merged: bool = False


CENTRED = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
)
PLAIN = transforms.ToTensor()

TUTORIALS = {
    "cifar10-lenet": Tutorial(
        LeNet, datasets.CIFAR10, CENTRED,
        lambda p: torch.optim.SGD(p, lr=0.001, momentum=0.9), 2, 4, workers=2,
    ),
    "cifar10-cnn3": Tutorial(
        Cnn3, datasets.CIFAR10, CENTRED,
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), 50, 20, held_out=True,
    ),
    "mnist-mlp": Tutorial(
        Mlp, datasets.MNIST, PLAIN,
        lambda p: torch.optim.SGD(p, lr=0.01), 50, 20, held_out=True,
    ),
    "cifar10-lenet-linear": Tutorial(
        LeNetLinear, datasets.CIFAR10, CENTRED,
        lambda p: torch.optim.SGD(p, lr=0.001, momentum=0.9), 2, 4, workers=2, merged=True,
    ),
    "mnist-cnn": Tutorial(
        Cnn, datasets.MNIST, PLAIN,
        lambda p: torch.optim.Adam(p, lr=0.001), 5, 64,
    ),
}  # fmt: skip


def whole_set(name: str, root: str) -> Dataset[Any]:
    """Return training, then test pictures in one dataset: the order hydrofoil indexes by."""
    one = TUTORIALS[name]
    return ConcatDataset(
        [one.dataset(root, train=part, transform=one.transform) for part in (True, False)]
    )


def train_steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any]
) -> Iterator[tuple[float, int, int]]:
    """Train over a loader as the tutorials do; yield each step's loss, right answers and size."""
    criterion = nn.CrossEntropyLoss()
    for inputs, labels in loader:
        optimizer.zero_grad()
        outputs = network(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        yield loss.item(), int((outputs.argmax(1) == labels).sum()), len(labels)


def check(network: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
    """Return mean loss and accuracy over a loader."""
    network.eval()
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for inputs, labels in loader:
            outputs = network(inputs)
            total += F.cross_entropy(outputs, labels).item() * len(labels)
            right += int((outputs.argmax(1) == labels).sum())
            count += len(labels)
    network.train()
    return {"loss": total / count, "accuracy": right / count, "count": count}


def loaders(name: str, root: str) -> dict[str, Any]:
    """Return the tutorial's own loaders: train, test and, where it holds pictures out, valid."""
    one = TUTORIALS[name]
    options: dict[str, Any] = {"batch_size": one.batch_size, "num_workers": one.workers}
    if one.merged:
        train, valid, test = random_split(whole_set(name, root), [48_000, 6_000, 6_000])
        return {
            "train": DataLoader(train, shuffle=True, **options),
            "valid": DataLoader(valid, **options),
            "test": DataLoader(test, **options),
        }
    train = one.dataset(root, train=True, transform=one.transform)
    test = DataLoader(one.dataset(root, train=False, transform=one.transform), **options)
    if not one.held_out:
        return {"train": DataLoader(train, shuffle=True, **options), "test": test}
    order = torch.randperm(len(train)).tolist()
    cut = len(train) // 5
    parts: dict[str, Sampler[int]] = {
        "valid": SubsetRandomSampler(order[:cut]),
        "train": SubsetRandomSampler(order[cut:]),
    }
    return {
        part: DataLoader(train, sampler=sampler, **options) for part, sampler in parts.items()
    } | {"test": test}


def main() -> None:
    """Run one tutorial and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=TUTORIALS)
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    one = TUTORIALS[arguments.name]
    began = time.perf_counter()
    loader, network = loaders(arguments.name, arguments.root), one.network()
    optimizer = one.optimizer(network.parameters())
    best, kept, epochs = float("inf"), network.state_dict(), []
    for number in range(1, (arguments.epochs or one.epochs) + 1):
        start, total, right, count = time.perf_counter(), 0.0, 0, 0
        for loss, correct, size in train_steps(network, optimizer, loader["train"]):
            total, right, count = total + loss * size, right + correct, count + size
        train_seconds = time.perf_counter() - start
        valid = check(network, loader["valid"]) if "valid" in loader else None
        if one.held_out and valid is not None and valid["loss"] < best:
            best, kept = (
                valid["loss"],
                {key: value.clone() for key, value in network.state_dict().items()},
            )
        seconds = time.perf_counter() - start
        epochs.append(
            {
                "epoch": number,
                "loss": total / count,
                "accuracy": right / count,
                "valid": valid,
                "train_seconds": train_seconds,
                "seconds": seconds,
            }
        )
    if one.held_out:
        network.load_state_dict(kept)
    result = {
        "name": arguments.name,
        "seed": arguments.seed,
        "threads": torch.get_num_threads(),
        "epochs": epochs,
    }
    result |= {"test": check(network, loader["test"]), "seconds": time.perf_counter() - began}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
