"""What bench/peers.py works out by itself; the libraries it compares with are not needed here."""

import json
from pathlib import Path

import literal
import numpy as np
import peers
import pytest
from torchvision.datasets import MNIST


def rounds() -> list[dict[str, peers.Job]]:
    """Three rounds of made figures; the ratios of skorch are 3, 2 and 4, those of keras 5, 5, 5."""
    seconds = {"hydrofoil": [10, 20, 10], "skorch": [30, 40, 40], "keras": [50, 100, 50]}
    return [
        {
            name: peers.Job(all_rounds[i], 500 + i, peers.Tested(0.98 + i / 1000, 5, "1.2.3"))
            for name, all_rounds in seconds.items()
        }
        for i in range(3)
    ]


def test_a_ratio_is_taken_within_its_round_before_the_median() -> None:
    ours, skorch, keras = peers.summarize(rounds())
    assert (ours["ratio"], ours["ratio_range"]) == (1, [1, 1])
    assert (skorch["ratio"], skorch["ratio_range"]) == (3, [2, 4])  # of the medians it would be 4
    assert (keras["ratio"], keras["ratio_range"]) == (5, [5, 5])
    assert (skorch["seconds"], skorch["seconds_range"]) == (40, [30, 40])
    assert (skorch["peak_megabytes"], skorch["accuracy"], skorch["n"]) == (501, 0.981, 3)


def test_a_row_stands_under_its_columns() -> None:
    row = peers.summarize(rounds())[1]
    shown = peers.line(row)
    assert shown.split() == "skorch 40.0 30.0–40.0 3.00 2.00–4.00 501 98.10 1.2.3".split()
    for column, value in [("seconds", "40.0"), ("÷ ours", "3.00"), ("peak MB", "501")]:
        end = peers.COLUMNS.index(column) + len(column)
        assert shown[:end].endswith(value)
    assert shown.index("1.2.3") == peers.COLUMNS.index("version")
    assert peers.line({**row, "side": "literal"}).endswith("torch 1.2.3")


def test_the_fastest_of_the_others_is_named_also_where_it_beats_ours() -> None:
    rows = peers.summarize(rounds())
    said = "skorch, 3.00 times hydrofoil's seconds (2.00–4.00, n = 3)"
    assert peers.fastest(rows).endswith(said)
    swift = [{name: job for name, job in one.items() if name != "skorch"} for one in rounds()]
    for one in swift:
        one["keras"] = peers.Job(5, 500, peers.Tested(0.98, 5, "1.2.3"))
    assert "keras, 0.50 times" in peers.fastest(peers.summarize(swift))


def test_each_round_begins_with_another_side() -> None:
    rounds = [peers.turned("abc", number) for number in range(4)]
    assert ["".join(order) for order in rounds] == ["abc", "bca", "cab", "abc"]


def test_an_unknown_peer_is_refused_with_the_nearest_name(
    data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        peers.main(["kera", "--root", str(data_root)])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "unknown peer 'kera'" in said
    assert "Did you mean 'keras'?" in said


@pytest.mark.parametrize("name", peers.LIBRARIES)
def test_a_missing_peer_names_the_extra_that_brings_it(
    name: str,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        peers.main([name, "--root", str(data_root)])
    said = capsys.readouterr().err
    assert f"{name} is not installed here" in said
    assert "pip install -e '.[bench]'" in said


def test_a_root_without_the_set_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        peers.main(["literal", "--root", str(tmp_path)])
    assert "holds no MNIST/raw" in capsys.readouterr().err


def test_every_library_is_in_the_extra() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    bench = text.partition("\nbench = [\n")[2].partition("\n]")[0]
    named = [line.strip(' "').partition(">=")[0] for line in bench.splitlines()]
    assert named == ["torchvision", *peers.LIBRARIES]  # the first for the tutorials' own side


def test_the_arrays_are_torchvisions_pictures_and_labels(data_root: Path) -> None:
    found = peers.arrays(str(data_root))
    for i, train in enumerate((True, False)):
        published = MNIST(data_root, train=train)
        assert np.array_equal(found[2 * i], published.data.numpy())
        assert np.array_equal(found[2 * i + 1], published.targets.numpy())


def test_the_peers_network_is_the_tutorials() -> None:
    def shapes(network: literal.nn.Module) -> list[tuple[int, ...]]:
        return [tuple(weight.shape) for weight in network.parameters()]

    assert shapes(peers.network()) == shapes(literal.Cnn())


def test_the_figures_are_kept_with_the_table(
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []

    def job(name: str, root: str, epochs: int) -> peers.Job:
        asked.append((name, epochs))
        return peers.Job(10 * len(asked), 500, peers.Tested(0.98, epochs, "1.2.3"))

    monkeypatch.setattr(peers, "job", job)
    kept = tmp_path / "peers.json"
    words = ["literal", "--root", str(data_root), "--repeats", "2", "--fraction", "0.2"]
    peers.main([*words, "--json", str(kept)])
    assert asked == [("hydrofoil", 1), ("literal", 1), ("literal", 1), ("hydrofoil", 1)]
    assert "QUICK LOOK: 0.2 of the epochs" in capsys.readouterr().out
    result = json.loads(kept.read_text())
    assert result["epochs"] == 1
    assert [row["side"] for row in result["summary"]] == ["hydrofoil", "literal"]
    assert [row["ratio"] for row in result["summary"]] == [1, (20 / 10 + 30 / 40) / 2]
    assert len(result["rounds"]) == 2
