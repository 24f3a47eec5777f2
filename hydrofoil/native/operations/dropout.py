"""Dropout: the masks are those of `hydrofoil.models.layers.Dropout`."""

from dataclasses import dataclass, replace
from typing import cast

from torch import nn

from hydrofoil.models.layers import Dropout
from hydrofoil.native.operations.base import Operation, Place, Site
from hydrofoil.native.text import c


@dataclass(frozen=True, kw_only=True)
class Drop(Operation):
    """Dropout.

    Args:
        number: Which of the network's dropout layers it is; the keys of its masks count so.
        p: Probability of setting an activation to zero.
    """

    number: int
    p: float

    @property
    def by_columns(self) -> bool:
        """Every activation can be computed by itself."""
        return True

    @property
    def draws(self) -> int:
        """One per step."""
        return 1

    def memory(self) -> list[str]:
        """Return the factor of each activation, which backward needs again."""
        return [f"float {self.name}_factor[BATCH * {self.source.stride}];"]

    @property
    def _factor(self) -> str:
        return f"net->{self.name}_factor + n * {self.source.stride}"

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward in training and evaluation, and backward."""
        return [_functions(self)]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the call for image n."""
        columns = place.columns(self.source)
        if not training:
            return [f"{self.name}_pass({place.source}, {place.result}, {columns});"]
        key = f"keys[{2 * self.number}], keys[{2 * self.number + 1}]"
        return [
            f"{self.name}_forward({place.source}, {place.result}, {self._factor}, n, {key}, "
            f"{columns});"
        ]

    def back(self, place: Place) -> list[str]:
        """Return the call for image n."""
        columns = place.columns(self.source)
        return [f"{self.name}_back({self._factor}, {place.d_result}, {place.d_source}, {columns});"]


def make(site: Site, layer: nn.Module) -> Drop:
    """Return dropout's operation."""
    result = replace(site.source, name=f"{site.name}_out")
    return Drop(
        layer=site.layer, name=site.name, source=site.source, result=result,
        number=site.dropouts, p=cast("Dropout", layer).p,
    )  # fmt: skip


def _functions(operation: Drop) -> str:
    """Return dropout's functions; the factor of each activation is stored for the backward pass."""
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
        run=source.run, element=element, threshold=threshold, scale=scale,
    )  # fmt: skip
