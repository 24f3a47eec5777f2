"""Figures as PNG files: image grids, one image's pixel values, the confusion matrix.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from torch import Tensor

from hydrofoil.report.sheet import (
    BLUES,
    FAINT,
    GAP,
    LARGE,
    SMALL,
    TEXT,
    Sheet,
    as_image,
    colored,
    scale_of,
    text_width,
)  # fmt: skip


def picture_grid(
    pictures_NCHW: Tensor,
    titles: Sequence[str],
    colors: Sequence[str] = (),
    heading: str = "",
    columns: int = 10,
) -> bytes:
    """Draw images in rows, each under its title.

    A title wider than its image is split before the parenthesis, then drawn in small type; if it
    is still too wide, the columns move apart.

    Args:
        pictures_NCHW: uint8.
        titles: One for each image.
        colors: Of the titles; default: black.
        heading: At the top.
        columns: Images per row.
    """
    scale = scale_of(pictures_NCHW.shape, 128)
    height, width = (side * scale for side in pictures_NCHW.shape[2:])
    lines, type_height = [[title] for title in titles], TEXT
    if text_width(titles, TEXT) > width:
        lines = [title.replace(" (", "\n(").split("\n") for title in titles]
        if text_width((line for title in lines for line in title), TEXT) > width:
            type_height = SMALL
    widest = text_width((line for title in lines for line in title), type_height)
    leading = type_height + 3
    above = leading * max(map(len, lines), default=0) + 4
    right, down = max(width, widest) + GAP, above + height + GAP
    columns = min(columns, max(len(titles), 1))
    rows = ceil(len(titles) / columns)
    sheet = Sheet((right * columns - GAP, down * rows - GAP), heading)
    for place, title in enumerate(lines):
        x, y = place % columns * right, place // columns * down + above
        middle = x + (right - GAP) // 2
        sheet.show(as_image(pictures_NCHW[place]), middle - width // 2, y, scale)
        ink = colors[place] if colors else "black"
        for number, line in enumerate(reversed(title)):
            sheet.write(line, middle, y - 7 - number * leading, type_height, anchor="ms", ink=ink)
    return sheet.png()


def class_rows(
    pictures_NCHW: Tensor, labels_N: Tensor, classes: Sequence[str], heading: str, columns: int = 12
) -> bytes:
    """Draw a row of images for each class that has any, beside the class's name."""
    scale = scale_of(pictures_NCHW.shape, 88)
    height, width = (side * scale for side in pictures_NCHW.shape[2:])
    gap = GAP // 2
    shown = [k for k in range(len(classes)) if bool((labels_N == k).any())]
    names = text_width((classes[k] for k in shown), TEXT) + GAP
    body = (names + columns * (width + gap) - gap, len(shown) * (height + gap) - gap)
    sheet = Sheet(body, heading)
    for row, k in enumerate(shown):
        y = row * (height + gap)
        sheet.write(classes[k], names - GAP, y + height / 2, TEXT, anchor="rm")
        for column, picture_CHW in enumerate(pictures_NCHW[labels_N == k][:columns]):
            sheet.show(as_image(picture_CHW), names + column * (width + gap), y, scale)
    return sheet.png()


def pixel_values(picture_CHW: Tensor, title: str) -> bytes:
    """Draw one image enlarged, a panel per channel, with each pixel's value from 0 to 255."""
    C, H, W = picture_CHW.shape
    cell, numbers = 36, 24
    panel = numbers + cell * W + GAP
    above = numbers + (TEXT + GAP if C == 3 else 0)
    sheet = Sheet((panel * C - GAP, above + cell * H), title)
    for channel in range(C):
        left = channel * panel + numbers
        if C == 3:
            name = ("red", "green", "blue")[channel]
            sheet.write(name, left + cell * W / 2, 0, TEXT, anchor="ma")
        for column in range(0, W, 4):
            sheet.write(str(column), left + cell * (column + 0.5), above - numbers / 2, SMALL)
        for row in range(0, H, 4):
            sheet.write(str(row), left - 6, above + cell * (row + 0.5), SMALL, anchor="rm")
        sheet.show(as_image(picture_CHW[channel : channel + 1]), left, above, cell)
        for row, values in enumerate(picture_CHW[channel].tolist()):
            for column, value in enumerate(values):
                x, y = left + cell * (column + 0.5), above + cell * (row + 0.5)
                sheet.write(str(value), x, y, TEXT, ink="black" if value > 110 else "white")
    return sheet.png()


def confusion_matrix(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], heading: str
) -> bytes:
    """Draw a confusion matrix: true classes in rows, predicted classes in columns.

    Up to 20 classes every cell shows its count; its shade is its share of the row. Long names
    are rotated.
    """
    K, legend = len(classes), "predicted class (shade: share of the row)"
    numbered = K <= 20
    cell = 64 if numbered else min(64, max(8, 1600 // K))
    cell = max(cell, ceil(text_width([legend], TEXT) / K))  # two classes: large cells
    type_height = LARGE if numbered else max(6, min(TEXT, cell - 4))
    names = text_width(classes, type_height)
    if numbered and names <= 96:
        cell = max(cell, names + GAP)
    upwards = names > cell - 4
    side, left = cell * K, TEXT + GAP + names + GAP // 2
    below = side + GAP // 2 + (names if upwards else type_height) + GAP
    sheet = Sheet((left + side, below + TEXT), heading)
    shares_KK = [[count / max(sum(row), 1) for count in row] for row in confusion]
    sheet.show(colored(np.array(shares_KK), BLUES), left, 0, cell)
    for i, row in enumerate(confusion):
        middle = cell * i + cell / 2
        sheet.write(classes[i], left - GAP // 2, middle, type_height, anchor="rm")
        if upwards:
            sheet.write_upwards(classes[i], left + middle, side + GAP // 2, type_height)
        else:
            sheet.write(classes[i], left + middle, side + GAP // 2, type_height, anchor="ma")
        for k, count in enumerate(row if numbered else ()):
            ink = "white" if shares_KK[i][k] > 0.5 else "black" if count else FAINT
            sheet.write(str(count), left + cell * (k + 0.5), middle, LARGE, ink=ink)
    sheet.write(legend, left + side / 2, below, TEXT, anchor="ma")
    truth = text_width(["true class"], TEXT)
    sheet.write_upwards("true class", TEXT / 2, (side - truth) / 2, TEXT)
    return sheet.png()
