"""Images that nobody made with a network in mind: each is read, or named with its count."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hydrofoil as hf
from hydrofoil import HydrofoilError
from tests.conftest import Cli
from tests.sets import as_png, image, pack, write_folder, write_table

MANY = 34  # images of each of three classes: one of them is less than 1%
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names or links")


def lines_of(source: Path | str, **options: object) -> list[str]:
    """Return what a set says about what was chosen and left out."""
    pictures = hf.load(source, **options)  # type: ignore[arg-type]
    return [*pictures.losses, *pictures.notes]


def frames(count: int) -> list[Image.Image]:
    return [image(1, 500 + number) for number in range(count)]


# ── several images in a file ─────────────────────────────────────────────────────────────────────


def test_animated_images_are_named_and_their_first_frame_is_used(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", 4)
    for name, count in (("a.gif", 5), ("b.png", 4), ("c.webp", 3), ("d.tif", 2)):
        first, *rest = frames(count)
        first.save(pets / "cat" / name, save_all=True, append_images=rest, lossless=True)
    expected = (
        "4 files hold several images, of which one is used: cat/a.gif (the first of 5 frames), "
        "cat/b.png (the first of 4 frames), cat/c.webp (the first of 3 frames) and 1 more"
    )
    for _ in ("decoded", "cached"):
        assert expected in lines_of(pets)
    pictures = hf.load(pets, size=(16, 20))
    at = [str(name) for name in pictures.names].index("cat/b.png")
    first_HWC = np.array(frames(1)[0])
    assert np.array_equal(pictures.pictures_NCHW[at].permute(1, 2, 0).numpy(), first_HWC)


# ── names and links ──────────────────────────────────────────────────────────────────────────────


@POSIX
def test_links_to_themselves_and_to_nothing_stop_nothing(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", MANY)
    (pets / "self").symlink_to("self")
    (pets / "cat" / "up").symlink_to("..")
    (pets / "dog" / "gone.png").symlink_to("nowhere.png")
    said = lines_of(pets)
    (links,) = [line for line in said if line.startswith("2 links left out")]
    assert "self" in links
    assert "cat/up" in links
    assert any("dog/gone.png (cannot be read: No such file" in line for line in said)


@POSIX
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses names that are not UTF-8")
def test_names_that_no_terminal_can_show_are_escaped_by_every_verb(
    cli: Cli, tmp_path: Path
) -> None:
    pets = write_folder(tmp_path / "pets", 8)
    hostile = (b"caf\xe9.png", b"new\nline.png", b"esc\x1b[31m.png", "right\u202egnp.png".encode())
    for name in hostile:
        (pets / "cat" / os.fsdecode(name)).write_bytes(as_png(image(1, 9)))
    (pets / "cat" / "broken\x1b[31m.png").write_bytes(b"no image")
    status, said, errors = cli("show", "./pets")
    assert status == 2
    assert r"cat/broken\x1b[31m.png: not an image" in errors
    (pets / "cat" / "broken\x1b[31m.png").unlink()
    options = ("data=./pets", "epochs=1", "model=mlp", "--run", "r", "--test")
    status, _, errors = cli("train", "digits", *options)
    assert status == 0, errors
    status, said, _ = cli("predict", "r", "pets/cat")
    assert status == 0
    for name in ("caf\\udce9.png", "new\\nline.png", "esc\\x1b[31m.png", "right\\u202egnp.png"):
        assert f"pets/cat/{name}: " in said
    assert "\x1b" not in said
    status, said, _ = cli("predict", "r", "pets/cat", "--json")
    named = {os.fsencode(Path(answer["picture"]).name) for answer in json.loads(said)}
    assert named >= set(hostile)
    for name in hostile:
        status, said, _ = cli("explain", "r", pets / "cat" / os.fsdecode(name), "--out", "out")
        assert status == 0
        assert "\x1b" not in said
    assert cli("report", "r")[0] == 0


@POSIX
def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("two\nlines", "esc\x1b[31m", os.fsdecode(b"caf\xe9"), "right\u202eleft", " "):
        pets = write_folder(tmp_path / str(len(name)) / "pets", 2)
        try:
            (pets / "cat").rename(pets / name)
        except OSError:  # macOS refuses it first
            continue
        with pytest.raises(HydrofoilError, match="has a name that cannot be shown"):
            hf.load(pets)
        shutil.rmtree(pets)


# ── classes and parts ────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_images_is_named_and_is_no_class(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", 4)
    (pets / "horse").mkdir()
    (pets / "notes").mkdir()
    (pets / "notes" / "todo.txt").write_text("more horses")
    pictures = hf.load(pets)
    assert pictures.classes == ("bird", "cat", "dog")
    assert "2 folders without images: horse, notes" in pictures.losses


def test_a_test_part_without_any_image_is_named(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", 4, ("train", "test"))
    for file in (pets / "test").rglob("*.png"):
        file.unlink()
    assert "3 folders without images: test/bird, test/cat, test/dog" in hf.load(pets).losses


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_a_class_that_loses_its_only_readable_image_is_an_error(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    pets = write_folder(tmp_path / "pets", 60, parts)
    for number in range(1, 60):
        (pets / parts[0] / "cat" / f"{number}.png").unlink()
    (pets / parts[0] / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(HydrofoilError, match="no image of cat to train on can be read") as error:
        hf.load(pets)
    assert "cat/0.png: empty" in str(error.value)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def test_two_spellings_of_a_path_are_one_image(tmp_path: Path) -> None:
    table = write_table(tmp_path / "pets")
    rows = table.read_text("utf-8")
    full = (table.parent / "photos" / "cat-2.png").resolve()
    for path in ("./photos/cat-2.png", "photos/../photos/cat-2.png", str(full)):
        table.write_text(f"{rows}{path},dog,train\n", "utf-8")
        with pytest.raises(HydrofoilError, match="has two labels, 'cat' and 'dog'"):
            hf.load(table)
        table.write_text(f"{rows}{path},cat,train\n", "utf-8")
        assert "1 row left out: its image was listed before" in hf.load(table).losses


def test_a_table_may_name_files_elsewhere_by_absolute_and_relative_paths(tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", 3)
    (tmp_path / "tables").mkdir()
    rows = ["path,label"]
    for number, file in enumerate(sorted(other.rglob("*.png"))):
        path = file if number % 2 else Path("..", *file.relative_to(tmp_path).parts)
        rows.append(f"{path},{file.parent.name}")
    table = tmp_path / "tables" / "pets.csv"
    table.write_text("\n".join(rows), "utf-8")
    found, expected = hf.load(table), hf.load(other)
    assert torch.equal(found.pictures_NCHW, expected.pictures_NCHW)
    (other / "cat" / "1.png").write_bytes(as_png(image(2, 77)))
    assert hf.load(table).hash != found.hash  # a changed file is noticed there, too


def test_a_missing_file_is_looked_for_beside_the_table_and_not_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_table(tmp_path / "pets", each=MANY)
    table.write_text(table.read_text("utf-8") + "photos/gone.png,cat,train\n", "utf-8")
    here = tmp_path / "here" / "photos"
    here.mkdir(parents=True)
    (here / "gone.png").write_bytes(as_png(image(1, 1)))
    monkeypatch.chdir(here.parent)
    assert any("photos/gone.png (cannot be read" in line for line in lines_of(table))


def test_a_table_in_an_archive_names_only_files_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.png").write_bytes(as_png(image(1, 1)))
    table = write_table(tmp_path / "pets", each=MANY)
    outside = (str(tmp_path / "secret.png"), "../secret.png", "../../secret.png", "secret.png")
    monkeypatch.chdir(tmp_path)
    for path in outside:
        rows = table.read_text("utf-8")
        table.write_text(f"{rows}{path},cat,train\n", "utf-8")
        packed = pack(table.parent, tmp_path / "pets.tar.gz")
        table.write_text(rows, "utf-8")
        pictures = hf.load(packed)
        assert len(pictures) == 3 * MANY
        assert any("1 image left out: cannot be read" in line for line in pictures.losses), path


# ── files that change ────────────────────────────────────────────────────────────────────────────


def test_nothing_reads_the_files_again_during_a_run_and_the_next_start_notices(
    cli: Cli, tmp_path: Path
) -> None:
    pets = write_folder(tmp_path / "pets")
    options = ("data=./pets", "epochs=2", "model=mlp", "execute=eager", "threads=1")
    assert cli("train", "digits", *options, "--run", "whole")[0] == 0

    moved = tmp_path / "moved"

    class Moving(hf.Observer):
        def epoch(self, epoch: hf.Epoch) -> None:
            if pets.exists():
                pets.rename(moved)

    run = hf.train(
        "digits",
        data="./pets",
        epochs=2,
        overrides={"model.name": "mlp", "train.execute": "eager", "train.threads": 1},
        observers=[Moving()],
        run="r",
    )
    assert moved.exists()
    assert run.model.weights_hash() == hf.Run.open("whole").model.weights_hash()
    moved.rename(pets)
    (pets / "cat" / "1.png").write_bytes(as_png(image(0, 321)))
    status, _, errors = cli("resume", "r", "epochs=3")
    assert status == 2
    assert "data" in errors or "images" in errors


def test_nothing_is_written_beside_the_images(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", 4)
    before = sorted((path, path.stat().st_mtime_ns) for path in pets.rglob("*"))
    hf.load(pets)
    code = "import hydrofoil as hf; hf.load('./pets')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in pets.rglob("*")) == before
