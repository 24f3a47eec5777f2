"""From C to a loaded library: the system's compiler, once for each code, compiler and CPU.

Libraries are cached in the user's cache folder. Where nothing can be written there, or nothing can
be loaded from there (a `noexec` mount), a temporary folder is used and the code is built again in
every process.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydrofoil.device import user_cache
from hydrofoil.native.unsupported import Unsupported

# Sums keep their order and NaN its meaning; products and sums are fused.
FLAGS = (
    "-std=gnu11", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
    "-ffp-contract=fast", "-pthread", "-w",
)  # fmt: skip
# The templates fill the registers; these would need more of them, and spilling doubles the time.
GCC_FLAGS = ("-fno-predictive-commoning", "-fno-loop-unroll-and-jam")


@cache
def compiler() -> tuple[str, str]:
    """Return the C compiler's path and version.

    Raises:
        Unsupported: No compiler works; CC may name one.
    """
    given = os.environ.get("CC", "")
    names = [given] if given else ["cc", "gcc", "clang"]
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        raise Unsupported(f"no C compiler ({given or 'cc, gcc or clang'})")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsupported(f"the C compiler {path} does not run: {error}") from error
    if done.returncode:
        raise Unsupported(f"the C compiler {path} does not run: {_first_line(done.stderr)}")
    return path, done.stdout


@cache
def processor() -> str:
    """Return the CPU's model and features as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


@dataclass(frozen=True)
class Library:
    """A loaded library.

    Args:
        handle: Its functions.
        compiled: Whether it was compiled now, rather than found in the cache.
        note: What was given up, in one line: caching, say; empty if nothing.
    """

    handle: ctypes.CDLL
    compiled: bool
    note: str = ""


def cache_folder() -> Path:
    """Return the folder that caches built code."""
    return user_cache() / "native"


def library_path(code: str, flags: tuple[str, ...] = ()) -> Path:
    """Return the cached library of this code, for this compiler and CPU; it may not exist."""
    parts = (code, *compiler(), *FLAGS, *GCC_FLAGS, *flags, processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return cache_folder() / f"{digest[:32]}.so"


def is_built(code: str, flags: tuple[str, ...] = ()) -> bool:
    """Return whether this code is in the cache."""
    return library_path(code, flags).is_file()


def build(code: str, flags: tuple[str, ...] = ()) -> Library:
    """Return the loaded library of some C; compiled in a second or two if it is not cached.

    Raises:
        Unsupported: No compiler, or it failed, or no folder allows to write and load a library.
    """
    path, refused = library_path(code, flags), list[str]()
    for folder in _folders(path.parent):
        kept = folder / path.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_private(folder)
            handle, compiled = _load(code, kept, flags)
        except OSError as error:
            refused.append(f"{folder}: {_reason(error)}")
            continue
        note = f"no cache ({refused[0]}): the code is compiled in every run" if refused else ""
        return Library(handle, compiled, note)
    raise Unsupported(f"no folder for native code ({'; '.join(refused)})")


def _folders(cached: Path) -> Iterator[Path]:
    """Yield the folders to try: the user's cache, then this process's temporary folder."""
    yield cached
    try:
        yield _temporary_folder()
    except OSError as error:
        raise Unsupported(f"no folder for native code: {_reason(error)}") from error


@cache
def _temporary_folder() -> Path:
    """Return a folder that only this user can read and that goes when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="hydrofoil-", ignore_cleanup_errors=True)
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # deleted when the process ends


def _check_private(folder: Path) -> None:
    """Refuse a folder in which another user could place a library for this one to load."""
    if not hasattr(os, "getuid"):  # Windows, where the user's folders are private
        return
    found, user = folder.stat(), os.getuid()
    if found.st_mode & stat.S_IWOTH or user not in (0, found.st_uid):
        raise PermissionError("other users can write there")


def _load(code: str, path: Path, flags: tuple[str, ...]) -> tuple[ctypes.CDLL, bool]:
    """Return a library, and whether it had to be compiled: missing, or damaged."""
    if path.is_file():
        try:
            return ctypes.CDLL(str(path)), False
        except OSError:  # truncated when the machine went down, say
            pass
    _compile(code, path, flags)
    return ctypes.CDLL(str(path)), True


def _compile(code: str, path: Path, flags: tuple[str, ...]) -> None:
    """Compile beside the path and rename, so that the library is written atomically."""
    tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, library = Path(folder, "step.c"), Path(folder, "step.so")
        source.write_text(code, "utf-8")
        own = () if "clang" in compiler()[1] else GCC_FLAGS
        options = [*FLAGS, *own, tuned, *flags]
        done = subprocess.run(
            [compiler()[0], *options, "-o", str(library), str(source), "-lm"],
            capture_output=True,
            text=True,
            env=os.environ | {"TMPDIR": folder},  # its own files, too: /tmp may be read-only
        )
        if done.returncode:
            raise Unsupported(f"the C compiler failed: {_first_line(done.stderr)}")
        os.replace(library, path)


def _first_line(text: str) -> str:
    """Return the first line of a compiler's output that names an error, or the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), (lines or ["no message"])[0])[:200]


def _reason(error: OSError) -> str:
    """Return an error without the path, which stands before it already."""
    return error.strerror or str(error).rpartition(": ")[2]
