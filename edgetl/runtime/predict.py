"""From image files to logits, through a bundle's own preprocessing and runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.core.bundle import GOLDEN, Bundle
from edgetl.inputs import preprocess_of
from edgetl.runtime.sessions import Session, open_session

#: Largest share of the logits' range by which a golden vector may differ from one machine to the next. Other
#: ISAs round integers differently: 1 to 2 % between x86-64 and aarch64 was measured.
GOLDEN_TOLERANCE = 0.05


def predict(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    role: str = "deployed",
    threads: int | None = None,
    simulated: bool = False,
    progress: Progress = silent,
) -> npt.NDArray[np.float32]:
    """Run image files through a bundle, one at a time, so that memory does not grow with their number.

    Args:
        bundle: opened and checked.
        paths: image files.
        role: ``deployed`` or ``float``.
        threads: worker threads; all cores when None.
        simulated: see :func:`edgetl.runtime.sessions.open_session`.
        progress: told of each image.

    Returns:
        float32 logits of shape (n, classes).

    Raises:
        DataError: an image is missing or damaged.
        BackendError: the runtime refuses the artifact.
    """
    preprocess, classes = preprocess_of(bundle), len(bundle.labels)
    logits = np.empty((len(paths), classes), np.float32)
    task = f"{bundle.target}: running {'(simulated) ' if simulated else ''}{role}"
    with closing(_open(bundle, role, threads, simulated)) as session:
        for row, path in enumerate(tracked(paths, task, progress)):
            logits[row] = infer(session, preprocess.apply(path)[None])[0]
    return logits


def _open(bundle: Bundle, role: str, threads: int | None, simulated: bool) -> Session:
    return open_session(bundle.artifact(role), threads=threads or os.cpu_count() or 1, simulated=simulated)


def infer(session: Session, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """One run of a session: uint8 (n, H, W, 3) → float32 logits (n, classes).

    A graph with a fixed batch is filled up with copies of the last image, whose logits are left out.
    """
    n, size = len(images), session.input_shape[0] or len(images)
    if n < size:
        images = np.concatenate([images, np.repeat(images[-1:], size - n, axis=0)])
    outputs = session.run({session.input_name: images})
    return np.asarray(next(iter(outputs.values()))[:n], np.float32)


def read_golden(bundle: Bundle) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The bundle's raw images (uint8, n×H×W×3) and the logits expected for them (float32, n×classes).

    Raises:
        BundleError: the bundle has no golden vectors.
    """
    if not (bundle.path / GOLDEN).is_file():
        raise BundleError(f"{bundle.path} has no golden vectors", "export it again")
    with np.load(bundle.path / GOLDEN, allow_pickle=False) as stored:
        return stored["images"], stored["logits"]


def selftest(bundle: Bundle, *, threads: int | None = None, simulated: bool = False) -> dict[str, Any]:
    """Does this machine give the golden logits?

    Returns:
        ``passed``, ``max_difference`` (share of the logits' range), ``tolerance`` and ``n``.

    Raises:
        BundleError: the bundle has no golden vectors.
    """
    images, expected = read_golden(bundle)
    with closing(_open(bundle, "deployed", threads, simulated)) as session:
        found = np.concatenate([infer(session, image[None]) for image in images])
    spread = float(np.ptp(expected)) or 1.0
    difference = float(np.abs(found - expected).max()) / spread
    return {
        "passed": difference <= GOLDEN_TOLERANCE,
        "max_difference": difference,
        "tolerance": GOLDEN_TOLERANCE,
        "n": len(images),
    }
