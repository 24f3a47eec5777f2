"""ReLU, tanh or sigmoid by itself."""

from dataclasses import dataclass, replace

from torch import nn

from hydrofoil.native.operations.base import Operation, Place, Site
from hydrofoil.native.text import c

KINDS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
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


@dataclass(frozen=True, kw_only=True)
class Pointwise(Operation):
    """A function of each activation by itself.

    Args:
        kind: relu, tanh or sigmoid.
    """

    kind: str

    @property
    def by_columns(self) -> bool:
        """Every activation can be computed by itself."""
        return True

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward and backward."""
        return [_functions(self)]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the call for image n."""
        columns = place.columns(self.source)
        return [f"{self.name}_forward({place.source}, {place.result}, {columns});"]

    def back(self, place: Place) -> list[str]:
        """Return the call for image n."""
        columns = place.columns(self.source)
        return [f"{self.name}_back({place.result}, {place.d_result}, {place.d_source}, {columns});"]


def make(site: Site, layer: nn.Module) -> Pointwise:
    """Return the operation of ReLU, tanh or sigmoid."""
    result = replace(site.source, name=f"{site.name}_out")
    return Pointwise(
        layer=site.layer, name=site.name, source=site.source, result=result, kind=KINDS[type(layer)]
    )


def _functions(operation: Pointwise) -> str:
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
