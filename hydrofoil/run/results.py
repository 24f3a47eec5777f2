"""What `test` found: test.json, the answers to each picture, and the pictures to show.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import torch
from pydantic import ValidationError

from hydrofoil.data.pictures import Pictures
from hydrofoil.errors import HydrofoilError
from hydrofoil.evaluate.result import TestResult, complaint
from hydrofoil.evaluate.score import Answers
from hydrofoil.files import npz, read_npz
from hydrofoil.run.commands import command
from hydrofoil.run.files import Files
from hydrofoil.run.manifest import cure

ANSWER_FIELDS = ("index_N", "labels_N", "logits_NK")


class Results:
    """What the test of one run found.

    Args:
        files: Of the run.
    """

    def __init__(self, files: Files) -> None:
        self.files, self.path = files, files.path

    def test(self) -> TestResult | None:
        """Return what `test` measured, or None if it has not been run.

        Raises:
            HydrofoilError: test.json was changed since.
        """
        path = self.path / "test.json"
        if not path.exists():
            return None
        try:
            return TestResult.model_validate_json(self.files.read("test.json"))
        except ValidationError as error:
            raise HydrofoilError(
                f"{path}: not a test result: {complaint(error)}.{cure(path)}"
            ) from error

    def save_test(self, result: TestResult) -> None:
        """Write test.json."""
        self.files.write_json("test.json", result.to_dict())

    def save_answers(self, **parts: Answers | None) -> None:
        """Write answers.npz: the best weights' answers to each part of the split."""
        arrays = {
            f"{part}_{field}": getattr(answers, field).numpy()
            for part, answers in parts.items()
            if answers is not None
            for field in ANSWER_FIELDS
        }
        self.files.write("answers.npz", npz(arrays))

    def answers(self) -> dict[str, Answers]:
        """Return the saved answers: "test", and "valid" where there is a validation split.

        Raises:
            HydrofoilError: The file has changed or is missing: the run is not tested.
        """
        path = self.path / "answers.npz"
        if not path.exists():
            raise HydrofoilError(
                f"{path}: missing, so the predictions of each image are unknown.\n"
                f"Write it with: {command('test', self.path)}"
            )
        arrays = read_npz(self.files.read(path.name))
        parts = sorted({name.partition("_")[0] for name in arrays})
        return {
            part: Answers(*(torch.from_numpy(arrays[f"{part}_{field}"]) for field in ANSWER_FIELDS))
            for part in parts
        }

    def save_shown(self, pictures: Pictures, index_N: torch.Tensor) -> None:
        """Write shown.npz: the indexed pictures."""
        shown_NCHW = pictures.pictures_NCHW[index_N].cpu().numpy()
        self.files.write(
            "shown.npz", npz({"index_N": index_N.numpy(), "pictures_NCHW": shown_NCHW})
        )

    def shown(self) -> dict[int, torch.Tensor]:
        """Return the saved example pictures, uint8 picture_CHW by its number.

        Raises:
            HydrofoilError: The file has changed since it was written.
        """
        path = self.path / "shown.npz"
        if not path.exists():
            return {}
        arrays = read_npz(self.files.read(path.name))
        pictures_NCHW = torch.from_numpy(arrays["pictures_NCHW"])
        return dict(zip(arrays["index_N"].tolist(), pictures_NCHW, strict=True))
