"""Builds the result of `test`: every figure comes from one pass over the test split.

Axes: N pictures, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrofoil.data.source import groups_of, merges_published_test, not_published
from hydrofoil.evaluate.calibration import fit_temperature, reliability
from hydrofoil.evaluate.expectation import expected
from hydrofoil.evaluate.metrics import ClassScores, Metrics, Share, picture_losses
from hydrofoil.evaluate.result import (
    Calibration,
    ConfusedPair,
    Example,
    Examples,
    GroupScores,
    Temperature,
    TestResult,
    TestTime,
)
from hydrofoil.evaluate.score import Answers
from hydrofoil.models.classifier import Classifier
from hydrofoil.randomness import generator
from hydrofoil.recipe.schema import Recipe

MERGED = (
    "the published test images are merged in and partly trained on: "
    "the test accuracy cannot be compared with published results."
)
SHOWN = 20  # examples of each kind


def test_result(
    answers: Answers,
    valid: Answers | None,
    model: Classifier,
    recipe: Recipe,
    *,
    epoch: int,
    opened: int,
    differs: str,
    unlike: str,
    averaged_NK: Tensor | None,
) -> TestResult:
    """Return the content of test.json.

    Args:
        answers: The logits of the test split, on the CPU.
        valid: Those of the validation split, on which the temperature is fitted, if there is one.
        model: That answered.
        recipe: Of the run.
        epoch: Whose weights answered.
        opened: How often this run's test split was opened, this time included.
        differs: How the dataset differs from the published one of its name; empty: it does not.
        unlike: Why the recipe's own result does not apply to this run; empty: it does.
        averaged_NK: The logits of the test split with augment.test_time; None: it is none.
    """
    metrics = answers.metrics()
    classes = metrics.per_class(model.classes)
    groups = groups_of(recipe.data.source)
    top_5 = metrics.correct_in_top_5
    return TestResult(
        correct=metrics.correct,
        count=metrics.count,
        loss=metrics.loss,
        top_5=None if top_5 is None else Share(top_5, metrics.count),
        expected=expected(recipe, metrics.accuracy, unlike),
        classes=tuple(classes),
        groups=tuple(_group(name, members, classes) for name, members in groups.items()),
        averages=metrics.averages(),
        confusion=metrics.confusion,
        confused=tuple(_confused(metrics, pair, classes) for pair in metrics.confused()),
        calibration=_calibration(answers, valid),
        examples=_examples(answers, model.classes, recipe.train.seed),
        test_time=_test_time(answers, averaged_NK, recipe),
        epoch=epoch,
        weights=model.weights_hash(),
        opened=opened,
        warnings=tuple(data_warnings(recipe, differs)),
    )


def data_warnings(recipe: Recipe, differs: str) -> list[str]:
    """Say why accuracies on a run's data cannot be compared with published ones, if they cannot."""
    data = recipe.data
    found = [MERGED] if merges_published_test(data.source, data.merge) else []
    return [*found, not_published(data.source, differs)] if differs else found


def example_indices(result: TestResult) -> Tensor:
    """Return the numbers of all images among a result's examples, index_N in rising order."""
    kinds = result.examples.all().values()
    return torch.tensor(sorted({one.index for examples in kinds for one in examples}))


def _test_time(answers: Answers, averaged_NK: Tensor | None, recipe: Recipe) -> TestTime | None:
    """Return what averaging over copies of the images gains and loses."""
    kind = recipe.augment.test_time
    if averaged_NK is None or kind == "none":
        return None
    plain_N = answers.predicted_N == answers.labels_N
    averaged_N = averaged_NK.argmax(1) == answers.labels_N
    return TestTime(
        kind=kind,
        correct=int(averaged_N.sum()),
        count=len(averaged_N),
        gained=int((averaged_N & ~plain_N).sum()),
        lost=int((plain_N & ~averaged_N).sum()),
    )


def _group(name: str, members: Sequence[str], classes: Sequence[ClassScores]) -> GroupScores:
    inside = [one for one in classes if one.name in members]
    return GroupScores(
        name=name,
        classes=tuple(one.name for one in inside),
        count=sum(one.count for one in inside),
        correct=sum(one.correct for one in inside),
    )


def _confused(
    metrics: Metrics, pair: tuple[int, int], classes: Sequence[ClassScores]
) -> ConfusedPair:
    first, second = pair
    return ConfusedPair(
        classes=(classes[first].name, classes[second].name),
        first_as_second=metrics.confusion[first][second],
        second_as_first=metrics.confusion[second][first],
        total=classes[first].count + classes[second].count,
    )


def _calibration(answers: Answers, valid: Answers | None) -> Calibration:
    """Return reliability as it is, and after a temperature that never saw the test split."""
    before = reliability(answers.logits_NK, answers.labels_N)
    if valid is None:
        return Calibration(**vars(before), temperature=None)
    value = fit_temperature(valid.logits_NK, valid.labels_N)
    scaled_NK = answers.logits_NK.double() / value
    after = reliability(scaled_NK, answers.labels_N)
    temperature = Temperature(
        value=value,
        fitted_on=len(valid.labels_N),
        loss=picture_losses(scaled_NK, answers.labels_N).mean().item(),
        confidence=after.confidence,
        equal_width_error=after.equal_width.error,
        equal_mass_error=after.equal_mass.error,
    )
    return Calibration(**vars(before), temperature=temperature)


def _examples(answers: Answers, classes: tuple[str, ...], seed: int) -> Examples:
    """Return examples of each kind; the random sample depends on the seed alone."""
    sample = torch.randperm(len(answers.index_N), generator=generator(seed, "grid"))[:SHOWN]
    return Examples(
        random=_examples_at(answers, sample, classes),
        highest_loss=_examples_at(answers, answers.highest_loss(SHOWN), classes),
        most_confident_mistakes=_examples_at(
            answers, answers.most_confident_mistakes(SHOWN), classes
        ),
        least_confident_correct=_examples_at(
            answers, answers.least_confident_correct(SHOWN), classes
        ),
    )


def _examples_at(
    answers: Answers, positions: Tensor, classes: tuple[str, ...]
) -> tuple[Example, ...]:
    columns = (
        answers.index_N,
        answers.labels_N,
        answers.predicted_N,
        answers.confidences_N,
        answers.losses_N,
    )
    rows = zip(*(column[positions].tolist() for column in columns), strict=True)
    return tuple(
        Example(
            index=index,
            label=classes[label],
            predicted=classes[predicted],
            probability=probability,
            loss=loss,
        )
        for index, label, predicted, probability, loss in rows
    )
