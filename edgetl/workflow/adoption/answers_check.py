"""Does an adopted model answer as its owner's own program did? ``--answers``: outputs for files known by their hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import DataError, NotReproducedError
from edgetl.base.progress import Progress, tracked
from edgetl.base.wording import count, percent
from edgetl.core.data import Dataset
from edgetl.core.npz import read_npz
from edgetl.diagnosis.runner import explained
from edgetl.inputs import Preprocess
from edgetl.inputs.base import Input
from edgetl.workflow.adoption.network import Network, Values
from edgetl.workflow.adoption.suspects import NEAR, answered, cropped_as_torchvision, distance, of_outputs, suspects

#: Fewest files that are compared.
FEWEST = 24
#: Largest distance at which a mistake explains answers: of two at once, none by itself comes near.
FITS = 0.25
#: Most files that are compared.
MOST = 200


@dataclass(frozen=True)
class _Answered:
    """Files that were answered, those of the certify split last, and the answers, float64 (n, width)."""

    paths: list[Path]
    values: Values
    certify: int


def check_answers(
    file: Path, dataset: Dataset, network: Network, definition: Input, progress: Progress
) -> dict[str, Any]:
    """Compare the model's outputs with those of its owner's program; the evidence that they agree.

    Args:
        file: ``.npz`` with the outputs by the task's name (``logits`` (n, classes)) and ``sha256`` (n) of the files.
        dataset: whose files these are, :data:`FEWEST` of them or more.
        network: the model.
        definition: how a file becomes its input.
        progress: told of each file.

    Raises:
        DataError: no such file, or answers to too few files.
        NotReproducedError: the answers differ; the message names why, as far as that is known.
    """
    given = _read(file, dataset, network)
    answer = answered(network, definition)
    own = np.concatenate([answer(path) for path in tracked(given.paths, "comparing answers", progress)])
    if own.shape != given.values.shape:
        what = f"{file} has {given.values.shape[1]} values for a sample, and the model gives {own.shape[1]}"
        raise DataError(what, "give the outputs of this very model")
    # Who asks a file that ends in Softmax gets probabilities; the model here gives what went into it.
    apart = min(distance(own, given.values), distance(network.ended(own), given.values))
    if apart <= NEAR:
        return {"distance": apart, "n": len(given.paths), "certify": given.certify}
    answers = [own]
    if isinstance(definition, Preprocess):
        other = cropped_as_torchvision(network, definition)
        moved = np.concatenate([other(path) for path in tracked(given.paths, "comparing other crops", progress)])
        closer = min(distance(moved, given.values), distance(network.ended(moved), given.values))
        if closer <= NEAR:
            how = "torchvision's, which rounds halves of a pixel to even numbers"
            return {"distance": closer, "n": len(given.paths), "certify": given.certify, "crop": how}
        answers.append(moved)
    why = _why(answers, given, network, definition, progress)
    what = (
        f"the model's outputs for {count(len(given.paths))} files are {percent(apart, 1)} of their spread away from "
        f"those in {file.name}, more than {percent(NEAR, 0)}: {why}"
    )
    raise NotReproducedError(what, "correct what was declared, and adopt it again")


def _why(answers: Sequence[Values], given: _Answered, network: Network, definition: Input, progress: Progress) -> str:
    told = [one for own in answers if (one := of_outputs(own, given.values)) is not None]
    outputs, found, tried = min(told, key=lambda one: one[1], default=None), None, []
    if isinstance(definition, Preprocess):
        tried = suspects(network, definition)
        right = answered(network, definition)
        found = explained(right, tried, given.paths, given.values, "The answers in the file", progress)
    apart = float(found.evidence["distance"]) if found is not None else np.inf
    # Colours that tell classes make swapped channels look like swapped outputs: what comes nearer did it.
    if outputs is not None and outputs[1] <= apart:
        return f"those are {outputs[0]}"
    if found is not None and apart <= FITS:
        return f"[{found.kind}] {found.what}"
    if tried:
        return f"none of {len(tried)} known mistakes of preprocessing explains them; is it this model's file?"
    return "other weights, another tokenizer, or another scaling of the arrays"


def _read(file: Path, dataset: Dataset, network: Network) -> _Answered:
    try:
        stored = read_npz(file)
        values = np.asarray(stored[network.output], np.float64)
        hashes = [str(name) for name in np.atleast_1d(stored["sha256"]).astype(str)]
        values = values.reshape(len(hashes), -1)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{file} holds no answers ({error})", f"save {network.output} (n, width) and sha256 (n) with numpy.savez"
        ) from error
    if not np.isfinite(values).all():
        raise DataError(f"{file} has {network.output} that are no finite numbers", "give all of them")
    rows = {digest: row for row, digest in enumerate(hashes)}
    if any(not np.array_equal(values[row], values[rows[digest]]) for row, digest in enumerate(hashes)):
        raise DataError(f"{file} has two different answers for one file", "give one for each SHA-256")
    known = [sample for sample in dataset.samples if sample.sha256 in rows]
    # Its labels stay unread, but the certify split is for verify alone: it is looked at only if there is no other way.
    first = [sample for sample in known if sample.split != "certify"]
    spare = [sample for sample in known if sample.split == "certify"]
    chosen = _spread(first, MOST)
    taken = spare[: max(FEWEST - len(chosen), 0)]
    chosen = [*chosen, *taken]
    if len(chosen) < FEWEST:
        what = f"{file} answers {len(known)} of the {len(dataset.samples)} samples, and {FEWEST} are the least"
        raise DataError(what, "give the answers to more of them, each with the SHA-256 of its file")
    picked = values[[rows[sample.sha256] for sample in chosen]]
    return _Answered([dataset.file(sample) for sample in chosen], picked, len(taken))


def _spread(samples: list[Any], most: int) -> list[Any]:
    step = max(1, -(-len(samples) // most))
    return samples[::step]
