"""Randomness as a function of (seed, purpose, counters): no hidden state to save or replay.

Code that needs random numbers takes the key of exactly that draw, such as
``key(seed, "order", epoch)``. A resumed run uses the same keys as an uninterrupted one, and no two
purposes share a stream, so that adding a draw in one place cannot change another.
"""

import hashlib

import torch
from torch import Tensor


def key(seed: int, purpose: str, *counters: int) -> int:
    """Return the 63-bit key of one draw; about 2 µs.

    >>> key(0, "order", 1) == key(0, "order", 1) != key(0, "order", 2)
    True
    """
    name = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a CPU generator for one draw, independent of threads and device."""
    return torch.Generator().manual_seed(key(seed, purpose, *counters))


def halves(draw: int) -> tuple[int, int]:
    """Return the low and high 32 bits of a key as int32 values.

    >>> halves(2**63 - 1)
    (-1, 2147483647)
    """
    low, high = draw & 0xFFFFFFFF, draw >> 32
    return (low - (1 << 32) if low >= 1 << 31 else low), high


def uniform_bits(draw: int | Tensor, count: int, device: torch.device) -> Tensor:
    """Return ``count`` random integers in [0, 2**24), int32, identical on every device.

    Counter-based: the i-th number is a hash of (key, i), so a mask needs no generator state, and
    an executor in another language can compute the same one. The hash is two rounds of Chris
    Wellons's "lowbias32" (https://nullprogram.com/blog/2018/07/31/), one for each half of the key,
    in wrapping int32 arithmetic: about 25 elementwise kernels on ``count`` integers.

    Args:
        draw: The key of this draw, from `key`; or its `halves` as an int32 tensor on the device,
            for a captured step that reads a new key at each replay.
        count: The number of integers.
        device: The device of the result.
    """
    bits = torch.arange(count, dtype=torch.int32, device=device)
    for half in draw.unbind() if isinstance(draw, Tensor) else halves(draw):
        bits ^= half
        bits ^= (bits >> 16) & 0xFFFF  # int32 shifts keep the sign: mask it off
        bits *= 0x7FEB352D
        bits ^= (bits >> 15) & 0x1FFFF
        bits *= 0x846CA68B - (1 << 32)
        bits ^= (bits >> 16) & 0xFFFF
    return (bits >> 8) & 0xFFFFFF
