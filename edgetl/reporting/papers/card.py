"""What a bundle's papers say of its model: what it is for, what was measured, and what was not, as one value.

Everything comes from the bundle and its certificate; no clock and no machine is looked at, so that the same bundle
gives the same papers. The parts are those of M. Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgetl.base.storage import DIGEST_FIELD
from edgetl.base.wording import counted, enumerated
from edgetl.core.bundle import CERTIFICATE, Bundle, check_certificate
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Unit
from edgetl.core.licences import PACKAGES, Source, sources_of
from edgetl.core.manifest import TrainedRun
from edgetl.inputs import INPUTS
from edgetl.reporting.papers.limits import limits, tradeoffs, worst
from edgetl.tasks import TASKS

#: Backend → the module of its runtime; the other names are alike.
_MODULES = {"litert": "ai_edge_litert"}


@dataclass(frozen=True)
class Measured:
    """A figure of the certificate.

    Attributes:
        what: the metric, and whose.
        value: it.
        unit: see :data:`edgetl.core.certificate_parts.Unit`.
        low, high: bounds of it; None where the certificate has none.
        part: of the samples or tasks that it is of; "" for all.
    """

    what: str
    value: float
    unit: Unit
    low: float | None = None
    high: float | None = None
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model card.

    Attributes:
        name: of the bundle.
        bundle, certificate: digests by which the card belongs to both.
        certified: the certificate.
        trained: the run that the bundle was made from; None where it names none.
        use: what the model is for, in a sentence.
        reads, gives: what its network takes and answers, in words.
        figures: what was measured.
        interval: level of their two-sided intervals, 0 to 1.
        limits: what it cannot do, or nobody tried, a sentence each.
        tradeoffs: what was given up for what, a sentence each.
        worst: the class that is found least often, and how often; None where there are no classes.
        sources: what it came from and what it needs, with their licences.
        versions: of those tools, as the manifest has them; None where it does not.
    """

    name: str
    bundle: str
    certificate: str
    certified: Certificate
    trained: TrainedRun | None
    use: str
    reads: str
    gives: str
    figures: tuple[Measured, ...]
    interval: float
    limits: tuple[str, ...]
    tradeoffs: tuple[str, ...]
    worst: tuple[str, str] | None
    sources: tuple[Source, ...]
    versions: dict[str, str | None]


def model_card(bundle: Bundle) -> ModelCard:
    """What is known of a certified bundle's model.

    Raises:
        BundleError: a record was altered.
        CertifyError: there is no certificate, or it is of another version.
    """
    certificate, record = check_certificate(bundle), bundle.record(CERTIFICATE) or {}
    manifest, tools = bundle.manifest, _tools(bundle)
    settings = manifest.run.settings if manifest.run is not None else {}
    data = PurePosixPath(str(settings.get("data") or "")).name
    return ModelCard(
        name=manifest.name or manifest.target.name,
        bundle=bundle.digest,
        certificate=str(record.get(DIGEST_FIELD)),
        certified=certificate,
        trained=manifest.run,
        use=_use(bundle, certificate),
        reads=_kind(bundle),
        gives=TASKS[certificate.task].about if certificate.task in TASKS else f"answers of the task {certificate.task}",
        figures=tuple(_figures(certificate)),
        interval=1 - 2 * certificate.alpha,
        limits=limits(bundle, certificate, data),
        tradeoffs=tradeoffs(bundle, certificate),
        worst=worst(certificate),
        sources=(
            *sources_of(manifest.lineage, data),
            *(Source("tool", name, PACKAGES.get(name, "")) for name in tools),
        ),
        versions={name: manifest.versions.get(name) for name in tools},
    )


def _kind(bundle: Bundle) -> str:
    return str(bundle.input_record.get("kind", "image"))


def _tools(bundle: Bundle) -> tuple[str, ...]:
    """Modules that the bundle needs where it runs: its runtime, and what reads its samples."""
    backend, kind = bundle.artifact().backend, _kind(bundle)
    reading = INPUTS[kind].modules if kind in INPUTS else ()
    return (_MODULES.get(backend, backend), "numpy", *reading)


def _use(bundle: Bundle, certificate: Certificate) -> str:
    about = TASKS[certificate.task].about if certificate.task in TASKS else certificate.task
    named = f": {enumerated(bundle.labels, 20)}" if bundle.labels else ""
    samples = f"{certificate.sample}s like those that it was certified on"
    return f"To tell {about}{named}; for {samples}, on {bundle.manifest.target.title}."


def _figures(certificate: Certificate, part: str = "") -> Iterator[Measured]:
    for name, score in certificate.scores.items():
        bounds, title = (score.ci_low, score.ci_high), _title(certificate, name)
        gain = f"gain in {title} of the deployed over the trained model"
        if score.deployed is not None and score.reference is not None:
            yield Measured(f"{title} of the deployed model", score.deployed, score.unit, part=part)
            yield Measured(f"{title} of the trained model", score.reference, score.unit, part=part)
        if score.difference is not None:
            yield Measured(gain, score.difference, score.unit, *bounds, part)
    if certificate.agreement is not None:
        rate = certificate.agreement.disagreed / certificate.n
        yield Measured("rate of answers that differ from the trained model's", rate, "share", part=part)
    found = worst(certificate)
    if found is not None and (recall := certificate.classes[found[0]].deployed_recall) is not None:
        samples = counted(certificate.classes[found[0]].n, certificate.sample)
        of = ", ".join(filter(None, (part, f"class {found[0]}", samples)))
        yield Measured("recall of the deployed model", recall, "share", part=of)
    for name, other in certificate.parts.items():
        yield from _figures(other, f"task {name}")


def _title(certificate: Certificate, name: str) -> str:
    metrics = TASKS[certificate.task].metrics if certificate.task in TASKS else {}
    title = metrics[name].title if name in metrics else name
    # Where nobody labelled the samples, what the trained model answers is right.
    return f"{title} (agreement with the trained model)" if certificate.labelled_by == "model" else title
