"""Hostile files, made here: a mutator, pickles that want to run, archives that want to escape."""

import gzip
import random
import struct
from collections.abc import Iterator
from pathlib import Path

LENGTHS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield so many broken copies: flips, cuts, swaps, splices, edited lengths; the same ones."""
    draw = random.Random(seed)
    for _ in range(count):
        broken = bytearray(content)
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            _mutate(broken, draw)
        yield bytes(broken)


def _mutate(broken: bytearray, draw: random.Random) -> None:
    if not broken:
        return
    # Heads are short, and most of what can go wrong stands in them.
    end = draw.choice([len(broken), len(broken), min(len(broken), 64), min(len(broken), 1024)])
    at, other = draw.randrange(end), draw.randrange(len(broken))
    span = draw.choice([1, 2, 4, 8, 100, 600])
    match draw.randrange(8):
        case 0:
            broken[at] ^= 1 << draw.randrange(8)
        case 1:
            broken[at] = draw.randrange(256)
        case 2:
            del broken[draw.choice([at, other]) :]
        case 3:
            del broken[at : at + span]
        case 4:
            broken[at:at] = draw.randbytes(span)
        case 5:
            broken[at : at + span], broken[other : other + span] = (
                broken[other : other + span],
                broken[at : at + span],
            )
        case 6:
            broken[at:at] = broken[other : other + span]
        case _:
            form = draw.choice(["<I", ">I", "<Q", ">Q", "<H"])
            length = draw.choice([*LENGTHS, len(broken), len(broken) + 1])
            length &= (1 << 8 * struct.calcsize(form)) - 1
            broken[at : at + struct.calcsize(form)] = struct.pack(form, length)


def malicious_pickles(canary: Path) -> dict[str, bytes]:
    """Return pickles that touch the canary if they can, or eat memory or time if they can.

    Opcodes as in Python's pickletools.
    """
    touch = f"touch {canary}".encode()
    python = f"open({str(canary)!r}, 'w').close()".encode()
    system, evaluate = b"cposix\nsystem\n", b"cbuiltins\neval\n"
    argument = b"(S'" + touch + b"'\ntR"
    short = b"\x8c" + bytes([len(touch)]) + touch
    numpy = b"cnumpy.core.multiarray\n_reconstruct\n"
    text = b"T" + struct.pack("<i", len(python)) + python
    runs = {
        "reduce": b"\x80\x02" + system + argument + b".",
        "reduce, protocol 0": system + argument + b".",
        "os.system": b"\x80\x02cos\nsystem\n" + argument + b".",
        "subprocess": b"\x80\x02csubprocess\ncall\n((lp0\nS'touch'\naS'"
        + str(canary).encode() + b"'\natR.",
        "builtins.eval": b"\x80\x02" + evaluate + b"(" + text + b"tR.",
        "builtins.exec": b"\x80\x02cbuiltins\nexec\n(" + text + b"tR.",
        "__builtin__.eval": b"\x80\x02c__builtin__\neval\n(" + text + b"tR.",
        "global alone": b"\x80\x02" + system + b".",
        "inst": b"(S'" + touch + b"'\niposix\nsystem\n.",
        "obj": b"(" + system + b"S'" + touch + b"'\no.",
        "newobj": b"\x80\x02" + system + b"(S'" + touch + b"'\nt\x81.",
        "newobj_ex": b"\x80\x04" + system + b"(S'" + touch + b"'\nt}\x92.",
        "stack_global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "framed": b"\x80\x04\x95" + struct.pack("<Q", 40) + b"\x8c\x05posix\x8c\x06system\x93"
        + short + b"\x85R.",
        "build with setstate": b"\x80\x02cfunctools\npartial\n" + system + b"\x85R(" + system
        + b"(S'" + touch + b"'\nt}NtbR.",
        "build on a module": b"\x80\x02cposix\n__dict__\n}S'system'\nNsb.",
        "ext1": b"\x80\x02\x82\x01.", "ext2": b"\x80\x02\x83\x01\x00.",
        "ext4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persid": b"Pposix.system\n.", "binpersid": b"\x80\x02S'" + touch + b"'\nQ.",
        "in a dictionary": b"\x80\x02}(U\x06labels" + system + argument + b"u.",
        "as a key": b"\x80\x02}(" + system + argument + b"K\x01u.",
        "after the labels": b"\x80\x02}(U\x06labels](K\x01eU\x04data" + system + argument + b"u.",
        "in the labels": b"\x80\x02}(U\x06labels](K\x01" + system + argument + b"eu.",
        "for numpy's reconstruct": b"\x80\x02}(U\x04data" + system + b"cnumpy\nndarray\nK\0\x85"
        b"U\x01b\x87Ru.",
        "for numpy's ndarray": b"\x80\x02}(U\x04data" + numpy + system + b"K\0\x85U\x01b\x87Ru.",
        "in an array's shape": b"\x80\x02}(U\x04data" + numpy + b"cnumpy\nndarray\nK\0\x85U\x01b"
        b"\x87R(K\x01" + system + argument + b"u.",
        "for an array's dtype": b"\x80\x02}(U\x04data" + numpy + b"cnumpy\nndarray\nK\0\x85U\x01b"
        b"\x87R(K\x01K\x01K\x01\x86cnumpy\ndtype\nU\x01OK\0K\x01\x87Ru.",
        "numpy's runstring": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(" + text
        + b"}tR.",
        "torch.load": b"\x80\x02ctorch\nload\n(S'" + str(canary).encode() + b"'\ntR.",
        "getattr": b"\x80\x02c__builtin__\ngetattr\n(cposix\nsystem\nS'__call__'\ntR"
        + argument + b".",
        "after the end": b"\x80\x02}." + system + argument + b".",
        "a name with a newline in it": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\r\n)R.",
        "memo of the callable": b"\x80\x02" + system + b"q\x01h\x01" + argument + b".",
    }  # fmt: skip
    eats = {
        "laughs": b"\x80\x02(K\x01K\x01t" + b"2\x86" * 60 + b".",
        "laughs in a dictionary": b"\x80\x02}(U\x06labels(K\x01t" + b"2\x86" * 60 + b"u.",
        "laughs by memo": b"\x80\x02]q\x01" + b"](h\x01h\x01eq\x01" * 60 + b".",
        "labels by memo": b"\x80\x02}(U\x06labels]q\x01(" + b"h\x01" * 1000 + b"eu.",
        "nested lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "nested marks": b"\x80\x02" + b"(" * 200_000 + b".",
        "nested tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
        "binbytes8": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
        "binunicode8": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
        "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b".",
        "binstring of 2 GB": b"\x80\x02T\xff\xff\xff\x7f.",
        "binstring of less than none": b"\x80\x02}(T\xff\xff\xff\xffu.",
        "binunicode of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
        "long4": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "long4 below 0": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "a long in digits": b"L" + b"9" * 300_000 + b"L\n.",
        "an int in digits": b"\x80\x02}(U\x06labels](I" + b"9" * 300_000 + b"\neu.",
        "frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "long_binput": b"\x80\x02]r\xff\xff\xff\xff.", "put": b"]p4294967295\n.",
        "an array of 4 GB": b"\x80\x02}(U\x04data" + numpy + b"cnumpy\nndarray\nK\0\x85U\x01b\x87R"
        b"(K\x01J\xff\xff\xff\x7fK\x01\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T\xff\xff\xff\x7ftbu.",
        "no memo": b"\x80\x02h\x05.", "a key from no memo": b"\x80\x02}(h\x05K\x01u.",
        "pop of nothing": b"0000.", "no end": b"\x80\x02}(", "nothing": b"", "stop alone": b".",
        "protocol 255": b"\x80\xff}.", "next buffer": b"\x80\x05\x97\x98.",
        "keys without end": b"\x80\x02}(" + b"".join(
            b"U\x04%04dK\x01" % number for number in range(5000)
        ) + b"u.",
    }  # fmt: skip
    return runs | eats


def header(name: bytes, kind: bytes = b"0", size: int = 0, **fields: bytes) -> bytes:
    """Return a tar header with any field as one likes, its checksum right unless given."""
    values = {
        "mode": b"0000644\0", "length": b"%011o\0" % size, "kind": kind, "link": b"",
        "magic": b"ustar\x0000", "prefix": b"", "sum": b"",
    } | fields  # fmt: skip
    block = bytearray(512)
    places = {
        "mode": (100, 8), "length": (124, 12), "kind": (156, 1), "link": (157, 100),
        "magic": (257, 8), "prefix": (345, 155),
    }  # fmt: skip
    block[: len(name[:100])] = name[:100]
    for field, (start, length) in places.items():
        value = values[field][:length]
        block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = values["sum"] or b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, content: bytes = b"bad", kind: bytes = b"0", **fields: bytes) -> bytes:
    """Return a member of a tar: header, content, padding."""
    return header(name, kind, len(content), **fields) + content + bytes(-len(content) % 512)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """Return notes on the next member, each record with its own length before it."""
    whole = b"".join(b"%04d %s\n" % (len(record) + 6, record) for record in records)
    return member(b"pax", whole, kind)


def escapes(outside: Path) -> dict[str, bytes]:
    """Return members of a tar that want out of its folder `set`, or to be what they are not."""
    to = str(outside / "canary").encode()
    there = str(outside).encode()
    names = {
        "absolute": to, "absolute, twice": b"/" + to, "above": b"../canary",
        "above the folder": b"set/../../canary", "beside": b"set/../canary",
        "a dot first": b"./../canary", "a dot within": b"set/./../canary",
        "two slashes": b"set//../canary", "a folder within": b"set/sub/canary",
        "through a folder within": b"set/sub/../../canary", "no folder": b"canary",
        "another folder": b"other/canary", "dots": b"set/..", "dot": b"set/.",
        "three dots": b"set/...", "the folder as a file": b"set", "a slash after it": b"set/",
        "no name": b"", "a space": b" ", "a space before": b"set/ a", "a space after": b"set/a ",
        "a tab": b"set/a\tb", "backslashes": b"set\\..\\canary", "backslashes within":
        b"set/..\\..\\canary", "a drive": b"C:\\canary", "a drive within": b"set/C:canary",
        "a share": b"\\\\host\\share\\canary", "a stream": b"set/a:stream",
        "a newline": b"set/a\nb", "an escape": b"set/\x1b[2J", "a bell": b"set/\x07",
        "a hidden file": b"set/.bashrc", "a home": b"~/canary", "a home within": b"set/~root",
        "an option": b"set/-rf", "a variable": b"set/$HOME", "a command": b"set/`touch canary`",
        "a pipe": b"set/|touch canary", "utf-8": "set/données".encode(),
        "right to left": "set/\u202ecod.exe".encode(), "wide dots": "set/\uff0e\uff0e/c".encode(),
        "overlong dots": b"set/\xc0\xae\xc0\xae/canary", "latin-1": b"set/\xe9",
        "a percent": b"set/%2e%2e%2fcanary", "nul, then above": b"set/one\0/../../canary",
        "nul first": b"\0set/one", "other letters": b"set/ONE", "another folder's letters":
        b"SET/one", "twice": b"set/one", "twice, with a dot": b"./set/one",
        "twice, with a slash": b"set/one/", "twice, with two": b"set//one",
        "very long": b"set/" + b"a/" * 48, "a mark": "\ufeffset/one".encode(),
    }  # fmt: skip
    found = {name: member(path) for name, path in names.items()}
    kinds = {
        "a hard link": b"1", "a symbolic link": b"2", "a character device": b"3",
        "a block device": b"4", "a named pipe": b"6", "a contiguous file": b"7",
        "a list of files": b"D", "a continuation": b"M", "an old long name": b"N",
        "a sparse file": b"S", "a label": b"V", "an access list": b"A", "a Solaris header": b"X",
        "a socket": b"s", "an unknown kind": b"9", "a kind of 255": b"\xff",
    }  # fmt: skip
    for name, kind in kinds.items():
        found[f"{name} to a file"] = member(b"set/link", b"", kind, link=to)
        found[f"{name} for a wanted file"] = member(b"set/one", b"", kind, link=b"/etc/passwd")
    through = member(b"set/link", b"", b"2", link=there) + member(b"set/link/canary")
    found |= {
        "a link, then through it": through,
        "the folder as a link": member(b"set", b"", b"2", link=there) + member(b"set/canary"),
        "a link upwards": member(b"set/up", b"", b"2", link=b"../.."),
        "a file that names a link": member(b"set/a", link=to),
        "a folder above": member(b"../canary/", b"", b"5"),
        "an absolute folder": member(to + b"/", b"", b"5"),
        "a folder within": member(b"set/sub/", b"", b"5"),
        "a folder elsewhere": member(b"other/", b"", b"5"),
        "a prefix above": member(b"canary", prefix=b".."),
        "a prefix absolute": member(b"canary", prefix=there),
        "a prefix within": member(b"../canary", prefix=b"set"),
        "a prefix twice": member(b"one", prefix=b"set"),
        "a long name": member(b"././@LongLink", b"../canary\0", b"L") + member(b"set/a"),
        "a long link": member(b"././@LongLink", to + b"\0", b"K") + member(b"set/a", b"", b"2"),
        "pax path": pax(b"path=../canary") + member(b"set/a"),
        "pax path, absolute": pax(b"path=" + to) + member(b"set/a"),
        "pax link": pax(b"linkpath=" + to) + member(b"set/a"),
        "pax size": pax(b"size=99999999999") + member(b"set/a"),
        "pax size below 0": pax(b"size=-1") + member(b"set/a"),
        "pax for all": pax(b"path=../canary", kind=b"g") + member(b"set/a"),
        "pax sparse": pax(b"GNU.sparse.name=../canary") + member(b"set/a"),
        "pax real size": pax(b"GNU.sparse.realsize=1099511627776") + member(b"set/a"),
        "pax letters": pax(b"hdrcharset=BINARY") + member(b"set/a"),
        "pax, second record": pax(b"mtime=1", b"path=../canary") + member(b"set/a"),
        "pax without end": header(b"pax", b"x", 1 << 30),
        "a size of 8 GB": header(b"set/a", size=0o77777777777),
        "a size in base 256": header(b"set/a", length=b"\x80" + bytes(10) + b"\x03"),
        "a size below 0": header(b"set/a", length=b"\xff" * 12),
        "a size with a sign": header(b"set/a", length=b"-0000000001\0"),
        "a size with an underscore": header(b"set/a", length=b"0_000000003\0"),
        "no size": header(b"set/a", length=b"\0" * 12),
        "more than there is": header(b"set/a", size=1 << 20),
        "setuid": member(b"set/a", mode=b"0004755\0"),
        "setgid": member(b"set/a", mode=b"0002755\0"),
        "sticky": member(b"set/a", mode=b"0001755\0"),
        "a mode in words": member(b"set/a", mode=b"rwx"),
        "a wrong checksum": member(b"set/a", sum=b"000000\0 "),
        "a checksum in words": member(b"set/a", sum=b"checksum"),
        "no header": b"\x01" * 512,
        "many members": member(b"set/a") * 300,
    }  # fmt: skip
    return found


def archive(*members: bytes, level: int = 6) -> bytes:
    """Return a .tar.gz of members."""
    return gzip.compress(b"".join(members) + bytes(1024), level, mtime=0)
