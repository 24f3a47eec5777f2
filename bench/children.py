"""Runs one side as a process of its own: which cores, which caches, what came of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_CPU_AFFINITY")


class SideError(SystemExit):
    """A side did not end well; uncaught, it ends the benchmark with its message."""


def run(
    command: Sequence[str],
    root: str,
    *,
    cores: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[float, float, str]:
    """Run a process; return its seconds, its peak resident memory in MB (2²⁰ bytes), its output.

    Args:
        command: What to run.
        root: Where the published sets lie.
        cores: Which cores it may use, with torch's default threads; none: as this process.
        variables: Its environment, if it is not `environment(root, cores)`.
        folder: Where it runs.

    Raises:
        SideError: It ended with another status than 0.
    """
    with tempfile.TemporaryDirectory() as beside:
        report, output, errors = (Path(beside, name) for name in ("report", "output", "errors"))
        launch = [sys.executable, "-I", "-S", str(HERE / "launch.py"), str(report)]
        with output.open("wb") as out, errors.open("wb") as err:
            launched = subprocess.Popen(
                [*launch, ",".join(map(str, cores)), *command],
                stdout=out,
                stderr=err,
                env=variables or environment(root, cores),
                cwd=folder,
            )
            try:
                launched.wait()
            finally:
                if launched.poll() is None:  # this process was told to stop: so is the side
                    launched.terminate()
                    launched.wait()
        said = errors.read_text("utf-8", "replace").strip().splitlines()
        found = json.loads(report.read_text()) if report.exists() else {}
        status = found.get("status", launched.returncode or "no report")
        if status != 0:
            raise SideError("\n".join([f"{' '.join(command)} ended with {status}", *said[-8:]]))
        return found["seconds"], found["peak_megabytes"], output.read_text("utf-8", "replace")


def environment(
    root: str, cores: Sequence[int] = (), caches: Path | None = None, *, bytecode: bool = False
) -> dict[str, str]:
    """Return a side's environment variables.

    Args:
        root: Where the published sets lie.
        cores: With some given, torch picks its threads by them: settings of others are dropped.
        caches: The folder that stands for the user's caches; None: they are as they are.
        bytecode: Python's compiled modules, of every package, are looked for and kept there too.

    >>> made = environment("data", caches=Path("c"))
    >>> made["HYDROFOIL_DATA"].endswith("data"), made["XDG_CACHE_HOME"]
    (True, 'c/user')
    """
    variables = dict(os.environ)
    if cores:
        variables = {name: value for name, value in variables.items() if name not in THREADS}
    # Installing compiles every package but one that is installed to be edited, as hydrofoil is.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables["HYDROFOIL_DATA"] = str(Path(root).expanduser().resolve())
    others = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    paths = [str(REPOSITORY), *map(os.path.abspath, others)]  # the hydrofoil beside this file
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    if caches is not None:
        variables.pop("MPLCONFIGDIR", None)  # matplotlib then keeps its list of fonts under XDG's
        variables["XDG_CACHE_HOME"] = str(caches / "user")
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
        variables["TRITON_CACHE_DIR"] = str(caches / "triton")
        if bytecode:
            variables["PYTHONPYCACHEPREFIX"] = str(caches / "bytecode")
    return variables


def pick_cores(count: int | None, available: Sequence[int] | None = None) -> list[int]:
    """Return the first so many of the cores that this process may use; none, if none are asked for.

    Raises:
        ValueError: The machine has not so many, or cannot bind a process to cores.

    >>> pick_cores(2, [4, 5, 6])
    [4, 5]
    """
    if count is None:
        return []
    if available is None:
        if not hasattr(os, "sched_getaffinity"):
            raise ValueError(f"--cores {count}: only Linux binds a process to some of the cores.")
        available = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(available):
        raise ValueError(f"--cores {count}: expected 1 to {len(available)}, which are there.")
    return list(available[:count])


def probe(root: str, cores: Sequence[int]) -> dict[str, float]:
    """Return what both sides stand on, measured here: torch's import and a matrix product's speed.

    Returns:
        gflops and threads as `peak.py` prints them; import_torch_megabytes and _seconds of a
        process that does nothing else, with Python's bytecode there; bytecode_seconds, what the
        same import takes longer without it.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(root, cores, Path(folder), bytecode=True)
        importing = [sys.executable, "-c", "import torch"]
        cold, _, _ = run(importing, root, cores=cores, variables=variables)
        warm, megabytes, _ = run(importing, root, cores=cores, variables=variables)
    _, _, output = run([sys.executable, str(HERE / "peak.py")], root, cores=cores)
    return {
        **json.loads(output),
        "import_torch_megabytes": megabytes,
        "import_torch_seconds": warm,
        "bytecode_seconds": cold - warm,
    }


def memory_gigabytes() -> float:
    """Return the memory that there is: the machine's, or less where the system allows less."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else ""
    return min(installed, int(allowed) if allowed.isdigit() else installed) / 2**30


def keep(files: Sequence[Path], folder: Path | None) -> None:
    """Copy files into a folder of the record, if one is kept."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder / file.name)
