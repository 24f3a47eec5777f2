"""The section [augment]: how training images are changed before a step sees them."""

from typing import Annotated, Literal

from pydantic import Field

from hydrofoil.recipe.fields import Affects, Fields

Pixels = Annotated[int, Field(ge=0, le=1024)]
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Alpha = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class Augment(Fields):
    """Changes of training images, drawn for every image and epoch; the defaults change nothing."""

    flip: Literal["none", "random", "alternating"] = "none"
    """Mirror left to right: each image at random, or in every other epoch (Jordan 2024)."""
    shift: Pixels = 0
    """Move by up to so many pixels in both directions; the border is filled by reflection."""
    rotate: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Rotate by up to so many degrees in either direction, bilinear, with a reflected border."""
    scale: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.0
    """Enlarge or shrink by up to this fraction, bilinear, with a reflected border."""
    brightness: Part = 0.0
    """Multiply pixels by a factor up to this fraction below or above 1."""
    contrast: Part = 0.0
    """Multiply the difference to the mean gray by a factor up to this fraction below or above 1."""
    cutout: Pixels = 0
    """Hide a square with sides of so many pixels anywhere (DeVries & Taylor 2017)."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Random operations, as torchvision's RandAugment or TrivialAugmentWide draw them."""
    policy_operations: Annotated[int, Field(ge=1, le=8)] = 2
    """How many operations RandAugment applies to an image; TrivialAugment applies one."""
    policy_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """How strong RandAugment's operations are, 0 to 30; TrivialAugment draws it."""
    mixup: Alpha = 0.0
    """Blend images and labels in pairs, with a Beta(α, α) share (Zhang et al. 2018); 0: never."""
    cutmix: Alpha = 0.0
    """Paste a box of another image, and mix labels by area (Yun et al. 2019); 0: never."""

    test_time: Annotated[Literal["none", "flip", "flip-shift"], Affects("results")] = "none"
    """Also test with predictions averaged over mirrored (and shifted) copies of each image."""

    @property
    def moves(self) -> bool:
        """Whether images are rotated or scaled."""
        return bool(self.rotate or self.scale)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs, so that a label is two classes with shares."""
        return bool(self.mixup or self.cutmix)

    @property
    def active(self) -> bool:
        """Whether any training image is changed."""
        simple = (self.shift, self.cutout, self.brightness, self.contrast, self.moves, self.mixes)
        return any(simple) or self.flip != "none" or self.policy != "none"
