"""The generated code under the compiler's sanitizers, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hydrofoil.native import build as building
from tests.native_cases import SANITIZED, need_compiler

need_compiler()


def shared_library(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    command = [building.compiler()[0], f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_file():
        pytest.skip(f"the compiler has no {name}")
    return found


def sanitized(
    libraries: tuple[str, ...], mode: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Run every case of `SANITIZED` in a process of its own with a sanitizer's libraries."""
    found = [shared_library(name) for name in libraries]
    root = Path(__file__).parents[1]
    quiet = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "report_bugs=1 exitcode=66"}
    environment = os.environ | {"LD_PRELOAD": " ".join(found), "PYTHONPATH": str(root)} | quiet
    return subprocess.run(
        [sys.executable, "-m", "tests.native_cases", mode, *flags, "-g", "-O1"],
        cwd=root, env=environment, capture_output=True, text=True,
    )  # fmt: skip


# AddressSanitizer wraps C++ exceptions, which torch throws, and has to find the C++ library first.
ADDRESS = (
    ("libasan.so", "libstdc++.so.6"),
    "guards",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)


@pytest.mark.slow
def test_no_address_is_wrong_and_nothing_undefined() -> None:
    done = sanitized(*ADDRESS)
    assert f"{len(SANITIZED)} cases ran" in done.stdout, done.stderr[-4000:]


@pytest.mark.slow
def test_the_sanitizer_sees_one_float_too_many() -> None:
    done = sanitized(ADDRESS[0], "broken", *ADDRESS[2:])
    assert done.returncode
    assert "use-after-poison" in done.stderr


@pytest.mark.slow
def test_threads_do_not_race() -> None:
    done = sanitized(("libtsan.so",), "plain", "-fsanitize=thread")
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this system's addresses are not the thread sanitizer's")
    assert f"{len(SANITIZED)} cases ran" in done.stdout, done.stderr[-4000:]
    assert "data race" not in done.stderr, done.stderr[:4000]
