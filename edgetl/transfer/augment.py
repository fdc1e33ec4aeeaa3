"""Training-time variations of an image, each a function of (seed, epoch, index) and of nothing else."""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.inputs.image import Preprocess

Steps = list[Callable[[Tensor], Tensor]]
#: Area of a crop over that of the evaluation crop, so that things appear about as large in both (Touvron et al. 2019,
#: FixRes). ImageNet's habit, 0.08 to 1 of the whole image, would shrink them and cut a small defect off its label.
CROP_AREA = (0.6, 1.2)
CROP_RATIO = (4 / 5, 5 / 4)
#: How far the crop's centre moves from the evaluation crop's, as a share of the crop's side. Anywhere in a wide image
#: would show windows that evaluation never sees, under a label that may be true of the middle only.
CROP_SHIFT = 0.15
JITTER = 0.2


@dataclass(frozen=True)
class RandomCrop:
    """A window of random size, shape and place, resized to the network's input."""

    height: int
    width: int
    interpolation: InterpolationMode

    def __call__(self, image: Tensor) -> Tensor:
        """From uint8, shape (3, h, w), to uint8, shape (3, height, width)."""
        area, ratio, top, left = torch.rand(4).tolist()
        factor = CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0])
        stretch = CROP_RATIO[0] * (CROP_RATIO[1] / CROP_RATIO[0]) ** ratio
        h = min(round(self.height * math.sqrt(factor / stretch)), image.shape[-2])
        w = min(round(self.width * math.sqrt(factor * stretch)), image.shape[-1])
        y = _start(image.shape[-2], h, (2 * top - 1) * CROP_SHIFT * self.height)
        x = _start(image.shape[-1], w, (2 * left - 1) * CROP_SHIFT * self.width)
        size = [self.height, self.width]
        cut: Tensor = functional.resized_crop(image, y, x, h, w, size, self.interpolation, antialias=True)
        return cut


@dataclass(frozen=True)
class CentreCrop:
    """The window that evaluation sees; torchvision rounds an odd rest the other way."""

    height: int
    width: int

    def __call__(self, image: Tensor) -> Tensor:
        """From uint8, shape (c, h, w), to uint8, shape (c, height, width)."""
        top, left = (image.shape[-2] - self.height) // 2, (image.shape[-1] - self.width) // 2
        return image[..., top : top + self.height, left : left + self.width].clone()


def _start(length: int, side: int, shift: float) -> int:
    return min(max(round((length - side) / 2 + shift), 0), length - side)


@dataclass(frozen=True)
class Augmentation:
    """How training images vary.

    Attributes:
        name: of :data:`PRESETS`, or "file".
        steps: of a file: names of torchvision's transforms (v2) and their arguments, after the crop of "light".
    """

    name: str = "light"
    steps: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a run's settings hold it."""
        return {"name": self.name, **({"steps": [dict(step) for step in self.steps]} if self.steps else {})}


LIGHT = Augmentation()


def _pillow_like(preprocess: Preprocess) -> InterpolationMode:
    # torchvision resizes tensors by bicubic at best.
    kind = "bicubic" if preprocess.interpolation == "lanczos" else preprocess.interpolation
    return InterpolationMode(kind)


def _light_crop(preprocess: Preprocess, mirror: Steps) -> Steps:
    return [RandomCrop(preprocess.height, preprocess.width, _pillow_like(preprocess)), *mirror]


def _none(preprocess: Preprocess, mirror: Steps) -> Steps:
    return [CentreCrop(preprocess.height, preprocess.width)]


def _light(preprocess: Preprocess, mirror: Steps) -> Steps:
    return [*_light_crop(preprocess, mirror), v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER)]


def _backbone(preprocess: Preprocess, mirror: Steps) -> Steps:
    size = (preprocess.height, preprocess.width)
    crop = v2.RandomResizedCrop(size, (0.08, 1.0), (3 / 4, 4 / 3), _pillow_like(preprocess), antialias=True)
    return [crop, *mirror, v2.ColorJitter(0.4, 0.4, 0.4)]


def _strong(preprocess: Preprocess, mirror: Steps) -> Steps:
    return [*_light_crop(preprocess, mirror), v2.TrivialAugmentWide(), v2.RandomErasing(0.25)]


#: What ``--augment`` takes besides a file: name → what it does, and the steps for a size, with the mirror among them
#: where a mirrored image still shows its class.
PRESETS: Mapping[str, tuple[str, Callable[[Preprocess, Steps], Steps]]] = {
    "none": ("the images as evaluation sees them", _none),
    "light": ("crops about as evaluation's, mirrors, light colour jitter (Touvron et al. 2019)", _light),
    "backbone": ("as ImageNet's backbones were trained: crops of 8 to 100 % of an image, colour jitter", _backbone),
    "strong": ("light crops, then TrivialAugment (Müller and Hutter 2021) and erased windows", _strong),
}
#: Transforms that a file may name: of one image, with plain arguments, which keep its size.
ALLOWED = (
    "AugMix", "ColorJitter", "GaussianBlur", "GaussianNoise", "RandAugment", "RandomAdjustSharpness", "RandomAffine",
    "RandomAutocontrast", "RandomEqualize", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip", "RandomInvert",
    "RandomPerspective", "RandomPosterize", "RandomRotation", "RandomSolarize", "RandomVerticalFlip",
    "TrivialAugmentWide",
)  # fmt: skip


def transform_for(
    preprocess: Preprocess, mirror_safe: bool, augmentation: Augmentation = LIGHT
) -> Callable[[Tensor], Tensor]:
    """What varies a uint8 image of shape (c, h, w).

    Args:
        preprocess: size and interpolation of the crop; normalisation belongs to the model.
        mirror_safe: whether a mirrored image still shows its class (letters and digits do not).
        augmentation: which variation; "file" names its own mirrors.

    Returns:
        a function of images whose shorter side is ``preprocess.resize``, to uint8 images of shape
        (c, preprocess.height, preprocess.width), that draws from torch's generator.
    """
    mirror: Steps = [v2.RandomHorizontalFlip()] if mirror_safe else []
    if augmentation.name == "file":
        made = [getattr(v2, step["name"])(**_arguments(step)) for step in augmentation.steps]
        steps = [*_light_crop(preprocess, []), *made]
    else:
        steps = PRESETS[augmentation.name][1](preprocess, mirror)
    composed: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return composed


def _arguments(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "name"}


def read_augmentation(given: str) -> Augmentation:
    """A preset, or the transforms that a TOML file lists: ``[[step]]`` with ``name`` and torchvision's own arguments.

    Raises:
        UnknownNameError: neither a preset nor a file, or a transform that is not allowed.
        EdgetlError: the file is malformed.
    """
    if given in PRESETS:
        return Augmentation(given)
    file = Path(given)
    if not file.is_file():
        raise UnknownNameError("augmentation", given, [*PRESETS, "or a .toml file"])
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8")).get("step", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EdgetlError(f"cannot read {file} ({error})", "write [[step]] with a name, in TOML") from error
    steps = found if isinstance(found, list) else []
    if not steps or not all(isinstance(step, dict) and isinstance(step.get("name"), str) for step in steps):
        raise EdgetlError(f"{file} lists no steps", 'write [[step]] and, below it, name = "RandomRotation"')
    for step in steps:
        if step["name"] not in ALLOWED:
            raise UnknownNameError(f"transform in {file}", step["name"], ALLOWED)
    return Augmentation("file", tuple(steps))


def check_augmentation(augmentation: Augmentation, preprocess: Preprocess) -> None:
    """Vary one grey image: whether every step is what torchvision takes, and leaves an image of the network's size.

    Raises:
        EdgetlError: it does not.
    """
    side = max(preprocess.resize, preprocess.height, preprocess.width)
    image = torch.full((len(preprocess.mean), side, side), 127, dtype=torch.uint8)
    wanted = (len(preprocess.mean), preprocess.height, preprocess.width)
    try:
        made = varied(image, transform_for(preprocess, True, augmentation), 0, 0, 0)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgetlError(
            f"the augmentation cannot be made ({reason})", "correct the arguments of its steps"
        ) from error
    if made.dtype != torch.uint8 or tuple(made.shape) != wanted:
        what = f"the augmentation makes {made.dtype} of {tuple(made.shape)} instead of torch.uint8 of {wanted}"
        raise EdgetlError(what, "leave out the steps that change the size or the type")


def varied(image: Tensor, transform: Callable[[Tensor], Tensor], seed: int, epoch: int, index: int) -> Tensor:
    """Apply a random transform with its own generator state; the caller's is left alone."""
    key = hashlib.sha256(f"{seed}:{epoch}:{index}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(key[:8], "big"))
        return transform(image)
