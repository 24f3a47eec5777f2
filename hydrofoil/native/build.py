"""From C to a loaded library: the system's compiler, once for each code, compiler and CPU."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from hydrofoil.device import user_cache
from hydrofoil.native.unsupported import Unsupported

# Sums keep their order and NaN its meaning; products and sums are fused.
FLAGS = (
    "-std=gnu11", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math",
    "-ffp-contract=fast", "-pthread", "-w",
)  # fmt: skip
# The emitters fill the registers; what gcc would add there, it spills: twice the time.
GCC_FLAGS = ("-fno-predictive-commoning", "-fno-loop-unroll-and-jam")


@cache
def compiler() -> tuple[str, str]:
    """Return the C compiler's path and version.

    Raises:
        Unsupported: There is none that works; CC may name one.
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
    return path, done.stdout


@cache
def processor() -> str:
    """Return what this CPU can do, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def cache_folder() -> Path:
    """Return where built code is kept."""
    return user_cache() / "native"


def library_path(code: str, flags: tuple[str, ...] = ()) -> Path:
    """Return where the library of this code lies, or would, for this compiler and CPU."""
    parts = (code, *compiler(), *FLAGS, *GCC_FLAGS, *flags, processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return cache_folder() / f"{digest[:32]}.so"


def is_built(code: str, flags: tuple[str, ...] = ()) -> bool:
    """Tell whether this code was built here before."""
    return library_path(code, flags).is_file()


def build(code: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the loaded library of some C, compiled if it is not kept yet: a second or two.

    Raises:
        Unsupported: No compiler, or it refused, or the cache folder cannot be written.
    """
    path = library_path(code, flags)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(code, path, flags)
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # cut short when the machine went down, say
            _compile(code, path, flags)
            return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unsupported(f"native code cannot be kept or loaded: {error}") from error


def _compile(code: str, path: Path, flags: tuple[str, ...]) -> None:
    """Compile beside the path and rename, so that the library appears whole or not at all."""
    tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, library = Path(folder, "step.c"), Path(folder, "step.so")
        source.write_text(code, "utf-8")
        own = () if "clang" in compiler()[1] else GCC_FLAGS
        command = [
            compiler()[0],
            *FLAGS,
            *own,
            tuned,
            *flags,
            "-o",
            str(library),
            str(source),
            "-lm",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unsupported(f"the C compiler refused: {done.stderr.strip()[:400]}")
        os.replace(library, path)
