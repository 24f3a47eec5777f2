"""What `test` writes: the one opening of the test split, counted, and every figure from its pass.

Axes: N pictures, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hydrofoil.data.source import find_source, merges_published_test, not_published
from hydrofoil.evaluate.calibration import fit_temperature, reliability
from hydrofoil.evaluate.metrics import ClassScores, Metrics, picture_losses, wilson
from hydrofoil.evaluate.score import Answers
from hydrofoil.models.classifier import Classifier
from hydrofoil.randomness import generator
from hydrofoil.recipe.schema import Recipe

MERGED = (
    "the published test pictures are merged in and partly trained on: "
    "the test accuracy cannot be compared with anybody else's."
)
SHOWN = 20  # pictures of each kind that are kept to be shown


def test_report(
    answers: Answers,
    valid: Answers | None,
    model: Classifier,
    recipe: Recipe,
    *,
    epoch: int,
    opened: int,
    differs: str,
) -> dict[str, Any]:
    """Return the content of test.json.

    Args:
        answers: To the whole test split, on the CPU.
        valid: To the validation split, which the temperature is fitted on; None: there is none.
        model: That answered.
        recipe: Of the run.
        epoch: Whose weights answered.
        opened: How often this run's test split was opened, this time included.
        differs: How the dataset differs from the published one of its name; empty: it does not.
    """
    metrics = answers.metrics()
    classes = metrics.per_class(model.classes)
    groups = find_source(recipe.data.source).groups
    return {
        **metrics.as_dict(),
        "interval": list(metrics.interval),
        "top_5": _top_5(metrics),
        "expected_accuracy": recipe.expect.test_accuracy,
        "classes": [one.as_dict() for one in classes],
        "groups": [_group(name, members, classes) for name, members in groups.items()],
        "averages": metrics.averages(),
        "confusion": [list(row) for row in metrics.confusion],
        "confused": [_confused(metrics, pair, classes) for pair in metrics.confused()],
        "calibration": _calibration(answers, valid),
        "pictures": {
            kind: _pictures(answers, positions, model.classes)
            for kind, positions in _shown(answers, recipe.train.seed).items()
        },
        "epoch": epoch,
        "weights": model.weights_hash(),
        "opened": opened,
        "warnings": data_warnings(recipe, differs),
    }


def data_warnings(recipe: Recipe, differs: str) -> list[str]:
    """Say why accuracies on a run's data cannot be compared with published ones, if they cannot."""
    data = recipe.data
    found = [MERGED] if merges_published_test(data.source, data.merge) else []
    return [*found, not_published(data.source, differs)] if differs else found


def shown_pictures(test: Mapping[str, Any]) -> Tensor:
    """Return the numbers of all pictures that test.json names, index_N in rising order."""
    numbers = {one["index"] for kind in test["pictures"].values() for one in kind}
    return torch.tensor(sorted(numbers))


def _top_5(metrics: Metrics) -> dict[str, Any] | None:
    if metrics.right_of_5 is None:
        return None
    return {
        "right": metrics.right_of_5,
        "accuracy": metrics.right_of_5 / metrics.count,
        "interval": list(wilson(metrics.right_of_5, metrics.count)),
    }


def _group(name: str, members: Sequence[str], classes: Sequence[ClassScores]) -> dict[str, Any]:
    """Return how many of a group's pictures were recognised, each as its own class."""
    inside = [one for one in classes if one.name in members]
    count, right = sum(one.count for one in inside), sum(one.right for one in inside)
    return {
        "group": name,
        "classes": [one.name for one in inside],
        "count": count,
        "right": right,
        "accuracy": right / count if count else None,
        "interval": list(wilson(right, count)),
    }


def _confused(
    metrics: Metrics, pair: tuple[int, int], classes: Sequence[ClassScores]
) -> dict[str, Any]:
    """Return how often two classes were taken for each other, of their pictures together."""
    first, second = pair
    return {
        "classes": [classes[first].name, classes[second].name],
        "first_as_second": metrics.confusion[first][second],
        "second_as_first": metrics.confusion[second][first],
        "count": metrics.mixed_up(first, second),
        "of": classes[first].count + classes[second].count,
    }


def _calibration(answers: Answers, valid: Answers | None) -> dict[str, Any]:
    """Return reliability as it is, and after a temperature that never saw the test split."""
    content = reliability(answers.logits_NK, answers.labels_N) | {"temperature": None}
    if valid is not None:
        value = fit_temperature(valid.logits_NK, valid.labels_N)
        cooled_NK = answers.logits_NK.double() / value
        after = reliability(cooled_NK, answers.labels_N)
        content["temperature"] = {
            "value": value,
            "fitted_on": len(valid.labels_N),
            "loss": picture_losses(cooled_NK, answers.labels_N).mean().item(),
            "confidence": after["confidence"],
            "width_error": after["width"]["error"],
            "mass_error": after["mass"]["error"],
        }
    return content


def _shown(answers: Answers, seed: int) -> Mapping[str, Tensor]:
    """Return positions of the pictures to show; the first kind is drawn, not chosen."""
    drawn = torch.randperm(len(answers.index_N), generator=generator(seed, "grid"))[:SHOWN]
    return {
        "drawn": drawn,
        "highest_loss": answers.highest_loss(SHOWN),
        "surest_wrong": answers.surest_wrong(SHOWN),
        "least_sure_right": answers.least_sure_right(SHOWN),
    }


def _pictures(answers: Answers, positions: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what is known of each shown picture; `index` is its number in the set."""
    columns = (
        answers.index_N,
        answers.labels_N,
        answers.predicted_N,
        answers.confidences_N,
        answers.losses_N,
    )
    rows = zip(*(column[positions].tolist() for column in columns), strict=True)
    return [
        {
            "index": index,
            "class": classes[label],
            "predicted": classes[predicted],
            "probability": probability,
            "loss": loss,
        }
        for index, label, predicted, probability, loss in rows
    ]
