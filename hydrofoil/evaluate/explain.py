"""Why a model answered so: Grad-CAM, occlusion, the first layer's filters, the feature maps.

Nothing here trains: gradients are taken by what a layer put out, never by a weight.

Axes: N pictures or filters, P places of a patch, C channels, M feature maps, H rows, W columns,
K classes.
"""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hydrofoil.data.convert import as_images
from hydrofoil.data.labels import as_labels
from hydrofoil.errors import HydrofoilError, InputError
from hydrofoil.evaluate.score import BATCH, logits_of
from hydrofoil.models.classifier import Classifier
from hydrofoil.models.given import as_classifier
from hydrofoil.models.layers import evaluating, windows
from hydrofoil.models.trace import Call, leaves, trace
from hydrofoil.wording import by, percent


@dataclass(frozen=True, eq=False)
class GradCam:
    """What Grad-CAM says of some pictures.

    Args:
        layer: The layer whose feature maps were weighted.
        classes_N: The class that each picture was explained for.
        coarse_NHW: The maps at the layer's own resolution, in units of the logit, zero or more.
        heat_NHW: The same at the pictures' resolution, scaled to [0, 1] picture by picture; a
            picture in which nothing speaks for the class is zero everywhere.
    """

    layer: str
    classes_N: Tensor
    coarse_NHW: Tensor
    heat_NHW: Tensor

    def __repr__(self) -> str:
        N, H, W = self.heat_NHW.shape
        return f"GradCam({N} images of {H}×{W}, layer {self.layer})"


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What covering one place after another does to a class's probability.

    Args:
        class_index: The class.
        drops_HW: By how much the probability falls, in the mean over the patches that cover a
            pixel; negative where it rises.
        patch: Height and width of the patch, in pixels.
        stride: By how many rows and columns it moves.
        before: The class's probability for the whole picture.
        after: The same with the strongest place covered: where the probability is lowest.
        answer: The class that is most probable then.
        rows: First and last row of that place, counted from 0.
        columns: First and last column of it.
    """

    class_index: int
    drops_HW: Tensor
    patch: tuple[int, int]
    stride: tuple[int, int]
    before: float
    after: float
    answer: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    def __repr__(self) -> str:
        fall = f"{percent(self.before, 1)} to {percent(self.after, 1)}"
        return f"Occlusion(class {self.class_index}: {fall} with the strongest place covered)"


@dataclass(frozen=True, eq=False)
class Filters:
    """The first layer's weights as pictures.

    Args:
        layer: Its name.
        filters_NCHW: Divided by the largest absolute weight of all: from -1 to 1, zero stays zero.
        largest: That weight.
    """

    layer: str
    filters_NCHW: Tensor
    largest: float

    def strongest(self, most: int) -> Tensor:
        """Return the numbers of the filters with the largest norm, in the layer's order."""
        return _strongest(self.filters_NCHW.square().sum((1, 2, 3)), most)


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """What one layer makes of one picture.

    Args:
        layer: Its name.
        maps_MHW: Its activations.
        new: Whether it made these maps from several, as a convolution does; an activation, a norm
            or a pooling changes each map of the layer before.
    """

    layer: str
    maps_MHW: Tensor
    new: bool = True

    def strongest(self, most: int) -> Tensor:
        """Return the numbers of the maps with the largest mean magnitude, in the layer's order."""
        return _strongest(self.maps_MHW.abs().mean((1, 2)), most)


def grad_cam(model: Any, pictures: Any, classes: Any = None) -> GradCam:
    """Return where a model saw what speaks for a class: the last layer's maps, weighted.

    Each feature map is weighted by the mean gradient of the class's logit by it; their sum, where
    it is positive, is the heat.

    The layer is found by shape: the last one with weights of its own that puts out maps of more
    than one pixel, and then what follows it without changing the shape (batch normalization, the
    activation). A max-pooling after it would give the same weights, up to one factor, and a
    coarser map, so the map is taken before. Each of its cells is laid where the middle of its
    receptive field lies in the picture, bilinear between them: under windows without padding that
    is nearer to the picture's middle than plain resizing would have it, by up to five pixels of
    32 in LeNet.

    A map is weighted as a whole: heat can lie where the network's last layers do not look.
    Occlusion has no such fault.

    Args:
        model: A classifier, or a run, whose best weights are loaded. Left as it was: its mode, and
            no gradient on its weights.
        pictures: Images of the model's shape, or one: an array, a tensor, Pillow images.
        classes: A number or name for each, or one for all; default: the class that the model
            predicts for each.

    Raises:
        HydrofoilError: No layer has feature maps, as in a perceptron; the pictures are of another
            type or shape, or the classes of another number.

    Source: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", https://arxiv.org/abs/1610.02391.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> seen = grad_cam(Classifier(network, (1, 8, 8), "ab"), torch.ones(1, 8, 8).byte())
    >>> seen.layer, tuple(seen.coarse_NHW.shape), tuple(seen.heat_NHW.shape)
    ('1', (1, 6, 6), (1, 8, 8))
    """
    model = as_classifier(model)
    pictures_NCHW = _batch(model, pictures)
    classes_N = None if classes is None else _class_numbers(model, classes, len(pictures_NCHW))
    with evaluating(model):
        calls = trace(model.network, model.shape)
        target = _grad_cam_target(calls)
        taken_N = logits_of(model, pictures_NCHW).argmax(1) if classes_N is None else classes_N
        taken_N = taken_N.to(model.device)
        parts = [
            _weighted_maps(model, target, *both)
            for both in zip(pictures_NCHW.split(BATCH), taken_N.split(BATCH), strict=True)
        ]
    coarse_NHW = torch.cat(parts)
    heat_NHW = coarse_NHW
    for axis in (1, 2):
        first, distance = _centers(calls, target, axis)
        heat_NHW = _spread(heat_NHW, axis, model.shape[axis], first, distance)
    largest_N11 = heat_NHW.amax((1, 2), keepdim=True)
    scaled_NHW = torch.where(largest_N11 > 0, heat_NHW / largest_N11, 0)
    return GradCam(target.name, taken_N, coarse_NHW, scaled_NHW)


def occlusion(
    model: Any,
    picture: Any,
    class_index: int | str | None = None,
    *,
    patch: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    fill: Sequence[int] | None = None,
) -> Occlusion:
    """Return by how much a class's probability falls when a patch covers one place after another.

    The patch has the picture's own mean color unless another is given: it shows neither an edge nor
    a brightness that is not there. At the right and lower edge it may stand out of the picture.

    Args:
        model: A classifier, left as it was; or a run, whose best weights are loaded.
        picture: One image of the model's shape: an array, a tensor, a Pillow image.
        class_index: Its number or name; default: the class that the model predicts.
        patch: Height and width in pixels; default: a quarter of the picture's each.
        stride: Rows and columns that it moves by, at most the patch's own; default: a quarter of
            the patch's, and one pixel at least.
        fill: The patch's value in each channel, 0 to 255.

    Raises:
        HydrofoilError: The picture is of another type or shape; patch, stride, fill or class do
            not fit it.

    Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks",
    https://arxiv.org/abs/1311.2901, section 4.2.
    """
    model = as_classifier(model)
    picture_CHW = _one(model, picture).cpu()
    if class_index is not None:
        class_index = int(_class_numbers(model, class_index, 1)[0])
    _, *sides = model.shape
    patch = patch or (max(1, round(sides[0] / 4)), max(1, round(sides[1] / 4)))
    stride = stride or (max(1, patch[0] // 4), max(1, patch[1] // 4))
    _check_occlusion(model, patch, stride, fill)
    covered_PHW = _covered(sides, patch, stride)
    mean_C = picture_CHW.double().mean((1, 2)).round() if fill is None else torch.tensor(fill)
    color_C11 = mean_C.to(torch.uint8)[:, None, None]
    pictures_NCHW = torch.where(covered_PHW[:, None], color_C11, picture_CHW)
    logits_NK = logits_of(model, torch.cat([picture_CHW[None], pictures_NCHW]))
    answers_NK = logits_NK.cpu().double().softmax(1)
    chosen = int(answers_NK[0].argmax()) if class_index is None else class_index
    before, after_P = float(answers_NK[0, chosen]), answers_NK[1:, chosen]
    drops_HW = torch.einsum("p,phw->hw", before - after_P, covered_PHW.double())
    strongest = int(after_P.argmin())
    rows, columns = (covered_PHW[strongest].any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    return Occlusion(
        class_index=chosen,
        drops_HW=drops_HW / covered_PHW.sum(0),
        patch=patch,
        stride=stride,
        before=before,
        after=float(after_P[strongest]),
        answer=int(answers_NK[1 + strongest].argmax()),
        rows=(rows[0], rows[-1]),
        columns=(columns[0], columns[-1]),
    )


def first_filters(model: Classifier) -> Filters:
    """Return what the first layer with weights looks for, as pictures.

    A convolution's filters are small windows; a perceptron's units look at the whole picture, so
    that their weights have its shape. All are scaled by one number, so that strengths compare.

    Raises:
        HydrofoilError: The first weights are neither, as after a pooling.
    """
    for name, layer in model.network.named_modules():
        if isinstance(layer, nn.Conv2d):
            weights_NCHW = layer.weight.detach()
        elif isinstance(layer, nn.Linear) and layer.in_features == prod(model.shape):
            weights_NCHW = layer.weight.detach().view(-1, *model.shape)
        elif list(layer.parameters(recurse=False)):
            break
        else:
            continue
        largest = float(weights_NCHW.abs().max())
        return Filters(name, weights_NCHW / (largest or 1), largest)
    raise HydrofoilError(
        "The network's first weights look at no pixels: expected a convolution, or a linear layer "
        f"that takes {'×'.join(map(str, model.shape))} pictures."
    )


@torch.no_grad()
def feature_maps(model: Classifier, picture_CHW: Tensor) -> list[FeatureMaps]:
    """Return a picture's activations after each layer that puts out maps, in order.

    A perceptron has no such layer, and the list is empty.

    Args:
        model: Left as it was.
        picture_CHW: uint8.

    Raises:
        HydrofoilError: The picture is of another type or shape.
    """
    pictures_NCHW = _one(model, picture_CHW)[None]
    calls = leaves(trace(model.network, model.shape))
    values = dict[tuple[nn.Module, int], Tensor]()
    counts = Counter[nn.Module]()

    def keep(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):  # a copy: the next layer may work in place
            values[layer, counts[layer]] = output[0].clone()
        counts[layer] += 1

    with evaluating(model), ExitStack() as hooks:
        for layer in {call.layer: None for call in calls}:
            hooks.callback(layer.register_forward_hook(keep).remove)
        model(pictures_NCHW.to(model.device))
    found: list[FeatureMaps] = []
    for call in calls:
        if call.is_spatial and (call.layer, call.number) in values:
            mixes = any(parameter.ndim > 1 for parameter in call.layer.parameters())
            new = mixes or call.before[:1] != call.after[:1]
            found.append(FeatureMaps(call.name or "network", values[call.layer, call.number], new))
    return found


def _batch(model: Classifier, pictures: Any) -> Tensor:
    """Return pictures of the model's own shape as a batch."""
    pictures_NCHW = as_images(pictures, model.shape)
    if tuple(pictures_NCHW.shape[1:]) != model.shape:
        raise InputError(
            f"pictures of {by(pictures_NCHW.shape[1:])}: expected {by(model.shape)}, "
            "one or a batch of them."
        )
    return pictures_NCHW


def _one(model: Classifier, picture: Any) -> Tensor:
    """Return picture_CHW of the model's own shape."""
    pictures_NCHW = _batch(model, picture)
    if len(pictures_NCHW) != 1:
        raise InputError(f"{len(pictures_NCHW)} pictures: expected one. Pass pictures[0].")
    return pictures_NCHW[0]


def _class_numbers(model: Classifier, classes: Any, count: int) -> Tensor:
    """Return the numbers of classes: one for each picture, or one for all."""
    if isinstance(classes, int | str | np.integer):
        classes = [classes] * count
    return as_labels(classes, count, model.classes)[0]


def _check_occlusion(
    model: Classifier,
    patch: tuple[int, int],
    stride: tuple[int, int],
    fill: Sequence[int] | None,
) -> None:
    channels, *sides = model.shape
    fits = all(1 <= p <= side for p, side in zip(patch, sides, strict=True))
    if not fits or not all(1 <= s <= p for s, p in zip(stride, patch, strict=True)):
        raise HydrofoilError(
            f"patch {patch[0]}×{patch[1]}, stride {stride[0]}×{stride[1]}: expected a patch of 1 "
            f"to {sides[0]}×{sides[1]} pixels, and a stride of 1 to the patch's own size."
        )
    if fill is not None and (len(fill) != channels or not all(0 <= v <= 255 for v in fill)):
        raise HydrofoilError(f"fill {list(fill)}: expected {channels} values of 0 to 255.")


def _strongest(strengths_N: Tensor, most: int) -> Tensor:
    """Return the numbers of the largest, at most so many, in ascending order."""
    return strengths_N.argsort(descending=True, stable=True)[:most].sort().values


def _covered(sides: Sequence[int], patch: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Return covered_PHW: which pixels a patch covers at each place; every pixel is covered."""
    tops, lefts = (
        [by * n for n in range(ceil((size - long) / by) + 1)]
        for size, long, by in zip(sides, patch, stride, strict=True)
    )
    covered_PHW = torch.zeros(len(tops) * len(lefts), *sides, dtype=torch.bool)
    for number, (top, left) in enumerate(product(tops, lefts)):
        covered_PHW[number, top : top + patch[0], left : left + patch[1]] = True
    return covered_PHW


def _grad_cam_target(calls: Sequence[Call]) -> Call:
    """Return the call whose maps Grad-CAM weights."""
    learned = [
        number
        for number, call in enumerate(calls)
        if call.is_leaf and call.is_spatial and any(True for _ in call.layer.parameters())
    ]
    if not learned:
        raise HydrofoilError(
            "Grad-CAM weights a convolution's feature maps, and this network has none: "
            f"{', '.join(call.name for call in leaves(list(calls)))}.\n"
            "Occlusion explains any network."
        )
    target = calls[learned[-1]]
    for call in calls[learned[-1] + 1 :]:
        around = target.name.startswith(f"{call.name}." if call.name else "")
        grows = not call.is_leaf and around and call.after[1:] == target.after[1:]
        if call.is_container:  # its output is its last module's, which was considered already
            continue
        if call.after != target.after and not (grows and call.is_spatial):
            break
        target = call
    return target


def _weighted_maps(
    model: Classifier, target: Call, pictures_NCHW: Tensor, classes_N: Tensor
) -> Tensor:
    """Return coarse_NHW: only what comes behind the maps is differentiated."""
    kept, calls = list[Tensor](), 0

    def take_over(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls - 1 != target.number:
            return None
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # the next layer may work in place

    hook = target.layer.register_forward_hook(take_over)
    try:
        with torch.enable_grad(), _no_gradients(model):
            logits_NK = model(pictures_NCHW.to(model.device))
            logits_N = logits_NK.gather(1, classes_N[:, None])[:, 0]
            maps_NMHW = kept[0]
            # Zeros where the logits do not depend on the maps.
            (slopes_NMHW,) = torch.autograd.grad(
                logits_N.sum(), maps_NMHW, allow_unused=True, materialize_grads=True
            )
    finally:
        hook.remove()
    maps_NMHW = maps_NMHW.detach()
    return (slopes_NMHW.mean((2, 3), keepdim=True) * maps_NMHW).sum(1).relu()


@contextmanager
def _no_gradients(model: Classifier) -> Generator[None]:
    """Differentiate by no weight meanwhile, so that the layers before the maps cost no graph."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _centers(calls: Sequence[Call], target: Call, axis: int) -> tuple[float, float]:
    """Return the middle of the first cell's receptive field, in pixels, and the cells' distance.

    A window's first cell lies at (kernel - 1) / 2 - padding. A layer that is no plain window (an
    adaptive pooling, say) is taken to stretch its output over its input, and so is the whole
    network where its layers are no chain or the maps are not a layer's own.
    """
    chain = leaves(list(calls[: calls.index(target) + 1]))
    size, cells = calls[-1].before[axis], target.after[axis]
    whole = (size / cells - 1) / 2, size / cells
    if target is not chain[-1] or not all(call.follows for call in chain):
        return whole
    first, distance = 0.0, 1.0
    for call in chain:
        if min(len(call.before), len(call.after)) != 3:
            return whole  # features stand between maps: only the sizes are known
        begin, by = _window(call, axis)
        first, distance = first + distance * begin, distance * by
    return first, distance


def _window(call: Call, axis: int) -> tuple[float, float]:
    """Return the first cell's middle and the cells' distance, in cells of the layer before."""
    before, after = call.before[axis], call.after[axis]
    for kernel, stride, padding in windows(call.layer)[axis - 1 : axis]:
        if (before - kernel + 2 * padding) // stride + 1 == after:
            return (kernel - 1) / 2 - padding, stride
    return (before / after - 1) / 2, before / after


def _spread(maps_NHW: Tensor, axis: int, size: int, first: float, distance: float) -> Tensor:
    """Interpolate along one axis: cells lie at first, first + distance, …; flat beyond the ends."""
    cells = maps_NHW.shape[axis]
    pixels = torch.arange(size, device=maps_NHW.device, dtype=torch.float32)
    at = ((pixels - first) / distance).clamp(0, cells - 1)
    lower = at.floor().long()
    upper = (lower + 1).clamp(max=cells - 1)
    share = (at - lower).view(-1, *[1] * (2 - axis))
    low_NHW, high_NHW = maps_NHW.index_select(axis, lower), maps_NHW.index_select(axis, upper)
    return low_NHW + share * (high_NHW - low_NHW)
