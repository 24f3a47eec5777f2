"""What hydrofoil takes for images, labels, indices and splits, held to numpy and torchvision.

Axes: N images, C channels, H rows, W columns.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import MNIST, FashionMNIST

import hydrofoil as hf
from hydrofoil import HydrofoilError, Pictures, Split
from hydrofoil.data.convert import as_images
from hydrofoil.data.labels import as_indices, as_labels

SIDES = st.integers(5, 9)
BYTES = st.tuples(st.integers(1, 6), SIDES, SIDES, st.integers(1, 4)).flatmap(
    lambda shape: npst.arrays(np.uint8, shape)
)


@settings(max_examples=60)
@given(images_NHWC=BYTES, order=st.sampled_from(["NHWC", "NCHW"]), kind=st.booleans())
def test_the_axes_are_known_by_their_sizes(images_NHWC: Any, order: str, kind: bool) -> None:
    expected = np.moveaxis(images_NHWC, 3, 1)
    images = images_NHWC if order == "NHWC" else np.ascontiguousarray(expected)
    given = torch.from_numpy(images) if kind else images
    assert np.array_equal(as_images(given).numpy(), expected)


@settings(max_examples=40)
@given(
    levels=npst.arrays(np.uint8, (2, 1, 6, 7)),
    dtype=st.sampled_from(["float16", "float32", "float64", ">f4", "uint16", "int64", "int8"]),
)
def test_numbers_of_any_type_become_the_same_bytes(levels: Any, dtype: str) -> None:
    if dtype == "int8":
        levels = levels // 2
    scale = 255 if "f" in dtype else 1
    values = (levels / scale).astype(dtype)
    assert np.array_equal(as_images(values).numpy(), levels)
    if not dtype.startswith((">", "uint")):
        assert np.array_equal(as_images(torch.from_numpy(values)).numpy(), levels)


@settings(max_examples=40)
@given(values=npst.arrays(np.float32, (2, 6, 7), elements=st.floats(0, 1, width=32)))
def test_other_floats_are_rounded_as_numpy_rounds_them_and_a_warning_says_so(values: Any) -> None:
    scaled = values * np.float32(255)
    with pytest.warns(UserWarning, match="were rounded"):
        made = as_images(np.concatenate([values, np.full_like(values, 0.3333)]), count=4)
    assert np.array_equal(made.numpy()[:2, 0], scaled.round().astype(np.uint8))


def test_a_contiguous_uint8_array_is_not_copied() -> None:
    images_NCHW = np.zeros((4, 3, 8, 8), np.uint8)
    pictures = Pictures(images_NCHW, [0, 1, 0, 1])
    assert np.shares_memory(pictures.pictures_NCHW.numpy(), images_NCHW)
    gray_NHW = np.zeros((5, 8, 8), np.uint8)
    assert np.shares_memory(Pictures(gray_NHW, range(5)).pictures_NCHW.numpy(), gray_NHW)


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    images = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    turned, locked = images[:, ::-1], images.copy()
    locked.flags.writeable = False
    assert np.array_equal(as_images(turned, count=2).numpy()[:, 0], turned)
    assert np.array_equal(as_images(locked, count=2).numpy()[:, 0], images)


def test_pillow_images_are_read_as_torchvision_reads_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 7, 3), np.uint8)
    images = [Image.fromarray(image) for image in pixels]
    expected = torch.stack([transforms.PILToTensor()(image) for image in images])
    assert torch.equal(as_images(images), expected)
    gray = [image.convert("L") for image in images]
    assert as_images(gray).shape == (4, 1, 6, 7)
    mixed = [*images[:2], *gray[2:]]
    assert torch.equal(as_images(mixed)[:2], expected[:2])
    palette = [image.convert("P") for image in images]
    oracle = torch.stack([transforms.PILToTensor()(image.convert("RGB")) for image in palette])
    assert torch.equal(as_images(palette), oracle)
    assert torch.equal(as_images([image.convert("RGBA") for image in images]), expected)


class Items(Dataset[Any]):
    """A dataset as people write it."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int) -> Any:
        return self.items[at]


@pytest.mark.parametrize("transform", [None, transforms.ToTensor(), transforms.PILToTensor()])
def test_torchvisions_datasets_are_the_published_ones(data_root: Any, transform: Any) -> None:
    train, test = (
        FashionMNIST(data_root, train=part, transform=transform) for part in (True, False)
    )
    expected = hf.load("fashion-mnist")
    made = Pictures((train, test))
    assert made.hash == expected.hash
    assert made.published_test == expected.published_test
    assert made.classes == expected.classes
    loaders = [DataLoader(part, batch_size=64, shuffle=True) for part in (train, test)]
    if transform:
        assert Pictures(tuple(loaders)).hash == expected.hash


def test_a_loader_that_chooses_is_read_batch_by_batch() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    data = TensorDataset(images, torch.arange(10) % 2)
    before = torch.get_rng_state()
    chosen = DataLoader(data, batch_size=3, sampler=[7, 2, 5, 0])
    made = Pictures(chosen)
    assert made.pictures_NCHW[:, 0, 0, 0].tolist() == [7, 2, 5, 0]
    assert made.labels_N.tolist() == [1, 0, 1, 0]
    shuffled = Pictures(DataLoader(data, batch_size=3, shuffle=True))
    assert shuffled.pictures_NCHW[:, 0, 0, 0].tolist() == list(range(10))
    assert torch.equal(before, torch.get_rng_state())


def test_subsets_and_joined_datasets_know_the_class_names(data_root: Any) -> None:
    data = MNIST(data_root, train=False)
    part = Pictures(ConcatDataset([Subset(data, range(5)), Subset(data, range(5, 9))]))
    assert part.classes == tuple(data.classes)
    assert torch.equal(part.pictures_NCHW[:, 0], data.data[:9])
    assert torch.equal(part.labels_N, data.targets[:9])


def test_pairs_of_other_forms_are_taken() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for pairs in (
        [(image, "cat"), (image, "dog")],
        Items(
            [{"image": Image.fromarray(image), "label": "cat"}, {"img": image, "label": "dog"}][:1]
            * 2
        ),
        (np.stack([image] * 2), ["cat", "dog"]),
        iter([(image, "cat"), (image, "dog")]),
        (Pictures([image], ["cat"], ["cat", "dog"]), ([image], ["dog"])),
    ):
        made = Pictures(pairs)
        assert len(made) == 2
        assert set(made.classes) <= {"cat", "dog"}


@settings(max_examples=60)
@given(labels=st.lists(st.integers(-3, 12), min_size=1, max_size=20), form=st.integers(0, 5))
def test_labels_without_classes_are_numbered_as_numpy_numbers_them(
    labels: list[int], form: int
) -> None:
    forms: list[Callable[[list[int]], Any]] = [
        list, np.array, torch.tensor, lambda x: np.array(x, float), lambda x: np.array(x)[:, None],
        lambda x: np.array(x, object),
    ]  # fmt: skip
    values, expected = np.unique(labels, return_inverse=True)
    labels_N, classes = as_labels(forms[form](labels), len(labels))
    assert labels_N.tolist() == expected.tolist()
    assert classes == tuple(map(str, values))


def test_names_one_hot_rows_and_booleans_are_labels() -> None:
    assert as_labels(np.array(["b", "a"]), 2)[0].tolist() == [1, 0]
    assert as_labels(["b", "a"], 2, ["b", "a"])[0].tolist() == [0, 1]
    assert as_labels(np.eye(3)[[2, 0]], 2)[0].tolist() == [2, 0]
    assert as_labels(np.eye(3)[[2, 0]], 2)[1] == ("0", "1", "2")
    assert as_labels([True, False], 2)[1] == ("0", "1")


@settings(max_examples=60)
@given(mask=npst.arrays(np.bool_, st.integers(1, 20)), form=st.integers(0, 4))
def test_indices_of_any_form_are_numpys(mask: Any, form: int) -> None:
    expected = np.arange(len(mask))[mask]
    forms: list[Any] = [
        mask,
        torch.from_numpy(mask),
        expected,
        expected.tolist(),
        torch.from_numpy(expected),
    ]
    assert as_indices(forms[form], len(mask)).tolist() == expected.tolist()
    assert as_indices(slice(1, None, 2), len(mask)).tolist() == list(range(len(mask)))[1::2]
    assert (
        as_indices(range(len(mask) - 1, -1, -1), len(mask)).tolist() == list(range(len(mask)))[::-1]
    )


def test_a_split_is_made_of_lists_and_belongs_to_its_images() -> None:
    pictures = hf.load("digits")
    split = Split(range(100, 0, -1), np.arange(200, 250), [300], pictures)
    assert split.train.tolist() == list(range(1, 101))
    split.check(pictures)
    assert Split.from_bytes(split.to_bytes()).valid.tolist() == list(range(200, 250))


ZEROS = np.zeros((2, 8, 8, 3), np.uint8)
NORMALIZE = transforms.Normalize([0.5], [0.5])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Pictures(np.zeros((5, 3, 3, 3), np.uint8), range(5)), r"permute\(0, 3, 1, 2\)"),
        (lambda: Pictures(np.zeros((5, 9, 9, 9), np.uint8), range(5)), "1 to 4 channels"),
        (lambda: Pictures(np.zeros((5, 64), np.uint8), range(5)), r"reshape\(-1, 8, 8\)"),
        (lambda: Pictures(np.zeros((8, 8, 3), np.uint8), [1]), r"images\[None\]"),
        (lambda: Pictures(np.zeros((0, 8, 8), np.uint8), []), "no images"),
        (lambda: Pictures([], []), "empty list"),
        (lambda: Pictures(np.full((5, 8, 8), 16.0), range(5)), r"255 / 16"),
        (lambda: Pictures(np.full((5, 8, 8), 255.0), range(5)), r"Divide by 255"),
        (lambda: Pictures(np.full((5, 8, 8), np.nan), range(5)), "320 of 320 values are NaN"),
        (lambda: Pictures(NORMALIZE(torch.zeros(5, 1, 8, 8)), range(5)), "undo that"),
        (lambda: Pictures(np.full((5, 8, 8), 300), range(5)), "300: expected 0 to 255"),
        (lambda: Pictures(np.zeros((5, 8, 8), complex), range(5)), "complex"),
        (lambda: Pictures(np.array([[["a"]]]), [0]), "expected numbers"),
        (lambda: Pictures([np.zeros((8, 8)), np.zeros((9, 8))], [0, 1]), "9×8"),
        (lambda: Pictures([Image.new("L", (8, 8)), Image.new("L", (9, 8))], [0, 1]), r"resize"),
        (lambda: Pictures([Image.new("I", (8, 8))], [0]), "mode I"),
        (lambda: Pictures([Image.new("RGBA", (8, 8))], [0]), r"convert\('RGB'\)"),
        (lambda: Pictures("mnist"), r'hf\.load\("mnist"\)'),
        (lambda: Pictures(None), "got None"),
        (lambda: Pictures(ZEROS), "without labels"),
        (lambda: Pictures((1, 2, 3)), "a tuple of 3"),
        (lambda: Pictures(Items([])), "without an item"),
        (lambda: Pictures(Items([ZEROS[0]])), r"expected \(image, label\)"),
        (lambda: Pictures(ZEROS, [1]), "1 for 2 images"),
        (lambda: Pictures(ZEROS, ["a", 1]), "1 at 1"),
        (lambda: Pictures(ZEROS, [0, None]), "None at 1"),
        (lambda: Pictures(ZEROS, [0, np.nan]), "nan at 1"),
        (lambda: Pictures(ZEROS, [0, 0.5]), "0.5 at 1"),
        (lambda: Pictures(ZEROS, [[0.5, 0.5], [1, 0]]), r"argmax\(1\)"),
        (lambda: Pictures(ZEROS, [1, 2], ["a", "b"]), "labels - 1"),
        (lambda: Pictures(ZEROS, ["a", "c"], ["a", "b"]), "'c' is not one of the classes"),
        (lambda: Pictures(ZEROS, "ab"), "got a str"),
        (lambda: Pictures(ZEROS, 3), "got an int"),
        (lambda: Split([0, 1], [1], [], hf.load("digits")), "in train and valid"),
        (lambda: Split([0, 0], [], [], hf.load("digits")), "in train twice"),
        (lambda: Split([0, 9999], [], [], hf.load("digits")), "9999: expected 0 to 1796"),
        (lambda: Split([0], [1], [2]), r"hf\.Split\(train, valid, test, pictures\)"),
        (lambda: as_indices([0.5], 3), "0.5 at 0"),
        (lambda: as_indices([-1], 3), "-1: expected 0 to 2"),
        (lambda: as_indices([True, False], 3), "a mask of 2"),
        (lambda: as_indices([[0], [1]], 3), "2×1"),
        (lambda: as_indices("valid", 3), "got a str"),
        (lambda: as_indices(None, 3), "None"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_to_do(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(HydrofoilError) as error:
        make()
    assert re.search(says, str(error.value)), error.value
    assert isinstance(error.value, ValueError)
    assert len(str(error.value).splitlines()) <= 3
