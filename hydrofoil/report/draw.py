"""Figures as PNG bytes: picture grids, one picture's pixels, learning curves, the confusion matrix.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import io
from collections.abc import Sequence
from math import ceil, isnan, nan
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

# Told apart by people who see red and green alike: the one is darker, and wrong titles name two
# classes.
RIGHT, WRONG = "#1a7f37", "#cf222e"
TRAIN, VALID = "#0969da", "#bc4c00"


def _png(figure: Figure, dpi: int = 100) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _show_picture(axes: Axes, picture_CHW: Tensor) -> None:
    """Draw one uint8 picture, pixel for pixel, grey or colour."""
    picture_HWC = picture_CHW.permute(1, 2, 0).numpy()
    if picture_HWC.shape[2] == 1:
        axes.imshow(picture_HWC[:, :, 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(picture_HWC, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def picture_grid(
    pictures_NCHW: Tensor,
    titles: Sequence[str],
    colours: Sequence[str] = (),
    heading: str = "",
    columns: int = 10,
) -> bytes:
    """Draw pictures in rows, each under its title.

    Args:
        pictures_NCHW: uint8.
        titles: One for each picture.
        colours: Of the titles; default: black.
        heading: Above all of them.
        columns: Pictures a row.
    """
    columns = min(columns, max(len(titles), 1))
    rows = max(ceil(len(titles) / columns), 1)
    figure = Figure(
        figsize=(1.45 * columns + 0.3, 1.62 * rows + (0.5 if heading else 0.1)),
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)  # pyright: ignore
    if heading:
        figure.suptitle(heading, fontsize=12)
    for place in range(rows * columns):
        axes = figure.add_subplot(rows, columns, place + 1)
        if place >= len(titles):
            axes.set_axis_off()
            continue
        _show_picture(axes, pictures_NCHW[place])
        title = titles[place]
        size = 9 if len(title) <= 18 else 7
        colour = colours[place] if colours else "black"
        axes.set_title(
            title.replace(" (", "\n(") if len(title) > 14 else title, fontsize=size, color=colour
        )
    return _png(figure)


def class_rows(
    pictures_NCHW: Tensor, labels_N: Tensor, classes: Sequence[str], heading: str, columns: int = 12
) -> bytes:
    """Draw a row of pictures for each class that has any.

    All rows are one image in one panel, so that 100 classes stay quick.
    """
    _, C, H, W = pictures_NCHW.shape
    gap = max(1, H // 16)
    shown = [k for k in range(len(classes)) if bool((labels_N == k).any())]
    sheet_HWC = np.full((len(shown) * (H + gap), columns * (W + gap), C), 255, dtype=np.uint8)
    for row, k in enumerate(shown):
        for column, picture_CHW in enumerate(pictures_NCHW[labels_N == k][:columns]):
            top, left = row * (H + gap), column * (W + gap)
            sheet_HWC[top : top + H, left : left + W] = picture_CHW.permute(1, 2, 0).numpy()
    width = 9.0
    figure = Figure(
        figsize=(width + 1.6, width * sheet_HWC.shape[0] / sheet_HWC.shape[1] + 0.6),
        layout="constrained",
    )
    figure.suptitle(heading, fontsize=12)
    axes = figure.add_subplot()
    sheet = sheet_HWC[:, :, 0] if C == 1 else sheet_HWC
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(
        [row * (H + gap) + H / 2 for row in range(len(shown))], [classes[k] for k in shown]
    )
    axes.tick_params(length=0, labelsize=11 if len(shown) <= 20 else 8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _png(figure, dpi=120)


def pixel_values(picture_CHW: Tensor, title: str) -> bytes:
    """Draw one picture large, a panel a channel, every pixel's value, 0 to 255, in its cell."""
    channels, height, width = picture_CHW.shape
    figure = Figure(
        figsize=(0.38 * width * channels + 0.4, 0.38 * height + 0.8), layout="constrained"
    )
    figure.suptitle(title, fontsize=16)
    for channel in range(channels):
        axes = figure.add_subplot(1, channels, channel + 1)
        values_HW = picture_CHW[channel].numpy()
        axes.imshow(values_HW, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_xticks(range(0, width, 4))
        axes.set_yticks(range(0, height, 4))
        if channels == 3:
            axes.set_title(("red", "green", "blue")[channel])
        for row in range(height):
            for column in range(width):
                value = int(values_HW[row, column])
                ink = "black" if value > 110 else "white"
                axes.text(column, row, str(value), ha="center", va="center", fontsize=7, color=ink)
    return _png(figure)


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
    return _png(figure, dpi=120)


def confusion_matrix(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], heading: str
) -> bytes:
    """Draw a confusion matrix: rows the truth, columns the answers, shade the share of the row."""
    K = len(classes)
    size = min(3 + 0.55 * K, 16)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    shares = [[cell / max(sum(row), 1) for cell in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(heading, fontsize=12)
    small = 9 if K <= 20 else 4
    short = max(map(len, classes)) <= 3
    axes.set_xticks(
        range(K),
        classes,
        rotation=0 if short else 45 if K <= 20 else 90,
        ha="right" if K <= 20 and not short else "center",
        fontsize=small,
    )
    axes.set_yticks(range(K), classes, fontsize=small)
    axes.set_xlabel("predicted (shade: share of the row)")
    axes.set_ylabel("truth")
    if K <= 20:
        for i, row in enumerate(confusion):
            for k, cell in enumerate(row):
                ink = "white" if shares[i][k] > 0.5 else "black" if cell else "#b8bec5"
                axes.text(k, i, str(cell), ha="center", va="center", fontsize=9, color=ink)
    return _png(figure, dpi=120)
