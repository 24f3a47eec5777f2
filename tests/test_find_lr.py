"""The learning-rate range test: its steps are training's, its rule is the one that it names.

Axes: N images, K classes.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import cross_entropy

from hydrofoil import build, draw_split, load, read_recipe
from hydrofoil.data.batches import epoch_order
from hydrofoil.session.find_lr import LossCurve, find_lr
from hydrofoil.train.feed import Feed
from hydrofoil.train.optimizers import OPTIMIZERS
from tests.conftest import Cli

BASE = ["train.execute=eager", "train.batch_size=100", "data.train=500", "optimizer.name=sgd",
        "model.dropout=0"]  # fmt: skip


def test_the_losses_are_those_of_the_literal_loop_at_rising_rates() -> None:
    found = find_lr("digits", BASE, lowest=0.001, highest=0.1, steps=20)
    recipe = read_recipe("digits", BASE)
    pictures = load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes).train()
    options = recipe.optimizer.model_dump(exclude={"name", "decay_biases", "decoupled"})
    optimizer = torch.optim.SGD(model.parameters(), **options)
    batches = [b for e in range(1, 5) for b in epoch_order(split.train, 0, e, 0).split(100)]
    losses: list[float] = []
    for step, batch_N in enumerate(batches[:20]):
        optimizer.param_groups[0]["lr"] = 0.001 * 100 ** (step / 19)
        optimizer.zero_grad()
        loss = cross_entropy(model(pictures.pictures_NCHW[batch_N]), pictures.labels_N[batch_N])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert list(found.losses) == pytest.approx(losses, rel=1e-3)
    assert found.rates[0] == pytest.approx(0.001)
    assert found.rates[-1] == pytest.approx(0.1)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_running_mean_weights_losses_by_their_age(losses: list[float]) -> None:
    weights = [0.95 ** (len(losses) - 1 - place) for place in range(len(losses))]
    mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    curve = LossCurve()
    for loss in losses:
        curve.add(loss)
    assert curve.smoothed[-1] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_suggestion_a_tenth_of_the_lowest(name: str) -> None:
    found = find_lr("digits", [*BASE, f"optimizer.name={name}"], steps=30)
    assert found.suggestion == pytest.approx(found.lowest / 10, rel=0.06)


@pytest.mark.parametrize("execute", ["eager", "native"])
def test_a_loss_that_becomes_infinite_ends_the_test(execute: str) -> None:
    words = [*BASE[1:], f"train.execute={execute}"]
    found = find_lr("digits", words, lowest=1.0, highest=1e30, steps=100)
    assert len(found.rates) < 100
    assert found.diverged == found.rates[-1]
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.executor == execute


def test_the_command_saves_a_figure_and_no_run(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output, _ = cli("find-lr", "digits", *BASE, "lr=0.5", "--steps", "30", "--save")
    assert status == 0
    assert "next: hydrofoil train digits " in output
    assert "lr=0.5" not in output.partition("next:")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["digits-lr.png"]
    with Image.open("digits-lr.png") as image:
        assert len(set(image.convert("RGB").get_flattened_data())) > 3
    content: Any = json.loads(cli("find-lr", "digits", *BASE, "--steps", "30", "--json")[1])
    assert content["rule"] == "a tenth of the rate at which the smoothed loss is lowest"
    assert len(content["rates"]) == len(content["losses"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "5"], "steps = 5: expected at least 20"),
        (["--lowest", "2", "--highest", "1"], "rates from 2 to 1: expected numbers above 0"),
        (["--out", "x.jpg"], "expected a name that ends in .png"),
    ],
)
def test_wrong_options_are_refused(cli: Cli, options: list[str], message: str) -> None:
    status, _, errors = cli("find-lr", "digits", *options)
    assert status == 2
    assert message in errors


def test_the_tables_of_an_epoch_move_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    to = Feed.to

    def counted(feed: Feed, device: torch.device) -> Feed:
        moved.append(feed.epoch)
        return to(feed, device)

    monkeypatch.setattr(Feed, "to", counted)
    find_lr("digits", BASE, lowest=0.001, highest=0.1, steps=20)
    assert moved == sorted(set(moved))
