"""What may be said of a bundle whose head was given classes on the device: what was certified, what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetl.base.wording import counted, enumerated
from edgetl.core.certificate import Certificate

_MOST = 20


def certified(classes: Sequence[str], certificate: Certificate | None) -> str:
    """What the certificate speaks of, in a sentence."""
    named = enumerated(classes, _MOST)
    if certificate is None:
        return f"Not certified yet: {named}."
    told = f"{certificate.verdict} on {counted(certificate.n, 'sample')}, executed: {certificate.executed}"
    return f"Certified: {named} ({told}). Their rows are as they were certified."


def untested(enrolled: Mapping[str, int]) -> str:
    """What nothing has tested, in a sentence."""
    if not enrolled:
        return "Nothing was added: the bundle answers as it was certified."
    named = enumerated([f"{name} ({counted(n, 'sample')})" for name, n in enrolled.items()], _MOST)
    return (
        f"New and untested: {named}. What an added class answers to, a certified one no longer does: "
        "edgetl verify BUNDLE --enrolled tests the changed head on samples that were held out."
    )
