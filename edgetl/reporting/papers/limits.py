"""What a model cannot do, what it was not tested on, and what was given up for what, as its records tell."""

from __future__ import annotations

from collections.abc import Iterator

from edgetl.base.wording import amount, change, counted, in_points, percent
from edgetl.core.bundle import Bundle
from edgetl.core.certificate import Certificate
from edgetl.core.data.samples import CLASS
from edgetl.tasks import TASKS

#: What a certificate says of where the deployed model ran, and what that leaves open.
_EXECUTED = {
    "simulated": "It was only simulated, on another machine: on its target it never ran, as far as its papers know.",
    "claimed": "Its answers were given to edgetl, which did not see it run.",
}
_ELSEWHERE = "It was trained elsewhere: on which samples, and which of them were like those here, is unknown."
_SUBGROUPS = "Whether it is worse for some people, places or devices that took the samples was not measured."
_LATENCY = "How fast it is stands in bench.json, where it was measured at all, and is no part of its certificate."


def limits(bundle: Bundle, certificate: Certificate, data: str) -> tuple[str, ...]:
    """What its user has to know, the certificate's own words first.

    Args:
        bundle: the model's.
        certificate: of it.
        data: name of the data; "" where nobody knows.
    """
    return tuple(dict.fromkeys([*_certified(certificate), *_untested(bundle, certificate, data), *certificate.notes]))


def _certified(certificate: Certificate) -> Iterator[str]:
    yield certificate.sentence()
    if certificate.verdict != "pass":
        margin = amount(certificate.margin, certificate.unit)
        yield f"It is not proven to lose less than {margin}: its verdict is {certificate.verdict}."
    for finding in certificate.findings:
        yield f"{finding.title[:1].upper()}{finding.title[1:]} ({finding.severity}): {finding.what}"


def _untested(bundle: Bundle, certificate: Certificate, data: str) -> Iterator[str]:
    samples = counted(certificate.n, certificate.sample)
    if certificate.agreement is None:
        yield f"It was tested on {samples} of {data or 'its data'}, and on none from elsewhere."
    else:
        yield f"It was compared with the trained model on {samples} without labels: how often it is right is not known."
    if certificate.task in TASKS and TASKS[certificate.task].labels == CLASS:
        yield f"It names one of its {len(bundle.labels)} classes, whatever it is shown; what is of none was not tried."
    if certificate.sample == "image":
        yield from _corrupted(certificate)
    yield _EXECUTED.get(certificate.executed) or _machine(certificate)
    run = bundle.manifest.run
    if run is not None and run.adoption is not None:
        yield _ELSEWHERE
    prepared = certificate.hashes.get("preprocess", "")[:16]
    yield f"Samples prepared in another way than preprocess.json says (SHA-256 {prepared}…) were not tried."
    yield _SUBGROUPS
    yield _LATENCY


def _machine(certificate: Certificate) -> str:
    told = [certificate.executed_on.get(name) for name in ("board", "cpu_model")]
    named = next((name for name in told if isinstance(name, str) and name), "one machine")
    return f"It ran on {named}; other machines of its target were not tried."


def _corrupted(certificate: Certificate) -> Iterator[str]:
    if certificate.robustness is None:
        yield "It was not tested under blur, noise, JPEG compression, or another brightness or contrast."
        return
    row = certificate.robustness.worst
    yield (
        f"Of the corruptions that were tried, {row.corruption} of severity {row.severity} costs the deployed model "
        f"most beside the trained one: {in_points(row.difference)} of accuracy on {counted(row.n, certificate.sample)}."
    )


def tradeoffs(bundle: Bundle, certificate: Certificate) -> tuple[str, ...]:
    """What compression gave up, and for what."""
    deployed, twin = bundle.manifest.artifacts["deployed"], bundle.manifest.artifacts.get("float")
    if twin is None or twin.file == deployed.file:
        return ()
    return (
        f"{deployed.precision} in the place of {twin.precision}: {deployed.bytes / 1e6:.2f} MB in the place of "
        f"{twin.bytes / 1e6:.2f} MB, and {_difference(certificate)} of {certificate.metric}.",
    )


def _difference(certificate: Certificate) -> str:
    if certificate.difference is not None:
        return change(certificate.difference, certificate.unit)
    return f"{change(certificate.ci_low, certificate.unit)} at worst"


def worst(certificate: Certificate) -> tuple[str, str] | None:
    """The class that the deployed model finds least often, and how often that is, in a sentence; None of one class."""
    known = {key: entry for key, entry in certificate.classes.items() if entry.deployed_recall is not None}
    if len(known) < 2:
        return None
    found = min(known, key=lambda key: (known[key].deployed_recall or 0.0, key))
    entry = known[found]
    before = "" if entry.reference_recall is None else f", the trained model {percent(entry.reference_recall)}"
    samples = counted(entry.n, certificate.sample)
    mean = sum(other.deployed_recall or 0.0 for other in known.values()) / len(known)
    return found, (
        f"The deployed model finds {percent(entry.deployed_recall)} of its {samples}{before}; "
        f"the mean over {len(known)} classes is {percent(mean)}."
    )
