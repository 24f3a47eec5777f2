"""The complete workflow of a user, from images to a tested model."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hydrofoil import Run, load
from hydrofoil.cli.main import main
from tests.axes import lies, names_held


def test_digits_end_above_98_percent_with_their_pictures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "digits", "--test"])
    assert left.value.code == 0, capsys.readouterr().err
    run = Run.open("runs/digits-1")
    test = run.results.test()
    assert test is not None
    assert test.accuracy > 0.98
    assert test.count == 359
    assert test.interval[0] < test.accuracy < test.interval[1]
    figures = {path.name for path in (run.path / "figures").iterdir()}
    assert figures >= {"predictions.png", "mistakes.png", "confusion.png"}


def test_no_name_lies_about_its_axes() -> None:
    Image.fromarray(np.zeros((30, 40), np.uint8)).save("p.png")
    with names_held() as seen:
        for arguments in (
            ["train", "cifar10-cnn3", "train.epochs=1", "--test", "--run", "r"],
            ["predict", "r", "p.png"],
            ["show", "cifar10"],
            ["show", "mnist", "--pixels", "0"],
        ):
            with pytest.raises(SystemExit) as left:
                main(arguments)
            assert left.value.code == 0
    assert {"pictures_NCHW", "labels_N", "logits_NK", "picture_CHW", "order_N"} <= set(seen)


def test_a_lie_is_found() -> None:
    zeros = torch.zeros
    assert lies({"a_NC": zeros(2), "b_N": zeros(3), "c": zeros(1, 1), "logits_NK": zeros(4, 5)})
    assert lies({"a_NK": zeros(2, 3), "b_K": zeros(4)}) == ["b_K has K = 4"]
    assert lies({"mean_C11": zeros(3, 2, 1)}) == ["mean_C11 has 1 = 2"]
    assert not lies({"a_NK": zeros(2, 3), "b_NK": zeros(9, 3), "Z_95": 1.96})


def test_the_log_is_read_by_anybody_who_reads_json() -> None:
    with pytest.raises(SystemExit):
        main(["train", "digits", "train.epochs=2", "--run", "r"])
    events = [json.loads(line) for line in Path("r/log.jsonl").read_text().splitlines()]
    kinds = ["data", "executor", "epoch", "epoch", "trained"]
    assert [event["event"] for event in events] == kinds
    assert all(event["seconds"] > 0 for event in events if event["event"] != "epoch")
    epochs = events[2:4]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert 0 < epochs[0]["train_seconds"] < time.perf_counter()
    assert (
        epochs[0]["train"]["count"] + epochs[0]["valid"]["count"]
        == 1258 + 180
        <= len(load("digits"))
    )
