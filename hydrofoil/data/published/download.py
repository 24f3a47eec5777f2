"""Downloads published files over https: mirrors in order, resumed, retried, checked by digest.

A partial download stays in NAME.part and survives the process. Each continuation requests the last
4 kB again and compares them, so that two different files are never mixed unnoticed; the SHA-256
digest decides in the end.
"""

import contextlib
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from hydrofoil.errors import HydrofoilError, reason

PIECE = 1 << 16
OVERLAP = 1 << 12  # bytes that a continuation requests again
MOST_REDIRECTS = 5  # the home of CIFAR takes one
MOST_WAIT = 8.0  # seconds between two attempts
TRIES_UNREACHED = 2  # attempts at a mirror that never answered: without a network, more only wait


@dataclass(frozen=True)
class Published:
    """A file as its publishers serve it.

    Args:
        name: Its name at each mirror.
        bytes: Its length.
        sha256: Its digest, hexadecimal.
        mirrors: The https folders that serve it, each ending in /, in the order to try them.
        holds: For an archive, the files to unpack from it; empty for a single gzipped file.
    """

    name: str
    bytes: int
    sha256: str
    mirrors: tuple[str, ...]
    holds: tuple[str, ...] = ()

    @property
    def unpacked(self) -> tuple[str, ...]:
        """The files that it unpacks to."""
        return self.holds or (self.name.removesuffix(".gz"),)


@dataclass(frozen=True)
class Download:
    """The state of a download.

    Args:
        name: The file's name.
        host: The mirror.
        done: Bytes downloaded so far.
        total: Bytes in all.
        rate: Bytes a second since this connection was opened.
        unit: What is counted in place of bytes.
    """

    name: str
    host: str
    done: int
    total: int
    rate: float
    unit: str = "bytes"


class Watcher(Protocol):
    """Shows downloads to the user."""

    def say(self, line: str) -> None:
        """Show a line."""
        ...

    def update(self, download: Download) -> None:
        """Show the state of a download; called many times a second."""
        ...


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Ignore a line."""

    def update(self, download: Download) -> None:
        """Ignore the state of a download."""


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry and when to give up.

    Args:
        stall_seconds: A connection that is silent for this long is dead.
        wait_seconds: Before the first retry; doubles with each further one, up to eight seconds.
        tries: Attempts in a row that bring no new byte before the next mirror is tried; fewer at
            a mirror that has not answered once.
        restarts: Times that a mirror may begin the file again from the first byte.
        context: Trusted certificates; None: the system's.
    """

    stall_seconds: float = 30.0
    wait_seconds: float = 0.5
    tries: int = 6
    restarts: int = 3
    context: ssl.SSLContext | None = None


RETRY_POLICY = RetryPolicy()


class DownloadError(Exception):
    """No mirror served the file; says why, mirror by mirror."""


class _FailedError(Exception):
    """The connection failed: worth a retry."""


class _UnreachedError(_FailedError):
    """No connection was made."""


class _OtherBytesError(Exception):
    """The mirror cannot continue the partial file."""


class _RefusedError(Exception):
    """The mirror does not have the file."""


def fetch(
    file: Published,
    folder: Path,
    *,
    policy: RetryPolicy | None = None,
    watcher: Watcher | None = None,
) -> Path:
    """Download a file into a folder, resuming a partial download that an earlier call left.

    Args:
        file: What to download.
        folder: Created if it does not exist. One process at a time may work there.
        policy: When to retry; None: RETRY_POLICY.
        watcher: Shows the progress.

    Raises:
        DownloadError: No mirror served it.
        HydrofoilError: The folder cannot be written.
    """
    return _Fetch(file, folder, policy or RETRY_POLICY, watcher or Silent()).run()


class _Fetch:
    """One file's download."""

    def __init__(
        self, file: Published, folder: Path, policy: RetryPolicy, watcher: Watcher
    ) -> None:
        self.file, self.policy, self.watcher = file, policy, watcher
        self.path, self.part = folder / file.name, folder / f"{file.name}.part"
        self.held = 0  # bytes of the partial file
        self.reached = False  # whether the mirror has answered
        self.reasons: list[str] = []  # why each mirror failed

    def run(self) -> Path:
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():  # an earlier process ended before it was unpacked
                if _digest(self.path) == self.file.sha256:
                    return self.path
                self.path.unlink()
            self.held = self.part.stat().st_size if self.part.exists() else 0
            if self.held > self.file.bytes:
                self._discard()
        for mirror in self.file.mirrors:
            if self._from(mirror + self.file.name):
                return self.path
        kept = f"; {self.held / 1e6:.1f} MB are kept" if self.held else ""
        raise DownloadError("; ".join(dict.fromkeys(self.reasons)) + kept)

    def _from(self, url: str) -> bool:
        """Download from one mirror, with retries; return whether the file is complete."""
        megabytes = self.file.bytes / 1e6
        what = f"resuming at {self.held / 1e6:.1f} of" if self.held else "downloading"
        self.watcher.say(f"{self.file.name}: {what} {megabytes:.1f} MB from {_host(url)}")
        tries = restarts = 0
        why, self.reached = "", False
        while tries < self._most_tries() and restarts <= self.policy.restarts:
            if tries:
                time.sleep(min(self.policy.wait_seconds * 2 ** (tries - 1), MOST_WAIT))
            held = self.held
            try:
                self._transfer(url)
                if self._complete():
                    return True
                why = f"{_host(url)}: has other bytes than were published"
                restarts += 1
                if not held:  # all bytes are this mirror's, in one piece
                    break
            except _RefusedError as error:
                why = str(error)
                break
            except _OtherBytesError as error:
                why = str(error)
                restarts += 1
                self._discard()
            except _FailedError as error:
                why = str(error)
                tries = 0 if self.held > held else tries + 1
                self.reached |= not isinstance(error, _UnreachedError)
        self.reasons.append(why)
        return False

    def _most_tries(self) -> int:
        return self.policy.tries if self.reached else min(self.policy.tries, TRIES_UNREACHED)

    def _transfer(self, url: str) -> None:
        """Request the rest of the file, or all of it, and append what comes."""
        start = max(0, self.held - OVERLAP)
        headers = {"Range": f"bytes={start}-"} if start else {}
        host = _host(url)
        try:
            with _open(url, headers, self.policy) as response:
                at, total = _position(response, start, host)
                if total not in (-1, self.file.bytes):
                    raise _RefusedError(f"{host}: has {total} bytes, expected {self.file.bytes}")
                self._copy(response, at, host)
        except (OSError, http.client.HTTPException) as error:
            raise _FailedError(f"{host}: {_why(error)}") from error
        if self.held < self.file.bytes:
            raise _FailedError(f"{host}: the connection was interrupted")

    def _copy(self, response: Any, at: int, host: str) -> None:
        """Compare the bytes that are there already, and append the others."""
        began, new = time.monotonic(), 0
        with self._writing(), open(self.part, "a+b") as part:
            while piece := _network(response, host):
                known = min(max(self.held - at, 0), len(piece))
                part.seek(at)
                if known and part.read(known) != piece[:known]:
                    raise _OtherBytesError(f"{host}: has other bytes than the partial file")
                at += len(piece)
                if at > self.file.bytes:
                    raise _RefusedError(f"{host}: sends more than {self.file.bytes} bytes")
                part.write(piece[known:])
                part.flush()  # to the system: it survives the process
                self.held += len(piece) - known
                new += len(piece) - known
                rate = new / max(time.monotonic() - began, 1e-3)
                self.watcher.update(
                    Download(self.file.name, host, self.held, self.file.bytes, rate)
                )

    def _complete(self) -> bool:
        """Move the file to its name if it has the published digest, else discard it."""
        with self._writing():
            if _digest(self.part) == self.file.sha256:
                os.replace(self.part, self.path)
                return True
            self._discard()
        return False

    def _discard(self) -> None:
        with self._writing(), contextlib.suppress(FileNotFoundError):
            self.part.unlink()
        self.held = 0

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """Tell an error of the disk from one of the network."""
        try:
            yield
        except OSError as error:
            raise HydrofoilError(f"{self.part}: cannot be written: {reason(error)}.") from error


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _network(response: Any, host: str) -> bytes:
    """Read a piece; errors of the network stay apart from errors of the disk."""
    try:
        return response.read1(PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(f"{host}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _why(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException):  # its text comes from the server
        return f"not valid http ({type(error).__name__})"
    said = reason(error) if isinstance(error, OSError) else str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0][:120]


def _open(url: str, headers: dict[str, str], policy: RetryPolicy) -> Any:
    """Open an address over https, and follow its redirects over https only.

    Redirects are followed here because urllib would read a redirect's body to its end.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPSHandler(context=policy.context or ssl.create_default_context()),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    host = _host(url)
    sent = {"User-Agent": "hydrofoil", "Accept-Encoding": "identity", **headers}
    for _ in range(MOST_REDIRECTS + 1):
        scheme = url.partition(":")[0]
        if scheme != "https":
            raise _RefusedError(f"{host}: redirects to {scheme[:40]!r}, expected https")
        try:
            request = urllib.request.Request(url, headers=sent)
            return opener.open(request, timeout=policy.stall_seconds)
        except HTTPError as error:
            error.close()
            if error.code in (301, 302, 303, 307, 308) and "Location" in error.headers:
                try:
                    url = urljoin(url, error.headers["Location"])
                except ValueError:
                    raise _RefusedError(f"{host}: redirects to an invalid address") from error
                continue
            raise _refusal(host, error.code) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _UnreachedError(f"{host}: {_why(error)}") from error
    raise _RefusedError(f"{host}: redirects without end")


def _refusal(host: str, code: int) -> Exception:
    """Return the error for an http status: worth a retry, or not."""
    if code == 416:
        return _OtherBytesError(f"{host}: does not have the requested bytes")
    kind = _FailedError if code in (408, 425, 429) or code >= 500 else _RefusedError
    return kind(f"{host}: answers {code}")


def _position(response: Any, start: int, host: str) -> tuple[int, int]:
    """Return the first byte of a response, and the file's length; -1: the server does not say."""
    if response.status == 206 and start:
        found = re.fullmatch(
            r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})", response.headers.get("Content-Range", "")
        )
        if not found or int(found[1]) != start:
            raise _OtherBytesError(f"{host}: answers with other bytes than requested")
        return start, int(found[2])
    length = response.headers.get("Content-Length", "")
    if response.status != 200:
        raise _RefusedError(f"{host}: answers {response.status}")
    return 0, int(length) if re.fullmatch(r"\d{1,15}", length) else -1
