"""The figures of a tested run.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence

from hydrofoil.data.pictures import Pictures
from hydrofoil.evaluate.result import Example, TestResult
from hydrofoil.report import figures
from hydrofoil.report.sheet import CORRECT, MISCLASSIFIED


def figure_names(test: TestResult) -> list[str]:
    """Return the names of the figures that a test saves, in the order of `result_figures`."""
    mistakes = ["mistakes"] if test.examples.most_confident_mistakes else []
    return ["predictions", *mistakes, "confusion"]


def result_figures(pictures: Pictures, test: TestResult) -> dict[str, bytes]:
    """Return a test's figures by name: predictions, worst mistakes if any, confusion matrix.

    Args:
        pictures: The set.
        test: What `test` measured.
    """
    heading = "random test images: predicted (true class)"
    drawn = {"predictions": _grid(pictures, test.examples.random, heading)}
    if mistakes := test.examples.most_confident_mistakes:
        heading = "most confident mistakes: predicted (true class), with probability"
        drawn["mistakes"] = _grid(pictures, mistakes, heading, probability=True)
    accuracy = f"accuracy {100 * test.accuracy:.2f}% on {test.count:,} test images"
    drawn["confusion"] = figures.confusion_matrix(test.confusion, pictures.classes, accuracy)
    return drawn


def _grid(
    pictures: Pictures, examples: Sequence[Example], heading: str, *, probability: bool = False
) -> bytes:
    """Draw examples, titled predicted (true class), correct ones green and the others red."""
    titles: list[str] = []
    colors: list[str] = []
    for one in examples:
        percent = f" {100 * one.probability:.0f}%" if probability else ""
        titles.append(f"{one.predicted} ({one.label}){percent}")
        colors.append(CORRECT if one.correct else MISCLASSIFIED)
    shown_NCHW = pictures.pictures_NCHW[[one.index for one in examples]].cpu()
    return figures.picture_grid(shown_NCHW, titles, colors, heading)
