"""C for what has no weights: ReLU, tanh, sigmoid, dropout, pooling by itself, cross-entropy.

Every function takes one picture. Elements i0 to i1 of a row of activations are computed, so that
threads can share a long vector.
"""

from hydrofoil.native.plan import Buffer, Drop, Plan, Pointwise, Pool, padded
from hydrofoil.native.text import c

FORWARD = {
    "relu": "in[i] < 0 ? 0 : in[i]",
    "tanh": "tanhf(in[i])",
    "sigmoid": "1 / (1 + expf(-in[i]))",
}
BACKWARD = {
    "relu": "where_positive(out[i], dout[i])",
    "tanh": "dout[i] * (1 - out[i] * out[i])",
    "sigmoid": "dout[i] * (1 - out[i]) * out[i]",
}


def run_length(buffer: Buffer) -> int:
    """Return the activations of one row of a buffer: they lie next to each other."""
    return buffer.width * buffer.channels


def pointwise(operation: Pointwise) -> str:
    """Return the functions of ReLU, tanh or sigmoid, forward and backward."""
    source, result = operation.source, operation.result
    return c(
        """
        static void ${name}_forward(const float *restrict source, float *restrict result, int i0, int i1) {
            for (int y = 0; y < $height; y++) {
                const float *restrict in = source + $in_origin + y * $in_row;
                float *restrict out = result + $out_origin + y * $out_row;
                for (int i = i0; i < i1; i++) out[i] = $forward;
            }
        }

        static void ${name}_back(const float *restrict result, const float *restrict dresult,
                float *restrict dsource, int i0, int i1) {
            for (int y = 0; y < $height; y++) {
                const float *restrict out = result + $out_origin + y * $out_row;
                const float *restrict dout = dresult + $out_origin + y * $out_row;
                float *restrict din = dsource + $in_origin + y * $in_row;
                for (int i = i0; i < i1; i++) din[i] = $backward;
            }
        }
        """,
        name=operation.name, height=source.height, in_origin=source.origin, in_row=source.row,
        out_origin=result.origin, out_row=result.row, forward=FORWARD[operation.kind],
        backward=BACKWARD[operation.kind],
    )  # fmt: skip


def dropout(operation: Drop) -> str:
    """Return dropout's functions; the factor of each activation is kept for the way back."""
    source, result = operation.source, operation.result
    threshold = round(operation.p * (1 << 24))
    channels, area = source.channels, source.height * source.width
    scale = repr(1 / (1 - operation.p)) if operation.p < 1 else "0"
    element = "first + i" if area == 1 else f"first + ch * {area} + y * {source.width} + x"
    loop = (
        "for (int i = i0; i < i1; i++) {"
        if area == 1
        else f"for (int x = 0; x < {source.width}; x++) for (int ch = 0; ch < {channels}; ch++) {{\n"
        f"const int i = x * {channels} + ch;"
    )
    return c(
        """
        /* An activation's random number is counted in torch's order: picture, channel, row, column. */
        static void ${name}_forward(const float *restrict source, float *restrict result,
                float *restrict factor, int n, uint32_t low, uint32_t high, int i0, int i1) {
            const uint32_t first = (uint32_t)n * $features;
            (void)i0, (void)i1;
            for (int y = 0; y < $height; y++) {
                const float *restrict in = source + $in_origin + y * $in_row;
                float *restrict out = result + $out_origin + y * $out_row;
                float *restrict kept = factor + y * $run;
                $loop
                    kept[i] = random_bits(low, high, $element) >= $threshold ? (float)$scale : 0;
                    out[i] = in[i] * kept[i];
                }
            }
        }

        /* In evaluation nothing is dropped. */
        static void ${name}_pass(const float *restrict source, float *restrict result, int i0, int i1) {
            for (int y = 0; y < $height; y++) {
                const float *restrict in = source + $in_origin + y * $in_row;
                float *restrict out = result + $out_origin + y * $out_row;
                for (int i = i0; i < i1; i++) out[i] = in[i];
            }
        }

        static void ${name}_back(const float *restrict factor, const float *restrict dresult,
                float *restrict dsource, int i0, int i1) {
            for (int y = 0; y < $height; y++) {
                const float *restrict kept = factor + y * $run;
                const float *restrict dout = dresult + $out_origin + y * $out_row;
                float *restrict din = dsource + $in_origin + y * $in_row;
                for (int i = i0; i < i1; i++) din[i] = dout[i] * kept[i];
            }
        }
        """,
        name=operation.name, features=source.features, height=source.height, loop=loop,
        in_origin=source.origin, in_row=source.row, out_origin=result.origin, out_row=result.row,
        run=run_length(source), element=element, threshold=threshold, scale=scale,
    )  # fmt: skip


def pool(operation: Pool) -> str:
    """Return the functions of max- or average-pooling that no convolution took in."""
    share = f"(1.0f / {operation.kernel[0] * operation.kernel[1]})"
    if operation.kind == "max":
        visit = _visit(operation, "if (!(in[j] <= best)) best = in[j], at = j;")
        forward = f"float best = -INFINITY; int at = 0;\n{visit}\nout[i] = best; kept[k] = at;"
        backward = "din[kept[k]] += dout[i];"
    else:
        visit = _visit(operation, "sum += in[j];")
        forward = f"float sum = 0;\n{visit}\nout[i] = sum * {share};"
        backward = f"const float g = dout[i] * {share};\n{_visit(operation, 'din[j] += g;')}"
    return c(
        """
        static void ${name}_forward(const float *restrict in, float *restrict out, int32_t *restrict kept) {
            (void)kept;
            $forward
        }

        static void ${name}_back(const int32_t *restrict kept, const float *restrict dout,
                float *restrict din) {
            (void)kept;
            memset(din, 0, $bytes);
            $backward
        }
        """,
        name=operation.name, bytes=operation.source.stride * 4,
        forward=_windows(operation, forward), backward=_windows(operation, backward),
    )  # fmt: skip


def _windows(operation: Pool, body: str) -> str:
    """Return the loops over windows: i is the result's place, k its number."""
    result = operation.result
    return c(
        """
        for (int py = 0; py < $height; py++)
            for (int px = 0; px < $width; px++)
                for (int ch = 0; ch < $channels; ch++) {
                    const int y0 = py * $step_y - $pad_y, x0 = px * $step_x - $pad_x;
                    const int i = $origin + py * $row + px * $channels + ch;
                    const int k = (py * $width + px) * $channels + ch;
                    (void)y0, (void)x0, (void)k;
                    $body
                }
        """,
        height=result.height, width=result.width, channels=result.channels, origin=result.origin,
        row=result.row, step_y=operation.stride[0], step_x=operation.stride[1],
        pad_y=operation.padding[0], pad_x=operation.padding[1], body=body,
    )  # fmt: skip


def _visit(operation: Pool, body: str) -> str:
    """Return the loops over one window's places inside the picture: j is the source's place."""
    source = operation.source
    return c(
        """
        for (int y = y0 < 0 ? 0 : y0; y < y0 + $kernel_y && y < $height; y++)
            for (int x = x0 < 0 ? 0 : x0; x < x0 + $kernel_x && x < $width; x++) {
                const int j = $origin + y * $row + x * $channels + ch;
                $body
            }
        """,
        kernel_y=operation.kernel[0], kernel_x=operation.kernel[1], height=source.height,
        width=source.width, origin=source.origin, row=source.row, channels=source.channels,
        body=body,
    )  # fmt: skip


def gather(plan: Plan) -> str:
    """Return the function that normalises a picture; the table holds each channel's 256 values."""
    source = plan.pictures
    return c(
        """
        /* Channels × rows × columns of bytes become rows × columns × channels of normalised floats. */
        static void gather(const uint8_t *restrict picture, const float *restrict table, float *restrict x) {
            for (int row = 0; row < $height; row++)
                for (int column = 0; column < $width; column++)
                    for (int ch = 0; ch < $channels; ch++)
                        x[$origin + row * $row + column * $channels + ch] =
                            table[ch * 256 + picture[(ch * $height + row) * $width + column]];
        }
        """,
        height=source.height, width=source.width, channels=source.channels, origin=source.origin,
        row=source.row,
    )  # fmt: skip


def loss(plan: Plan) -> str:
    """Return the function of cross-entropy: a picture's loss, its answer and its gradient."""
    logits = plan.logits
    return c(
        """
        /* Cross-entropy of one picture of a batch of count, against 1 - smoothing on the label and
           smoothing spread over all classes; *right tells whether the answer is the label. */
        static double cross_entropy(const float *restrict y, float *restrict dy, int64_t label,
                int count, float smoothing, int32_t *right) {
            int answer = 0;
            for (int k = 1; k < $classes; k++) if (y[k] > y[answer]) answer = k;
            const float most = y[answer];
            float sum = 0, all = 0;
            for (int k = 0; k < $classes; k++) sum += dy[k] = expf(y[k] - most), all += y[k] - most;
            const float scale = 1 / (sum * (float)count), share = smoothing / $classes;
            for (int k = 0; k < $classes; k++) dy[k] = dy[k] * scale - share / (float)count;
            for (int k = $classes; k < $padded; k++) dy[k] = 0;
            dy[label] -= (1 - smoothing) / (float)count;
            *right = answer == label;
            return logf(sum) - (1 - smoothing) * (y[label] - most) - share * all;
        }
        """,
        classes=logits.channels, padded=padded(logits.channels),
    )  # fmt: skip
