"""The figures of a tested run.

Axes: N pictures, C channels, H rows, W columns.
"""

from typing import Any

import torch

from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.score import Answers
from hydrofoil.randomness import generator
from hydrofoil.report import draw

GRID = 20  # pictures on each grid, as the tutorials draw


def result_figures(
    pictures: Pictures, answers: Answers, test: dict[str, Any], seed: int
) -> dict[str, bytes]:
    """Return a test's figures by name: predictions, worst mistakes if any, confusion matrix.

    Args:
        pictures: The set.
        answers: Of its test split, on the CPU.
        test: The content of test.json.
        seed: Draws which pictures the first grid shows: not the best, not the worst.
    """
    drawn = torch.randperm(len(answers.index_N), generator=generator(seed, "grid"))[:GRID]
    figures = {
        "predictions": _grid(
            pictures, answers, drawn, "test pictures, drawn at random: predicted (truth)"
        )
    }
    worst = answers.worst_mistakes(GRID)
    if len(worst):
        figures["mistakes"] = _grid(
            pictures, answers, worst, "the worst mistakes: predicted (truth), surest first"
        )
    accuracy = f"{100 * test['accuracy']:.2f} % of {test['count']:,} test pictures right"
    figures["confusion"] = draw.confusion_matrix(test["confusion"], pictures.classes, accuracy)
    return figures


def _grid(pictures: Pictures, answers: Answers, positions: torch.Tensor, heading: str) -> bytes:
    predicted = answers.predicted_N[positions].tolist()
    truth = answers.labels_N[positions].tolist()
    return draw.picture_grid(
        pictures.pictures_NCHW[answers.index_N[positions]].cpu(),
        [
            f"{pictures.classes[p]} ({pictures.classes[t]})"
            for p, t in zip(predicted, truth, strict=True)
        ],
        [draw.RIGHT if p == t else draw.WRONG for p, t in zip(predicted, truth, strict=True)],
        heading,
    )
