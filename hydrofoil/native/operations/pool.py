"""Max- or average-pooling that no convolution was fused with."""

from dataclasses import dataclass
from typing import cast

from torch import nn

from hydrofoil.native.layout import Buffer
from hydrofoil.native.operations.base import Operation, Place, Site
from hydrofoil.native.operations.window import Window, read_window
from hydrofoil.native.text import c


@dataclass(frozen=True, kw_only=True)
class Pool(Operation):
    """Pooling.

    Args:
        kind: max or avg.
        window: Kernel, stride and padding.
    """

    kind: str
    window: Window

    def memory(self) -> list[str]:
        """Return the places that max-pooling keeps."""
        return [f"int32_t {self.name}_kept[BATCH * {self.result.features}];"]

    @property
    def _kept(self) -> str:
        return f"net->{self.name}_kept + n * {self.result.features}"

    def functions(self, slots: int) -> list[str]:
        """Return the functions of forward and backward."""
        return [_functions(self)]

    def forward(self, place: Place, training: bool) -> list[str]:
        """Return the call for image n."""
        return [f"{self.name}_forward({place.source}, {place.result}, {self._kept});"]

    def back(self, place: Place) -> list[str]:
        """Return the call for image n."""
        return [f"{self.name}_back({self._kept}, {place.d_result}, {place.d_source});"]


def make(site: Site, layer: nn.Module) -> Pool:
    """Return pooling's operation."""
    window = read_window(site, cast("nn.MaxPool2d | nn.AvgPool2d", layer))
    height, width = window.positions(site.source)
    return Pool(
        layer=site.layer,
        name=site.name,
        source=site.source,
        result=Buffer(f"{site.name}_out", site.source.channels, height, width),
        kind="max" if isinstance(layer, nn.MaxPool2d) else "avg",
        window=window,
    )


def _functions(operation: Pool) -> str:
    """Return the functions of max- or average-pooling that no convolution was fused with."""
    share = f"(1.0f / {operation.window.kernel[0] * operation.window.kernel[1]})"
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
        row=result.row, step_y=operation.window.stride[0], step_x=operation.window.stride[1],
        pad_y=operation.window.padding[0], pad_x=operation.window.padding[1], body=body,
    )  # fmt: skip


def _visit(operation: Pool, body: str) -> str:
    """Return the loops over one window's places inside the image: j is the source's place."""
    source = operation.source
    return c(
        """
        for (int y = y0 < 0 ? 0 : y0; y < y0 + $kernel_y && y < $height; y++)
            for (int x = x0 < 0 ? 0 : x0; x < x0 + $kernel_x && x < $width; x++) {
                const int j = $origin + y * $row + x * $channels + ch;
                $body
            }
        """,
        kernel_y=operation.window.kernel[0], kernel_x=operation.window.kernel[1], height=source.height,
        width=source.width, origin=source.origin, row=source.row, channels=source.channels,
        body=body,
    )  # fmt: skip
