"""Find a drawing on a page and bring it to a dataset's own form, as MNIST's digits were made.

MNIST's digits were cut out, scaled into 20×20 pixels and placed with their center of mass in the
middle of 28×28 (http://yann.lecun.com/exdb/mnist). Size, center and levels come from the training
images' statistics here, so the same serves any dataset of strokes that was made in such a way.

Axes: H rows, W columns, P pixels of a page, T terms that are fitted to them.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hydrofoil.data.statistics import Statistics

Array = np.ndarray[Any, np.dtype[Any]]
PAGE = 400  # pixels of the page's longer side at which the drawing is cut out
COARSE = 64  # cells of that side at which strokes are joined to drawings
NEIGHBORS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
FAINTEST = 16  # gray levels: a drawing of less contrast counts as none


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawing that was found on a page.

    Args:
        strength_HW: The box around it: 0 paper, 1 ink.
        dark: Whether the ink is darker than the paper.
        size: Width and height of the box, in pixels of the page as it came.
    """

    strength_HW: Array
    dark: bool
    size: tuple[int, int]


def find_drawing(gray_HW: Array) -> Drawing | None:
    """Return the drawing on a page of gray levels; None where there is none.

    The paper's brightness may change smoothly over the page, as light falls on it: it is fitted
    by a surface of second order. What touches the edge is taken as part of the drawing only where
    nothing else is.
    """
    page_HW, scale = _reduced(gray_HW)
    ink_HW = page_HW - _paper(page_HW)
    noise = 1.4826 * float(np.median(np.abs(ink_HW)))
    floor = max(4 * noise, FAINTEST / 2)
    dark = float(ink_HW[ink_HW < -floor].sum()) + float(ink_HW[ink_HW > floor].sum()) < 0
    strength_HW = np.clip(-ink_HW if dark else ink_HW, 0, None)
    above = strength_HW[strength_HW > floor]
    if not above.size or (level := float(np.quantile(above, 0.9))) < max(FAINTEST, 2 * floor):
        return None
    mask_HW = strength_HW > max(floor, 0.4 * level)
    cells_HW = _largest_drawing(mask_HW)
    if cells_HW is None:
        return None
    kept_HW = mask_HW & cells_HW
    rows, columns = np.flatnonzero(kept_HW.any(1)), np.flatnonzero(kept_HW.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    faded = (strength_HW - floor) / max(level - floor, 1.0)
    shape = (
        round(len(range(*box[1].indices(10**9))) * scale),
        round(len(range(*box[0].indices(10**9))) * scale),
    )
    return Drawing(np.where(cells_HW, np.clip(faded, 0, 1), 0)[box], dark, shape)


def place_drawing(drawing: Drawing, shape: tuple[int, int], made: Statistics) -> Array:
    """Return an image of gray levels, uint8, with the drawing as the training images have theirs.

    Thin strokes are thickened until they cover as much as the training images' thinnest do.

    Args:
        drawing: What was cut out.
        shape: Height and width of the image.
        made: Of the training images.
    """
    strength_HW = drawing.strength_HW
    radius = max(1, round(max(strength_HW.shape) / max(shape) / 2))
    placed_HW = _placed(strength_HW, shape, made)
    for _ in range(3):
        if float((placed_HW > 0.25).mean()) >= made.cover[0]:
            break
        strength_HW = dilate(np.pad(strength_HW, radius), radius)
        placed_HW = _placed(strength_HW, shape, made)
    difference = made.foreground - made.background
    return np.round(made.background + placed_HW * difference).clip(0, 255).astype(np.uint8)


def dilate(values_HW: Array, radius: int) -> Array:
    """Return the maximum over the square of 2 radius + 1 pixels around each pixel.

    The windows double, so it takes 1 ms where Pillow's MaxFilter takes 300.

    >>> dilate(np.array([[0, 0, 0, 9]]), 1).tolist()
    [[0, 0, 9, 9]]
    """
    for axis in (0, 1):
        window = np.pad(np.moveaxis(values_HW, axis, 0), ((radius, radius), (0, 0)))
        size, wanted = 1, 2 * radius + 1
        while size < wanted:
            step = min(size, wanted - size)
            window = np.maximum(window[:-step], window[step:])
            size += step
        values_HW = np.moveaxis(window, 0, axis)
    return values_HW


def _placed(strength_HW: Array, shape: tuple[int, int], made: Statistics) -> Array:
    """Scale a drawing to the training images' size and put its center where theirs is."""
    height, width = shape
    rows, columns = strength_HW.shape
    scale = made.long_side[1] / max(rows / height, columns / width)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    small = Image.fromarray(strength_HW.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    small_HW = np.asarray(small)
    small_HW = small_HW / max(float(small_HW.max()), 1e-6)
    total = max(float(small_HW.sum()), 1e-6)
    corner: list[int] = []
    for axis, length in ((0, height), (1, width)):
        line = small_HW.sum(1 - axis)
        mass = float((line * (np.arange(len(line)) + 0.5)).sum()) / total
        center = mass if made.by_mass[axis] else len(line) / 2
        wanted = round(made.center[axis] * length - center)
        corner.append(min(max(wanted, 0), max(length - len(line), 0)))
    placed_HW = np.zeros(shape, np.float32)
    target = placed_HW[corner[0] : corner[0] + size[1], corner[1] : corner[1] + size[0]]
    target[:] = small_HW[: target.shape[0], : target.shape[1]]
    return placed_HW


def _reduced(gray_HW: Array) -> tuple[Array, float]:
    """Return the page at a size that is quick to work on, and how many of its pixels are one."""
    scale = max(1.0, max(gray_HW.shape) / PAGE)
    if scale == 1:
        return gray_HW.astype(np.float32), scale
    size = max(1, round(gray_HW.shape[1] / scale)), max(1, round(gray_HW.shape[0] / scale))
    image = Image.fromarray(gray_HW).resize(size, Image.Resampling.BOX)
    return np.asarray(image, np.float32), scale


def _paper(page_HW: Array) -> Array:
    """Return the paper's brightness over the page: a quadratic surface, fitted without the ink."""
    height, width = page_HW.shape
    step = max(1, max(height, width) // COARSE)
    row = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    column = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    terms = [np.float32(1), row, column]
    if min(height, width) >= 16:
        terms += [row * row, row * column, column * column]
    values_P = page_HW[::step, ::step].ravel()
    grid = [np.broadcast_to(term, page_HW.shape)[::step, ::step].ravel() for term in terms]
    terms_TP = np.stack(grid)
    paper = float(np.median(values_P))
    kept_P = np.abs(values_P - paper) <= max(60.0, 2.0 * float(np.std(values_P)))
    weight = np.zeros(len(terms))
    for _ in range(5):
        if kept_P.sum() < 4 * len(terms):
            return np.full_like(page_HW, paper)
        weight = _least_squares(terms_TP[:, kept_P], values_P[kept_P])
        rest_P = np.abs(values_P - (weight[:, None] * terms_TP).sum(0))
        kept_P = rest_P <= max(6.0, 3 * 1.4826 * float(np.median(rest_P)))
    paper_HW = np.zeros_like(page_HW)
    for term, factor in zip(terms, weight.tolist(), strict=True):
        paper_HW += np.float32(factor) * term
    return paper_HW


def _least_squares(terms_TP: Array, values_P: Array) -> Array:
    """Return the terms' weights, from the normal equations: small products without BLAS.

    numpy's lstsq starts BLAS threads, which costs 20 ms for these few numbers on a busy machine.
    """
    square_TT = np.einsum("ip,jp->ij", terms_TP, terms_TP, dtype=np.float64)
    right_T = np.einsum("ip,p->i", terms_TP, values_P, dtype=np.float64)
    return np.linalg.solve(square_TT + 1e-6 * np.eye(len(square_TT)), right_T)


def _largest_drawing(mask_HW: Array) -> Array | None:
    """Return where the drawing is, in whole cells of a coarse grid; None if only dust is there.

    Strokes in neighboring cells belong together; so do others of a tenth of the largest's area.
    """
    height, width = mask_HW.shape
    cell = max(1, -(-max(height, width) // COARSE))
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((rows * cell, columns * cell), np.float32)
    padded[:height, :width] = mask_HW
    count = padded.reshape(rows, cell, columns, cell).sum((1, 3))
    parts = _parts(count)
    if not parts:
        return None
    areas = [sum(float(count[place]) for place in part) for part in parts]
    inside = [
        all(0 < row < rows - 1 and 0 < column < columns - 1 for row, column in part)
        for part in parts
    ]
    free = max((area for area, free in zip(areas, inside, strict=True) if free), default=0.0)
    dust = max(4.0, 0.1 * (free or max(areas)))
    kept = np.zeros((rows, columns), bool)
    for part, area, is_inside in zip(parts, areas, inside, strict=True):
        if area >= dust and (is_inside or free < 0.1 * max(areas) or not free):
            for place in part:
                kept[place] = True
    if not kept.any():
        return None
    grown = dilate(kept, 1)
    return np.kron(grown, np.ones((cell, cell), bool))[:height, :width]


def _parts(count: Array) -> list[list[tuple[int, int]]]:
    """Return the connected groups of cells that are not empty; diagonal neighbors connect."""
    waiting = {(int(row), int(column)) for row, column in np.argwhere(count > 0)}
    parts: list[list[tuple[int, int]]] = []
    while waiting:
        queue, part = deque([waiting.pop()]), list[tuple[int, int]]()
        while queue:
            row, column = queue.popleft()
            part.append((row, column))
            around = [(row + down, column + right) for down, right in NEIGHBORS]
            for place in around:
                if place in waiting:
                    waiting.remove(place)
                    queue.append(place)
        parts.append(part)
    return parts
