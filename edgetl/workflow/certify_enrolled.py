"""A head that was given classes, tested: did the certified classes keep what they had, and are the new ones told?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl import devices
from edgetl.base.errors import CertifyError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_file
from edgetl.certify import Certificate, certify
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.head_file import EnrolledHead
from edgetl.core.signature import ENROLLED
from edgetl.core.tensors import single
from edgetl.devices.placement import Placement, place
from edgetl.runtime.open_head import enrolled_head, labels_of
from edgetl.workflow.answers import certify_files, reference
from edgetl.workflow.certify_bundle import Terms


@dataclass(frozen=True)
class Told:
    """How many held-out samples of an added class were given to it."""

    right: int
    n: int


@dataclass(frozen=True)
class EnrolledTest:
    """What is known of a changed head.

    Attributes:
        certificate: of the certified classes' own held-out samples: the trained model, which knows none of the added
            classes, against the artifact with the changed head.
        added: by name of each added class what became of its held-out samples; None where none were given.
    """

    certificate: Certificate
    added: Mapping[str, Told | None]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is known of each added class."""
        return tuple(
            f"{name}: {found.right} of {found.n} held-out samples are answered rightly."
            if found
            else f"{name}: untested, no held-out samples of it were given."
            for name, found in self.added.items()
        )


def verify_enrolled(
    bundle: str | Path | Bundle,
    *,
    data: str | Path | None = None,
    held_out: str | Path | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    device: str | None = None,
    public_key: str | Path | None = None,
    progress: Progress = silent,
) -> EnrolledTest:
    """Test a head to which classes were added: the same paired test, on the same held-out samples, as the bundle's own.

    Args:
        bundle: to which classes were added.
        data: where the certify samples lie now; they are recognised by their hashes.
        held_out: a folder with a folder for each added class, of samples that were not enrolled.
        margin, alpha: see :func:`edgetl.verify`.
        device: where; this machine when None.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.
        progress: told of each sample.

    Raises:
        CertifyError: nothing was added; samples are missing, or were enrolled.
        BundleError: something of the bundle is damaged.
    """
    opened = load_bundle(bundle, public_key)
    head = enrolled_head(opened)
    if head is None:
        raise CertifyError(f"nothing was added to {opened.path}", "verify it without --enrolled")
    terms, at = Terms.of(opened, margin, alpha), place(opened, device)
    held = _held_out(opened, head, None if held_out is None else Path(held_out))
    paths = certify_files(opened, data, progress)
    labels = labels_of(opened)
    certificate = certify(
        single(reference(opened).reference).argmax(1),
        _answered(opened, at, paths, progress),
        opened.dataset.labels("certify"),
        labels,
        margin=terms.margin,
        alpha=terms.alpha,
        executed=at.executed,
        precision=opened.precision,
        hashes={"manifest": opened.digest, "enrolled": sha256_file(opened.path / ENROLLED)},
        executed_on={"device": at.device.name},
    )
    added = {
        name: Told(int((_answered(opened, at, files, progress) == labels.index(name)).sum()), len(files))
        if files
        else None
        for name, files in held.items()
    }
    return EnrolledTest(certificate, added)


def _answered(bundle: Bundle, at: Placement, paths: list[Path], progress: Progress) -> npt.NDArray[np.int64]:
    found = devices.predict(at.device, bundle, paths, simulated=at.emulates, head="enrolled", progress=progress)
    answers: npt.NDArray[np.int64] = single(found).argmax(1)
    return answers


def _held_out(bundle: Bundle, head: EnrolledHead, folder: Path | None) -> dict[str, list[Path]]:
    """Held-out samples of each added class."""
    found = dict[str, list[Path]]()
    for one in head.classes:
        place = None if folder is None else folder / one.name
        files = sorted(file for file in place.iterdir() if file.is_file()) if place and place.is_dir() else []
        known = [file for file in files if sha256_file(file) in one.pictures]
        if known:
            what = (
                f"{len(known)} of the {len(files)} held-out samples of '{one.name}' were enrolled (first: {known[0]})"
            )
            raise CertifyError(what, "hold out others: what a class was made of tests nothing")
        found[one.name] = files
    if folder is not None and not any(found.values()):
        named = ", ".join(found)
        raise CertifyError(f"{folder} holds no samples of an added class", f"give it a folder called {named}")
    return found
