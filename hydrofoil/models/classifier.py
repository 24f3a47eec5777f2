"""What is trained, tested and shipped: a network with the normalization of its input.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from hydrofoil.errors import HydrofoilError, nearest

if TYPE_CHECKING:
    from hydrofoil.data.fitting import Fit
    from hydrofoil.data.statistics import Statistics
    from hydrofoil.evaluate.novelty import Novelty
    from hydrofoil.recipe.models import Timm


class Classifier(nn.Module):
    """Takes raw uint8 pictures and gives logits; `network` alone holds the parameters.

    Args:
        network: Maps normalized pictures to logits; any module does.
        shape: Channels, height and width of the pictures that it takes.
        classes: The K class names.
        mean: Subtracted from each channel, of pixels scaled to [0, 1]; one number serves all
            channels.
        std: What each channel is divided by after that.

    Raises:
        HydrofoilError: Another number of means or deviations than the pictures have channels.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int],
        classes: Sequence[str],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.classes = tuple(classes)
        for field, given in (("mean", mean), ("std", std)):
            if len(given) not in (1, shape[0]):
                raise HydrofoilError(
                    f"data.{field} has {len(given)} numbers: expected 1 or {shape[0]}, "
                    f"one for each channel of the pictures."
                )
            numbers = list(given) * (shape[0] if len(given) == 1 else 1)
            tensor = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(f"{field}_C11", tensor, persistent=False)
        self._frozen: list[nn.Module] = []
        # What the run of these weights knows of its training images: see run/reference.py.
        self.statistics: Statistics | None = None
        # How image files take the shape; own: the training images were files, made in the same way.
        self.fit: Fit = "crop"
        self.own = False
        self.novelty: Novelty | None = None
        # Whether the network gets its images in torch's channels-last order: a matter of speed.
        self.channels_last = False
        # Whose weights training starts from, unless others are loaded first.
        self.pretrained: Timm | None = None
        # Decided here, on the CPU: asking the tensors in every step would make a GPU wait.
        self._centered = any(mean) or any(number != 1 for number in std)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.mean_C11.device

    def normalize(self, pictures_NCHW: Tensor) -> Tensor:
        """Return float32 pictures as torchvision's ToTensor and Normalize make them.

        They are rounded in the same order.
        """
        if pictures_NCHW.dtype != torch.uint8:
            raise TypeError(f"images: expected torch.uint8, 0 to 255, got {pictures_NCHW.dtype}")
        scaled_NCHW = pictures_NCHW.to(torch.float32).div_(255)
        return scaled_NCHW.sub_(self.mean_C11).div_(self.std_C11) if self._centered else scaled_NCHW

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        """Return logits_NK for uint8 pictures_NCHW.

        Raises:
            HydrofoilError: Batch norm has one image to train on.
        """
        try:
            images_NCHW = self.normalize(pictures_NCHW)
            if self.channels_last:
                images_NCHW = in_channels_last(images_NCHW)
            return self.network(images_NCHW)
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            raise one_image() from error

    def freeze(self, names: Sequence[str]) -> None:
        """Take layers out of training: their parameters, dropout and running statistics.

        Args:
            names: Of layers or parameters, with all that is inside them; a * stands for any text.

        Raises:
            HydrofoilError: Nothing is called so.
        """
        layers = {name: layer for name, layer in self.network.named_modules() if name}
        parameters = dict(self.network.named_parameters())
        for pattern in names:
            inside = f"{pattern}.*"
            found = {
                name
                for name in (*layers, *parameters)
                if fnmatchcase(name, pattern) or fnmatchcase(name, inside)
            }
            if not found:
                raise HydrofoilError(
                    f"train.freeze: the network has no '{pattern}'. {nearest(pattern, layers)}"
                )
            for name in found & parameters.keys():
                parameters[name].requires_grad_(False)
            self._frozen += [layers[name] for name in found & layers.keys()]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every layer; frozen ones stay in evaluation."""
        super().train(mode)
        for layer in self._frozen:
            layer.train(False)
        return self

    def weights_hash(self) -> str:
        """Return the hexadecimal SHA-256 over the network's parameters, their names and shapes."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def load_weights(self, weights: Mapping[str, Tensor], origin: str = "these weights") -> None:
        """Take the network's parameters from a state dict: a tutorial's own, or one of ours.

        Args:
            weights: Name to tensor.
            origin: What to call them in an error.

        Raises:
            HydrofoilError: They are another model's, or for another number of classes or picture
                size.
        """
        own = self.network.state_dict()
        missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        if missing or unknown:
            raise HydrofoilError(
                f"{origin}: of another model: "
                + "; ".join(
                    f"{what} {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
                    for what, names in (("it lacks", missing), ("it has unknown", unknown))
                    if names
                )
                + f".\nThe network here has {', '.join(own)}."
            )
        for name, tensor in weights.items():
            if tensor.shape != own[name].shape:
                found, expected, shape = (
                    "×".join(map(str, axes)) for axes in (tensor.shape, own[name].shape, self.shape)
                )
                raise HydrofoilError(
                    f"{origin}: {name} is {found}, expected {expected}: "
                    "made for images of another shape or another number of classes.\n"
                    f"The model here takes {shape} images of {len(self.classes)} classes."
                )
            if tensor.is_floating_point() != own[name].is_floating_point():
                raise HydrofoilError(
                    f"{origin}: {name} is {tensor.dtype}, expected {own[name].dtype}."
                )
            if not bool(tensor.isfinite().all()):
                raise HydrofoilError(f"{origin}: {name} holds numbers that are not finite.")
        self.network.load_state_dict(weights)
        self.pretrained = None


def in_channels_last(images_NCHW: Tensor) -> Tensor:
    """Return a copy whose channels lie together for each pixel.

    Also of images of one channel: torch's own conversion leaves them, and convolutions, which go by
    the strides, then take them for images in the usual order.
    """
    return torch.empty_like(images_NCHW, memory_format=torch.channels_last).copy_(images_NCHW)


def one_image() -> HydrofoilError:
    """Return the error for batch normalization of a single number per channel in training."""
    return HydrofoilError(
        "a batch of one image: batch norm needs two or more to train on.\n"
        "Choose another train.batch_size: the last batch of an epoch has what is left over."
    )
