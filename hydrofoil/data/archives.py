"""Unpacks the expected files from archives, and nothing else.

A .tar.gz is read front to back, header by header. A member's name never becomes a path: it is
looked up among the expected ones. Python's tarfile would follow headers that redefine each other,
and its extraction filters were broken before 3.11.13.
"""

import contextlib
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from hydrofoil.errors import HydrofoilError, reason

BLOCK = 512  # bytes of a header, and what members are padded to
PIECE = 1 << 20
MOST_MEMBERS = 200  # CIFAR's archives have nine
MOST_UNPACKED = 1 << 29  # bytes; CIFAR's come to 186 million
GZIP = b"\x1f\x8b"  # a gzipped file's first bytes
MOST_NOTES = 1 << 16  # bytes of a pax header
MOST_LISTED = 5_000_000  # members of an archive that is read in place
MOST_READ = 1 << 40  # bytes that such an archive may unpack to
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*")
_REDEFINES = re.compile(rb"^\d+ (?:path|linkpath|size|hdrcharset|GNU\.sparse[^=]*)=", re.MULTILINE)
_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device",
    b"6": "a named pipe", b"7": "a contiguous file", b"L": "a long name", b"K": "a long link name",
    b"S": "a sparse file", b"D": "a list of files", b"M": "a file's continuation", b"V": "a label",
}  # fmt: skip


_Piece = Callable[[], bytes]
_Writer = Callable[[Path, _Piece], None]


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _HostileError(Exception):
    """The archive contains something that the published ones do not."""


def unpack_tar(
    archive: Path,
    into: Path,
    folder: str,
    files: Collection[str],
    most_unpacked: int = MOST_UNPACKED,
) -> None:
    """Unpack the expected files of a .tar.gz or .tar; skip other plain files in their folder.

    Args:
        archive: The archive.
        into: The folder for the files: all of them are written, each atomically, or none.
        folder: The folder in the archive that holds them.
        files: Their names there; each must be in it exactly once.
        most_unpacked: The most bytes that all members together may unpack to.

    Raises:
        HydrofoilError: It lacks a file, is broken or too large, or holds links, devices, paths
            outside the folder or anything else that the published archives do not; or `into`
            cannot be written.
    """

    def unpack(raw: _Source) -> None:
        held = _Held(raw, most_unpacked)
        with _in_place_at_last() as write:
            _members(held, into, folder, files, write)
            while held.read(PIECE):  # the padding, and gzip's own checksum behind it
                pass

    _guarded(archive, unpack)


def unpack_gzip(archive: Path, to: Path, most_unpacked: int = MOST_UNPACKED) -> None:
    """Unpack a gzipped file; the result is written atomically.

    Raises:
        HydrofoilError: It is broken or too large, or `to` cannot be written.
    """

    def unpack(raw: _Source) -> None:
        held = _Held(raw, most_unpacked)
        with _in_place_at_last() as write:
            write(to, lambda: held.read(PIECE))

    _guarded(archive, unpack)


def unpack_zip(
    archive: Path, into: Path, members: Mapping[str, str], most_unpacked: int = MOST_UNPACKED
) -> None:
    """Unpack some members of a zip, all of them or none.

    Args:
        archive: The zip.
        into: The folder for the files.
        members: The member's name in the archive, by the name of the file to write.
        most_unpacked: The most bytes that these members together may unpack to.

    Raises:
        HydrofoilError: It is broken, encrypted or too large, or `into` cannot be written.
    """
    with (
        named(archive),
        zipfile.ZipFile(archive) as file,
        _in_place_at_last() as write,
    ):
        left = most_unpacked
        for name, member in members.items():
            with file.open(member) as raw:
                held = _Held(raw, left)
                write(into / name, lambda held=held: held.read(PIECE))
                left = held.left


def _guarded(archive: Path, unpack: "Callable[[_Source], None]") -> None:
    """Unpack, gunzipping if it is gzipped, and say what is wrong with the archive if anything."""
    with named(archive), open(archive, "rb") as raw:
        gzipped = raw.read(2) == GZIP
        raw.seek(0)
        if gzipped or archive.suffix == ".gz":
            with gzip.GzipFile(fileobj=cast(BinaryIO, raw)) as file:
                unpack(file)
        else:
            unpack(raw)


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its members.

    Args:
        name: As it is written there: text, not a path.
        bytes: Its length.
        at: Where its content is.
        folder: It is a folder, without content.
        special: It is a link, a device or another kind of entry.
    """

    name: str
    bytes: int
    at: object
    folder: bool = False
    special: bool = False


def tar_members(archive: Path) -> list[Member]:
    """Return the members of any .tar or .tar.gz, whose place is the offset of their content.

    Unlike `unpack_tar` it takes long names and headers that rename the next member: nothing is
    written, so that a name cannot lead anywhere.

    Raises:
        HydrofoilError: It is damaged, or not a tar.
    """
    members: list[Member] = []
    with named(archive, published=False), _opened(archive) as raw:
        held, at, renamed = _Held(raw, MOST_READ), 0, ""
        while len(header := held.read(BLOCK)) == BLOCK and any(header):
            at += BLOCK
            told = _octal(header[148:156], "checksum")
            if told != sum(header) - sum(header[148:156]) + 8 * 0x20:
                raise _HostileError("a header's checksum is wrong")
            size, kind = _octal(header[124:136], "size"), header[156:157].replace(b"\0", b"0")
            if kind in (b"x", b"L"):
                if size > MOST_NOTES:
                    raise _HostileError(f"a header of {size} bytes")
                renamed = _renamed(held.exactly(size), kind) or renamed
            else:
                if kind != b"g":
                    name = renamed or _path(header)
                    special = kind not in (b"0", b"5", b"7")
                    members.append(Member(name, size, (at, size), kind == b"5", special))
                    renamed = ""
                    if len(members) > MOST_LISTED:
                        raise _HostileError(f"it holds more than {MOST_LISTED:,} members")
                _pass_over(held, size)
            _pass_over(held, -size % BLOCK)
            at += size + -size % BLOCK
        if not members:
            raise _HostileError("it holds no members")
    return members


def read_tar_members(
    archive: Path, places: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    """Yield the content of some members, in the archive's order, with their position in `places`.

    Raises:
        HydrofoilError: The archive is damaged, or was changed since it was listed.
    """
    with named(archive, published=False), _opened(archive) as raw:
        for position in sorted(range(len(places)), key=places.__getitem__):
            start, size = places[position]
            raw.seek(start)
            yield position, _Held(raw, size).exactly(size)


def _path(header: bytes) -> str:
    """Return the path in a header; names that are not UTF-8 keep their bytes as surrogates."""
    fields = [header[:100]]
    if header[257:265] == b"ustar\x0000" and header[345]:
        fields.insert(0, header[345:500])
    path = b"/".join(field.partition(b"\0")[0] for field in fields)
    return path.decode("utf-8", "surrogateescape")


def _renamed(content: bytes, kind: bytes) -> str:
    """Return the name that a header gives to the next member; empty if it gives none."""
    if kind == b"L":
        return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    if re.search(rb"(?:^|\n)\d+ (?:size|GNU\.sparse[^=]*)=", content):
        raise _HostileError("a header redefines the size of a member")
    found = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", content)
    return found[1].decode("utf-8", "surrogateescape") if found else ""


@contextlib.contextmanager
def _opened(archive: Path) -> Generator[Any]:
    """Open a file, gunzipping it if it is gzipped."""
    with open(archive, "rb") as raw:
        gzipped = raw.read(2) == GZIP
        raw.seek(0)
        if gzipped:
            with gzip.GzipFile(fileobj=cast(BinaryIO, raw)) as file:
                yield file
        else:
            yield raw


@contextlib.contextmanager
def named(archive: Path, *, published: bool = True) -> Generator[None]:
    """Turn the errors of reading an archive into one that names it.

    Args:
        archive: The archive.
        published: It was downloaded, so that it can be downloaded again.
    """
    try:
        yield
    except (
        _HostileError, EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile,
        RuntimeError, KeyError,
    ) as error:  # RuntimeError: encrypted, or a method that this Python lacks  # fmt: skip
        if not published:
            raise HydrofoilError(
                f"{archive}: a damaged or protected archive: {error}.\n"
                "Use another copy of it, or pack the images again without a password."
            ) from error
        raise HydrofoilError(
            f"{archive}: damaged, or not the published archive: {error}.\n"
            "Delete it to download it again; nothing was unpacked."
        ) from error
    except OSError as error:
        raise HydrofoilError(f"{archive}: cannot be unpacked: {reason(error)}.") from error


class _Held:
    """A stream with a limit, so that a decompression bomb ends early."""

    def __init__(self, raw: _Source, most: int) -> None:
        self.raw, self.left, self.most = raw, most, most

    def read(self, count: int) -> bytes:
        piece = self.raw.read(min(count, self.left + 1))
        self.left -= len(piece)
        if self.left < 0:
            raise _HostileError(f"it unpacks to more than {self.most} bytes")
        return piece

    def exactly(self, count: int) -> bytes:
        piece = self.read(count)
        while len(piece) < count and (more := self.read(count - len(piece))):
            piece += more
        if len(piece) < count:
            raise _HostileError("it is truncated")
        return piece


def _members(held: _Held, into: Path, folder: str, files: Collection[str], write: _Writer) -> None:
    """Walk the headers; write each expected file."""
    wanted = set(files)
    for _ in range(MOST_MEMBERS):
        header = held.exactly(BLOCK)
        if not any(header):
            break
        kind, size = _checked(header), _octal(header[124:136], "size")
        name = _inside(header, folder, kind)
        if kind in (b"x", b"g"):
            _check_notes(held, size)
        elif kind == b"0" and name in wanted:
            wanted.remove(name)
            left = size

            def piece() -> bytes:
                nonlocal left
                taken = held.exactly(min(left, PIECE))
                left -= len(taken)
                return taken

            write(into / name, piece)
        elif kind == b"0" and name.casefold() in {file.casefold() for file in files}:
            raise _HostileError(f"it holds '{name}' twice, or in other letters")
        else:
            _pass_over(held, size)
        _pass_over(held, -size % BLOCK)
    else:
        raise _HostileError(f"it holds more than {MOST_MEMBERS} members")
    if wanted:
        raise _HostileError(f"it lacks {', '.join(sorted(wanted))}")


def _checked(header: bytes) -> bytes:
    """Return a member's kind: 0 a file, 5 a folder, x and g notes on the next ones."""
    told = _octal(header[148:156], "checksum")
    if told != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise _HostileError("a header's checksum is wrong")
    kind = header[156:157].replace(b"\0", b"0")
    if kind not in (b"0", b"5", b"x", b"g"):
        raise _HostileError(f"it holds {_KINDS.get(kind, f'a member of kind {kind!r}')}")
    if kind == b"0" and _octal(header[100:108], "mode") & 0o7000:
        raise _HostileError("it holds a file that would run as another user")
    if kind in (b"0", b"5") and header[157:257].strip(b"\0"):
        raise _HostileError("it holds a file that names a link")
    return kind


def _inside(header: bytes, folder: str, kind: bytes) -> str:
    """Return a member's name within the folder; empty: the folder itself, or notes."""
    if kind in (b"x", b"g"):
        return ""
    fields = [header[:100]]
    if header[257:265] == b"ustar\x0000" and header[345]:
        fields.insert(0, header[345:500])
    path = "/".join(field.partition(b"\0")[0].decode("latin-1") for field in fields)
    if path.startswith("./"):
        path = path[2:]
    if kind == b"5":
        if path.rstrip("/") not in (folder, "", "."):
            raise _HostileError(f"it holds the folder {path[:80]!r}")
        return ""
    above, _, name = path.partition("/")
    if above != folder or not _NAME.fullmatch(name.removeprefix("._")):
        raise _HostileError(f"it holds {path[:80]!r}")
    return name


def _octal(field: bytes, what: str) -> int:
    found = _OCTAL.fullmatch(field)
    if not found:
        raise _HostileError(f"a header's {what} is {field!r}")
    return int(found[1], 8)


def _check_notes(held: _Held, size: int) -> None:
    """Pass over a pax header (times, owners), unless it redefines what a member is."""
    if size > MOST_NOTES:
        raise _HostileError(f"a header of {size} bytes")
    found = _REDEFINES.search(held.exactly(size))
    if found:
        raise _HostileError(f"a header redefines {found[0].decode('latin-1')!r}")


def _pass_over(held: _Held, size: int) -> None:
    while size:
        size -= len(held.exactly(min(size, PIECE)))


@contextlib.contextmanager
def _in_place_at_last() -> Generator[_Writer]:
    """Give a writer of temporary files, synced; rename all of them at the end."""
    waiting: dict[Path, Path] = {}

    def write(path: Path, piece: _Piece) -> None:
        beside = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting[beside] = path
        with open(beside, "wb") as file:
            while part := piece():
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    try:
        yield write
        for beside, path in waiting.items():
            os.replace(beside, path)
    finally:
        for beside in waiting:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
