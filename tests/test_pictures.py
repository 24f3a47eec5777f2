import numpy as np
import pytest
import torch

from hydrofoil import HydrofoilError, Pictures, load


def test_channel_statistics_are_numpys() -> None:
    pictures = load("cifar10")
    index_N = torch.arange(0, 600, 7)
    means, deviations = pictures.channel_statistics(index_N)
    scaled = pictures.pictures_NCHW[index_N].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(means, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(deviations, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_counts_are_per_class() -> None:
    pictures = load("digits")
    expected = np.bincount(pictures.labels_N.numpy()[:100], minlength=10).tolist()
    assert pictures.counts(torch.arange(100)) == expected


def test_the_hash_sees_every_pixel_label_and_name() -> None:
    def made(pixel: int = 0, label: int = 0, name: str = "a") -> Pictures:
        pictures = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
        pictures[1, 0, 1, 1] = pixel
        return Pictures(pictures, torch.tensor([0, label]), (name, "b"), "made")

    hashes = {made().hash, made(pixel=1).hash, made(label=1).hash, made(name="c").hash}
    assert len(hashes) == 4
    assert made().hash == made().hash


@pytest.mark.parametrize(
    ("pictures", "labels", "complaint"),
    [
        (torch.full((2, 1, 2, 2), -1.0), torch.zeros(2, dtype=torch.int64), "0 to 1"),
        (torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "N×C×H×W"),
        (
            torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            "one label for each",
        ),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0.5]), "whole numbers"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2]), "expected 0 to 1"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, -1]), "expected 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    pictures: torch.Tensor, labels: torch.Tensor, complaint: str
) -> None:
    with pytest.raises(HydrofoilError, match=complaint):
        Pictures(pictures, labels, ("a", "b"), "made")
