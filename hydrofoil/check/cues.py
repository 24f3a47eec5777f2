"""What a label might be predicted from without looking at the subject of an image.

Axes: N images, C channels, H rows, W columns, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from hydrofoil.data.facts import Facts
from hydrofoil.data.pictures import Pictures

PAUSE = 6 * 3600  # seconds without a new file, after which another session begins
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Cue:
    """One thing to predict labels from.

    Args:
        name: In a sentence: "file type alone predicts …".
        features_NF: Numbers; NaN: unknown.
        shown: Its value for an image, by position in the sample.
        advice: What to do where it predicts the labels.
        trusted: It says nothing of the subject, so that predicting labels from it is serious.
        pixels: It is in the pixels that a network sees, and may belong to the subject.
    """

    name: str
    features_NF: Array
    shown: Callable[[int], str]
    advice: str
    trusted: bool = False
    pixels: bool = False


def find_cues(pictures: Pictures, facts: Facts | None, sample_N: Array) -> list[Cue]:
    """Return the cues of a sample of images; those with one value for all are left out.

    Args:
        pictures: The images.
        facts: What is known of their files.
        sample_N: Indices of the images in the sample.
    """
    pictures_NCHW = pictures.pictures_NCHW[torch.from_numpy(sample_N)].cpu().numpy()
    cues: list[Cue | None] = [_border(pictures_NCHW), _mean_color(pictures_NCHW)]
    if facts is not None:
        width_N, height_N = facts.column("width")[sample_N], facts.column("height")[sample_N]
        bytes_N = facts.column("bytes")[sample_N]
        cues = [
            _file_type(facts, sample_N),
            _image_size(width_N, height_N),
            _time(facts.column("time")[sample_N]),
            _quality(facts.column("quality")[sample_N]),
            _bytes(bytes_N),
            *cues,
        ]
    return [cue for cue in cues if cue is not None and _varies(cue.features_NF)]


def _varies(features_NF: Array) -> bool:
    same_NF = (features_NF == features_NF[:1]) | (np.isnan(features_NF) & np.isnan(features_NF[:1]))
    return not bool(same_NF.all())


def _file_type(facts: Facts, sample_N: Array) -> Cue:
    """Return format and ending, a column for each pair that occurs."""
    pairs = [(facts.formats[at], facts.endings[at]) for at in sample_N]
    known = sorted(set(pairs))
    features_NF = np.array([[pair == one for one in known] for pair in pairs], np.float64)
    return Cue(
        "file type",
        features_NF,
        lambda at: f"{pairs[at][0]} {pairs[at][1]}".strip(),
        "Save all images in one format and quality: a network sees the traces of compression.",
        trusted=True,
    )


def _image_size(width_N: Array, height_N: Array) -> Cue:
    return Cue(
        "image size",
        np.stack([width_N, height_N, width_N / height_N], 1),
        lambda at: f"{width_N[at]:,.0f}×{height_N[at]:,.0f}",
        "Resizing leaves traces: blur where images were small, other shapes where they were cut. "
        "Collect the images of all classes in the same way.",
        trusted=True,
    )


def _time(time_N: Array) -> Cue:
    """Return the session in which each file was last changed: without a pause of six hours.

    Files that were copied or unpacked in one go were so class by class, which means nothing: they
    are one session.
    """
    order_N = np.argsort(time_N, kind="stable")
    pauses_N = np.diff(time_N[order_N]) > PAUSE  # never where a time is unknown
    session_N = np.empty(len(time_N))
    session_N[order_N] = np.concatenate([[0], np.cumsum(pauses_N)])
    session_N[np.isnan(time_N)] = np.nan

    def shown(at: int) -> str:
        if np.isnan(time_N[at]):
            return "unknown"
        try:
            return f"{datetime.fromtimestamp(float(time_N[at]), UTC):%Y-%m-%d}"
        except (ValueError, OverflowError, OSError):
            return "no date"

    return Cue(
        "time stamp",
        session_N[:, None],
        shown,
        "If the classes were photographed at different times, light, place or camera may differ as "
        "well. If the files were only copied at different times, it means nothing.",
        trusted=True,
    )


def _bytes(bytes_N: Array) -> Cue:
    return Cue(
        "file size",
        np.log(np.maximum(bytes_N, 1))[:, None],
        lambda at: f"{bytes_N[at]:,.0f} bytes",
        "It depends on the subject too: detailed images take more bytes.",
    )


def _quality(quality_N: Array) -> Cue | None:
    """Return the quality of JPEGs; None: they all have the same one, or there are none."""
    if len(np.unique(quality_N[np.isfinite(quality_N)])) < 2:
        return None
    return Cue(
        "JPEG quality",
        quality_N[:, None],
        lambda at: "no JPEG" if np.isnan(quality_N[at]) else f"JPEG quality {quality_N[at]:.0f}",
        "Save all images in one format and quality: a network sees the traces of compression.",
        trusted=True,
    )


def _border(pictures_NCHW: Array) -> Cue:
    """Return mean and spread of the outermost pixels of each side, of each channel."""
    sides = [pictures_NCHW[:, :, 0], pictures_NCHW[:, :, -1]]
    sides += [pictures_NCHW[..., 0], pictures_NCHW[..., -1]]
    columns = [side.mean(2, dtype=np.float64) for side in sides]
    columns += [side.std(2, dtype=np.float64) for side in sides]
    mean_N4 = np.stack([side.mean((1, 2), dtype=np.float64) for side in sides], 1)
    return Cue(
        "border",
        np.concatenate(columns, 1),
        lambda at: f"border brightness {mean_N4[at].mean():.0f}",
        "Look for frames, captions, backgrounds or cameras that only one class has, and crop them "
        "away.",
        pixels=True,
    )


def _mean_color(pictures_NCHW: Array) -> Cue:
    color_NC = pictures_NCHW.mean((2, 3), dtype=np.float64)
    return Cue(
        "mean color",
        color_NC,
        lambda at: _as_color(color_NC[at]),
        "Color may belong to the classes. If it does not, look for other light or backgrounds.",
        pixels=True,
    )


def _as_color(color_C: Sequence[float] | Array) -> str:
    if len(color_C) == 1:
        return f"mean brightness {color_C[0]:.0f}"
    return f"mean color {', '.join(f'{value:.0f}' for value in color_C)}"
