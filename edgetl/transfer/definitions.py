"""How a sample becomes a backbone's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetl.base.errors import EdgetlError
from edgetl.inputs import Tensors, Text
from edgetl.inputs.base import Input
from edgetl.inputs.image import Preprocess
from edgetl.transfer.backbones import Backbone, find
from edgetl.transfer.weights import packaged

TOKENIZER = "tokenizer.json"


def preprocess_for(name: str, image_size: int | None = None) -> Preprocess:
    """How an image becomes this backbone's input.

    Args:
        name: as for :func:`edgetl.transfer.backbones.find`.
        image_size: height and width in pixels instead of the backbone's own; the share of the resized image that
            the crop keeps stays the same.

    Raises:
        UnknownNameError: no such backbone.
        EdgetlError: it takes no images, or the size is under 8 pixels.
    """
    own = find(name).preprocess
    if own is None:
        raise EdgetlError(f"the backbone '{name}' takes no images", "choose another from: edgetl backbones")
    if image_size is None:
        return own
    if image_size < 8:
        raise EdgetlError(f"an image size of {image_size} pixels is too small", "give at least 8")
    resize = max(round(image_size * own.resize / max(own.height, own.width)), image_size)
    return replace(own, height=image_size, width=image_size, resize=resize)


def before_data(backbone: Backbone, image_size: int | None) -> Input | None:
    """The definition of images and texts, which the backbone decides; None for arrays, where the data does.

    Raises:
        EdgetlError: a size for what is no image, or one under 8 pixels.
    """
    if image_size is not None and backbone.input != "image":
        raise EdgetlError(f"an image size means nothing to the backbone '{backbone.name}'", "leave --image-size out")
    if backbone.input == "image":
        return preprocess_for(backbone.name, image_size)
    return Text.of(packaged(backbone).with_name(TOKENIZER)) if backbone.input == "text" else None


def of_arrays(backbone: Backbone, train: Sequence[Path]) -> Tensors:
    """The definition of arrays: the shape of the first, and statistics of the training samples.

    A network of numbers side by side standardises each place along the last axis (the columns of a table, the channels
    of a window of a sensor), one of convolutions each channel of (channels, height, width).

    Raises:
        DataError: no array, or another shape than the first one's.
    """
    if backbone.name != "cnn":
        return Tensors.of(train, axis=-1)
    axes = len(Tensors.of(train[:1]).arrays[0].shape)
    return Tensors.of(train, axis=0 if axes == 3 else None)
