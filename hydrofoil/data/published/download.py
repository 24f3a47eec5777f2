"""Downloads published files: from the fastest of several mirrors, resumed, bounded and checked.

Only https is spoken, redirects included. What has come lies in NAME.part, with a note beside it
(which mirror, which ETag, how long), and outlives the process. Every continuation repeats the last
bytes that are held, which must be the same, so that no two packings are ever mixed unseen; the
published digest decides in the end.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from hydrofoil.errors import HydrofoilError, reason

PIECE = 1 << 16
OVERLAP = 1 << 12  # bytes that a continuation repeats
MOST_REDIRECTS = 5  # CIFAR's home takes one
MOST_ATTEMPTS = 2000  # a connection that dies every 100 kB still brings CIFAR-10
MOST_STARTS = 4  # from the first byte
OTHER_PACKING = 1.25  # the most that another packing may have of the published one's bytes
FASTER = 4  # times the speed at which another mirror is worth a change


@dataclass(frozen=True)
class Published:
    """A file as its publishers serve it.

    Args:
        name: Its name, at each mirror.
        bytes: Its length.
        sha256: Its digest, hexadecimal.
        mirrors: The https folders that serve it, each ending in /; the publishers' own first.
        holds: For an archive, the files to unpack from it; else it is one gzipped file.
    """

    name: str
    bytes: int
    sha256: str
    mirrors: tuple[str, ...]
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """A file that has come whole.

    Args:
        path: Where it lies.
        exact: It has the published digest; else it may be another packing, or wrong.
        urls: Where its bytes came from.
    """

    path: Path
    exact: bool
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Download:
    """How far a download is.

    Args:
        name: The file's.
        host: Where it comes from.
        done: Bytes held.
        total: Bytes in all.
        rate: Bytes a second, lately.
    """

    name: str
    host: str
    done: int
    total: int
    rate: float


class Watcher(Protocol):
    """Follows downloads for a person."""

    def say(self, line: str) -> None:
        """Take a line."""
        ...

    def update(self, download: Download) -> None:
        """Take the state of a download, many times a second."""
        ...


class Silent:
    """Follows downloads and tells nobody."""

    def say(self, line: str) -> None:
        """Take a line."""

    def update(self, download: Download) -> None:
        """Take the state of a download."""


@dataclass(frozen=True)
class Manners:
    """How mirrors are dealt with.

    Args:
        stall_seconds: Silence, or less than `stall_rate`, for so long: the connection is dead.
        stall_rate: Bytes a second.
        wait_seconds: Before a mirror is asked again; doubles with each try that brings nothing, but
            stays under eight.
        tries: Of a mirror in a row that bring nothing, before it is given up.
        probe_bytes: What each mirror is asked for, to measure its speed; smaller files: no probe.
        probe_seconds: How long at most.
        switch_seconds: Over how long a mirror's speed is measured while it serves.
        context: What certificates are held against; None: the system's authorities.
    """

    stall_seconds: float = 30.0
    stall_rate: float = 1000.0
    wait_seconds: float = 0.5
    tries: int = 6
    probe_bytes: int = 1 << 18
    probe_seconds: float = 8.0
    switch_seconds: float = 10.0
    context: ssl.SSLContext | None = None


MANNERS = Manners()


class DownloadError(Exception):
    """A file could not be had; says why, mirror by mirror."""


class _FailedError(Exception):
    """A connection failed: worth another try."""


class _UnfitError(Exception):
    """A mirror cannot continue what is held."""


class _RefusedError(Exception):
    """A mirror has something else, or nothing."""


class _SlowError(Exception):
    """Another mirror is much faster."""


rates: dict[str, float] = {}  # bytes a second by host, as last measured in this process; 0: dead


def fetch(
    file: Published,
    folder: Path,
    *,
    other_packing: bool = False,
    strikes: Counter[str] | None = None,
    manners: Manners | None = None,
    watcher: Watcher | None = None,
) -> Fetched:
    """Bring a file into a folder, going on from what an earlier call or process left.

    Args:
        file: What.
        folder: Where to; made if need be. One process at a time may work there.
        other_packing: Take a file with another digest, if the caller can tell whether it is right.
        strikes: Of each address, against it; two, and it is not asked.
        manners: How mirrors are dealt with; None: MANNERS.
        watcher: Follows it.

    Raises:
        DownloadError: No mirror gave it.
        HydrofoilError: The folder cannot be written.
    """
    strikes = Counter() if strikes is None else strikes
    return _Fetch(
        file, folder, other_packing, strikes, manners or MANNERS, watcher or Silent()
    ).run()


class _Part:
    """What has come of a file, and the note that says what it is a part of.

    Every byte that `add` took is with the system: it outlives the process, not the machine.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.note = Path(f"{path}.part"), Path(f"{path}.part.json")
        self.urls: list[str] = []
        self.etag, self.total, self.pieces = "", -1, 0
        try:
            note = json.loads(self.note.read_bytes()[:PIECE])
            self.urls = [str(url) for url in note["urls"]]
            self.etag, self.total, self.pieces = (
                str(note["etag"]), int(note["total"]), int(note["pieces"]),
            )  # fmt: skip
            self.size = self.path.stat().st_size
        except (OSError, ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
            self.size = 0
        if not 0 < self.size <= self.total or not self.urls:
            self.discard()

    def discard(self) -> None:
        for path in (self.path, self.note):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        self.urls, self.etag, self.total, self.size, self.pieces = [], "", -1, 0, 0

    def joined(self, url: str, etag: str, total: int) -> None:
        """Note that a mirror begins or continues it. Total: -1, not known."""
        self.urls = [*dict.fromkeys([*self.urls, url])]
        self.etag, self.total, self.pieces = etag, total, self.pieces + 1
        note = {"urls": self.urls, "etag": etag, "total": total, "pieces": self.pieces}
        beside = self.note.with_name(f".{self.note.name}")
        beside.write_text(json.dumps(note), "utf-8")
        os.replace(beside, self.note)

    def differs(self, at: int, piece: bytes) -> bool:
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(len(piece)) != piece

    def add(self, piece: bytes) -> None:
        with open(self.path, "ab", buffering=0) as file:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        self.size += len(piece)


@dataclass
class _Pace:
    """Measures a mirror while it serves.

    Args:
        host: Which.
        manners: How long to measure.
        others: The other mirrors' hosts.
    """

    host: str
    manners: Manners
    others: Sequence[str]
    began: float = field(default_factory=time.monotonic)
    taken: int = 0
    rate: float = 0.0
    looked: tuple[float, int] = (0.0, 0)

    def take(self, count: int, left: int) -> None:
        """Count bytes; give the mirror up where it stalls or another is much faster."""
        now = time.monotonic() - self.began
        self.taken += count
        since, before = self.looked
        span = now - since
        if span > min(self.manners.switch_seconds, 1.0) or not since:
            self.rate = (self.taken - before) / max(span, 1e-3)
        if span < self.manners.switch_seconds:
            return
        self.looked = (now, self.taken)
        rates[self.host] = self.rate
        if self.rate < self.manners.stall_rate and now >= self.manners.stall_seconds:
            raise _FailedError(f"{self.host}: stalls at {self.rate:.0f} bytes a second")
        best = max((rates.get(other, 0.0) for other in self.others), default=0.0)
        if best > FASTER * self.rate and left / self.rate > 2 * self.manners.switch_seconds:
            raise _SlowError(f"{self.host}: slow")


class _Fetch:
    """One file on its way."""

    def __init__(
        self,
        file: Published,
        folder: Path,
        other_packing: bool,
        strikes: Counter[str],
        manners: Manners,
        watcher: Watcher,
    ) -> None:
        self.file, self.path, self.strikes = file, folder / file.name, strikes
        self.other_packing, self.manners, self.watcher = other_packing, manners, watcher
        self.most = int(file.bytes * OTHER_PACKING) if other_packing else file.bytes
        self.urls = [mirror + file.name for mirror in file.mirrors]
        self.tries: Counter[str] = Counter()  # of each, since any brought a byte
        self.unfit: set[str] = set()
        self.whys: dict[str, str] = {}
        self.starts = 0
        self.asked = ""

    def run(self) -> Fetched:
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.part = _Part(self.path)
            if self.path.exists():  # a process ended before it could be unpacked
                if _digest(self.path) == self.file.sha256:
                    return Fetched(self.path, True, ())
                self.path.unlink()
        for _ in range(MOST_ATTEMPTS):
            if self.part.size == self.part.total and (done := self._checked()):
                return done
            url = self._next()
            held = self.part.size
            try:
                self._transfer(url)
            except _SlowError:
                continue
            except (_UnfitError, _RefusedError) as error:
                self.whys[url] = str(error)
                if held and isinstance(error, _UnfitError):
                    self.unfit.add(url)
                else:
                    self.strikes[url] += 2
            except _FailedError as error:
                self.whys[url] = str(error)
                if self.part.size > held:
                    self.tries.clear()
                else:
                    self.tries[url] += 1
                    rates[_host(url)] = 0.0
        raise DownloadError(f"given up after {MOST_ATTEMPTS} attempts")

    def _next(self) -> str:
        """Return the mirror to ask: the fastest of those with the fewest failures."""
        self._probe()
        there = [url for url in self.urls if self.strikes[url] < 2]
        left = [url for url in there if self.tries[url] < self.manners.tries]
        fit = [url for url in left if url not in self.unfit]
        if left and not fit and self.starts < MOST_STARTS:
            self.part.discard()
            self.unfit.clear()
            fit = left
        if not fit:
            raise self._given_up()
        url = min(fit, key=lambda url: (self.tries[url], -rates.get(_host(url), 1.0)))
        if self.asked:
            time.sleep(min(self.manners.wait_seconds * 2 ** (self.tries[url] - 1), 8.0))
        if url != self.asked:
            size = self.file.bytes / 1e3
            what = f"{size / 1e3:.1f} MB" if size > 100 else f"{size:.0f} kB"
            what = "goes on" if self.part.size else what
            self.watcher.say(f"{self.file.name}: {what} from {_host(url)}")
        self.asked = url
        return url

    def _probe(self) -> None:
        """Measure the mirrors that were not measured in this process, all at once."""
        there = [url for url in self.urls if self.strikes[url] < 2]
        alive = any(rates.get(_host(url)) for url in there)
        new = [url for url in there if not alive or _host(url) not in rates]
        if self.asked or len(new) < 2 or self.file.bytes <= self.manners.probe_bytes:
            return
        with ThreadPoolExecutor(len(new)) as pool:
            found = list(pool.map(self._speed, new))
        rates.update(zip(map(_host, new), found, strict=True))
        if not any(rates.get(_host(url)) for url in there):
            raise self._given_up()

    def _given_up(self) -> DownloadError:
        whys = "; ".join(dict.fromkeys(self.whys.values()))[:300]
        kept = f"; {self.part.size / 1e6:.1f} MB are kept" if self.part.size else ""
        return DownloadError((whys or "no mirror has what was published") + kept)

    def _speed(self, url: str) -> float:
        """Return a mirror's bytes a second, or 0 where it gives none."""
        began, taken = time.monotonic(), 0
        last = {"Range": f"bytes=0-{self.manners.probe_bytes - 1}"}
        try:
            with _open(url, last, self.manners, self.manners.probe_seconds) as response:
                while taken < self.manners.probe_bytes and (piece := response.read1(PIECE)):
                    taken += len(piece)
                    if time.monotonic() - began > self.manners.probe_seconds:
                        break
        except (_FailedError, _RefusedError, _UnfitError) as error:
            self.whys[url] = str(error)
        except (OSError, http.client.HTTPException) as error:
            self.whys[url] = f"{_host(url)}: {_why(error)}"
        return taken / max(time.monotonic() - began, 1e-6)

    def _transfer(self, url: str) -> None:
        """Have a mirror begin or continue the part."""
        held = self.part.size
        start = max(0, held - OVERLAP)
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and self.part.etag and self.part.urls[-1] == url:
            headers["If-Range"] = self.part.etag
        try:
            with _open(url, headers, self.manners, self.manners.stall_seconds) as response:
                at, total = _place(response, start if headers else 0, _host(url))
                self._begin(url, response.headers.get("ETag", ""), total)
                self._copy(response, at, url)
        except http.client.HTTPException as error:
            raise _FailedError(f"{_host(url)}: {_why(error)}") from error
        except OSError as error:
            raise _FailedError(f"{_host(url)}: {_why(error)}") from error
        if self.part.total < 0:  # it told no length: its end is the end
            if self.part.size < self.file.bytes and not self.other_packing:
                raise _FailedError(f"{_host(url)}: broke off")
            self.part.total = self.part.size
        if self.part.size < self.part.total:
            raise _FailedError(f"{_host(url)}: broke off")

    def _begin(self, url: str, etag: str, total: int) -> None:
        """Hold what a mirror says of its file against what is held and what was published."""
        host = _host(url)
        if self.part.size and total not in (-1, self.part.total):
            raise _UnfitError(f"{host}: has {total} bytes, not the {self.part.total} begun")
        if total > self.most or (total not in (-1, self.file.bytes) and not self.other_packing):
            raise _RefusedError(f"{host}: has {total} bytes, expected {self.file.bytes}")
        if not self.part.size:
            self.starts += 1
        strong = etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag) else ""
        with self._writing():
            self.part.joined(url, strong, self.part.total if self.part.size else total)

    def _copy(self, response: Any, at: int, url: str) -> None:
        """Compare what is held already, and add the rest."""
        host = _host(url)
        others = [
            _host(other)
            for other in self.urls
            if other != url and other not in self.unfit and self.strikes[other] < 2
        ]
        pace = _Pace(host, self.manners, others)
        most = self.part.total if self.part.total >= 0 else self.most
        while piece := response.read1(PIECE):
            known = min(max(self.part.size - at, 0), len(piece))
            with self._writing():
                if known and self.part.differs(at, piece[:known]):
                    raise _UnfitError(f"{host}: has other bytes than those begun")
                at += len(piece)
                if at > most:
                    raise _RefusedError(f"{host}: sends more than {most} bytes")
                if known < len(piece):
                    self.part.add(piece[known:])
            pace.take(len(piece), most - at)
            self.watcher.update(Download(self.file.name, host, self.part.size, most, pace.rate))

    def _checked(self) -> Fetched | None:
        """Return the file if it is right, or may be another packing; else begin anew."""
        with self._writing():
            exact = _digest(self.part.path) == self.file.sha256
            urls = tuple(self.part.urls)
            if exact or self.other_packing:
                fetched = Fetched(self.path, exact, urls)
                os.replace(self.part.path, self.path)
                self.part.discard()
                return fetched
            accuse(self.strikes, urls, self.part.pieces)
            for url in urls:
                self.whys[url] = f"{_host(url)}: has other bytes than were published"
            self.part.discard()
        return None

    @contextlib.contextmanager
    def _writing(self) -> Any:
        """Tell an error of the disk from one of the network."""
        try:
            yield
        except OSError as error:
            raise HydrofoilError(
                f"{self.path}.part: cannot be written: {reason(error)}."
            ) from error


def accuse(strikes: Counter[str], urls: Sequence[str], pieces: int = 1) -> None:
    """Count wrong bytes against where they came from: fully, where they came in one piece."""
    for url in urls:
        strikes[url] += 2 if pieces == 1 else 1


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _why(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _why(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException):  # its text is the server's
        return f"no proper http ({type(error).__name__})"
    said = reason(error) if isinstance(error, OSError) else str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0][:120]


def _open(url: str, headers: dict[str, str], manners: Manners, seconds: float) -> Any:
    """Ask for an address over https, and follow where it redirects, over https.

    Redirects are followed here: urllib would read a redirect's body to its end, if it has one.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(context=manners.context or ssl.create_default_context()),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    host = _host(url)
    sent = {"User-Agent": "hydrofoil", "Accept-Encoding": "identity", **headers}
    for _ in range(MOST_REDIRECTS + 1):
        scheme = url.partition(":")[0]
        if scheme != "https":
            raise _RefusedError(f"{host}: leads to {scheme[:40]!r}, expected https")
        try:
            return opener.open(urllib.request.Request(url, headers=sent), timeout=seconds)
        except HTTPError as error:
            error.close()
            if error.code in (301, 302, 303, 307, 308) and "Location" in error.headers:
                try:
                    url = urljoin(url, error.headers["Location"])
                except ValueError:
                    raise _RefusedError(f"{host}: leads to no address") from error
                continue
            if error.code == 416:
                raise _UnfitError(f"{host}: has not the bytes asked for") from error
            kind = _FailedError if error.code in (408, 425, 429) else _RefusedError
            kind = _FailedError if error.code >= 500 else kind
            raise kind(f"{host}: answers {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _FailedError(f"{host}: {_why(error)}") from error
    raise _RefusedError(f"{host}: redirects without end")


def _place(response: Any, start: int, host: str) -> tuple[int, int]:
    """Return which byte an answer begins with, and how many the whole has; -1: it does not say."""
    if response.status == 206 and start:
        told = re.fullmatch(
            r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})", response.headers.get("Content-Range", "")
        )
        if not told or int(told[1]) != start:
            raise _UnfitError(f"{host}: answers with other bytes than those asked for")
        return start, int(told[2])
    length = response.headers.get("Content-Length", "")
    if response.status != 200:
        raise _RefusedError(f"{host}: answers {response.status}")
    return 0, int(length) if re.fullmatch(r"\d{1,15}", length) else -1
