"""Every kind of source that the user's own images may have, through every verb."""

from pathlib import Path

import pytest

import hydrofoil as hf
from hydrofoil.cli.main import main
from tests.sets import CLASSES, KINDS, as_png, image, write_folder

SHORT = (
    "train.epochs=1",
    "train.batch_size=16",
    "model.name=mlp",
    "model.hidden=[8]",
    "train.execute=eager",
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_source_goes_through_every_verb(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = KINDS[kind](tmp_path)
    pictures = hf.load(source)
    assert pictures.shape == (3, 16, 16)
    assert pictures.classes in (CLASSES, ("0", "1", "2"))
    source = f"data.source={source}"

    def command(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    (tmp_path / "unseen.png").write_bytes(as_png(image(1, 99, (50, 40))))
    assert "16×16" in command("show", source.partition("=")[2])
    assert "16×16" in command("show", "digits", source)
    assert "test accuracy" in command("train", "digits", source, *SHORT, "--run", "r", "--test")
    assert "test accuracy" in command("test", "r")
    assert any(name in command("predict", "r", "unseen.png") for name in pictures.classes)
    command("explain", "r", "unseen.png")
    command("report", "r")
    command("resume", "r", "train.epochs=2")
    assert hf.Run.open("r").split().pictures_hash == pictures.hash
    quick = (*SHORT, "b.optimizer.lr=0.1", "--seeds", "2")
    assert "verdict" in command("compare", "digits", "digits", source, *quick)


def test_a_comparison_on_own_images_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "pets")
    changes = ("data.source=./pets", "b.optimizer.lr=0.1", *SHORT)
    first = hf.compare("digits", "digits", changes, seeds=2)
    monkeypatch.setattr("hydrofoil.session.compare.train", None)
    again = hf.compare("digits", "digits", changes, seeds=2)
    assert again.as_dict()["verdict"] == first.as_dict()["verdict"]
