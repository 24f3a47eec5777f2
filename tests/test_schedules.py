"""Learning rates and the feed that carries them: torch's own schedulers are the oracle.

Axes: N images, S steps, L dropout layers, 2 halves of a key.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from hydrofoil import HydrofoilError, Run, build, draw_split, fit, load, read_recipe
from hydrofoil.data.batches import epoch_order
from hydrofoil.recipe.schema import Recipe
from hydrofoil.run.checkpoints import Checkpoints
from hydrofoil.train.feed import count_steps, make_feed
from hydrofoil.train.schedules import rates
from tests.resume_steps import command, fingerprint

LR = 0.3
NO_LABELS_N = torch.zeros(0, dtype=torch.int64)  # the order of an epoch does not read them


def torchs_rates(make: Any, warmup: int, total: int) -> list[float]:
    """Return the rates of all steps by a scheduler of torch, after a linear warm-up."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=LR)
    scheduler = make(optimizer)
    if warmup:
        rise = lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=max(warmup - 1, 1))
        scheduler = lr_scheduler.SequentialLR(optimizer, [rise, scheduler], [warmup])
    found: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR passes `epoch`, which torch deprecates
        for _ in range(total):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return found


def our_rates(recipe: Recipe, steps: int) -> list[float]:
    return [r for epoch in range(1, recipe.train.epochs + 1) for r in rates(recipe, steps, epoch)]


def scheduled(*overrides: str, epochs: int = 4) -> Recipe:
    return read_recipe("digits", [f"train.epochs={epochs}", f"optimizer.lr={LR}", *overrides])


@settings(max_examples=40)
@given(
    epochs=st.integers(2, 9),
    steps=st.integers(1, 30),
    warmup=st.integers(0, 12).filter(lambda steps: steps != 1),
    every=st.integers(1, 4),
    final=st.sampled_from([0.0, 0.03, 0.3]),
    name=st.sampled_from(["constant", "step", "cosine", "linear"]),
)
def test_rates_are_torchs_schedulers(
    epochs: int, steps: int, warmup: int, every: int, final: float, name: str
) -> None:
    total = epochs * steps
    rest = max(total - warmup, 1)
    options = {"step": [f"schedule.every={every}", "schedule.factor=0.5"], "constant": []}
    given_options = options.get(name, [f"schedule.final_lr={final}"])
    recipe = scheduled(
        f"schedule.name={name}", f"schedule.warmup_steps={warmup}", *given_options, epochs=epochs
    )
    make = {
        "constant": lambda o: lr_scheduler.ConstantLR(o, 1.0),
        "step": lambda o: lr_scheduler.StepLR(o, every * steps, 0.5),
        "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, rest, final),
        "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, final / LR, rest),
    }[name]
    expected = torchs_rates(make, warmup, total)
    assert our_rates(recipe, steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=40)
@given(
    epochs=st.integers(1, 9), steps=st.integers(2, 40), pct=st.sampled_from([0.1, 0.3, 0.77]),
    div=st.sampled_from([1.0, 25.0]), final=st.sampled_from([1.0, 1e4]),
)  # fmt: skip
def test_one_cycle_is_torchs(epochs: int, steps: int, pct: float, div: float, final: float) -> None:
    recipe = scheduled(
        "schedule.name=one-cycle", f"schedule.pct_start={pct}", f"schedule.div_factor={div}",
        f"schedule.final_div_factor={final}", epochs=epochs,
    )  # fmt: skip
    total = epochs * steps
    assume(pct * total != 1)  # torch divides by zero: a rise of no steps

    def make(optimizer: Any) -> Any:
        return lr_scheduler.OneCycleLR(
            optimizer, LR, total, pct_start=pct, div_factor=div, final_div_factor=final,
            cycle_momentum=False,
        )  # fmt: skip

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=LR)
    scheduler, expected = make(optimizer), list[float]()
    for step in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    assert our_rates(recipe, steps) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_warm_up_in_epochs_ends_with_them_and_one_of_a_single_step_is_none() -> None:
    recipe = scheduled("schedule.warmup_epochs=1.5")
    assert our_rates(recipe, 4)[:7] == pytest.approx([LR * n / 6 for n in (1, 2, 3, 4, 5, 6, 6)])
    assert our_rates(scheduled("schedule.warmup_steps=1"), 4) == [LR] * 16


def test_a_constant_rate_is_the_recipes_number_to_the_last_bit() -> None:
    assert set(our_rates(scheduled(), 5)) == {LR}


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["schedule.name=cosin"], "schedule.name = 'cosin': no such schedule. Did you mean 'cos"),
        (["schedule.name=step"], "schedule.every: missing in recipe digits"),
        (["schedule.name=one-cycle", "schedule.warmup_steps=3"], "schedule.warmup_steps: no such"),
        (["schedule.warmup_epochs=4"], "schedule.warmup_epochs = 4: expected fewer than train.ep"),
        (["schedule.warmup_epochs=1", "schedule.warmup_steps=9"], "are both set: expected one"),
        (["schedule.name=one-cycle", "schedule.pct_start=1"], "schedule.pct_start = 1: expected"),
        (["schedule=cosin"], "Did you mean 'cosine'"),
    ],
)  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused(overrides: list[str], text: str) -> None:
    with pytest.raises(HydrofoilError) as caught:
        scheduled(*overrides)
    assert text in str(caught.value)


# ── the feed ─────────────────────────────────────────────────────────────────────────────────────


@given(images=st.integers(1, 100), batch=st.integers(1, 40), epoch=st.integers(1, 3))
def test_a_feed_cuts_an_epoch_into_batches_in_order(images: int, batch: int, epoch: int) -> None:
    recipe = scheduled(f"train.batch_size={batch}", "schedule.name=linear")
    index_N = torch.arange(images) * 2
    feed = make_feed(recipe, index_N, NO_LABELS_N, epoch, layers=3)
    assert feed.steps == count_steps(images, batch) == len(feed.rates_S) == len(feed.draws_SL2)
    parts = [feed.batch(step) for step in range(feed.steps)]
    assert torch.equal(torch.cat(parts), epoch_order(index_N, 0, epoch))
    assert all(len(part) == batch for part in parts[:-1])
    assert 0 < len(parts[-1]) <= batch
    assert torch.equal(feed.span(1, feed.steps), torch.cat([index_N[:0], *parts[1:]]))


def test_a_feed_is_a_function_of_recipe_seed_and_epoch() -> None:
    def tables(seed: int, epoch: int) -> list[bytes]:
        feed = make_feed(
            scheduled(f"train.seed={seed}"), torch.arange(64), NO_LABELS_N, epoch, layers=2
        )
        return [feed.order_N.numpy().tobytes(), feed.draws_SL2.numpy().tobytes()]

    torch.manual_seed(1)
    first = tables(0, 1)
    torch.manual_seed(2)
    assert tables(0, 1) == first
    for other in (tables(0, 2), tables(1, 1)):
        assert not set(other) & set(first)


def test_no_two_masks_have_the_same_key() -> None:
    keys = [
        tuple(draw)
        for epoch in (1, 2)
        for row in make_feed(
            scheduled(), torch.arange(640), NO_LABELS_N, epoch, layers=3
        ).draws_SL2.tolist()
        for draw in row
    ]
    assert len(keys) == len(set(keys)) == 2 * 20 * 3


# ── trainings ────────────────────────────────────────────────────────────────────────────────────

COSINE = ("digits", "schedule.name=cosine", "schedule.warmup_steps=7")


def test_eager_updates_with_the_rate_of_each_step() -> None:
    recipe = read_recipe("digits", [*COSINE[1:], "train.execute=eager", "train.epochs=2"])
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model, used = build(recipe, pictures.shape, pictures.classes), list[float]()

    def record(optimizer: Any, *_: object) -> None:
        used.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(record)
    try:
        epochs = list(fit(model, pictures, split, recipe))
    finally:
        handle.remove()
    steps = count_steps(len(split.train), 32)
    assert used == our_rates(recipe, steps)
    assert [epoch.learning_rate for epoch in epochs] == [used[steps - 1], used[-1]]


@pytest.mark.parametrize("name", ["cosine", "one-cycle"])
def test_native_and_eager_steps_agree_under_a_schedule(name: str) -> None:
    losses: list[list[float]] = []
    for execute in ("eager", "native"):
        overrides = ["train.epochs=3", f"schedule.name={name}", f"train.execute={execute}"]
        recipe = read_recipe("digits", overrides)
        pictures = load("digits")
        split = draw_split(pictures, **recipe.split_options())
        model = build(recipe, pictures.shape, pictures.classes)
        losses.append([e.train.loss for e in fit(model, pictures, split, recipe)])
    # The loss hardly depends on rounding so early, and by 1e-2 on the schedule.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_run_that_stops_inside_a_schedule_resumes_to_the_same_bits(
    execute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*COSINE, "train.epochs=3", f"train.execute={execute}", "train.save_steps=13")
    assert command("train", *options, "--run", "straight")[0] == 0
    save, calls = Checkpoints.save, list[int]()

    def stopping(self: Checkpoints, *arguments: Any) -> None:
        save(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stopping)
        assert command("train", *options, "--run", "cut")[0] == 130
    assert Run.open("cut").checkpoints.step() > 0
    assert command("resume", "cut")[0] == 0
    assert fingerprint("cut") == fingerprint("straight")


def test_only_a_schedule_that_ignores_the_number_of_epochs_can_be_extended() -> None:
    assert command("train", *COSINE, "train.epochs=1", "--run", "cosine")[0] == 0
    before = Path("cosine/recipe.toml").read_bytes()
    status, said = command("resume", "cosine", "train.epochs=2")
    assert status == 2
    assert "train.epochs = 2: expected 1: the cosine schedule" in said
    assert Path("cosine/recipe.toml").read_bytes() == before
    step = ("digits", "schedule.name=step", "schedule.every=1", "schedule.factor=0.5")
    assert command("train", *step, "train.epochs=1", "--run", "short")[0] == 0
    assert command("resume", "short", "train.epochs=3")[0] == 0
    assert command("train", *step, "train.epochs=3", "--run", "long")[0] == 0
    assert fingerprint("short")["best"] == fingerprint("long")["best"]
    logged = [json.loads(line) for line in Path("short/log.jsonl").read_text().splitlines()]
    shown = [event["learning_rate"] for event in logged if event["event"] == "epoch"]
    assert shown == [0.02, 0.01, 0.005]


def test_the_number_of_epochs_is_in_the_hash_where_it_changes_the_rates() -> None:
    assert scheduled(epochs=2).hash() == scheduled(epochs=3).hash()
    cosine = [scheduled("schedule.name=cosine", epochs=epochs).hash() for epochs in (2, 3)]
    assert cosine[0] != cosine[1]
