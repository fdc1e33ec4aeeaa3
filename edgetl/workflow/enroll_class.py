"""A class added to a bundle by the pictures of it, which the device that runs it computes the features of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from edgetl import devices
from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.head_file import Executed
from edgetl.devices.placement import place
from edgetl.runtime import enrolment
from edgetl.runtime.enrolment import Enrolment


def enroll(
    bundle: str | Path | Bundle,
    name: str,
    files: Sequence[str | Path],
    *,
    device: str | None = None,
    public_key: str | Path | None = None,
    progress: Progress = silent,
) -> Enrolment:
    """Add a class to a bundle, or more samples to one that was added: without training, and without its tools.

    Args:
        bundle: of a head of class means (:mod:`edgetl.transfer.strategies.few_shot`), for ONNX Runtime or OpenVINO.
        name: of the class; none of the certified ones.
        files: samples of it.
        device: where their features are computed; this machine when None.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.
        progress: told of each sample.

    Raises:
        BundleError: the bundle's head is fixed, or something of it is damaged.
        DataError: a file is missing or damaged, or none is new.
        DeviceError: the bundle cannot run there.
        EdgetlError: it is no name, or that of a certified class.
    """
    opened, paths = load_bundle(bundle, public_key), [Path(file) for file in files]
    enrolment.check_new(opened, name)
    absent = [path for path in paths if not path.is_file()]
    if absent or not paths:
        raise DataError(
            f"there is no sample {absent[0]}" if absent else "there is no sample", "name files of the class"
        )
    at = place(opened, device)
    (features,) = devices.predict(
        at.device, opened, paths, simulated=at.emulates, head="features", progress=progress
    ).values()
    return enrolment.enroll(opened, name, features, [sha256_file(path) for path in paths], cast(Executed, at.executed))


def forget(bundle: str | Path | Bundle, name: str, *, public_key: str | Path | None = None) -> Enrolment:
    """Take a class away that was added to a bundle.

    Args:
        bundle: the bundle.
        name: of the class.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.

    Raises:
        BundleError: the bundle's head is fixed, or something of it is damaged.
        EdgetlError: no such class was added.
    """
    return enrolment.forget(load_bundle(bundle, public_key), name)
