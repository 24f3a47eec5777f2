"""The figures of a tested run.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence

from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.result import Example, TestResult
from hydrofoil.report import figures
from hydrofoil.report.sheet import CORRECT, MISCLASSIFIED
from hydrofoil.wording import percent


def figure_names(test: TestResult) -> list[str]:
    """Return the names of a test's figures, in the order of `result_figures`."""
    mistakes = ["mistakes"] if test.examples.most_confident_mistakes else []
    return ["predictions", *mistakes, "confusion"]


def result_figures(pictures: Pictures, test: TestResult) -> dict[str, bytes]:
    """Return a test's figures by name: predictions, most confident mistakes, confusion matrix.

    Args:
        pictures: The dataset.
        test: The result.
    """
    heading = "random test images: predicted (true class)"
    drawn = {"predictions": _grid(pictures, test.examples.random, heading)}
    if mistakes := test.examples.most_confident_mistakes:
        heading = "most confident mistakes: predicted (true class), with probability"
        drawn["mistakes"] = _grid(pictures, mistakes, heading, probability=True)
    accuracy = f"accuracy {percent(test.accuracy)} on {test.count:,} test images"
    drawn["confusion"] = figures.confusion_matrix(test.confusion, pictures.classes, accuracy)
    return drawn


def _grid(
    pictures: Pictures, examples: Sequence[Example], heading: str, *, probability: bool = False
) -> bytes:
    """Draw examples, titled predicted (true class), correct ones green and the others red."""
    titles: list[str] = []
    colors: list[str] = []
    for example in examples:
        confidence = f" {percent(example.probability, 0)}" if probability else ""
        titles.append(f"{example.predicted} ({example.label}){confidence}")
        colors.append(CORRECT if example.correct else MISCLASSIFIED)
    shown_NCHW = pictures.pictures_NCHW[[example.index for example in examples]].cpu()
    return figures.picture_grid(shown_NCHW, titles, colors, heading)
