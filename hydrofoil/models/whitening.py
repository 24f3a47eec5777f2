"""The layer whose filters come from the training images: a whitening convolution.

David Page, "How to train your ResNet 8: bag of tricks" (2019); its filters with their negatives,
and the constants, after Keller Jordan's airbench (2024, https://arxiv.org/abs/2404.00498).

Axes: N images, C channels, H rows, W columns, P patches, D numbers of a patch.
"""

import torch
from torch import Tensor, nn

from hydrofoil.data.pictures import Pictures
from hydrofoil.models.classifier import Classifier

SIDE = 2  # pixels of a patch
EPS = 5e-4  # added to the eigenvalues (airbench)
MOST_IMAGES = 5000  # airbench's
MOST_PATCHES = 5_000_000  # as many as those have at 32 pixels: larger images need fewer
BATCH = 250  # images at a time: their patches take 30 MB


class WhiteningConv2d(nn.Conv2d):
    """A 2×2 convolution that decorrelates the pixels of a patch; only its bias is trained.

    Its filters are the eigenvectors of the covariance of the training images' patches, each
    divided by √(eigenvalue + eps), and their negatives. Until `whiten` has set them they are
    torch's default, and `whitened`, which the state dict holds, is false.

    Args:
        channels: Of the images; 8 times as many come out.
    """

    whitened: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels * SIDE**2, SIDE)
        weight = self.weight.detach()
        del self.weight  # as a buffer it is saved, and nothing trains or decays it
        self.register_buffer("weight", weight)
        self.register_buffer("whitened", torch.tensor(False))

    def whiten(self, covariance_DD: Tensor) -> None:
        """Set the filters from the covariance of patches, in float64."""
        values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
        filters_DD = (vectors_DD / (values_D + EPS).sqrt()).T.flip(0)  # the largest first
        # An eigenvector's sign is arbitrary: its largest number is positive on every machine.
        largest_D = filters_DD.gather(1, filters_DD.abs().argmax(1, keepdim=True))
        filters_DD = filters_DD * largest_D.sign()
        self.weight.copy_(torch.cat([filters_DD, -filters_DD]).view_as(self.weight))
        self.whitened.fill_(True)


def initialize_from_images(model: Classifier, pictures: Pictures, index_N: Tensor) -> None:
    """Set what a network derives from its training images, unless it has been set before.

    A function of the network and these images alone: it draws nothing, and sees no other images.
    Weights that were loaded, or that a checkpoint restored, are left as they are.

    Args:
        model: Changed in place.
        pictures: The set.
        index_N: Its training images; if there are many, some in even distances are used.
    """
    layers = [layer for layer in model.network.modules() if isinstance(layer, WhiteningConv2d)]
    layers = [layer for layer in layers if not bool(layer.whitened)]
    if not layers or not len(index_N):
        return
    height, width = pictures.shape[1:]
    most = min(MOST_IMAGES, max(1, MOST_PATCHES // (height * width)), len(index_N))
    places_N = torch.arange(most) * len(index_N) // most
    index_N = index_N.cpu().sort().values[places_N].to(pictures.pictures_NCHW.device)
    covariance_DD = patch_covariance(model, pictures, index_N)
    for layer in layers:
        layer.whiten(covariance_DD)


def patch_covariance(model: Classifier, pictures: Pictures, index_N: Tensor) -> Tensor:
    """Return the covariance of all 2×2 patches of normalized images, in float64 on the CPU."""
    total, sums_D, products_DD = 0, torch.zeros(()), torch.zeros(())
    for part_N in index_N.split(BATCH):
        images_NCHW = model.normalize(pictures.pictures_NCHW[part_N].to(model.device)).cpu()
        patches_NDP = nn.functional.unfold(images_NCHW, SIDE)
        patches_PD = patches_NDP.transpose(1, 2).flatten(0, 1).double()
        total += len(patches_PD)
        sums_D = sums_D + patches_PD.sum(0)
        products_DD = products_DD + patches_PD.T @ patches_PD
    mean_D = sums_D / total
    return products_DD / total - mean_D[:, None] * mean_D
