"""Predictions as files: a table for spreadsheets, the network's input as an image.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from hydrofoil.evaluate.score import Answers
from hydrofoil.files import not_written
from hydrofoil.ship.predict import Answer

COLUMNS = ("image", "prediction", "probability", "novelty", "notes", "error")
TEST_COLUMNS = ("index", "label", "prediction", "probability", "correct")


class PredictionTable:
    """A CSV file that grows by a row for each answer; what is written stays after Ctrl-C.

    Args:
        path: Where; a file there is replaced.

    Raises:
        HydrofoilError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Names of files may hold bytes that are not UTF-8.
            self.file = path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise not_written(path, error) from error
        self.rows = csv.writer(self.file)
        self._write(COLUMNS)

    def add(self, answer: Answer) -> None:
        """Write an answer's row; the prediction is empty for 'none of these' and for an error."""
        found = answer.prediction
        if found is None:
            self._write([answer.name, "", "", "", "", str(answer.error).replace("\n", " ")])
            return
        novelty = "" if found.novelty is None else f"{found.novelty:.4f}"
        probability = f"{found.probability:.6f}"
        notes = "; ".join(found.notes)
        self._write([answer.name, found.label or "", probability, novelty, notes, ""])

    def close(self) -> None:
        """Write what is still in memory."""
        try:
            self.file.close()
        except OSError as error:
            raise not_written(self.path, error) from error

    def _write(self, row: Sequence[object]) -> None:
        try:
            self.rows.writerow(row)
        except OSError as error:
            raise not_written(self.path, error) from error


def answers_csv(answers: Answers, classes: Sequence[str]) -> bytes:
    """Return a test's answers as CSV: a row for each image, by its index in the dataset."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(TEST_COLUMNS)
    columns = answers.index_N, answers.labels_N, answers.predicted_N, answers.confidences_N
    for index, label, predicted, probability in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        correct = str(label == predicted).lower()
        row = index, classes[label], classes[predicted], f"{probability:.6f}", correct
        rows.writerow(row)
    return text.getvalue().encode()


def png_of(picture_CHW: Tensor) -> bytes:
    """Return an image as a PNG of exactly its pixels."""
    pixels_HWC = picture_CHW.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC).save(
        file, "PNG"
    )
    return file.getvalue()
