"""Batch normalization (Ioffe and Szegedy 2015).

A thread takes some channels of the whole batch: sums over images are then in the order of the
images, with any number of threads. The sums are in float64, since squares of large activations
would lose the variance in float32.

Axes: F weights as the code lays them out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor, nn

from hydrofoil.models.classifier import one_image
from hydrofoil.native.layout import LANES, padded
from hydrofoil.native.operations.base import Operation, Place, Sharing, Site, View
from hydrofoil.native.text import c
from hydrofoil.native.unsupported import Unsupported

MOST_CHANNELS = 16_384  # their sums are on a thread's stack, which may be 512 KB


@dataclass(frozen=True, kw_only=True)
class Norm(Operation):
    """Batch normalization over images and positions, or over images alone after Flatten.

    Args:
        flat: Whether the input has been flattened.
        eps: Added to the variance.
        momentum: Weight of a batch in the running statistics.
        affine: Whether it has weights and biases.
    """

    flat: bool
    eps: float
    momentum: float
    affine: bool

    @property
    def channels(self) -> int:
        """What has a mean and a variance of its own: channels, or features after Flatten."""
        return self.source.features if self.flat else self.source.channels

    @property
    def padded_channels(self) -> int:
        """Floats of the weights, of the biases, and of each running statistic."""
        return padded(self.channels)

    @property
    def area(self) -> int:
        """Positions of an image that share a mean."""
        return self.source.features // self.channels

    @property
    def sharing(self) -> Sharing:
        """By channels in training."""
        return Sharing.CHANNELS

    @property
    def sharing_in_evaluation(self) -> Sharing:
        """By images in evaluation."""
        return Sharing.IMAGES

    @property
    def shared_vectors(self) -> int:
        """Vectors of channels."""
        return self.padded_channels // LANES

    @property
    def weight_floats(self) -> int:
        """Floats of weights, biases, running means and running variances, in that order."""
        return 4 * self.padded_channels

    def memory(self) -> list[str]:
        """Return the batch's means and inverse deviations, which backward needs again."""
        return [f"float {self.name}_{what}[{self.padded_channels}];" for what in ("means", "rates")]

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward in training and evaluation, and backward with update."""
        return [_forward(self), _back(self, slots)]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the call for the thread's channels, or in evaluation for image n."""
        name, weights = self.name, place.weights()
        if not training:
            return [f"{name}_pass({weights}, {place.source}, {place.result});"]
        return [
            f"{name}_forward({weights}, net->{self.source.name}, net->{self.result.name}, "
            f"net->{name}_means, net->{name}_rates, count, {name}_o0, {name}_o1);"
        ]

    def back(self, place: Place) -> list[str]:
        """Return the call for the thread's channels, which also updates them."""
        name, source = self.name, self.source.name
        d_source = "NULL" if self.first else f"net->d_{source}"
        return [
            f"{name}_back(&r, {place.updated}, net->{source}, net->d_{self.result.name}, "
            f"{d_source}, net->{name}_means, net->{name}_rates, count, {name}_o0, {name}_o1);"
        ]

    def views(self, flat_F: Tensor, start: int) -> Iterator[View]:
        """Yield weights, biases and running statistics."""
        rows = flat_F[start : start + self.weight_floats].view(4, -1)[:, : self.channels]
        names = ("weight", "bias", "running_mean", "running_var")
        for number, (name, row) in enumerate(zip(names, rows, strict=True)):
            if number >= 2 or self.affine:
                yield View(name, self._spread(row), trained=number < 2)

    def _spread(self, row_F: Tensor) -> Tensor:
        """Return a row as row, column, channel where each feature has a number of its own."""
        source = self.source
        return row_F.view(source.height, source.width, source.channels) if self.flat else row_F

    def ordered(self, tensor: Tensor) -> Tensor:
        """Return channels, or row, column and channel after Flatten."""
        source = self.source
        if not self.flat:
            return tensor
        return tensor.view(source.channels, source.height, source.width).permute(1, 2, 0)

    def check_batch(self, count: int) -> None:
        """Refuse a variance of one number, as torch does."""
        if self.area * count == 1:
            raise one_image()

    def count_steps(self, layer: nn.Module, steps: int) -> None:
        """Count the batches."""
        norm = cast("nn.BatchNorm2d", layer)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += steps


def make(site: Site, layer: nn.Module) -> Norm:
    """Return batch normalization's operation."""
    norm, kind = cast("nn.BatchNorm1d | nn.BatchNorm2d", layer), type(layer).__name__
    if isinstance(layer, nn.BatchNorm1d) != site.flat:
        raise Unsupported(f"{site.layer}: {kind} {'after' if site.flat else 'before'} Flatten")
    if not norm.track_running_stats or norm.momentum is None:
        raise Unsupported(f"{site.layer}: {kind} without running means of fixed momentum")
    operation = Norm(
        layer=site.layer,
        name=site.name,
        source=site.source,
        result=replace(site.source, name=f"{site.name}_out"),
        flat=site.flat,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
    )
    if operation.channels > MOST_CHANNELS:
        raise Unsupported(f"{site.layer}: {kind} of {operation.channels:,} features")
    return operation


def _forward(norm: Norm) -> str:
    """Return the functions that normalize channels c0 to c1: of a batch, or by running means."""
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
                const double mean = sum[k] / all, centered = squares[k] / all - mean * mean;
                const double variance = centered > 0 ? centered : 0;
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
        name=norm.name, channels=norm.channels, padded=norm.padded_channels, count=count,
        in_positions=_positions(norm), in_at=_at(norm, "source"), out_at=_at(norm, "result"),
        eps=repr(norm.eps), momentum=repr(norm.momentum),
        keep=repr(1 - (norm.momentum)), running=2 * norm.padded_channels,
        gain=_gain(norm), bias=f"w[{norm.padded_channels} + k]" if norm.affine else "0",
    )  # fmt: skip


def _back(norm: Norm, slots: int) -> str:
    """Return the function that takes the gradient of channels c0 to c1 back and updates them."""
    arguments = "".join(f", float *s{i}" for i in range(slots))
    state = "".join(f", s{i} + k" for i in range(slots))
    later = "".join(f", s{i} + {norm.padded_channels} + k" for i in range(slots))
    update = c(
        """
        for (int k = c0; k < c1; k += 8) {
            update(r, w + k$state, load(dgain + k));
            update(r, w + $padded + k$later, load(dbias + k));
        }
        """,
        padded=norm.padded_channels, state=state, later=later,
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
        name=norm.name, arguments=arguments, padded=norm.padded_channels, area=norm.area,
        channels=norm.channels, positions=_positions(norm), in_at=_at(norm, "source"),
        out_at=_at(norm, "result"), source="" if norm.first else source,
        update=update if norm.affine else "",
    )  # fmt: skip


def _gain(norm: Norm) -> str:
    return "w[k]" if norm.affine else "1"


def _positions(norm: Norm) -> str:
    """Return the loops over an image's positions."""
    if norm.flat:
        return ""
    return (
        f"for (int y = 0; y < {norm.source.height}; y++) "
        f"for (int x = 0; x < {norm.source.width}; x++)"
    )


def _at(norm: Norm, which: str) -> str:
    """Return where the channels of image n's position y, x begin."""
    buffer = norm.source if which == "source" else norm.result
    at = f"n * {buffer.stride} + {buffer.origin}"
    return at if norm.flat else f"{at} + y * {buffer.row} + x * {buffer.channels}"
