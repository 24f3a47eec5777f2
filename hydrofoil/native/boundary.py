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


def loss(logits: Buffer, weighted: bool) -> str:
    """Return the function of cross-entropy: an image's loss, its prediction and its gradient.

    Class weights change the gradient alone: the loss that is summed counts every image alike.
    """
    if weighted:
        return _weighted_loss(logits)
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


def _weighted_loss(logits: Buffer) -> str:
    return c(
        """
        /* The sum of the weights of a batch's labels, in the order of the batch. */
        static float batch_weight(const float *weights, const int64_t *labels, const int64_t *index,
                int count) {
            double sum = 0;
            for (int n = 0; n < count; n++) sum += weights[labels[index[n]]];
            return (float)sum;
        }

        /* Cross-entropy of one image, against 1 - smoothing on the label and smoothing spread over
           all classes; *right is 1 if the prediction is the label. The gradient is that of torch's
           weighted mean: each class's term times its weight, over the weight of the batch. */
        static double cross_entropy(const float *restrict y, float *restrict dy, int64_t label,
                const float *restrict weights, float weight, float smoothing, int32_t *right) {
            int answer = 0;
            for (int k = 1; k < $classes; k++) if (y[k] > y[answer]) answer = k;
            const float most = y[answer];
            float sum = 0, all = 0, spread = 0;
            for (int k = 0; k < $classes; k++) sum += dy[k] = expf(y[k] - most), all += y[k] - most;
            for (int k = 0; k < $classes; k++) spread += weights[k];
            const float share = smoothing / $classes, own = (1 - smoothing) * weights[label];
            const float scale = (own + share * spread) / (sum * weight);
            for (int k = 0; k < $classes; k++)
                dy[k] = dy[k] * scale - share * weights[k] / weight;
            for (int k = $classes; k < $padded; k++) dy[k] = 0;
            dy[label] -= own / weight;
            *right = answer == label;
            return logf(sum) - (1 - smoothing) * (y[label] - most) - share * all;
        }
        """,
        classes=logits.channels, padded=padded(logits.channels),
    )  # fmt: skip
