"""Each public function takes what people have for images, a model, a recipe, a run or indices.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hydrofoil as hf
from hydrofoil import HydrofoilError


@pytest.fixture(scope="module")
def digits() -> hf.Pictures:
    return hf.load("digits")


@pytest.fixture(scope="module")
def split(digits: hf.Pictures) -> hf.Split:
    return hf.draw_split(digits, valid=0.1, test=0.2)


@pytest.fixture(scope="module")
def model(digits: hf.Pictures) -> hf.Classifier:
    return hf.build("digits", digits.shape, digits.classes)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def forms(pictures: hf.Pictures) -> list[Any]:
    """The same images and labels as people have them."""
    gray_NHW, labels_N = pictures.pictures_NCHW[:, 0].numpy(), pictures.labels_N
    data = TensorDataset(pictures.pictures_NCHW, labels_N)
    return [
        (gray_NHW, labels_N.numpy()),
        (gray_NHW[..., None] / np.float32(255), labels_N.tolist()),
        (pictures.pictures_NCHW, nn.functional.one_hot(labels_N)),
        ([Image.fromarray(image_HW) for image_HW in gray_NHW], [str(k) for k in labels_N.tolist()]),
        data,
        DataLoader(data, batch_size=100, shuffle=True),
    ]


def test_every_form_gives_the_same_score(
    model: hf.Classifier, digits: hf.Pictures, split: hf.Split
) -> None:
    expected = hf.score(model, digits, split.valid)
    valid_N = split.valid.numpy()
    mask_N = np.isin(np.arange(len(digits)), valid_N)
    for form in forms(digits):
        assert hf.score(model, form, split.valid) == expected
    for index in (valid_N, valid_N.tolist(), mask_N, torch.from_numpy(mask_N)):
        assert hf.score(model, digits, index) == expected
    part = digits.pictures_NCHW[split.valid].numpy(), digits.labels_N[split.valid].numpy()
    assert hf.score(model, part) == expected
    assert hf.answer(model, part).logits_NK.shape == (len(valid_N), 10)


def test_a_part_without_some_class_is_scored_against_the_models_classes(
    model: hf.Classifier, digits: hf.Pictures
) -> None:
    without_zero_N = (digits.labels_N > 0).nonzero()[:, 0]
    expected = hf.score(model, digits, without_zero_N)
    images = digits.pictures_NCHW[without_zero_N].numpy()
    labels_N = digits.labels_N[without_zero_N].numpy()
    assert hf.score(model, (images, labels_N)) == expected
    assert hf.score(model, (images, labels_N.astype(str))) == expected
    named = copy.copy(model)
    named.classes = tuple("abcdefghij")
    assert hf.score(named, (images, labels_N)) == expected


def test_fit_takes_arrays_lists_of_indices_a_network_and_a_recipes_name(
    digits: hf.Pictures, split: hf.Split
) -> None:
    recipe = hf.read_recipe("digits", ["train.epochs=1"])
    network = small_network()
    wrapped = hf.Classifier(
        copy.deepcopy(network), digits.shape, digits.classes, recipe.data.mean, recipe.data.std
    )
    (expected,) = hf.fit(wrapped, digits, split, recipe)
    parts = {"train": split.train.tolist(), "valid": split.valid.numpy()}
    for form in forms(digits)[:2]:
        for given in (split, parts, (split.train, split.valid)):
            mine = copy.deepcopy(network)
            (epoch,) = hf.fit(mine, form, given, recipe)
            assert epoch.train == expected.train
            assert torch.equal(mine[1].weight, wrapped.network[1].weight)
    assert next(hf.fit(wrapped, digits, split, "digits")).number == 1


def test_train_takes_arrays_and_lists_of_indices(digits: hf.Pictures, split: hf.Split) -> None:
    expected = hf.train("digits", ["train.epochs=1"])
    assert torch.equal(expected.split().train, split.train)
    arrays = (digits.pictures_NCHW[:, 0].numpy(), digits.labels_N.tolist())
    parts = (split.train.tolist(), split.valid.numpy(), split.test)
    run = hf.train("digits", ["train.epochs=1"], pictures=arrays, split=parts)
    ours, theirs = (its.load_best()[0].weights_hash() for its in (run, expected))
    assert ours == theirs
    assert hf.test(run, pictures=arrays).accuracy == hf.test(expected).accuracy
    assert hf.score(run, arrays, split.test).accuracy == hf.test(expected).accuracy
    assert hf.grad_cam(run, digits.pictures_NCHW[0]).heat_NHW.shape == (1, 8, 8)
    with pytest.raises(HydrofoilError, match=r"hf\.resume\(run, epochs=2\)"):
        hf.train(run)
    with pytest.raises(HydrofoilError, match=r"hf\.resume\(run"):
        next(hf.fit(run, digits, split, "digits"))


def test_measure_takes_arrays_and_lists() -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0]])
    assert hf.measure(logits, [0, 1]).confusion == ((1, 0), (1, 0))
    assert hf.measure(logits.tolist(), np.array([0, 1])) == hf.measure(torch.tensor(logits), [0, 1])


def test_images_are_explained_in_any_form(model: hf.Classifier, digits: hf.Pictures) -> None:
    picture_CHW = digits.pictures_NCHW[0]
    expected = hf.grad_cam(model, picture_CHW, torch.tensor([3])).coarse_NHW
    pixels = picture_CHW[0].numpy()
    for image in (pixels, pixels[..., None], Image.fromarray(pixels), pixels / 255):
        assert torch.equal(hf.grad_cam(model, image, "3").coarse_NHW, expected)
        assert torch.equal(
            hf.occlusion(model, image, "3").drops_HW, hf.occlusion(model, picture_CHW, 3).drops_HW
        )
    batch = digits.pictures_NCHW[:5, 0].numpy()
    assert hf.grad_cam(model, batch, ["3", 3, 3, 3, 3][:1] * 5).heat_NHW.shape == (5, 8, 8)


def test_predict_takes_gray_batches_datasets_and_loaders(
    model: hf.Classifier, digits: hf.Pictures
) -> None:
    five = hf.Pictures(digits.pictures_NCHW[:5], digits.labels_N[:5], digits.classes)
    expected = hf.predict(model, five.pictures_NCHW)
    arrays = five.pictures_NCHW.numpy()
    loader = DataLoader(TensorDataset(five.pictures_NCHW, five.labels_N), batch_size=2)
    for images in (arrays, arrays[:, 0], five, loader, loader.dataset, arrays / 255):
        assert hf.predict(model, images) == expected


def test_a_classifier_is_summarized_with_its_shape(model: hf.Classifier) -> None:
    assert hf.summarize(model) == hf.summarize(model.network, (1, 8, 8))
    with pytest.raises(HydrofoilError, match=r"hf\.summarize\(network, pictures\.shape\)"):
        hf.summarize(model.network)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, p, s: hf.score(m, p, s), r"Pass split\.valid \(180 images\), split\.test"),
        (lambda m, p, s: hf.answer(m, p, s), r"Pass split\.valid"),
        (lambda m, p, s: hf.score(m, p, []), "no image is indexed"),
        (lambda m, p, s: hf.score(small_network(), p, s.valid), r"hf\.Classifier\(network"),
        (lambda m, p, s: hf.score(nn.Linear, p, s.valid), r"the class Linear as model"),
        (lambda m, p, s: hf.score("runs/x", p, s.valid), r"hf\.Run\.open\('runs/x'\)"),
        (lambda m, p, s: hf.score(hf.read_recipe("digits"), p), r"hf\.build\(recipe"),
        (lambda m, p, s: hf.score(None, p, s.valid), "None as model"),
        (lambda m, p, s: hf.score(m, "digits", s.valid), r'hf\.load\("digits"\)'),
        (lambda m, p, s: hf.score(m, p.pictures_NCHW, s.valid), "images without labels"),
        (lambda m, p, s: hf.score(m, (np.zeros((5, 9, 9)), range(5))), "1×9×9: expected 1×8×8"),
        (lambda m, p, s: hf.score(m, (np.zeros((11, 8, 8)), range(11))), "11 classes: expected"),
        (lambda m, p, s: hf.predict(small_network(), p.pictures_NCHW[0]), r"Wrap it"),
        (lambda m, p, s: hf.grad_cam(small_network(), p.pictures_NCHW[0]), r"Wrap it"),
        (lambda m, p, s: hf.occlusion(small_network(), p.pictures_NCHW[0]), r"Wrap it"),
        (lambda m, p, s: next(hf.fit(m, p, None, "digits")), r"hf\.draw_split\(pictures"),
        (lambda m, p, s: next(hf.fit(m, p, {"tests": []}, "digits")), "'tests'"),
        (lambda m, p, s: next(hf.fit(m, p, s, 3)), r"hf\.read_recipe"),
        (lambda m, p, s: next(hf.fit(nn.Linear(3, 10), p, s, "digits")), "does not take images"),
        (lambda m, p, s: hf.State.fresh(small_network(), "digits"), "Wrap it"),
        (lambda m, p, s: hf.build("digit", p.shape, p.classes), "Did you mean 'digits'"),
        (lambda m, p, s: hf.test(m), r"hf\.score\(model, pictures, split\.test\)"),
        (lambda m, p, s: hf.test(hf.read_recipe("digits")), r"hf\.train\('digits'\)"),
        (lambda m, p, s: hf.measure(torch.tensor([1, 2]), [1, 2]), "expected float N×K"),
        (lambda m, p, s: hf.measure(torch.zeros(2, 3), [1, 3]), "expected 0 to 2"),
        (lambda m, p, s: hf.draw_split(p.pictures_NCHW), "images without labels"),
    ],
)
def test_a_mix_up_is_answered_with_the_line_to_type(
    call: Callable[..., Any], says: str, model: hf.Classifier, digits: hf.Pictures, split: hf.Split
) -> None:
    with pytest.raises(HydrofoilError, match=says) as error:
        call(model, digits, split)
    assert len(str(error.value).splitlines()) <= 3
