"""From image file to network input: one definition, used by training, calibration, export and the device.

The host part (decode, resize, crop or pad, order of channels) is :meth:`Preprocess.apply` and gives uint8, NHWC. The
rest (cast to float, channels first, normalise) lives in the exported graph, so that no runner has to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_json
from edgetl.core.tensors import TensorSpec
from edgetl.inputs.base import InputKind
from edgetl.inputs.look import look, taken
from edgetl.inputs.pictures import as_rgb, decoded, fingerprint, grey, named, opened, remark, resize

if TYPE_CHECKING:
    from PIL.Image import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
#: How a picture of any shape comes to the network's; see :class:`Preprocess`.
MODES = ("shorter", "squash", "letterbox", "longest")
#: Channels of the network's image, by the name of their order.
CHANNELS: Mapping[str, int] = {"RGB": 3, "BGR": 3, "L": 1}
#: Which arithmetic makes the pixels. 1 resizes in Pillow's single call, whose outcome for tall pictures changed with
#: Pillow 13; 2 has the same outcome in all of them; 3 also scales greys of more than 8 bits by what they hold, and
#: refuses numbers that are no brightness.
VERSION = 3
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image before the network sees it.

    Attributes:
        height, width: the network's input, pixels.
        resize: pixels. Mode ``shorter``: length of the shorter side after resizing. Mode ``squash``: the same; equal
            to the shorter of height and width, nothing is cropped. Else the longer of height and width.
        interpolation: Pillow's antialiased filter of this name.
        mean, std: per channel, in the order of ``channels``, of values scaled to 0…1; applied inside the graph.
        mode: ``shorter`` keeps the aspect ratio, the longer side becomes ``resize * long // short``, as in torchvision
            and timm, and the centre is cropped. ``squash`` gives up the ratio: all of the picture is resized to
            height x width or, where ``resize`` asks for more, to that shape enlarged, and the centre is cropped.
            ``letterbox`` keeps all of the picture and its ratio and pads on both sides, ``longest`` right and below.
            A crop or a pad starts at half of what is over, rounded down: whole numbers that a runner in any language
            gets right (torchvision rounds halves to the even number, so it may start one pixel further).
        channels: ``RGB``, ``BGR`` or ``L`` (grey: ITU-R 601-2 luma, as Pillow computes it, before resizing).
        pad: the padding's colour, red, green and blue from 0 to 255, whatever ``channels`` says.
        version: see :data:`VERSION`; an older one only for ``shorter`` and ``RGB``.
    """

    kind: ClassVar[str] = "image"

    height: int
    width: int
    resize: int
    interpolation: str
    mean: Floats
    std: Floats
    mode: str = "shorter"
    channels: str = "RGB"
    pad: tuple[int, int, int] = (0, 0, 0)
    version: int = VERSION

    def __post_init__(self) -> None:
        chosen = (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("mode", self.mode, MODES),
            ("channels", self.channels, tuple(CHANNELS)),
        )
        for field, value, known in chosen:
            if value not in known:
                raise DataError(f"unknown {field} '{value}'", f"use one of {', '.join(known)}")
        oldest = self.version == 1 and (self.mode, self.channels) == ("shorter", "RGB")
        if self.version not in (2, VERSION) and not oldest:
            raise DataError(f"no preprocessing of version {self.version} is known", "make it again with this edgetl")
        self._check_lengths()
        self._check_colours()

    def _check_lengths(self) -> None:
        sides = (self.height, self.width)
        longest = {"shorter": max(sides), "squash": min(sides)}.get(self.mode)
        if min(sides) < 1 or (longest is not None and self.resize < longest):
            raise DataError(
                f"a {self.height}x{self.width} crop does not fit into a shorter side of {self.resize} pixels",
                "raise resize or lower the input size",
            )
        if longest is None and self.resize != max(sides):
            raise DataError(
                f"the mode {self.mode} keeps the whole image and cannot resize it to {self.resize} pixels",
                f"leave resize out: it is {max(sides)}, the longer of height and width",
            )

    def _check_colours(self) -> None:
        count = CHANNELS[self.channels]
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != count or len(self.std) != count or not finite or min(self.std) <= 0:
            many = "three values each" if count == 3 else "one value each"
            raise DataError(f"mean and std need {many}, and std positive ones", "correct the preprocessing")
        if len(self.pad) != 3 or not all(0 <= value <= 255 for value in self.pad):
            raise DataError(f"the pad colour {list(self.pad)} is no colour", "give red, green and blue from 0 to 255")

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """One: ``image``, uint8 (n, height, width, channels)."""
        return (TensorSpec("image", "uint8", (None, self.height, self.width, CHANNELS[self.channels])),)

    @property
    def files(self) -> Mapping[str, bytes]:
        """None."""
        return {}

    def feeds(self, source: Path | str | bytes | Image | npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """One image, from its file or the bytes of one, from Pillow, or as a uint8 array, RGB (h, w, 3), RGBA (h, w, 4)
        or grey (h, w).

        An image is turned upright, as its EXIF orientation says, wherever it comes from.

        Returns:
            ``image``, uint8 (1, height, width, channels).

        Raises:
            DataError: the file is missing, truncated or no image, or no array of an image.
        """
        return {"image": self.apply(opened(source))[None]}

    def batch(self, sources: Iterable[Any]) -> dict[str, npt.NDArray[Any]]:
        """Several images: ``image``, uint8 (n, height, width, channels).

        Raises:
            DataError: there is none, or as :meth:`feeds` does.
        """
        images = [self.feeds(source)["image"] for source in sources]
        if not images:
            raise DataError("there is no image", "give at least one")
        return {"image": np.concatenate(images)}

    def apply(self, source: Path | bytes | Image) -> npt.NDArray[np.uint8]:
        """Decode, resize, crop or pad, and order the channels of one image.

        Returns:
            uint8 array of shape (height, width, channels).

        Raises:
            DataError: the file is missing, truncated or no image.
        """
        image = self.resized(source)
        left = (image.width - self.width) // 2
        top = (image.height - self.height) // 2
        return self.ordered(np.asarray(image.crop((left, top, left + self.width, top + self.height)), dtype=np.uint8))

    def ordered(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Pixels of :meth:`resized`, uint8 (h, w, 3) in RGB or (h, w), as the network sees them: (h, w, channels)."""
        shaped = pixels if pixels.ndim == 3 else pixels[..., None]
        return np.ascontiguousarray(shaped[..., ::-1]) if self.channels == "BGR" else shaped

    def resized(self, source: Path | bytes | Image) -> Image:
        """Decode, resize and pad one image without cropping it; :meth:`apply` crops what this returns.

        Doing it again to what it returns changes nothing.

        Returns:
            an image of mode RGB, or L where that is the network's.

        Raises:
            DataError: the file is missing, truncated or no image, or its shape would take too much memory.
        """
        by_content = self.version >= 3
        if isinstance(source, Path | bytes):
            with decoded(source, by_content=by_content) as image:
                return self._resized(image, named(source))
        try:
            image = as_rgb(source, by_content=by_content)
        except DataError as error:
            raise DataError(f"the image {error.what}", error.remedy) from error
        return self._resized(image, named(source))

    def _resized(self, image: Image, name: str) -> Image:
        if self.channels == "L":
            image = grey(image)
        image = resize(image, self.scaled(*image.size), self.interpolation, name, whole=self.version == 1)
        return self._padded(image) if self.mode in ("letterbox", "longest") else image

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, pixels, to which a picture of this width and height is resized, before crop or pad."""
        if self.mode == "shorter":
            short, long = sorted((width, height))
            length = self.resize * long // short
            return (self.resize, length) if width <= height else (length, self.resize)
        if self.mode == "squash":
            short = min(self.height, self.width)
            return self.resize * self.width // short, self.resize * self.height // short
        # All of the picture is to fit; the side that touches the border has its exact length, halves are rounded up.
        if width * self.height <= self.width * height:
            return max(1, (2 * width * self.height + height) // (2 * height)), self.height
        return self.width, max(1, (2 * height * self.width + width) // (2 * width))

    def _padded(self, image: Image) -> Image:
        if image.size == (self.width, self.height):
            return image
        from PIL import Image as Pillow

        canvas = Pillow.new("RGB", (self.width, self.height), self.pad).convert(image.mode)
        over = (self.width - image.width, self.height - image.height)
        canvas.paste(image, (over[0] // 2, over[1] // 2) if self.mode == "letterbox" else (0, 0))
        return canvas

    @property
    def digest(self) -> str:
        """SHA-256 of the definition: equal for equal preprocessing."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; those of version 1 as they were written then."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std), "layout": "NHWC"}
        if self.version == 1:
            return {name: value for name, value in values.items() if name not in ("mode", "pad", "version")}
        return {**values, "pad": list(self.pad), "kind": self.kind}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preprocess:
        """Read what :meth:`to_json` wrote; a record without a version is of the first.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        mode = str(record.get("mode", "shorter"))
        try:
            if record.get("layout", "NHWC") != "NHWC":
                raise ValueError(f"the layout {record['layout']} is not NHWC")
            height, width = int(record["height"]), int(record["width"])
            least = {"squash": min(height, width), "letterbox": max(height, width), "longest": max(height, width)}
            resize = record["resize"] if mode not in least else record.get("resize", least[mode])
            red, green, blue = (int(value) for value in record.get("pad", (0, 0, 0)))
            return cls(
                height=height,
                width=width,
                resize=int(resize),
                interpolation=str(record["interpolation"]),
                mean=tuple(float(value) for value in record["mean"]),
                std=tuple(float(value) for value in record["std"]),
                mode=mode,
                channels=str(record.get("channels", "RGB")),
                pad=(red, green, blue),
                version=int(record.get("version", 1)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the preprocessing definition is malformed ({error})", "make it again") from error


KIND = InputKind(
    name=Preprocess.kind,
    about="pictures that Pillow decodes, resized and cropped or padded to the network's size; uint8",
    noun="image",
    suffixes=(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".ico"),
    read=lambda record, folder: Preprocess.from_json(record),
    fields=frozenset(field.name for field in fields(Preprocess)) | {"layout"},
    given=lambda record, folder: Preprocess.from_json({"version": VERSION, **record}),
    fingerprint=fingerprint,
    remark=remark,
    taken=taken,
    look=look,
    modules=("PIL",),
)
