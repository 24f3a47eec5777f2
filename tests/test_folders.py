"""Folders of class folders as datasets: what is read, what is left out, what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hydrofoil as hf
from hydrofoil.data.decode import decode
from hydrofoil.data.fitting import fitted
from hydrofoil.recipe.source import is_path
from hydrofoil.ship.predict import to_model_input
from tests.sets import CLASSES, image, write_folder

SHORT = ("train.epochs=1", "train.batch_size=16")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets")


def test_class_folders_become_classes_in_their_sorted_order(pets: Path) -> None:
    pictures = hf.load(pets)
    assert pictures.classes == CLASSES
    assert pictures.shape == (3, 16, 16)  # the median shorter side
    assert pictures.counts(torch.arange(len(pictures))) == [8, 8, 8]
    assert pictures.names[:2] == ("bird/0.png", "bird/1.png")


def test_pixels_are_pillows_center_crop_resized_with_antialiasing(pets: Path) -> None:
    pictures = hf.load(pets, size=8)
    for number in (0, 9, 20):
        with Image.open(pets / pictures.names[number]) as file:
            expected = file.resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 18, 16))
        ours_HWC = pictures.pictures_NCHW[number].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ours_HWC, np.asarray(expected))


@pytest.mark.parametrize("name", ["train", "TRAINING"])
def test_parts_below_the_folder_are_kept(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "set", 4, (name, "val", "test"))
    pictures = hf.load(tmp_path / "set")
    split = hf.draw_split(pictures)
    assert [len(part) for part in (split.train, split.valid, split.test)] == [12, 12, 12]
    for part, folder in ((split.train, name), (split.valid, "val"), (split.test, "test")):
        assert {pictures.names[at].split("/")[0] for at in part.tolist()} == {folder}


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(3):
            image(0, number).save(tmp_path / "set" / name / f"{number}.png")
    assert hf.load(tmp_path / "set").classes == ("test", "train")


def test_a_run_on_a_folder_predicts_its_own_images_from_the_same_pixels(pets: Path) -> None:
    for number in range(3):  # a JPEG large enough to be decoded at a reduced scale
        image(0, number, (300, 200)).save(pets / "bird" / f"large{number}.jpg")
    tall = image(1, 7, (40, 90)).convert("RGBA")
    tall.putalpha(Image.linear_gradient("L").resize(tall.size))
    tall.save(pets / "cat" / "clear.png")
    run = hf.train("digits", ["data.source=./pets", *SHORT], run="r", test=True)
    pictures = hf.load(run.recipe.data)
    model, _ = run.load_best()
    for number, name in enumerate(pictures.names):
        seen_CHW = to_model_input(model, pets / name).picture_CHW
        assert torch.equal(seen_CHW, pictures.pictures_NCHW[number]), name


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_each_fit_is_kept_in_the_run(pets: Path, fit: str) -> None:
    run = hf.train(
        "digits", ["data.source=./pets", f"data.fit={fit}", "data.size=[12, 18]", *SHORT]
    )
    pictures, (model, _) = hf.load(run.recipe.data), run.load_best()
    assert model.shape == (3, 12, 18)
    seen_CHW = to_model_input(model, pets / pictures.names[3]).picture_CHW
    assert torch.equal(seen_CHW, pictures.pictures_NCHW[3])


def test_padding_keeps_the_whole_image_between_bars_of_its_borders_color() -> None:
    wide = Image.new("RGB", (40, 20), (10, 200, 30))
    wide.paste((255, 0, 0), (10, 5, 30, 15))
    padded_HWC = np.asarray(fitted(wide, (20, 20), "pad"))
    assert (padded_HWC[:4] == (10, 200, 30)).all()
    assert (padded_HWC[-4:] == (10, 200, 30)).all()
    assert padded_HWC[10, 10].tolist() == [255, 0, 0]


def test_a_set_is_gray_only_if_all_its_images_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(3):
            gray = image(0, number).convert("L")
            gray.convert("RGB" if number else "L").save(tmp_path / "set" / name / f"{number}.png")
    assert hf.load(tmp_path / "set").shape[0] == 1
    image(0, 9).save(tmp_path / "set" / "b" / "9.png")
    colored = hf.load(tmp_path / "set")
    assert colored.shape[0] == 3
    first_CHW = colored.pictures_NCHW[0]
    assert torch.equal(first_CHW[0], first_CHW[2])


def test_the_recipe_of_the_run_repeats_it(pets: Path) -> None:
    first = hf.train("digits", ["data.source=./pets", *SHORT], run="a")
    data = first.recipe.data
    split = first.split()
    scaled = hf.load(data).pictures_NCHW[split.train].double() / 255
    assert data.mean == tuple(round(float(one), 4) for one in scaled.mean((0, 2, 3)))
    assert (data.size, data.valid, data.test) == ((16, 16), 0.1, 0.2)
    second = hf.train("a/recipe.toml", run="b")
    assert second.recipe == first.recipe
    assert second.load_best()[0].weights_hash() == first.load_best()[0].weights_hash()


def test_unreadable_images_are_named_up_to_one_percent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_folder(tmp_path / "set", 40)
    (root / "cat" / "broken.png").write_bytes((root / "cat" / "0.png").read_bytes()[:60])
    pictures = hf.load(root)
    assert len(pictures) == 120
    assert "1 image left out: cannot be read: cat/broken.png (" in caplog.text
    with pytest.raises(hf.HydrofoilError, match=r"cat/broken.png: .*\n.*data.unreadable=skip"):
        hf.load(root, unreadable="stop")
    (root / "dog" / "empty.png").touch()
    with pytest.raises(hf.HydrofoilError, match=r"2 of 122 images cannot be read \(1.6%\)"):
        hf.load(root)


def test_other_files_and_images_without_a_class_are_counted(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pets / "readme.txt").write_text("x")
    (pets / ".hidden.png").write_text("x")
    image(0, 1).save(pets / "loose.png")
    hf.load(pets)
    assert "1 file left out: not images by their names (.txt 1)" in caplog.text
    assert "1 image left out: in no class folder: loose.png" in caplog.text
    assert "hidden" not in caplog.text


REFUSED = {
    "empty": ((), ["no images found", "pets/cat/1.jpg"]),
    "flat": (("1.png", "2.png"), ["2 images without class folders"]),
    "one class": (("cat/1.png", "cat/2.png"), ["one class only, 'cat'"]),
    "other classes": (
        ("train/cat/1.png", "train/dog/1.png", "test/cats/1.png"),
        ["the test part has the class 'cats', which the train part lacks", "Did you mean 'cat'?"],
    ),
    "control characters": (("c\x1b[2Jat/1.png", "dog/1.png"), ["'c\\x1b[2Jat'", "Rename it"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_dataset_is_refused_by_name(tmp_path: Path, case: str) -> None:
    files, expected = REFUSED[case]
    (tmp_path / "set").mkdir()
    for name in files:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image(0, 1).save(path)
    with pytest.raises(hf.HydrofoilError) as error:
        hf.load(tmp_path / "set")
    for text in expected:
        assert text in str(error.value)
    assert "\x1b" not in str(error.value)


def test_links_that_circle_are_named_and_other_links_followed(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.symlink(pets, pets / "cat" / "around")
    os.symlink(write_folder(tmp_path / "more") / "dog", pets / "wolf")
    pictures = hf.load(pets)
    assert pictures.classes == (*CLASSES, "wolf")
    assert len(pictures) == 32
    assert (
        "1 link left out: cat/around: it leads back to itself or to a folder above" in caplog.text
    )


def test_a_class_of_one_image_is_trained_on_and_named(pets: Path) -> None:
    (pets / "rare").mkdir()
    image(0, 5).save(pets / "rare" / "1.png")
    for seed in range(5):
        split = hf.draw_split(hf.load(pets), valid=0.2, test=0.4, seed=seed)
        assert 24 in split.train


def test_files_that_change_while_they_are_read_are_refused(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: object, **options: object) -> object:
        (pets / "dog" / "3.png").touch()
        return decode(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("hydrofoil.data.decoding.decode", slow)
    monkeypatch.setattr("hydrofoil.data.decoding.plain_image", lambda path: None)
    with pytest.raises(hf.HydrofoilError, match=r"dog/3.png changed while it was read"):
        hf.load(pets)


def test_a_second_start_decodes_nothing_and_a_changed_file_is_decoded_again(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hf.load(pets)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("hydrofoil.data.ingest.decode_all", refused)
        assert hf.load(pets).hash == first.hash
    image(2, 77).save(pets / "dog" / "3.png")
    assert hf.load(pets).hash != first.hash


def test_a_run_refuses_files_that_changed_since_its_training(pets: Path) -> None:
    run = hf.train("digits", ["data.source=./pets", *SHORT])
    (pets / "dog" / "3.png").unlink()
    with pytest.raises(hf.HydrofoilError, match=r"restore them, or train a new run"):
        hf.test(run)


def test_a_missing_path_is_an_error_and_a_bare_name_is_shown_as_a_path(pets: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"./pest: no such file or folder"):
        hf.load("./pest")
    with pytest.raises(hf.HydrofoilError, match=r"unknown dataset 'pets'.*\n.*\./pets"):
        hf.load("pets")


@pytest.mark.parametrize(
    ("text", "path"),
    [("mnist", False), ("Fashion MNIST", False), ("./mnist", True), ("..", True),
     ("C:\\pets", True), ("table.CSV", True), ("cifar-10", False), ("pets.tar.gz", True)],
)  # fmt: skip
def test_a_path_is_known_by_its_text(text: str, path: bool) -> None:
    assert is_path(text) == path
