"""Copies of images: planted ones are found, others are not, and splits keep them together."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import hydrofoil as hf
from hydrofoil.check import copies as copies_module
from hydrofoil.check.copies import Copies, exact_groups, find_copies, joined_groups, kept_together
from hydrofoil.check.duplicates import find_leaks, leaks, repeated
from hydrofoil.check.near import near_pairs, no_pairs
from hydrofoil.data.image_cache import ImageCache
from tests.conftest import Cli

KINDS = ("exact", "jpeg", "mirrored", "shifted", "brighter")
EACH = 6


def photographs(count: int, seed: int = 0) -> np.ndarray:
    """Return pixels_NHWC of smooth random images, which differ as photographs do."""
    rng = np.random.default_rng(seed)
    made: list[np.ndarray] = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        large = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        made.append(np.asarray(large)[4:36, 4:36])
    return np.stack(made)


def changed(pixels_HWC: np.ndarray, kind: str) -> np.ndarray:
    """Return an image as somebody might have saved it again."""
    if kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=60)
        return np.asarray(Image.open(file))
    if kind == "mirrored":
        return pixels_HWC[:, ::-1]
    if kind == "shifted":
        return np.pad(pixels_HWC, ((2, 0), (0, 0), (0, 0)), "edge")[:-2]
    if kind == "brighter":
        return (pixels_HWC.astype(float) * 0.7 + 60).astype(np.uint8)
    return pixels_HWC


@pytest.fixture(scope="module")
def planted() -> tuple[hf.Pictures, dict[tuple[int, int], str]]:
    """Return a set whose last images are copies of its first ones, and which of which."""
    pixels = photographs(120)
    copies = [changed(pixels[at], kind) for at, kind in enumerate(KINDS * EACH)]
    truth = {(at, 120 + at): kind for at, kind in enumerate(KINDS * EACH)}
    labels = np.arange(150) % 3
    labels[120:] = labels[:30]
    return hf.Pictures(np.concatenate([pixels, np.stack(copies)]), labels), truth


def test_every_kind_of_copy_is_found_and_nothing_else(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, truth = planted
    found = find_copies(pictures)
    assert set(found.exact) == {pair for pair, kind in truth.items() if kind == "exact"}
    near = found.near.where(found.near.certain_P)
    pairs = set(zip(near.first_P.tolist(), near.second_P.tolist(), strict=True))
    assert pairs == {pair for pair, kind in truth.items() if kind != "exact"}
    for one, other, mirrored in zip(
        near.first_P.tolist(), near.second_P.tolist(), near.mirrored_P.tolist(), strict=True
    ):
        assert mirrored == (truth[one, other] == "mirrored")


def test_across_parts_the_same_copies_are_found(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, truth = planted
    found = near_pairs(pictures.pictures_NCHW, torch.arange(120, 150), torch.arange(120)).best()
    assert {
        (b, a) for a, b in zip(found.first_P.tolist(), found.second_P.tolist(), strict=True)
    } == set(truth)


def test_a_second_search_is_read_from_the_cache(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, _ = planted
    first = find_copies(pictures)
    monkeypatch.setattr(copies_module, "near_pairs", None)
    monkeypatch.setattr(copies_module, "exact_groups", None)
    again = find_copies(pictures)
    assert again.exact == first.exact
    assert torch.equal(again.near.first_P, first.near.first_P)
    assert torch.equal(again.near.correlation_P, first.near.correlation_P)


@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40),
        )
    )
)
def test_linked_items_are_in_one_group(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, links = case
    groups = joined_groups(count, links)
    reached = np.eye(count, dtype=bool)
    for one, other in links:
        reached[one, other] = reached[other, one] = True
    for _ in range(count):
        reached = reached @ reached
    assert [groups[at] == groups[0] for at in range(count)] == reached[0].tolist()
    assert all(groups[at] == min(np.flatnonzero(reached[at])) for at in range(count))


def test_a_damaged_cache_is_searched_again(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, _ = planted
    ImageCache().clear()
    first = find_copies(pictures)
    (file,) = ImageCache().folder.glob("*.npz")
    for content in (b"", file.read_bytes()[:-50], b"PK\x03\x04" + bytes(90)):
        file.write_bytes(content)
        assert find_copies(pictures).exact == first.exact


def test_a_split_keeps_copies_on_one_side(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, truth = planted
    copies = find_copies(pictures)
    for seed in range(5):
        split = hf.draw_split(kept_together(pictures, copies), valid=0.2, test=0.3, seed=seed)
        assert (len(split.valid), len(split.test)) == (30, 45)
        part = {
            at: name for name in ("train", "valid", "test") for at in getattr(split, name).tolist()
        }
        assert len(part) == len(pictures)
        assert all(part[one] == part[other] for one, other in truth)
        assert not find_leaks(copies, split, "test")


def test_groups_of_the_user_stay_whole_with_copies(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, truth = planted
    grouped = pictures.grouped(torch.arange(150) // 5)
    groups = kept_together(grouped, find_copies(pictures)).groups_N
    assert groups is not None
    assert all(groups[one] == groups[other] for one, other in truth)
    assert all(len(set(groups[at : at + 5].tolist())) == 1 for at in range(0, 150, 5))


def test_a_leak_comes_first_and_names_what_leaked(
    planted: tuple[hf.Pictures, dict[tuple[int, int], str]],
) -> None:
    pictures, truth = planted
    split = hf.Split(range(120), (), range(120, 150), pictures)
    (leak,) = leaks(pictures, split, find_copies(pictures))
    assert (leak.kind, leak.level) == ("leak", "serious")
    assert leak.figures["exact"] == EACH
    assert leak.figures["certain"] == len(truth)
    assert {(row.images[1], row.images[0]) for row in leak.rows} == set(truth)
    assert [row.text for row in leak.rows[:EACH]] == ["the same pixels"] * EACH
    assert {change.image for row in leak.rows for change in row.changes} == {
        one for one, _ in truth
    }


def test_copies_with_different_labels_are_told_from_those_with_the_same() -> None:
    pixels = photographs(40)[[*range(40), 0, 1, 1, 2]]
    labels = [*[at % 2 for at in range(40)], 0, 1, 0, 0]
    pictures = hf.Pictures(pixels, labels)
    found = {one.kind: one for one in repeated(pictures, find_copies(pictures))}
    assert found.keys() == {"contradiction", "duplicates"}
    assert [row.images for row in found["contradiction"].rows] == [(1, 41, 42)]
    assert [row.images for row in found["duplicates"].rows] == [(0, 40), (2, 43)]
    assert found["contradiction"].level == "serious"


def test_small_images_and_blank_ones_have_no_near_copies() -> None:
    digits = hf.load("digits")
    assert find_copies(digits).near.certain_P.tolist() == []
    blank = hf.Pictures(np.full((8, 32, 32, 3), 200, np.uint8), [0, 1] * 4)
    assert exact_groups(blank) == (tuple(range(8)),)
    assert len(near_pairs(blank.pictures_NCHW, torch.arange(8))) == 0


def test_one_image_and_none_have_no_copies() -> None:
    pictures_NCHW = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert not len(near_pairs(pictures_NCHW, torch.arange(1)))
    assert not len(near_pairs(pictures_NCHW, torch.arange(0), torch.arange(1)))
    assert Copies((), no_pairs(), searched=True).near.best().first_P.tolist() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with train and test, of which two test images are in train too."""
    pixels = photographs(60)
    for at in range(60):
        part = "test" if at >= 40 else "train"
        path = tmp_path / "pets" / part / ("cat", "dog")[at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = pixels[at - 40] if at in (40, 43) else pixels[at]
        Image.fromarray(changed(shown, "jpeg" if at == 43 else "exact")).save(path)
    return tmp_path / "pets"


def test_check_exits_with_1_where_something_is_serious(folder: Path, cli: Cli) -> None:
    status, output, _ = cli("check", folder, "--only", "copies")
    assert status == 1
    assert "2 of 20 test images (10.0%)" in output
    content = json.loads(Path("checks/pets/check.json").read_text("utf-8"))
    assert content["serious"]
    assert content["findings"][0]["kind"] == "leak"
    assert Path("checks/pets/check.html").read_text("utf-8").count("<img") >= 4
    assert cli("check", "digits", "--only", "copies,files")[0] == 0


def test_what_was_agreed_to_becomes_a_table_without_the_leak(folder: Path, cli: Cli) -> None:
    status, output, errors = cli(
        "check", folder, "--only", "copies", "--apply", "leak", "--out", "t.csv"
    )
    assert status == 0, errors
    assert "58 images: 2 left out" in output
    assert cli("check", "./t.csv", "--only", "copies")[0] == 0
    assert len(hf.load("./t.csv")) == 58


def test_a_run_is_checked_by_its_own_split_and_test(folder: Path, cli: Cli) -> None:
    short = ("epochs=1", "batch_size=16", "execute=eager", "model=mlp", "hidden=8")
    assert cli("train", "digits", f"data.source={folder}", *short, "--run", "r", "--test")[0] == 0
    status, output, errors = cli("check", "r", "--only", "copies")
    assert status == 1, errors
    assert "The run's test accuracy is" in output
    assert Path("r/check.html").exists()
    figures = json.loads(Path("r/check.json").read_text("utf-8"))["findings"][0]["figures"]
    answers = hf.Run.open("r").results.answers()["test"]
    correct = (answers.logits_NK.argmax(1) == answers.labels_N).double()
    assert figures["test_accuracy"] == pytest.approx(float(correct.mean()))
    leaked = {
        row["images"][0]
        for row in json.loads(Path("r/check.json").read_text())["findings"][0]["rows"]
    }
    kept = [at not in leaked for at in answers.index_N.tolist()]
    assert figures["without_leaked"] == pytest.approx(float(correct[kept].mean()))


def test_training_says_what_copies_there_are(folder: Path, cli: Cli) -> None:
    short = ("epochs=1", "batch_size=16", "execute=eager", "model=mlp", "hidden=8")
    status, output, errors = cli("train", "digits", f"data.source={folder}", *short)
    assert status == 0, errors
    assert "check: 2 of 20 test images (10.0%) are in training" in output + errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("digits", "--only", "copis"), "unknown check 'copis'. Did you mean 'copies'?"),
        (("digits", "lr=3"), "expected a field of [data]"),
        (("./nothing",), "no such file or folder"),
        (("digits", "--votes", "votes.json"), "votes.json: the votes cannot be read"),
        (("digits", "--apply", "leak", "--only", "copies"), "'leak' is not a finding"),
    ],
)
def test_wrong_input_gets_a_clear_error(
    arguments: tuple[str, ...], expected: str, cli: Cli
) -> None:
    status, _, errors = cli("check", *arguments)
    assert status == 2
    assert expected in errors
    assert "Traceback" not in errors


def test_the_pages_file_of_choices_becomes_a_table(folder: Path, cli: Cli) -> None:
    pictures = hf.load(folder)
    Path("changes.json").write_text(
        json.dumps({"hash": pictures.hash, "all": ["leak"], "changes": []})
    )
    status, output, errors = cli("check", folder, "--apply", "changes.json", "--out", "t.csv")
    assert status == 0, errors
    assert "58 images: 2 left out" in output
    Path("changes.json").write_text(json.dumps({"hash": "", "all": ["lek"], "changes": []}))
    status, _, errors = cli("check", folder, "--apply", "changes.json", "--out", "t.csv")
    assert status == 2
    assert "no finding is called 'lek'. Did you mean 'leak'?" in errors
