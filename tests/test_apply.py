"""A table of what the user agreed to is a source of exactly these images, labels and parts."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hydrofoil as hf
from hydrofoil.check.apply import Applied, agreed_changes, proposed, write_table
from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.result import Check
from hydrofoil.data.facts import read_facts
from hydrofoil.recipe.schema import Data
from tests.sets import KINDS, image, write_folder

LEAK = Finding(
    "leak",
    "serious",
    "2 test images are also in the training part",
    rows=(
        Row((0, 1), changes=(Change(1, "exclude"), Change(1, "move", "train"))),
        Row((2, 3), changes=(Change(3, "move", "valid"),)),
    ),
)
BLANK = Finding("blank", "warning", "1 image is blank", rows=(Row((4,)),))


def checked(root: Path, *, parts: bool = True, **fields: Any) -> Check:
    pictures = hf.load(str(root), **fields)
    split = hf.draw_split(pictures, seed=3, valid=0.2, test=0.2) if parts else None
    return Check(pictures, [LEAK, BLANK], split)


def applied(check: Check, changes: list[Change], path: Path) -> tuple[Applied, hf.Pictures]:
    facts = read_facts(Data(source=check.pictures.source), check.pictures)
    done = write_table(check, facts, changes, path)
    return done, hf.load(str(path))


def contents(pictures: hf.Pictures, at: int) -> bytes:
    return pictures.pictures_NCHW[at].contiguous().numpy().tobytes()


def as_rows(pictures: hf.Pictures, parts: list[str]) -> list[tuple[bytes, str, str]]:
    classes, labels = pictures.classes, pictures.labels_N.tolist()
    return sorted(
        (contents(pictures, at), classes[labels[at]], parts[at]) for at in range(len(pictures))
    )


def given_parts(pictures: hf.Pictures) -> list[str]:
    valid, test = pictures.published_valid, pictures.published_test
    train = len(pictures) - valid - test
    return ["train"] * train + ["valid"] * valid + ["test"] * test


@settings(max_examples=20)
@given(
    changes=st.lists(
        st.one_of(
            st.builds(Change, st.integers(0, 23), st.just("exclude")),
            st.builds(
                Change, st.integers(0, 23), st.just("move"),
                st.sampled_from(["train", "valid", "test"]),
            ),
            st.builds(
                Change, st.integers(0, 23), st.just("label"),
                st.sampled_from(["bird", "cat", "dog"]),
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_the_table_reads_back_as_the_images_labels_and_parts_that_were_agreed_to(
    changes: list[Change], tmp_path_factory: pytest.TempPathFactory
) -> None:
    at = tmp_path_factory.mktemp("set")
    check = checked(write_folder(at / "pets"))
    expected: list[tuple[bytes, str, str]] = []
    for number in range(24):
        mine = [one for one in changes if one.image == number]
        if any(one.action == "exclude" for one in mine):
            continue
        moves = [one.value for one in mine if one.action == "move"]
        labels = [one.value for one in mine if one.action == "label"]
        label = labels[-1] if labels else check.class_of(number)
        part = moves[-1] if moves else check.part_of(number)
        expected.append((contents(check.pictures, number), label, part))
    trained = {label for _, label, part in expected if part == "train"}
    if trained < {"bird", "cat", "dog"}:
        with pytest.raises(hf.HydrofoilError, match="no image of"):
            applied(check, changes, at / "table.csv")
        return
    done, back = applied(check, changes, at / "table.csv")
    assert as_rows(back, given_parts(back)) == sorted(expected)
    assert done.rows == len(back) == len(expected)
    assert done.excluded == 24 - len(expected)


@pytest.mark.parametrize("place", ["pets.csv", "pets/table.csv", "elsewhere/deep/table.csv"])
def test_a_table_lies_beside_in_or_away_from_the_images(place: str, tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    done, back = applied(check, [Change(0, "exclude")], tmp_path / place)
    assert (done.rows, len(back)) == (23, 23)
    kept = [contents(check.pictures, at) for at in range(1, 24)]
    assert sorted(kept) == sorted(contents(back, at) for at in range(23))


def test_a_table_without_a_split_leaves_the_parts_open(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"), parts=False)
    _, back = applied(check, [], tmp_path / "table.csv")
    assert (back.published_valid, back.published_test) == (0, 0)
    assert (tmp_path / "table.csv").read_bytes().startswith(b"path,label\r\n")


def test_groups_stay_together(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    check = checked(root, group="prefix")
    pictures = check.pictures
    facts = read_facts(Data(source=str(root), group="prefix"), pictures)
    write_table(check, facts, [], tmp_path / "table.csv")
    back = hf.load(str(tmp_path / "table.csv"))
    assert back.groups_N is not None
    assert pictures.groups_N is not None
    pairs = {contents(pictures, at): int(pictures.groups_N[at]) for at in range(len(pictures))}
    theirs = {contents(back, at): int(back.groups_N[at]) for at in range(len(back))}
    renamed = {pairs[one]: theirs[one] for one in pairs}
    assert {one: renamed[pairs[one]] for one in pairs} == theirs
    assert len(set(renamed.values())) == len(renamed)


# Names that a file system takes and a table has to quote; "\udce9" is a byte that is no text.
HOSTILE = (
    'a "quoted", one.png', "a;b\tc.png", "=SUM(A1).png", "line\nbreak.png", "\u202egnp.png",
    "carriage\rreturn.png", "'single'.png", "#hash.png", "é.png", "~home.png", "-rf.png",
)  # fmt: skip
LOST = ("back\\slash.png", "caf\udce9.png")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="its file system refuses the names")
def test_hostile_paths_survive_or_are_named_as_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "a, b" / " pets", 2)
    for number, name in enumerate((*HOSTILE, *LOST)):
        image(1, 100 + number).save(tmp_path / "made.png")
        os.rename(tmp_path / "made.png", os.fsencode(root / "cat") + b"/" + os.fsencode(name))
    check = checked(root, parts=False)
    facts = read_facts(Data(source=str(root)), check.pictures)
    done = write_table(check, facts, [], tmp_path / "table.csv")
    assert set(done.unwritable) == {"cat/back\\slash.png", "cat/caf\\udce9.png"}
    assert "2 images left out: no table can hold the path: cat/" in str(done)
    back = hf.load(str(tmp_path / "table.csv"))
    assert len(back) == len(check.pictures) - 2 == 6 + len(HOSTILE)
    lost = {at for at in range(len(check.pictures)) if check.name_of(at) in done.unwritable}
    expected = [contents(check.pictures, at) for at in range(len(check.pictures)) if at not in lost]
    assert sorted(expected) == sorted(contents(back, at) for at in range(len(back)))


@pytest.mark.parametrize("kind", ["parquet", "zip", "tar", "plain npz"])
def test_images_that_are_no_files_of_their_own_are_refused(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path)
    check = checked(path, parts=False)
    facts = read_facts(Data(source=str(path)), check.pictures)
    with pytest.raises(hf.HydrofoilError, match="not files of their own"):
        write_table(check, facts, [], tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_table_is_itself_a_source_that_can_be_checked_and_applied_again(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    _, once = applied(check, [Change(0, "exclude")], tmp_path / "once.csv")
    split = hf.draw_split(once, seed=0)
    facts = read_facts(Data(source=once.source), once)
    done = write_table(Check(once, [], split), facts, [Change(0, "exclude")], tmp_path / "two.csv")
    assert done.rows == 22
    assert len(hf.load(str(tmp_path / "two.csv"))) == 22


def test_kinds_stand_for_all_that_they_propose_of_alternatives_the_first(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    assert proposed(LEAK) == [Change(1, "exclude"), Change(3, "move", "valid")]
    assert agreed_changes(check, "leak") == proposed(LEAK)
    assert agreed_changes(check, " leak , leak") == proposed(LEAK) * 2
    for kinds, words in (("leek", "did you mean|is not a finding"), ("blank", "proposes no")):
        with pytest.raises(hf.HydrofoilError, match=words):
            agreed_changes(check, kinds)


def test_choices_of_the_page_are_read(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    file = tmp_path / "changes.json"
    chosen = {"image": 7, "action": "label", "value": "dog"}
    content = {"source": "x", "hash": check.pictures.hash, "all": ["leak"], "changes": [chosen]}
    file.write_text(json.dumps(content))
    assert agreed_changes(check, str(file)) == [*proposed(LEAK), Change(7, "label", "dog")]
    file.write_text(json.dumps(content | {"hash": "0"}))
    with pytest.raises(hf.HydrofoilError, match="saved for other images"):
        agreed_changes(check, str(file))


def test_choices_in_a_table_name_images_or_number_them(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    file = tmp_path / "choices.csv"
    file.write_text("image,action,value\ncat/3.png,exclude,\n2,move,test\n")
    at = list(check.pictures.names).index("cat/3.png")
    assert agreed_changes(check, str(file)) == [Change(at, "exclude"), Change(2, "move", "test")]


WRONG = (
    ({"image": 99, "action": "exclude", "value": ""}, "image 99"),
    ({"image": -1, "action": "exclude", "value": ""}, "image -1"),
    ({"image": True, "action": "exclude", "value": ""}, "image True"),
    ({"image": "x", "action": "exclude", "value": ""}, "image 'x'"),
    ({"image": 1, "action": "delete", "value": ""}, "action 'delete'"),
    ({"image": 1, "action": ["exclude"], "value": ""}, "action"),
    ({"image": 1, "action": "move", "value": "nowhere"}, "train, valid, test"),
    ({"image": 1, "action": "label", "value": "fish"}, "bird, cat, dog"),
    ({"action": "exclude"}, "not a file of choices"),
    ("exclude", "not a file of choices"),
)


@pytest.mark.parametrize(("chosen", "words"), WRONG)
def test_choices_that_do_not_fit_are_refused(chosen: object, words: str, tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    file = tmp_path / "changes.json"
    content = {"hash": check.pictures.hash, "all": [], "changes": [chosen]}
    file.write_text(json.dumps(content))
    with pytest.raises(hf.HydrofoilError, match=words):
        agreed_changes(check, str(file))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"all": 1}', b"[" * 10**5])
def test_files_that_are_no_choices_are_refused(content: bytes, tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    (tmp_path / "changes.json").write_bytes(content)
    with pytest.raises(hf.HydrofoilError, match="not a file of choices"):
        agreed_changes(check, str(tmp_path / "changes.json"))
    with pytest.raises(hf.HydrofoilError, match="cannot be read"):
        agreed_changes(check, str(tmp_path / "none.json"))


def test_a_table_needs_the_ending_csv(tmp_path: Path) -> None:
    check = checked(write_folder(tmp_path / "pets"))
    with pytest.raises(hf.HydrofoilError, match=r"ends in \.csv"):
        applied(check, [], tmp_path / "table.txt")


def test_a_table_may_name_files_elsewhere_and_one_in_an_archive_may_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    rows = [f"../pets/{name}/{at}.png,{name}" for name in ("cat", "dog") for at in range(8)]
    rows += [f"{(root / 'bird' / f'{at}.png').as_posix()},bird" for at in range(8)]
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "table.csv"
    table.write_text("path,label\n" + "\n".join(rows))
    assert torch.equal(
        hf.load(str(table)).pictures_NCHW.sum((1, 2, 3)).sort().values,
        hf.load(str(root)).pictures_NCHW.sum((1, 2, 3)).sort().values,
    )
    import zipfile

    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(table, "table.csv")
    with pytest.raises(hf.HydrofoilError, match="none of 24 images can be read"):
        hf.load(str(tmp_path / "set.zip"))


def test_no_image_is_changed(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    applied(checked(root), agreed_changes(checked(root), "leak"), tmp_path / "table.csv")
    assert {path: path.read_bytes() for path in root.rglob("*.png")} == before
    with Image.open(root / "cat" / "1.png") as opened:
        assert opened.size == (20, 16)
