"""Augmented images, held to torchvision image by image, and the C held to torch byte by byte.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import autoaugment
from torchvision.transforms import functional as oracle
from torchvision.transforms.functional import InterpolationMode

from hydrofoil.data.augment import augmented, check_size, fill_of, mixed
from hydrofoil.data.augment_policy import OPERATIONS, apply_policy
from hydrofoil.data.changes import LEVELS, ONE, SIZE, TURN, Column, columns_of, draw_changes
from hydrofoil.data.changes import OPERATIONS as OPERATIONS_DRAWN
from hydrofoil.data.moving import reflected
from hydrofoil.errors import HydrofoilError
from hydrofoil.native.augment import NativePass
from hydrofoil.recipe.augment import Augment

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(4, 21), st.integers(4, 21))
FILL = (40, 120, 200)


def made(shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Return random images: smooth, so that rounding in geometry is not hidden by noise, or not."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=random)


def rows(spec: Augment, count: int, seed: int = 0, epoch: int = 1, batch_size: int = 4) -> Tensor:
    changes_NA = draw_changes(spec, seed, epoch, torch.arange(count), batch_size, count)
    assert changes_NA is not None
    return changes_NA


def changed(pictures_NCHW: Tensor, changes_NA: Tensor, spec: Augment) -> Tensor:
    count, fill_C = len(pictures_NCHW), torch.tensor(FILL[: pictures_NCHW.shape[1]])
    fill_C = fill_C.to(torch.uint8)
    return augmented(pictures_NCHW, torch.arange(count), changes_NA, spec, fill_C)


# ── the table ────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = Augment(
    flip="random", shift=3, rotate=20.0, scale=0.2, brightness=0.4, contrast=0.4, cutout=5,
    policy="randaugment", mixup=0.4, cutmix=1.0,
)  # fmt: skip


def test_default_settings_change_nothing() -> None:
    assert not Augment().active
    assert draw_changes(Augment(), 0, 1, torch.arange(9), 4, 9) is None
    assert not Augment(policy_operations=3, policy_magnitude=1).active


@pytest.mark.parametrize("name", sorted(set(Augment.model_fields)))
def test_each_field_alone_makes_the_settings_active(name: str) -> None:
    if name in ("policy_operations", "policy_magnitude", "test_time"):
        return
    value = {"flip": "random", "policy": "randaugment", "shift": 1, "cutout": 1}.get(name, 0.5)
    assert Augment(**{name: value}).active


def test_changes_are_a_function_of_seed_epoch_and_position() -> None:
    whole_NA = rows(EVERYTHING, 40)
    assert torch.equal(whole_NA, rows(EVERYTHING, 40))
    assert not torch.equal(whole_NA, rows(EVERYTHING, 40, seed=1))
    assert not torch.equal(whole_NA, rows(EVERYTHING, 40, epoch=2))
    assert whole_NA.shape[1] == columns_of(EVERYTHING)


def test_another_setting_does_not_change_what_a_column_draws() -> None:
    alone_NA = rows(Augment(flip="random"), 50)
    with_all_NA = rows(EVERYTHING, 50)
    assert torch.equal(alone_NA[:, Column.FLIP], with_all_NA[:, Column.FLIP])


def test_every_image_has_changes_of_its_own_over_the_whole_range() -> None:
    changes_NA = rows(EVERYTHING, 4000)
    ranges = {
        Column.FLIP: (0, 1), Column.DOWN: (-3, 3), Column.RIGHT: (-3, 3),
        Column.TURN: (-20 * TURN, 20 * TURN), Column.SIZE: (800, 1200),
        Column.BRIGHTNESS: (154, 358), Column.CONTRAST: (154, 358),
    }  # fmt: skip
    for column, (low, high) in ranges.items():
        drawn_N = changes_NA[:, column]
        assert low <= int(drawn_N.min()), column
        assert int(drawn_N.max()) <= high, column
        values = high - low + 1
        # Of 4,000 draws; a value of seven is missed with probability 10⁻²⁶⁷.
        assert len(drawn_N.unique()) > min(values, 1000) * 0.8
        middle, spread = (low + high) / 2, (values**2 / 12) ** 0.5
        assert abs(drawn_N.double().mean().item() - middle) < 5 * spread / 4000**0.5
    for at in range(columns_of(EVERYTHING) - 4, columns_of(EVERYTHING), 2):
        assert changes_NA[:, at].unique().tolist() == list(range(OPERATIONS_DRAWN))
        assert changes_NA[:, at + 1].unique().tolist() == [-9, 9]


def test_alternating_flips_show_each_image_in_turn_as_it_is_and_mirrored() -> None:
    spec, order_N = Augment(flip="alternating"), torch.randperm(60)
    flips: list[Tensor] = []
    for epoch in (1, 2, 3):
        order_N = torch.randperm(60, generator=torch.Generator().manual_seed(epoch))
        changes_NA = draw_changes(spec, 0, epoch, order_N, 8, 60)
        assert changes_NA is not None
        flips.append(changes_NA[order_N.argsort(), Column.FLIP])
    assert torch.equal(flips[0], 1 - flips[1])
    assert torch.equal(flips[0], flips[2])
    assert 10 < int(flips[0].sum()) < 50


@given(st.integers(1, 50), st.integers(1, 12))
def test_partners_are_other_images_of_the_same_batch(count: int, batch_size: int) -> None:
    spec = Augment(mixup=1.0)
    changes_NA = rows(spec, count, batch_size=batch_size)
    _, partner_N, share_N = mixed(made((1, 4, 4), count), changes_NA, batch_size)
    at_N = torch.arange(count)
    assert torch.equal(at_N // batch_size, partner_N // batch_size)
    last = count % batch_size or batch_size
    alone = batch_size == 1 or last == 1
    assert alone or not (at_N == partner_N).any()
    assert 0 <= share_N.min()
    assert share_N.max() <= 1


# ── torchvision, image by image ──────────────────────────────────────────────────────────────────


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 3), st.integers(0, 999))
def test_flip_and_shift_are_torchvisions_flip_and_a_crop_of_reflected_padding(
    shape: tuple[int, int, int], shift: int, seed: int
) -> None:
    pictures_NCHW, spec = made(shape, 6, seed), Augment(flip="random", shift=shift)
    changes_NA = rows(spec, 6, seed)
    for picture, row, got in zip(
        pictures_NCHW, changes_NA, changed(pictures_NCHW, changes_NA, spec), strict=True
    ):
        flip, down, right = row[[Column.FLIP, Column.DOWN, Column.RIGHT]].tolist()
        picture = oracle.hflip(picture) if flip else picture
        padded = oracle.pad(picture, [shift] * 4, padding_mode="reflect")
        wanted = oracle.crop(padded, shift - down, shift - right, shape[1], shape[2])
        assert torch.equal(got, wanted)


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 999))
def test_brightness_is_torchvisions_to_the_byte(shape: tuple[int, int, int], seed: int) -> None:
    pictures_NCHW, spec = made(shape, 6, seed), Augment(brightness=1.0)
    changes_NA = rows(spec, 6, seed)
    got_NCHW = changed(pictures_NCHW, changes_NA, spec)
    for picture, row, got in zip(pictures_NCHW, changes_NA, got_NCHW, strict=True):
        factor = row[Column.BRIGHTNESS].item() / ONE
        assert torch.equal(got, oracle.adjust_brightness(picture, factor))


def test_contrast_is_torchvisions_to_one_level_and_nearly_always_the_same() -> None:
    spec = Augment(contrast=1.0)
    differences: list[Tensor] = []
    for shape in ((3, 32, 32), (1, 28, 28), (3, 5, 7)):
        pictures_NCHW = made(shape, 60)
        changes_NA = rows(spec, 60)
        got_NCHW = changed(pictures_NCHW, changes_NA, spec)
        for picture, row, got in zip(pictures_NCHW, changes_NA, got_NCHW, strict=True):
            wanted = oracle.adjust_contrast(picture, row[Column.CONTRAST].item() / ONE)
            differences.append((got.int() - wanted.int()).abs().flatten())
    difference = torch.cat(differences)
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.02


def test_rotation_and_scale_are_torchvisions_on_reflected_padding_to_one_level() -> None:
    """Twice the side as padding, so that the oracle, too, sees nothing but reflected pixels."""
    spec, differences = Augment(rotate=45.0, scale=0.3), list[Tensor]()
    for shape in ((3, 32, 32), (1, 28, 28), (3, 12, 20)):
        pictures_NCHW = made(shape, 30)
        pictures_NCHW = torch.nn.functional.avg_pool2d(pictures_NCHW.float(), 3, 1, 1)
        pictures_NCHW = pictures_NCHW.to(torch.uint8)
        changes_NA = rows(spec, 30)
        got_NCHW, pad = changed(pictures_NCHW, changes_NA, spec), min(shape[1:]) - 1
        for picture, row, got in zip(pictures_NCHW, changes_NA, got_NCHW, strict=True):
            padded = oracle.pad(picture, [pad] * 4, padding_mode="reflect")
            turned = oracle.affine(
                padded, row[Column.TURN].item() / TURN, [0, 0], row[Column.SIZE].item() / SIZE,
                [0.0], InterpolationMode.BILINEAR,
            )  # fmt: skip
            wanted = oracle.crop(turned, pad, pad, *shape[1:])
            differences.append((got.int() - wanted.int()).abs().flatten())
    difference = torch.cat(differences)
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.02


@given(st.integers(1, 12), st.integers(0, 99))
def test_cutout_hides_one_square_whose_middle_is_in_the_image(side: int, seed: int) -> None:
    pictures_NCHW, spec = torch.full((40, 3, 9, 11), 7, dtype=torch.uint8), Augment(cutout=side)
    got_NCHW = changed(pictures_NCHW, rows(spec, 40, seed), spec)
    for got in got_NCHW:
        hidden = got[0] == FILL[0]
        assert torch.equal(hidden, got[1] == FILL[1])
        assert torch.equal(hidden, got[2] == FILL[2])
        down, across = hidden.any(1), hidden.any(0)
        assert torch.equal(hidden, down[:, None] & across[None, :])
        assert bool(hidden.any())
        for line in (down, across):
            at = line.nonzero()[:, 0]
            length = int(at[-1] - at[0]) + 1
            assert length == len(at) <= side
            touches = at[0] == 0 or at[-1] == len(line) - 1
            assert length == side or touches
        assert (got[:, ~hidden] == 7).all()


SPACES: dict[str, Any] = {
    "randaugment": autoaugment.RandAugment(),
    "trivialaugment": autoaugment.TrivialAugmentWide(),
}
EXACT = {
    "Identity", "TranslateX", "TranslateY", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
}  # fmt: skip


def magnitude_of(policy: str, operation: str, level: int, shape: tuple[int, ...]) -> float:
    """Return torchvision's own magnitude."""
    size = shape[-2], shape[-1]
    space = SPACES[policy]._augmentation_space(
        *((LEVELS, size) if policy == "randaugment" else (LEVELS,))
    )
    magnitudes, signed = space[operation]
    value = float(magnitudes[abs(level)].item()) if magnitudes.ndim > 0 else 0.0
    return -value if signed and level < 0 else value


@pytest.mark.parametrize("policy", SPACES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 11, 17)])
def test_each_operation_of_a_policy_is_torchvisions(
    policy: str, operation: str, shape: tuple[int, int, int]
) -> None:
    levels = [*range(-LEVELS + 1, LEVELS, 3)]
    pictures_NCHW = made(shape, len(levels))
    pictures_NCHW[::2] = pictures_NCHW[::2] // 3 + 60  # so that there is contrast to be gained
    number = torch.full((len(levels),), list(OPERATIONS).index(operation))
    fill = list(FILL[: shape[0]])
    got_NCHW = apply_policy(
        pictures_NCHW, number, torch.tensor(levels), policy, torch.tensor(fill).to(torch.uint8)
    )
    different = 0
    for picture, level, got in zip(pictures_NCHW, levels, got_NCHW, strict=True):
        magnitude = magnitude_of(policy, operation, level, shape)
        wanted = autoaugment._apply_op(
            picture, operation, magnitude, InterpolationMode.NEAREST, fill
        )
        different += int((got != wanted).sum())
    # The nearest pixel differs where a coordinate lies halfway between two, as rounding decides.
    share = different / got_NCHW.numel()
    assert share == 0 if operation in EXACT else share < 0.005, (operation, share)


def test_our_operations_are_torchvisions_in_their_order() -> None:
    for space in (
        SPACES["randaugment"]._augmentation_space(LEVELS, (32, 32)),
        SPACES["trivialaugment"]._augmentation_space(LEVELS),
    ):
        assert list(space) == list(OPERATIONS)
    assert len(OPERATIONS) == OPERATIONS_DRAWN


def test_constant_images_survive_every_operation() -> None:
    pictures_NCHW = torch.full((14, 3, 8, 8), 90, dtype=torch.uint8)
    got_NCHW = apply_policy(
        pictures_NCHW, torch.arange(14), torch.full((14,), 9), "randaugment", fill_of((0.5,), 3)
    )
    for name in ("AutoContrast", "Equalize", "Identity"):
        assert (got_NCHW[list(OPERATIONS).index(name)] == 90).all()


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────


def test_mixup_is_the_weighted_mean_rounded() -> None:
    pictures_NCHW, changes_NA = made((3, 6, 6), 30), rows(Augment(mixup=0.8), 30)
    got_NCHW, partner_N, share_N = mixed(pictures_NCHW, changes_NA, 4)
    share_N111 = share_N.double()[:, None, None, None]
    wanted = share_N111 * pictures_NCHW + (1 - share_N111) * pictures_NCHW[partner_N]
    assert (got_NCHW - wanted).abs().max() <= 0.5
    assert torch.equal(share_N * ONE, changes_NA[:, Column.SHARE].float())


def test_cutmix_pastes_a_box_and_the_share_is_the_area_that_is_left() -> None:
    N, H, W = 200, 10, 14
    pictures_NCHW = torch.arange(N)[:, None, None, None].expand(N, 1, H, W).to(torch.uint8)
    got_NCHW, partner_N, share_N = mixed(pictures_NCHW, rows(Augment(cutmix=1.0), N), 4)
    for image, (got, partner) in enumerate(zip(got_NCHW, partner_N.tolist(), strict=True)):
        own = got[0] == image
        assert torch.equal(~own, got[0] == partner)
        assert share_N[image].item() == pytest.approx(own.double().mean().item())
        box = ~own
        assert torch.equal(box, box.any(1)[:, None] & box.any(0)[None, :])
    assert 0.2 < share_N.mean() < 0.8


def test_with_both_half_of_the_images_are_blended() -> None:
    boxes = rows(Augment(mixup=0.2, cutmix=1.0), 2000)[:, Column.BOX].sum().item()
    assert 1000 - 5 * 500**0.5 < boxes < 1000 + 5 * 500**0.5


# ── in C ─────────────────────────────────────────────────────────────────────────────────────────

SPECS = [
    Augment(flip="random"),
    Augment(shift=2),
    Augment(flip="alternating", shift=3, cutout=4),
    Augment(brightness=1.0, cutout=30),
    Augment(contrast=1.0),
    Augment(rotate=180.0, scale=0.5),
    EVERYTHING.model_copy(update={"policy": "none"}),
]


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 5, 9), (4, 7, 4)])
def test_the_c_writes_the_bytes_that_torch_does(spec: Augment, shape: tuple[int, int, int]) -> None:
    source_NCHW = made(shape, 50)
    index_N = torch.randint(50, (300,), generator=torch.Generator().manual_seed(1))
    changes_NA = draw_changes(spec, 3, 2, index_N, 16, 50)
    assert changes_NA is not None
    fill_C = fill_of((0.3,), shape[0])
    wanted_NCHW = augmented(source_NCHW, index_N, changes_NA, spec, fill_C)
    for threads in (1, 3):
        out_NCHW = torch.zeros(310, *shape, dtype=torch.uint8)
        native = NativePass(spec, shape, changes_NA.shape[1], threads)
        native(source_NCHW, index_N, changes_NA, fill_C, out_NCHW)
        assert torch.equal(out_NCHW[:300], wanted_NCHW)
        assert not out_NCHW[300:].any()


def test_the_c_refuses_what_it_would_read_beyond() -> None:
    spec, images_NCHW = Augment(flip="random"), made((1, 4, 4), 5)
    native, fill_C = NativePass(spec, (1, 4, 4), columns_of(spec), 1), fill_of(None, 1)
    changes_NA, out_NCHW = rows(spec, 2), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    for index in ([0, 5], [-1, 0], [0]):
        with pytest.raises(ValueError, match=r"index|rows"):
            native(images_NCHW, torch.tensor(index), changes_NA, fill_C, out_NCHW)
    with pytest.raises(ValueError, match="contiguous"):
        native(images_NCHW.transpose(2, 3), torch.tensor([0, 1]), changes_NA, fill_C, out_NCHW)


@given(st.integers(-100, 100), st.integers(1, 12))
def test_reflection_is_numpys(at: int, side: int) -> None:
    line = np.pad(np.arange(side), 100, mode="reflect") if side > 1 else np.zeros(201, int)
    if -100 <= at < side + 100:
        assert reflected(torch.tensor([at]), side).item() == line[min(at + 100, len(line) - 1)]


def test_a_shift_beyond_the_image_is_refused_with_the_most_that_fits() -> None:
    check_size(Augment(shift=27), (1, 28, 30))
    with pytest.raises(HydrofoilError, match=r"augment\.shift = 28: expected at most 27"):
        check_size(Augment(shift=28), (1, 28, 30))
