"""What training costs that reads its images in windows, because they do not fit in memory.

    python bench/windows.py [--images 1000000] [--seconds 60] [--turns 3] [--limit 1.5e9]
                            [--threads 1] [--ways resident cold] [--folder FOLDER] [--json FILE]

Makes a set of 3×32×32 images in a file (3 GB for a million; noise with a patch whose place is the
class, sorted by class), and trains native steps of cifar10-cnn3 with its batch size in these ways,
which take turns, each in a process of its own:

* resident: all images in memory, no limit.
* cold: in a process limited to so many bytes, after the file was dropped from the page cache. What
  the process reads counts against its limit.
* warm: the same, while the file is in the page cache, for which the limit does not count.
* mapped: limited like cold, but without windows: all images are shuffled together and read where
  they lie in the file. Only if asked for.

hydrofoil chooses the windows by itself, by the free memory that it finds. The limit is one of a
control group (version 1 or 2), which needs root; without it, nothing is measured. All ways have the
same number of threads, so that no trial at the start decides the result. A rate is images by
seconds from the beginning of the epoch, so that it includes the reading of the first window.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hydrofoil as hf
from hydrofoil.run.environment import environment
from hydrofoil.session.resolve import with_window
from hydrofoil.timing import CPU

SHAPE = (3, 32, 32)
CLASSES = 10
PART = 10_000  # images that are made at once
WAYS = ("resident", "cold", "warm", "mapped")
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
    group = (base / "memory" if old else base) / f"{GROUP}-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        yield group
    finally:
        group.rmdir()


def train(path: Path, way: str, seconds: float) -> dict[str, Any]:
    """Train for some seconds in this process; return what came of it."""
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
    anonymous, seen = [status("RssAnon")], list[tuple[float, int]]()
    began = time.perf_counter()

    def watch(progress: hf.Progress) -> None:
        anonymous.append(status("RssAnon"))
        seen.append((time.perf_counter() - began, progress.sums.count))
        if seen[-1][0] >= seconds:
            raise Over

    with contextlib.suppress(Over):
        list(hf.fit(model, pictures, split, recipe, state=state, executor=prepared.executor,
                    watch=watch))  # fmt: skip
    taken, images = seen[-1]
    return {
        "way": way, "line": prepared.line, "notes": notes, "window": recipe.data.window,
        "images": images, "seconds": taken, "images_per_second": images / taken,
        "loss": state.sums.read().loss, "anonymous_bytes": max(anonymous),
        "resident_bytes": status("VmHWM"),
    }  # fmt: skip


def status(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def measure(path: Path, way: str, seconds: float, limit: int, threads: int) -> dict[str, Any]:
    """Train in a process of its own, perhaps in a limited group; return what it reports."""
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    drop(path)
    if way == "warm":
        warm(path)
    command = [sys.executable, __file__, "--child", way, "--file", str(path),
               "--seconds", str(seconds)]  # fmt: skip
    if way == "resident":
        return json.loads(
            subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE).stdout
        )
    with limited(limit) as group:
        # The shell joins the group before Python starts, so that all of it counts.
        joined = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        found = json.loads(
            subprocess.run(joined, check=True, env=environ, stdout=subprocess.PIPE).stdout
        )
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with contextlib.suppress(OSError):
                found["group_peak_bytes"] = int((group / name).read_text())
        return found | {"limit": limit}


def show(found: list[dict[str, Any]]) -> None:
    """Print a row for each way."""
    resident = statistics.median(r["images_per_second"] for r in found if r["way"] == "resident")
    for way in dict.fromkeys(row["way"] for row in found):
        rates = [row["images_per_second"] for row in found if row["way"] == way]
        rows = [row for row in found if row["way"] == way]
        middle = statistics.median(rates)
        print(
            f"{way:9} {middle:8,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f}, "
            f"n = {len(rates)}), {100 * middle / resident:5.1f}% of resident, anonymous "
            f"{max(row['anonymous_bytes'] for row in rows) / 1e9:.2f} GB, resident set "
            f"{max(row['resident_bytes'] for row in rows) / 1e9:.2f} GB, group "
            f"{max(row.get('group_peak_bytes', 0) for row in rows) / 1e9:.2f} GB, window "
            f"{rows[0]['window']:,}"
        )


def main() -> None:
    """Make the set, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.5e9, help="bytes")
    parser.add_argument("--threads", type=int, default=1, help="of the steps")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:3])
    parser.add_argument("--folder", type=Path, help="on whose disk; default: the temporary one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(train(given.file, given.child, given.seconds)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder, "images.npy")
        make(path, given.images)
        found = list[dict[str, Any]]()
        for _ in range(given.turns):
            for way in given.ways:
                found.append(measure(path, way, given.seconds, int(given.limit), given.threads))
                row = found[-1]
                print(
                    f"{way}: {row['images_per_second']:,.0f} images/s; {row['notes']}", flush=True
                )
                if given.json:
                    about = {"environment": environment(CPU, []), "images": given.images}
                    given.json.write_text(json.dumps(about | {"rows": found}, indent=1) + "\n")
        show(found)


if __name__ == "__main__":
    main()
