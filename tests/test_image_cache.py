"""The cache of decoded images: bounded, listed, cleared; never trusted blindly."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import hydrofoil as hf
from hydrofoil.cli.main import main
from hydrofoil.data.image_cache import ImageCache, parse_bytes
from tests.sets import write_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageCache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ImageCache()


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_the_verb_lists_limits_and_clears(
    cache: ImageCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        hf.load(write_folder(tmp_path / name, 8 if name == "one" else 9))
    assert not command("cache", "--json")
    content = json.loads(capsys.readouterr().out)
    assert {one["images"] for one in content["sets"]} == {24, 27}
    assert content["limit"] == 20 << 30
    assert not command("cache", "--limit", "24kB")
    output = capsys.readouterr().out
    assert "removed: 1 set" in output
    assert "of at most 24.0 kB" in output
    assert not command("cache", "--clear")
    assert "0 sets" in capsys.readouterr().out
    assert not list(cache.folder.glob("*.npy"))
    assert command("cache", "--limit", "much") == 2


def test_the_set_that_was_used_longest_ago_goes_first(cache: ImageCache, tmp_path: Path) -> None:
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", 9)
    size = (24 + 27) * 3 * 16 * 16 + 4000
    cache.set_limit(size)
    for folder in (first, second, first):
        hf.load(folder)
        for entry in cache.entries():  # times of a second ago, in their order
            about = cache.folder / f"{entry.key}.json"
            os.utime(about, (entry.used - 10, entry.used - 10))
    hf.load(write_folder(tmp_path / "c", 7))
    assert sorted(entry.about["images"] for entry in cache.entries()) == [21, 24]


def test_a_set_larger_than_the_limit_is_read_without_being_kept(
    cache: ImageCache, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "a")
    expected = hf.load(folder).hash
    cache.set_limit(0)
    assert cache.entries() == []
    assert hf.load(folder).hash == expected
    assert cache.entries() == []


@pytest.mark.parametrize("damage", ["truncated", "no description", "not json", "other shape"])
def test_a_damaged_entry_is_decoded_again(cache: ImageCache, tmp_path: Path, damage: str) -> None:
    folder = write_folder(tmp_path / "a")
    expected = hf.load(folder).hash
    (array,), (about,) = cache.folder.glob("*.npy"), cache.folder.glob("????????????*.json")
    if damage == "truncated":
        array.write_bytes(array.read_bytes()[:1000])
    elif damage == "no description":
        about.unlink()
    elif damage == "not json":
        about.write_text("[")
    else:
        np.save(array, np.zeros((2, 3, 16, 16), np.uint8))
    assert hf.load(folder).hash == expected


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(hf.load(write_folder(tmp_path / "a"))) == 24


def test_a_size_is_read_as_people_write_it() -> None:
    assert parse_bytes("2 GiB") == parse_bytes("2g") == 2 << 30
