"""A run of a stranger: every hash matches, and the content is not what hydrofoil writes."""

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hydrofoil.run.files import Files
from tests.black_box import TINY, cli

VERBS: list[tuple[str, ...]] = [("show", "run"), ("test", "run"), ("predict", "run", "image.png"),
         ("explain", "run", "image.png"), ("resume", "run"), ("resume", "run", "train.epochs=3"),
         ("compare", "run", "other"), ("report", "run")]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    for name, seed in (("run", 0), ("other", 1)):
        quick = (*TINY, "train.epochs=2", "train.execute=eager", "--seed", seed, "--test")
        ended = cli("train", *quick, "--run", folder / name)
        assert ended.status == 0, ended
    return folder


def as_json(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(change(json.loads(content))).encode()


def as_arrays(**changed: Any) -> Callable[[bytes], bytes]:
    """Replace arrays of an .npz file; None: leave one out."""

    def change(content: bytes) -> bytes:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files} | changed
        new = io.BytesIO()
        np.savez(new, **{name: value for name, value in arrays.items() if value is not None})
        return new.getvalue()

    return change


def as_metadata(**changed: str) -> Callable[[bytes], bytes]:
    """Replace entries of a safetensors file's metadata."""

    def change(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + length])
        head["__metadata__"] |= changed
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    return change


FOREIGN: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("recipe.toml", lambda _: b"\xff\xfe"),
    ("recipe.toml", lambda _: b"name = 3"),
    ("environment.json", lambda _: b"[1]"),
    ("environment.json", lambda _: b"{"),
    ("environment.json", lambda _: b"[" * 100_000),
    ("split.npz", lambda _: b"no zip"),
    ("split.npz", as_arrays(train=None)),
    ("split.npz", as_arrays(train=np.array([0.5]))),
    ("split.npz", as_arrays(test=np.array([5, 4]))),
    ("split.npz", as_arrays(test=np.array([-7]))),
    ("log.jsonl", lambda _: b'{"event": "epoch"}\n'),
    ("log.jsonl", lambda _: b"\xff\n"),
    ("best.safetensors", lambda _: b"none"),
    ("best.safetensors", as_metadata(shape="[1]")),
    ("best.safetensors", as_metadata(shape="[1, 1e99, 8]")),
    ("best.safetensors", as_metadata(shape="[1, 100000000, 100000000]")),
    ("best.safetensors", as_metadata(classes="7")),
    ("best.safetensors", as_metadata(epoch="x")),
    ("last.safetensors", as_metadata(numbers="[]")),
    ("last.safetensors", as_metadata(numbers="{")),
    ("test.json", lambda _: b"{}"),
    ("test.json", as_json(lambda content: {**content, "confusion": [[1, 2]]})),
    ("test.json", as_json(lambda content: {**content, "classes": content["classes"][:3]})),
    ("answers.npz", as_arrays(test_labels_N=np.array([1, 2]))),
    ("answers.npz", as_arrays(test_logits_NK=None)),
    ("answers.npz", as_arrays(test_index_N=np.array([["x"]]))),
    ("shown.npz", as_arrays(index_N=None)),
    ("shown.npz", as_arrays(pictures_NCHW=np.zeros(3))),
    ("shown.npz", as_arrays(pictures_NCHW=np.zeros((0, 1, 8, 8), np.uint8))),
    ("reference.npz", lambda _: b""),
    ("reference.npz", as_arrays(statistics=np.array("[]"))),
    ("reference.npz", as_arrays(training_MD=np.zeros((9, 2), np.float16))),
]


@pytest.mark.parametrize("number", range(len(FOREIGN)))
def test_content_that_hydrofoil_never_wrote_is_no_traceback(
    number: int, made: Path, tmp_path: Path
) -> None:
    name, change = FOREIGN[number]
    Image.new("L", (8, 8), random.Random(number).randrange(256)).save("image.png")
    shutil.copytree(made / "run", "base")
    files = Files(Path("base"))
    entry = files.entry(name)
    assert entry
    new = change(files.read(name))
    files.write_all({name: new}, places={name: (entry.epoch, entry.step)})
    shutil.copytree(made / "other", "other")
    for verb in VERBS:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("base", "run")
        ended = cli(*verb)
        assert ended.keeps_the_contract(), (verb, ended)
        if ended.status == 2:
            assert name in ended.err, (verb, ended)
