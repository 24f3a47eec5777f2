"""What people have, as hydrofoil takes it: images, labels, indices and datasets of any kind.

The one home of these conversions. A contiguous uint8 array is not copied.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hydrofoil.errors import InputError, nearest
from hydrofoil.wording import by

if TYPE_CHECKING:
    from hydrofoil.data.pictures import Pictures
    from hydrofoil.data.split import Split

Array = np.ndarray[Any, np.dtype[Any]]
MOST_CHANNELS = 4  # of an axis that is taken for channels: gray, gray + alpha, RGB, RGBA
SLACK = 1e-6  # by which a float may leave [0, 1], from an interpolation say
IMAGES = (
    "an array or tensor (N×H×W×C, N×C×H×W or N×H×W, uint8 or float from 0 to 1) or a list of images"
)


# ── images ───────────────────────────────────────────────────────────────────────────────────────


def as_images(
    given: Any, shape: tuple[int, int, int] | None = None, count: int | None = None
) -> Tensor:
    """Return images as uint8 pictures_NCHW.

    Floats from 0 to 1 are multiplied by 255; a warning says so where that had to be rounded.

    Args:
        given: An array, a tensor or a list of images. Of four axes, the one of 1 to 4 is the
            channels; in a tensor that is the second, if both could be. Three axes are N×H×W.
        shape: Channels, height and width that the images have, where that is known: then one image
            alone is taken, too.
        count: How many images there are, where that is known.

    Raises:
        InputError: They are of another shape, type or range, or of several sizes, or it cannot be
            known which axis is which.

    >>> as_images(np.zeros((5, 8, 8, 3), np.uint8)).shape
    torch.Size([5, 3, 8, 8])
    """
    pictures_NCHW, rounding = as_bytes(stacked(given), shape, count)
    say_rounded(rounding)
    return pictures_NCHW


def to_bytes(values: Tensor, what: str) -> tuple[Tensor, float]:
    """Return pixel values as uint8, and the largest rounding, in 255ths.

    Args:
        values: uint8; whole numbers from 0 to 255; bool; or floats from 0 to 1.
        what: What to call them in an error.

    Raises:
        InputError: They are of another type or range.
    """
    if values.dtype == torch.uint8:
        return values, 0.0
    if values.dtype == torch.bool:
        return values.to(torch.uint8) * 255, 0.0
    kind = str(values.dtype).removeprefix("torch.")
    if values.is_complex():
        raise InputError(f"{what} of {kind}: expected uint8 (0 to 255), or float (0 to 1).")
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if not values.is_floating_point():
        if 0 <= low and high <= 255:
            return values.to(torch.uint8), 0.0
        raise InputError(
            f"{what} of {kind} from {low:g} to {high:g}: expected 0 to 255.\n"
            "Scale the values, and convert them with astype('uint8') or .to(torch.uint8)."
        )
    _check_range(values, low, high, f"{what} of {kind}")
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    scaled = wide.clamp(0, 1) * 255
    levels = scaled.round()
    exact = torch.finfo(values.dtype).eps * 255 * 2
    rounding = float((scaled - levels).abs().max()) if values.numel() else 0.0
    return levels.to(torch.uint8), rounding if rounding > exact else 0.0


def _check_range(values: Tensor, low: float, high: float, what: str) -> None:
    """Refuse floats that are not from 0 to 1."""
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = values.numel() - int(values.isfinite().sum())
        raise InputError(
            f"{what}: {broken:,} of {values.numel():,} values are NaN or infinite: expected 0 to 1."
        )
    if low >= -SLACK and high <= 1 + SLACK:
        return
    came = f"{what} with values from {low:g} to {high:g}: expected 0 to 1"
    if low < 0:
        raise InputError(
            f"{came}.\nThey look normalized: undo that (images * std + mean), or read them without "
            "Normalize.\nThe model normalizes its input itself, by data.mean and data.std."
        )
    if high == 255:
        raise InputError(f"{came}.\nDivide by 255, or pass images.astype('uint8').")
    raise InputError(
        f"{came}.\nIf {high:g} is white: (images * (255 / {high:g})).round().astype('uint8').\n"
        "If 255 is white: images.astype('uint8')."
    )


def as_bytes(
    values: Tensor | Array,
    shape: tuple[int, int, int] | None = None,
    count: int | None = None,
) -> tuple[Tensor, float]:
    """Return uint8 pictures_NCHW, and the largest rounding in 255ths."""
    from_torch = isinstance(values, Tensor)
    what = f"{'a tensor' if from_torch else 'an array'} of {by(values.shape)}"
    tensor = values.detach() if isinstance(values, Tensor) else to_tensor(values, what)
    if 0 in tensor.shape:
        raise InputError(f"{what}: it holds no images. Expected one or more.")
    if tensor.ndim == 3 and count == len(tensor):
        tensor = tensor[:, None]
    images_NCHW = _channels_first(tensor, what, from_torch=from_torch, shape=shape)
    pictures_NCHW, rounding = to_bytes(images_NCHW, what)
    # Flat and back: an axis of one may have any stride, by which torch chooses other kernels.
    return pictures_NCHW.contiguous().flatten().view(pictures_NCHW.shape), rounding


def to_tensor(values: Array, what: str) -> Tensor:
    """Return an array as a tensor: in the same memory, where torch has the type."""
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise InputError(
            f"{what} and {values.dtype}: expected numbers, of uint8 or float.{ragged(values)}"
        )
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.int64)  # torch computes with no wider unsigned type
    mapped = isinstance(values, np.memmap)  # a copy might not fit in memory
    values = np.asarray(values, dtype=values.dtype.newbyteorder("="))
    read_only = not values.flags.writeable
    if any(step < 0 for step in values.strides) or (read_only and not mapped):
        values = values.copy()  # torch has neither
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing here writes to a map that is read-only
        return torch.from_numpy(values)


def ragged(values: Array) -> str:
    """Say what to do about an array of objects that are arrays of several shapes."""
    if values.dtype != object or not all(hasattr(value, "shape") for value in values.flat):
        return ""
    return (
        "\nIt holds arrays: np.stack(list(images)) makes one of them, if their sizes are the same."
    )


def _channels_first(
    tensor: Tensor, what: str, *, from_torch: bool, shape: tuple[int, int, int] | None
) -> Tensor:
    """Return images_NCHW from any known order of axes.

    Raises:
        InputError: It is not known, or could be two.
    """
    size = tuple(tensor.shape)
    if (
        shape is not None
        and tensor.ndim in (2, 3)
        and (one := _one(tensor, shape, from_torch)) is not None
    ):
        return one
    if tensor.ndim == 3:
        known = shape is not None and (1, *size[1:]) == shape
        return tensor[:, None] if known else _gray(tensor, what)
    if tensor.ndim != 4:
        raise InputError(f"{what}: expected {IMAGES}.{_rows(size)}")
    first, last = (1 <= size[axis] <= MOST_CHANNELS for axis in (1, 3))
    if shape is not None and shape in (size[1:], (size[3], size[1], size[2])):
        first, last = size[1:] == shape, (size[3], size[1], size[2]) == shape
    if first and last and not from_torch and size[1:] != (1, 1, 1):
        raise InputError(
            f"{what}: which axis is the channels?\n"
            "For N×C×H×W pass torch.from_numpy(images); "
            "for N×H×W×C torch.from_numpy(images).permute(0, 3, 1, 2)."
        )
    if not first and not last and not from_torch:
        raise InputError(
            f"{what}: expected 1 to {MOST_CHANNELS} channels, N×H×W×C or N×C×H×W.\n"
            "For N×C×H×W with more channels pass torch.from_numpy(images)."
        )
    if last and not first and (not from_torch or size[2] > MOST_CHANNELS):
        return tensor.permute(0, 3, 1, 2)
    return tensor  # maps of 16×3×3, say, are no images of 16 rows


def _one(tensor: Tensor, shape: tuple[int, int, int], from_torch: bool) -> Tensor | None:
    """Return one image as a batch, if it has that shape in any order of axes."""
    size = tuple(tensor.shape)
    if tensor.ndim == 2:
        return tensor[None, None] if (1, *size) == shape else None
    if size == shape and (from_torch or size != (size[2], *size[:2])):
        return tensor[None]
    return tensor.permute(2, 0, 1)[None] if (size[2], *size[:2]) == shape else None


def _gray(tensor: Tensor, what: str) -> Tensor:
    """Return N×H×W images with their one channel."""
    first, _, last = tensor.shape
    if 1 < first <= MOST_CHANNELS or last <= MOST_CHANNELS:
        raise InputError(
            f"{what}: one image, or several gray ones?\n"
            "For one pass images[None]; for several N×H×W images[:, None] of a tensor, "
            "images[..., None] of an array."
        )
    return tensor[:, None]


def _rows(size: tuple[int, ...]) -> str:
    """Say how rows of pixels become images."""
    if len(size) != 2:
        return ""
    side = round(size[1] ** 0.5)
    known = (
        f"images.reshape(-1, {side}, {side})" if side**2 == size[1] else "images.reshape(-1, H, W)"
    )
    return f"\nIf each row is an image: {known}."


def stacked(given: Any) -> Tensor | Array:
    """Return images as one tensor or array; the axes are as they come."""
    if isinstance(given, Tensor | np.ndarray):
        return cast("Tensor | Array", given)
    if isinstance(given, Image.Image):
        given = [given]
    if isinstance(given, list | tuple):
        return _stack(cast("Sequence[Any]", given))
    if hasattr(given, "pictures_NCHW"):
        return given.pictures_NCHW
    if hasattr(given, "__array__"):
        return np.asarray(given)
    if isinstance(given, str | Path):
        raise InputError(
            f"images: got the text {str(given)[:40]!r}: expected {IMAGES}.\n"
            f'A published dataset is hf.load("{str(given)[:40]}").'
        )
    if is_dataset(given):
        from hydrofoil.data.datasets import read_dataset

        return read_dataset(given)[0]
    raise InputError(f"images: got {kind_of(given)}: expected {IMAGES}.")


def is_dataset(given: Any) -> bool:
    """Tell whether something gives items one by one, as a torch dataset or loader does."""
    plain = isinstance(
        given, list | tuple | str | Path | Tensor | np.ndarray | Mapping | Image.Image
    )
    items = hasattr(given, "__iter__") or hasattr(given, "__getitem__")
    return items and not plain and not hasattr(given, "__array__")


def kind_of(given: Any) -> str:
    """Return what something is, for an error."""
    if given is None:
        return "None"
    name = type(given).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def _stack(items: Sequence[Any]) -> Tensor | Array:
    """Return a list of images of one size as one tensor or array."""
    if not items:
        raise InputError("images: an empty list: expected one or more.")
    if all(isinstance(item, Image.Image) for item in items):
        return _stack_pillow(items)
    if not all(isinstance(item, Tensor | np.ndarray | list | tuple) for item in items):
        odd = next(item for item in items if not isinstance(item, Tensor | np.ndarray))
        raise InputError(
            f"images: a list with {kind_of(odd)} in it: expected Pillow images, arrays or tensors, "
            "all of one kind."
        )
    tensors = [item for item in items if isinstance(item, Tensor)]
    values = tensors if len(tensors) == len(items) else [np.asarray(item) for item in _plain(items)]
    sizes = {tuple(value.shape) for value in values}
    if len(sizes) > 1:
        raise InputError(
            f"images of several sizes, such as {' and '.join(map(by, sorted(sizes)[:2]))}: "
            "expected one size.\nhf.predict takes any size; for training, resize them first."
        )
    if not isinstance(values[0], Tensor):
        return np.stack(cast("list[Array]", values))
    return torch.stack(cast("list[Tensor]", values))


def _plain(items: Sequence[Any]) -> list[Any]:
    return [item.cpu().numpy() if isinstance(item, Tensor) else item for item in items]


def _stack_pillow(items: Sequence[Image.Image]) -> Array:
    """Return Pillow images as an array N×H×W×C; gray stays gray if all of them are."""
    sizes = {item.size for item in items}
    if len(sizes) > 1:
        raise InputError(
            f"images of several sizes, such as {' and '.join(map(by, sorted(sizes)[:2]))}: "
            "expected one size.\n[image.resize((32, 32)) for image in images] makes them the same."
        )
    gray = all(item.mode in ("1", "L") for item in items)
    return np.stack([_pixels(item, "L" if gray else "RGB") for item in items])


def _pixels(image: Image.Image, mode: str) -> Array:
    """Return one Pillow image as an array H×W×C."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise InputError(
            f"a Pillow image of mode {image.mode}: expected L or RGB, 8 bits a channel.\n"
            "hf.predict takes it as it is; for training, scale it to 0–255: image.convert('L')."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if cast("tuple[int, int]", rgba.getchannel("A").getextrema())[0] < 255:
            raise InputError(
                f"a Pillow image of mode {image.mode} with transparent pixels: expected none.\n"
                "Paste it onto a background, or drop the transparency: image.convert('RGB')."
            )
        image = rgba
    pixels = np.array(image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def say_rounded(rounding: float) -> None:
    """Warn that floats were rounded to the 256 levels of uint8, if they were."""
    if rounding:
        warnings.warn(
            f"images: values between the 256 levels of uint8 were rounded, by up to "
            f"{rounding / 255:.5f} on the scale from 0 to 1",
            stacklevel=4,
        )


# ── datasets ─────────────────────────────────────────────────────────────────────────────────────


def as_pictures(given: Any, classes: Sequence[str] | None = None) -> "Pictures":
    """Return a dataset as `Pictures`, with a model's classes where they are given.

    Args:
        given: The set, or what `hf.Pictures` takes without labels.
        classes: A model's class names. Labels are matched by name where all are among these, and
            else are positions: a part of a set may lack a class.

    Raises:
        InputError: As `hf.Pictures`, or it has more classes than the model.
    """
    from hydrofoil.data.pictures import Pictures

    pictures = given if isinstance(given, Pictures) else Pictures(given)
    if classes is None or pictures.classes == tuple(classes):
        return pictures
    if set(pictures.classes) <= set(classes):
        places = torch.tensor([classes.index(name) for name in pictures.classes])
        labels_N = places.to(pictures.labels_N.device)[pictures.labels_N]
        return replace(pictures, labels_N=labels_N, classes=tuple(classes))
    if pictures.K > len(classes):
        raise InputError(
            f"images of {pictures.K} classes: expected the {len(classes)} of the model, "
            f"{', '.join(classes[:10])}{' …' if len(classes) > 10 else ''}."
        )
    return pictures if pictures is given else Pictures(given, classes=classes)


def as_split(given: Any, pictures: "Pictures") -> "Split":
    """Return a split: itself, or one of (train, valid, test) indices or a dict of them.

    Raises:
        InputError: It is something else, or its indices do not fit the images.
    """
    from hydrofoil.data.split import PARTS, Split

    if isinstance(given, Split):
        return given
    if isinstance(given, Mapping):
        parts = cast("Mapping[str, Any]", given)
        for name in parts:
            if name not in PARTS:
                raise InputError(f"split: no part is called {name!r}. {nearest(str(name), PARTS)}")
        return Split(
            parts.get("train", ()), parts.get("valid", ()), parts.get("test", ()), pictures
        )
    if isinstance(given, tuple | list) and 1 < len(cast("Sequence[Any]", given)) <= 3:
        return Split(*cast("Sequence[Any]", given), pictures_hash=pictures)
    raise InputError(
        f"split: got {kind_of(given)}: expected hf.draw_split(pictures, valid=0.1, test=0.2), "
        "or (train, valid, test) lists of indices."
    )
