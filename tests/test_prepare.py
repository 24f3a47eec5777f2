"""Preparation as the training images were prepared, and the check in front of the network."""

import json
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import ndimage

from hydrofoil import HydrofoilError, Pictures, load
from hydrofoil.data.decode import Decoded, decode
from hydrofoil.data.statistics import Statistics, find_content, measure_statistics
from hydrofoil.ship.drawing import dilate, find_drawing, place_drawing
from hydrofoil.ship.prepare import Preparation, Prepared, fits, prepare

AS_IS = Preparation(as_is=True)
SHAPE = (1, 28, 28)


def stroke(rng: np.random.Generator) -> np.ndarray:
    """Return 28×28 pixels with a pin, made as MNIST's digits: 20 high, centered by mass."""
    page = np.zeros((84, 84), np.float32)
    top, bottom, head = *rng.integers(30, 55, 2), rng.integers(18, 60)
    for row in range(12, 72):
        column = round(top + (bottom - top) * (row - 12) / 60)
        half = 11 if row < head else 4
        page[row, column - half : column + half + 1] = 255
    small = np.asarray(Image.fromarray(page).resize((28, 28), Image.Resampling.BOX))
    rows, columns = ndimage.center_of_mass(small)
    moved = np.roll(small, (round(13.5 - rows), round(13.5 - columns)), (0, 1))
    return moved.round().astype(np.uint8)


@cache
def strokes() -> Pictures:
    rng = np.random.default_rng(0)
    pictures_NCHW = torch.from_numpy(np.stack([stroke(rng)[None] for _ in range(300)]))
    return Pictures(pictures_NCHW, torch.zeros(300, dtype=torch.int64), ("line",), "strokes")


@cache
def made() -> Statistics:
    return measure_statistics(strokes(), torch.arange(250))


def decoded(pixels: np.ndarray) -> Decoded:
    pixels_HWC = pixels[..., None] if pixels.ndim == 2 else pixels
    return Decoded(pixels_HWC, 1, (pixels.shape[1], pixels.shape[0]), ())


def like_training(pixels: np.ndarray, how: Preparation | None = None) -> Prepared:
    return prepare(decoded(pixels), SHAPE, made(), how)


def on_page(small: np.ndarray, page: tuple[int, int], at: tuple[int, int], side: int) -> np.ndarray:
    """Return dark ink on light paper, in shadow to one side: the small picture, enlarged."""
    size = side, side
    ink = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)) / 255
    paper = np.linspace(225, 170, page[1])[None] + np.linspace(0, 20, page[0])[:, None]
    paper = paper + np.random.default_rng(1).normal(0, 2, page)
    paper[at[0] : at[0] + side, at[1] : at[1] + side] -= 130 * ink
    return paper.clip(0, 255).astype(np.uint8)


def test_statistics_tell_how_a_set_was_made() -> None:
    found = made()
    assert found.bright_on_dark
    assert found.strokes
    assert not found.dark_on_light
    assert found.by_mass == (True, True)
    assert found.long_side[1] == pytest.approx(20 / 28, abs=0.04)
    negatives = Pictures(255 - strokes().pictures_NCHW, strokes().labels_N, ("line",), "negatives")
    negative = measure_statistics(negatives, torch.arange(250))
    assert negative.dark_on_light
    assert negative.long_side == found.long_side


def test_statistics_of_the_real_digits_show_strokes_and_photographs_show_none() -> None:
    digits = load("digits")
    found = measure_statistics(digits, torch.arange(1200))
    assert found.bright_on_dark
    assert found.strokes
    rng = np.random.default_rng(0)
    noise_NCHW = torch.from_numpy(rng.integers(0, 256, (50, 3, 32, 32), np.uint8))
    noise = Pictures(noise_NCHW, torch.zeros(50, dtype=torch.int64), ("noise",), "noise")
    unlike = measure_statistics(noise, torch.arange(50))
    found = unlike.bright_on_dark, unlike.dark_on_light, unlike.strokes
    assert found == (False, False, False)


def test_only_the_training_split_is_measured() -> None:
    pictures_NCHW = strokes().pictures_NCHW.clone()
    pictures_NCHW[250:] = 255
    changed = Pictures(pictures_NCHW, strokes().labels_N, ("line",), "strokes")
    assert measure_statistics(changed, torch.arange(250)) == made()


def test_statistics_survive_json_and_nothing_else_is_taken_for_them() -> None:
    content = json.loads(json.dumps(made().as_dict()))
    assert Statistics.from_dict(content) == made()
    for wrong in ({}, content | {"cover": [1.0]}, content | {"flat": "much"}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Statistics.from_dict(wrong)


@given(st.integers(0, 2**32 - 1))
def test_content_is_where_scipy_finds_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gray_HW = np.where(rng.random((9, 12)) < 0.1, rng.integers(100, 256, (9, 12)), 0)
    content = find_content(gray_HW[None].astype(np.float32), 0.0, 255.0)
    if not gray_HW.any():
        assert content.box_N4[0].tolist() == [0, 8, 0, 11]
        return
    rows, columns = ndimage.find_objects((gray_HW > 63.75).astype(int))[0]
    assert content.box_N4[0].tolist() == [
        rows.start,
        rows.stop - 1,
        columns.start,
        columns.stop - 1,
    ]
    assert content.mass_N2[0] == pytest.approx(ndimage.center_of_mass(gray_HW))


def test_images_of_the_set_itself_arrive_unchanged() -> None:
    for picture_CHW in strokes().pictures_NCHW[250:]:
        prepared = like_training(picture_CHW[0].numpy())
        assert torch.equal(prepared.picture_CHW, picture_CHW)
        assert prepared.done == ()
        assert prepared.notes == ()


def test_a_negative_is_inverted_back_to_the_same_pixels() -> None:
    for picture_CHW in strokes().pictures_NCHW[250:]:
        prepared = like_training(255 - picture_CHW[0].numpy())
        assert torch.equal(prepared.picture_CHW, picture_CHW)
        assert prepared.done[0] == "inverted"
        assert "--as-is turns this off" in prepared.done[-1]


def pages() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    for picture_CHW in strokes().pictures_NCHW[250:270]:
        small = picture_CHW[0].numpy()
        side = int(rng.integers(70, 200))
        at = int(rng.integers(2, 298 - side)), int(rng.integers(2, 398 - side))
        yield small, on_page(small, (300, 400), at, side)


def test_ink_on_a_shaded_page_becomes_the_image_that_was_drawn() -> None:
    for small, page in pages():
        prepared = like_training(page)
        picture_HW = prepared.picture_CHW[0].numpy()
        assert prepared.done[0] == "inverted: dark ink on a light background"
        assert "cut out, scaled and centered" in prepared.done[1]
        assert fits(picture_HW[..., None], made())
        # Of the pixels that matter: their correlation with the original.
        assert np.corrcoef(picture_HW.ravel(), small.ravel())[0, 1] > 0.8
        assert np.allclose(
            ndimage.center_of_mass(picture_HW), ndimage.center_of_mass(small), atol=1.1
        )


def test_as_is_leaves_a_page_alone_and_says_what_is_odd() -> None:
    for _, page in pages():
        prepared = like_training(page, AS_IS)
        alone = prepare(decoded(page), SHAPE)
        assert torch.equal(prepared.picture_CHW, alone.picture_CHW)
        assert any("brighter than 99.9%" in note and "--invert" in note for note in prepared.notes)


def test_an_explicit_inversion_comes_first_and_is_not_undone() -> None:
    _, page = next(pages())
    inverted = like_training(page, Preparation(invert=True))
    assert inverted.done[0] == "inverted"
    assert not any("ink" in step for step in inverted.done)
    assert torch.equal(inverted.picture_CHW, like_training(page).picture_CHW)
    wrong = like_training(255 - page, Preparation(invert=True))
    assert torch.equal(wrong.picture_CHW, 255 - inverted.picture_CHW)
    assert "--invert" in wrong.notes[0]


def test_a_drawing_outside_of_the_central_square_is_found_and_missed_as_is() -> None:
    page = np.zeros((100, 400), np.uint8)
    page[20:80, 30:40] = 255
    prepared = like_training(page)
    assert "a crop to the center would be blank" in prepared.done
    assert int(prepared.picture_CHW.max()) == 255
    left_out = like_training(page, AS_IS)
    assert left_out.notes == (
        "the image is blank after preparation: the content is outside the central crop; "
        "leave out --as-is, or crop it yourself",
    )


def test_dust_and_the_shadow_at_the_edge_are_no_part_of_a_drawing() -> None:
    page = np.full((200, 200), 230, np.uint8)
    page[60:140, 90:104] = 40
    clean = find_drawing(page)
    page[10:12, 10:12] = 40  # dust
    page[:, 196:] = 60  # the table beside the page
    dirty = find_drawing(page)
    assert clean is not None
    assert dirty is not None
    assert dirty.size == clean.size == (14, 80)
    assert dirty.dark


@given(value=st.integers(0, 255), noise=st.floats(0, 3))
def test_an_empty_page_holds_no_drawing(value: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    page = (value + rng.normal(0, noise, (120, 90))).clip(0, 255).astype(np.uint8)
    assert find_drawing(page) is None
    prepared = prepare(decoded(page), SHAPE, made())
    assert len(prepared.notes) == 1
    assert "blank" in prepared.notes[0]


@given(
    rows=st.integers(1, 120), columns=st.integers(1, 120), seed=st.integers(0, 2**32 - 1),
    sides=st.tuples(st.integers(8, 40), st.integers(8, 40)),
)  # fmt: skip
def test_a_drawing_of_any_shape_is_placed_inside_the_image(
    rows: int, columns: int, seed: int, sides: tuple[int, int]
) -> None:
    page = np.zeros((rows + 40, columns + 40), np.uint8)
    rng = np.random.default_rng(seed)
    page[20 : 20 + rows, 20 : 20 + columns] = rng.integers(60, 256, (rows, columns))
    drawing = find_drawing(page)
    if drawing is not None:
        placed_HW = place_drawing(drawing, sides, made())
        assert placed_HW.shape == sides
        assert placed_HW.max() == 255


def transparent(ink: int) -> np.ndarray:
    """Return a stroke of one brightness on transparency, as RGBA."""
    alpha = np.zeros((60, 60), np.uint8)
    alpha[10:50, 25:35] = 255
    return np.dstack([np.full((60, 60, 3), ink, np.uint8), alpha])


@pytest.mark.parametrize(("ink", "background"), [(255, 0), (0, 255)])
def test_transparency_is_composed_onto_what_keeps_the_drawing(ink: int, background: int) -> None:
    prepared = prepare(decoded(transparent(ink)), (3, 60, 60))
    assert prepared.picture_CHW.unique().tolist() == [0, 255]
    assert int(prepared.picture_CHW[0, 0, 0]) == background
    assert prepared.notes == ()
    chosen = "transparency → black: on white the image would be blank"
    assert (prepared.done[0] == chosen) == (ink == 255)


def test_a_background_that_hides_the_drawing_is_named_with_one_that_does_not() -> None:
    for how in (AS_IS, Preparation(background="white")):
        prepared = prepare(decoded(transparent(255)), (3, 60, 60), None, how)
        assert prepared.notes == (
            "the image is blank after preparation: it has the color of the background: "
            "use --background black",
        )
    red = prepare(decoded(transparent(255)), (3, 60, 60), None, Preparation(background="#ff0000"))
    assert red.picture_CHW[:, 0, 0].tolist() == [255, 0, 0]


@given(st.integers(0, 2**32 - 1))
def test_composing_is_pillows_alpha_composite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (9, 7, 4), np.uint8)
    how = Preparation(background="#336699")
    prepared = prepare(decoded(pixels), (3, 9, 7), None, how)
    below = Image.new("RGBA", (7, 9), "#336699")
    expected = np.asarray(Image.alpha_composite(below, Image.fromarray(pixels)))[..., :3]
    found = prepared.picture_CHW.permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("color", ["", "red", "#12345", "#1234567", "ffffff", "White"])
def test_a_background_that_is_no_color_is_refused(color: str) -> None:
    with pytest.raises(HydrofoilError, match="expected white, black or a color such as #ffcc00"):
        Preparation(background=color)


def test_a_blank_first_frame_is_said_to_be_one_of_several() -> None:
    frames = [Image.new("RGB", (40, 40)), Image.new("RGB", (40, 40), "white")]
    frames[0].save("p.gif", save_all=True, append_images=frames[1:], duration=100)
    prepared = prepare(decode("p.gif"), (3, 40, 40))
    assert prepared.done == ("the first of 2 frames",)
    assert prepared.notes == (
        "the image is blank in the first of 2 frames: save another frame and classify that",
    )


def test_content_that_is_tiny_or_cut_off_is_said_where_nothing_is_chosen() -> None:
    page = np.zeros((400, 400), np.uint8)
    page[180:220, 195:205] = 255
    (tiny,) = [note for note in like_training(page, AS_IS).notes if "tiny" in note]
    assert tiny == "the content is tiny, 10×40 of 400×400 pixels: crop the image around it"
    page = np.zeros((100, 180), np.uint8)
    page[20:80, 30:150] = 255
    assert "the crop cuts off part of the content: crop the image around it" in (
        like_training(page, AS_IS).notes
    )


@pytest.mark.parametrize("radius", [1, 2, 5, 25])
def test_dilation_is_pillows_maximum_filter(radius: int) -> None:
    values_HW = np.random.default_rng(radius).integers(0, 256, (41, 60)).astype(np.uint8)
    expected = Image.fromarray(values_HW).filter(ImageFilter.MaxFilter(2 * radius + 1))
    np.testing.assert_array_equal(dilate(values_HW, radius), np.asarray(expected))


# ── centering on request ─────────────────────────────────────────────────────────────────────────

CENTER = Preparation(center=True)


def as_mnists_makers(picture_HW: np.ndarray, center: float = 14) -> None:
    """Hold a drawing against MNIST's rule: bright, 20 of 28 long, centered by mass in pixel 14."""
    ink_HW = np.where(picture_HW > 64, picture_HW.astype(float), 0)
    rows, columns = np.flatnonzero(ink_HW.any(1)), np.flatnonzero(ink_HW.any(0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    np.testing.assert_allclose(ndimage.center_of_mass(ink_HW), (center, center), atol=0.6)
    assert np.median(picture_HW) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_center_makes_ink_on_paper_an_image_of_mnist_without_knowing_the_training_images(
    channels: int,
) -> None:
    page = on_page(stroke(np.random.default_rng(4)), (480, 640), (200, 330), 200)
    found = prepare(decoded(page), (channels, 28, 28), None, CENTER)
    for plane_HW in found.picture_CHW.numpy():
        as_mnists_makers(plane_HW)
    assert "inverted: dark ink on a light background" in found.done
    assert found.done[-1] == "as in MNIST"


def test_center_also_moves_what_looks_like_a_training_image() -> None:
    small = stroke(np.random.default_rng(7))
    moved = np.roll(small, 1, 1)
    assert fits(moved[..., None], made())
    kept, centered = like_training(moved), like_training(moved, CENTER)
    assert np.array_equal(kept.picture_CHW[0], moved)
    as_mnists_makers(centered.picture_CHW[0].numpy(), center=13.5)  # as `stroke` centers
    assert centered.done[-1] == "like the training images"


def test_center_keeps_the_background_of_training_images_that_are_no_strokes() -> None:
    """Dark solid shapes on white, of all sizes: size and place are MNIST's, the colors theirs."""
    rng = np.random.default_rng(0)
    pictures_NCHW = torch.full((60, 1, 28, 28), 255, dtype=torch.uint8)
    for number in range(60):
        top, side = rng.integers(2, 10), rng.integers(6, 18)
        pictures_NCHW[number, 0, top : top + side, top : top + side] = 0
    shapes = Pictures(pictures_NCHW, torch.zeros(60, dtype=torch.int64), ("shape",), "shapes")
    theirs = measure_statistics(shapes, torch.arange(60))
    assert theirs.dark_on_light
    assert not theirs.strokes
    page = 255 - on_page(stroke(np.random.default_rng(4)), (480, 640), (200, 330), 200)
    found = prepare(decoded(page), SHAPE, theirs, CENTER)
    as_mnists_makers(255 - found.picture_CHW[0].numpy())
    assert "inverted: bright ink on a dark background" in found.done


def test_center_of_an_empty_page_leaves_it_and_says_so() -> None:
    noise = np.random.default_rng(2).normal(200, 3, (300, 300)).clip(0, 255).astype(np.uint8)
    found = prepare(decoded(noise), SHAPE, made(), CENTER)
    assert not any("centered" in done for done in found.done)
    assert found.notes


def test_center_and_as_is_contradict_each_other() -> None:
    with pytest.raises(HydrofoilError, match=r"--center and --as-is: .*\nLeave one of them out"):
        Preparation(as_is=True, center=True)
