"""Results of `test`: test.json, the logits of each image, and the images to show.

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

ANSWER_FIELDS = ("index_N", "labels_N", "logits_NK")


class Results:
    """The test results of one run.

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
        return self.files.parse("test.json", _test_result)

    def save_test(self, result: TestResult) -> None:
        """Write test.json."""
        self.files.write_json("test.json", result.to_dict())

    def save_answers(self, **parts: Answers | None) -> None:
        """Write answers.npz: the best weights' logits on each part of the split."""
        arrays = {
            f"{part}_{field}": getattr(answers, field).numpy()
            for part, answers in parts.items()
            if answers is not None
            for field in ANSWER_FIELDS
        }
        self.files.write("answers.npz", npz(arrays))

    def answers(self) -> dict[str, Answers]:
        """Return the saved logits: "test", and "valid" where there is a validation split.

        Raises:
            HydrofoilError: The file has changed or is missing: the run is not tested.
        """
        path = self.path / "answers.npz"
        if not path.exists():
            raise HydrofoilError(
                f"{path}: missing, so the predictions of each image are unknown.\n"
                f"Write it with: {command('test', self.path)}"
            )
        return self.files.parse(path.name, _answers)

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
        return self.files.parse(path.name, _shown)


def _test_result(content: bytes) -> TestResult:
    """Return the content of test.json, whose tables must fit each other."""
    try:
        result = TestResult.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(complaint(error)) from error
    lengths = {len(result.classes), len(result.confusion), *map(len, result.confusion)}
    if len(lengths) != 1:
        raise ValueError("classes and confusion have different lengths")
    return result


def _answers(content: bytes) -> dict[str, Answers]:
    """Return the content of answers.npz."""
    arrays = read_npz(content)
    found: dict[str, Answers] = {}
    for part in sorted({name.partition("_")[0] for name in arrays}):
        answers = Answers(*(torch.from_numpy(arrays[f"{part}_{field}"]) for field in ANSWER_FIELDS))
        images, classes = answers.logits_NK.shape
        columns = (answers.index_N, answers.labels_N)
        if any(column.dtype != torch.int64 or column.shape != (images,) for column in columns):
            raise ValueError(f"{part}: expected an index and a label for each image")
        if not ((answers.labels_N >= 0) & (answers.labels_N < classes)).all():
            raise ValueError(f"{part}: labels outside the classes")
        found[part] = answers
    return found


def _shown(content: bytes) -> dict[int, torch.Tensor]:
    """Return the content of shown.npz."""
    arrays = read_npz(content)
    pictures_NCHW = torch.from_numpy(arrays["pictures_NCHW"])
    if pictures_NCHW.dtype != torch.uint8 or pictures_NCHW.ndim != 4:
        raise ValueError("expected uint8 pictures, N×C×H×W")
    return dict(zip(arrays["index_N"].tolist(), pictures_NCHW, strict=True))
