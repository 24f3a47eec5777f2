"""Starts one command on some cores, and reports its seconds, peak memory and exit status.

    python -I -S bench/launch.py REPORT CORES COMMAND…      CORES: 0,2,3; empty: all that there are

A small process of its own stands between a benchmark and what it measures, because Linux counts
the memory of the process that starts another into the other's peak: started from a benchmark that
holds torch, a process that does nothing would seem to have needed 300 MB. This one holds 11.

What is reported is wait4's ru_maxrss: the largest resident memory that the process or any of its
awaited descendants (loader workers, a compiler) had by itself. It is a maximum and no sum.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Start, wait, report."""
    report, cores, *command = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    began = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        try:
            _, status, usage = os.wait4(child, 0)
            break
        except KeyboardInterrupt:  # the child had the signal too, and ends as it likes
            continue
    seconds = time.perf_counter() - began
    unit = 2**20 if sys.platform == "darwin" else 2**10  # Linux counts KiB, macOS bytes
    found = {
        "seconds": seconds,
        "peak_megabytes": usage.ru_maxrss / unit,
        "status": os.waitstatus_to_exitcode(status),
    }
    with open(report, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
