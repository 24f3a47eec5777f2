"""Elapsed seconds, measured on the device that does the work."""

import time

import torch

CPU = torch.device("cpu")


class Stopwatch:
    """Seconds since its creation, by CUDA events on a GPU.

    A GPU still works after the call that queued the work has returned.

    >>> Stopwatch(torch.device("cpu")).seconds() >= 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._stream = torch.cuda.current_stream(device)
            self._start = torch.cuda.Event(enable_timing=True)
            self._start.record(self._stream)
        else:
            self._began = time.perf_counter()

    def seconds(self) -> float:
        """Return the elapsed seconds; on CUDA this waits for the device: call it once an epoch."""
        if not self._cuda:
            return time.perf_counter() - self._began
        end = torch.cuda.Event(enable_timing=True)
        end.record(self._stream)
        end.synchronize()
        return self._start.elapsed_time(end) / 1000
