"""A recipe's accuracy and seconds over seeds, beside the published speed run in plain torch.

    python bench/speedrun.py cifar10-94 --seeds 5 --rival-seeds 1 --out FILE.json

Our side is the command, `hydrofoil train RECIPE --seed S --test`, timed from start to end, with the
seconds of its training from the run's log. The other side is airbench94 (Jordan 2024,
arXiv 2404.00498): its architecture and settings as the paper gives them, here in plain torch
float32 on the same CPU, with torchvision's arrays in memory. Sides take turns. What is measured is
kept after each run, and the same command goes on where it stopped. --table prints it again.

Axes: N images, K classes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import CIFAR10

from hydrofoil.device import describe_device

RIVAL = "airbench94, plain torch float32"
EPOCHS, BATCH, LR, MOMENTUM, DECAY = 9.9, 1024, 11.5, 0.85, 0.0153
BIAS_SCALE, SMOOTHING, SHIFT, BIAS_EPOCHS = 64.0, 0.2, 2, 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


# ── the published speed run ──────────────────────────────────────────────────────────────────────


class Group(nn.Module):
    """Two 3×3 convolutions with a pooling after the first."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(width, 1e-12, momentum=0.4) for _ in range(2))
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            norm.weight.requires_grad_(False)
            nn.init.dirac_(conv.weight.data[: conv.weight.shape[1]])

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps at half the size."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Whitening, three groups, and a linear layer whose logits are divided by 9."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        self.groups = nn.Sequential(Group(24, 64), Group(64, 256), Group(256, 256))
        self.fc = nn.Linear(256, 10, bias=False)
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).transpose(1, 3).transpose(1, 2)
        flat = patches.reshape(-1, 12)
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.data = torch.cat([filters, -filters])
        self.whiten.bias.data.zero_()  # type: ignore[union-attr] - a convolution with a bias

    def forward(self, x: Tensor) -> Tensor:
        """Return logits_NK."""
        x = self.groups(F.gelu(self.whiten(x)))
        return self.fc(x.amax((2, 3))) / 9


def cifar10(root: str, *, training: bool) -> tuple[Tensor, Tensor]:
    """Return normalized images and labels of one of CIFAR-10's parts."""
    part = CIFAR10(root, train=training)
    scaled = torch.from_numpy(part.data).permute(0, 3, 1, 2).float() / 255
    scaled = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return scaled, torch.tensor(part.targets)


def shifted(padded: Tensor) -> Tensor:
    """Return images cut out of reflected ones, each at its own place."""
    y, x = torch.randint(0, 2 * SHIFT + 1, (2, len(padded)))
    out = torch.empty(len(padded), 3, 32, 32)
    for dy in range(2 * SHIFT + 1):
        for dx in range(2 * SHIFT + 1):
            chosen = (y == dy) & (x == dx)
            out[chosen] = padded[chosen][:, :, dy : dy + 32, dx : dx + 32]
    return out


def views(images: Tensor) -> list[Tensor]:
    """Return what the paper's test-time augmentation sees: mirrored, and shifted by a pixel."""
    padded = F.pad(images, (1,) * 4, "reflect")
    return [view for one in (images, padded[:, :, :32, :32], padded[:, :, 2:, 2:])
            for view in (one, one.flip(3))]  # fmt: skip


def rival(root: str, seed: int, epochs: float = EPOCHS) -> dict[str, Any]:
    """Train and test the published speed run; return accuracies and seconds."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    images, labels = cifar10(root, training=True)
    test_images, test_labels = cifar10(root, training=False)
    clock = time.perf_counter()
    train(
        net := Airbench(images[:5000]).to(memory_format=torch.channels_last), images, labels, epochs
    )
    seconds = time.perf_counter() - clock
    net.eval()
    weights = (0.25, 0.25, 0.125, 0.125, 0.125, 0.125)
    plain = augmented = 0
    with torch.no_grad():
        for batch, truth in zip(test_images.split(500), test_labels.split(500), strict=True):
            answers = [net(view) for view in views(batch)]
            mixed = sum(weight * one for weight, one in zip(weights, answers, strict=True))
            plain += int((answers[0].argmax(1) == truth).sum())
            augmented += int((mixed.argmax(1) == truth).sum())  # type: ignore[union-attr]
    return {
        "accuracy": plain / len(test_labels),
        "with_test_time_augmentation": augmented / len(test_labels),
        "train_seconds": seconds, "seconds": time.perf_counter() - began, "epochs": epochs,
    }  # fmt: skip


def train(net: Airbench, images: Tensor, labels: Tensor, epochs: float) -> None:
    """Train as the paper says: Nesterov's SGD, a triangle of rates, and a slow average."""
    steps = len(images) // BATCH
    total, scale = round(epochs * steps), 1024 * (1 + 1 / (1 - MOMENTUM))
    lr, decay = LR / scale, DECAY * BATCH / scale
    trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    biases = [p for name, p in trained if "norm" in name]
    others = [p for name, p in trained if "norm" not in name]
    groups = [
        {"params": biases, "base": lr * BIAS_SCALE, "weight_decay": decay / (lr * BIAS_SCALE)},
        {"params": others, "base": lr, "weight_decay": decay / lr},
    ]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, nesterov=True)
    slow = [tensor.clone() for tensor in net.state_dict().values()]
    flipped, step = torch.rand(len(images)) < 0.5, 0
    padded = F.pad(torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images), (SHIFT,) * 4,
                   "reflect")  # fmt: skip
    while step < total:
        net.whiten.bias.requires_grad_(step < BIAS_EPOCHS * steps)  # type: ignore[union-attr]
        epoch = shifted(padded.flip(3) if (step // steps) % 2 else padded)
        for index in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            if step == total:
                break
            batch = epoch[index].contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(net(batch), labels[index], label_smoothing=SMOOTHING,
                                   reduction="sum")  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            part, peak = step / total, 0.23
            factor = (
                0.2 + 0.8 * part / peak if part < peak else 0.07 + 0.93 * (1 - part) / (1 - peak)
            )
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
            optimizer.step()
            step += 1
            if step % 5 == 0:
                average(net, slow, 0.95**5 * (step / total) ** 3)
    average(net, slow, 1.0)


@torch.no_grad()
def average(net: nn.Module, slow: list[Tensor], decay: float) -> None:
    """Move the slow weights towards the fast ones, and the fast ones to them (lookahead)."""
    for fast, kept in zip(net.state_dict().values(), slow, strict=True):
        if fast.is_floating_point():
            kept.lerp_(fast, 1 - decay)
            fast.copy_(kept)


# ── our side, and the table ──────────────────────────────────────────────────────────────────────


def ours(recipe: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Train and test a recipe by the command line; return accuracies and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run, began = Path(folder, "run"), time.perf_counter()
        command = ["train", recipe, *overrides, "--seed", str(seed), "--run", str(run), "--test"]
        subprocess.run([sys.executable, "-m", "hydrofoil.cli", *command], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        seconds = time.perf_counter() - began
        test = json.loads((run / "test.json").read_text("utf-8"))
        events = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
        epochs = [event for event in events if event["event"] == "epoch"]
    return {
        "accuracy": test["accuracy"],
        "with_test_time_augmentation": (test.get("test_time") or {}).get("accuracy"),
        "train_seconds": sum(epoch["train_seconds"] for epoch in epochs),
        "seconds": seconds, "epochs": len(epochs),
    }  # fmt: skip


def row(name: str, runs: list[dict[str, Any]]) -> str:
    """Return a side's line of the table."""

    def spread(values: list[float], digits: int, unit: str = "") -> str:
        """Return mean and standard deviation, or the one value."""
        around = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{around}{unit}"

    plain = spread([100 * run["accuracy"] for run in runs], 2, "%")
    beside = [run["with_test_time_augmentation"] for run in runs]
    augmented = "–" if None in beside else spread([100 * value for value in beside], 2, "%")
    training, whole = ([run[key] for run in runs] for key in ("train_seconds", "seconds"))
    return (
        f"| {name} | {len(runs)} | {plain} | {augmented} | {spread(training, 1)} | "
        f"{spread(whole, 1)} | {runs[0]['epochs']:g} |"
    )


def table(found: dict[str, Any]) -> str:
    """Return what was measured as a Markdown table."""
    head = [
        found["machine"], "",
        "| | n | test accuracy | with test-time augmentation | training, s | command, s | epochs |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    return "\n".join(
        [*head, *(row(name, list(runs.values())) for name, runs in found["sides"].items())]
    )


def main() -> None:
    """Measure what is missing, the sides in turn, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="such as train.epochs=1, for a trial")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival-seeds", type=int, default=0)
    parser.add_argument("--rival-epochs", type=float, default=EPOCHS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "machine": f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}", "sides": {}
    }  # fmt: skip
    if arguments.out.exists():
        found = json.loads(arguments.out.read_text("utf-8"))
    root, out = os.environ.get("HYDROFOIL_DATA", "."), arguments.out
    for seed in range(0 if arguments.table else max(arguments.seeds, arguments.rival_seeds)):
        for name, seeds in ((arguments.recipe, arguments.seeds), (RIVAL, arguments.rival_seeds)):
            side = found["sides"].setdefault(name, {}) if seeds else {}
            if seed >= seeds or str(seed) in side:
                continue
            side[str(seed)] = (
                rival(root, seed, arguments.rival_epochs)
                if name == RIVAL
                else ours(arguments.recipe, seed, arguments.overrides)
            )
            print(name, seed, side[str(seed)], file=sys.stderr, flush=True)
            out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
