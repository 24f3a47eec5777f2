"""The one way in which the generator refuses a training."""


class Unsupported(Exception):  # noqa: N818 - a reason to use another executor, not a failure
    """There is no native code for this training, or no way to build it here.

    The message is one line that names the layer, the option or the missing tool. Whoever chooses an
    executor shows it and uses the next one.
    """
