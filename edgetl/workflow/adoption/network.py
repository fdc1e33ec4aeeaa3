"""An adopted model as it is checked: what it answers, and what it would answer to an image normalised otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.storage import sha256_file
from edgetl.compress import graph
from edgetl.compress.foreign import Deployable, Foreign, make_deployable, run_plainly
from edgetl.compress.foreign.deployable import PARITY, ended, open_model
from edgetl.core.run import NETWORK
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.inputs import Preprocess
from edgetl.inputs.base import Input

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """A model in this process.

    Attributes:
        output: name of the task's output.
        answer: named inputs (n, …) → the output, float64 (n, width).
        prepared: a normalised image, float32 (n, channels, height, width) → the same; None where it takes no image, or
            normalises images itself.
        ended: the output → as the model's own file gives it, with its Softmax or Sigmoid.
        write: keeps the model in a folder.
        changes: what was done to it, a clause each.
        parity: how far it is from the model as it was given: see :class:`edgetl.core.adoption.Adoption`.
    """

    output: str
    answer: Callable[[Arrays], Values]
    prepared: Callable[[npt.NDArray[np.float32]], Values] | None
    ended: Callable[[Values], Values]
    write: Callable[[Path], None]
    changes: tuple[str, ...]
    parity: Mapping[str, float]


def from_graph(
    foreign: Foreign, definition: Input, spec: TensorSpec, labels: str, output: str | None, samples: Arrays
) -> Network:
    """A foreign ONNX model behind the input that is defined, proven to compute what it did.

    Args:
        foreign: the model.
        definition: how a sample becomes its input.
        spec: the output that the task reads.
        labels: kind of label of the task.
        output: name of the model's output, where it has several.
        samples: inputs (n, …) to compare both on.

    Raises:
        CompressionError: it takes other inputs or gives other outputs, or does something else once it is changed.
    """
    made = make_deployable(foreign, definition, spec, labels, output)
    session = open_model(made.model)

    def answer(feeds: Arrays) -> Values:
        return _each(lambda row: session.run([spec.name], {k: v[row] for k, v in feeds.items()})[0], feeds)

    parity = _parity(run_plainly(foreign, made, definition, samples, output), ended(answer(samples), made), foreign)
    return Network(
        spec.name,
        answer,
        _prepared(made, spec.name) if isinstance(definition, Preprocess) and "uint8" not in made.takes else None,
        lambda values: ended(values, made),
        lambda folder: _write(made, folder),
        made.changes,
        parity,
    )


def _each(run: Callable[[slice], npt.NDArray[np.floating]], feeds: Arrays) -> Values:
    """One sample at a time: texts are of several lengths, and a graph may take one alone."""
    n = len(next(iter(feeds.values())))
    return np.concatenate([np.asarray(run(slice(row, row + 1)), np.float64) for row in range(n)])


def _prepared(made: Deployable, output: str) -> Callable[[npt.NDArray[np.float32]], Values]:
    # Only a mistake is looked for in this way: an honest model is not loaded twice.
    @cache
    def opened() -> Any:
        return open_model(made.core)

    def answer(planes: npt.NDArray[np.float32]) -> Values:
        session = opened()
        (value,) = session.get_inputs()
        kind = np.float16 if "float16" in value.type else np.float32
        laid = planes if made.takes.endswith("NCHW") else planes.transpose(0, 2, 3, 1)
        return _each(lambda row: session.run([output], {value.name: laid[row].astype(kind)})[0], {"": laid})

    return answer


def _parity(expected: Values, found: Values, foreign: Foreign) -> dict[str, float]:
    if expected.shape != found.shape:
        what = f"{foreign.path} gives {expected.shape[1]} values for a sample, and {found.shape[1]} once it is changed"
        raise CompressionError(what, "export it with one output of classes or values")
    apart, spread = float(np.abs(expected - found).max()), float(np.ptp(expected)) or float(np.abs(expected).max())
    if not math.isfinite(apart) or apart > PARITY * spread:
        what = f"{foreign.path} differs by {apart:.3g} in outputs that span {spread:.3g} once it is changed"
        raise CompressionError(what, "export it plainly: with a fixed size and opset 18")
    return {"max_abs": apart, "logit_range": spread, "n": float(len(expected))}


def _write(made: Deployable, folder: Path) -> None:
    graph.save(made.model, folder / NETWORK)


def digest_of(folder: Path) -> str:
    """SHA-256 of the network that a folder holds."""
    return sha256_file(folder / NETWORK)
