"""C of both ends of the network: reading an image, and the loss."""

from hydrofoil.native.layout import Buffer, padded
from hydrofoil.native.text import c


def gather(pictures: Buffer) -> str:
    """Return the function that normalizes an image; the table holds each channel's 256 values."""
    source = pictures
    return c(
        """
        /* Channels × rows × columns of bytes become rows × columns × channels of normalized floats. */
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


def loss(logits: Buffer) -> str:
    """Return the function of cross-entropy: an image's loss, its prediction and its gradient."""
    return c(
        """
        /* Cross-entropy of one image of a batch of count, against 1 - smoothing on the label and
           smoothing spread over all classes; *right is 1 if the prediction is the label. */
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
