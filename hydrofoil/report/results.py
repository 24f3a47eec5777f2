"""The figures of a tested run.

Axes: N pictures, C channels, H rows, W columns, K classes.
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
            pictures,
            answers,
            worst,
            "the worst mistakes: predicted (truth), and how sure",
            sure=True,
        )
    accuracy = f"{100 * test['accuracy']:.2f} % of {test['count']:,} test pictures right"
    figures["confusion"] = draw.confusion_matrix(test["confusion"], pictures.classes, accuracy)
    return figures


def _grid(
    pictures: Pictures,
    answers: Answers,
    positions: torch.Tensor,
    heading: str,
    *,
    sure: bool = False,
) -> bytes:
    """Draw answers, titled predicted (truth), the right ones green and the others red."""
    chosen = [tensor[positions].tolist() for tensor in (answers.predicted_N, answers.labels_N)]
    shares = answers.logits_NK[positions].softmax(1).amax(1).tolist()
    titles: list[str] = []
    colours: list[str] = []
    for predicted, truth, share in zip(*chosen, shares, strict=True):
        how_sure = f" {100 * share:.0f} %" if sure else ""
        titles.append(f"{pictures.classes[predicted]} ({pictures.classes[truth]}){how_sure}")
        colours.append(draw.RIGHT if predicted == truth else draw.WRONG)
    shown_NCHW = pictures.pictures_NCHW[answers.index_N[positions]].cpu()
    return draw.picture_grid(shown_NCHW, titles, colours, heading)
