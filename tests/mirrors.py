"""Https servers on 127.0.0.1 that serve a file as they please: honest ones and liars."""

import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ETAG = '"first"'
Behavior = Callable[["Answer", bytes], None]


def make_certificate(folder: Path) -> Path:
    """Make a key and a certificate for 127.0.0.1, in one file; openssl's to trust for a day."""
    path, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


class Answer(BaseHTTPRequestHandler):
    """One request, with what a behavior needs to answer it."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    server: Any

    def do_GET(self) -> None:
        self.server.mirror.asked.append(dict(self.headers))
        self.close_connection = True
        content = self.server.mirror.files.get(self.path.rpartition("/")[2])
        with suppress(OSError):  # the client may go away at any time
            if content is None:
                self.head(404, {"Content-Length": "0"})
            else:
                self.server.mirror.behave(self, content)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def start(self, content: bytes, etag: str = ETAG) -> int:
        """Return where the answer should begin, by Range and If-Range."""
        asked = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        if not asked or self.headers.get("If-Range", etag) != etag:
            return 0
        return min(int(asked[1]), len(content))

    def body(self, content: bytes, etag: str = ETAG, send: int | None = None) -> None:
        """Answer as a server should, but with so many bytes of the body at most."""
        start = self.start(content, etag)
        headers = {"Content-Length": str(len(content) - start), "ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(206 if start else 200, headers)
        self.wfile.write(content[start:][:send])

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    mirror: "Mirror"

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away are what is tested


class Mirror:
    """A server with its own port: to the client, a host of its own.

    Args:
        files: What it serves, by name.
        behave: How.
        certificate: Key and certificate; None: plain http.
    """

    def __init__(self, files: dict[str, bytes], behave: Behavior, certificate: Path | None) -> None:
        self.files, self.behave, self.asked = files, behave, list[dict[str, str]]()
        self.server = Quiet(("127.0.0.1", 0), Answer)
        self.server.mirror = self
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}/"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def honest(answer: Answer, content: bytes) -> None:
    answer.body(content)


def dies_after(count: int) -> Behavior:
    return lambda answer, content: answer.body(content, send=count)


def claims(length: int) -> Behavior:
    """Serve the file, and say that it is longer or shorter."""

    def behave(answer: Answer, content: bytes) -> None:
        answer.head(200, {"Content-Length": str(len(content) + length)})
        answer.wfile.write(content)

    return behave


def half(answer: Answer, content: bytes) -> None:
    """Serve the first half, whatever is asked for, and say that it is whole."""
    answer.head(200, {"Content-Length": str(len(content))})
    answer.wfile.write(content[: len(content) // 2])


def ignores_range(answer: Answer, content: bytes) -> None:
    answer.head(200, {"Content-Length": str(len(content))})
    answer.wfile.write(content)


def tells_no_length(answer: Answer, content: bytes) -> None:
    answer.head(200, {})
    answer.wfile.write(content)


def wrong_bytes(answer: Answer, content: bytes) -> None:
    answer.body(bytes(value ^ 1 for value in content))


def wrong_range(answer: Answer, content: bytes) -> None:
    """Answer a range with the bytes before it."""
    start = answer.start(content)
    if not start:
        answer.body(content)
        return
    headers = {
        "Content-Length": str(len(content)),
        "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
    }
    answer.head(206, headers)
    answer.wfile.write(content)


def endless(answer: Answer, content: bytes) -> None:
    answer.head(200, {})
    while True:
        answer.wfile.write(bytes(1 << 16))


def endless_chunks(answer: Answer, content: bytes) -> None:
    answer.head(200, {"Transfer-Encoding": "chunked"})
    while True:
        answer.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def endless_head(answer: Answer, content: bytes) -> None:
    answer.send_response_only(200)
    answer.flush_headers()
    while True:
        answer.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")


def endless_redirect_body(answer: Answer, content: bytes) -> None:
    answer.head(302, {"Location": "/elsewhere/other"})
    while True:
        answer.wfile.write(bytes(1 << 16))


def garbage(answer: Answer, content: bytes) -> None:
    answer.wfile.write(b"\xff\x00 this is not http \r\n\r\n" * 100)


def goes_to(location: str, code: int = 302) -> Behavior:
    return lambda answer, content: answer.head(code, {"Location": location, "Content-Length": "0"})


def answers(code: int) -> Behavior:
    return lambda answer, content: answer.head(code, {"Content-Length": "0"})


def stalls(until: threading.Event, count: int = 1000) -> Behavior:
    """Send a little, and nothing more until the test is over."""

    def behave(answer: Answer, content: bytes) -> None:
        answer.body(content, send=count)
        answer.wfile.flush()
        until.wait(20)

    return behave


def drips(until: threading.Event) -> Behavior:
    """Send a byte every now and then: never silent for long, and never done."""

    def behave(answer: Answer, content: bytes) -> None:
        answer.head(200, {"Content-Length": str(len(content))})
        for value in content:
            if until.wait(0.02):
                return
            answer.wfile.write(bytes([value]))

    return behave


def in_turn(*behaviors: Behavior) -> Behavior:
    """Behave otherwise with each request, and as the last one from there on."""
    left = list(behaviors)

    def behave(answer: Answer, content: bytes) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(answer, content)

    return behave
