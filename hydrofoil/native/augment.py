"""Gathers and augments images in one pass in C, with the bytes of `data.augment`.

The code is generated for one shape and one section [augment], so that rows are copied in whole
vectors, and what the section leaves out costs nothing.

Axes: N images, A numbers of an image's changes, C channels, H rows, W columns.
"""

import ctypes

import torch
from torch import Tensor

from hydrofoil.data.augment import GRAY
from hydrofoil.data.changes import Column
from hydrofoil.data.moving import turns
from hydrofoil.native.build import build
from hydrofoil.recipe.augment import Augment

EACH = 64  # images at least for each thread: starting one takes as long as some ten

CODE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <string.h>

{defines}

typedef struct {
    const uint8_t *pictures;
    const int64_t *index;    /* the images to gather, in order */
    const int32_t *changes;  /* a row of COLUMNS numbers for each */
    const int64_t *turns;    /* of a rotation: cosine and sine for each, of 1 << 16 */
    const uint8_t *fill;     /* for each channel: what hides */
    uint8_t *out;
    int64_t count, threads;
} Task;

typedef struct { const Task *task; int64_t first, stop; } Share;

static inline int reflect(int at, int side) {
    const int period = side > 1 ? 2 * (side - 1) : 1;
    at %= period;
    if (at < 0) at += period;
    return side > 1 && period - at < at ? period - at : at;
}

/* Mirror a plane and move it; the border is reflected. */
static void move(const uint8_t *restrict in, uint8_t *restrict out, int flip, int down, int right) {
    static _Thread_local uint8_t wide[H][W + 2 * SHIFT];
    for (int y = 0; y < H; y++) {
        const uint8_t *row = in + y * W;
        uint8_t *to = wide[y] + SHIFT;
        if (flip) for (int x = 0; x < W; x++) to[x] = row[W - 1 - x];
        else memcpy(to, row, W);
#if SHIFT
        for (int x = 1; x <= SHIFT; x++) {
            to[-x] = to[x];
            to[W - 1 + x] = to[W - 1 - x];
        }
#endif
    }
    for (int y = 0; y < H; y++)
        memcpy(out + y * W, wide[reflect(y - down, H)] + SHIFT - right, W);
}

#if TURNS
/* Rotate and scale an image around its middle: bilinear, the border is reflected. */
static void turn(const uint8_t *restrict in, uint8_t *restrict out, int64_t c, int64_t s) {
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            const int64_t u = 2 * x - (W - 1), v = 2 * y - (H - 1);
            const int64_t X = c * u + s * v + ((int64_t)(W - 1) << 16);
            const int64_t Y = c * v - s * u + ((int64_t)(H - 1) << 16);
            const int left = (int)(X >> 17), top = (int)(Y >> 17);
            const int r = (int)(X >> 7 & 1023), b = (int)(Y >> 7 & 1023);
            const int inside = left >= 0 && left + 1 < W && top >= 0 && top + 1 < H;
            const int x0 = inside ? left : reflect(left, W);
            const int x1 = inside ? left + 1 : reflect(left + 1, W);
            const int y0 = (inside ? top : reflect(top, H)) * W;
            const int y1 = (inside ? top + 1 : reflect(top + 1, H)) * W;
            for (int k = 0; k < C; k++) {
                const uint8_t *p = in + k * H * W;
                const int above = p[y0 + x0] * (1024 - r) + p[y0 + x1] * r;
                const int under = p[y1 + x0] * (1024 - r) + p[y1 + x1] * r;
                out[k * H * W + y * W + x] =
                    (uint8_t)((above * (1024 - b) + under * b + (1 << 19)) >> 20);
            }
        }
}
#endif

static void brighten(uint8_t *p, int factor) {
    for (int i = 0; i < C * H * W; i++) {
        const int value = p[i] * factor >> 8;
        p[i] = (uint8_t)(value < 255 ? value : 255);
    }
}

static void contrast(uint8_t *p, int factor) {
    int64_t sum = 0, count = H * W;
    if (C == 3)
        for (int i = 0; i < H * W; i++)
            sum += (p[i] * RED + p[H * W + i] * GREEN + p[2 * H * W + i] * BLUE) >> 16;
    else {
        for (int i = 0; i < C * H * W; i++) sum += p[i];
        count = C * H * W;
    }
    const int64_t above = (int64_t)(256 - factor) * 256 * sum;
    int64_t added = above / count;
    if (added * count > above) added--;  /* rounded down, below zero too */
    for (int i = 0; i < C * H * W; i++) {
        const int value = (p[i] * factor * 256 + (int)added) >> 16;
        p[i] = (uint8_t)(value < 0 ? 0 : value < 255 ? value : 255);
    }
}

static void hide(uint8_t *p, int64_t middle_y, int64_t middle_x, const uint8_t *fill) {
    const int64_t top = (middle_y * H >> 16) - CUTOUT / 2, left = (middle_x * W >> 16) - CUTOUT / 2;
    const int64_t y0 = top < 0 ? 0 : top, y1 = top + CUTOUT < H ? top + CUTOUT : H;
    const int64_t x0 = left < 0 ? 0 : left, x1 = left + CUTOUT < W ? left + CUTOUT : W;
    for (int k = 0; k < C; k++)
        for (int64_t y = y0; y < y1; y++)
            if (x0 < x1) memset(p + (k * H + y) * W + x0, fill[k], (size_t)(x1 - x0));
}

static void *work(void *argument) {
    const Share *share = argument;
    const Task *task = share->task;
    for (int64_t i = share->first; i < share->stop; i++) {
        const uint8_t *in = task->pictures + task->index[i] * (C * H * W);
        const int32_t *change = task->changes + i * COLUMNS;
        uint8_t *out = task->out + i * (C * H * W);
        (void)change;
#if TURNS
        static _Thread_local uint8_t moved[C * H * W];
        uint8_t *first = moved;
#else
        uint8_t *first = out;
#endif
#if MOVES
        for (int k = 0; k < C; k++)
            move(in + k * H * W, first + k * H * W, change[FLIP], change[DOWN], change[RIGHT]);
#else
        memcpy(first, in, C * H * W);
#endif
#if TURNS
        turn(moved, out, task->turns[2 * i], task->turns[2 * i + 1]);
#endif
        if (BRIGHTENS && change[BRIGHTNESS] != 256) brighten(out, change[BRIGHTNESS]);
        if (CONTRASTS && change[CONTRAST] != 256) contrast(out, change[CONTRAST]);
        if (CUTOUT) hide(out, change[CUT_Y], change[CUT_X], task->fill);
    }
    return NULL;
}

#define MOST_THREADS 64

/* Threads that the system does not start are done without: this one does their share. */
void augment(const Task *task) {
    pthread_t threads[MOST_THREADS];
    Share shares[MOST_THREADS];
    int started[MOST_THREADS] = {0};
    const int64_t n = task->threads < MOST_THREADS ? task->threads : MOST_THREADS;
    for (int64_t t = 0; t < n; t++) {
        shares[t] = (Share){task, task->count * t / n, task->count * (t + 1) / n};
        if (t) started[t] = !pthread_create(&threads[t], NULL, work, &shares[t]);
    }
    for (int64_t t = 0; t < n; t++)
        if (!started[t]) work(&shares[t]);
    for (int64_t t = 1; t < n; t++)
        if (started[t]) pthread_join(threads[t], NULL);
}
"""


class Task(ctypes.Structure):
    """The one argument of the code."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pictures", "index", "changes", "turns", "fill")),
        ("out", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    )


def code_of(spec: Augment, shape: tuple[int, int, int], columns: int) -> str:
    """Return the C for images of a shape, C×H×W, and tables of so many columns."""
    channels, height, width = shape
    numbers = {
        "C": channels, "H": height, "W": width, "COLUMNS": columns,
        "SHIFT": spec.shift, "MOVES": spec.flip != "none" or spec.shift > 0, "TURNS": spec.moves,
        "BRIGHTENS": spec.brightness > 0, "CONTRASTS": spec.contrast > 0, "CUTOUT": spec.cutout,
        "RED": GRAY[0], "GREEN": GRAY[1], "BLUE": GRAY[2],
        **{column.name: int(column) for column in Column if column.name != "TURN"},
    }  # fmt: skip
    defines = "\n".join(f"#define {name} {int(number)}" for name, number in numbers.items())
    return CODE.replace("{defines}", defines)


class NativePass:
    """Gathers images and changes them, all but the policy's operations and the mixing of pairs.

    Args:
        spec: The settings; the policy and mixing are left out.
        shape: Channels, height and width.
        columns: Of the table.
        threads: CPU threads, where there is work for them.

    Raises:
        Unsupported: There is no compiler.
    """

    def __init__(
        self, spec: Augment, shape: tuple[int, int, int], columns: int, threads: int
    ) -> None:
        self.spec, self.shape, self.columns, self.threads = spec, shape, columns, threads
        self._run = build(code_of(spec, shape, columns)).handle.augment
        self._run.argtypes, self._run.restype = [ctypes.POINTER(Task)], None

    def __call__(
        self,
        pictures_NCHW: Tensor,
        index_N: Tensor,
        changes_NA: Tensor,
        fill_C: Tensor,
        out_NCHW: Tensor,
    ) -> None:
        """Write the changed images to the first places of a tensor, all on the CPU.

        Raises:
            ValueError: An index is outside the set, or a tensor is not what the code reads.
        """
        count = len(index_N)
        index_N = index_N.to(torch.int64).contiguous()
        changes_NA = changes_NA.to(torch.int32).contiguous()
        for name, tensor_NCHW in (("images", pictures_NCHW), ("room", out_NCHW)):
            fits = tensor_NCHW.dtype == torch.uint8 and tuple(tensor_NCHW.shape[1:]) == self.shape
            if not fits or not tensor_NCHW.is_contiguous() or tensor_NCHW.device.type != "cpu":
                raise ValueError(f"{name}: expected contiguous uint8 on the CPU, {self.shape}")
        if tuple(changes_NA.shape) != (count, self.columns) or len(out_NCHW) < count:
            raise ValueError(f"expected {count} rows of {self.columns}, and room for as many")
        if not count:
            return
        if int(index_N.min()) < 0 or int(index_N.max()) >= len(pictures_NCHW):
            raise ValueError(f"an index outside the {len(pictures_NCHW)} images")
        turn_N2 = turns(changes_NA) if self.spec.moves else None
        self._run(
            Task(
                pictures=pictures_NCHW.data_ptr(),
                index=index_N.data_ptr(),
                changes=changes_NA.data_ptr(),
                turns=None if turn_N2 is None else turn_N2.data_ptr(),
                fill=fill_C.data_ptr(),
                out=out_NCHW.data_ptr(),
                count=count,
                threads=max(1, min(self.threads, count // EACH)),
            )
        )
