"""What `test` found: test.json, the answers to each picture, and the pictures to show.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.score import Answers
from hydrofoil.files import npz, read_npz
from hydrofoil.run.commands import command
from hydrofoil.run.manifest import Files, read_checked

ANSWER_FIELDS = ("index_N", "labels_N", "logits_NK")


class Results:
    """What the test of one run found.

    Args:
        files: Of the run.
    """

    def __init__(self, files: Files) -> None:
        self.files, self.path = files, files.path

    def test(self) -> dict[str, Any] | None:
        """Return what `test` found, or None if it has not been run."""
        return self.files.read_json("test.json") if (self.path / "test.json").exists() else None

    def save_answers(self, **parts: Answers | None) -> None:
        """Write answers.npz: what the kept weights answered to each part of the split."""
        arrays = {
            f"{part}_{field}": getattr(answers, field).numpy()
            for part, answers in parts.items()
            if answers is not None
            for field in ANSWER_FIELDS
        }
        self.files.write("answers.npz", npz(arrays))

    def answers(self) -> dict[str, Answers]:
        """Return what `test` kept: "test", and "valid" where there is a validation split.

        Raises:
            HydrofoilError: The file is broken, or it was not written: the run is not tested, or was
                by an older hydrofoil.
        """
        path = self.path / "answers.npz"
        if not path.exists():
            raise HydrofoilError(
                f"{path}: missing: the answers to each picture are not known.\n"
                f"Write them with: {command('test', self.path)}"
            )
        arrays = _read_npz(path)
        parts = {name.partition("_")[0] for name in arrays}
        try:
            return {
                part: Answers(
                    *(torch.from_numpy(arrays[f"{part}_{field}"]) for field in ANSWER_FIELDS)
                )
                for part in sorted(parts)
            }
        except (KeyError, TypeError) as error:
            raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error

    def save_shown(self, pictures: Pictures, index_N: torch.Tensor) -> None:
        """Write shown.npz: the indexed pictures."""
        shown_NCHW = pictures.pictures_NCHW[index_N].cpu().numpy()
        self.files.write(
            "shown.npz", npz({"index_N": index_N.numpy(), "pictures_NCHW": shown_NCHW})
        )

    def shown(self) -> dict[int, torch.Tensor]:
        """Return the pictures that were kept to be shown, uint8 picture_CHW by its number.

        Raises:
            HydrofoilError: The file is broken.
        """
        path = self.path / "shown.npz"
        if not path.exists():
            return {}
        arrays = _read_npz(path)
        try:
            pictures_NCHW = torch.from_numpy(arrays["pictures_NCHW"])
            shape = pictures_NCHW.shape[1:]
            if pictures_NCHW.dtype != torch.uint8 or len(shape) != 3 or 0 in shape:
                raise TypeError("pictures are uint8 N×C×H×W")
            return dict(zip(arrays["index_N"].tolist(), pictures_NCHW, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    content = read_checked(path.parent, path.name)
    try:
        return read_npz(content)
    except (TypeError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise HydrofoilError(f"{path}: broken: not what hydrofoil wrote.") from error
