"""The head of a bundle that stands open: what was certified, and what was added to it on the device.

    enrolled.head   beside the manifest, and not in it: added classes (:mod:`edgetl.core.head_file`)

The bundle's own files stay as they were certified and, perhaps, signed. Rows of added classes follow those of the
certified ones, which nothing here can change.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.core.artifact import Artifact, HeadValues
from edgetl.core.bundle import Bundle
from edgetl.core.bundle_files import file_of
from edgetl.core.head_file import BaseHead, EnrolledHead, read_base, read_enrolled
from edgetl.core.manifest import OpenHead
from edgetl.core.signature import ENROLLED, signed_names

Floats = npt.NDArray[np.float32]


def open_head(bundle: Bundle) -> OpenHead:
    """What a bundle's manifest says of the head that stands open.

    Raises:
        BundleError: its head is fixed.
    """
    if bundle.manifest.head is None:
        raise BundleError(
            f"the head of {bundle.path} is fixed: no class can be added to it or taken from it",
            "train with --strategy prototype, nearest-mean, slda, cosine or ridge, and export for a target that runs "
            "ONNX Runtime or OpenVINO",
        )
    return bundle.manifest.head


def base_head(bundle: Bundle) -> BaseHead:
    """The head that was certified.

    Raises:
        BundleError: it is fixed, or its file does not fit the bundle.
    """
    head = open_head(bundle)
    read = read_base(bundle.file(head.file))
    if read.weight.shape != (len(bundle.labels), head.features):
        raise BundleError(
            f"{bundle.path / head.file} has {read.weight.shape[0]} classes of {read.weight.shape[1]} features, and the "
            f"bundle {len(bundle.labels)} of {head.features}",
            "export the bundle again",
        )
    return read


def enrolled_head(bundle: Bundle) -> EnrolledHead | None:
    """What was added to a bundle's head; None where nothing was.

    Raises:
        BundleError: it is damaged, belongs to another bundle, or was not signed where a signature was asked for.
    """
    file = file_of(bundle.path, ENROLLED)
    if not file.is_file():
        return None
    head = open_head(bundle)
    if bundle.signed_by and ENROLLED not in signed_names(bundle.path):
        raise BundleError(
            f"{file} was added after the bundle was signed, and the key {bundle.signed_by[:16]}… did not sign it",
            "sign the bundle with a key of your own (edgetl sign), leave --public-key out, or remove the file",
        )
    found = read_enrolled(file)
    again = "remove it, then enroll the classes in this bundle"
    if found.bundle != bundle.digest or found.base != bundle.manifest.files[head.file].sha256:
        raise BundleError(f"{file} belongs to another bundle", again)
    if found.means.shape[1] != head.features or {one.name for one in found.classes} & set(bundle.labels):
        raise BundleError(f"{file} does not fit the bundle's head", again)
    return found


def labels_of(bundle: Bundle) -> tuple[str, ...]:
    """Class names in the order of the logits, added ones last."""
    found = enrolled_head(bundle)
    return (*bundle.labels, *(one.name for one in found.classes)) if found else bundle.labels


def answering(bundle: Bundle, role: str = "deployed") -> Artifact:
    """The artifact with the head that answers: the certified one, and what was added to it.

    Raises:
        BundleError: see :func:`enrolled_head`; or another role is asked for than the one that has an open head.
    """
    artifact, found = bundle.artifact(role), enrolled_head(bundle)
    if found is None:
        return artifact
    if role != "deployed":
        raise BundleError(f"the {role} model of {bundle.path} has none of the added classes", "ask the deployed one")
    base = base_head(bundle)
    weight, bias = (np.concatenate(pair) for pair in ((base.weight, found.weight), (base.bias, found.bias)))
    return replace(artifact, head=_values(bundle, weight, bias))


def seeing(bundle: Bundle) -> Artifact:
    """The deployed artifact with a head that answers with what it reads, number for number: the features.

    Raises:
        BundleError: its head is fixed.
    """
    width = open_head(bundle).features
    return replace(
        bundle.artifact(), head=_values(bundle, np.eye(width, dtype=np.float32), np.zeros(width, np.float32))
    )


def _values(bundle: Bundle, weight: Floats, bias: Floats) -> HeadValues:
    head = open_head(bundle)
    return HeadValues(head.weight, head.bias, head.transposed, weight, bias)
