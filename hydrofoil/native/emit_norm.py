"""C for batch normalisation (Ioffe and Szegedy 2015).

A thread takes some channels of the whole batch: sums over pictures are then taken in the pictures'
order, by whatever number of threads. The sums are in float64, as squares of large activations would
lose the variance in float32.
"""

from hydrofoil.native.plan import Norm, padded
from hydrofoil.native.text import c


def weight_floats(norm: Norm) -> int:
    """Return the floats of weights, biases, running means and running variances, in that order."""
    return 4 * padded(norm.channels)


def forward(norm: Norm) -> str:
    """Return the functions that normalise channels c0 to c1: of a batch, or by running means."""
    count = "count" if norm.area == 1 else f"count * {norm.area}"
    return c(
        """
        /* Local arrays are aligned explicitly: where AVX-512 loops have a 32-byte remainder loop, gcc 12
           assumes an alignment of 32 bytes there that it does not give them. */
        static void ${name}_forward(float *w, const float *restrict source, float *restrict result,
                float *restrict means, float *restrict rates, int count, int c0, int c1) {
            _Alignas(64) double sum[$channels] = {0};
            _Alignas(64) double squares[$channels] = {0};
            _Alignas(64) float shift[$channels];
            if (c1 > $channels) c1 = $channels;  /* shares are whole vectors */
            for (int n = 0; n < count; n++)
                $in_positions {
                    const float *restrict in = source + $in_at;
                    for (int k = c0; k < c1; k++) {
                        sum[k] += in[k];
                        squares[k] += (double)in[k] * in[k];
                    }
                }
            const double all = $count;
            for (int k = c0; k < c1; k++) {
                const double mean = sum[k] / all, centred = squares[k] / all - mean * mean;
                const double variance = centred > 0 ? centred : 0;
                means[k] = (float)mean;
                rates[k] = (float)(1 / sqrt(variance + $eps));
                shift[k] = $bias;
                float *running = w + $running + k;
                running[0] = (float)($keep * running[0] + $momentum * mean);
                running[$padded] = (float)($keep * running[$padded] + $momentum * variance * all / (all - 1));
            }
            for (int n = 0; n < count; n++)
                $in_positions {
                    const float *restrict in = source + $in_at;
                    float *restrict out = result + $out_at;
                    for (int k = c0; k < c1; k++)
                        out[k] = (in[k] - means[k]) * rates[k] * $gain + shift[k];
                }
        }

        /* In evaluation: picture by picture. */
        static void ${name}_pass(const float *restrict w, const float *restrict source,
                float *restrict result) {
            const float *restrict mean = w + $running, *restrict variance = mean + $padded;
            const int n = 0;
            $in_positions {
                const float *restrict in = source + $in_at;
                float *restrict out = result + $out_at;
                for (int k = 0; k < $channels; k++)
                    out[k] = (in[k] - mean[k]) / sqrtf(variance[k] + (float)$eps) * $gain + $bias;
            }
        }
        """,
        name=norm.name, channels=norm.channels, padded=padded(norm.channels), count=count,
        in_positions=_positions(norm), in_at=_at(norm, "source"), out_at=_at(norm, "result"),
        eps=repr(norm.layer.eps), momentum=repr(norm.layer.momentum),
        keep=repr(1 - (norm.layer.momentum or 0)), running=2 * padded(norm.channels),
        gain=_gain(norm), bias=f"w[{padded(norm.channels)} + k]" if norm.layer.affine else "0",
    )  # fmt: skip


def back(norm: Norm, slots: int) -> str:
    """Return the function that takes the gradient of channels c0 to c1 back and updates them."""
    arguments = "".join(f", float *s{i}" for i in range(slots))
    state = "".join(f", s{i} + k" for i in range(slots))
    later = "".join(f", s{i} + {padded(norm.channels)} + k" for i in range(slots))
    update = c(
        """
        for (int k = c0; k < c1; k += 8) {
            update(r, w + k$state, load(dgain + k));
            update(r, w + $padded + k$later, load(dbias + k));
        }
        """,
        padded=padded(norm.channels), state=state, later=later,
    )  # fmt: skip
    source = c(
        """
        for (int n = 0; n < count; n++)
            $positions {
                const float *restrict in = source + $in_at, *restrict dout = dresult + $out_at;
                float *restrict din = dsource + $in_at;
                for (int k = c0; k < last; k++)
                    din[k] = $gain * rates[k] * (dout[k] - dbias[k] / all
                        - (in[k] - means[k]) * rates[k] * (dgain[k] / all));
            }
        """,
        positions=_positions(norm), in_at=_at(norm, "source"), out_at=_at(norm, "result"),
        gain=_gain(norm),
    )  # fmt: skip
    return c(
        """
        /* c1 may go beyond the last channel, to whole vectors. */
        static void ${name}_back(const Rates *r, float *w$arguments, const float *restrict source,
                const float *restrict dresult, float *restrict dsource, const float *restrict means,
                const float *restrict rates, int count, int c0, int c1) {
            _Alignas(64) double sums[$padded] = {0};
            _Alignas(64) double products[$padded] = {0};
            _Alignas(64) float dbias[$padded];
            _Alignas(64) float dgain[$padded];
            const int last = c1 < $channels ? c1 : $channels;
            for (int n = 0; n < count; n++)
                $positions {
                    const float *restrict in = source + $in_at, *restrict dout = dresult + $out_at;
                    for (int k = c0; k < last; k++) {
                        sums[k] += dout[k];
                        products[k] += (double)dout[k] * ((in[k] - means[k]) * rates[k]);
                    }
                }
            for (int k = c0; k < c1; k++) dbias[k] = (float)sums[k], dgain[k] = (float)products[k];
            const float all = (float)count * $area;
            (void)all;
            $source
            $update
        }
        """,
        name=norm.name, arguments=arguments, padded=padded(norm.channels), area=norm.area,
        channels=norm.channels, positions=_positions(norm), in_at=_at(norm, "source"),
        out_at=_at(norm, "result"), source="" if norm.first else source,
        update=update if norm.layer.affine else "",
    )  # fmt: skip


def _gain(norm: Norm) -> str:
    return "w[k]" if norm.layer.affine else "1"


def _positions(norm: Norm) -> str:
    """Return the loops over a picture's positions."""
    if norm.flat:
        return ""
    return (
        f"for (int y = 0; y < {norm.source.height}; y++) "
        f"for (int x = 0; x < {norm.source.width}; x++)"
    )


def _at(norm: Norm, which: str) -> str:
    """Return where the channels of picture n's position y, x begin."""
    buffer = norm.source if which == "source" else norm.result
    at = f"n * {buffer.stride} + {buffer.origin}"
    return at if norm.flat else f"{at} + y * {buffer.row} + x * {buffer.channels}"
