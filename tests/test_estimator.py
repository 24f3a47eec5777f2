"""The scikit-learn estimator, by scikit-learn's own checks and in its own tools."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import hydrofoil as hf
from hydrofoil import HydrofoilError
from hydrofoil.session.estimator import ClassifierEstimator

X, Y = load_digits(return_X_y=True)
QUICK = {"model": "mlp", "hidden": 32, "lr": 0.1, "epochs": 3, "overrides": {"execute": "eager"}}


@parametrize_with_checks([ClassifierEstimator()])
def test_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def test_cross_validation_and_grid_search_work() -> None:
    classifier = ClassifierEstimator(**QUICK)
    scores = cross_val_score(classifier, X[:600], Y[:600], cv=3)
    assert scores.min() > 0.7
    search = GridSearchCV(classifier, {"lr": [1e-6, 0.1], "hidden": [16, (16, 16)]}, cv=2)
    search.fit(X[:400], Y[:400])
    assert search.best_params_["lr"] == 0.1
    assert search.score(X[400:800], Y[400:800]) > 0.6


@pytest.mark.slow
def test_grid_search_works_in_several_processes() -> None:
    search = GridSearchCV(ClassifierEstimator(**QUICK), {"lr": [0.01, 0.1]}, cv=2, n_jobs=2)
    alone = GridSearchCV(ClassifierEstimator(**QUICK), {"lr": [0.01, 0.1]}, cv=2)
    both = [one.fit(X[:400], Y[:400]).cv_results_["mean_test_score"] for one in (search, alone)]
    assert np.array_equal(*both)


def test_a_pipeline_scales_features_and_a_pickled_one_predicts_the_same() -> None:
    pipeline = make_pipeline(StandardScaler(), ClassifierEstimator(**QUICK)).fit(X[:500], Y[:500])
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict_proba(X[500:]), pipeline.predict_proba(X[500:]))
    assert pipeline.score(X[500:], Y[500:]) > 0.7


def test_the_seed_decides() -> None:
    first, same, other = (
        ClassifierEstimator(**QUICK, random_state=seed).fit(X[:300], Y[:300]) for seed in (1, 1, 2)
    )
    drawn = ClassifierEstimator(**QUICK, random_state=np.random.RandomState(0)).fit(
        X[:300], Y[:300]
    )
    assert np.array_equal(first.predict_proba(X), same.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    assert drawn.recipe_.train.seed != 0


def test_images_in_any_layout_are_the_same_images() -> None:
    gray_NHW = (X.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)[:300]
    expected = ClassifierEstimator(**QUICK).fit(gray_NHW, Y[:300]).predict_proba(gray_NHW)
    pillow = [Image.fromarray(image_HW) for image_HW in gray_NHW]
    forms = [
        gray_NHW[:, None], gray_NHW[..., None], torch.from_numpy(gray_NHW), pillow,
        gray_NHW.reshape(300, 64), gray_NHW / 255,
    ]  # fmt: skip
    for form in forms:
        classifier = ClassifierEstimator(**QUICK).fit(form, Y[:300])
        assert np.array_equal(classifier.predict_proba(form), expected)
    colors = np.repeat(gray_NHW[..., None], 3, axis=-1)
    assert ClassifierEstimator(**QUICK).fit(colors, Y[:300]).model_.shape == (3, 8, 8)


def test_it_trains_as_the_recipe_says() -> None:
    names = np.array(["zero", "one"])[Y[Y < 2]]
    classifier = ClassifierEstimator(
        "digits", epochs=2, lr=0.05, optimizer="adam", overrides={"label_smoothing": 0.1}
    ).fit(X[Y < 2], names)
    recipe = classifier.recipe_
    assert (recipe.train.epochs, recipe.optimizer.name, recipe.optimizer.lr) == (2, "adam", 0.05)
    assert recipe.train.label_smoothing == 0.1
    assert classifier.model_.classes == ("one", "zero")
    assert set(classifier.predict(X[Y < 2])) <= {"one", "zero"}


def test_it_is_the_loop_with_other_words() -> None:
    classifier = ClassifierEstimator(epochs=2).fit(X, Y)
    pictures = hf.load("digits")
    split = hf.Split(range(len(pictures)), (), (), pictures)
    model = hf.build(classifier.recipe_, pictures.shape, pictures.classes)
    list(hf.fit(model, pictures, split, classifier.recipe_))
    assert model.weights_hash() == classifier.model_.weights_hash()


def test_it_prints_nothing_and_writes_nothing(capfd: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ClassifierEstimator(**QUICK).fit(X[:100], Y[:100]).predict(X)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"image_shape": (1, 7, 7)}, r"image_shape = \(1, 7, 7\): expected"),
        ({"overrides": {"epoks": 3}}, r"Did you mean train\.epochs"),
        ({"lr": -1.0}, r"optimizer\.lr = -1"),
        ({"model": "cnn9"}, "no such model"),
        ({"recipe": "digit"}, "Did you mean 'digits'"),
    ],
)
def test_a_wrong_parameter_is_named_when_fitting(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(HydrofoilError, match=says):
        clone(ClassifierEstimator(**parameters)).fit(X, Y)


def test_other_images_than_in_training_are_refused() -> None:
    classifier = ClassifierEstimator(**QUICK).fit(X[:100].reshape(-1, 8, 8), Y[:100])
    with pytest.raises(ValueError, match="expected 1×8×8, as in fit"):
        classifier.predict(np.zeros((1, 8, 9)))
    with pytest.raises(ValueError, match="9 features"):  # as scikit-learn counts them
        classifier.predict(np.zeros((1, 9, 9)))
