"""What the page shows of one bundle: everything computed here, so that the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.base.errors import CertifyError
from edgetl.base.schema import to_json
from edgetl.base.wording import bounds, change, figure, printable
from edgetl.core.bundle import CALIBRATION, Bundle, check_certificate
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import ClassRecord
from edgetl.core.signature import is_signed
from edgetl.reporting import charts, metrics, tables
from edgetl.reporting.bench import Latency, latency
from edgetl.reporting.evidence import Evidence, evidence
from edgetl.reporting.facts import facts
from edgetl.reporting.gallery import Changes, changes
from edgetl.reporting.sentences import executed_sentences, measured_sentence, verdict_sentence
from edgetl.reporting.summary import Row, rows
from edgetl.reporting.views import TableView

#: Classes in the chart of recalls: those that changed most; the table has all.
CHARTED_CLASSES = 24
Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Judged:
    """The metric that decides, as text: its title, the score of both models, the difference and its interval."""

    metric: str
    before: str
    after: str
    difference: str
    interval: str


@dataclass(frozen=True)
class Statement:
    """The certificate in words."""

    verdict: str
    measured: str
    executed: str
    not_executed: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    chart: str
    seal: str
    scores: TableView
    parts: TableView | None


@dataclass(frozen=True)
class Recall:
    """What happened to each class or label (``what``); the chart is "" without samples of any."""

    what: str
    chart: str
    table: TableView


@dataclass(frozen=True)
class Section:
    """One bundle. None stands for what there is no record of; ``row.notes`` says why."""

    id: str
    row: Row
    judged: Judged | None
    statement: Statement | None
    ladder: TableView | None
    evidence: Evidence
    recall: Recall | None
    latency: Latency | None
    certified: Facts
    changes: Changes
    sizes: TableView
    provenance: tuple[tuple[str, Facts], ...]
    files: TableView


def section(bundle: Bundle, index: int, *, data_root: Path | None = None) -> Section:
    """Prepare one bundle; ``index`` makes its ids unique in the page.

    Raises:
        BundleError: a record was altered or belongs to another bundle.
        CertifyError: its certificate is of another version.
        UnknownNameError: its task is unknown.
    """
    (row,) = rows([bundle])
    identity, certificate = f"bundle-{index}", row.certificate
    kind = str(bundle.input_record.get("kind", "image"))
    return Section(
        id=identity,
        row=row,
        judged=judged(certificate) if certificate else None,
        statement=_statement(bundle, certificate, identity) if certificate else None,
        ladder=tables.ladder(certificate) if certificate else None,
        evidence=evidence(certificate, bundle.repair, bundle.manifest.task, identity),
        recall=_recall(bundle, certificate, identity) if certificate else None,
        latency=latency(row.bench, row.precision, row.noun, identity) if row.bench else None,
        certified=_certified(certificate) if certificate else [],
        changes=changes(bundle, kind, row.noun, data_root=data_root),
        sizes=tables.sizes(bundle),
        provenance=_provenance(bundle, certificate),
        files=tables.files(bundle),
    )


def judged(certificate: Certificate) -> Judged:
    """The metric that decides, as text."""
    unit = certificate.unit
    return Judged(
        metric=metrics.judged(certificate),
        before=figure(certificate.reference_score, unit),
        after=figure(certificate.deployed_score, unit),
        difference=change(certificate.difference, unit),
        interval=bounds(certificate.ci_low, certificate.ci_high, unit),
    )


def interval(certificate: Certificate, name: str) -> charts.Interval:
    """A certificate's difference for :func:`charts.intervals`."""
    ends = (certificate.ci_low, certificate.ci_high)
    return charts.Interval(name, certificate.difference, *ends, certificate.margin, certificate.verdict)


def _statement(bundle: Bundle, certificate: Certificate, identity: str) -> Statement:
    executed, not_executed = executed_sentences(certificate, printable(bundle.target))
    title = metrics.title(certificate.task, certificate.metric)
    # The notes, but for those that only repeat a finding, which the page shows with its remedy.
    findings = tuple(finding.what for finding in certificate.findings)
    return Statement(
        verdict=verdict_sentence(certificate),
        measured=measured_sentence(certificate),
        executed=executed,
        not_executed=not_executed,
        reasons=certificate.reasons,
        notes=tuple(note for note in certificate.notes if not note.startswith(findings)),
        chart=charts.intervals(f"{identity}-interval", title, certificate.unit, [interval(certificate, bundle.target)]),
        seal=_seal(bundle),
        scores=tables.scores(certificate),
        parts=tables.parts(certificate),
    )


def _seal(bundle: Bundle) -> str:
    try:
        check_certificate(bundle)
    except CertifyError as error:
        return f"The seal is broken: {printable(error.what)}."
    seal = "The certificate is unaltered and belongs to this very bundle and its saved predictions."
    claims = "where the model ran, on what, and how fast is its maker's word"
    if bundle.signed_by:
        return f"{seal} All of it is signed by the key {bundle.signed_by}."
    if is_signed(bundle.path):
        return f"{seal} It has a signature, which was not checked for this page: {claims} unless edgetl verify does."
    return f"{seal} That seal is no signature: nobody vouches for it, and {claims}."


def _certified(certificate: Certificate) -> Facts:
    return facts(
        {
            "task": certificate.task,
            "metric": certificate.metric,
            "runtime": certificate.runtime,
            "isa": certificate.isa,
            "precision": certificate.precision,
            "executed on": certificate.executed_on,
            "method": certificate.method,
            "p value": certificate.p_value,
            "first divergence": certificate.first_divergence,
            "transfer gain retained": certificate.transfer_gain_retained,
        }
    )


def _recall(bundle: Bundle, certificate: Certificate, identity: str) -> Recall | None:
    # JSON keeps no order of its keys, and the labels have one.
    entries = certificate.classes
    named = [*(name for name in bundle.labels if name in entries), *sorted(set(entries) - set(bundle.labels))]
    classes = [(name, entries[name]) for name in named]
    what = "label" if bundle.dataset.label_kind == "classes" else "class"
    table = tables.recall(classes, what.capitalize(), f"{certificate.sample.capitalize()}s")
    return Recall(what, _recall_chart(classes, what, identity), table) if table else None


def _recall_chart(classes: Sequence[tuple[str, ClassRecord]], what: str, identity: str) -> str:
    known = [
        (abs(entry.difference), charts.Change(name, entry.reference_recall, entry.deployed_recall))
        for name, entry in classes
        if entry.difference is not None and entry.reference_recall is not None and entry.deployed_recall is not None
    ]
    most = sorted(range(len(known)), key=lambda i: (-known[i][0], i))[:CHARTED_CLASSES]
    drawn = [known[i][1] for i in sorted(most)]
    return charts.recalls(f"{identity}-recall", what, drawn) if drawn else ""


def _provenance(bundle: Bundle, certificate: Certificate | None) -> tuple[tuple[str, Facts], ...]:
    manifest = bundle.manifest
    there = (bundle.path / CALIBRATION).is_file()
    others = {"task": manifest.task, "name": manifest.name, "key": manifest.key, "parity": manifest.parity,
              "splits": manifest.splits, "exported": manifest.exported, "source": manifest.source}  # fmt: skip
    hashes: Mapping[str, str] = {"bundle": bundle.digest, **(certificate.hashes if certificate else {})}
    listed: Sequence[tuple[str, Facts]] = (
        ("Target", facts(manifest.target.to_json())),
        ("Quantization", facts(to_json(manifest.quantization))),
        ("Calibration samples", facts(to_json(bundle.calibration)) if there else []),
        ("Input", facts(bundle.input_record)),
        ("Lineage", facts(manifest.lineage)),
        ("Training run", facts(to_json(manifest.run))),
        ("Versions", facts(manifest.versions)),
        ("Other facts of the export", facts({name: value for name, value in others.items() if value})),
        ("Hashes in the certificate (SHA-256)", facts(hashes)),
    )
    return tuple((title, pairs) for title, pairs in listed if pairs)
