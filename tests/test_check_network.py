"""How training images are varied, each against a literal version.

Axes: N images, C channels, H rows, W columns.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from hydrofoil.check import network
from hydrofoil.check.folds import Plan, out_of_fold
from hydrofoil.check.network import LabelNetwork
from hydrofoil.data.pictures import Pictures


def images(count: int = 40, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator)


def varied(pictures_NCHW: Tensor, *, shift: int, mirror: bool) -> Tensor:
    shape = tuple(pictures_NCHW.shape[1:])
    made = LabelNetwork(shape, 4, widths=(4,), shift=shift, mirror=mirror)  # pyright: ignore[reportArgumentType]
    seen: list[Tensor] = []
    made.layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.manual_seed(0)
    made.train()(pictures_NCHW)
    return seen[0]


def test_a_training_image_is_a_shifted_one_or_its_mirror_image() -> None:
    given_NCHW = images()
    found_NCHW = varied(given_NCHW, shift=2, mirror=True)
    seen: set[tuple[bool, int, int]] = set()
    for before, after in zip(given_NCHW.numpy(), found_NCHW.numpy(), strict=True):
        matches = [
            (mirrored, row, column)
            for mirrored, image in ((False, before), (True, before[:, :, ::-1]))
            for padded in [np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")]
            for row in range(5)
            for column in range(5)
            if np.array_equal(padded[:, row : row + 16, column : column + 16], after)
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert {mirrored for mirrored, _, _ in seen} == {False, True}
    assert {row for _, row, _ in seen} == {column for _, _, column in seen} == set(range(5))


def test_characters_are_turned_scaled_and_shifted_but_not_mirrored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ramp = torch.linspace(0, 1, 16).view(1, 1, 1, 16).expand(60, 3, 16, 16)  # brighter to the right
    found_NCHW = varied(ramp, shift=1, mirror=False)
    middle_NH = found_NCHW[:, 0, 4:12, 4:12]
    assert (middle_NH.diff(dim=2) > 0).all()
    steps_N = middle_NH.diff(dim=2).mean((1, 2)) * 15  # the width, and the cosine of the angle
    assert 0.85 < float(steps_N.min()) < 0.97
    assert 1.03 < float(steps_N.max()) < 1.15
    slopes_N = middle_NH.diff(dim=1).mean((1, 2)) * 15  # the sine
    assert float(slopes_N.max()) < 1.1 * np.sin(0.2) + 0.02
    assert float(slopes_N.min()) < -0.1 < 0.1 < float(slopes_N.max())
    monkeypatch.setattr(network, "TURN", 0.0)
    monkeypatch.setattr(network, "SCALED", 0.0)

    def most(*size: int) -> Tensor:
        return torch.full(size, 1.0)

    monkeypatch.setattr(torch, "rand", most)
    shifted_NCHW = varied(ramp, shift=1, mirror=False)
    assert torch.allclose(shifted_NCHW[:, :, :-1, :-1], ramp[:, :, 1:, 1:], atol=1e-5)


def test_nothing_is_varied_in_evaluation_and_neither_where_no_shift_is_allowed() -> None:
    given_NCHW = images()
    assert torch.equal(varied(given_NCHW, shift=0, mirror=False), given_NCHW)
    made = LabelNetwork((3, 16, 16), 4, widths=(4,), shift=2, mirror=True).eval()
    assert torch.equal(made(given_NCHW), made(given_NCHW))


@pytest.mark.parametrize("mirror", [True, False])
def test_variation_is_a_function_of_the_seed(mirror: bool) -> None:
    pictures_NCHW = (images(60) * 50 + 128).clamp(0, 255).to(torch.uint8)
    pictures = Pictures(pictures_NCHW, torch.arange(60) % 3, ["a", "b", "c"])
    plan = Plan(2, 2, 16, (4, 8), 2, mirror, 0.05)
    state = torch.get_rng_state()
    first, second = (out_of_fold(pictures, plan=plan).probabilities_NK for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())  # the user's own draws are left alone
