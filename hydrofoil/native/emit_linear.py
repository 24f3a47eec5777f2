"""C for a linear layer, over any range of pictures and of output rows.

Weights lie as torch has them, a row for each output, its inputs in lanes. The gradient of the
weights is never stored: the update sums it over the batch's pictures in registers, a tile of rows ×
columns at a time, and applies it at once.
"""

from hydrofoil.native.plan import LANES, Linear, padded
from hydrofoil.native.text import c

ROWS = 4  # rows of a tile


def inputs(linear: Linear) -> int:
    """Return the floats of a row of weights."""
    return padded(linear.source.features)


def outputs(linear: Linear) -> int:
    """Return the rows of weights; those beyond the last output are zero."""
    return padded(linear.result.features)


def weight_floats(linear: Linear) -> int:
    """Return the floats of all weights and biases; the biases come last."""
    return outputs(linear) * inputs(linear) + outputs(linear)


def chunks(linear: Linear) -> int:
    """Return into how many runs of columns a row is cut, so that few rows keep all threads busy."""
    return min(inputs(linear) // 16 or 1, max(1, 32 // -(-linear.result.features // ROWS)))


def items(linear: Linear) -> int:
    """Return how many tiles the update has to hand out to the threads."""
    return -(-linear.result.features // ROWS) * chunks(linear)


def forward(linear: Linear) -> str:
    """Return the function that computes outputs o0 to o1 of pictures n0 to n1."""
    pair = "\n".join(
        f"v8 w{r} = load(w + {r * inputs(linear)} + i); HOLD(w{r}); "
        f"a{r} = fma8(w{r}, p, a{r}); b{r} = fma8(w{r}, q, b{r});"
        for r in range(ROWS)
    )
    one = "\n".join(
        f"a{r} = fma8(load(w + {r * inputs(linear)} + i), p, a{r});" for r in range(2 * ROWS)
    )
    return c(
        """
        static void ${name}_forward(const float *restrict weights, const float *restrict bias,
                const float *restrict x, float *restrict y, int n0, int n1, int o0, int o1) {
            for (int o = o0; o < o1; o += 8) {
                int n = n0;
                for (; n + 2 <= n1; n += 2)  /* four rows × two pictures */
                    for (int half = o; half < o + 8; half += 4) {
                        const float *w = weights + half * $inputs;
                        const float *xp = x + n * $in_stride, *xq = xp + $in_stride;
                        v8 a0 = all(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
                        for (int i = 0; i < $inputs; i += 8) {
                            v8 p = load(xp + i), q = load(xq + i);
                            HOLD(p); HOLD(q);
                            $pair
                        }
                        v8 both = sums(a0, a1, a2, a3, b0, b1, b2, b3);
                        HOLD(both);  /* or the bias is drawn into the sum, in another order than below */
                        for (int r = 0; r < 4; r++) {
                            y[n * $out_stride + half + r] = both[r] + bias[half + r];
                            y[(n + 1) * $out_stride + half + r] = both[4 + r] + bias[half + r];
                        }
                    }
                if (n < n1) {  /* eight rows × one picture */
                    const float *w = weights + o * $inputs, *xp = x + n * $in_stride;
                    v8 a0 = all(0), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;
                    for (int i = 0; i < $inputs; i += 8) {
                        v8 p = load(xp + i);
                        HOLD(p);
                        $one
                    }
                    v8 one = sums(a0, a1, a2, a3, a4, a5, a6, a7);
                    HOLD(one);
                    store(y + n * $out_stride + o, one + load(bias + o));
                }
            }
        }
        """,
        name=linear.name, inputs=inputs(linear), in_stride=linear.source.stride,
        out_stride=linear.result.stride, pair=pair, one=one,
    )  # fmt: skip


def input_gradient(linear: Linear) -> str:
    """Return the function that sums the gradient of inputs i0 to i1 of pictures n0 to n1."""
    if linear.first:
        return ""
    tiles = [_input_tile(linear, width, pictures)
             for width, pictures in ((4, 2), (1, 2), (8, 1), (1, 1))]  # fmt: skip
    return "\n\n".join(tiles) + "\n\n" + c(
        """
        static void ${name}_input(const float *restrict weights, const float *restrict dy,
                float *restrict dx, int n0, int n1, int i0, int i1) {
            const int pairs = n0 + (n1 - n0) / 2 * 2;
            int i = i0;
            for (; i + 32 <= i1; i += 32)
                for (int n = n0; n < pairs; n += 2) ${name}_input_4_2(weights, dy, dx, n, i);
            for (; i < i1; i += 8)
                for (int n = n0; n < pairs; n += 2) ${name}_input_1_2(weights, dy, dx, n, i);
            if (pairs == n1) return;
            for (i = i0; i + 64 <= i1; i += 64) ${name}_input_8_1(weights, dy, dx, pairs, i);
            for (; i < i1; i += 8) ${name}_input_1_1(weights, dy, dx, pairs, i);
        }
        """,
        name=linear.name,
    )  # fmt: skip


def _input_tile(linear: Linear, width: int, pictures: int) -> str:
    """Return the function for a tile of the input's gradient: vectors of columns × pictures."""
    tile = [(v, n) for v in range(width) for n in range(pictures)]
    steps = [f"const v8 g{n} = all(dy[{n * linear.result.stride} + o]);" for n in range(pictures)]
    for v in range(width):
        adds = " ".join(f"a{v}_{n} = fma8(g{n}, w{v}, a{v}_{n});" for n in range(pictures))
        steps.append(f"v8 w{v} = load(w + {v * LANES}); HOLD(w{v}); {adds}")
    stores = [f"store(dx + {n * linear.source.stride + v * LANES}, a{v}_{n});" for v, n in tile]
    return c(
        """
        static inline void ${name}_input_${width}_$pictures(const float *restrict weights,
                const float *restrict dy, float *restrict dx, int n, int i) {
            v8 $sums;
            dy += n * $out_stride;
            dx += n * $in_stride + i;
            const float *w = weights + i;
            for (int o = 0; o < $outputs; o++, w += $inputs) {
                $steps
            }
            $stores
        }
        """,
        name=linear.name, width=width, pictures=pictures, inputs=inputs(linear),
        outputs=linear.result.features,
        sums=", ".join(f"a{v}_{n} = all(0)" for v, n in tile), steps="\n".join(steps),
        out_stride=linear.result.stride, in_stride=linear.source.stride, stores="\n".join(stores),
    )  # fmt: skip


def update(linear: Linear, slots: int) -> str:
    """Return the functions that sum the gradient over n pictures and update tiles or biases."""
    state = "".join(f", s{i} + at" for i in range(slots))
    passed = "".join(f", s{i}" for i in range(slots))
    arguments = "".join(f", float *s{i}" for i in range(slots))
    return "\n\n".join(_update_tile(linear, slots, width) for width in (2, 1)) + "\n\n" + c(
        """
        /* Tiles i0 to i1, each of four rows × one of $chunks runs of columns. */
        static void ${name}_update(const Rates *r, float *w$arguments, const float *x, const float *dy,
                int count, int i0, int i1) {
            for (int item = i0; item < i1; item++) {
                const int o = item / $chunks * 4, part = item % $chunks;
                int i = part * $vectors / $chunks * 8;
                const int end = (part + 1) * $vectors / $chunks * 8;
                for (; i + 16 <= end; i += 16) ${name}_update_2(r, w$passed, x, dy, count, o, i);
                if (i < end) ${name}_update_1(r, w$passed, x, dy, count, o, i);
            }
        }

        static void ${name}_update_bias(const Rates *r, float *w$arguments, const float *dy,
                int count, int o0, int o1) {
            for (int o = o0; o < o1; o += 8) {
                v8 g = all(0);
                for (int n = 0; n < count; n++) g += load(dy + n * $out_stride + o);
                const int at = $biases + o;
                update(r, w + at$state, g);
            }
        }
        """,
        name=linear.name, arguments=arguments, passed=passed, state=state, chunks=chunks(linear),
        vectors=inputs(linear) // LANES, out_stride=linear.result.stride,
        biases=outputs(linear) * inputs(linear),
    )  # fmt: skip


def _update_tile(linear: Linear, slots: int, width: int) -> str:
    """Return the function that updates four rows × some vectors of columns."""
    tile = [(r, v) for r in range(ROWS) for v in range(width)]
    state = "".join(f", s{i} + at" for i in range(slots))
    steps = [f"v8 x{v} = load(x + {v * LANES}); HOLD(x{v});" for v in range(width)]
    for row in range(ROWS):
        adds = " ".join(f"a{row}_{v} += g{row} * x{v};" for v in range(width))
        steps.append(f"const v8 g{row} = all(dy[{row}]); {adds}")
    updates = [
        f"{{ const int at = (o + {r}) * {inputs(linear)} + i + {v * LANES}; "
        f"update(r, w + at{state}, a{r}_{v}); }}"
        for r, v in tile
    ]
    return c(
        """
        static inline void ${name}_update_$width(const Rates *r, float *w$arguments,
                const float *restrict x, const float *restrict dy, int count, int o, int i) {
            v8 $sums;
            x += i;
            dy += o;
            for (int n = 0; n < count; n++, x += $in_stride, dy += $out_stride) {
                $steps
            }
            $updates
        }
        """,
        name=linear.name, width=width, arguments="".join(f", float *s{i}" for i in range(slots)),
        sums=", ".join(f"a{r}_{v} = all(0)" for r, v in tile), steps="\n".join(steps),
        in_stride=linear.source.stride, out_stride=linear.result.stride,
        updates="\n".join(updates),
    )  # fmt: skip
