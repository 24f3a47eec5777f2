"""What `test` writes: the one opening of the test split, counted."""

from typing import Any

from hydrofoil.data.sources import merges_published_test
from hydrofoil.evaluate.score import Answers
from hydrofoil.models.classifier import Classifier
from hydrofoil.recipe import Recipe

MERGED = (
    "the published test pictures are merged in and partly trained on: "
    "the test accuracy cannot be compared with anybody else's."
)


def test_report(
    answers: Answers, model: Classifier, recipe: Recipe, *, epoch: int, opened: int
) -> dict[str, Any]:
    """Return the content of test.json.

    Args:
        answers: Of the whole test split.
        model: That answered.
        recipe: Of the run.
        epoch: Whose weights answered.
        opened: How often this run's test split was opened, this time included.
    """
    metrics = answers.metrics()
    return {
        **metrics.as_dict(),
        "interval": list(metrics.interval),
        "expected_accuracy": recipe.expect.test_accuracy,
        "classes": [one.as_dict() for one in metrics.per_class(model.classes)],
        "confusion": [list(row) for row in metrics.confusion],
        "epoch": epoch,
        "weights": model.weights_hash(),
        "opened": opened,
        "warnings": [MERGED] if merges_published_test(recipe) else [],
    }
