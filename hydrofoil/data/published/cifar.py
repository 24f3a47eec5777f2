"""CIFAR's published batch files: pickles, of which this reads the few forms that they use.

A grammar, with no stack and nothing to call: what is not in it is refused.

    file   = PROTO 2, EMPTY_DICT, MARK, (string value)*, SETITEMS, STOP
    value  = string | integer | list | array
    list   = EMPTY_LIST, (MARK (string* | integer*) APPENDS)*
    array  = NumPy's form of a two-dimensional uint8 array, token for token

Opcodes and their arguments are those of Python's pickletools. Any string, list or token may be
followed by a memo number; of these only strings can be requested again.
"""

import re
import struct
from pathlib import Path
from typing import Any

from hydrofoil.data.published.blocks import AGAIN, Block, opened, too_many
from hydrofoil.errors import HydrofoilError

Value = bytes | int | list[bytes] | list[int] | Block

PIECE = 1 << 16  # bytes read at once
LONGEST = 2 + 255 + 5  # bytes of a short string and its memo number
MOST_ITEMS = 1_000_000  # in a file's lists; CIFAR-100's have 150 000
MOST_KEYS = 64

# What stands before an array's shape, between it and the flag of its order, and after its bytes.
_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\0", b"\x85", b"U\x01b",
    b"\x87", b"R", b"(", b"K\x01",
)  # fmt: skip
_UINT8 = (
    b"cnumpy\ndtype\n", b"U\x02u1", b"K\0", b"K\x01", b"\x87", b"R", b"(", b"K\x03", b"U\x01|",
    b"N", b"N", b"N", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\xff", b"K\0", b"t", b"b",
)  # fmt: skip
_END = (b"t", b"b")
_SMALL_INTEGERS = re.compile(b"(?:K.)+", re.DOTALL)


class _UnexpectedError(Exception):
    """The bytes are not in the grammar."""


def read_batch(path: Path) -> dict[bytes, Value]:
    """Return what one of CIFAR's files holds; an array as the block where it lies.

    Raises:
        HydrofoilError: The file is missing, truncated, or contains anything that the published
            files do not.
    """
    with opened(path) as (file, size):
        reader = _Reader(file, size, path)
        try:
            return reader.batch()
        except _UnexpectedError as error:
            raise HydrofoilError(
                f"{path}: truncated, or not one of CIFAR's batch files: {error}.\n{AGAIN}"
            ) from error


class _Reader:
    """Reads the grammar from front to back, never more than a piece of the file in memory.

    Args:
        file: What is read.
        size: Its bytes, at most.
        path: Its name.
    """

    def __init__(self, file: Any, size: int, path: Path) -> None:
        self.file, self.size, self.path = file, size, path
        self.piece, self.at, self.before = b"", 0, 0  # bytes, a place in them, what stood before
        self.memo: dict[int, bytes] = {}
        self.items = 0

    def batch(self) -> dict[bytes, Value]:
        self.tokens(b"\x80\x02", b"}", b"(")
        found: dict[bytes, Value] = {}
        while self.peek() != b"u":
            key = self.string()
            if key in found or len(found) == MOST_KEYS:
                raise self.unexpected(f"the key {key[:40]!r} once more, or too many keys")
            found[key] = self.value()
        self.tokens(b"u", b".")
        if self.peek():
            raise self.unexpected("bytes after the end")
        return found

    def value(self) -> Value:
        match self.peek():
            case b"U" | b"T" | b"h" | b"j":
                return self.string()
            case b"K" | b"M" | b"J":
                return self.integer()
            case b"]":
                return self.sequence()
            case b"c":
                return self.array()
            case other:
                raise self.unexpected(f"opcode {other!r}" if other else "the end")

    def string(self) -> bytes:
        match opcode := self.take(1):
            case b"U" | b"T":
                length = self.take(1)[0] if opcode == b"U" else self.number("<i")
                if not 0 <= length <= PIECE:
                    raise self.unexpected(f"a string of {length} bytes")
                text = self.take(length)
                self.put(text)
                return text
            case b"h" | b"j":
                number = self.take(1)[0] if opcode == b"h" else self.number("<I")
                if number not in self.memo:
                    raise self.unexpected(f"memo {number}, which is no string")
                return self.memo[number]
            case other:
                raise self.unexpected(f"{other!r} in the place of a string" if other else "the end")

    def integer(self) -> int:
        match self.take(1):
            case b"K":
                return self.take(1)[0]
            case b"M":
                return self.number("<H")
            case b"J":
                return self.number("<i")
            case other:
                raise self.unexpected(f"{other!r} in the place of an integer")

    def sequence(self) -> list[bytes] | list[int]:
        self.tokens(b"]")
        items: list[Any] = []
        kinds: set[bool] = set()
        while self.peek() == b"(":
            self.tokens(b"(")
            numbers = self.peek() in (b"K", b"M", b"J")
            kinds.add(numbers)
            while self.peek() != b"e":
                had = len(items)
                (self.integers if numbers else self.strings)(items)
                self.items += len(items) - had
                if self.items > MOST_ITEMS:
                    raise self.unexpected(f"more than {MOST_ITEMS} items")
            self.tokens(b"e")
        if len(kinds) > 1:
            raise self.unexpected("a list of strings and integers")
        return items

    def integers(self, items: list[Any]) -> None:
        """Take one integer, or as many small ones as the piece holds: the labels, at C's speed."""
        run = _SMALL_INTEGERS.match(self.piece, self.at)
        if run is None:
            items.append(self.integer())
        else:
            items.extend(self.piece[self.at + 1 : run.end() : 2])
            self.at = run.end()

    def strings(self, items: list[Any]) -> None:
        """Take one string, or as many short ones as the piece holds whole: ten thousand names."""
        piece, at, memo = self.piece, self.at, self.memo
        last = len(piece) - LONGEST
        while at < last and piece[at] == 0x55:  # U
            end = at + 2 + piece[at + 1]
            text = piece[at + 2 : end]
            items.append(text)
            if piece[end] == 0x72:  # r
                memo[int.from_bytes(piece[end + 1 : end + 5], "little")] = text
                at = end + 5
            elif piece[end] == 0x71:  # q
                memo[piece[end + 1]] = text
                at = end + 2
            else:
                at = end
        if at == self.at:
            items.append(self.string())
        else:
            self.at = at

    def array(self) -> Block:
        self.tokens(*_ARRAY)
        shape = (self.integer(), self.integer())
        self.tokens(b"\x86", *_UINT8)
        order = self.take(1)
        if order not in (b"\x88", b"\x89"):
            raise self.unexpected(f"{order!r} in the place of an array's order")
        if self.take(1) != b"T":
            raise self.unexpected("no bytes in an array")
        count, start = self.number("<i"), self.before + self.at
        rows, columns = shape
        if min(rows, columns) < 0 or count != rows * columns or too_many(shape):
            raise self.unexpected(f"{count} bytes for an array of {rows}×{columns}")
        if start + count > self.size:
            raise self.unexpected("the end")
        self.skip(count)
        self.put()
        self.tokens(*_END)
        return Block(self.path, start, shape, fortran=order == b"\x88")

    def tokens(self, *expected: bytes) -> None:
        """Take these and nothing else, each with its memo number if it has one."""
        for token in expected:
            if (found := self.take(len(token))) != token:
                raise self.unexpected(f"{found[:40]!r} in the place of {token[:40]!r}")
            if token not in (b"\x80\x02", b"(", b"."):
                self.put(token[2:] if token[:1] == b"U" else None)

    def put(self, text: bytes | None = None) -> None:
        """Take a memo number, if there is one."""
        opcode = self.peek()
        if opcode == b"q" or opcode == b"r":
            self.at += 1
            number = self.take(1)[0] if opcode == b"q" else self.number("<I")
            if text is not None:
                self.memo[number] = text

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def peek(self) -> bytes:
        """Return the next byte, or nothing at the end, and read on where the piece runs out."""
        if len(self.piece) - self.at < LONGEST:
            self.more(LONGEST)
        return self.piece[self.at : self.at + 1]

    def take(self, count: int) -> bytes:
        if len(self.piece) - self.at < count:
            self.more(count)
            if len(self.piece) < count:
                raise self.unexpected("the end")
        self.at += count
        return self.piece[self.at - count : self.at]

    def skip(self, count: int) -> None:
        """Go on behind so many bytes, without reading them."""
        place = self.before + self.at + count
        self.file.seek(place)
        self.piece, self.at, self.before = b"", 0, place

    def more(self, count: int) -> None:
        self.before += self.at
        self.piece, self.at = self.piece[self.at :], 0
        while len(self.piece) < count and (piece := self.file.read(max(count, PIECE))):
            self.piece += piece

    def unexpected(self, what: str) -> _UnexpectedError:
        return _UnexpectedError(f"{what} at byte {self.before + self.at}")
