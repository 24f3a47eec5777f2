"""The house's English: words and phrases that a reader would have to learn stay out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    [
        *ROOT.glob("hydrofoil/**/*.py"),
        *ROOT.glob("hydrofoil/**/*.toml"),
        *ROOT.glob("hydrofoil/**/*.html"),
        *ROOT.glob("docs/*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
)
# The phrase, and what to write instead.
AVOID = {
    r"\banew\b": "again, from the start",
    r"\b(to|can|could|may) be had\b": "available, can be downloaded",
    r"\bis no (recipe|source|set|class|run|picture|image|folder|file|text)\b": "unknown …, not a …",
    r"\bis told\b|\bare told\b|\bwas told\b|\btells of\b|\btell of\b": "logged, reported, shown",
    r"\btold apart\b": "significant difference",
    r"\bgo(es|ing)? on with\b|\bgone on with\b|\bgo on from\b": "resume, continue",
    r"\btaken for (each|one an)other\b": "confused with each other",
    r"\bsur(er|est)\b": "more confident, most confident, overconfident",
    r"\b(the|same|other) bits\b": "bit-identical",
    r"\bbroken off\b|\bcut short\b": "interrupted, truncated",
    r"\basked for\b": "requested",
    r"\bon the whole\b": "overall",
    r"\bby hand\b": "manually",
    r"\ba person's own\b": "the user's",
    r"\bwhat stands out\b": "key findings",
    r"\bwhole or not at all\b": "written atomically",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bthat there (is|are)\b|\bwhat there is\b": "available …, a noun",
    r"\bnought\b": "zero",
    r"\bas begun\b": "the executor of the run",
    r"\b(colour|normalis|optimis|recognis|grey)|\bcentred?\b": "American spelling",
    r"\d %(?!})": "percentages without a space: 98.89%",
}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_uses_the_words_of_the_field(path: Path) -> None:
    found = [
        f"line {number}: {match[0]!r}: write {better}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        for phrase, better in AVOID.items()
        for match in re.finditer(phrase, line, re.IGNORECASE)
        if "http" not in line
    ]
    assert not found
