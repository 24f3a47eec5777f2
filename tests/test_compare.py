"""The statistics of a comparison, held to statsmodels, SciPy's own tests and simulation; the verb.

Axes: M simulated comparisons, S seeds, N test pictures.
"""

import ast
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats import contingency_tables
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestIndPower, TTestPower

from hydrofoil import Run
from hydrofoil.cli.main import main
from hydrofoil.compare import statistics
from hydrofoil.compare.statistics import (
    SideAnswers,
    bootstrap_points,
    mcnemar,
    other_pictures,
    power,
    seed_difference,
    seeds_needed,
    shown_points,
)
from hydrofoil.compare.verdict import compare
from hydrofoil.observe.recorder import Recorder
from hydrofoil.report.comparison import comparison_lines
from tests.axes import names_held
from tests.conftest import Cli

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


# ── statistics ───────────────────────────────────────────────────────────────────────────────────


def simulated(
    rng: np.random.Generator,
    M: int,
    S: int,
    N: int,
    *,
    gain: float = 0.0,
    other: float = 0.0,
    easy: float = 3.0,
) -> tuple[Floats, Floats]:
    """Return both sides' accuracies in M comparisons, as trained networks answer.

    Pictures are easy or hard for both sides alike; a seed makes a training better or worse, in part
    for both sides alike, as they share its order; each training then has its own luck with each
    picture.

    Args:
        rng: Draws all of it.
        M: Comparisons.
        S: Seeds.
        N: Pictures.
        gain: By how much B finds every picture easier, in logits.
        other: Deviation of what B finds easier in one picture and harder in the next, in logits.
        easy: The mean logit.
    """
    right = answered(rng, M, S, N, gain=gain, other=other, easy=easy)
    return right[0].mean(-1), right[1].mean(-1)


def answered(
    rng: np.random.Generator, M: int, S: int, N: int, *, gain: float, other: float, easy: float
) -> list[Bools]:
    picture_M1N = rng.normal(easy, 2.5, (M, 1, N))
    taste_M1N = rng.normal(0, other, (M, 1, N)) + gain
    seed_MS1 = rng.normal(0, 0.1, (M, S, 1))
    sides: list[Bools] = []
    for own_M1N in (0.0, taste_M1N):
        logit_MSN = picture_M1N + own_M1N + seed_MS1 + rng.normal(0, 0.15, (M, S, 1))
        sides.append(rng.random((M, S, N)) < 1 / (1 + np.exp(-logit_MSN)))
    return sides


def alarms(accuracy_A_MS: Floats, accuracy_B_MS: Floats, paired: bool) -> int:
    words = [
        seed_difference(accuracy_A_S, accuracy_B_S, paired=paired).outcome
        for accuracy_A_S, accuracy_B_S in zip(accuracy_A_MS, accuracy_B_MS, strict=True)
    ]
    return len(words) - words.count("no significant difference")


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "Welch"])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_equal_recipes_are_called_different_5_times_in_100(seeds: int, paired: bool) -> None:
    check_false_alarms(seeds, paired, M=4000, pictures=200)


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_mistakes_raise_no_false_alarm(seeds: int) -> None:
    check_false_alarms(seeds, True, M=4000, pictures=200, easy=6.0)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "Welch"])
@pytest.mark.parametrize("pictures", [100, 360, 1000])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_equal_recipes_are_called_different_5_times_in_100_of_many(
    seeds: int, pictures: int, paired: bool
) -> None:
    check_false_alarms(seeds, paired, M=20_000, pictures=pictures)


def check_false_alarms(seeds: int, paired: bool, M: int, pictures: int, easy: float = 3.0) -> None:
    count = 0
    for part in range(M // 1000):
        rng = np.random.default_rng([seeds, pictures, part])
        count += alarms(*simulated(rng, 1000, seeds, pictures, easy=easy), paired)
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], M, 0.05)
    assert count <= high
    # With fewer seeds whole pictures make t too careful; Welch's t is so of itself.
    if seeds >= 5 and paired:
        assert count >= low


def test_the_recommended_seeds_detect_the_difference_4_times_in_5() -> None:
    rng = np.random.default_rng(1)
    accuracy_A_MS, accuracy_B_MS = simulated(rng, 20_000, 1, 200, gain=0.3)
    difference_M = 100 * (accuracy_B_MS - accuracy_A_MS)[:, 0]
    points, deviation = float(difference_M.mean()), float(difference_M.std())
    seeds = seeds_needed(points, deviation)
    assert seeds is not None
    assert 5 <= seeds <= 30, "the simulated difference is meant to take some seeds"
    found = alarms(*simulated(rng, 2000, seeds, 200, gain=0.3), True)
    claimed = power(seeds, points, deviation)
    assert 0.8 <= claimed < 0.86
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 2000, claimed)
    # Skewness, whole pictures and the deviation's own error move it by a point or so.
    assert low - 40 <= found <= high + 40


def test_the_interval_over_pictures_holds_where_recipes_have_their_own_strong_pictures() -> None:
    rng = np.random.default_rng(2)
    M, S, N = 800, 10, 100
    correct_A_MSN, correct_B_MSN = answered(rng, M, S, N, gain=0.0, other=4.0, easy=0.0)
    covered = covered_by_seeds = 0
    for correct_A_SN, correct_B_SN in zip(correct_A_MSN, correct_B_MSN, strict=True):
        interval = other_pictures(correct_A_SN, correct_B_SN)
        over_seeds = seed_difference(
            correct_A_SN.mean(1), correct_B_SN.mean(1), paired=True
        ).interval
        assert interval is not None
        assert over_seeds is not None
        covered += interval[0] <= 0 <= interval[1]  # of all pictures, neither side is better
        covered_by_seeds += over_seeds[0] <= 0 <= over_seeds[1]
    assert 0.93 <= covered / M <= 0.99
    assert covered_by_seeds / M < 0.8, "seeds alone say nothing of other pictures"


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_difference_and_interval_over_seeds_are_scipys(seeds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy_A_S, accuracy_B_S = rng.random(seeds), rng.random(seeds)
    accuracy_B_more_S = rng.random(seeds + 3)
    oracles = [
        (accuracy_B_S, True, stats.ttest_rel(accuracy_B_S, accuracy_A_S)),
        (
            accuracy_B_more_S,
            False,
            stats.ttest_ind(accuracy_B_more_S, accuracy_A_S, equal_var=False),
        ),
    ]
    for b_S, paired, oracle in oracles:
        found = seed_difference(accuracy_A_S, b_S, paired=paired)
        interval = oracle.confidence_interval()
        assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
        assert found.interval == pytest.approx((100 * interval.low, 100 * interval.high))
        assert found.points == pytest.approx(100 * (b_S.mean() - accuracy_A_S.mean()))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_that_of_statsmodels(only_a: int, only_b: int, both: int) -> None:
    correct_A_N = np.array([True] * (only_a + both) + [False] * (only_b + 1))
    correct_B_N = np.array([False] * only_a + [True] * (both + only_b) + [False])
    found = mcnemar(correct_A_N, correct_B_N)
    table = [[both, only_a], [only_b, 1]]
    assert (found.only_a, found.only_b) == (only_a, only_b)
    if only_a + only_b:
        oracle = contingency_tables.mcnemar(table, exact=True).pvalue
        assert found.p == pytest.approx(oracle)
    else:
        assert found.p == 1


@pytest.mark.parametrize("points", [0.3, 0.5, 1.0, 3.0])
def test_power_and_seeds_are_those_of_statsmodels(points: float) -> None:
    needed = TTestPower().solve_power(points, alpha=0.05, power=0.8)
    assert seeds_needed(points, 1.0) == int(np.ceil(needed))
    assert power(7, points, 1.0) == pytest.approx(TTestPower().power(points, 7, 0.05))
    assert power(7, shown_points(7, points), points) == pytest.approx(0.8)
    # Not paired, two sides that vary alike: the variances add, and each seed brings two degrees.
    two = TTestIndPower().power(points, 7, 0.05)
    assert power(7, points, np.sqrt(2), 2.0) == pytest.approx(two)


def test_seeds_are_counted_up_to_a_bound() -> None:
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(50.0, 0.01) == 2
    assert power(10, 1000.0, 0.001) == 1.0


@given(st.integers(2, 3000), st.floats(1e-3, 1e3), st.floats(1, 2))
def test_power_is_a_share_and_grows_with_the_difference(
    seeds: int, points: float, freedom: float
) -> None:
    less, more = power(seeds, points, 1.0, freedom), power(seeds, 1.1 * points, 1.0, freedom)
    assert 0.05 <= less <= more + 1e-9 <= 1 + 2e-9


@pytest.mark.parametrize("other", [1.0, 5.0])
def test_the_interval_over_pictures_has_the_mean_squares_of_statsmodels(other: float) -> None:
    rng = np.random.default_rng(3)
    ((correct_A_SN,), (correct_B_SN,)) = answered(rng, 1, 5, 40, gain=0.5, other=other, easy=0)
    S, N = correct_A_SN.shape
    points_SN = 100.0 * (correct_B_SN.astype(int) - correct_A_SN)
    seed_SN, picture_SN = np.indices((S, N))
    frame = pandas.DataFrame(
        {"y": points_SN.ravel(), "s": seed_SN.ravel(), "n": picture_SN.ravel()}
    )
    squares = anova_lm(ols("y ~ C(s) + C(n)", frame).fit())["mean_sq"]
    total = squares["C(s)"] + max(squares["C(n)"] - squares["Residual"], 0)
    freedom = total**2 / (squares["C(s)"] ** 2 / (S - 1))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total / (S * N))
    over_seeds = stats.ttest_1samp(points_SN.mean(1), 0).confidence_interval()
    half, mean = max(half, (over_seeds.high - over_seeds.low) / 2), points_SN.mean()
    assert other_pictures(correct_A_SN, correct_B_SN) == pytest.approx((mean - half, mean + half))


def test_what_covers_pictures_too_is_never_narrower_and_may_weaken_the_verdict() -> None:
    rng = np.random.default_rng(6)
    weakened = 0
    correct_A_MSN, correct_B_MSN = answered(rng, 200, 6, 60, gain=0.3, other=3.0, easy=0.0)
    for correct_A_SN, correct_B_SN in zip(correct_A_MSN, correct_B_MSN, strict=True):
        found = compare(side(correct_A_SN), side(correct_B_SN))
        wide, narrow = found.other_pictures, found.difference.interval
        assert wide is not None
        assert narrow is not None
        assert wide[0] <= narrow[0] + 1e-9 < narrow[1] <= wide[1] + 1e-9
        significant = found.verdict.outcome != "no significant difference"
        says_so = "This may not hold on other test images" in found.verdict.sentence
        assert says_so == (significant and wide[0] <= 0 <= wide[1])
        weakened += says_so
    assert 0 < weakened < 200


def test_the_bootstrap_is_the_same_twice_mirrored_and_near_t_with_many_seeds() -> None:
    rng = np.random.default_rng(4)
    accuracy_A_S, accuracy_B_S = 0.9 + 0.01 * rng.normal(size=(2, 60))
    for paired in (True, False):
        found = bootstrap_points(accuracy_A_S, accuracy_B_S, paired=paired)
        assert found is not None
        assert found == bootstrap_points(accuracy_A_S, accuracy_B_S, paired=paired)
        student = seed_difference(accuracy_A_S, accuracy_B_S, paired=paired).interval
        assert found == pytest.approx(student, abs=0.06)
        mirrored = bootstrap_points(accuracy_B_S, accuracy_A_S, paired=paired)
        assert mirrored is not None
        assert mirrored == pytest.approx((-found[1], -found[0]), abs=0.03)


def side(correct_SN: Bools, seeds: range | None = None, first: int = 0) -> SideAnswers:
    S, N = correct_SN.shape
    index_SN = np.tile(np.arange(first, first + N), (S, 1))
    return SideAnswers("x", tuple(seeds or range(S)), correct_SN, index_SN)


def answers_SN(S: int, N: int = 50, seed: int = 0, share: float = 0.8) -> Bools:
    return np.random.default_rng(seed).random((S, N)) < share


def test_identical_answers_show_no_significant_difference() -> None:
    found = compare(side(answers_SN(4)), side(answers_SN(4)))
    assert found.verdict.outcome == "no significant difference"
    assert found.difference.p == 1
    assert [pair.discordant.p for pair in found.pairs] == [1] * 4
    assert found.bootstrap is found.other_pictures is found.shown_points is None
    assert "their means are equal" in comparison_lines(found)


@pytest.mark.parametrize(
    ("seeds", "word"),
    [(2, "no significant difference"), (5, "no significant difference"), (6, "better")],
)
def test_a_constant_difference_is_judged_by_flipped_signs(seeds: int, word: str) -> None:
    correct_A_SN = np.ones((seeds, 50), bool)
    correct_A_SN[:, 0] = False
    found = compare(side(correct_A_SN), side(np.ones((seeds, 50), bool)))
    assert found.difference.method == "sign flips"
    assert found.difference.p == 2 / 2**seeds
    assert found.difference.interval is None
    assert found.verdict.outcome == word
    if word != "better":
        assert found.verdict.more_seeds == 6 - seeds


def test_a_single_seed_judges_the_two_models_and_not_the_recipes() -> None:
    correct_A_SN = answers_SN(1, 400, share=0.7)
    found = compare(side(correct_A_SN), side(correct_A_SN | answers_SN(1, 400, 1, 0.2)))
    assert (found.verdict.outcome, found.verdict.about) == ("better", "models")
    assert "Comparing the recipes takes several seeds" in found.verdict.sentence
    assert found.difference.p is None
    assert found.a.interval is None
    alike = compare(side(correct_A_SN), side(correct_A_SN))
    assert alike.verdict.outcome == "no significant difference"


def test_other_seeds_are_compared_by_welch() -> None:
    found = compare(side(answers_SN(4)), side(answers_SN(5, seed=1), range(5)))
    assert not found.paired
    assert found.difference.method == "Welch's t"
    assert found.pairs == ()
    assert "different seeds" in comparison_lines(found)


def test_other_pictures_are_not_paired() -> None:
    found = compare(side(answers_SN(4)), side(answers_SN(4, seed=1), first=7))
    assert not found.paired
    assert found.difference.method == "Welch's t"
    text = comparison_lines(found)
    assert "Not compared image by image: the sides were tested on different images" in text
    single = compare(side(answers_SN(1)), side(answers_SN(1), first=7))
    assert single.verdict.outcome == "no significant difference"
    assert single.mcnemar_median is None


def test_welch_without_spread_is_judged_by_permuted_sides() -> None:
    ones, less = np.full(4, 0.9), np.full(4, 0.8)
    found = seed_difference(ones, less, paired=False)
    assert found.method == "permutations"
    assert found.p == pytest.approx(2 / 70)
    assert found.outcome == "worse"
    assert seed_difference(ones[:3], less[:3], paired=False).outcome == "no significant difference"
    correct_SN = np.ones((3, 10), bool)
    less_SN = correct_SN & (np.arange(10) > 0)
    verdict = compare(side(correct_SN), side(less_SN, range(3, 6))).verdict
    assert verdict.more_seeds == 1, "four of each side have 70 ways"


def test_seeds_are_recommended_for_the_requested_difference() -> None:
    a, b = side(answers_SN(5, 1000)), side(answers_SN(5, 1000, seed=1))
    found = compare(a, b, target_points=0.5)
    assert found.verdict.outcome == "no significant difference"
    assert found.difference.deviation is not None
    needed = TTestPower().solve_power(0.5 / found.difference.deviation, alpha=0.05, power=0.8)
    assert found.verdict.more_seeds == int(np.ceil(needed)) - 5
    assert f"about {found.verdict.more_seeds} more seeds" in found.verdict.sentence
    assert "would detect a difference of 0.5 points" in found.verdict.sentence
    seen = compare(a, b, target_points=30).verdict
    assert seen.more_seeds == 0
    assert "would have been detected" in seen.sentence


def test_pictures_drawn_by_seed_leave_other_pictures_out() -> None:
    fixed = compare(side(answers_SN(4)), side(answers_SN(4, seed=1)))
    assert fixed.fixed_pictures
    assert fixed.other_pictures is not None
    drawn_SN = np.argsort(np.random.default_rng(5).random((4, 90)))[:, :50]
    drawn = compare(
        SideAnswers("a", (0, 1, 2, 3), answers_SN(4), drawn_SN),
        SideAnswers("b", (0, 1, 2, 3), answers_SN(4, seed=1), drawn_SN),
    )
    assert drawn.paired
    assert not drawn.fixed_pictures
    assert drawn.other_pictures is None
    assert "not new test images" in comparison_lines(drawn)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_every_kind_of_comparison_has_text_and_json(
    seeds_a: int, seeds_b: int, pictures: int, seed: int
) -> None:
    a, b = side(answers_SN(seeds_a, pictures, seed)), side(answers_SN(seeds_b, pictures, seed + 1))
    found = compare(a, b, seed_counts=[3])
    text = comparison_lines(found)
    assert text.splitlines()[-1] == f"verdict: {found.verdict.sentence}"
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert content["difference"]["points"] == found.difference.points
    mirrored = compare(b, a).verdict.outcome
    opposite = {"better": "worse", "worse": "better"}
    assert mirrored == opposite.get(found.verdict.outcome, "no significant difference")


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────

SMALL = [
    "digits",
    "digits",
    "model.name=mlp",
    "model.hidden=[24]",
    "train.epochs=2",
    "train.execute=eager",
]
LESS = "b.optimizer.lr=0.001"


@pytest.fixture
def cli(cli: Cli) -> Cli:
    """Run `hydrofoil compare` in this process; return its exit status, output and error output."""
    return partial(cli, "compare")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two recipes, compared; copy it before changing it."""
    folder = tmp_path_factory.mktemp("compared") / "runs"
    with pytest.raises(SystemExit) as left:
        main(["compare", *SMALL, LESS, "--seeds", "3", "--runs", str(folder)])
    assert left.value.code == 0
    return folder


@pytest.fixture
def runs(compared: Path) -> Path:
    return Path(shutil.copytree(compared, "runs/compare"))


def accuracy_of(run: Path) -> float:
    result = Run.open(run).results.test()
    assert result
    return result.accuracy


def folders(runs: Path) -> list[Path]:
    """Return both sides' folders, A first: the one that learns faster."""
    found = sorted(path for path in runs.iterdir() if path.is_dir())
    return sorted(found, key=lambda path: -Run.open(path / "seed-0").recipe.optimizer.lr)


def test_two_recipes_are_trained_tested_and_compared(cli: Cli, runs: Path) -> None:
    status, output, errors = cli(*SMALL, LESS, "--seeds", "3")
    assert status == 0, errors
    assert "6 of 6: B (lr 0.001), seed 2" in output
    assert output.count(", ready\n") == 6
    (kept,) = runs.glob("compare-digits-lr-0.02-lr-0.001-*.json")
    page = kept.with_suffix(".html")
    assert output.rstrip().endswith(f"saved: {kept}, and as a page: {page}")
    assert "Is lr 0.001 better than lr 0.02?" in page.read_text("utf-8")
    content = json.loads(kept.read_text())
    assert content["differs"] == {"optimizer.lr": [0.02, 0.001]}
    assert content["a"]["seeds"] == [0, 1, 2]
    assert content["paired"]
    for letter, folder in zip("ab", folders(runs), strict=True):
        accuracies = [accuracy_of(folder / f"seed-{seed}") for seed in (0, 1, 2)]
        assert content[letter]["accuracies"] == pytest.approx(accuracies)
        assert [Run.open(path).log.times_tested() for path in content[letter]["runs"]] == [1] * 3
    assert content["verdict"]["outcome"] == "worse"
    assert f"verdict: {content['verdict']['sentence']}" in output
    again = json.loads(cli(*SMALL, LESS, "--seeds", "3", "--json")[1])
    for one in (content, again):  # the call itself, and when it was made
        for name in ("command", "date", "seconds"):
            del one["setup"][name]
    assert again == content


def test_axis_names_in_a_comparison_are_true(cli: Cli, runs: Path) -> None:
    with names_held() as seen:
        assert cli(*folders(runs))[0] == 0
    assert {"correct_A_N", "accuracy_A_S", "accuracy_S"} <= set(seen)


def test_an_interrupted_comparison_resumes(
    cli: Cli, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, epochs = Recorder.epoch, iter(range(99))

    def keep_or_stop(self: Recorder, *arguments: Any) -> None:
        keep(self, *arguments)
        if next(epochs) == 4:  # the third run's first epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "epoch", keep_or_stop)
        status, output, errors = cli(*SMALL, LESS, "--seeds", "3")
    assert status == 130
    assert "stopped after 1 of 2 epochs" in errors
    assert f"Continue the comparison with: hydrofoil compare {SMALL[0]}" in errors
    assert "2 of 6: B (lr 0.001), seed 0" in output
    status, output, errors = cli(*SMALL, LESS, "--seeds", "3")
    assert status == 0, errors
    done = [
        line.split(", ")[-1].split(" in ")[0] for line in output.splitlines() if " of 6: " in line
    ]
    assert done == ["ready", "ready", "resumed", "trained", "trained", "trained"]
    (kept,) = Path("runs/compare").glob("*.json")
    straight = json.loads((compared / kept.name).read_text())
    assert json.loads(kept.read_text())["difference"] == straight["difference"]


def test_existing_runs_are_compared_by_folder_and_by_pattern(cli: Cli, runs: Path) -> None:
    a, b = folders(runs)
    by_folder = json.loads(cli(a, b, "--json")[1])
    by_pattern = json.loads(cli(f"{a}/seed-*", b, "--json")[1])
    assert by_folder["difference"] == by_pattern["difference"]
    single = json.loads(cli(a / "seed-1", b / "seed-1", "--json")[1])
    assert single["verdict"]["about"] == "models"
    assert single["pairs"] == [by_folder["pairs"][1]]
    other = json.loads(cli(f"{a}/seed-[01]", b, "--json")[1])
    assert not other["paired"]
    assert other["difference"]["method"] == "Welch's t"


def test_a_recipe_gets_the_seeds_of_the_runs_on_the_other_side(cli: Cli, runs: Path) -> None:
    fields = [f"b.{field}" for field in SMALL[2:]]
    a, _ = folders(runs)
    status, output, errors = cli(f"{a}/seed-[12]", "digits", *fields, LESS)
    assert status == 0, errors
    assert output.count(", ready\n") == 4


def test_a_run_without_saved_answers_is_tested_again(cli: Cli, runs: Path) -> None:
    a, b = folders(runs)
    (a / "seed-0/answers.npz").unlink()
    status, output, errors = cli(a, b)
    assert status == 0, errors
    assert "6 runs: 5 ready, 1 to be tested, which opens the test split of each." in output
    assert "A (lr 0.02), seed 0" in output
    assert output.count(", tested in ") == 1
    assert "opened its test split 2 times" in output


def test_answers_of_another_test_than_the_result_are_refused(cli: Cli, runs: Path) -> None:
    a, b = folders(runs)
    Run.open(a / "seed-0").files.write("answers.npz", (b / "seed-0/answers.npz").read_bytes())
    status, _, errors = cli(a, b)
    assert status == 2
    assert "do not match" in errors
    assert f"hydrofoil test {a}/seed-0" in errors


def test_other_test_pictures_are_compared_by_welch(cli: Cli, runs: Path) -> None:
    status, output, errors = cli(*SMALL, LESS, "b.data.test=0.3", "--seeds", "2")
    assert status == 0, errors
    assert "not paired: the sides were tested on different images" in output
    assert "Welch's t over seeds" in output
    assert "McNemar" not in output


def test_comparing_again_after_more_seeds_is_reported(cli: Cli, runs: Path) -> None:
    assert cli(*SMALL, LESS, "--seeds", "2")[0] == 0
    content = json.loads(cli(*SMALL, LESS, "--seeds", "3", "--json")[1])
    assert content["seed_counts"] == [2, 3]
    assert "also compared after 2 seeds" in cli(*SMALL, LESS, "--seeds", "3")[1]


def test_a_merged_test_split_is_warned_of(cli: Cli) -> None:
    recipe = ["cifar10-lenet-linear", "cifar10-lenet-linear", "train.execute=eager"]
    options = ["train.epochs=1", "train.batch_size=100", "b.optimizer.momentum=0", "--seeds", "1"]
    status, output, errors = cli(*recipe, *options)
    assert status == 0, errors
    assert output.count("cannot be compared with published results") == 1
    assert "Comparing the recipes takes several seeds" in output


def wrong_inputs(a: Path, b: Path) -> dict[str, tuple[list[object], list[str]]]:
    return {
        "nothing": (["digits"], ["B"]),
        "same recipe": (["digits", "digits"], ["the same recipe", "bit-identical"]),
        "same run": ([a / "seed-0", a / "seed-0"], ["the same recipe"]),
        "other sets": (["digits", "mnist-cnn"], ["digits", "mnist", "different datasets"]),
        "unknown recipe": (["digits", "digit"], ["unknown recipe 'digit'", "'digits'"]),
        "unknown run": (["digits", "runs/none"], ["runs/none", "no such run folder"]),
        "empty folder": ([a, "empty"], ["empty: contains no runs"]),
        "empty pattern": ([a, "runs/x-*"], ["runs/x-*: contains no runs"]),
        "unknown field": (["digits", "digits", "b.optimizer.lrr=1"], ["optimizer.lrr", "'lr'"]),
        "field of a run": ([a, b, LESS], ["optimizer.lr=0.001", "Override fields of a recipe"]),
        "seeds of runs": ([a, b, "--seeds", "3"], ["--seeds 3", "names existing runs"]),
        "no seeds": (["digits", "digits", LESS, "--seeds", "0"], ["--seeds"]),
        "two recipes a side": ([f"{a.parent}/*/seed-*", b], ["different recipes", "optimizer.lr"]),
        "no difference": ([a, b, "--difference", "0"], ["--difference 0"]),
        "a seed twice": (["twice", b], ["the same seed, 0"]),
        "unfinished": (["unfinished", b], ["not finished", "hydrofoil resume unfinished"]),
        "no test split": (["digits", "digits", "data.test=0", LESS], ["no test split"]),
    }


@pytest.mark.parametrize("case", wrong_inputs(Path("a"), Path("b")))
def test_a_wrong_comparison_exits_with_2_and_short_advice(case: str, cli: Cli, runs: Path) -> None:
    a, b = folders(runs)
    Path("empty").mkdir()
    for copy in ("1", "2"):
        shutil.copytree(a / "seed-0", f"twice/{copy}")
    shutil.copytree(a / "seed-0", "unfinished")
    for name in ("last", "previous", "best"):
        Path(f"unfinished/{name}.safetensors").unlink(missing_ok=True)
    before = sorted(runs.rglob("*"))
    arguments, parts = wrong_inputs(a, b)[case]
    status, _, errors = cli(*arguments)
    assert status == 2, errors
    assert all(part in errors for part in parts), errors
    assert 1 <= len(errors.strip().splitlines()) <= 3, errors
    assert sorted(runs.rglob("*")) == before


def test_a_run_that_diverges_is_named(cli: Cli) -> None:
    status, _, errors = cli(*SMALL, "b.optimizer.lr=1e30", "--seeds", "2")
    assert status == 2
    assert errors.startswith("B, runs/compare/digits-")
    assert "loss is" in errors


def test_another_recipes_run_in_the_way_is_left_alone(cli: Cli, runs: Path) -> None:
    a, b = folders(runs)
    shutil.rmtree(a / "seed-1")
    shutil.copytree(b / "seed-1", a / "seed-1")
    status, _, errors = cli(*SMALL, LESS, "--seeds", "3")
    assert status == 2
    assert f"{a}/seed-1: holds a run of another recipe" in errors


def test_scipy_is_imported_only_where_it_is_used() -> None:
    source = ast.parse(Path(statistics.__file__).read_text("utf-8"))
    above = {alias.name for n in source.body if isinstance(n, ast.Import) for alias in n.names}
    above |= {n.module or "" for n in source.body if isinstance(n, ast.ImportFrom)}
    assert "numpy" in above
    assert not [name for name in above if name.startswith("scipy")]
