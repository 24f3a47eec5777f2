"""The C of a convolution with its ReLU and max-pooling.

Forward: output channels lie in vector lanes; a block of positions × channels is summed in
registers. Backward: each output channel has a list of the positions where its gradient is not zero
(the ones that pooling selected and ReLU passed); the weights' gradient is summed in registers over
that list, lanes along the window's row of (column, input channel), and the input's gradient is
added to along the same list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydrofoil.native.layout import LANES
from hydrofoil.native.text import c, each

if TYPE_CHECKING:
    from hydrofoil.native.operations.conv import Conv

REGISTERS = 16  # of vectors


def _block(conv: Conv) -> tuple[int, int]:
    """Return how many positions of a row, and vectors of channels, are summed at once.

    By arithmetic: two multiply-adds and two loads a cycle, four cycles until a sum can be used.
    """
    width, vectors = conv.positions[1], conv.padded_outputs // LANES

    def cycles(positions: int, channels: int) -> float:
        sums = positions * channels
        one = max(sums / 2, (positions + channels) / 2, 4) + 0.25
        return one * -(-width // positions) * -(-vectors // channels)

    choices = [
        (positions, channels)
        for channels in range(1, 5)
        if vectors % channels == 0
        for positions in range(1, min(width, 14) + 1)
        if positions * channels + channels + 1 < REGISTERS
    ]
    return min(choices, key=lambda choice: cycles(*choice))


def forward(conv: Conv) -> str:
    """Return the functions that compute an image's convolution, and its ReLU and pooling."""
    positions, vectors = _block(conv)
    height, width = conv.positions
    whole = width // positions * positions
    blocks = [_forward_block(conv, positions, vectors)]
    if width > whole:
        blocks.append(_forward_block(conv, width - whole, vectors))
    rest = f"{conv.name}_block_{width - whole}(in, w, bias, out, y, {whole}, o);"
    return "\n\n".join(blocks) + "\n\n" + c(
        """
        static void ${name}_convolve(const float *in, const float *w, const float *bias, float *out) {
            for (int y = 0; y < $height; y++)
                for (int o = 0; o < $padded; o += $step) {
                    for (int x = 0; x < $whole; x += $positions)
                        ${name}_block_$positions(in, w, bias, out, y, x, o);
                    $rest
                }
        }

        $finish
        """,
        name=conv.name, height=height, whole=whole, positions=positions, padded=conv.padded_outputs,
        step=vectors * LANES, rest=rest if width > whole else "", finish=_finish(conv),
    )  # fmt: skip


def _forward_block(conv: Conv, positions: int, vectors: int) -> str:
    """Return the function that sums one block in registers."""
    sums = [f"a{p}_{v}" for p in range(positions) for v in range(vectors)]
    pixel = conv.window.stride[1] * conv.source.channels
    steps = [f"v8 w{v} = load(k + {v * LANES}); HOLD(w{v});" for v in range(vectors)]
    for p in range(positions):
        products = " ".join(f"a{p}_{v} += pixel * w{v};" for v in range(vectors))
        steps.append(f"{{ const v8 pixel = all(q[{p * pixel}]); {products} }}")
    stores = [
        f"store(z + {p * conv.padded_outputs + v * LANES}, a{p}_{v});"
        for p in range(positions)
        for v in range(vectors)
    ]
    return c(
        """
        /* $positions positions of row y from column x on, $channels output channels from o on. */
        static inline void ${name}_block_$positions(const float *restrict in, const float *restrict w,
                const float *restrict bias, float *restrict out, int y, int x, int o) {
            $biases
            v8 $sums;
            for (int ky = 0; ky < $kernel_y; ky++) {
                const float *restrict q = in + (y * $stride_y + ky) * $row + x * $pixel;
                const float *restrict k = w + ky * $run * $padded + o;
                for (int j = 0; j < $run; j++, q++, k += $padded) {
                    $steps
                }
            }
            float *z = out + (y * $width + x) * $padded + o;
            $stores
        }
        """,
        name=conv.name, positions=positions, channels=vectors * LANES,
        biases=each("const v8 b$i = load(bias + o + 8 * $i);", range(vectors)),
        sums=", ".join(f"{name} = b{name.split('_')[1]}" for name in sums),
        kernel_y=conv.window.kernel[0], stride_y=conv.window.stride[0], row=conv.source.row, pixel=pixel,
        run=conv.run, padded=conv.padded_outputs, width=conv.positions[1],
        steps="\n".join(steps), stores="\n".join(stores),
    )  # fmt: skip


def _finish(conv: Conv) -> str:
    """Return the function of pooling and ReLU, which notes the positions that pooling selects.

    A maximum of rectified values is the rectified maximum; a position whose maximum is not above
    zero gets no gradient, so which of two equal values is selected matters only above zero: the first.
    """
    (height, width), result = conv.positions, conv.result
    pool_y, pool_x = conv.pool.kernel
    step_y, step_x = conv.pool.stride
    pad_y, pad_x = conv.pool.padding
    channels = conv.padded_outputs
    return c(
        """
        /* Channels are written in vectors: what goes beyond the last channel is overwritten by the
           next position, or is zero as the border is. */
        static void ${name}_finish(const float *restrict z, float *restrict out, int32_t *restrict kept) {
            for (int py = 0; py < $out_height; py++)
                for (int px = 0; px < $out_width; px++)
                    for (int o = 0; o < $channels; o += 8) {
                        const int y0 = py * $step_y - $pad_y, x0 = px * $step_x - $pad_x;
                        v8 best = all(-INFINITY);
                        i8 at = all_i(0);
                        for (int y = $first_y; y < $last_y; y++)
                            for (int x = $first_x; x < $last_x; x++) {
                                const v8 here = load(z + (y * $width + x) * $channels + o);
                                const i8 better = ~(here <= best);
                                best = choose(better, here, best);
                                at = choose_i(better, all_i(y * $down + x * $right), at);
                            }
                        $relu
                        store(out + $origin + py * $row + px * $result_channels + o, best);
                        $note
                    }
        }
        """,
        name=conv.name, out_height=result.height, out_width=result.width, channels=channels,
        step_y=step_y, step_x=step_x, pad_y=pad_y, pad_x=pad_x, width=width,
        first_y="(y0 < 0 ? 0 : y0)" if pad_y else "y0",
        first_x="(x0 < 0 ? 0 : x0)" if pad_x else "x0",
        last_y=f"(y0 + {pool_y} > {height} ? {height} : y0 + {pool_y})" if pad_y else f"y0 + {pool_y}",
        last_x=f"(x0 + {pool_x} > {width} ? {width} : x0 + {pool_x})" if pad_x else f"x0 + {pool_x}",
        down=conv.window.stride[0] * conv.source.row, right=conv.window.stride[1] * conv.source.channels,
        relu="best = choose(best < all(0), all(0), best);" if conv.relu else "",
        origin=result.origin, row=result.row, result_channels=result.channels,
        note=f"store_i(kept + (py * {result.width} + px) * {channels} + o, at);"
        if conv.pooled else "(void)at;",
    )  # fmt: skip


def back(conv: Conv) -> str:
    """Return the functions that add an image's gradients: of weights, biases and input."""
    vectors = conv.channel_floats // LANES
    most = REGISTERS - 4
    parts = -(-vectors // most)
    cuts = [(part * vectors // parts, (part + 1) * vectors // parts) for part in range(parts)]
    unroll = max(1, min(4, LANES // (cuts[0][1] - cuts[0][0] or 1)))
    result, name = conv.result, conv.name
    at = (
        f"kept[(py * {result.width} + px) * {conv.padded_outputs} + o]"
        if conv.pooled
        else f"py * {conv.window.stride[0] * conv.source.row} + px * {conv.window.stride[1] * conv.source.channels}"
    )
    own = result.origin
    calls = [f"{name}_weights_{a}(in, offset, value, count, dw + o * {vectors * LANES});"
             for a, _ in cuts]  # fmt: skip
    if not conv.first:
        calls += [f"{name}_input_{a}(din, offset, value, count, w + o * {vectors * LANES});"
                  for a, _ in cuts]  # fmt: skip
    functions = [_weights_part(conv, a, b, unroll) for a, b in cuts]
    if not conv.first:
        functions += [_input_part(conv, a, b) for a, b in cuts]
    return "\n\n".join(functions) + "\n\n" + c(
        """
        static void ${name}_back(const float *in, const float *out, const float *dout,
                const int32_t *kept, const float *w, float *din, float *dw, float *db) {
            _Alignas(64) int32_t offset[$most];
            _Alignas(64) float value[$most];
            for (int o = 0; o < $outputs; o++) {
                int count = 0;
                float sum = 0;
                for (int py = 0; py < $height; py++)
                    for (int px = 0; px < $width; px++) {
                        const int here = $own + py * $row + px * $channels + o;
                        const float g = $gradient;
                        offset[count] = $at;  /* written always, counted where it is not zero */
                        value[count] = g;
                        count += g != 0;
                        sum += g;
                    }
                db[o] += sum;
                $fill
                $calls
            }
        }
        """,
        name=name, most=result.height * result.width + 4, outputs=conv.outputs, own=own,
        height=result.height, width=result.width, row=result.row, channels=result.channels, at=at,
        gradient="out[here] > 0 ? dout[here] : 0" if conv.relu else "dout[here]",
        fill=f"for (; count % {unroll}; count++) offset[count] = 0, value[count] = 0;"
        if unroll > 1 else "",
        calls="\n".join(calls),
    )  # fmt: skip


def _place(conv: Conv, vector: int) -> int:
    """Return where a vector of a channel's weights meets the input, from the window's corner."""
    per_row = conv.row_floats // LANES
    return vector // per_row * conv.source.row + vector % per_row * LANES


def _weights_part(conv: Conv, first: int, last: int, unroll: int) -> str:
    """Return the function that sums vectors first to last of one channel's weight gradient."""
    vectors = range(first, last)
    steps = [
        f"{{ const float *q = in + offset[e + {u}]; const v8 g = all(value[e + {u}]);\n  "
        + "\n  ".join(f"a{v}_{u} += g * load(q + {_place(conv, v)});" for v in vectors)
        + " }"
        for u in range(unroll)
    ]
    per_row = conv.row_floats // LANES
    beyond = conv.run % LANES  # lanes of a row's last vector that are weights; 0: all
    mask = ", ".join("-1" if lane < beyond else "0" for lane in range(LANES))
    stores: list[str] = []
    for v in vectors:
        total = " + ".join(f"a{v}_{u}" for u in range(unroll))
        if beyond and v % per_row == per_row - 1:
            total = f"(v8)((i8)({total}) & inside)"
        stores.append(f"store(dw + {v * LANES}, load(dw + {v * LANES}) + {total});")
    return c(
        """
        static void ${name}_weights_$first(const float *restrict in, const int32_t *restrict offset,
                const float *restrict value, int count, float *restrict dw) {
            v8 $sums;
            for (int e = 0; e < count; e += $unroll) {
                $steps
            }
            const i8 inside = {$mask};  /* beyond a row's end stands the next pixel: no weight */
            (void)inside;
            $stores
        }
        """,
        name=conv.name, first=first, unroll=unroll, mask=mask,
        sums=", ".join(f"a{v}_{u} = all(0)" for v in vectors for u in range(unroll)),
        steps="\n".join(steps), stores="\n".join(stores),
    )  # fmt: skip


def _input_part(conv: Conv, first: int, last: int) -> str:
    """Return the function that adds vectors first to last of one channel to the input's gradient."""
    vectors = range(first, last)
    return c(
        """
        static void ${name}_input_$first(float *restrict din, const int32_t *restrict offset,
                const float *restrict value, int count, const float *restrict w) {
            const v8 $weights;
            for (int e = 0; e < count; e++) {
                float *q = din + offset[e];
                const v8 g = all(value[e]);
                $steps
            }
        }
        """,
        name=conv.name, first=first,
        weights=", ".join(f"w{v} = load(w + {v * LANES})" for v in vectors),
        steps="\n".join(
            f"store(q + {_place(conv, v)}, load(q + {_place(conv, v)}) + g * w{v});"
            for v in vectors
        ),
    )  # fmt: skip


def update(conv: Conv, slots: int) -> str:
    """Return the functions that update some channels' weights and lay them out for the forward."""
    state = "".join(f", s{i} + i" for i in range(slots))
    arguments = "".join(f", float *s{i}" for i in range(slots))
    return c(
        """
        /* Weights by (input row, column, channel), output channels in lanes. */
        static void ${name}_lay_out(const float *restrict w, float *restrict laid, int o0, int o1) {
            for (int o = o0; o < o1; o++)
                for (int ky = 0; ky < $kernel_y; ky++)
                    for (int j = 0; j < $run; j++)
                        laid[(ky * $run + j) * $padded + o] = w[o * $channel + ky * $row + j];
        }

        /* The groups' gradients are added in the groups' order, so that bits repeat. */
        static void ${name}_update(const Rates *r, float *w$arguments, const float *gradient,
                float *laid, int o0, int o1) {
            for (int i = o0 * $channel; i < o1 * $channel; i += 8) {
                v8 g = load(gradient + i);
                for (int k = 1; k < GROUPS; k++) g += load(gradient + k * $floats + i);
                update(r, w + i$state, g);
            }
            ${name}_lay_out(w, laid, o0, o1);
            if ($biased && o0 == 0 && o1 > 0)  /* one thread: shares may be empty */
                for (int i = $biases; i < $biases + $padded; i += 8) {
                    v8 g = load(gradient + i);
                    for (int k = 1; k < GROUPS; k++) g += load(gradient + k * $floats + i);
                    update(r, w + i$state, g);
                }
        }
        """,
        name=conv.name, kernel_y=conv.window.kernel[0], run=conv.run, padded=conv.padded_outputs,
        channel=conv.channel_floats, row=conv.row_floats, state=state, arguments=arguments,
        biases=conv.bias_start, floats=conv.weight_floats,
        biased=int(conv.bias),
    )  # fmt: skip
