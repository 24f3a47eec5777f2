"""Hostile files: nothing in them runs, nothing leaves its folder, memory stays what it was."""

import gzip
import io
import os
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from hydrofoil import HydrofoilError, load
from hydrofoil.cli.main import main
from hydrofoil.data.archives import unpack_gzip, unpack_tar
from hydrofoil.data.published.blocks import Block
from hydrofoil.data.published.cifar import read_batch
from hydrofoil.data.published.idx import read_idx
from hydrofoil.ship.import_weights import read_weights
from tests import published
from tests.hostile import archive, escapes, header, malicious_pickles, member, mutations

ROOM = 600 << 20  # bytes of memory beyond what the process has; a published set fits
FILES = {"one": b"first" * 200, "two": b"second" * 200}
GOOD = [
    member(b"set/", b"", b"5"),
    *(member(f"set/{name}".encode(), content) for name, content in FILES.items()),
]


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Refuse the process more than a little more memory than it has."""
    if not Path("/proc/self/statm").exists():  # elsewhere the limit does not hold either
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(read: Callable[[], object]) -> HydrofoilError | None:
    """Read, and return the error that a person sees, if any; any other error is a bug."""
    began = time.monotonic()
    try:
        read()
    except HydrofoilError as error:
        assert 1 <= len(str(error).splitlines()) <= 3
        assert str(error).replace("\n", "").isprintable()
        return error
    finally:
        assert time.monotonic() - began < 30
    return None


# ── mutated files ────────────────────────────────────────────────────────────────────────────────


def an_idx(folder: Path) -> tuple[Path, Callable[[], object]]:
    published.write_idx(folder / "file", np.arange(4 * 28 * 28).reshape(4, 28, 28))
    return folder / "file", lambda: read_idx(folder / "file")


def a_packed_idx(folder: Path) -> tuple[Path, Callable[[], object]]:
    path, _ = an_idx(folder)
    packed = folder / "packed.gz"
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return packed, lambda: read_idx(packed)


def a_batch(folder: Path) -> tuple[Path, Callable[[], object]]:
    published.write_cifar10(folder, 25, 5)
    return (
        folder / "cifar-10-batches-py" / "data_batch_2",
        lambda: load("cifar10", folder).hash,
    )


def a_meta(folder: Path) -> tuple[Path, Callable[[], object]]:
    published.write_cifar100(folder, 8, 4)
    return folder / "cifar-100-python" / "meta", lambda: load("cifar100", folder).hash


def a_safetensors(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "weights.safetensors"
    path.write_bytes(save({"a": torch.ones(3, 4), "b": torch.zeros(5)}, {"classes": "[]"}))
    return path, lambda: read_weights(path)


def a_state_dict(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "weights.pt"
    torch.save({"a": torch.ones(3, 4), "b": torch.zeros(5)}, path)
    return path, lambda: read_weights(path)


def a_tar(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "set.tar.gz"
    path.write_bytes(archive(*GOOD, level=0))  # stored: what is mutated is the tar, too
    return path, lambda: unpack_tar(path, folder / "in", "set", FILES)


KINDS = [an_idx, a_packed_idx, a_batch, a_meta, a_safetensors, a_state_dict, a_tar]


@pytest.mark.parametrize("count", [40, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_by_name(
    kind: Callable[[Path], tuple[Path, Callable[[], object]]], count: int, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    path, read = kind(tmp_path / "files")
    read()
    there, refusals = sorted(os.listdir(tmp_path)), 0
    for number, broken in enumerate(mutations(path.read_bytes(), count, seed=count)):
        path.write_bytes(broken)
        error = refused(read)
        refusals += error is not None
        known = (path.name.removesuffix(".gz"), path.parent.name)  # a file, or files that disagree
        assert error is None or any(name in str(error) for name in known), number
    assert sorted(os.listdir(tmp_path)) == there
    assert refusals > count / 10


@pytest.mark.parametrize("count", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_mutated_headers_with_right_checksums_escape_nowhere(count: int, tmp_path: Path) -> None:
    """A mutator seldom hits a checksum; here it is made right again, so that the rest is read."""
    (tmp_path / "files").mkdir()
    path, into = tmp_path / "files" / "set.tar.gz", tmp_path / "files" / "in"
    accepted = 0
    for broken in mutations(header(b"set/a", size=3), count, seed=count):
        block = bytearray(broken[:512].ljust(512, b"\0"))
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path.write_bytes(archive(*GOOD, bytes(block), b"bad".ljust(512, b"\0")))
        accepted += refused(lambda: unpack_tar(path, into, "set", FILES)) is None
        assert os.listdir(tmp_path) == ["files"]
        assert not into.exists() or set(os.listdir(into)) <= set(FILES)
    assert 0 < accepted < count


# ── pickles ──────────────────────────────────────────────────────────────────────────────────────

PICKLES = malicious_pickles(Path("canary"))


def npz(content: bytes) -> bytes:
    """Return an .npz whose first array says that it is this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for part in ("train", "valid", "test", "pictures_hash"):
            array = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                array, {"descr": "|O", "fortran_order": False, "shape": (1,)}
            )
            packed.writestr(f"{part}.npy", array.getvalue() + content)
    return file.getvalue()


def torch_zip(content: bytes) -> bytes:
    """Return what torch.save writes, with another pickle in it."""
    file, out = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(3)}, file)
    with zipfile.ZipFile(file) as saved, zipfile.ZipFile(out, "w") as packed:
        for name in saved.namelist():
            packed.writestr(name, content if name.endswith("data.pkl") else saved.read(name))
    return out.getvalue()


def as_batch(content: bytes) -> object:
    Path("batch").write_bytes(content)
    batch = read_batch(Path("batch"))
    return {key: value for key, value in batch.items() if not isinstance(value, Block)}


def as_set(content: bytes) -> object:
    published.write_cifar10(Path("set"), 25, 5)
    Path("set/cifar-10-batches-py/data_batch_3").write_bytes(content)
    return load("cifar10", "set")


def as_names(content: bytes) -> object:
    published.write_cifar100(Path("set"), 8, 4)
    Path("set/cifar-100-python/meta").write_bytes(content)
    return load("cifar100", "set")


def as_idx(content: bytes) -> object:
    Path("idx").write_bytes(content)
    return read_idx(Path("idx"))


def as_packed_idx(content: bytes) -> object:
    Path("packed.gz").write_bytes(gzip.compress(content))
    return read_idx(Path("packed.gz"))


def as_weights(content: bytes) -> object:
    Path("weights.pt").write_bytes(content)
    return read_weights(Path("weights.pt"))


def as_weights_inside(content: bytes) -> object:
    return as_weights(torch_zip(content))


def as_safetensors(content: bytes) -> object:
    Path("weights.safetensors").write_bytes(content)
    return read_weights(Path("weights.safetensors"))


READERS = [
    as_batch, as_set, as_names, as_idx, as_packed_idx, as_weights,
    as_weights_inside, as_safetensors,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch says so before it refuses
@pytest.mark.parametrize("reader", READERS)
def test_no_pickle_runs_in_any_reader(
    reader: Callable[[bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name, content in malicious_pickles(canary).items():
        error = refused(lambda content=content: reader(content))
        # to torch these two are an empty dictionary, and it runs nothing behind the end
        harmless = {"after the end", "protocol 255"} if reader is as_weights_inside else set[str]()
        assert error or name in harmless, name
        assert os.listdir(tmp_path) == ["work"], name
        assert not Path("canary").exists(), name


def test_the_canaries_do_run_where_nothing_stops_them(tmp_path: Path) -> None:
    """Without this, the test above could pass for pickles that never worked."""
    import pickle

    ran = 0
    for name in ("reduce", "builtins.eval", "inst", "obj", "stack_global", "subprocess"):
        canary = tmp_path / "canary"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            pickle.loads(malicious_pickles(canary)[name])
        ran += canary.exists()
        canary.unlink()
    assert ran == 6


@pytest.mark.parametrize("name", ["reduce", "in the labels", "after the labels"])
def test_the_command_line_refuses_a_pickle_with_2_and_no_traceback(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = malicious_pickles(tmp_path / "canary")[name]
    published.write_cifar10(tmp_path / "root", 25, 5)
    (tmp_path / "root/cifar-10-batches-py/test_batch").write_bytes(evil)
    (tmp_path / "evil.pt").write_bytes(evil)
    for arguments in (
        ["show", "cifar10", "--data-root", str(tmp_path / "root")],
        ["import", "digits", str(tmp_path / "evil.pt")],
    ):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = capsys.readouterr().err
        assert left.value.code == 2
        assert "Traceback" not in said
        assert len(said.splitlines()) <= 3
    assert not (tmp_path / "canary").exists()


def test_weights_that_would_grow_when_read_are_refused(tmp_path: Path) -> None:
    """torch inflates a record to whatever length its head names."""
    saved, path = io.BytesIO(), tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1 << 22)}, saved)
    with zipfile.ZipFile(saved) as file, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in file.namelist():
            packed.writestr(name, file.read(name))
    with pytest.raises(HydrofoilError, match="would unpack to"):
        read_weights(path)
    torch.save({"a": torch.zeros(1 << 10)}, path)
    assert torch.equal(read_weights(path).tensors["a"], torch.zeros(1 << 10))


# ── archives ─────────────────────────────────────────────────────────────────────────────────────

ESCAPES = escapes(Path("/nowhere"))


def test_there_are_sixty_kinds_of_escape_and_more() -> None:
    assert len(set(ESCAPES.values())) >= 60


@pytest.mark.parametrize("first", [True, False])
def test_no_archive_escapes(first: bool, tmp_path: Path) -> None:
    """Each is refused, wherever the member stands among the good ones."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for path in (inside, outside):
        path.mkdir()
    path = inside / "set.tar.gz"
    for name, evil in escapes(outside).items():
        path.write_bytes(archive(*((evil, *GOOD) if first else (*GOOD, evil))))
        error = refused(lambda: unpack_tar(path, inside / "in", "set", FILES, 1 << 22))
        assert error is not None, name
        assert "set.tar.gz" in str(error)
        assert not os.listdir(outside), name
        assert sorted(os.listdir(tmp_path)) == ["inside", "outside"], name
        assert set(os.listdir(inside)) <= {"set.tar.gz", "in"}, name
        assert not (inside / "in").exists() or not os.listdir(inside / "in"), name


def test_the_escapes_do_escape_where_nothing_stops_them(tmp_path: Path) -> None:
    """Without this, the test above could pass for archives that never worked."""
    import tarfile

    known = ("absolute", "above", "a link, then through it", "a prefix above", "a long name")
    for name in (*known, "pax path", "pax, second record", "pax for all"):
        outside = tmp_path / name
        outside.mkdir()
        (outside / "in").mkdir()
        content = io.BytesIO(archive(escapes(outside)[name]))
        with tarfile.open(fileobj=content) as tar:
            tar.extractall(outside / "in", filter="fully_trusted")
        assert (outside / "canary").exists(), name


def test_a_good_archive_is_unpacked_and_what_is_not_wanted_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    notes = member(b"pax", b"0020 mtime=12345.67\n", b"x")
    others = [member(b"set/readme.html"), member(b"set/file.txt~"), member(b"set/._one")]
    gnu = [member(f"set/{name}".encode(), FILES[name], magic=b"ustar  \0") for name in FILES]
    for members in ([*GOOD, *others], [notes, *others, *gnu], [member(b"./", b"", b"5"), *gnu]):
        path.write_bytes(archive(*members))
        unpack_tar(path, tmp_path / "in", "set", FILES)
        found = {file.name: file.read_bytes() for file in (tmp_path / "in").iterdir()}
        assert found == FILES


def test_an_archive_that_python_writes_is_unpacked(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "set").mkdir()
    for name, content in FILES.items():
        (tmp_path / "set" / name).write_bytes(content)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        with tarfile.open(tmp_path / "set.tar.gz", "w:gz", format=form) as tar:
            tar.add(tmp_path / "set", "set")
        unpack_tar(tmp_path / "set.tar.gz", tmp_path / "in", "set", FILES)
        found = {file.name: file.read_bytes() for file in (tmp_path / "in").iterdir()}
        assert found == FILES


@pytest.mark.parametrize(
    ("what", "content"),
    {
        "a bomb in a file not wanted": archive(*GOOD, member(b"set/a", bytes(1 << 25))),
        "a bomb in a wanted file": archive(member(b"set/one", bytes(1 << 25)), *GOOD),
        "a bomb behind the end": archive(*GOOD, bytes(1 << 25)),
        "a bomb in gzip members": archive(*GOOD) + gzip.compress(bytes(1 << 25)) * 4,
        "no gzip": b"".join(GOOD),
        "nothing": b"",
        "cut short": archive(*GOOD)[:-20],
        "a wrong checksum": archive(*GOOD)[:-8] + bytes(8),
        "something behind": archive(*GOOD) + b"behind",
        "a file missing": archive(*GOOD[:-1]),
        "no members": archive(),
        "no end": gzip.compress(b"".join(GOOD)),
    }.items(),
)
def test_a_broken_archive_is_refused(what: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(content)
    assert refused(lambda: unpack_tar(path, tmp_path / "in", "set", FILES, 1 << 22)), what
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != path]


def test_a_gzip_bomb_is_refused_by_both_readers(tmp_path: Path) -> None:
    head = b"\0\0\x08\x03" + (40_000).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(head + bytes(1 << 27)))
    with pytest.raises(HydrofoilError, match=r"truncated or too long"):
        read_idx(tmp_path / "bomb.gz")
    with pytest.raises(HydrofoilError, match="unpacks to more than"):
        unpack_gzip(tmp_path / "bomb.gz", tmp_path / "bomb", 1 << 22)
    assert os.listdir(tmp_path) == ["bomb.gz"]
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(head[:4] + b"\xff" * 12))
    with pytest.raises(HydrofoilError, match=r"truncated|too long"):
        read_idx(tmp_path / "bomb.gz")
