"""Whatever touches all images of a set does so a part at a time.

Axes: N images, C channels, H rows, W columns.
"""

import tracemalloc
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hydrofoil as hf
from hydrofoil.data.image_cache import ImageCache
from hydrofoil.data.ingest import close_gaps, resized
from hydrofoil.data.npz_members import Member
from hydrofoil.data.pictures import Pictures
from tests.sets import write_folder, write_npz


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every .npz file is a large one, and is read two images at a time."""
    monkeypatch.setattr("hydrofoil.data.npz.LARGE", 0)
    monkeypatch.setattr("hydrofoil.data.npz_members.PART_BYTES", 2 * 3 * 16 * 16)


@pytest.mark.parametrize("layout", ["medmnist", "keras", "plain"])
def test_a_large_npz_is_the_same_set_as_a_small_one_and_is_mapped(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    path = write_npz(tmp_path / "a.npz", layout, each=5)
    large = hf.load(path)
    monkeypatch.setattr("hydrofoil.data.npz.LARGE", 1 << 30)
    small = hf.load(path)
    assert (large.mapped, small.mapped) == (True, False)
    assert large.hash == small.hash
    assert (large.published_valid, large.published_test) == (
        small.published_valid,
        small.published_test,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 5, 3), (7, 3, 6, 5), (1, 6, 5)])
def test_images_of_any_type_and_shape_are_converted_as_in_memory(
    dtype: type, shape: tuple[int, ...], tmp_path: Path, small_parts: None
) -> None:
    values = np.random.default_rng(0).integers(0, 2, (9, *shape[1:])).astype(dtype)
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(9) % 3)
    expected = Pictures(torch.from_numpy(values) if shape[1] == 3 else values, np.arange(9) % 3)
    assert torch.equal(hf.load(tmp_path / "a.npz").pictures_NCHW, expected.pictures_NCHW)


def test_a_large_npz_is_unpacked_once_and_again_when_it_changes(
    tmp_path: Path, small_parts: None
) -> None:
    path = write_npz(tmp_path / "a.npz", "plain")
    first = hf.load(path)
    with mock.patch.object(Member, "parts", side_effect=AssertionError):
        assert hf.load(path).hash == first.hash
    write_npz(path, "plain", each=9)
    assert len(hf.load(path)) == 27
    assert any(entry.about["source"] == str(path) for entry in ImageCache().entries())


def test_a_large_npz_that_is_damaged_is_refused_and_leaves_nothing(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, labels = np.ones((8, 16, 16, 3), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(b"\1" * 64) + 2000] ^= 7  # its checksum is now wrong
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(hf.HydrofoilError, match=r"a.npz: not an .npz file of arrays of numbers: "):
        hf.load(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        np.save(tmp_path / "whole.npy", images)
        packed.writestr("images.npy", (tmp_path / "whole.npy").read_bytes()[:-100])
        np.save(tmp_path / "labels.npy", labels)
        packed.write(tmp_path / "labels.npy", "labels.npy")
    with pytest.raises(hf.HydrofoilError, match=r"images.npy ends after 6 of 8 images"):
        hf.load(tmp_path / "a.npz")
    assert list((tmp_path / "cache").rglob("*.n*y")) == []
    assert list((tmp_path / "cache").rglob("*.part")) == []


def test_parts_of_a_large_npz_with_images_of_two_sizes_are_refused(
    tmp_path: Path, small_parts: None
) -> None:
    arrays = {
        f"x_{part}": np.zeros((4, 8, 8 + (part == "test")), np.uint8) for part in ("train", "test")
    }
    labels = {f"y_{part}": np.arange(4) % 2 for part in ("train", "test")}
    np.savez(tmp_path / "a.npz", **arrays, **labels)
    with pytest.raises(
        hf.HydrofoilError, match=r"a.npz: images of several sizes, .*: expected one"
    ):
        hf.load(tmp_path / "a.npz")


@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(1, 9))
def test_gaps_are_closed_in_place(count: int, gaps: set[int], rows: int) -> None:
    gaps = {gap for gap in gaps if gap < count}
    values = np.arange(count * 2).reshape(count, 2)
    expected = np.delete(values, sorted(gaps), axis=0)
    with mock.patch("hydrofoil.data.ingest.ROWS", rows):
        close_gaps(values, gaps)
    assert (values[: len(expected)] == expected).all()


def test_a_set_with_an_unreadable_image_is_mapped_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", 40)
    whole = hf.load(root)
    (root / "bird" / "3.png").write_bytes(b"\x89PNG")
    some = hf.load(root)
    kept = [at for at, name in enumerate(whole.names) if name != "bird/3.png"]
    assert some.mapped
    assert some.names == tuple(whole.names[at] for at in kept)
    for pictures in (some, hf.load(root)):  # decoded, then from the cache
        assert torch.equal(pictures.pictures_NCHW, whole.pictures_NCHW[kept])
        assert torch.equal(pictures.labels_N, whole.labels_N[kept])


def test_a_mapped_set_is_resized_into_the_cache(tmp_path: Path) -> None:
    mapped = hf.load(write_folder(tmp_path / "set"))
    held = Pictures(mapped.pictures_NCHW, mapped.labels_N, mapped.classes)
    for _ in range(2):
        made = resized(mapped, (5, 7), "crop")
        assert made.mapped
        assert made.hash == resized(held, (5, 7), "crop").hash
    assert not resized(held, (5, 7), "crop").mapped


def test_channel_statistics_are_counted_a_part_at_a_time() -> None:
    digits = hf.load("digits")
    index_N = torch.randperm(1797)[:1000]
    with mock.patch("hydrofoil.data.pictures.PART", 64 * 7):
        (mean,), (deviation,) = digits.channel_statistics(index_N)
    values = digits.pictures_NCHW[index_N].double() / 255
    assert mean == pytest.approx(values.mean().item(), rel=1e-12)
    assert deviation == pytest.approx(values.std(correction=0).item(), rel=1e-12)


def test_mapping_hashing_and_splitting_a_set_allocates_a_fraction_of_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40_000, 3, 32, 32), np.uint8))  # 123 MB
    labels = np.arange(40_000) % 2
    tracemalloc.start()
    try:
        mapped = hf.Pictures(np.load(tmp_path / "a.npy", mmap_mode="r"), labels)
        assert mapped.mapped
        mapped.hash  # noqa: B018 - computed at its first access
        hf.draw_split(mapped, valid=0.1)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
