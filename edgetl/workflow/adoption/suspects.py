"""What may be wrong with what a model's owner declared: each suspect, and what the model answers if it is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.diagnosis.answers import permutation
from edgetl.diagnosis.hypotheses import Preparation, hypotheses, ordered_normalisations
from edgetl.diagnosis.runner import Answer, Suspect
from edgetl.inputs import Preprocess
from edgetl.inputs.base import Input
from edgetl.tasks.logits import softmax
from edgetl.workflow.adoption.network import Network, Values

#: Distance of outputs, as a share of their spread, at which they are the same.
NEAR = 0.02
#: Difference of statistics, of values from 0 to 1, that nobody means.
ALIKE = 1e-4
#: Mean and standard deviation that programs use, besides those that devices do: pixels from 0 to 255, and ImageNet's
#: means of them without a division, as Caffe had it.
_RAW = 1 / 255
#: Mean and standard deviation of the channels.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
_PLAIN: Mapping[str, Statistics] = {
    "raw pixels', no": ((0.0,) * 3, (_RAW,) * 3),
    "Caffe's": ((0.485, 0.456, 0.406), (_RAW,) * 3),
}


def answered(network: Network, definition: Input) -> Answer:
    """What the model answers to a file that is prepared as declared."""
    return lambda path: network.answer(definition.feeds(path))


def cropped_as_torchvision(network: Network, right: Preprocess) -> Answer:
    """What the model answers if a crop starts where torchvision's does: halves of a pixel are rounded to even numbers.

    edgetl rounds them down, which a runner in any language gets right. A pixel more or less is nobody's mistake, and
    moves the outputs of a few pictures by more than what is told from noise.
    """

    def start(over: int) -> int:
        return round(over / 2)

    def answer(path: Path) -> Values:
        image = right.resized(path)
        left, top = start(image.width - right.width), start(image.height - right.height)
        pixels = np.asarray(image.crop((left, top, left + right.width, top + right.height)), np.uint8)
        return network.answer({"image": right.ordered(pixels)[None]})

    return answer


def suspects(network: Network, right: Preprocess) -> list[Suspect]:
    """What may have been done to images instead of what was declared, apart from the normalisation as devices do it."""

    def through(prepare: Preparation) -> Answer:
        return lambda path: network.answer({"image": np.ascontiguousarray(prepare(path))[None]})

    ways = [Suspect(h.kind, h.what, through(h.prepare)) for h in hypotheses(right) if h.kind != "normalisation"]
    return [*ways, *_normalised(network, right)]


def _normalised(network: Network, right: Preprocess) -> Iterator[Suspect]:
    """Other statistics reach the network as they are: bytes, of which a device makes them, would be limited."""
    prepared = network.prepared
    if prepared is None or right.channels == "L":
        return
    for step in (1, -1):
        order = right.channels[::step]
        known = {name: (mean[::step], std[::step]) for name, (mean, std) in _known(right).items()}
        own = (right.mean[::step], right.std[::step])
        if step == -1:
            what = f"feeding the channels as {order}, mean and std in that order"
            yield Suspect("channel-order", what, partial(_seen, prepared, right, step, own))
        turned = f", with the channels as {order}" if step == -1 else ""
        for name, other in known.items():
            if np.abs(np.array(other) - np.array(own)).max() > ALIKE:
                what = f"normalising by {name} mean and standard deviation{turned}"
                yield Suspect("normalisation", what, partial(_seen, prepared, right, step, other))


def _known(right: Preprocess) -> dict[str, Statistics]:
    step = -1 if right.channels == "BGR" else 1
    return ordered_normalisations(right) | {name: (mean[::step], std) for name, (mean, std) in _PLAIN.items()}


def _seen(
    prepared: Callable[[npt.NDArray[np.float32]], Values],
    right: Preprocess,
    step: int,
    statistics: Statistics,
    path: Path,
) -> Values:
    """What the network answers to an image with its channels in this order, normalised so."""
    mean, std = (np.array(values) for values in statistics)
    values = (right.apply(path)[..., ::step] / 255 - mean) / std
    return prepared(np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32))


def of_outputs(own: Values, given: Values) -> tuple[str, float] | None:
    """What was done to a model's outputs, both (n, width), on the way to those that were given; None if nothing known.

    A clause (columns in another order, or probabilities in the place of logits), and how far they still are from them.
    """
    if own.shape[1] > 1:
        once = softmax(own)
        for what, made in {
            "probabilities of the model's outputs: they went through a Softmax": once,
            "the outputs after two Softmax: the second took probabilities for logits": softmax(once),
        }.items():
            if (apart := distance(made, given)) < NEAR:
                return what, apart
        order = permutation(own, given)
        if order is not None:
            moved = [column for column, source in enumerate(order) if column != source]
            first = ", ".join(f"{column} is the model's {order[column]}" for column in moved[:3])
            return f"[label-order] the model's outputs in another order ({first})", distance(own[:, order], given)
    return None


def distance(own: Values, given: Values) -> float:
    """Root mean square of the difference, as a share of the spread of what was given."""
    return float(np.sqrt(((own - given) ** 2).mean()) / max(float(given.std()), 1e-12))
