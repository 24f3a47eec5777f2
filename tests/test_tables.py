"""Tables, arrays and archives as sources: what is guessed, and what is refused."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import hydrofoil as hf
from tests.hostile import mutations
from tests.sets import CLASSES, KINDS, as_png, files_below, image, write_folder, write_npz


def write(root: Path, text: str | bytes, images: int = 4) -> Path:
    root.mkdir(exist_ok=True)
    for number in range(images):
        image(number % 2, number).save(root / f"{number}.png")
    table = root / "table.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return table


ROWS = "0.png,a\n1.png,b\n2.png,a\n3.png,b\n"


@pytest.mark.parametrize(
    "text",
    [
        f"path,label\n{ROWS}", f"\ufeffFile Name,Class\n{ROWS}",
        f"path;label\n{ROWS}".replace(",", ";"),
        f"image_id,category\n{ROWS}".replace(".png", ""), f'"path","label"\n{ROWS}\n\n',
        f"path,label\n{ROWS}".replace("\n", "\r\n"), f"path,label\n./{ROWS}",
        f"path,label\n{ROWS}0.png,a\n",
    ],
)  # fmt: skip
def test_usual_tables_are_read_without_being_told_their_columns(tmp_path: Path, text: str) -> None:
    pictures = hf.load(write(tmp_path / "t", text))
    assert pictures.classes == ("a", "b")
    assert pictures.labels_N.tolist() == [0, 1, 0, 1]
    assert any(line.startswith("columns: path in ") for line in pictures.notes)


def test_columns_are_named_by_fields(tmp_path: Path) -> None:
    table = write(tmp_path / "t", f"where,what\n{ROWS}")
    with pytest.raises(hf.HydrofoilError, match=r"where, what.\n.*data.path=COLUMN data.label=COL"):
        hf.load(table)
    assert hf.load(table, path="where", label="what").classes == ("a", "b")
    with pytest.raises(hf.HydrofoilError, match=r"data.label = 'whut'.*Did you mean 'what'"):
        hf.load(table, path="where", label="whut")


def test_a_frame_of_paths_is_read_as_the_table_that_it_is(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = write(tmp_path / "t", f"path,label\n{ROWS}")
    frame = pandas.read_csv(table)
    frame["path"] = "t/" + frame["path"]
    assert hf.load(frame).hash == hf.load(table).hash
    frame["path"] = [str(tmp_path / path) for path in frame["path"]]
    assert hf.load(frame, size=8).shape == (3, 8, 8)
    with pytest.raises(hf.HydrofoilError, match=r"the frame: no column for the path"):
        hf.load(frame.rename(columns={"path": "where"}))


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "two labels": (
        f"path,label\n{ROWS}0.png,b\n",
        r"two labels, 'a' and 'b' \(row 6\)",
    ),
    "missing files": (f"path,label\n{ROWS}9.png,b\n", r"1 of 5 images cannot be read"),
    "unknown split": ("path,label,split\n0.png,a,train\n1.png,b,later\n", r"row 3: split 'later'"),
    "some without a split": ("path,label,split\n0.png,a,train\n1.png,b,\n", r"row 3: split ''"),
    "ragged": ("path,label\n0.png\n", r"row 2 has 1 values"),
    "not text": (b"path,label\n\xff\xfe.png,a\n", r"not text in UTF-8"),
    "empty": ("path,label\n", r"an empty table"),
    "nothing": ("", r"an empty table"),
    "one class": ("path,label\n0.png,a\n1.png,a\n", r"one class only, 'a'"),
    "open quote": ('path,label\n"0.png,a\n', r"line 2: unexpected end of data"),
    "control characters": ("path,label\n0.png,a\x1b[2J\n1.png,b\n", r"the class 'a\\x1b\[2J'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_table_is_an_error_that_names_the_place(tmp_path: Path, case: str) -> None:
    text, expected = REFUSED[case]
    table = write(tmp_path / "t", text)
    with pytest.raises(hf.HydrofoilError, match=expected) as error:
        hf.load(table)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_rows_without_a_label_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(hf.load(write(tmp_path / "t", f"path,label\n{ROWS}4.png,\n"))) == 4
    assert "1 row left out: without a path or label: 4.png" in caplog.text


@pytest.mark.parametrize("fractions", [(0.1, 0.2), (0.25, 0.25), (0.0, 0.3)])
def test_what_belongs_together_stays_on_one_side(
    tmp_path: Path, fractions: tuple[float, float]
) -> None:
    rows = [f"{n}.png,{'ab'[n % 2]},p{n // 3}" for n in range(60)]
    table = write(tmp_path / "t", "path,label,patient\n" + "\n".join(rows) + "\n", 60)
    pictures = hf.load(table)
    assert pictures.groups_N is not None
    for seed in range(4):
        split = hf.draw_split(pictures, valid=fractions[0], test=fractions[1], seed=seed)
        parts = [split.train, split.valid, split.test]
        groups = [set(pictures.groups_N[part].tolist()) for part in parts]
        assert sum(map(len, groups)) == 20
        assert sorted(torch.cat(parts).tolist()) == list(range(60))
        for part, share in zip(parts[1:], fractions, strict=True):
            assert abs(len(part) - share * 60) <= 3  # a group
    assert not hf.draw_split(pictures, test=0.3).test.equal(
        hf.draw_split(pictures, test=0.3, seed=1).test
    )


def test_a_folders_groups_are_its_inner_folders_or_its_names_beginnings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(12):
            path = tmp_path / "set" / name / f"video{number // 3}" / f"p{number // 4}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image(0, number).save(path)
    assert hf.load(tmp_path / "set", group="prefix").groups_N.unique().numel() == 3  # type: ignore[union-attr]
    assert hf.load(tmp_path / "set", group="folder").groups_N.unique().numel() == 8  # type: ignore[union-attr]
    with pytest.raises(hf.HydrofoilError, match=r"expected folder .* or prefix"):
        hf.load(tmp_path / "set", group="patient")


def test_arrays_keep_their_pixels_and_parts(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz")
    pictures = hf.load(path)
    with np.load(path) as arrays:
        expected_NHWC = np.concatenate(
            [arrays[f"{part}_images"] for part in ("train", "val", "test")]
        )
    np.testing.assert_array_equal(pictures.pictures_NCHW.permute(0, 2, 3, 1).numpy(), expected_NHWC)
    split = hf.draw_split(pictures)
    assert [len(split.train), len(split.valid), len(split.test)] == [24, 24, 24]
    assert hf.load(path, size=8).shape == (3, 8, 8)


ARRAYS = {
    "no labels": ({"images": np.zeros((4, 8, 8), np.uint8)}, "expected train_images"),
    "too few labels": ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(3)}, "labels"),
    "several labels": (
        {"x": np.zeros((4, 8, 8), np.uint8), "y": np.ones((4, 3), int)}, "one label an image"),
    "one class": ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.zeros(4, int)}, "one class only"),
    "objects": ({"x": np.array([{}, {}]), "y": np.arange(2)}, "not an .npz file of arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_dataset_are_refused(tmp_path: Path, case: str) -> None:
    arrays, expected = ARRAYS[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(hf.HydrofoilError, match=expected):
        hf.load(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "medmnist", "parquet", "csv"])
def test_a_damaged_file_is_an_error_or_read(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path)
    for content in mutations(path.read_bytes(), 60, seed=5):
        path.write_bytes(content)
        try:
            hf.load(path)
        except hf.HydrofoilError as error:
            assert str(path.name) in str(error) or "image" in str(error)


HOSTILE = ("../../out.png", "/abs.png", "C:\\out.png", "cat/../../out.png", "..\\out.png")


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_names_in_an_archive_lead_nowhere(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, archive = write_folder(tmp_path / "pets"), tmp_path / f"pets{ending}"
    content = as_png(image(0, 1))
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name, path in files_below(folder):
                file.write(path, name)
            for name in HOSTILE:
                file.writestr(name, content)
    else:
        with tarfile.open(archive, "w") as tar:
            for name, path in files_below(folder):
                tar.add(path, name)
            for name in HOSTILE:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
            link = tarfile.TarInfo("cat/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    before = {path for path in tmp_path.rglob("*")}
    pictures = hf.load(archive)
    assert {path for path in tmp_path.rglob("*")} == before
    assert len(pictures) == 24
    assert pictures.classes == CLASSES
    assert "5 members left out: a path that leads out of the archive" in caplog.text
    assert ("1 member left out: a link or device: cat/link.png" in caplog.text) == (
        ending == ".tar"
    )


def test_long_and_foreign_names_in_a_tar_are_kept(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    (folder / "cat").rename(folder / ("katze-ü" + "x" * 120))
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "pets.tar", "w", format=format) as tar:
            tar.add(folder, "pets")
        assert hf.load(tmp_path / "pets.tar").hash == hf.load(folder).hash
