"""The figures of a tested run.

Axes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Mapping
from typing import Any

from hydrofoil.data.pictures import Pictures
from hydrofoil.report import figures
from hydrofoil.report.sheet import CORRECT, MISCLASSIFIED


def figure_names(test: Mapping[str, Any]) -> list[str]:
    """Return the names of the figures that a test saves, in the order of `result_figures`."""
    mistakes = ["mistakes"] if test["pictures"]["surest_wrong"] else []
    return ["predictions", *mistakes, "confusion"]


def result_figures(pictures: Pictures, test: dict[str, Any]) -> dict[str, bytes]:
    """Return a test's figures by name: predictions, worst mistakes if any, confusion matrix.

    Args:
        pictures: The set.
        test: The content of test.json.
    """
    shown = test["pictures"]
    drawn = {
        "predictions": _grid(
            pictures, shown["drawn"], "test pictures, drawn at random: predicted (truth)"
        )
    }
    if shown["surest_wrong"]:
        drawn["mistakes"] = _grid(
            pictures,
            shown["surest_wrong"],
            "the worst mistakes: predicted (truth), and how sure",
            sure=True,
        )
    accuracy = f"{100 * test['accuracy']:.2f} % of {test['count']:,} test pictures right"
    drawn["confusion"] = figures.confusion_matrix(test["confusion"], pictures.classes, accuracy)
    return drawn


def _grid(
    pictures: Pictures, shown: list[dict[str, Any]], heading: str, *, sure: bool = False
) -> bytes:
    """Draw answers, titled predicted (truth), the right ones green and the others red."""
    titles: list[str] = []
    colors: list[str] = []
    for one in shown:
        how_sure = f" {100 * one['probability']:.0f} %" if sure else ""
        titles.append(f"{one['predicted']} ({one['class']}){how_sure}")
        colors.append(CORRECT if one["predicted"] == one["class"] else MISCLASSIFIED)
    shown_NCHW = pictures.pictures_NCHW[[one["index"] for one in shown]].cpu()
    return figures.picture_grid(shown_NCHW, titles, colors, heading)
