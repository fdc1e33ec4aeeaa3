"""What the page shows of one bundle: everything computed here, so that the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import CertifyError
from edgetl.base.schema import to_json
from edgetl.base.wording import count, printable
from edgetl.core.bench import BenchRecord, Timing
from edgetl.core.bundle import CALIBRATION, CERTIFICATE, Bundle, check_certificate
from edgetl.inputs import input_of
from edgetl.reporting import charts, tables
from edgetl.reporting.evidence import Evidence, evidence
from edgetl.reporting.facts import facts
from edgetl.reporting.gallery import Flips, flips
from edgetl.reporting.sentences import balanced_sentence
from edgetl.reporting.summary import Row, measured_bench, rows
from edgetl.reporting.views import TableView
from edgetl.reporting.wording import executed_sentences, measured_sentence, verdict_sentence

#: Classes in the chart of recalls: those that changed most; the table has all.
CHARTED_CLASSES = 24
Facts = list[tuple[str, str]]


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


@dataclass(frozen=True)
class Section:
    """One bundle. None stands for what there is no record of; ``row.notes`` says why."""

    id: str
    row: Row
    statement: Statement | None
    ladder: TableView | None
    evidence: Evidence
    balanced: str
    recall_chart: str
    recall: TableView | None
    latency_chart: str
    latency: TableView | None
    timed: str
    machine: Facts
    certified: Facts
    flips: Flips
    sizes: TableView
    provenance: tuple[tuple[str, Facts], ...]
    files: TableView


def section(bundle: Bundle, index: int, *, data_root: Path | None = None) -> Section:
    """Prepare one bundle; ``index`` makes its ids unique in the page.

    Raises:
        BundleError: a record was altered or belongs to another bundle.
    """
    certificate = bundle.record(CERTIFICATE)
    bench = measured_bench(bundle)
    (row,) = rows([bundle])
    identity = f"bundle-{index}"
    classes = _classes(bundle, certificate or {})
    return Section(
        id=identity,
        row=row,
        statement=_statement(bundle, certificate, row, identity) if certificate else None,
        ladder=tables.ladder(certificate or {}),
        evidence=evidence(certificate or {}, to_json(bundle.repair), identity),
        balanced=balanced_sentence(certificate or {}),
        recall_chart=_recall_chart(classes, identity),
        recall=tables.recall(classes),
        latency_chart=_latency_chart(bench, row, identity) if bench else "",
        latency=tables.latency(bench, row) if bench else None,
        timed=timed(bench),
        machine=facts(bench.device) if bench else [],
        certified=_certified(certificate or {}),
        flips=flips(bundle, data_root=data_root),
        sizes=tables.sizes(bundle),
        provenance=_provenance(bundle, certificate or {}),
        files=tables.files(bundle),
    )


def interval(row: Row, name: str) -> charts.Interval | None:
    """The row's difference for :func:`charts.intervals`; None without a certificate."""
    if row.difference is None or row.ci_low is None or row.ci_high is None or row.margin is None:
        return None
    return charts.Interval(name, row.difference, row.ci_low, row.ci_high, row.margin, row.verdict)


def _statement(bundle: Bundle, certificate: Mapping[str, Any], row: Row, identity: str) -> Statement:
    executed, not_executed = executed_sentences(certificate, printable(row.target))
    drawn = interval(row, row.target)
    return Statement(
        verdict=verdict_sentence(certificate),
        measured=measured_sentence(certificate),
        executed=executed,
        not_executed=not_executed,
        reasons=tuple(str(reason) for reason in certificate.get("reasons") or ()),
        notes=_notes(certificate),
        chart=charts.intervals(f"{identity}-interval", [drawn]) if drawn else "",
        seal=_seal(bundle),
    )


def _notes(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes, but for those that only repeat a finding, which the page shows with its remedy."""
    found = tuple(str(finding["what"]) for finding in certificate.get("findings") or ())
    return tuple(str(note) for note in certificate.get("notes") or () if not str(note).startswith(found))


def _seal(bundle: Bundle) -> str:
    try:
        check_certificate(bundle)
    except CertifyError as error:
        return f"The seal is broken: {printable(error.what)}."
    return "The certificate is unaltered and belongs to this very bundle and its saved predictions."


def _certified(certificate: Mapping[str, Any]) -> Facts:
    told = ("metric", "runtime", "isa", "precision", "executed_on", "method", "p_value", "first_divergence",
            "reference_balanced_accuracy", "deployed_balanced_accuracy", "transfer_gain_retained")  # fmt: skip
    return facts({name: certificate[name] for name in told if name in certificate})


def _classes(bundle: Bundle, certificate: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    # JSON keeps no order of its keys, and the labels have one.
    entries = certificate.get("classes") or {}
    named = [*(name for name in bundle.labels if name in entries), *sorted(set(entries) - set(bundle.labels))]
    return [(name, entries[name]) for name in named]


def _recall_chart(classes: Sequence[tuple[str, Mapping[str, Any]]], identity: str) -> str:
    known = [(name, e) for name, e in classes if e["difference"] is not None]
    most = sorted(range(len(known)), key=lambda i: (-abs(known[i][1]["difference"]), i))[:CHARTED_CLASSES]
    changes = [
        charts.Change(name, entry["reference_recall"], entry["deployed_recall"])
        for name, entry in (known[i] for i in sorted(most))
    ]
    return charts.recalls(f"{identity}-recall", changes) if changes else ""


def timed(bench: BenchRecord | None) -> str:
    """What one sample of the benchmark is the time of."""
    batch = bench.deployed.images_per_query if bench else 1
    return "one image" if batch == 1 else f"a batch of {count(batch)} images"


def _latency_chart(bench: BenchRecord, row: Row, identity: str) -> str:
    curves = [
        charts.Curve(name, style, timing.samples_ms, _marks(timing))
        for name, style, timing in tables.series(bench, row)
    ]
    return charts.latencies(f"{identity}-latency", curves, timed(bench)) if curves else ""


def _marks(timing: Timing) -> tuple[tuple[float, float], ...]:
    values = zip(charts.PERCENTILES, (timing.p50_ms, timing.p90_ms, timing.p99_ms), strict=True)
    return tuple((share, value) for (share, _), value in values if value is not None)


def _provenance(bundle: Bundle, certificate: Mapping[str, Any]) -> tuple[tuple[str, Facts], ...]:
    manifest = bundle.manifest
    there = (bundle.path / CALIBRATION).is_file()
    others = {"name": manifest.name, "key": manifest.key, "parity": manifest.parity, "splits": manifest.splits,
              "exported": manifest.exported, "source": manifest.source}  # fmt: skip
    hashes = {"bundle": bundle.digest, **(certificate.get("hashes") or {})}
    listed: Sequence[tuple[str, Facts]] = (
        ("Target", facts(manifest.target.to_json())),
        ("Quantization", facts(to_json(manifest.quantization))),
        ("Calibration images", facts(to_json(bundle.calibration)) if there else []),
        ("Preprocessing", facts(input_of(bundle).to_json())),
        ("Lineage", facts(manifest.lineage)),
        ("Training run", facts(to_json(manifest.run))),
        ("Versions", facts(manifest.versions)),
        ("Other facts of the export", facts({name: value for name, value in others.items() if value})),
        ("Hashes in the certificate (SHA-256)", facts(hashes)),
    )
    return tuple((title, found) for title, found in listed if found)
