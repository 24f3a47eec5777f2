"""What learning curves show: kind by kind on made curves, and on trainings planted to go wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from hydrofoil import Run, read_recipe, train
from hydrofoil.cli.main import main
from hydrofoil.evaluate.diagnosis import diagnose, difference
from hydrofoil.evaluate.metrics import ByClass, Scores
from hydrofoil.evaluate.result import Epoch
from hydrofoil.run.diagnosis import sentences
from tests import planted

RECIPE = read_recipe("digits")
COUNTS = {"train": [4500] * 10, "valid": [500] * 10}
Curve = list[tuple[float, float, float, float]]  # losses and accuracies: train, valid


def epochs(curve: Curve, images: tuple[int, int] = (45_000, 5_000), **more: Any) -> list[Epoch]:
    """Epochs with these losses and accuracies."""
    return [
        Epoch(
            number=number,
            train=Scores(loss, round(share * images[0]), images[0]),
            valid=Scores(valid, round(correct * images[1]), images[1]) if images[1] else None,
            best=False, train_seconds=1.0, valid_seconds=1.0, learning_rate=0.1, **more,
        )
        for number, (loss, share, valid, correct) in enumerate(curve, start=1)
    ]  # fmt: skip


def kinds(curve: Curve, images: tuple[int, int] = (45_000, 5_000)) -> list[str]:
    return [one.kind for one in diagnose(epochs(curve, images), RECIPE, COUNTS)]


def falling(start: float, end: float, count: int) -> list[float]:
    """A loss that falls and levels off, as losses do."""
    return [end + (start - end) * 0.6**n for n in range(count)]


def test_memorized_training_images_are_overfitting_and_not_a_plateau() -> None:
    losses = falling(1.0, 0.025, 30)
    curve = [(a, 1 - a / 31.25, 0.43, 0.8954) for a in losses]
    curve[-1] = (0.025, 0.9992, 0.430, 0.8954)
    (found,) = diagnose(epochs(curve), RECIPE, COUNTS)
    assert found.kind == "overfitting"
    for figure in ("99.92%", "89.54%", "5,000", "10.4 points", "0.025", "0.430", "9.6–11.3"):
        assert figure in found.text
    assert "model.dropout=0.55" in found.advice
    assert "optimizer.weight_decay=0.01" in found.advice


def test_a_rate_ten_times_too_high_is_not_a_plateau() -> None:
    # cifar10-lenet with optimizer.lr=0.01, seed 0, on two threads.
    train = [1.989, 1.975, 2.013, 2.068, 2.061]
    valid = [1.983, 1.965, 1.976, 2.434, 2.049]
    share = [0.259, 0.269, 0.256, 0.225, 0.226]
    curve = list(zip(train, share, valid, [0.26, 0.26, 0.27, 0.15, 0.24], strict=True))
    (found,) = diagnose(epochs(curve), read_recipe("cifar10-lenet", ["lr=0.01"]), COUNTS)
    assert found.kind == "learning rate too high"
    assert "optimizer.lr=0.001" in found.advice


@pytest.mark.parametrize("count", [1, 2, 10])
def test_ten_percent_on_ten_classes_is_never_silent(count: int) -> None:
    (found,) = diagnose(epochs([(2.3026, 0.1, 2.3026, 0.1)] * count), RECIPE, COUNTS)
    assert found.kind == "not learning"
    assert "10.00% on 5,000 validation images" in found.text


@pytest.mark.parametrize(
    ("kind", "curve"),
    [
        ("diverging", [(2.0, 0.3, 2.0, 0.3), (1.0, 0.6, 1.1, 0.6), (2.3, 0.2, 2.3, 0.2)]),
        ("learning rate too high", [(2.34, 0.1, 2.33, 0.1)] * 6),
        ("learning rate too low", [(2.3 - n / 99, 0.2, 2.3 - n / 99, 0.2) for n in range(12)]),
        ("underfitting", [(2 - n / 5, 0.3 + n / 20, 2 - n / 5, 0.3 + n / 20) for n in range(7)]),
        ("underfitting", [(2.0, 0.3, 1.9, 0.3), (1.6, 0.4, 1.5, 0.4)]),
        ("plateau", [(0.9, 0.7, 0.9, 0.7)] * 9),
    ],
)  # fmt: skip
def test_made_curves_get_their_name(kind: str, curve: Curve) -> None:
    assert kinds(curve)[0] == kind


def test_a_good_training_gets_none() -> None:
    curve = [(a, 1 - a / 4, a + 0.02, 1 - (a + 0.02) / 4) for a in falling(2.3, 0.05, 20)]
    assert not kinds(curve)
    said = sentences([], epochs(curve), RECIPE)
    assert said[0].startswith("Nothing unusual in the curves: training accuracy")
    assert said[1] == "Training is not finished: 20 of 40 epochs."


def test_the_best_epoch_lies_long_before_the_end() -> None:
    curve = [(1 / (n + 1), 0.9, 0.5 + 0.05 * abs(n - 3), 0.8) for n in range(16)]
    found = {one.kind: one for one in diagnose(epochs(curve), RECIPE, COUNTS)}
    assert "lowest at epoch 4 of 16, 0.500, and 1.100 at the end" in found["best epoch early"].text
    assert "train.select=valid.loss" in found["best epoch early"].advice


def test_a_small_validation_split_is_named_with_its_interval() -> None:
    curve = [(a, 0.97, a, 35 / 36) for a in falling(2.3, 0.1, 20)]
    (found,) = diagnose(epochs(curve, (1000, 36)), RECIPE, {"train": [100] * 10, "valid": [4] * 10})
    assert found.kind == "validation too small"
    assert "97.22% of 36 images may be anything from 85.8 to 99.5%" in found.text


def test_a_class_that_is_never_predicted_is_named() -> None:
    curve = [(a, 0.95, a, 0.9) for a in falling(2.3, 0.2, 20)]
    made = epochs(curve, valid_by_class=ByClass((500,) * 9 + (0,), (555,) * 9 + (0,)))
    found = diagnose(made, RECIPE, COUNTS, tuple("abcdefghij"))
    assert found[0].kind == "class never predicted"
    assert "no validation image is predicted as j (500)" in found[0].text


def test_classes_that_are_learned_late_are_named() -> None:
    curve = [(a, 0.95, a, 0.93) for a in falling(2.3, 0.2, 10)]
    made = [
        epoch.model_copy(
            update={"valid_by_class": ByClass((470,) * 9 + (300 * (epoch.number > 7),), ())}
        )
        for epoch in epochs(curve)
    ]
    (found,) = diagnose(made, RECIPE, COUNTS, tuple("abcdefghij"))
    assert found.kind == "classes learned late"
    assert "j from epoch 8" in found.text


def test_without_a_validation_split_training_is_judged_and_the_limit_said() -> None:
    made = epochs([(2.0, 0.3, 0, 0), (1.6, 0.4, 0, 0), (1.2, 0.55, 0, 0)], (45_000, 0))
    (found,) = diagnose(made, RECIPE, {"train": [4500] * 10, "valid": [0] * 10})
    assert found.kind == "underfitting"
    assert "validation" not in found.text
    assert "data.valid=0.1" in sentences([found], made, RECIPE)[-2]


def test_a_loss_that_is_not_finite_is_diverging() -> None:
    (found,) = diagnose([], RECIPE, not_finite=(1, 19))
    assert found.kind == "diverging"
    assert "step 19 of epoch 1" in found.text


@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_the_gaps_interval_is_newcombes(n: int, m: int, data: st.DataObject) -> None:
    a, b = (data.draw(st.integers(0, count)) for count in (n, m))
    gap, low, high = difference(Scores(0, a, n), Scores(0, b, m))
    bounds = confint_proportions_2indep(a, n, b, m, compare="diff", method="newcomb")
    assert (gap, low, high) == pytest.approx((a / n - b / m, *bounds), abs=1e-9)


def test_noise_on_a_good_training_is_rarely_called_anything() -> None:
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(200):
        levels = falling(2.3, 0.08, 25)
        loss = levels + rng.normal(0, 0.01, 25) * np.array(levels) / 0.3
        valid = levels + rng.normal(0, 0.05, 25) * np.array(levels)
        right = rng.binomial(500, 0.97, 25) / 500
        curve = list(zip(loss.tolist(), [0.975] * 25, valid.tolist(), right.tolist(), strict=True))
        called += bool(kinds(curve, (4500, 500)))
    assert called <= 10


def checked(made: list[planted.Planted]) -> Counter[tuple[bool, bool]]:
    """Count trainings by (made to go wrong, diagnosed as made)."""
    counted: Counter[tuple[bool, bool]] = Counter()
    for one in made:
        _, found = planted.train(one)
        first = found[0].kind if found else None
        counted[bool(one.kinds), first in one.kinds if one.kinds else first is None] += 1
    return counted


def test_a_dozen_planted_trainings_are_diagnosed_as_they_were_made() -> None:
    quick = [
        one for one in planted.TABLE if one.recipe == "digits" and planted.MLP[0] in one.overrides
    ]
    healthy = [one for one in quick if not one.kinds][:3]
    wrong = list({one.kinds: one for one in quick if one.kinds}.values())
    counted = checked([*healthy, *wrong])
    assert len(wrong) >= 7
    assert counted[False, True] == 3
    assert counted[True, False] <= 1


@pytest.mark.slow
def test_nine_in_ten_planted_trainings_are_diagnosed_and_healthy_ones_are_not() -> None:
    counted = checked(planted.TABLE)
    wrong, healthy = (counted[kind, True] + counted[kind, False] for kind in (True, False))
    assert wrong + healthy >= 60
    assert healthy >= 20
    assert counted[True, True] >= 0.9 * wrong
    assert counted[False, False] <= 0.05 * healthy


def test_a_run_says_its_diagnosis_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "digits", "model=mlp", "hidden=64", "lr=2", "epochs=6", "--json"])
    said = json.loads(capsys.readouterr().out)["diagnosis"]
    assert said[0]["kind"] in planted.HIGH
    (found,) = Run.open("last").diagnosis()
    assert found.as_dict() == said[0]
    with pytest.raises(SystemExit):
        main(["show", "last"])
    assert str(found) in capsys.readouterr().out
    page = Run.open("last").report()
    assert found.kind.capitalize() in Path(page).read_text("utf-8")


def test_the_end_of_a_training_says_what_its_curves_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "digits", "epochs=3"])
    assert "Underfitting: both losses still fall" in capsys.readouterr().out
    run = train("digits", ["model=mlp", "hidden=64", "lr=0.05", "epochs=30"])
    assert run.diagnosis() == []


def test_a_healthy_training_is_described_by_the_averaged_weights_that_are_saved() -> None:
    curve = epochs([(1.0, 0.6, 1.0, 0.6), (0.5, 0.8, 0.5, 0.8)], averaged=Scores(0.4, 4500, 5000))
    assert sentences([], curve, RECIPE, ended=False)[0].endswith(
        "90.00% on 5,000 validation images."
    )
