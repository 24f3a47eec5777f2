"""Explanations as PNG files: heat over an image, filters, feature maps, all on one sheet.

Axes: N pictures or filters, C channels, M feature maps, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from PIL import Image
from torch import Tensor

from hydrofoil.evaluate.explain import FeatureMaps, Filters, GradCam, Occlusion
from hydrofoil.report.sheet import (
    GAP,
    INFERNO,
    LARGE,
    PUOR,
    SMALL,
    SUBDUED,
    TEXT,
    Sheet,
    as_image,
    colored,
    png,
    scale_of,
    text_width,
)  # fmt: skip
from hydrofoil.wording import percent, points

HEAT = 0.65  # the share of color in an overlay; the rest is the image


def heat_overlay(
    picture_CHW: Tensor, heat_HW: Tensor, *, signed: bool = False, scale: int = 1
) -> bytes:
    """Draw heat over an image, without a frame or labels: from dark (none) to bright (most).

    Args:
        picture_CHW: uint8; drawn in gray, so that color shows the heat only.
        heat_HW: From 0 to 1; signed: from -1 to 1, purple to orange, white for zero.
        signed: Whether heat may be negative.
        scale: Each pixel becomes a square of scale × scale.
    """
    image = _overlay(picture_CHW, heat_HW, signed=signed)
    return png(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST))


def _overlay(picture_CHW: Tensor, heat_HW: Tensor, *, signed: bool) -> Image.Image:
    """Blend the gray image with the heat's colors; a signed map is white at zero, so light gray."""
    gray = as_image(picture_CHW).convert("L")
    if signed:
        gray = gray.point([128 + value // 2 for value in range(256)])
    colors, low = (PUOR, -1) if signed else (INFERNO, 0)
    return Image.blend(gray.convert("RGB"), colored(heat_HW.cpu().numpy(), colors, low), HEAT)


def _normed(values: Tensor) -> Tensor:
    """Divide by the largest magnitude."""
    return values / (float(values.abs().max()) or 1)


def filters(found: Filters, heading: str = "", most: int = 64) -> bytes:
    """Draw a first layer's filters: gray for zero, brighter above it, darker below.

    Filters of three channels are in color; others get one gray image per channel.

    Args:
        found: The filters.
        heading: At the top; the scale is below the filters.
        most: How many are shown at most, by largest norm.
    """
    chosen = found.strongest(most)
    shown_NCHW = found.filters_NCHW[chosen].cpu()
    if shown_NCHW.shape[1] != 3:
        shown_NCHW = shown_NCHW.flatten(0, 1)[:, None]
    images = [as_image(((filter_CHW + 1) * 127.5).round().byte()) for filter_CHW in shown_NCHW]
    count = len(found.filters_NCHW)
    which = f"the {len(chosen)} strongest of {count}" if len(chosen) < count else f"all {count}"
    legend = (
        f"{found.layer}: {which}; black -{found.largest:.3g}, gray 0, white {found.largest:.3g}"
    )
    scale = scale_of(shown_NCHW.shape, 64)
    right, down = (side * scale + GAP // 2 for side in (images[0].width, images[0].height))
    columns = min(16, len(images))
    if len(images) > columns:  # rows of equal length where that is nearly as wide
        columns = ceil(len(images) / ceil(len(images) / columns))
    rows = ceil(len(images) / columns)
    width = max(right * columns - GAP // 2, text_width([legend], TEXT))
    sheet = Sheet((width, down * rows + GAP // 2 + TEXT), heading)
    left = (width - (right * columns - GAP // 2)) // 2
    for number, image in enumerate(images):
        sheet.show(image, left + number % columns * right, number // columns * down, scale)
    sheet.write(legend, width / 2, down * rows + GAP // 2, TEXT, anchor="ma")
    return sheet.png()


def feature_maps(layers: Sequence[FeatureMaps], heading: str = "", most: int = 12) -> bytes:
    """Draw an image's activations, one row per layer: orange above zero, purple below, white zero.

    Args:
        layers: From `evaluate.explain.feature_maps`, at least one.
        heading: At the top.
        most: Maps per row at most, by largest mean magnitude. Normalization, activation and
            pooling keep the maps of the layer before, so that a column follows one map.
    """
    rows = _MapRows(layers, most)
    sheet = Sheet(rows.size, heading)
    rows.show(sheet, 0)
    return sheet.png()


class _MapRows:
    """Rows of feature maps, each after its layer's name and scale, with a legend below.

    Args:
        layers: At least one.
        most: Maps per row.
    """

    LEGEND = "orange above zero, purple below, white zero; each layer scaled by its largest value"

    def __init__(self, layers: Sequence[FeatureMaps], most: int) -> None:
        self.layers, self.most = layers, most
        self.scales = [scale_of(layer.maps_MHW.shape, 60) for layer in layers]
        names = text_width((layer.layer for layer in layers), TEXT)
        details = (line for layer in layers for line in self._details(layer))
        self.left = max(names, text_width(details, SMALL)) + GAP
        shapes = [layer.maps_MHW.shape for layer in layers]
        sides = [
            (H * scale, W * scale) for (_, H, W), scale in zip(shapes, self.scales, strict=True)
        ]
        self.heights = [max(height, TEXT + 2 * (SMALL + 5)) for height, _ in sides]
        self.column = max(width for _, width in sides) + GAP // 2
        columns = max(min(shape[0], most) for shape in shapes)
        widest = max(columns * self.column - GAP // 2, text_width([self.LEGEND], TEXT))
        self.size = (self.left + widest, sum(self.heights) + GAP * len(layers) + TEXT)

    def _details(self, layer: FeatureMaps) -> tuple[str, str]:
        """Return how many maps a row shows, and the value of the full colors."""
        M, height, width = layer.maps_MHW.shape
        count = f"{self.most} of {M}" if self.most < M else str(M)
        below = "0 to " if bool((layer.maps_MHW >= 0).all()) else "to ±"
        top = f"{below}{float(layer.maps_MHW.abs().max()):.3g}"
        return f"{count} maps of {height}×{width}", top

    def _chosen(self) -> list[Tensor]:
        """Return the maps of each row: the same through normalization, activation and pooling."""
        chosen = [self.layers[-1].strongest(self.most)]
        for layer, following in reversed(list(pairwise(self.layers))):
            chosen.append(layer.strongest(self.most) if following.new else chosen[-1])
        return chosen[::-1]

    def show(self, sheet: Sheet, top: int) -> None:
        rows = zip(self.layers, self._chosen(), self.scales, self.heights, strict=True)
        for layer, chosen, scale, high in rows:
            sheet.write(layer.layer, self.left - GAP, top, TEXT, anchor="ra")
            for number, line in enumerate(self._details(layer)):
                y = top + TEXT + 5 + number * (SMALL + 5)
                sheet.write(line, self.left - GAP, y, SMALL, anchor="ra", ink=SUBDUED)
            for column, map_HW in enumerate(_normed(layer.maps_MHW)[chosen].cpu()):
                image = colored(map_HW.numpy(), PUOR, -1)
                spare = self.column - GAP // 2 - image.width * scale, high - image.height * scale
                x = self.left + column * self.column + spare[0] // 2
                sheet.show(image, x, top + spare[1] // 2, scale)
            top += high + GAP
        sheet.write(self.LEGEND, self.left, top, TEXT, anchor="la", ink=SUBDUED)


@dataclass(frozen=True)
class _Panel:
    """An image with two lines above it and a color bar below.

    Args:
        image: One pixel per pixel of the picture.
        lines: Title and subtitle.
        colors: Of the bar; empty: no bar.
        marks: Labels of the bar's left end, middle and right end.
        frame: First and last row and column of a frame.
    """

    image: Image.Image
    lines: tuple[str, str]
    colors: Sequence[str] = ()
    marks: tuple[str, str, str] = ("", "", "")
    frame: tuple[tuple[int, int], tuple[int, int]] | None = None

    def width(self, scale: int) -> int:
        """Return the width, including the lines and the bar's labels."""
        title, below = self.lines
        return max(
            self.image.width * scale,
            text_width([title], LARGE),
            text_width([below], TEXT),
            text_width(["   ".join(self.marks)], SMALL),
        )

    def show(self, sheet: Sheet, left: int, scale: int) -> None:
        wide, high = self.image.width * scale, self.image.height * scale
        middle, top = left + self.width(scale) // 2, PANEL_ABOVE
        sheet.write(self.lines[0], middle, 0, LARGE, anchor="ma")
        sheet.write(self.lines[1], middle, LARGE + 5, TEXT, anchor="ma", ink=SUBDUED)
        x = middle - wide // 2
        sheet.show(self.image, x, top, scale)
        if self.frame:
            (first, last), (west, east) = self.frame
            box = [sheet.left + x + west * scale, sheet.top + top + first * scale]
            box += [sheet.left + x + (east + 1) * scale, sheet.top + top + (last + 1) * scale]
            for inset, ink in ((0, "black"), (1, "black"), (2, "white")):
                corners = (box[0] + inset, box[1] + inset, box[2] - 1 - inset, box[3] - 1 - inset)
                sheet.pen.rectangle(corners, outline=ink)
        if self.colors:
            bar = self.width(scale)
            low = -1 if self.colors is PUOR else 0
            values = np.linspace(low, 1, bar)[None].repeat(8, axis=0)
            sheet.show(colored(values, self.colors, low), left, top + high + GAP // 2, 1)
            y = top + high + GAP // 2 + 8 + 4
            for mark, at, anchor in zip(
                self.marks, (0, bar / 2, bar), ("la", "ma", "ra"), strict=True
            ):
                sheet.write(mark, left + at, y, SMALL, anchor=anchor)


PANEL_ABOVE, PANEL_BELOW = LARGE + TEXT + 14, GAP // 2 + 8 + 4 + SMALL + 4


def explanation(
    picture_CHW: Tensor,
    answer: str,
    class_name: str,
    cam: GradCam | None,
    hidden: Occlusion,
    layers: Sequence[FeatureMaps],
    heading: str = "",
) -> bytes:
    """Draw an image, Grad-CAM and occlusion for a class side by side, and the feature maps below.

    Args:
        picture_CHW: uint8.
        answer: The most probable classes in a line, below the title.
        class_name: The class that is explained.
        cam: Its first map is shown; None for a network without convolutions.
        hidden: The most important patch is framed.
        layers: Empty: no maps.
        heading: At the top.
    """
    panels = [_Panel(as_image(picture_CHW).convert("RGB"), ("image", answer))]
    if cam is not None:
        height, width = cam.coarse_NHW.shape[1:]
        heat = _overlay(picture_CHW, cam.heat_NHW[0], signed=False)
        found = f"{height}×{width}" if bool(cam.heat_NHW[0].any()) else "no positive evidence"
        lines = (f"Grad-CAM for {class_name}", f"layer {cam.layer}: {found}")
        panels.append(_Panel(heat, lines, INFERNO, ("no heat", "", "most heat")))
    largest = max(float(hidden.drops_HW.abs().max()), 0.01)  # changes under a point stay pale
    drop = _overlay(picture_CHW, hidden.drops_HW / largest, signed=True)
    lines = (
        f"occlusion for {class_name}",
        f"frame covered: {percent(hidden.before, 1)} → {percent(hidden.after, 1)}",
    )
    most = points(largest, 0)
    marks = (f"probability rises {most}", "", f"falls {most}")
    panels.append(_Panel(drop, lines, PUOR, marks, (hidden.rows, hidden.columns)))
    scale = scale_of(picture_CHW.shape, 288)
    widths = [panel.width(scale) for panel in panels]
    wide = sum(widths) + 2 * GAP * (len(panels) - 1)
    high = PANEL_ABOVE + picture_CHW.shape[1] * scale + PANEL_BELOW
    rows = _MapRows(layers, 12) if layers else None
    body = (max(wide, rows.size[0]), high + GAP + rows.size[1]) if rows else (wide, high)
    sheet = Sheet(body, heading)
    left = (body[0] - wide) // 2
    for panel, width in zip(panels, widths, strict=True):
        panel.show(sheet, left, scale)
        left += width + 2 * GAP
    if rows:
        rows.show(sheet, high + GAP)
    return sheet.png()
