"""A bundle under corruptions: which bundles can be tested so, and the test of one where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl import devices
from edgetl.base.errors import CertifyError
from edgetl.base.progress import Progress
from edgetl.base.schema import from_json
from edgetl.certify import PairedCounts, paired_test
from edgetl.core.bundle import Bundle
from edgetl.core.certificate_parts import Robustness
from edgetl.core.tensors import single
from edgetl.devices.placement import Placement
from edgetl.inputs import Preprocess, kind_of
from edgetl.robustness import measure
from edgetl.runtime.predict import predict
from edgetl.tasks import find_task


def check_corruptible(bundle: Bundle, predictions: Path | None) -> None:
    """Refuse corruptions that mean nothing to a bundle, before any work.

    Args:
        bundle: to be tested.
        predictions: answers of a program of the user's own, which are given instead of running the bundle.

    Raises:
        CertifyError: it reads no images, its task has no accuracy, or it is not to be run.
    """
    kind, task, remedy = kind_of(bundle), find_task(bundle.manifest.task), "leave --corruptions out"
    if kind.name != Preprocess.kind:
        raise CertifyError(f"corruptions are of images, and {bundle.path} reads {kind.noun}s", remedy)
    if not task.has_accuracy:
        what = f"what corruptions cost is told in accuracy, which the task of {bundle.path}, {task.name}, does not have"
        raise CertifyError(what, remedy)
    if predictions is not None:
        raise CertifyError(
            f"{predictions} holds no answers to corrupted images", "leave out --corruptions or --predictions"
        )


def under_corruptions(
    bundle: Bundle, at: Placement, paths: Sequence[Path], limits: tuple[float, float], progress: Progress
) -> Robustness:
    """The paired test of accuracy on corrupted copies of the certify images.

    Args:
        bundle: :func:`check_corruptible` has nothing against it.
        at: where it runs.
        paths: the image files of its certify split, in order.
        limits: margin and one-sided level.
        progress: told of each corruption and severity.
    """

    def before(copies: Sequence[Path]) -> npt.NDArray[Any]:
        return single(predict(bundle, copies, role="exported", progress=progress))

    def after(copies: Sequence[Path]) -> npt.NDArray[Any]:
        # Dozens of short calls: a process for each would take longer than its inferences.
        if at.device.kind == "local":
            return single(predict(bundle, copies, simulated=at.emulates, progress=progress))
        return single(devices.predict(at.device, bundle, copies, simulated=at.emulates, progress=progress))

    def paired(
        first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]
    ) -> dict[str, Any]:
        rights = [{"right": predicted == truth, "label": truth} for predicted in (first, second)]
        test = paired_test(accuracy, rights[0], rights[1], *limits, groups=groups)
        counts = PairedCounts.from_predictions(first, second, truth)
        bounds = {"difference": test.difference, "ci_low": test.ci_low, "ci_high": test.ci_high}
        return {**bounds, "lost": counts.lost, "gained": counts.gained, "verdict": test.verdict}

    labels, groups = bundle.dataset.labels("certify"), bundle.dataset.groups("certify")
    accuracy = find_task(bundle.manifest.task).metrics["accuracy"]
    found = measure(paths, labels, before, after, paired, alpha=limits[1], groups=groups, progress=progress)
    return from_json(Robustness, found, "robustness")
