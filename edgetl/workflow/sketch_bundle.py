"""What a bundle's certify samples are like, so that a monitor can tell on the device when others come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.base.schema import to_json
from edgetl.core.bundle import SKETCH, Bundle
from edgetl.core.sketch import MOST_CHARACTERISTICS, MOST_SAMPLES, Sketch
from edgetl.core.tensors import Arrays, rows
from edgetl.inputs import input_of
from edgetl.inputs.base import Input
from edgetl.runtime.characteristics import of_input, of_outputs
from edgetl.tasks import find_task

#: Significant digits that are kept.
_DIGITS = 7
#: What was last read: digest of the definition and files → characteristics, float64 [n].
_LAST: dict[tuple[str, tuple[Path, ...]], Mapping[str, npt.NDArray[np.float64]]] = {}


def write_sketch(bundle: Bundle, paths: Sequence[Path], deployed: Arrays) -> None:
    """Write ``sketch.json`` of a bundle.

    Args:
        bundle: opened and checked.
        paths: of its certify samples on this machine, which were checked against their hashes; where one is missing,
            nothing is said of inputs.
        deployed: the deployed model's outputs for them, (n, …) by name.
    """
    chosen = _chosen(len(paths))
    found = of_outputs(find_task(bundle.manifest.task), rows(deployed, chosen))
    if all(path.is_file() for path in paths):
        found = {**_of_inputs(input_of(bundle), tuple(paths[i] for i in chosen)), **found}
    kept = dict(list(found.items())[:MOST_CHARACTERISTICS])
    values = {name: tuple(float(f"{x:.{_DIGITS}g}") for x in np.sort(given)) for name, given in kept.items()}
    bundle.write_record(SKETCH, to_json(Sketch(len(chosen), values)))


def _chosen(n: int) -> npt.NDArray[np.int64]:
    """All samples, or as many as a sketch may have, drawn at random."""
    if n <= MOST_SAMPLES:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:MOST_SAMPLES])


def _of_inputs(definition: Input, paths: tuple[Path, ...]) -> Mapping[str, npt.NDArray[np.float64]]:
    """The bundles of one export share their samples, and most of them their preprocessing: they are read once."""
    asked = definition.digest, paths
    if asked not in _LAST:
        found = [of_input(definition.feeds(path)) for path in paths]
        _LAST.clear()
        _LAST[asked] = {name: np.array([sample[name] for sample in found]) for name in found[0]}
    return _LAST[asked]
