"""Any network of the package timm, fitted to small images; nothing is downloaded here.

Axes: N images, C channels, H rows, W columns.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hydrofoil.errors import HydrofoilError, closest
from hydrofoil.models.code import prepare_network, said
from hydrofoil.models.layers import DropPath
from hydrofoil.recipe.models import Timm
from hydrofoil.wording import by

if TYPE_CHECKING:
    from hydrofoil.models.classifier import Classifier

SMALL = 64  # pixels: of shorter images, a stem for 224 pixels would leave 16 or fewer
POOLS = ("maxpool", "features.pool0", "stem.pool", "stem_pool")  # timm's names of a stem's pooling


def timm_network(spec: Timm, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a network of timm's, with its first layers changed for images below 64 pixels.

    Dropout and stochastic depth follow each step's key, so that runs resume exactly.

    Raises:
        HydrofoilError: timm is not installed or has no such network, or it does not fit the images.
    """
    where = f"model.architecture = {spec.architecture}"
    network = _created(spec, shape, classes)
    if min(shape[1:]) < SMALL:
        _replace_stem(network)
    _use_our_drop_path(network)
    prepare_network(network, shape, classes, where)
    return network


def stem_note(network: nn.Module) -> str:
    """Return what was replaced of a network's first layers, for the user; empty: nothing."""
    return str(getattr(network, "hydrofoil_note", ""))


def _package() -> Any:
    try:
        import timm
    except ImportError as error:
        raise HydrofoilError(
            "model.name = timm: the package timm is not installed.\n"
            "Install it with: pip install 'hydrofoil[timm]'"
        ) from error
    return timm


def _created(spec: Timm, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return timm's network with random weights."""
    timm = _package()
    base = spec.architecture.partition(".")[0]
    if not timm.is_model(base):
        known = timm.list_models()
        close = closest(spec.architecture, known)
        hint = f" Did you mean '{close}'?" if close else ""
        raise HydrofoilError(
            f"model.architecture = {spec.architecture}: no such network in timm "
            f"{timm.__version__}.{hint}\n"
            "In Python, timm.list_models() lists them."
        )
    options: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
    options |= {"drop_rate": spec.dropout} if spec.dropout else {}
    options |= {"drop_path_rate": spec.drop_path} if spec.drop_path else {}
    try:
        try:
            return timm.create_model(spec.architecture, img_size=shape[1:], **options)
        except TypeError:  # most convolutional networks take images of any size
            return timm.create_model(spec.architecture, **options)
    except Exception as error:
        raise HydrofoilError(
            f"model.architecture = {spec.architecture}: timm cannot make it for images of "
            f"{by(shape)}: {said(error)}.\nChoose another architecture or data.size."
        ) from error


def _replace_stem(network: Any) -> None:
    """Let the first convolution look at 3×3 pixels in steps of one, and drop the pooling after it.

    A vision transformer's patches are its tokens: they are left as they are.
    """
    name: Any = getattr(network, "pretrained_cfg", {}).get("first_conv")
    name = name[0] if isinstance(name, tuple | list) else name
    if not isinstance(name, str) or "patch_embed" in name:
        return
    old, changed = network.get_submodule(name), list[str]()
    if isinstance(old, nn.Conv2d) and old.stride != (1, 1):
        new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(name, new)
        kernel, stride = by(old.kernel_size), old.stride[0]
        changed.append(f"a 3×3 convolution of stride 1 replaces {kernel} of stride {stride}")
    for pool in _pools(network):
        network.set_submodule(pool, nn.Identity())
        changed.append(f"without the pooling {pool}")
    if changed:
        size = f"images below {SMALL} pixels"
        network.hydrofoil_note = f"for {size}, the first layer is changed: {', '.join(changed)}"


def _pools(network: nn.Module) -> Iterator[str]:
    """Yield the name of a stem's pooling, where a network has one."""
    layers = dict(network.named_modules())
    for name in POOLS:
        if name in layers and not isinstance(layers[name], nn.Identity):
            yield name


def _use_our_drop_path(network: nn.Module) -> None:
    """Replace timm's stochastic depth, which draws from torch's global generator, by ours."""
    from timm.layers import drop  # timm is installed: it made the network

    for name, layer in list(network.named_modules()):
        if type(layer) is drop.DropPath and layer.scale_by_keep:
            network.set_submodule(name, DropPath(float(layer.drop_prob or 0.0)))


# ── timm's own weights ───────────────────────────────────────────────────────────────────────────


def own_normalization(spec: Timm, channels: int) -> dict[str, tuple[float, ...]]:
    """Return the mean and deviation that timm's own weights were trained with, for the recipe.

    Images of another number of channels get the mean over the channels.
    """
    timm = _package()
    config = timm.get_pretrained_cfg(spec.architecture)
    found: dict[str, tuple[float, ...]] = {}
    for name in ("mean", "std"):
        values = tuple(float(value) for value in getattr(config, name, None) or (0.5,) * 3)
        found[name] = values if len(values) == channels else (sum(values) / len(values),)
    return found


def load_pretrained(model: "Classifier") -> list[str]:
    """Give a network timm's own weights if it starts from them, and return notes for the user.

    They come from the local cache. Weights that were loaded before are left as they are. The last
    layer, and a first one that was replaced, keep their own first weights.

    Raises:
        HydrofoilError: timm has no weights for it, or they are not on this machine.
    """
    spec = model.pretrained
    if spec is None:
        return []
    timm, path = _package(), cached_weights(spec)
    channels = model.shape[0]
    options = {"num_classes": len(model.classes), "in_chans": channels}
    theirs = timm.create_model(
        spec.architecture, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options
    )
    own, given = model.network.state_dict(), theirs.state_dict()
    head = theirs.pretrained_cfg.get("classifier") or ""
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head) if name)
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape and not name.startswith(heads)
    }
    model.load_weights(own | fitting, str(path))
    new = sorted({name.rpartition(".")[0] or name for name in own.keys() - fitting.keys()})
    return [
        f"starts from timm's weights of {spec.architecture}, with their mean and deviation; "
        f"new layers: {', '.join(new)}"
    ]


def cached_weights(spec: Timm) -> Path:
    """Return the file of timm's own weights in the local cache; the network is never used.

    Raises:
        HydrofoilError: There is none.
    """
    timm = _package()
    config = timm.get_pretrained_cfg(spec.architecture)
    wanted = f"model.pretrained: timm has no weights for {spec.architecture}"
    if config is None or not (config.hf_hub_id or config.url):
        raise HydrofoilError(f"{wanted}.\nSet model.pretrained=false to train it from the start.")
    found = _in_hub_cache(config.hf_hub_id) if config.hf_hub_id else None
    if found is None and config.url:
        file = _torch_cache() / config.url.rpartition("/")[2]
        found = file if file.is_file() else None
    if found is None:
        code = f"import timm; timm.create_model('{spec.architecture}', pretrained=True)"
        raise HydrofoilError(
            f"model.pretrained: the weights of {spec.architecture} are not in the local cache, "
            f'and training downloads nothing.\nDownload them once with: python -c "{code}"\n'
            "Or give a file of weights: model.pretrained=false train.init=FILE"
        )
    return found


def _torch_cache() -> Path:
    """Return the folder in which torch keeps weights that it has downloaded."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"


def _in_hub_cache(repository: str) -> Path | None:
    """Return a file of weights in the cache of the Hugging Face hub, looked up without network."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str) and Path(path).is_file():
            return Path(path)
    return None
