from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hydrofoil import Classifier, HydrofoilError, build, load, predict, read_recipe
from hydrofoil.data import image_readers
from hydrofoil.ship.import_weights import read_weights
from hydrofoil.ship.predict import read_picture

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return build(read_recipe("cifar10-lenet"), COLOUR, tuple("abcdefghij")).eval()


def saved(image: Image.Image, name: str) -> Path:
    image.save(name)
    return Path(name)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", ["p.png", "p.bmp", "p.webp"])
def test_a_picture_of_the_right_shape_arrives_unchanged(name: str, model: Classifier) -> None:
    pixels = noise(32, 32, 3)
    image = Image.fromarray(pixels)
    image.save(name, **({"lossless": True} if name.endswith("webp") else {}))
    picture_CHW, done = read_picture(Path(name), COLOUR)
    np.testing.assert_array_equal(picture_CHW.permute(1, 2, 0).numpy(), pixels)
    assert done == ()
    probabilities = predict(model, name).probabilities
    assert sum(probabilities.values()) == pytest.approx(1)
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
    expected = model(picture_CHW[None])[0].detach().softmax(0)
    assert probabilities["c"] == pytest.approx(float(expected[2]), rel=1e-5)
    assert predict(model, picture_CHW) == predict(model, name)


def test_a_jpeg_is_read() -> None:
    picture_CHW, done = read_picture(saved(Image.new("RGB", (32, 32), "red"), "p.jpg"), COLOUR)
    assert abs(int(picture_CHW[0, 5, 5]) - 255) < 5
    assert done == ()


def test_what_is_done_to_a_picture_is_said() -> None:
    path = saved(Image.fromarray(noise(60, 100)), "gray.png")
    picture_CHW, done = read_picture(path, COLOUR)
    assert picture_CHW.shape == COLOUR
    assert torch.equal(picture_CHW[0], picture_CHW[2])
    assert done == (
        "gray → color",
        "cropped from 100×60 to the central 60×60",
        "resized from 60×60 to 32×32",
    )


def test_color_becomes_gray_by_luminance() -> None:
    picture_CHW, done = read_picture(saved(Image.new("RGB", (28, 28), (0, 255, 0)), "p.png"), GREY)
    assert done == ("color → gray",)
    assert picture_CHW.unique().tolist() == [150]  # 0.587 · 255, ITU-R 601


def test_transparency_is_laid_on_white() -> None:
    picture_CHW, done = read_picture(
        saved(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "p.png"), COLOUR
    )
    assert picture_CHW.unique().tolist() == [255]
    assert "transparency → white" in done


def test_a_palette_with_a_transparent_color_is_read() -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save("p.gif", transparency=0)
    picture_CHW, _ = read_picture(Path("p.gif"), COLOUR)
    assert picture_CHW.unique().tolist() == [255]


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    values = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    picture_CHW, done = read_picture(saved(Image.fromarray(values), "p.png"), GREY)
    np.testing.assert_allclose(picture_CHW[0].numpy(), values / 257, atol=0.51)
    assert done == ("values 0 to 65535 → 8 bit",)


def test_a_tiff_without_a_turn_is_not_said_to_be_turned() -> None:
    picture_CHW, done = read_picture(saved(Image.fromarray(noise(28, 28)), "p.tiff"), GREY)
    assert (picture_CHW.shape, done) == (GREY, ())


def test_float_pictures_span_their_own_values() -> None:
    values = np.linspace(-1, 3, 28 * 28).reshape(28, 28).astype(np.float32)
    picture_CHW, done = read_picture(saved(Image.fromarray(values), "p.tiff"), GREY)
    np.testing.assert_allclose(picture_CHW[0].numpy(), (values + 1) * 63.75, atol=0.51)
    assert done == ("values -1 to 3 → 8 bit",)
    values[3, 3] = np.nan
    with pytest.raises(HydrofoilError, match="pixels that are not numbers"):
        read_picture(saved(Image.fromarray(values), "q.tiff"), GREY)


def test_ink_on_paper_is_inverted_on_request(model: Classifier) -> None:
    pixels = noise(32, 32, 3)
    path = saved(Image.fromarray(pixels), "p.png")
    inverted = saved(Image.fromarray(255 - pixels), "q.png")
    asked = predict(model, path, invert=True)
    assert asked.probabilities == predict(model, inverted).probabilities
    assert asked.done == ("inverted",)


def test_a_picture_is_turned_as_its_exif_tag_says() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save("p.png", exif=exif)
    picture_CHW, done = read_picture(Path("p.png"), COLOUR)
    assert int(picture_CHW[0, 5, 25]) == 255
    assert int(picture_CHW[0, 5, 5]) == 0
    assert done == ("turned as its EXIF tag says",)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (700, 20)])
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_any_size_fits(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    path = saved(Image.new("RGB", size, "blue"), "p.png")
    assert read_picture(path, shape)[0].shape == shape


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"]
)
def test_any_mode_fits(mode: str) -> None:
    path = saved(Image.new(mode, (40, 40)), "p.tiff")
    assert read_picture(path, COLOUR)[0].shape == COLOUR


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file"),
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "a damaged image"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes | None, complaint: str) -> None:
    if content is not None:
        Path("p.png").write_bytes(content)
    with pytest.raises(HydrofoilError, match=complaint) as caught:
        read_picture(Path("p.png"), COLOUR)
    assert "p.png" in str(caught.value)


def test_a_folder_is_no_picture() -> None:
    Path("folder").mkdir()
    with pytest.raises(HydrofoilError, match="cannot be read: Is a directory"):
        read_picture(Path("folder"), COLOUR)


@pytest.mark.parametrize("format_", ["png", "jpg", "bmp", "webp", "gif", "tiff"])
@pytest.mark.parametrize("keep", [20, 60, 200, -30])
def test_a_cut_off_picture_is_named_or_read(format_: str, keep: int) -> None:
    path = saved(Image.fromarray(noise(32, 32, 3)), f"p.{format_}")
    path.write_bytes(path.read_bytes()[:keep])
    try:
        assert read_picture(path, COLOUR)[0].shape == COLOUR
    except HydrofoilError as error:
        assert path.name in str(error)


def test_a_picture_too_large_to_decode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.new("L", (200, 200)), "p.png")
    monkeypatch.setattr(image_readers, "MOST_PIXELS", 30_000)
    with pytest.raises(HydrofoilError, match="too large an image"):
        read_picture(path, GREY)


def test_weights_from_elsewhere_run_no_code() -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (Path("canary"),))

    torch.save({"conv1.weight": Canary()}, "evil.pt")
    with pytest.raises(HydrofoilError, match="could run code, so it is refused"):
        read_weights(Path("evil.pt"))
    assert not Path("canary").exists()


@pytest.mark.parametrize("content", [b"", b"junk", None, b"PK\x03\x04junk"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_broken_weights_are_named(content: bytes | None, suffix: str) -> None:
    path = Path(f"w.{suffix}")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HydrofoilError, match=f"w.{suffix}"):
        read_weights(path)


def test_a_whole_model_is_no_state_dict() -> None:
    for content in ([torch.zeros(1)], {1: torch.zeros(1)}, {"x": 3}):
        torch.save(content, "list.pt")
        with pytest.raises(HydrofoilError, match="expected a state dict"):
            read_weights(Path("list.pt"))
    assert load("digits")  # and reading goes on
