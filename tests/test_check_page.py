"""The page, the JSON and the text of a check show what was found, whatever the names are."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import torch

import hydrofoil as hf
from hydrofoil.check.finding import Change, Finding, Row
from hydrofoil.check.result import Check
from hydrofoil.report.check_page import MOST_ROWS, MOST_SIDE_BY_SIDE, check_page
from hydrofoil.report.check_text import check_lines
from tests.pages import read

HOSTILE = (
    '<script>alert("1")</script>',
    "'\"><img src=x onerror=alert(1)>",
    "caf\udce9\x00\x1b[31m.png",
    "{{ 7 * 7 }}{% raw %}",
    "שלום\u202egnp.exe",
    "../../etc/passwd",
)


def checked(findings: list[Finding], names: tuple[str, ...] = (), side: int = 8) -> Check:
    count = max(6, len(names))
    draw = np.random.default_rng(0)
    pictures = hf.Pictures(
        torch.from_numpy(draw.integers(0, 256, (count, 3, side, side), np.uint8)),
        [at % 2 for at in range(count)],
        ["cat", "<b>dog</b>"],
        source="./my pets",
        names=names or [f"cat/{at}.png" for at in range(count)],
        losses=["1 image left out: cannot be read"],
    )
    split = hf.Split([0, 1, 2, 3], [], list(range(4, count)), pictures)
    seconds, left = {"duplicates": 1.25}, {"doubtful labels": "too few images"}
    return Check(pictures, findings, split, seconds, left)


LEAK = Finding(
    "leak",
    "serious",
    "1 test image is also in the training part",
    ("The accuracy is overestimated", "Leave them out."),
    (
        Row(
            (0, 4), ("", "mirrored"), "the same", (Change(4, "exclude"), Change(4, "move", "train"))
        ),
    ),
    {"pairs": [{"classes": "cat and dog", "count": 1234, "share": 0.125, "interval": (0.1, 0.15)}]},
)
BLANK = Finding("blank", "warning", "1 image is blank", rows=(Row((1,)),))
NOTE = Finding("size", "note", "images have 2 sizes")


def test_findings_are_in_order_of_seriousness_whatever_their_order_was() -> None:
    check = checked([NOTE, BLANK, LEAK])
    assert [finding.kind for finding in check.findings] == ["leak", "blank", "size"]
    page = read(check_page(check))
    assert [one.attributes["id"] for one in page.all("h2")][:3] == ["leak", "blank", "size"]
    links = [link.attributes["href"] for link in page.all("nav")[0].all("a")]
    assert links == ["#leak", "#blank", "#size"]
    assert check.serious
    assert not checked([NOTE, BLANK]).serious


def test_a_level_is_a_word_and_not_a_color_alone() -> None:
    page = read(check_page(checked([NOTE, BLANK, LEAK])))
    words = [page.by_id(kind).text.split()[0] for kind in ("leak", "blank", "size")]
    assert words == ["Serious", "Warning", "Note"]


def test_a_row_has_its_images_side_by_side_with_name_class_part_and_caption() -> None:
    page = read(check_page(checked([LEAK])))
    (row,) = page.all("ul")[0].all("li")
    captions = [caption.text for caption in row.all("figcaption")]
    assert captions == ["cat/0.pngcat, train", "cat/4.pngcat, testmirrored"]
    images = row.all("img")
    assert [image.attributes["width"] for image in images] == ["96", "96"]
    assert all(image.attributes["src"].startswith("data:image/png;base64,") for image in images)


def test_figures_that_are_tables_are_shown_as_tables() -> None:
    page = read(check_page(checked([LEAK])))
    assert page.all("table")[0].rows() == [["cat and dog", "1,234", "12.5%", "10.0–15.0%"]]
    assert "12.5%" in check_lines(checked([LEAK]))


def test_a_finding_with_many_rows_is_cut_and_says_so() -> None:
    rows = tuple(Row((at % 6,) * 20) for at in range(400))
    content = check_page(
        checked([Finding("blank", "warning", "400 are blank", rows=rows)])
    ).decode()
    page = read(content.encode())
    assert len(page.all("img")) == MOST_ROWS * MOST_SIDE_BY_SIDE
    assert "And 376 more in check.json." in content
    assert "and 12 more" in content
    assert len(check_lines(checked([Finding("blank", "warning", "", rows=rows)])).split("\n")) < 12


def test_the_terminal_has_the_first_rows_and_no_details_of_notes() -> None:
    rows = tuple(Row((at % 6,), ("dark",)) for at in range(5))
    findings = [
        Finding("blank", "warning", "5 images are blank", ("Leave them out",), rows),
        Finding("size", "note", "Images have 2 sizes", ("Nothing to do",), rows),
    ]
    assert check_lines(checked(findings)).split("\n") == [
        "./my pets: 6 images of 3×8×8, 2 classes (4 train, 2 test): nothing serious, 1 warning "
        "and 1 note",
        "",
        "warning: 5 images are blank",
        "  Leave them out.",
        "  - cat/0.png (train, dark)",
        "  - cat/1.png (<b>dog</b>, train, dark)",
        "  - cat/2.png (train, dark)",
        "  and 2 more",
        "",
        "note: Images have 2 sizes",
        "",
        "not checked: doubtful labels: too few images",
    ]


@pytest.mark.parametrize("side", [1, 8, 40, 300])
def test_images_of_every_size_are_shown(side: int) -> None:
    page = read(check_page(checked([LEAK], side=side)))
    sizes = {(image.attributes["width"], image.attributes["height"]) for image in page.all("img")}
    assert len(sizes) == 1
    assert all(64 <= int(number) <= 128 for number in sizes.pop())


def test_hostile_names_are_text_on_the_page_in_the_terminal_and_in_the_json() -> None:
    check = checked(
        [
            Finding(
                "blank",
                "warning",
                f"{HOSTILE[2]} is blank",
                tuple(HOSTILE),
                tuple(Row((at,), (name,), name, (Change(at, "label", name),))
                      for at, name in enumerate(HOSTILE)),
                {"names": [{"name": name} for name in HOSTILE]},
            )
        ],
        HOSTILE,
    )  # fmt: skip
    content = check_page(check).decode()
    page = read(content.encode())
    assert len(page.all("script")) == 1
    assert {
        name for image in page.all() for name in image.attributes if name.startswith("on")
    } == set()
    assert "alert(" not in re.sub(r"&[#\w]+;", "", page.all("script")[0].text)
    assert "49" not in page.by_id("blank").text
    lines = check_lines(check)
    assert all(one.isprintable() for one in re.sub("[\u2068\u2069]", "", lines).split("\n"))
    lines.encode()
    stored = json.loads(json.dumps(check.as_dict()))
    assert [stored["images"][str(at)]["name"] for at in range(6)] == list(HOSTILE)


def test_the_page_allows_its_own_script_alone() -> None:
    content = check_page(checked([LEAK])).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content)
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert f"sha256-{digest}" in policy.replace("&#43;", "+").replace("&#61;", "=")
    assert "<script" not in check_page(checked([BLANK])).decode()


def test_the_summary_is_one_line_with_the_worst_first() -> None:
    more = [Finding(f"kind{at}", "warning", f"finding {at}") for at in range(3)]
    said = checked([*more, LEAK]).summary
    assert said.startswith("check: 1 test image is also in the training part; finding 0; 2 more")
    assert said.endswith(("see hydrofoil check './my pets'", 'see hydrofoil check "./my pets"'))
    assert checked([NOTE]).summary == "check: no problem found in 6 images"


def test_the_json_describes_every_image_that_it_mentions() -> None:
    stored = checked([LEAK]).as_dict()
    assert stored["images"] == {
        "0": {"name": "cat/0.png", "class": "cat", "part": "train"},
        "4": {"name": "cat/4.png", "class": "cat", "part": "test"},
    }
    assert stored["parts"] == {"train": 4, "valid": 0, "test": 2}
    assert stored["left_out"] == ["1 image left out: cannot be read"]
    assert stored["not_checked"] == {"doubtful labels": "too few images"}


def test_a_check_is_short_in_a_console_and_a_table_in_a_notebook() -> None:
    check = checked([LEAK, BLANK])
    assert repr(check) == "Check(./my pets: 1 serious, 1 warning)"
    assert "1 image is blank" in check._repr_html_()
