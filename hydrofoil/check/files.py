"""Damaged, mislabeled, blank and oddly shaped images.

All limits are relative to the set: what every image of it has in common is never a finding.

Axes: N images, C channels, H rows, W columns, P pixels of an image.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.data.facts import Facts
from hydrofoil.data.pictures import Pictures
from hydrofoil.wording import plural

CHUNK = 4096  # images measured at once
FLAT = 8  # gray levels within which an image is blank
FLAT_SHARE = 0.1  # and no more than this share of the usual range
FAINT = 0.12  # of the set's median contrast: nearly blank; CIFAR-10's faintest image has 0.16
FACTOR = 3.0  # how many times longer, or smaller by side, than the set's median is extreme
FENCE = 3.0  # interquartile ranges beyond the quartiles (Tukey's outer fence)
# The formats that files with these endings hold; .heif may hold several.
NAMED = {
    ".png": "PNG", ".apng": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG",
    ".jfif": "JPEG", ".webp": "WebP", ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF", ".pbm": "PPM", ".pgm": "PPM", ".ppm": "PPM", ".pnm": "PPM", ".pfm": "PPM",
    ".avif": "AVIF", ".heic": "HEIC", ".jp2": "JPEG 2000", ".j2k": "JPEG 2000",
    ".j2c": "JPEG 2000", ".jpx": "JPEG 2000", ".jpf": "JPEG 2000", ".ico": "ICO", ".tga": "TGA",
}  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]


def check_files(pictures: Pictures, facts: Facts | None = None) -> list[Finding]:
    """Return what is wrong with single images and their files.

    Args:
        pictures: The images.
        facts: What is known of their files; None: pixels are looked at alone.
    """
    found = [_blank(pictures)]
    if facts is not None:
        shapes = _sizes(facts)
        found = [_unreadable(facts, len(pictures)), _truncated(facts), _mislabeled(facts), *found]
        found += [_aspect(shapes), _small(shapes), _animated(facts)]
    return [finding for finding in found if finding]


def _unreadable(facts: Facts, count: int) -> Finding | None:
    if not facts.unreadable:
        return None
    several = len(facts.unreadable) > 1
    return Finding(
        "unreadable",
        "warning",
        f"{len(facts.unreadable):,} of {plural(count + len(facts.unreadable), 'image file')} "
        "cannot be read",
        (
            f"{'They are' if several else 'It is'} left out of training, testing and this check.",
            f"Replace {'them' if several else 'it'} with a good copy, or remove "
            f"{'them' if several else 'it'}.",
        ),
        figures={"unreadable": [{"file": name, "reason": why} for name, why in facts.unreadable]},
    )


def _truncated(facts: Facts) -> Finding | None:
    damaged = [at for at, one in enumerate(facts.files) if one and one.damaged]
    if not damaged:
        return None
    return Finding(
        "truncated",
        "warning",
        f"{plural(len(damaged), 'image file')} {'lacks its' if len(damaged) == 1 else 'lack their'}"
        " end",
        (
            "All of their pixels can be decoded, so they are used; other programs may refuse them.",
            "A copy or a download was probably interrupted: copy them again.",
        ),
        _rows(damaged),
        {"images": len(damaged)},
    )


def _mislabeled(facts: Facts) -> Finding | None:
    """Return the images whose content is of another format than their ending says."""
    wrong = [
        at
        for at, (kind, ending) in enumerate(zip(facts.formats, facts.endings, strict=True))
        if kind and NAMED.get(ending, kind) != kind
    ]
    if not wrong:
        return None
    pairs = Counter((facts.endings[at], facts.formats[at]) for at in wrong)
    table = [
        {"ending": ending, "content": content, "images": count}
        for (ending, content), count in pairs.most_common()
    ]
    first = table[0]
    return Finding(
        "format",
        "warning",
        f"{plural(len(wrong), 'image file')} {'is' if len(wrong) == 1 else 'are'} of another "
        f"format than the ending says, such as {first['content']} in {first['ending']}",
        (
            "They are read by their content; other programs may refuse them.",
            "Rename them. If all of them are of one class, see also the shortcuts.",
        ),
        _rows(wrong, [f"{facts.formats[at]} content" for at in wrong]),
        {"formats": table},
    )


def _animated(facts: Facts) -> Finding | None:
    several = [at for at, one in enumerate(facts.files) if one and one.frames > 1]
    if not several:
        return None
    frames = facts.column("frames")
    return Finding(
        "animated",
        "note",
        f"{plural(len(several), 'file')} {'holds' if len(several) == 1 else 'hold'} several images",
        ("Only the first image of each is used, of an icon the largest.",),
        _rows(several, [plural(int(frames[at]), "image") for at in several]),
        {"images": len(several)},
    )


def contrast(pictures_NCHW: Tensor) -> tuple[Array, Array]:
    """Return the range and the standard deviation of each image, of its most varied channel.

    Args:
        pictures_NCHW: uint8.
    """
    ranges: list[Tensor] = []
    deviations: list[Tensor] = []
    for start in range(0, len(pictures_NCHW), CHUNK):
        pixels_NCP = pictures_NCHW[start : start + CHUNK].flatten(2).cpu()
        spread_NC = pixels_NCP.amax(2).int() - pixels_NCP.amin(2).int()
        ranges.append(spread_NC.amax(1))
        deviations.append(pixels_NCP.float().std(2, correction=0).amax(1))
    if not ranges:
        return np.zeros(0), np.zeros(0)
    return torch.cat(ranges).numpy(), torch.cat(deviations).numpy()


def _blank(pictures: Pictures) -> Finding | None:
    """Return the images of one color, and those with hardly any contrast.

    Blank: all values within 8 levels and within 10% of the median range of the set. Nearly blank:
    a standard deviation below 12% of the set's median.
    """
    range_N, deviation_N = contrast(pictures.pictures_NCHW)
    if not len(range_N):
        return None
    blank_N = range_N <= min(FLAT, FLAT_SHARE * float(np.median(range_N)))
    faint_N = ~blank_N & (deviation_N < FAINT * float(np.median(deviation_N)))
    blank, faint = np.flatnonzero(blank_N).tolist(), np.flatnonzero(faint_N).tolist()
    if not blank and not faint:
        return None
    said = [f"{len(blank):,} blank"] if blank else []
    said += [f"{len(faint):,} nearly blank"] if faint else []
    total = len(blank) + len(faint)
    faint.sort(key=lambda at: float(deviation_N[at]))
    captions = ["blank"] * len(blank) + [f"contrast {deviation_N[at]:.1f}" for at in faint]
    return Finding(
        "blank",
        "warning",
        f"{' and '.join(said)} {'image' if total == 1 else 'images'}",
        (
            "They show nothing that a network could learn their class from.",
            "Leave them out, unless blank images belong to a class.",
        ),
        _rows([*blank, *faint], captions, exclude=True),
        {"blank": len(blank), "nearly_blank": len(faint)},
    )


def _sizes(facts: Facts) -> tuple[Array, Array]:
    return facts.column("width"), facts.column("height")


def _aspect(shapes: tuple[Array, Array]) -> Finding | None:
    """Return the images three times longer or flatter than the set's usual shape."""
    width_N, height_N = shapes
    ratio_N = np.log(width_N / height_N)
    odd = _outside(ratio_N, np.log(FACTOR))
    if not odd:
        return None
    middle = float(np.nanmedian(ratio_N))
    odd.sort(key=lambda at: -abs(float(ratio_N[at]) - middle))
    return Finding(
        "aspect",
        "warning",
        f"{plural(len(odd), 'image')} {'has' if len(odd) == 1 else 'have'} an extreme aspect ratio",
        (
            "Cropping keeps only a small part of such an image; stretching distorts it.",
            "Look at what is left of it here. data.fit=pad keeps all of it.",
        ),
        _rows(odd, _as_sizes(odd, shapes), exclude=True),
        {"images": len(odd), "median_ratio": float(np.exp(middle))},
    )


def _small(shapes: tuple[Array, Array]) -> Finding | None:
    """Return the images whose shorter side is far below the set's usual one."""
    side_N = np.log(np.minimum(*shapes))
    small = [at for at in _outside(side_N, np.log(FACTOR)) if side_N[at] < np.nanmedian(side_N)]
    if not small:
        return None
    small.sort(key=lambda at: float(side_N[at]))
    usual = round(float(np.exp(np.nanmedian(side_N))))
    return Finding(
        "small",
        "warning",
        f"{plural(len(small), 'image')} {'is' if len(small) == 1 else 'are'} far smaller than the "
        f"rest",
        (
            f"The median shorter side is {usual:,} pixels; these have less than a third of it.",
            "They may be thumbnails or icons that do not belong here.",
        ),
        _rows(small, _as_sizes(small, shapes), exclude=True),
        {"images": len(small), "median_shorter_side": usual},
    )


def _outside(values_N: Array, least: float) -> list[int]:
    """Return where values differ from the median by `least` and lie outside Tukey's fence.

    NaN stands for an unknown value.
    """
    known_N = values_N[np.isfinite(values_N)]
    if len(known_N) < 2:
        return []
    low, middle, high = np.quantile(known_N, [0.25, 0.5, 0.75])
    fence = FENCE * (high - low)
    far_N = np.abs(values_N - middle) >= least
    far_N &= (values_N < low - fence) | (values_N > high + fence)
    return np.flatnonzero(far_N).tolist()


def _as_sizes(images: Sequence[int], shapes: tuple[Array, Array]) -> list[str]:
    width_N, height_N = shapes
    return [f"{int(width_N[at]):,}×{int(height_N[at]):,}" for at in images]


def _rows(
    images: Sequence[int], captions: Sequence[str] = (), *, exclude: bool = False
) -> tuple[Row, ...]:
    """Return one row for each image."""
    return tuple(
        Row(
            (at,),
            (captions[place],) if captions else (),
            changes=(Change(at, "exclude"),) if exclude else (),
        )
        for place, at in enumerate(images)
    )
