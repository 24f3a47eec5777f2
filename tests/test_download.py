"""Downloads, against servers that lie: the right file in the end, or an honest error."""

import gzip
import hashlib
import io
import json
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from hydrofoil import HydrofoilError, load
from hydrofoil.cli.main import main
from hydrofoil.data.published import download
from hydrofoil.data.published.catalogue import SOURCES
from hydrofoil.data.published.download import (
    OVERLAP,
    Download,
    DownloadError,
    Published,
    RetryPolicy,
    Silent,
    fetch,
)
from hydrofoil.observe.console import DownloadProgress
from tests import mirrors
from tests.mirrors import Behavior, Mirror, honest

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
Serve = Callable[..., Mirror]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the servers' certificate, is not installed")
    return mirrors.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def policy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> RetryPolicy:
    """Trust the servers of these tests alone, and retry at once."""
    context = ssl.create_default_context(cafile=str(certificate))
    ours = RetryPolicy(wait_seconds=0, tries=3, context=context)
    monkeypatch.setattr(download, "RETRY_POLICY", ours)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return ours


@pytest.fixture
def serve(certificate: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(behave: Behavior = honest, content: bytes = CONTENT, tls: bool = True) -> Mirror:
            return stack.enter_context(
                Mirror({"file": content}, behave, certificate if tls else None)
            )

        yield start


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test is over, so that no server waits longer."""
    event = threading.Event()
    yield event
    event.set()


def published(*served: Mirror, content: bytes = CONTENT) -> Published:
    digest = hashlib.sha256(content).hexdigest()
    return Published("file", len(content), digest, tuple(mirror.url for mirror in served))


def is_complete(fetched: Path, folder: Path) -> bool:
    left = {path.name for path in folder.iterdir()}
    return fetched.read_bytes() == CONTENT and left == {"file"}


def test_a_file_is_downloaded(serve: Serve, tmp_path: Path) -> None:
    mirror = serve()
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    assert len(mirror.asked) == 1


def test_a_complete_file_is_not_requested_again(serve: Serve, tmp_path: Path) -> None:
    mirror = serve()
    (tmp_path / "file").write_bytes(CONTENT)
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    (tmp_path / "file").write_bytes(OTHER)
    assert not mirror.asked
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)


def test_a_connection_that_dies_fifty_times_still_completes(serve: Serve, tmp_path: Path) -> None:
    mirror = serve(mirrors.dies_after(OVERLAP + len(CONTENT) // 50))
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    assert len(mirror.asked) >= 50


LIARS: dict[str, tuple[Behavior, str]] = {
    "says that it is longer": (mirrors.claims(1000), "has 301000 bytes, expected 300000"),
    "says that it is shorter": (mirrors.claims(-1000), "has 299000 bytes, expected 300000"),
    "truncates": (mirrors.half, "the connection was interrupted"),
    "dies at once": (mirrors.dies_after(0), "the connection was interrupted"),
    "serves wrong bytes": (mirrors.wrong_bytes, "has other bytes than were published"),
    "sends without end": (mirrors.endless, "sends more than 300000 bytes"),
    "sends chunks without end": (mirrors.endless_chunks, "sends more than 300000 bytes"),
    "sends headers without end": (mirrors.endless_head, "not valid http (HTTPException)"),
    "speaks no http": (mirrors.garbage, "not valid http (BadStatusLine)"),
    "has it not": (mirrors.answers(404), "answers 404"),
    "forbids it": (mirrors.answers(403), "answers 403"),
    "is broken": (mirrors.answers(503), "answers 503"),
    "has nothing to say": (mirrors.answers(204), "answers 204"),
    "has no such range": (mirrors.answers(416), "does not have the requested bytes"),
    "redirects to a file": (
        mirrors.goes_to("file:///etc/passwd"),
        "redirects to 'file', expected https",
    ),
    "redirects to ftp": (
        mirrors.goes_to("ftp://127.0.0.1/file"),
        "redirects to 'ftp', expected https",
    ),
    "redirects to itself": (mirrors.goes_to("/file"), "redirects without end"),
    "redirects nowhere": (mirrors.goes_to("https://[/"), "redirects to an invalid address"),
    "redirects with a body without end": (mirrors.endless_redirect_body, "answers 404"),
}


@pytest.mark.parametrize("liar", LIARS)
def test_one_bad_mirror_ends_in_an_error_that_says_why(
    liar: str, serve: Serve, tmp_path: Path
) -> None:
    behave, why = LIARS[liar]
    with pytest.raises(DownloadError) as caught:
        fetch(published(serve(behave)), tmp_path)
    assert why in str(caught.value)
    assert not (tmp_path / "file").exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < len(CONTENT) + 10_000


@pytest.mark.parametrize("liar", LIARS)
def test_after_a_bad_mirror_the_next_one_is_tried(liar: str, serve: Serve, tmp_path: Path) -> None:
    file = published(serve(LIARS[liar][0]), serve())
    assert is_complete(fetch(file, tmp_path), tmp_path)


@pytest.mark.parametrize("liar", ["says that it is longer", "serves wrong bytes", "truncates"])
def test_a_partial_download_completes_after_a_bad_answer(
    liar: str, serve: Serve, tmp_path: Path
) -> None:
    behave = mirrors.in_turn(mirrors.dies_after(100_000), LIARS[liar][0])
    file = published(serve(behave), serve())
    assert is_complete(fetch(file, tmp_path), tmp_path)


def test_a_redirect_to_http_is_refused_and_not_followed(serve: Serve, tmp_path: Path) -> None:
    plain = serve(tls=False)
    mirror = serve(mirrors.goes_to(f"{plain.url}file"))
    with pytest.raises(DownloadError, match="redirects to 'http', expected https"):
        fetch(published(mirror), tmp_path)
    assert mirror.asked
    assert not plain.asked


def test_plain_http_is_not_spoken(serve: Serve, tmp_path: Path) -> None:
    plain = serve(tls=False)
    with pytest.raises(DownloadError, match="redirects to 'http', expected https"):
        fetch(published(plain), tmp_path)
    assert not plain.asked


def test_a_redirect_to_https_is_followed_with_its_range(serve: Serve, tmp_path: Path) -> None:
    behind = serve(mirrors.dies_after(100_000))
    mirror = serve(mirrors.goes_to(f"{behind.url}file", 307))
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    assert behind.asked[1]["Range"] == f"bytes={100_000 - OVERLAP}-"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    serve: Serve, tmp_path: Path, policy: RetryPolicy
) -> None:
    mirror = serve()
    with pytest.raises(DownloadError, match="certificate"):
        fetch(published(mirror), tmp_path, policy=replace(policy, context=None))
    assert not mirror.asked


def test_a_mirror_that_falls_silent_is_left(
    serve: Serve, tmp_path: Path, policy: RetryPolicy, over: threading.Event
) -> None:
    hasty = replace(policy, stall_seconds=0.5, tries=1)
    silent = serve(mirrors.stalls(over))
    with pytest.raises(DownloadError, match="no answer in time"):
        fetch(published(silent), tmp_path, policy=hasty)
    file = published(silent, serve())
    assert is_complete(fetch(file, tmp_path, policy=replace(hasty, stall_seconds=5)), tmp_path)


class Stopping(Silent):
    """Presses Ctrl-C once so many bytes have come."""

    def __init__(self, after: int) -> None:
        self.after = after

    def update(self, download: Download) -> None:
        if download.done > self.after:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_partial_file_and_the_next_call_resumes_it(
    serve: Serve, tmp_path: Path
) -> None:
    mirror = serve()
    with pytest.raises(KeyboardInterrupt):
        fetch(published(mirror), tmp_path, watcher=Stopping(100_000))
    held = (tmp_path / "file.part").stat().st_size
    assert held > 100_000
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    assert mirror.asked[1]["Range"] == f"bytes={held - OVERLAP}-"


def test_a_partial_file_survives_a_killed_process(
    serve: Serve, tmp_path: Path, certificate: Path, over: threading.Event
) -> None:
    mirror = serve(mirrors.in_turn(mirrors.stalls(over, 200_000), honest))
    code = (
        "import ssl, sys; from pathlib import Path\n"
        "from hydrofoil.data.published.download import Published, RetryPolicy, Silent, fetch\n"
        "class Telling(Silent):\n"
        "    def update(self, download):\n"
        "        if download.done == 200_000: print('half', flush=True)\n"
        f"file = Published('file', {len(CONTENT)}, '', ({mirror.url!r},))\n"
        f"policy = RetryPolicy(context=ssl.create_default_context(cafile={str(certificate)!r}))\n"
        "fetch(file, Path(sys.argv[1]), policy=policy, watcher=Telling())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "file.part").stat().st_size == 200_000
    over.set()
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)
    assert mirror.asked[1]["Range"] == f"bytes={200_000 - OVERLAP}-"


@pytest.mark.parametrize(
    "then", [mirrors.ignores_range, mirrors.wrong_range, mirrors.tells_no_length, mirrors.half]
)
def test_a_bad_continuation_harms_nothing(then: Behavior, serve: Serve, tmp_path: Path) -> None:
    mirror = serve(mirrors.in_turn(mirrors.dies_after(100_000), then, then, then, honest))
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)


def test_a_file_that_changes_midway_is_downloaded_again(serve: Serve, tmp_path: Path) -> None:
    def old(answer: mirrors.Answer, content: bytes) -> None:
        answer.body(OTHER, etag='"old"', send=100_000)

    mirror = serve(mirrors.in_turn(old, honest))
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)


def test_two_files_are_never_mixed(serve: Serve, tmp_path: Path) -> None:
    """The second mirror has other bytes than the first, and the third has the published ones."""
    first = serve(mirrors.in_turn(mirrors.dies_after(200_000), mirrors.answers(404)))
    other, same = serve(content=OTHER), serve()
    assert is_complete(fetch(published(first, other, same), tmp_path), tmp_path)
    assert all(mirror.asked for mirror in (first, other, same))


def test_a_partial_file_that_was_damaged_is_replaced(serve: Serve, tmp_path: Path) -> None:
    mirror = serve(mirrors.in_turn(mirrors.dies_after(200_000), honest))
    with pytest.raises(KeyboardInterrupt):
        fetch(published(mirror), tmp_path, watcher=Stopping(100_000))
    path = tmp_path / "file.part"
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    assert is_complete(fetch(published(mirror), tmp_path), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(HydrofoilError, match=r"taken.*cannot be written"):
        fetch(published(serve()), tmp_path / "taken")


# ── whole sets ───────────────────────────────────────────────────────────────────────────────────


def packed(folder: Path, level: int = 9) -> dict[str, bytes]:
    """Return a made set's files as a mirror would serve them."""
    if folder.name == "raw":
        return {
            f"{path.name}.gz": gzip.compress(path.read_bytes(), level, mtime=0)
            for path in folder.iterdir()
        }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(folder, folder.name)
    return {"set.tar.gz": gzip.compress(file.getvalue(), level, mtime=0)}


FOLDERS = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


@pytest.fixture
def offer(
    data_root: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[Mirror]]]:
    """Serve a made set as if it were the published one."""
    with ExitStack() as stack:

        def start(name: str, *served: tuple[dict[str, bytes], Behavior]) -> list[Mirror]:
            source, files = SOURCES[name], packed(data_root / FOLDERS[name])
            running = [stack.enter_context(Mirror(*one, certificate)) for one in served]
            holds = () if "raw" in FOLDERS[name] else source.files
            ours = tuple(
                Published(
                    file,
                    len(files[file]),
                    hashlib.sha256(files[file]).hexdigest(),
                    tuple(mirror.url for mirror in running),
                    holds,
                )
                for file in sorted(files)
            )
            monkeypatch.setitem(SOURCES, name, replace(source, published=ours))
            return running

        yield start


Offer = Callable[..., list[Mirror]]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_is_downloaded_on_first_use_and_only_then(
    name: str, offer: Offer, data_root: Path, tmp_path: Path
) -> None:
    (mirror,) = offer(name, (packed(data_root / FOLDERS[name]), honest))
    assert load(name, tmp_path).hash == load(name, data_root).hash
    asked = len(mirror.asked)
    assert load(name, tmp_path).hash == load(name, data_root).hash
    assert len(mirror.asked) == asked
    folder = tmp_path / FOLDERS[name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(SOURCES[name].files)


def test_only_what_is_missing_is_asked_for(offer: Offer, data_root: Path, tmp_path: Path) -> None:
    (mirror,) = offer("mnist", (packed(data_root / "MNIST/raw"), honest))
    shutil.copytree(data_root / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    assert load("mnist", tmp_path).hash == load("mnist", data_root).hash
    assert len(mirror.asked) == 1


def test_a_login_page_instead_of_the_files_is_refused(
    offer: Offer, data_root: Path, tmp_path: Path
) -> None:
    """As networks that want a login answer, to every address."""
    page = dict.fromkeys(packed(data_root / "MNIST/raw"), b"<html>Welcome to our hotel</html>")
    offer("mnist", (page, honest))
    with pytest.raises(HydrofoilError, match="expected"):
        load("mnist", tmp_path)
    assert not list(tmp_path.rglob("*ubyte*"))


def test_a_hostile_archive_is_refused_and_a_second_source_is_tried(
    offer: Offer, data_root: Path, tmp_path: Path
) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(data_root / FOLDERS["cifar10"], FOLDERS["cifar10"])
        escape = tarfile.TarInfo("cifar-10-batches-py/../../escaped")
        escape.size = 3
        tar.addfile(escape, io.BytesIO(b"bad"))
    right, expected = packed(data_root / FOLDERS["cifar10"]), load("cifar10", data_root).hash
    offer(
        "cifar10",
        ({"set.tar.gz": file.getvalue()}, honest),
        (right, honest),
    )
    assert load("cifar10", tmp_path / "root").hash == expected
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_one_process_downloads_a_set_at_a_time(
    offer: Offer, data_root: Path, tmp_path: Path
) -> None:
    offer("mnist", (packed(data_root / "MNIST/raw"), honest))
    stage = tmp_path / "MNIST/raw/.download"
    stage.mkdir(parents=True)
    with FileLock(stage / ".lock"):
        with pytest.raises(HydrofoilError, match="another process is downloading"):
            load("mnist", tmp_path)
    assert load("mnist", tmp_path).hash == load("mnist", data_root).hash


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_leaves_no_empty_folders(name: str, offer: Offer, tmp_path: Path) -> None:
    offer(name, ({}, honest))
    with pytest.raises(HydrofoilError, match="answers 404") as caught:
        load(name, tmp_path / "new" / "root")
    assert len(str(caught.value).splitlines()) == 3
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_the_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(HydrofoilError, match="cannot be written, Not a directory") as caught:
        load("cifar10", tmp_path / "root")
    assert "data_batch_1" in str(caught.value)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_names_its_mirrors_as_they_must_be(name: str) -> None:
    source = SOURCES[name]
    if source.home:
        assert source.home.startswith("https://")
        assert not source.published
        return
    unpacked = [held for file in source.published for held in file.holds]
    unpacked += [file.name.removesuffix(".gz") for file in source.published if not file.holds]
    assert set(source.files) <= set(unpacked)
    for file in source.published:
        assert len(file.mirrors) >= (1 if name in ("kmnist", "svhn") else 2)  # one home is known
        assert all(url.startswith("https://") and url.endswith("/") for url in file.mirrors)
        assert len(file.sha256) == 64
    if source.pictures_hash:
        assert len(source.pictures_hash) == 64


# ── what a person sees ───────────────────────────────────────────────────────────────────────────


def test_the_command_line_says_what_it_downloads_and_ends_with_2_or_130(
    offer: Offer, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (mirror,) = offer("mnist", ({}, honest))
    arguments = ["show", "mnist", "--json", "--data-root", str(tmp_path / "root")]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    mirror.files = packed(data_root / "MNIST/raw")
    with monkeypatch.context() as patch:
        patch.setattr(DownloadProgress, "update", Stopping(1000).update)
        with pytest.raises(SystemExit) as left:
            main(arguments)
    assert left.value.code == 130
    assert "partial download is kept in" in capsys.readouterr().err
    assert list((tmp_path / "root").rglob("*.part"))
    with pytest.raises(SystemExit) as left:
        main(arguments)
    output = capsys.readouterr()
    assert left.value.code == 0
    assert json.loads(output.out)["source"] == "mnist"
    assert "resuming at" in output.err


def test_the_follower_draws_a_bar_on_a_terminal_and_else_tells_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("hydrofoil.observe.console.time.perf_counter", lambda: clock[0])
    lines: list[str] = []

    def follow(terminal: bool) -> None:
        with DownloadProgress(lines.append) as follower:
            follower.bar.terminal = terminal
            for second in range(100):
                clock[0] = float(second)
                follower.update(Download("file.gz", "example.org", second, 100, 1.0))

    follow(terminal=False)
    assert [line.split()[1] for line in lines] == ["0.0"] * 3
    assert "example.org" in lines[0]
    lines.clear()
    follow(terminal=True)
    assert not lines
    assert "file.gz" in capsys.readouterr().err


def test_a_mirror_that_never_answers_is_left_after_two_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:  # bound and not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="refused"):
            fetch(Published("file", 1, "0" * 64, (url,)), tmp_path, policy=RetryPolicy())
    assert waits == [0.5]


def test_where_the_cache_cannot_be_written_the_temporary_folder_is_the_data_root(
    offer: Offer, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer("mnist", (packed(data_root / "MNIST/raw"), honest))
    expected = load("mnist", data_root).hash
    (tmp_path / "home").write_text("a file")
    (tmp_path / "temporary").mkdir()
    monkeypatch.delenv("HYDROFOIL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for downloads in (1, 0):
        watcher = Lines()
        assert load("mnist", watcher=watcher).hash == expected
        first, *others = watcher.lines[:-1]  # the last says that it is not the published set
        assert first.startswith(f"mnist: {tmp_path / 'home'}")
        assert f"cannot be written, so {tmp_path / 'temporary'}" in first
        assert bool(others) == bool(downloads)
    assert not (tmp_path / "home").is_dir()


class Lines(Silent):
    """Keeps the lines that are shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
