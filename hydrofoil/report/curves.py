"""Learning curves as PNG bytes: the one figure that matplotlib draws."""

import io
from collections.abc import Sequence
from math import isnan, nan
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAIN, VALID = "#0969da", "#bc4c00"


def learning_curves(epochs: Sequence[dict[str, Any]], heading: str) -> bytes:
    """Draw loss and accuracy by epoch, training and validation, and mark the epoch that was kept.

    Args:
        epochs: As log.jsonl has them.
        heading: Above both panels.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(heading, fontsize=12)
    numbers = [epoch["epoch"] for epoch in epochs]
    kept = [epoch["epoch"] for epoch in epochs if epoch["best"]][-1:]
    for panel, (field, unit, scale) in enumerate(
        (("loss", "nats a picture", 1), ("accuracy", "%", 100)), start=1
    ):
        axes = figure.add_subplot(1, 2, panel)
        for part, colour, style in (("train", TRAIN, "--"), ("valid", VALID, "-")):
            values = [epoch[part][field] * scale if epoch[part] else nan for epoch in epochs]
            if not all(map(isnan, values)):
                label = "training" if part == "train" else "validation"
                axes.plot(
                    numbers, values, style, color=colour, label=label, marker="o", markersize=3
                )
        for epoch in kept:
            axes.axvline(
                epoch, color="black", linewidth=0.8, linestyle=":", label=f"kept: epoch {epoch}"
            )
        axes.set_xlim(0.5, max(numbers) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{field} ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
