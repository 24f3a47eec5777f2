"""A linear layer.

Weights lie as torch has them, a row for each output, its inputs in lanes. The weights' gradient is
never stored: the update sums it over the batch in registers, a tile of rows × columns at a time,
and applies it at once.

Axes: F weights as the code lays them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from hydrofoil.native.layout import LANES, Buffer, padded
from hydrofoil.native.operations.base import Operation, Place, Sharing, Site, View
from hydrofoil.native.text import c
from hydrofoil.native.unsupported import Unsupported

ROWS = 4  # rows of a tile
ROWS_FROM_BYTES = 300_000  # a larger weight matrix is shared by rows: see `Linear.rows`


@dataclass(frozen=True, kw_only=True)
class Linear(Operation):
    """A linear layer on all features of its source.

    Args:
        rows: A small layer is computed by each thread for its own images. A large one is computed
            by each thread for its own output rows and all images, which costs a barrier or two per
            step.
        bias: Whether it has biases.
    """

    rows: bool
    bias: bool

    @property
    def inputs(self) -> int:
        """Floats of a row of weights."""
        return padded(self.source.features)

    @property
    def outputs(self) -> int:
        """Rows of weights; those beyond the last output are zero."""
        return padded(self.result.features)

    @property
    def bias_start(self) -> int:
        """Offset of the biases, which come last."""
        return self.outputs * self.inputs

    @property
    def chunks(self) -> int:
        """How many parts a row is cut into, so that few rows keep all threads busy."""
        rows = -(-self.result.features // ROWS)
        return min(self.inputs // 16 or 1, max(1, 32 // rows))

    @property
    def tiles(self) -> int:
        """How many tiles of the update there are to share."""
        return -(-self.result.features // ROWS) * self.chunks

    @property
    def sharing(self) -> Sharing:
        """By outputs if large."""
        return Sharing.OUTPUTS if self.rows else Sharing.SPAN

    @property
    def shared_vectors(self) -> int:
        """Vectors of outputs."""
        return self.outputs // LANES if self.rows else 0

    @property
    def weight_floats(self) -> int:
        """Floats of all weights and biases."""
        return self.bias_start + self.outputs

    @property
    def summary(self) -> str:
        """One line for comments."""
        return super().summary + (", shared by rows" if self.rows else ", shared by pictures")

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward, the input's gradient and update."""
        return [_forward(self), _input_gradient(self), _update(self, slots)]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the call for a span of images and outputs."""
        return [
            f"{self.name}_forward({place.weights()}, {place.weights(self.bias_start)}, "
            f"net->{self.source.name}, net->{self.result.name}, {place.span(self.outputs)});"
        ]

    def back(self, place: Place) -> list[str]:
        """Return the call that computes the gradient of the input, for its holders."""
        if self.first:
            return []
        return [
            f"{self.name}_input({place.weights()}, net->d_{self.result.name}, "
            f"net->d_{self.source.name}, {place.span(self.inputs)});"
        ]

    def update(self, place: Place) -> list[str]:
        """Return the calls: by the rows that a thread holds, or by equal shares."""
        name, d_result = self.name, f"net->d_{self.result.name}"
        vectors, most = self.outputs // LANES, self.tiles
        tiles = f"cut({most}, t, threads), cut({most}, t + 1, threads)"
        rows = f"cut({vectors}, t, threads) * 8, cut({vectors}, t + 1, threads) * 8"
        if self.rows:
            rows = f"{name}_o0, {name}_o1"
            tiles = ", ".join(
                f"({o} / 4 * {self.chunks} < {most} ? {o} / 4 * {self.chunks} : {most})"
                for o in rows.split(", ")
            )
        start = f"&r, {place.updated}"
        weights = f"{name}_update({start}, net->{self.source.name}, {d_result}, count, {tiles});"
        # Without biases, their place holds zeros, which must stay.
        biases = f"{name}_update_bias({start}, {d_result}, count, {rows});"
        return [weights, biases] if self.bias else [weights]

    def views(self, flat_F: Tensor, start: int) -> Iterator[View]:
        """Yield weights and biases."""
        source, outputs = self.source, self.result.features
        rows = flat_F[start : start + self.bias_start].view(-1, self.inputs)
        weights = rows[:outputs, : source.features]
        yield View("weight", weights.unflatten(1, (source.height, source.width, source.channels)))
        if self.bias:
            first = start + self.bias_start
            yield View("bias", flat_F[first : first + outputs])

    def ordered(self, tensor: Tensor) -> Tensor:
        """Return output, row, column, channel."""
        if tensor.ndim == 1:
            return tensor
        source = self.source
        shaped = tensor.view(-1, source.channels, source.height, source.width)
        return shaped.permute(0, 2, 3, 1)


def make(site: Site, layer: nn.Module) -> Linear:
    """Return a linear layer's operation."""
    linear = cast("nn.Linear", layer)
    if not site.flat:
        raise Unsupported(f"{site.layer}: Linear on images that were not flattened")
    return Linear(
        layer=site.layer,
        name=site.name,
        source=site.source,
        result=Buffer(f"{site.name}_out", linear.out_features),
        rows=linear.weight.numel() * 4 >= ROWS_FROM_BYTES,
        bias="bias" in dict(linear.named_parameters()),
    )


def _forward(linear: Linear) -> str:
    """Return the function that computes outputs o0 to o1 of images n0 to n1."""
    pair = "\n".join(
        f"v8 w{r} = load(w + {r * linear.inputs} + i); HOLD(w{r}); "
        f"a{r} = fma8(w{r}, p, a{r}); b{r} = fma8(w{r}, q, b{r});"
        for r in range(ROWS)
    )
    one = "\n".join(
        f"a{r} = fma8(load(w + {r * linear.inputs} + i), p, a{r});" for r in range(2 * ROWS)
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
        name=linear.name, inputs=linear.inputs, in_stride=linear.source.stride,
        out_stride=linear.result.stride, pair=pair, one=one,
    )  # fmt: skip


def _input_gradient(linear: Linear) -> str:
    """Return the function that sums the gradient of inputs i0 to i1 of images n0 to n1."""
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
    """Return the function for a tile of the input's gradient: vectors of columns × images."""
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
        name=linear.name, width=width, pictures=pictures, inputs=linear.inputs,
        outputs=linear.result.features,
        sums=", ".join(f"a{v}_{n} = all(0)" for v, n in tile), steps="\n".join(steps),
        out_stride=linear.result.stride, in_stride=linear.source.stride, stores="\n".join(stores),
    )  # fmt: skip


def _update(linear: Linear, slots: int) -> str:
    """Return the functions that sum the gradient over n images and update tiles or biases."""
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
        name=linear.name, arguments=arguments, passed=passed, state=state, chunks=linear.chunks,
        vectors=linear.inputs // LANES, out_stride=linear.result.stride,
        biases=linear.bias_start,
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
        f"{{ const int at = (o + {r}) * {linear.inputs} + i + {v * LANES}; "
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
