"""What this machine offers: devices, CPU threads, the user's cache folder."""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Generator
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import torch

from hydrofoil.errors import HydrofoilError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    `auto` is the first CUDA device if this build of torch can run kernels on it, else the CPU.

    Raises:
        HydrofoilError: The name is unknown, or this machine has no such device, or torch cannot use
            it.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        usable = torch.cuda.is_available() and not cuda_problem()
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise HydrofoilError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps.")
    only = device.index in (None, 0)  # there is one CPU, and one MPS device
    available = {
        "cpu": only,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": only and torch.backends.mps.is_available(),
    }
    if not available[device.type]:
        raise HydrofoilError(
            f"--device {name}: torch {torch.__version__} finds no such device here.\n"
            "Use --device auto to choose among the available devices."
        )
    if device.type == "cuda" and (problem := cuda_problem(device.index or 0)):
        raise HydrofoilError(f"--device {name}: {problem}.\nUse --device cpu instead.")
    return device


def on_cuda(device: torch.device) -> bool:
    """Tell whether a device is a CUDA GPU; tests emulate one by replacing this function."""
    return device.type == "cuda"


@cache
def cuda_problem(index: int = 0) -> str:
    """Return why torch cannot use a CUDA device that it sees; "" if one small kernel runs on it.

    torch's builds leave out older cards (those for CUDA 13 begin with sm_75), and a card may be
    in use by another process in exclusive mode: torch reports both with the first kernel.
    """
    try:
        major, minor = torch.cuda.get_device_capability(index)
        built = torch.cuda.get_arch_list()
        if not _serves(built, major, minor):
            return (
                f"{torch.cuda.get_device_name(index)} (sm_{major}{minor}) is not supported by "
                f"torch {torch.__version__}, which was built for {', '.join(built)}"
            )
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        return f"CUDA device {index} does not work: {first_line(error)}"
    return ""


def _serves(built: list[str], major: int, minor: int) -> bool:
    """Tell whether one of the architectures that torch was built for runs on a capability.

    Machine code (sm_80) runs on its own major version from its minor version on; intermediate code
    (compute_80) on everything later.
    """
    for name in built:
        kind, _, digits = name.partition("_")
        number = "".join(filter(str.isdigit, digits))
        if not number:
            continue
        own = int(number[:-1]), int(number[-1])
        if own == (major, minor) or (digits.isdigit() and own <= (major, minor)):
            if kind == "compute" or own[0] == major:
                return True
    return not built  # a build that does not say, such as ROCm's


def first_line(error: BaseException) -> str:
    """Return the first line of an error, at most 160 characters, or its type's name."""
    return [*str(error).strip().splitlines(), type(error).__name__][0][:160]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the CPU or on a GPU.

    torch has a type for it, but a full card may also fail in cuBLAS, cuDNN or the driver, and the
    CPU's allocator raises a plain RuntimeError.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    known = (
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
        "DefaultCPUAllocator",
    )
    return isinstance(error, RuntimeError) and any(text in str(error) for text in known)


def is_device_failure(error: BaseException) -> bool:
    """Tell whether an error means that a GPU or its driver failed: no later call will succeed."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    begins = ("CUDA error", "cuDNN error", "CUDA driver error")
    return isinstance(error, torch.AcceleratorError) or str(error).startswith(begins)


class DeviceError(HydrofoilError):
    """A GPU failed while it trained; the run can be resumed on another device.

    Args:
        message: For the user.
        run: The run, where there is one.
    """

    def __init__(self, message: str, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


@contextlib.contextmanager
def reported_failure(device: torch.device) -> Generator[None]:
    """Raise a device's failure as a `DeviceError`.

    Raises:
        DeviceError: A call inside failed because the device did.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_device_failure(error):
            raise
        raise DeviceError(f"{device}: the device failed: {first_line(error)}") from error


@contextlib.contextmanager
def exact(device: torch.device, threads: int) -> Generator[None]:
    """Compute in float32, in the same order each time as far as libraries allow, on some threads.

    torch's own settings are restored afterwards. On a GPU, cuDNN is held to deterministic
    algorithms and to float32 (its default is TF32, with 10 bits of mantissa), and does not choose
    algorithms by time.

    Args:
        device: Where the work is done.
        threads: CPU threads for torch: they divide sums, so rounding depends on the number.
    """
    before = torch.get_num_threads()
    cudnn = torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False)
    if before != threads:
        torch.set_num_threads(threads)
    try:
        with cudnn if device.type == "cuda" else contextlib.nullcontext():
            yield
    finally:
        if before != threads:
            torch.set_num_threads(before)


MOST_THREADS = 1024  # OpenMP aborts the process if it cannot start that many


# Instructions that multiply bfloat16: torch's question for them, and what Linux calls them.
BFLOAT16_FLAGS = {
    "_is_amx_tile_supported": "amx_bf16",
    "_is_avx512_bf16_supported": "avx512_bf16",
}


@cache
def fast_bfloat16(kind: str) -> bool:
    """Tell whether bfloat16 is faster than float32, by the processor's flags.

    On an AMD EPYC of the fifth generation, two cores, by AVX512-BF16: convolutions run at 900 to
    1,000 GFLOP/s instead of 440 to 540. Without such instructions torch emulates them: convolutions
    take ten times as long, matrix products up to 70 times.

    Args:
        kind: The device's type.
    """
    return bool(bfloat16_support(torch.device(kind)))


def bfloat16_support(device: torch.device) -> str:
    """Return what makes bfloat16 fast on a device, in words; empty: nothing does."""
    if on_cuda(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "GPU computes in it" if fast else ""
    cpu: Any = torch.cpu
    for question, flag in BFLOAT16_FLAGS.items() if device.type == "cpu" else ():
        if getattr(cpu, question, lambda: False)():  # private to torch, and perhaps gone one day
            return f"CPU has {flag}"
    return ""


def use_threads(count: int) -> None:
    """Let torch use some CPU threads in this process from now on; 0: as many as it uses anyway."""
    if count:
        torch.set_num_threads(count)


def resumed_device(name: str, before: object) -> torch.device:
    """Return the device to resume on: the given one, else the one that the run began on.

    Args:
        name: As `pick_device` takes it; "auto" if the user named none.
        before: The device in the run's environment; if this machine lacks it, `auto` decides.
    """
    if name == "auto" and isinstance(before, str):
        with contextlib.suppress(HydrofoilError):
            return pick_device(before)
    return pick_device(name)


def describe_device(device: torch.device) -> str:
    """Return the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def user_cache() -> Path:
    """Return hydrofoil's folder in the user's cache: datasets and built code."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches/hydrofoil").expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hydrofoil"
    except RuntimeError:  # no home folder
        return temporary_cache()


def temporary_cache() -> Path:
    """Return the folder to use where the user's cache cannot be written."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"hydrofoil-{user}")


def available_threads() -> int:
    """Return how many CPU threads this process may use.

    OMP_NUM_THREADS if it is set; else the cores that the process may run on, or fewer if a
    container's CPU quota is smaller.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdigit() and int(given) > 0:
        return int(given)
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux: what taskset and containers leave
        cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, MOST_THREADS, ceil(cpu_quota() or cores)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time this process's control groups allow; None: no limit.

    Reads version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`) of this group and of those above
    it: the smallest counts. More threads than that only wait for each other.

    Args:
        root: Where `proc` and `sys` are.
    """
    return min(filter(None, map(_quota, _control_groups("cpu", root))), default=None)


def _control_groups(controller: str, root: Path) -> Generator[Path]:
    """Yield the folders of this process's control groups, of both versions, and those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        base = root / "sys/fs/cgroup"
        if controllers and controller not in controllers.split(","):
            continue
        bases = [base / controllers, base / controller] if controllers else [base, base / "unified"]
        for mounted in bases:
            group = mounted / path.lstrip("/")
            yield from (one for one in (group, *group.parents)
                        if one == mounted or mounted in one.parents)  # fmt: skip


def _quota(group: Path) -> float | None:
    """Return the cores' worth of time that one control group allows."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((group / name).read_text("utf-8") for name in names).split()
            quota, period = int(words[0]), int(words[1])  # "max" means no limit
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return None


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process can still fill, on a device; None: unknown.

    On the CPU: what the system calls available, or less where the memory of this process's control
    groups, or of those above, is limited. What only caches files counts as free.

    Args:
        device: Where.
        root: Where `proc` and `sys` are.
    """
    if on_cuda(device):
        return torch.cuda.mem_get_info(device)[0]
    groups = map(_unused, _control_groups("memory", root))
    known = [free for free in (_system_memory(root), *groups) if free is not None]
    return min(known, default=None)


def _system_memory(root: Path) -> int | None:
    """Return the bytes that the system calls available."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: two 32-bit numbers, then 64-bit ones
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
            return int(status[2])
    if sys.platform == "darwin":  # which reports no such number: half of all of it
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _unused(group: Path) -> int | None:
    """Return the bytes that one control group still allows; None: it is not limited."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most, used = (int((group / name).read_text("utf-8")) for name in (limit, usage))
            lines = (group / "memory.stat").read_text("utf-8").splitlines()
        except (OSError, ValueError):  # "max" means no limit
            continue
        counts = {name: int(value) for name, _, value in (one.partition(" ") for one in lines)}
        kinds = ("active_file", "inactive_file")  # version 1 has totals over the groups below, too
        cached = sum(counts.get(f"total_{kind}", counts.get(kind, 0)) for kind in kinds)
        return max(0, most - used + cached)
    return None


ONE_THREAD_BELOW = 10_000_000  # multiply-adds of a step's forward pass; measured in docs/log.md


def thread_rule(multiply_adds: int | None) -> int:
    """Return the number of CPU threads for torch: one if a step is too small to share, else all.

    A rule and not a measurement, so that two runs of a recipe on one machine are bit-identical.
    OMP_NUM_THREADS, if the user has set it, takes precedence.

    Args:
        multiply_adds: Of one step, forward; None: unknown.
    """
    threads, chosen = available_threads(), "OMP_NUM_THREADS" in os.environ
    small = multiply_adds is not None and multiply_adds < ONE_THREAD_BELOW
    return 1 if small and not chosen else threads
