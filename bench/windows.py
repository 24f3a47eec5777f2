"""What training costs that reads its images in windows, because they do not fit in memory.

    python bench/windows.py [--images 1000000] [--seconds 60] [--turns 3] [--limit 1.5e9]
                            [--threads 1] [--ways cold warm] [--folder FOLDER] [--json FILE]

Makes a set of 3×32×32 images in a file (3 GB for a million; noise with a patch whose place is the
class, sorted by class), and trains native steps of cifar10-cnn3 with its batch size in these ways,
each in a process of its own:

* resident: all images in memory, no limit.
* cold: in a process limited to so many bytes, after the file was dropped from the page cache. What
  the process reads counts against its limit.
* warm: the same, while the file is in the page cache, for which the limit does not count.
* mapped: limited like cold, but without windows: all images are shuffled together and read where
  they lie in the file. Only if asked for.

hydrofoil chooses the windows by itself, by the free memory that it finds. The limit is one of a
control group (version 1 or 2), which needs root; without it, nothing is measured. In a turn, the
resident process and another run for two seconds each while the other is stopped, and so on, so that
other work on the machine slows both alike. Both have the same number of threads, so that no trial
at the start decides. One rate is images by the seconds that the process ran, from the first step
on, with the reading of the first window; the other by CPU seconds, of all its threads.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hydrofoil as hf
from hydrofoil.native import Native
from hydrofoil.run.environment import environment
from hydrofoil.session.resolve import with_window
from hydrofoil.timing import CPU
from hydrofoil.train.executors.windowed import Windowed

SHAPE = (3, 32, 32)
CLASSES = 10
PART = 10_000  # images that are made at once
WAYS = ("resident", "cold", "warm", "mapped")
SLICE = 2.0  # seconds of one way before the next
GROUP = "hydrofoil-bench"


class Over(Exception):  # noqa: N818 - not an error
    """The time of a measurement is over."""


def make(path: Path, images: int) -> None:
    """Write images, sorted by class, a part at a time."""
    draw = np.random.default_rng(0)
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (images, *SHAPE))
    for start in range(0, images, PART):
        stop = min(start + PART, images)
        part_NCHW = draw.integers(0, 256, (stop - start, *SHAPE), np.uint8)
        labels_N = labels(images)[start:stop].numpy()
        for label in np.unique(labels_N):
            part_NCHW[labels_N == label, :, 3 * label : 3 * label + 3, :16] = 255
        made[start:stop] = part_NCHW
        made.flush()
        drop(path)
    del made


def labels(images: int) -> torch.Tensor:
    """Return each image's class."""
    return torch.arange(images) * CLASSES // images


def drop(path: Path) -> None:
    """Drop a file from the page cache."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path: Path) -> None:
    """Read a file into the page cache."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass


@contextlib.contextmanager
def limited(limit: int) -> Generator[Path]:
    """Give a control group whose processes may have so many bytes of memory."""
    base = Path("/sys/fs/cgroup")
    old = (base / "memory").is_dir()
    group = (base / "memory" if old else base) / f"{GROUP}-{time.time_ns()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        yield group
    finally:
        group.rmdir()


def stand_by() -> None:
    """Say that this process is ready, and stop until it is its turn."""
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def train(
    path: Path, way: str, seconds: float, threads: int, wait: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Train in this process, for so many CPU seconds a thread; return what came of it."""
    array = np.load(path, mmap_mode=None if way == "resident" else "r")
    pictures = hf.Pictures(array, labels(len(array)), [str(k) for k in range(CLASSES)])
    split = hf.Split(torch.arange(len(array)), (), (), "")  # fit asks for no hash
    fixed = ["train.epochs=1", "train.execute=native", "train.select=last", "data.valid=0"]
    fixed += ["data.resident=true"] if way in ("resident", "mapped") else []
    recipe = hf.read_recipe("cifar10-cnn3", fixed)
    recipe, notes = with_window(recipe, pictures, split, CPU)
    model = hf.build(recipe, pictures.shape, pictures.classes)
    state = hf.State.fresh(model, recipe)
    prepared = hf.prepare(model, pictures, split, recipe, state)
    executor = prepared.executor
    inner = executor.inner if isinstance(executor, Windowed) else executor
    if isinstance(inner, Native):
        inner.threads = threads  # not what a trial found fastest
    wait()
    anonymous, seen = [status("RssAnon")], list[tuple[float, int]]()
    began, cpu = time.perf_counter(), time.process_time()

    def watch(progress: hf.Progress) -> None:
        anonymous.append(status("RssAnon"))
        seen.append((time.perf_counter() - began, progress.sums.count))
        if time.process_time() - cpu >= seconds * threads:
            raise Over

    with contextlib.suppress(Over):
        list(hf.fit(model, pictures, split, recipe, state=state, executor=executor,
                    watch=watch))  # fmt: skip
    taken, images = seen[-1]
    return {
        "way": way, "line": prepared.line, "notes": notes, "window": recipe.data.window,
        "images": images, "seconds": taken, "cpu_seconds": time.process_time() - cpu,
        "loss": state.sums.read().loss, "anonymous_bytes": max(anonymous),
        "resident_bytes": status("VmHWM"),
    }  # fmt: skip


def status(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def start(path: Path, way: str, given: argparse.Namespace, group: Path) -> subprocess.Popen[str]:
    """Start a process of its own, perhaps in a limited group, and return it when it is ready."""
    command = [sys.executable, __file__, "--child", way, "--file", str(path), "--seconds",
               str(given.seconds), "--threads", str(given.threads)]  # fmt: skip
    if way != "resident":  # the shell joins the group before Python starts, so that all counts
        command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
    environ = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    child = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    if child.stdout.readline() != "ready\n":
        raise SystemExit(f"{way}: the process ended before its first step")
    return child


def measure(path: Path, way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Let all images in memory and another way take turns; return what both report."""
    ways = ("resident", way)
    with limited(int(given.limit)) as group:
        children = {name: start(path, name, given, group) for name in ways}
        (warm if way == "warm" else drop)(path)
        ran, found = dict.fromkeys(ways, 0.0), dict[str, Any]()
        while children:
            for name, child in list(children.items()):
                began = time.perf_counter()
                child.send_signal(signal.SIGCONT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(SLICE)
                ended = child.poll() is not None
                if not ended:
                    child.send_signal(signal.SIGSTOP)
                ran[name] += time.perf_counter() - began
                if ended:
                    found[name] = result(children.pop(name), ran[name])
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with contextlib.suppress(OSError):
                found["group_peak_bytes"] = int((group / name).read_text())
        return {"way": way} | found


def result(child: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """Return what a process reports, with its rate over the time that it ran."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    row = json.loads(child.stdout.read())
    rates = {
        "per_second": row["images"] / seconds,
        "per_cpu_second": row["images"] / row["cpu_seconds"],
    }
    return row | {"ran_seconds": seconds} | rates


def show(turns: list[dict[str, Any]]) -> None:
    """Print two rows for each way."""
    for way in dict.fromkeys(turn["way"] for turn in turns):
        of_way = [turn for turn in turns if turn["way"] == way]
        for name in ("per_second", "per_cpu_second"):
            ratios = [turn[way][name] / turn["resident"][name] for turn in of_way]
            rates = [
                statistics.median(turn[one][name] for turn in of_way) for one in ("resident", way)
            ]
            print(
                f"{way:6} {name:14} {rates[1]:7,.0f} of {rates[0]:7,.0f} images, "
                f"{100 * statistics.median(ratios):5.1f}% ({100 * min(ratios):.1f} to "
                f"{100 * max(ratios):.1f}, n = {len(ratios)})"
            )
        anonymous = max(turn[way]["anonymous_bytes"] for turn in of_way) / 1e9
        peak = max(turn.get("group_peak_bytes", 0) for turn in of_way) / 1e9
        window = of_way[0][way]["window"]
        print(f"{way:6} window {window:,}, anonymous {anonymous:.2f} GB, group {peak:.2f} GB")


def main() -> None:
    """Make the set, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds a thread")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.5e9, help="bytes")
    parser.add_argument("--threads", type=int, default=1, help="of the steps")
    parser.add_argument("--ways", nargs="+", choices=WAYS[1:], default=WAYS[1:3])
    parser.add_argument("--folder", type=Path, help="on whose disk; default: the temporary one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(
            json.dumps(train(given.file, given.child, given.seconds, given.threads, stand_by)),
            flush=True,
        )
        os._exit(0)  # without giving back gigabytes, which would count
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder, "images.npy")
        make(path, given.images)
        found = list[dict[str, Any]]()
        for _ in range(given.turns):
            for way in given.ways:
                found.append(measure(path, way, given))
                show(found[-1:])
                if given.json:
                    about = {"environment": environment(CPU, []), "images": given.images}
                    about |= {"limit": given.limit, "threads": given.threads}
                    given.json.write_text(json.dumps(about | {"turns": found}, indent=1) + "\n")
        print()
        show(found)


if __name__ == "__main__":
    main()
