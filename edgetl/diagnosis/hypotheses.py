"""Ways to prepare images wrongly: what programs on devices, and declarations of foreign models, get wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from edgetl.inputs.image import INTERPOLATIONS, Preprocess
from edgetl.inputs.pictures import decode

Pixels = npt.NDArray[np.uint8]
Preparation = Callable[[Path], Pixels]
#: Mean and standard deviation that runners use: of ImageNet, of Inception, none at all, CLIP's.
NORMALISATIONS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "Inception's": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "no": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
#: Crop ratios in use: the network's size as a share of the shorter side after resizing.
RATIOS = (1.0, 0.975, 0.965, 0.95, 0.9, 0.882, 0.875, 0.85, 0.8, 0.75)


@dataclass(frozen=True)
class Hypothesis:
    """One way to prepare an image wrongly: the kind of fault, what is done, and doing it."""

    kind: str
    what: str
    prepare: Preparation


def hypotheses(preprocess: Preprocess) -> list[Hypothesis]:
    """Every mistake that is tried."""
    if (preprocess.mode, preprocess.channels) != ("shorter", "RGB"):
        return _redefined(preprocess)
    ways = [*_arrangements(preprocess), *_resizes(preprocess), *_crops(preprocess), *_normalisations(preprocess)]
    return [*ways, *(h for h in _modes(preprocess) if "squash" not in h.what)]


def _redefined(right: Preprocess) -> list[Hypothesis]:
    """For any definition: another filter, another way to the network's size, another order, other statistics."""
    orders = {"RGB": "BGR", "BGR": "RGB"}
    changed = [
        ("interpolation", f"resizing by {name} instead of {right.interpolation}", replace(right, interpolation=name))
        for name in INTERPOLATIONS
        if name != right.interpolation
    ]
    if right.channels in orders:
        other = orders[right.channels]
        changed.append(("channel-order", f"feeding the channels as {other}", replace(right, channels=other)))
    found = [Hypothesis(kind, what, made.apply) for kind, what, made in changed] + _modes(right)
    if right.mode == "squash":
        for name in ("bilinear", "bicubic"):
            what = f"resizing by {name} without antialiasing"
            found.append(Hypothesis("interpolation", what, partial(_sampled_whole, right, name)))
    return found + (_normalisations(right) if right.channels in orders else [])


def _modes(right: Preprocess) -> list[Hypothesis]:
    """The other ways to the network's size; of a crop, at each ratio that is in use."""
    sides = (right.height, right.width)
    least = {"squash": min(sides), "letterbox": max(sides), "longest": max(sides)}
    ways = [
        (f"resizing as {mode} instead of {right.mode}", replace(right, mode=mode, resize=resize))
        for mode, resize in least.items()
        if mode != right.mode
    ]
    if right.mode != "shorter":
        ways += [
            (
                f"resizing as shorter, to {length} pixels before the crop (ratio {max(sides) / length:.3f}), "
                f"instead of {right.mode}",
                replace(right, mode="shorter", resize=length),
            )
            for length in sorted({round(max(sides) / ratio) for ratio in RATIOS})
        ]
    return [Hypothesis("preprocessing", what, made.apply) for what, made in ways]


def _arrangements(right: Preprocess) -> list[Hypothesis]:
    shape = (right.height, right.width, 3)

    def planar(path: Path) -> Pixels:
        return right.apply(path).transpose(2, 0, 1).reshape(shape)

    def interleaved(path: Path) -> Pixels:
        return right.apply(path).reshape(3, right.height, right.width).transpose(1, 2, 0)

    found = [
        Hypothesis("channel-order", "feeding the channels as BGR", lambda path: right.apply(path)[..., ::-1]),
        Hypothesis("layout", "feeding planes (NCHW memory) where pixels (NHWC) are read", planar),
        Hypothesis("layout", "reading pixels (NHWC memory) as planes (NCHW)", interleaved),
    ]
    if right.height == right.width:
        turned = "feeding columns as rows"
        found.append(Hypothesis("layout", turned, lambda path: right.apply(path).transpose(1, 0, 2)))
    return found


def _resizes(right: Preprocess) -> list[Hypothesis]:
    others = [name for name in INTERPOLATIONS if name != right.interpolation]
    plain = [
        Hypothesis(
            "interpolation",
            f"resizing by {name} instead of {right.interpolation}",
            replace(right, interpolation=name).apply,
        )
        for name in others
    ]
    return plain + [
        Hypothesis(
            "interpolation",
            f"resizing by {name} without antialiasing",
            partial(_sampled, right, name),
        )
        for name in ("bilinear", "bicubic")
    ]


def _sampled(right: Preprocess, filter_: str, path: Path) -> Pixels:
    """As OpenCV and many a device resize: each new pixel from its nearest few old ones, however far apart they are."""
    image = decode(path)
    scale = min(image.size) / right.resize
    left = (int(image.width / scale) - right.width) // 2
    top = (int(image.height / scale) - right.height) // 2
    matrix = (scale, 0, left * scale, 0, scale, top * scale)
    resample = Pillow.Resampling[filter_.upper()]
    size = (right.width, right.height)
    return np.asarray(image.transform(size, Pillow.Transform.AFFINE, matrix, resample), np.uint8)


def _sampled_whole(right: Preprocess, filter_: str, path: Path) -> Pixels:
    """The same, of a whole picture squashed to the network's size."""
    image = decode(path)
    matrix = (image.width / right.width, 0, 0, 0, image.height / right.height, 0)
    resample = Pillow.Resampling[filter_.upper()]
    made = image.transform((right.width, right.height), Pillow.Transform.AFFINE, matrix, resample)
    return right.ordered(np.asarray(made.convert("L") if right.channels == "L" else made, np.uint8))


def _crops(right: Preprocess) -> list[Hypothesis]:
    side = max(right.height, right.width)
    lengths = {round(side / ratio): ratio for ratio in RATIOS} | {side + 32: side / (side + 32)}
    found = [
        Hypothesis(
            "crop-ratio",
            f"resizing to {length} pixels before the crop (ratio {ratio:.3f}) instead of {right.resize}",
            replace(right, resize=length).apply,
        )
        for length, ratio in sorted(lengths.items())
        if abs(length - right.resize) > 1
    ]
    size = (right.width, right.height)
    filter_ = Pillow.Resampling[right.interpolation.upper()]

    def squeezed(path: Path) -> Pixels:
        return np.asarray(decode(path).resize(size, filter_), np.uint8)

    def upright(path: Path) -> Pixels:
        with Pillow.open(path) as image:
            return right.apply(image.convert("RGB"))

    found.append(Hypothesis("crop-ratio", "squeezing the whole image instead of cropping it", squeezed))
    found.append(Hypothesis("preprocessing", "ignoring the orientation in the EXIF data", upright))
    return found + _crops_first(right, filter_)


def _crops_first(right: Preprocess, filter_: Pillow.Resampling) -> list[Hypothesis]:
    size = (right.width, right.height)

    def crop_first(box: tuple[int, int], then: int, path: Path) -> Pixels:
        cropped = _centre(decode(path), box)
        short = min(box)
        resized = cropped.resize((round(box[0] * then / short), round(box[1] * then / short)), filter_)
        return np.asarray(_centre(resized, size).resize(size, filter_), np.uint8)

    ways = {
        f"cropping {size[0]}x{size[1]} pixels of the raw image before resizing": (size, right.resize),
        f"cropping {size[0]}x{size[1]} pixels of the raw image and resizing no more": (size, min(size)),
        f"cropping {right.resize}x{right.resize} pixels of the raw image and resizing them": (
            (right.resize, right.resize),
            min(size),
        ),
    }
    return [
        Hypothesis("crop-before-resize", what, partial(crop_first, box, then)) for what, (box, then) in ways.items()
    ]


def _centre(image: Pillow.Image, size: tuple[int, int]) -> Pillow.Image:
    """The centre of an image; black where the image is too small, as torchvision does it."""
    left, top = ((own - wanted) // 2 for own, wanted in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def ordered_normalisations(right: Preprocess) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """:data:`NORMALISATIONS` in the order of a definition's channels."""
    step = -1 if right.channels == "BGR" else 1
    return {name: (mean[::step], std[::step]) for name, (mean, std) in NORMALISATIONS.items()}


def _normalisations(right: Preprocess) -> list[Hypothesis]:
    mean, std = np.array(right.mean), np.array(right.std)

    def seen_through(other: tuple[tuple[float, ...], tuple[float, ...]], path: Path) -> Pixels:
        # The pixels that the right normalisation would turn into what the wrong one gives.
        wrong = (right.apply(path) / 255 - np.array(other[0])) / np.array(other[1])
        return np.asarray(np.clip(np.rint(255 * (wrong * std + mean)), 0, 255), np.uint8)

    found = [
        Hypothesis(
            "normalisation",
            f"normalising by {name} mean and standard deviation",
            partial(seen_through, other),
        )
        for name, other in ordered_normalisations(right).items()
        if np.abs(np.array(other) - np.array([mean, std])).max() > 0.01
    ]
    twice = "normalising before the graph does so again"

    def again(path: Path) -> Pixels:
        once = (right.apply(path) / 255 - mean) / std
        return np.asarray(np.clip(np.rint(once), 0, 255), np.uint8)

    return [*found, Hypothesis("normalisation", twice, again)]
