"""A training for a given time: the arithmetic, the last epoch that ends early, and what is kept."""

import re
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import hydrofoil as hf
from hydrofoil.recipe.read import read_recipe
from hydrofoil.run.events import BudgetPlanned, BudgetSpent
from hydrofoil.session import budget as session
from hydrofoil.train.budget import Costs, Length, longest, seconds_of
from hydrofoil.train.feed import make_feed
from hydrofoil.train.schedules import rates

TIMES = st.floats(1e-4, 2.0)
COSTS = st.builds(
    Costs,
    steps=st.integers(1, 200),
    step_seconds=st.lists(TIMES, min_size=1, max_size=3).map(tuple),
    epoch_seconds=TIMES,
    before_seconds=TIMES,
    after_seconds=TIMES,
)


def literal_seconds(costs: Costs, epochs: int, last_steps: int) -> float:
    """Add up every epoch, as it is trained."""
    parts, seconds = len(costs.step_seconds), costs.before_seconds + costs.after_seconds
    for epoch in range(1, epochs + 1):
        steps = last_steps or costs.steps if epoch == epochs else costs.steps
        part = min((epoch - 1) * parts // epochs, parts - 1)
        seconds += steps * costs.step_seconds[part] + costs.epoch_seconds
    return seconds


@given(COSTS, st.integers(1, 30), st.integers(0, 200))
def test_the_predicted_time_is_the_sum_of_all_epochs(costs: Costs, epochs: int, last: int) -> None:
    assume(last <= costs.steps and epochs >= costs.fewest)
    predicted = costs.seconds(epochs, last)
    assert predicted == pytest.approx(literal_seconds(costs, epochs, last))


@given(COSTS, st.floats(1.0, 5000.0))
def test_the_longest_training_fits_and_one_step_more_does_not(costs: Costs, budget: float) -> None:
    assume(costs.seconds(costs.fewest) <= budget)
    assume(costs.seconds(3000) > budget)
    found = longest(budget, costs)
    assert found.seconds <= budget + 1e-6
    assert found.seconds == pytest.approx(
        literal_seconds(costs, found.epochs, found.last_steps), abs=1e-6
    )
    if len(costs.step_seconds) > 1:
        return  # another number of epochs divides the parts in another way
    taken = found.last_steps or costs.steps
    longer = (
        costs.seconds(found.epochs, taken + 1)
        if taken < costs.steps
        else costs.seconds(found.epochs + 1, 1)
    )
    assert longer > budget - 1e-6


@given(COSTS, st.floats(0.01, 0.99))
def test_a_budget_that_is_too_small_names_one_that_is_enough(costs: Costs, share: float) -> None:
    with pytest.raises(hf.HydrofoilError, match="expected at least") as caught:
        longest(share * costs.seconds(costs.fewest), costs)
    found = re.search(r"expected at least (\d+)s", str(caught.value))
    assert found
    assert longest(float(found[1]), costs).epochs >= 1


@given(COSTS, st.floats(0.01, 0.99))
def test_a_smaller_network_is_advised_only_where_it_would_help(costs: Costs, share: float) -> None:
    budget = share * costs.seconds(costs.fewest)
    with pytest.raises(hf.HydrofoilError) as caught:
        longest(budget, costs)
    helps = budget > costs.before_seconds + costs.after_seconds
    assert ("a smaller network" in str(caught.value)) == helps


@given(st.integers(1, 300), st.sampled_from("smh"))
def test_a_time_has_a_unit(number: int, unit: str) -> None:
    assert seconds_of(f"{number}{unit}") == number * {"s": 1, "m": 60, "h": 3600}[unit]


@pytest.mark.parametrize("text", ["90", "2 minutes", "0s", "-3m", "m", "1e9h", "nan", "s2"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"such as 90s, 2m or 1\.5h"):
        seconds_of(text)


# ── the last epoch that ends early ───────────────────────────────────────────────────────────────

EARLY = ["train.epochs=3", "train.last_steps=7", "train.execute=eager", "data.train=320"]


def test_the_last_epoch_has_the_first_of_its_images_and_the_others_have_all() -> None:
    short, full = read_recipe("digits", EARLY), read_recipe("digits", [*EARLY, "last_steps=0"])
    index_N, labels_N = torch.arange(320), torch.zeros(320, dtype=torch.int64)
    for epoch in (1, 2, 3):
        one, other = (make_feed(recipe, index_N, labels_N, epoch, 2) for recipe in (short, full))
        steps = 7 if epoch == 3 else 10
        assert one.steps == len(one.rates_S) == len(one.draws_SL2) == steps
        assert torch.equal(one.order_N, other.order_N[: 32 * steps])
        assert torch.equal(one.draws_SL2, other.draws_SL2[:steps])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_schedule_ends_where_the_last_epoch_does(schedule: str) -> None:
    recipe = read_recipe("digits", [*EARLY, f"schedule={schedule}"])
    all_rates = [rate for epoch in (1, 2, 3) for rate in rates(recipe, 10, epoch)][: 10 + 10 + 7]
    one_epoch = read_recipe("digits", ["epochs=1", f"schedule={schedule}"])
    assert all_rates == pytest.approx(rates(one_epoch, 27, 1))


def test_a_run_that_ends_early_resumes_bit_identically_and_takes_no_more_epochs(
    tmp_path: Path,
) -> None:
    whole = hf.train("digits", [*EARLY, "schedule=linear"], run=tmp_path / "whole")
    assert [epoch.train.count for epoch in whole.epochs()] == [320, 320, 7 * 32]

    class Stop(hf.Observer):
        def steps(self, progress: Any) -> None:
            if (progress.epoch, progress.step) == (3, 4):
                raise KeyboardInterrupt

    settings = [*EARLY, "schedule=linear", "train.save_steps=2"]
    with pytest.raises(KeyboardInterrupt):
        hf.train("digits", settings, run=tmp_path / "cut", observers=[Stop()])
    resumed = hf.resume(tmp_path / "cut")
    assert resumed.model.weights_hash() == whole.model.weights_hash()
    constant = hf.train("digits", EARLY, run=tmp_path / "constant")
    with pytest.raises(hf.HydrofoilError, match=r"train\.last_steps = 7 ends another epoch early"):
        hf.resume(constant, epochs=5)


def test_more_steps_than_an_epoch_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"last_steps = 11: expected at most 10"):
        hf.train("digits", [*EARLY, "last_steps=11"], run=tmp_path / "r")


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Costs:
    """What is measured, and a clock that stands still: what is chosen is then known."""
    costs = Costs(10, (0.05,), 0.5, 1.0, 2.0)
    monkeypatch.setattr(session, "measure", lambda *_, **__: costs)
    monkeypatch.setattr(session.Budget, "spent", property(lambda _: 0.5))
    return costs


def test_what_a_budget_chooses_is_in_the_recipe_and_repeats_the_run(
    measured: Costs, tmp_path: Path
) -> None:
    settings = ["train.execute=eager", "data.train=320"]
    run = hf.train("digits", settings, budget="6.22s", run=tmp_path / "a")
    chosen = longest(6.22, replace(measured, before_seconds=1.5))
    train = run.recipe.train
    assert (train.epochs, train.last_steps) == (chosen.epochs, chosen.last_steps) == (3, 4)
    assert run.recipe.schedule.name == "linear"
    (planned,), (spent,) = run.log.all(BudgetPlanned), run.log.all(BudgetSpent)
    assert (planned.seconds, planned.predicted) == (6.22, pytest.approx(chosen.seconds))
    assert spent.seconds == 0.5
    again = hf.train(run.path / "recipe.toml", run=tmp_path / "b")
    assert again.model.weights_hash() == run.model.weights_hash()


def test_a_budget_and_a_number_of_epochs_are_not_both_taken(tmp_path: Path) -> None:
    with pytest.raises(hf.HydrofoilError, match=r"train\.epochs and a budget are both given"):
        hf.train("digits", epochs=3, budget="1m", run=tmp_path / "r")


def test_a_constant_rate_ends_at_zero_and_another_schedule_stays() -> None:
    plain, notes = session.ending_at_zero(read_recipe("digits", ["schedule.warmup_steps=5"]))
    assert (plain.schedule.name, getattr(plain.schedule, "warmup_steps", 0)) == ("linear", 5)
    assert len(notes) == 1
    cosine = read_recipe("digits", ["schedule=cosine", "schedule.final_lr=0.001"])
    assert session.ending_at_zero(cosine) == (cosine, [])


def test_a_measurement_of_real_steps_leaves_the_weights_as_they_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TRIAL_SECONDS", 0.05)
    found: list[Costs] = []

    def short(budget: float, costs: Costs) -> Length:
        found.append(costs)
        return Length(2, 3, budget)

    monkeypatch.setattr(session, "longest", short)
    settings = ["train.execute=eager", "data.train=320", "schedule=linear"]
    run = hf.train("digits", settings, budget="1h", run=tmp_path / "a", test=True)
    (costs,) = found
    assert costs.steps == 10
    assert min(*costs.step_seconds, costs.epoch_seconds, costs.after_seconds) > 0
    assert len(run.log.all(BudgetSpent)) == 1
    repeated = hf.train("digits", [*settings, "epochs=2", "last_steps=3"], run=tmp_path / "b")
    assert repeated.model.weights_hash() == run.model.weights_hash()


def test_steps_are_counted_without_the_first_and_without_what_lies_between_epochs() -> None:
    clock = count(step=10.0)
    marks = [(next(clock), 1, 0), (next(clock), 1, 2), (12.0, 1, 4), (14.0, 1, 6), (99.0, 2, 1)]
    assert session._step_seconds(marks) == pytest.approx(4.0 / 4)
