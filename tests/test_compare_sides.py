"""`compare` with two and more sides: labels, Holm's correction, validation, and what is kept.

Axes: C channels, H height, N images, S seeds, W width.
"""

import itertools
import json
import re
import shutil
import webbrowser
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, multitest
from torch import nn

import hydrofoil as hf
from hydrofoil import HydrofoilError, Run
from hydrofoil.cli.main import main
from hydrofoil.compare.labels import MOST_LETTERS, labels
from hydrofoil.compare.several import Comparisons, compare_several
from hydrofoil.compare.statistics import SideAnswers, holm
from hydrofoil.compare.verdict import Comparison, compare
from hydrofoil.report.comparison import comparison_lines
from tests.conftest import Cli
from tests.pages import Element, read

SMALL = ["model.name=mlp", "hidden=8", "epochs=1", "execute=eager"]
THREE = ["digits", *SMALL, "b.optimizer.name=adam", "c.lr=0.05", "--seeds", "2"]


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """Run `hydrofoil compare` in this process; return its exit status, output and error output."""
    return partial(cli, "compare")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of three sides, compared; copy it before changing it."""
    torch.set_num_threads(1)  # this fixture comes before `one_thread`
    folder = tmp_path_factory.mktemp("compared") / "runs"
    with pytest.raises(SystemExit) as left:
        main(["compare", *THREE, "--runs", str(folder)])
    assert left.value.code == 0
    return folder


@pytest.fixture
def runs(compared: Path) -> Path:
    return Path(shutil.copytree(compared, "runs/compare"))


def saved(folder: Path) -> tuple[dict[str, Any], Element]:
    """Return the latest comparison's JSON and page."""
    latest = max(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    page = read(latest.with_suffix(".html").read_bytes())
    return json.loads(latest.read_text("utf-8")), page


# ── statistics ───────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=28))
def test_holms_correction_is_that_of_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def side(correct_SN: Any, letter: str) -> SideAnswers:
    S, N = correct_SN.shape
    index_SN = np.tile(np.arange(N), (S, 1))
    return SideAnswers("x", tuple(range(S)), correct_SN, index_SN, letter=letter)


def sides(rng: np.random.Generator, shares: list[float], S: int, N: int) -> list[SideAnswers]:
    """Return sides with true accuracies, whose seeds make some trainings better than others."""
    seed_S1 = rng.normal(0, 0.01, (S, 1))
    return [
        side(rng.random((S, N)) < share + seed_S1 + rng.normal(0, 0.01, (S, 1)), letter)
        for share, letter in zip(shares, "ABCDEFGH", strict=False)
    ]


@settings(max_examples=10)
@given(st.integers(3, 4), st.integers(2, 6), st.integers(0, 99))
def test_several_sides_are_their_pairs_with_scipys_p_adjusted_by_statsmodels(
    count: int, seeds: int, seed: int
) -> None:
    given = sides(np.random.default_rng(seed), [0.9, 0.8, 0.7, 0.9][:count], seeds, 40)
    found = compare_several(given)
    pairs = list(itertools.combinations(given, 2))
    assert [one.comparison for one in found.contrasts] == [compare(a, b) for a, b in pairs]
    p = [one.p for one in found.contrasts]
    for one, (a, b) in zip(found.contrasts, pairs, strict=True):
        if one.comparison.difference.method == "paired t":
            student = stats.ttest_rel(b.accuracy_S, a.accuracy_S)
            assert one.p == pytest.approx(student.pvalue)
            wide = student.confidence_interval(1 - 0.05 / len(pairs))
            assert one.interval == pytest.approx((100 * wide.low, 100 * wide.high))
    oracle: Any = multitest.multipletests(p, alpha=0.05, method="holm")
    reject, adjusted = list(oracle[0]), list(oracle[1])
    assert [one.adjusted_p for one in found.contrasts] == pytest.approx(adjusted)
    significant = [one.outcome != "no significant difference" for one in found.contrasts]
    assert significant == reject


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_of_three_equal_sides_any_pair_is_called_different_in_at_most_5_of_100(seeds: int) -> None:
    rng, families, false = np.random.default_rng(seeds), 1000, 0
    for _ in range(families):
        found = compare_several(sides(rng, [0.9] * 3, seeds, 200))
        false += any(one.outcome != "no significant difference" for one in found.contrasts)
    assert false <= stats.binom.ppf(1 - 1e-3, families, 0.05)


def test_the_best_of_three_sides_is_named_and_by_what_it_is_better() -> None:
    found = compare_several(sides(np.random.default_rng(0), [0.7, 0.95, 0.7], 8, 300))
    assert found.verdict.best == "B"
    assert found.verdict.sentence == "B is better than every other side."
    two_good = compare_several(sides(np.random.default_rng(0), [0.7, 0.95, 0.95], 8, 300))
    assert two_good.verdict.best == ""
    assert two_good.verdict.sentence.count("is better than A") == 2
    assert "no side is better than all others" in two_good.verdict.sentence


def test_several_single_runs_are_judged_as_models_by_mcnemar() -> None:
    given = sides(np.random.default_rng(1), [0.6, 0.9, 0.6], 1, 200)
    found = compare_several(given)
    a, b = (one.correct_SN[0] for one in given[:2])
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    oracle: Any = contingency_tables.mcnemar(table, exact=True)
    assert found.contrasts[0].p == pytest.approx(oracle.pvalue)
    assert found.verdict.about == "models"
    assert "This is about single trained models" in comparison_lines(found)


# ── sides and their labels ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["", "lr=0.001"], ["lr 0.02", "lr 0.001"]),
        (["", "optimizer.name=adam"], ["sgd, lr 0.02", "adam, lr 0.001"]),
        (["model.name=cnn", "model.name=mlp"], ["cnn", "mlp"]),
        (["hidden=8", "hidden=[64,32]"], ["hidden 8", "hidden 64, 32"]),
        (["", "lr=0.1 momentum=0.5"], ["lr 0.02, momentum 0.9", "lr 0.1, momentum 0.5"]),
        (["", "lr=0.1", "epochs=3"],
         ["epochs 40, lr 0.02", "epochs 40, lr 0.1", "epochs 3, lr 0.02"]),
        (["", "lr=0.1", "epochs=3", "batch_size=8", "momentum=0.5", "optimizer.name=adamw"],
         ["digits", "lr 0.1", "epochs 3", "batch size 8", "momentum 0.5", "adamw, lr 0.001"]),
    ],
)  # fmt: skip
def test_sides_are_labeled_by_what_differs(changes: list[str], expected: list[str]) -> None:
    mlp = ["model.name=mlp"] if any("hidden" in text for text in changes) else []
    recipes = [hf.read_recipe("digits", [*mlp, *text.split()]) for text in changes]
    assert labels(["digits"] * len(recipes), recipes) == expected


OVERRIDES = st.lists(
    st.sampled_from(["lr=0.5", "epochs=3", "optimizer.name=adam", "batch_size=7", "momentum=0.1"]),
    max_size=3,
    unique=True,
).filter(lambda texts: not {"optimizer.name=adam", "momentum=0.1"} <= set(texts))


@settings(max_examples=20)
@given(st.lists(OVERRIDES, min_size=2, max_size=8, unique_by=lambda texts: tuple(sorted(texts))))
def test_no_two_sides_have_the_same_label_and_labels_fit(changes: list[list[str]]) -> None:
    recipes = [hf.read_recipe("digits", texts) for texts in changes]
    found = labels(["digits"] * len(recipes), recipes)
    assert len(set(found)) == len(found)
    assert all(0 < len(label) <= MOST_LETTERS for label in found)


def test_recipes_are_labeled_by_name_and_runs_of_one_recipe_by_folder() -> None:
    digits, mnist = hf.read_recipe("digits"), hf.read_recipe("mnist-mlp")
    assert labels(["digits", "mnist-mlp"], [digits, mnist]) == ["digits", "mnist-mlp"]
    assert labels(["runs/a/x", "runs/a/y"], [digits, digits]) == ["x", "y"]


def test_the_switched_optimizers_learning_rate_is_said_before_training(
    cli: Cli, runs: Path
) -> None:
    status, output, errors = cli(*THREE)
    assert status == 0, errors
    note = "optimizer.lr = 0.001, adam's default: the recipe's 0.02 was for sgd"
    assert f"B: {note}" in output.split("1 of 6:")[0]
    assert output.count(note) == 1
    content, page = saved(runs)
    own = [one["notes"] for one in content["setup"]["sides"]]
    assert (own[0], own[2]) == ([], [])
    assert own[1][0].startswith(note)
    assert f"B: {note}" in page.text
    assert [row[0] for row in page.by_id("main").all("table")[0].rows()] == list(content["differs"])


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────


def check_kept(content: dict[str, Any], page: Element, runs: Path) -> None:
    """Everything that a page has to name is in the JSON, and on the page."""
    setup, main_text = content["setup"], " ".join(page.by_id("main").text.split())
    lead = page.all("header")[0].text
    for word in ("digits", "network mlp", "1 epoch,", "2 seeds each", "359 test images"):
        assert word.lower() in lead.lower(), lead
    assert setup["dataset"] == "digits"
    assert setup["overrides"] == SMALL
    assert {side["network"] for side in setup["sides"]} == {"mlp"}
    assert setup["shared"]["train.epochs"] == 1
    assert setup["shared"]["model.hidden"] == [8]
    assert re.match(r"\d{4}-\d\d-\d\dT", setup["date"])
    assert setup["seconds"] > 0
    assert setup["command"].startswith("hydrofoil compare digits model.name=mlp ")
    assert setup["versions"]["torch"] == [torch.__version__]
    run = Run.open(next(runs.glob("*/seed-0")))
    shown = [
        setup["command"], setup["date"][:10], torch.__version__, np.__version__, hf.__version__,
        ", ".join(SMALL), f"{setup['seconds']:.1f} s", run.environment()["python"],
    ]  # fmt: skip
    for text in shown:
        assert text in main_text, text
    rows = {row[0]: row[1:] for table in page.all("table") for row in table.rows()}
    for name, values in (
        ("epochs", ["1"]), ("network", ["mlp"]), ("seeds", ["0, 1"]), ("recipe", ["digits"]),
        ("images: train, validation, test", ["1,258, 180, 359"]),
    ):  # fmt: skip
        assert rows[name] == values * len(setup["sides"]), name
    assert rows["model.hidden"] == ["[8]"]
    assert rows["train.batch_size"] == [str(setup["shared"]["train.batch_size"])]
    compared = content.get("sides") or [content["a"], content["b"]]
    for one, side in zip(setup["sides"], compared, strict=True):
        for curve, path in zip(one["curves"], side["runs"], strict=True):
            valid = [epoch.valid for epoch in Run.open(path).epochs() if epoch.valid]
            assert curve["valid_loss"] == [scores.loss for scores in valid]
    legend = next(one for one in page.all("ul") if one.attributes.get("class") == "legend")
    labels = [f"{one['letter']}: {one['label']}" for one in compared]
    shown = [re.sub("[\u2068\u2069]", "", item.text) for item in legend.all("li")]
    assert shown == [*labels, "validation", "training"]
    charts = page.by_id("main").all("svg")
    assert [chart for chart in charts if "Loss by epoch" in chart.text]


def test_three_sides_keep_everything_that_was_shared_and_each_sides_own(runs: Path) -> None:
    content, page = saved(runs)
    check_kept(content, page, runs)
    own = [one["overrides"] for one in content["setup"]["sides"]]
    assert own == [[], ["optimizer.name=adam"], ["lr=0.05"]]
    rows = {row[0]: row[1:] for table in page.all("table") for row in table.rows()}
    assert rows["overrides of its own"] == ["none", "optimizer.name=adam", "lr=0.05"]
    pairs = next(one for one in page.all("section") if "Each pair" in one.text)
    names = [row[0].replace("\u00a0", " ") for row in pairs.all("table")[0].rows()]
    assert names == ["B − A", "C − A", "C − B"]


def test_two_sides_are_compared_as_scipy_and_statsmodels_do_and_keep_everything(
    cli: Cli, runs: Path
) -> None:
    status, output, errors = cli("digits", *SMALL, "b.lr=0.05", "--seeds", "2")
    assert status == 0, errors
    assert output.count(", ready\n") == 4, "A and C were trained for three sides"
    assert "digits, 1 epoch, 2 seeds each, on the test split" in output
    assert "B differs from A in optimizer.lr 0.02 → 0.05" in output
    content, page = saved(runs)
    check_kept(content, page, runs)
    folders = [Path(path) for path in (*content["a"]["runs"], *content["b"]["runs"])]
    answers = [Run.open(path).results.answers()["test"] for path in folders]
    correct = [(one.predicted_N == one.labels_N).numpy() for one in answers]
    a_S, b_S = [one.mean() for one in correct[:2]], [one.mean() for one in correct[2:]]
    assert content["a"]["accuracies"] == pytest.approx(a_S)
    oracle = stats.ttest_rel(b_S, a_S)
    interval = oracle.confidence_interval()
    assert content["difference"]["p"] == pytest.approx(oracle.pvalue)
    expected = [100 * interval.low, 100 * interval.high]
    assert content["difference"]["interval"] == pytest.approx(expected)
    for pair, a, b in zip(content["pairs"], correct[:2], correct[2:], strict=True):
        table = [[(a & b).sum(), (a & ~b).sum()], [(b & ~a).sum(), (~a & ~b).sum()]]
        exact: Any = contingency_tables.mcnemar(table, exact=True)
        assert pair["discordant"]["p"] == pytest.approx(exact.pvalue)


def test_a_time_is_estimated_from_earlier_runs_before_the_first_training(
    cli: Cli, runs: Path
) -> None:
    status, output, errors = cli("digits", *SMALL, "b.lr=0.03", "--seeds", "2")
    assert status == 0, errors
    before = output.split("1 of 4:")[0]
    assert re.search(
        r"4 runs: 2 ready, 2 to be trained and tested; about \d+ s, by earlier", before
    )
    assert re.search(r"3 of 4: .*ready$", output, re.MULTILINE)
    auto = ["digits", *SMALL[:3], "b.optimizer.name=adam", "--seeds"]  # any executor
    assert cli(*auto, "1")[0] == 0
    assert "; about " in cli(*auto, "2")[1].split("1 of 4:")[0]


def test_the_page_is_opened_where_it_is_requested(
    cli: Cli, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    assert cli(*THREE)[0] == 0
    assert opened == []
    assert cli(*THREE, "--open")[0] == 0
    (kept,) = runs.glob("compare-digits-3-sides-*.html")
    assert opened == [kept.resolve().as_uri()]


# ── validation, untested runs, own networks ──────────────────────────────────────────────────────


@contextmanager
def pictures_through_networks() -> Generator[set[bytes]]:
    """Collect the pixels of every image that any network sees, as the digits recipe scales them."""
    recipe, seen = hf.read_recipe("digits"), set[bytes]()
    mean, std = recipe.data.mean, recipe.data.std
    assert mean is not None
    assert std is not None

    def note(module: nn.Module, inputs: Any) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].shape[1:] == (1, 8, 8):
            scaled_NCHW = inputs[0].detach() * std[0] + mean[0]
            seen.update(bytes(one) for one in (255 * scaled_NCHW).round().byte().flatten(1).numpy())

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def test_on_valid_no_network_sees_the_test_split_and_accuracies_are_the_validations() -> None:
    pictures = hf.load("digits")
    options: dict[str, Any] = {"hidden": 8, "epochs": 1, "execute": "eager", "seeds": 1}
    with pictures_through_networks() as seen:
        found = hf.compare(
            "digits", "model.name=mlp", on="valid", runs="chosen", b={"lr": 0.05}, **options
        )
    assert isinstance(found, Comparison)
    paths = [Path(path) for one in found.sides for path in one.runs]
    for path in paths:
        run = Run.open(path)
        assert run.log.times_tested() == 0
        assert not (path / "test.json").exists()
        test, valid = (
            {bytes(row) for row in pictures.pictures_NCHW[part].flatten(1).numpy()}
            for part in (run.split().test, run.split().valid)
        )
        assert len(test) > 300
        assert not seen & test
        assert valid <= seen
    accuracies = [accuracy for one in found.sides for accuracy in one.accuracies]
    best = [next(e for e in reversed(Run.open(path).epochs()) if e.best) for path in paths]
    assert accuracies == pytest.approx([one.valid.accuracy for one in best if one.valid])
    assert found.part == "valid"
    assert "the test split stayed closed" in comparison_lines(found)
    with pictures_through_networks() as seen:  # the hook does see a test
        hf.test(paths[0])
    test_rows = pictures.pictures_NCHW[Run.open(paths[0]).split().test].flatten(1).numpy()
    assert {bytes(row) for row in test_rows} <= seen


def test_untested_runs_are_tested_once_and_the_opening_is_counted(cli: Cli) -> None:
    for folder, lr in (("slow", 0.01), ("fast", 0.05)):
        for seed in (0, 1):
            hf.train(
                "digits", [*SMALL, f"lr={lr}"], seed=seed, run=f"{folder}/{seed}", test=False
            )  # fmt: skip
    assert cli("slow", "fast", "--on", "valid")[0] == 0
    assert not list(Path().glob("*/*/test.json"))
    status, output, errors = cli("slow", "fast", "--runs", "kept")
    assert status == 0, errors
    assert "4 runs: 4 to be tested, which opens the test split of each." in output
    assert output.count(", tested in ") == 4
    for _ in range(2):
        content, _ = saved(Path("kept"))
        assert content["a"]["opened"] == content["b"]["opened"] == [1, 1]
        counts = [Run.open(path).log.times_tested() for path in Path().glob("[fs]*/[01]")]
        assert counts == [1] * 4
        assert cli("slow", "fast", "--runs", "kept")[1].count(", ready\n") == 4


def test_fields_are_keywords_of_the_python_function() -> None:
    found = hf.compare(
        "digits", "model.name=mlp", hidden=8, epochs=1, execute="eager", seeds=2,
        b={"optimizer": "adam", "lr": 0.01}, c={"batch_size": 16},
    )  # fmt: skip
    assert isinstance(found, Comparisons)
    assert found.setup is not None
    assert found.setup.command == ""
    assert found.differs["optimizer.lr"] == (0.02, 0.01, 0.02)
    assert found.differs["train.batch_size"][2] == 16
    assert found.setup.shared["train.epochs"] == 1
    assert [len(one.seeds) for one in found.sides] == [2, 2, 2]
    with pytest.raises(HydrofoilError, match="by its letter"):
        hf.compare("digits", bb={"lr": 0.1})


CODE = """
from torch import nn

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_a_side_can_be_the_users_own_network(cli: Cli) -> None:
    Path("nets.py").write_text(CODE)
    fields = ["digits", "epochs=1", "execute=eager", "--seeds", "2"]
    status, output, errors = cli(*fields, "--model-code", "b=nets.py:linear")
    assert status == 0, errors
    assert "Comparing A (cnn3) and B (linear)" in output
    content, _ = saved(Path("runs/compare"))
    assert [one["network"] for one in content["setup"]["sides"]] == ["cnn3", "linear"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["digits", "c.lr=0.1"], "side B has no change of its own"),
        (["digits", "lr=0.1"], "side A alone"),
        (["digits", "i.lr=0.1"], "expected at most 8 sides, a to h"),
        (["digits", "digits", "b.lr=0.1", "c.lr=0.2"], "2 sides were named, A to B"),
        (["digits", "b.lr=0.1", "--on", "train"], "--on train: expected test or valid"),
        (["digits", "b.lr=0.1", "data.valid=0", "--on", "valid"], "no validation split"),
        (["digits", "b.lr=0.02"], "A and B are the same recipe"),
        (["digits", "b.lr=0.1", "c.lr=0.1"], "B and C are the same recipe"),
        ([], "compare: no side"),
    ],
)
def test_sides_that_do_not_fit_exit_with_2_and_short_advice(
    arguments: list[str], expected: str, cli: Cli
) -> None:
    status, _, errors = cli(*arguments)
    assert status == 2
    assert expected in errors
    assert 1 <= len(errors.strip().splitlines()) <= 3
    assert not Path("runs").exists()
