"""Classes that are added to a bundle on the device, and taken from it again: numpy and the bundle's one runtime.

A class's mean is of features that the deployed artifact itself computes. A bundle from which every added class was
taken again is, byte for byte, the one that came.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.lock import exclusive
from edgetl.core.bundle import Bundle
from edgetl.core.head_file import MOST_PICTURES, EnrolledClass, EnrolledHead, Executed, enrolled_content, objection
from edgetl.core.signature import ENROLLED, ENROLLED_PARTIAL
from edgetl.runtime.open_head import base_head, enrolled_head, open_head

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Enrolment:
    """What a bundle answers with after a class came or went.

    Attributes:
        name: of the class.
        added: samples that its mean took in just now; 0 of one that went.
        certified: classes that the certificate speaks of.
        enrolled: those that were added since, with the number of samples of each.
        bytes: of the file that holds them; 0 without one.
    """

    name: str
    added: int
    certified: tuple[str, ...]
    enrolled: dict[str, int]
    bytes: int


def check_new(bundle: Bundle, name: str) -> None:
    """Refuse a name that no class can be added under, before anything is computed.

    Raises:
        BundleError: the bundle's head is fixed, or damaged.
        EdgetlError: it is no name, or that of a certified class.
    """
    enrolled_head(bundle)
    open_head(bundle)
    if why := objection(name):
        raise EdgetlError(why, "give the class a plain name: --class NAME")
    if name in bundle.labels:
        raise EdgetlError(
            f"'{name}' is one of the {len(bundle.labels)} certified classes, whose rows stay as they were certified",
            "choose another name, or train again with these pictures",
        )


def enroll(bundle: Bundle, name: str, features: Floats, pictures: Sequence[str], executed: Executed) -> Enrolment:
    """Add a class, or more samples to one that was added, in one step that nothing can cut in two.

    Args:
        bundle: whose head stands open.
        name: of the class; none of the certified ones.
        features: of its samples, float32 (n, features), as the deployed artifact computes them.
        pictures: SHA-256 of each sample's file. What the class has already is left out.
        executed: where they were computed: host, device or simulated.

    Raises:
        BundleError: the bundle's head is fixed, or damaged.
        DataError: no sample is new, or their features are no numbers.
        EdgetlError: it is no name, or that of a certified class; another enrolment is under way; the disk is full.
    """
    with exclusive(bundle.path, "enrolment"):
        check_new(bundle, name)
        old = enrolled_head(bundle) or _nothing(bundle)
        row = next((row for row, one in enumerate(old.classes) if one.name == name), None)
        known = old.classes[row].pictures if row is not None else ()
        new = {picture: n for n, picture in enumerate(pictures) if picture not in known}
        _check_samples(bundle, name, features, new)
        rule = base_head(bundle).rule
        prepared = rule.prepared(features[list(new.values())]).astype(np.float64)
        total = prepared.sum(0) + (0 if row is None else len(known) * old.means[row].astype(np.float64))
        mean = (total / (len(known) + len(new))).astype(np.float32)[None]
        one = EnrolledClass(name, (*known, *new), executed)
        whole = _with(old if row is None else _without(old, row), one, mean, rule.rows(mean))
        _write(bundle.path, enrolled_content(whole))
        return _told(bundle, name, len(new), whole)


def forget(bundle: Bundle, name: str) -> Enrolment:
    """Take a class away that was added, in one step; with the last of them, the file that held them goes.

    Raises:
        BundleError: the bundle's head is fixed, or damaged.
        EdgetlError: no such class was added.
    """
    with exclusive(bundle.path, "enrolment"):
        open_head(bundle)
        found = enrolled_head(bundle)
        names = [one.name for one in found.classes] if found else []
        if found is None or name not in names:
            what = f"'{name}' is certified, and stays" if name in bundle.labels else f"no class '{name}' was added"
            there = f"name one of {', '.join(names)}" if names else "nothing was added to this bundle"
            raise EdgetlError(what, there)
        left = _without(found, names.index(name))
        if left.classes:
            _write(bundle.path, enrolled_content(left))
        else:
            (bundle.path / ENROLLED).unlink()
            _settle(bundle.path)
        return _told(bundle, name, 0, left)


def _nothing(bundle: Bundle) -> EnrolledHead:
    head = open_head(bundle)
    rows, numbers = np.zeros((0, head.features), np.float32), np.zeros(0, np.float32)
    return EnrolledHead(bundle.digest, bundle.manifest.files[head.file].sha256, (), rows, rows, numbers)


def _without(head: EnrolledHead, row: int) -> EnrolledHead:
    kept = [n for n in range(len(head.classes)) if n != row]
    classes = tuple(head.classes[n] for n in kept)
    return replace(head, classes=classes, means=head.means[kept], weight=head.weight[kept], bias=head.bias[kept])


def _with(head: EnrolledHead, one: EnrolledClass, mean: Floats, row: tuple[Floats, Floats]) -> EnrolledHead:
    weight, bias = row
    return replace(
        head,
        classes=(*head.classes, one),
        means=np.concatenate([head.means, mean]),
        weight=np.concatenate([head.weight, weight]),
        bias=np.concatenate([head.bias, bias]),
    )


def _check_samples(bundle: Bundle, name: str, features: Floats, new: Mapping[str, int]) -> None:
    if not new:
        raise DataError(f"'{name}' has all of these samples already", "give others")
    if len(new) > MOST_PICTURES:
        raise DataError(f"{len(new)} samples of '{name}' are more than {MOST_PICTURES}", "give fewer")
    width = open_head(bundle).features
    if features.ndim != 2 or features.shape[1] != width or not np.isfinite(features).all():
        raise DataError(f"the features of '{name}' are not {width} finite numbers a sample", "look what computed them")


def _write(folder: Path, content: bytes) -> None:
    """Replace the file of added classes: whoever is stopped at any moment leaves the old one or the new one.

    Raises:
        EdgetlError: the folder is read-only, or the disk is full; the old one stays.
    """
    partial = folder / ENROLLED_PARTIAL
    try:
        # What a process left that was killed, or a link that somebody put there.
        partial.unlink(missing_ok=True)
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(folder / ENROLLED)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        what = f"cannot write {folder / ENROLLED} ({error.strerror or error})"
        raise EdgetlError(what, "free space, or make the bundle's folder writable") from error
    _settle(folder)


def _settle(folder: Path) -> None:
    """Have the disk hold the folder's names as they are now, where the system can be told so."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _told(bundle: Bundle, name: str, added: int, head: EnrolledHead) -> Enrolment:
    file = bundle.path / ENROLLED
    size = file.stat().st_size if head.classes else 0
    return Enrolment(name, added, bundle.labels, {one.name: len(one.pictures) for one in head.classes}, size)
