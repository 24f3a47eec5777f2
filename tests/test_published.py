"""Published datasets: found under usual other names, and compared with what was published.

Axes: N pictures, C channels, H rows, W columns.
"""

import errno
import gzip
import hashlib
import json
import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest

from hydrofoil import HydrofoilError, load
from hydrofoil.cli.main import main
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.data.published.content import block_digests
from hydrofoil.data.published.download import Silent
from hydrofoil.data.source import source_name
from tests import published

IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was attempted")

    monkeypatch.setattr("hydrofoil.data.published.obtain.fetch", refuse)


# ── names, folders, archives ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("MNIST", "mnist"), ("FashionMNIST", "fashion-mnist"), ("Fashion MNIST", "fashion-mnist"),
        ("cifar-10", "cifar10"), ("CIFAR_100", "cifar100"), ("Digits", "digits"),
    ],
)  # fmt: skip
def test_names_match_without_case_and_punctuation(name: str, known: str) -> None:
    assert source_name(name) == known
    assert load(name).source == known


def with_dots(name: str) -> str:
    return name.replace("-idx", ".idx")


def move_all(rename: Callable[[str], str], to: str) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        (root / "MNIST/raw").rename(root / "before")
        files = sorted((root / "before").iterdir())
        (root / to).mkdir(parents=True, exist_ok=True)
        for path in files:
            target = root / to / rename(path.name)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        (root / "before").rmdir()

    return move


def gzip_all(root: Path) -> None:
    for path in (root / "MNIST/raw").iterdir():
        path.with_name(f"{with_dots(path.name)}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def unpacked_but_still_called_gz(root: Path) -> None:
    for path in (root / "MNIST/raw").iterdir():
        path.rename(path.with_name(f"{path.name}.gz"))


def zip_all(root: Path) -> None:
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        for path in (root / "MNIST/raw").iterdir():
            archive.writestr(f"__MACOSX/._{path.name}", b"resource fork")
            archive.write(path, f"mnist/{with_dots(path.name)}")
    shutil.rmtree(root / "MNIST")


PLACES = {
    "with dots": move_all(with_dots, "MNIST/raw"),
    "one folder higher": move_all(str, "MNIST"),
    "one folder deeper": move_all(str, "MNIST/raw/raw"),
    "flat in the root": move_all(with_dots, "."),
    "in a folder of another spelling": move_all(str, "mnist"),
    "each in a folder of its name": move_all(lambda name: f"{name}/{with_dots(name)}", "MNIST/raw"),
    "gzipped with dots": gzip_all,
    "unpacked but still called .gz": unpacked_but_still_called_gz,
    "in a zip": zip_all,
}


@pytest.mark.parametrize("place", PLACES)
def test_mnist_is_found_in_usual_places(place: str, tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    expected = load("mnist", tmp_path).hash
    PLACES[place](tmp_path)
    assert load("mnist", tmp_path).hash == expected


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw"])
def test_the_data_root_may_be_the_datasets_own_folder(below: str, tmp_path: Path) -> None:
    published.write_mnist(tmp_path)
    assert load("mnist", tmp_path / below).hash == load("mnist", tmp_path).hash


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar", ".zip"])
def test_an_archive_that_was_not_unpacked_is_unpacked(suffix: str, tmp_path: Path) -> None:
    published.write_cifar10(tmp_path)
    expected, folder = load("cifar10", tmp_path).hash, tmp_path / "cifar-10-batches-py"
    archive = tmp_path / f"cifar-10-python{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.iterdir():
                file.write(path, f"cifar-10-batches-py/{path.name}")
    else:
        with tarfile.open(archive, "w:gz" if suffix == ".tar.gz" else "w") as file:
            file.add(folder, folder.name)
    shutil.rmtree(folder)
    assert load("cifar10", tmp_path).hash == expected
    assert load("cifar10", tmp_path, watcher := Lines()).hash == expected
    assert not any("unpacking" in line for line in watcher.lines)
    assert not (folder / ".download").exists()


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(gzip.compress(bytes(range(256)) * 40)[:100])
    with pytest.raises(HydrofoilError, match=r"cifar-10-python\.tar\.gz: damaged"):
        load("cifar10", tmp_path)


def test_where_nothing_can_be_written_an_archive_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.write_mnist(tmp_path)
    expected = load("mnist", tmp_path).hash
    zip_all(tmp_path)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("hydrofoil.data.published.obtain._only_process", read_only)
    assert load("mnist", tmp_path, watcher := Lines()).hash == expected
    assert any("Read-only file system" in line for line in watcher.lines)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks")])
def test_without_file_locks_it_works_and_says_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.write_mnist(tmp_path)
    expected = load("mnist", tmp_path).hash
    zip_all(tmp_path)

    def no_locks(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert load("mnist", tmp_path, watcher := Lines()).hash == expected
    assert any("no file locks" in line for line in watcher.lines)


def test_another_datasets_folder_is_not_taken(tmp_path: Path) -> None:
    published.write_mnist(tmp_path, folder="FashionMNIST")
    with pytest.raises(AssertionError, match="a download was attempted"):
        load("mnist", tmp_path)


# ── what is there is never called missing ────────────────────────────────────────────────────────


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(make_empty, "is empty"), (make_folder, "is a folder"), (make_dangling, "link to nowhere")],
)
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_file_that_cannot_be_used_is_named_and_not_called_missing(
    spoil: Callable[[Path], None], said: str, name: str, tmp_path: Path
) -> None:
    published.write_mnist(tmp_path)
    published.write_cifar10(tmp_path)
    path = tmp_path / SOURCES[name].folder / SOURCES[name].files[1]
    spoil(path)
    with pytest.raises(HydrofoilError, match=said) as caught:
        load(name, tmp_path)
    assert str(path) in str(caught.value)
    assert "issing" not in str(caught.value)


# ── the content ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def thousands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made MNIST of 3,000 and 1,000 images, which counts as the published one."""
    published.write_mnist(tmp_path, 3000, 1000)
    made = load("mnist", tmp_path)
    source = replace(
        SOURCES["mnist"],
        counts=(3000, 1000),
        pictures_hash=made.hash,
        image_digests=block_digests(made.pictures_NCHW),
        label_digests=block_digests(made.labels_N),
    )
    monkeypatch.setitem(SOURCES, "mnist", source)
    return tmp_path


def overwrite(path: Path, at: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    path.write_bytes(whole)


def test_the_published_content_is_recognized(thousands: Path) -> None:
    pictures = load("mnist", thousands, watcher := Lines())
    assert pictures.published
    assert not watcher.lines


def test_a_flipped_bit_is_found_to_the_thousand(thousands: Path) -> None:
    path = thousands / "MNIST/raw/train-images-idx3-ubyte"
    at = 16 + 1234 * 784 + 100
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 1]))
    pictures = load("mnist", thousands, watcher := Lines())
    assert pictures.published is False
    assert pictures.differs == "images 1,000 to 1,999 of the training split differ"
    assert watcher.lines == [f"mnist: not the published MNIST: {pictures.differs}."]


def test_images_that_were_copied_over_others_are_named(thousands: Path) -> None:
    path = thousands / "MNIST/raw/train-images-idx3-ubyte"
    content = path.read_bytes()
    overwrite(path, 16 + 2000 * 784, content[16 : 16 + 1000 * 784])
    assert load("mnist", thousands).differs == (
        "images 2,000 to 2,999 of the training split differ (a copy of images 0 to 999)"
    )


def test_shuffled_labels_are_found(thousands: Path) -> None:
    path = thousands / "MNIST/raw/t10k-labels-idx1-ubyte"
    labels = np.frombuffer(path.read_bytes()[8:], np.uint8)
    overwrite(path, 8, np.random.default_rng(0).permutation(labels).tobytes())
    assert load("mnist", thousands).differs == "the labels of the test split differ"


def test_fewer_images_are_counted(thousands: Path) -> None:
    published.write_mnist(thousands, 2000, 1000)
    differs = load("mnist", thousands).differs
    assert differs is not None
    assert "2,000 training images instead of 3,000" in differs


def test_without_a_known_hash_the_files_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.write_cifar100(tmp_path, 400, 200)
    folder = tmp_path / "cifar-100-python"
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    source = replace(SOURCES["cifar100"], counts=(400, 200), md5=md5)
    monkeypatch.setitem(SOURCES, "cifar100", source)
    assert load("cifar100", tmp_path).published
    test = folder / "test"
    test.write_bytes(test.read_bytes().replace(b"coarse_labels", b"course_labels"))
    assert load("cifar100", tmp_path).differs == "test differs"
    test.with_name("test.gz").write_bytes(gzip.compress(test.read_bytes()))
    test.unlink()
    assert load("cifar100", tmp_path).differs == "test differs"


def test_the_images_of_another_dataset_are_recognized(thousands: Path) -> None:
    shutil.copytree(thousands / "MNIST", thousands / "FashionMNIST")
    differs = load("fashion-mnist", thousands).differs
    assert differs is not None
    assert differs.startswith("its images are those of MNIST")


def test_from_python_the_difference_is_logged_as_a_warning(
    data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hydrofoil"):
        load("mnist", data_root)
    (record,) = caplog.records
    assert "not the published MNIST: 600 training images instead of 60,000" in record.getMessage()


def test_the_difference_is_kept_in_log_test_and_report(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["mnist-mlp", "train.epochs=1", "train.execute=eager", "--run", str(run), "--test"]
    for verb in (["train", *arguments], ["report", str(run)]):
        with pytest.raises(SystemExit) as left:
            main(verb)
        assert left.value.code == 0
        if verb[0] == "train":
            assert capsys.readouterr().err.count("not the published MNIST") == 1
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (data,) = [event for event in events if event.get("event") == "data"]
    assert data["differs"].startswith("600 training images")
    assert "not the published MNIST" in " ".join(
        json.loads((run / "test.json").read_text())["warnings"]
    )
    page = (run / "report.html").read_text()
    assert page.count("not the published MNIST") == 2  # beside the result, and in the data section
