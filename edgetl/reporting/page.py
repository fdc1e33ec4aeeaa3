"""What the page shows of one bundle: everything computed here, so that the template only lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.bundle import CALIBRATION, CERTIFICATE, Bundle, check_certificate
from edgetl.errors import BundleError, CertifyError
from edgetl.reporting import charts
from edgetl.reporting.facts import facts
from edgetl.reporting.gallery import Flips, flips
from edgetl.reporting.summary import Row, measured_bench, rows
from edgetl.reporting.wording import (
    ABSENT,
    count,
    executed_sentences,
    measured_sentence,
    number,
    percent,
    points,
    printable,
    span,
    verdict_sentence,
)
from edgetl.storage import read_json

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
class TableView:
    """A table: the first cell of each row is its heading; a line break in a cell is kept."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One bundle. None stands for what there is no record of; ``row.notes`` says why."""

    id: str
    row: Row
    statement: Statement | None
    ladder: TableView | None
    recall_chart: str
    recall: TableView | None
    latency_chart: str
    latency: TableView | None
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
        ladder=_ladder(certificate or {}),
        recall_chart=_recall_chart(classes, identity),
        recall=_recall(classes),
        latency_chart=_latency_chart(bench, row, identity) if bench else "",
        latency=_latency(bench, row) if bench else None,
        machine=facts((bench or {}).get("device")),
        certified=_certified(certificate or {}),
        flips=flips(bundle, data_root=data_root),
        sizes=_sizes(bundle),
        provenance=_provenance(bundle, certificate or {}),
        files=_files(bundle),
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
        notes=tuple(str(note) for note in certificate.get("notes") or ()),
        chart=charts.intervals(f"{identity}-interval", [drawn]) if drawn else "",
        seal=_seal(bundle),
    )


def _seal(bundle: Bundle) -> str:
    try:
        check_certificate(bundle)
    except CertifyError as error:
        return f"The seal is broken: {printable(error.what)}."
    return "The certificate is unaltered and belongs to this very bundle and its saved predictions."


def _certified(certificate: Mapping[str, Any]) -> Facts:
    told = ("runtime", "isa", "precision", "executed_on", "method", "p_value", "first_divergence",
            "reference_balanced_accuracy", "deployed_balanced_accuracy", "transfer_gain_retained")  # fmt: skip
    return facts({name: certificate[name] for name in told if name in certificate})


def _ladder(certificate: Mapping[str, Any]) -> TableView | None:
    rungs = certificate.get("ladder") or []
    if not rungs:
        return None
    return TableView(
        ("Rung", "Accuracy", "Agreement", "Difference", "Interval", "Lost", "Gained", "Diverges"),
        tuple(
            (
                printable(rung["name"]),
                percent(rung["accuracy"]),
                percent(rung["agreement"]),
                points(rung.get("difference")),
                span(rung.get("ci_low"), rung.get("ci_high")),
                count(rung.get("lost")),
                count(rung.get("gained")),
                "yes" if rung.get("diverges") else "no",
            )
            for rung in rungs
        ),
    )


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


def _recall(classes: Sequence[tuple[str, Mapping[str, Any]]]) -> TableView | None:
    if not classes:
        return None
    return TableView(
        ("Class", "Images", "Before", "After", "Difference", "Adj. p"),
        tuple(
            (
                printable(name),
                count(entry["n"]),
                percent(entry["reference_recall"], 1),
                percent(entry["deployed_recall"], 1),
                points(entry["difference"], 1),
                ABSENT if entry["difference"] is None else f"{entry['adjusted_p']:.3f}",
            )
            for name, entry in classes
        ),
    )


def _series(bench: Mapping[str, Any], row: Row) -> list[tuple[str, str, Mapping[str, Any]]]:
    series = [(f"deployed, {row.precision}", "deployed", bench)]
    if bench.get("float"):
        series.append(("float twin", "floating", bench["float"]))
    return series


def _latency_chart(bench: Mapping[str, Any], row: Row, identity: str) -> str:
    curves = [
        charts.Curve(name, style, record["samples_ms"], _marks(record))
        for name, style, record in _series(bench, row)
        if record["samples_ms"]
    ]
    return charts.latencies(f"{identity}-latency", curves) if curves else ""


def _marks(record: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    known = ((share, record.get(f"{name}_ms")) for share, name in charts.PERCENTILES)
    return tuple((share, value) for share, value in known if value is not None)


def _latency(bench: Mapping[str, Any], row: Row) -> TableView:
    series = _series(bench, row)
    lines: list[tuple[str, ...]] = [
        (name, *(_percentile(record, name) for _, _, record in series)) for name in ("p50", "p90", "p99")
    ]
    plain = (
        ("mean_ms", "mean", "ms"),
        ("throughput_ips", "throughput", "images/s"),
        ("cold_start_ms", "cold start", "ms"),
        ("peak_rss_mb", "peak memory", "MB"),
    )
    lines += [(title, *(number(r.get(key), unit) for _, _, r in series)) for key, title, unit in plain]
    whole = (("n", "samples, all kept"), ("warmup", "warm-up runs"), ("threads", "threads"))
    lines += [(title, *(count(r.get(key)) for _, _, r in series)) for key, title in whole]
    lines.append(("executed as", *(printable(r.get("precision_executed") or ABSENT) for _, _, r in series)))
    lines.append(("integer MACs", *(percent(r.get("integer_macs"), 1) for _, _, r in series)))
    return TableView(("", *(name for name, _, _ in series)), tuple(lines))


def _percentile(record: Mapping[str, Any], name: str) -> str:
    value = record.get(f"{name}_ms")
    if value is None:
        refused = printable((record.get("refused") or {}).get(name, "too few samples"))
        return f"{ABSENT}\n" + refused.replace("; ", "\n")
    found = (record.get("ci") or {}).get(name)
    return number(value, "ms") + (f"\n{number(found[0])} to {number(found[1])}" if found else "")


def _sizes(bundle: Bundle) -> TableView:
    entries = bundle.manifest["artifacts"]
    return TableView(
        ("Artifact", "File", "Runtime", "Precision", "Megabytes"),
        tuple(
            (
                "deployed" if role == "deployed" else "float twin" if role == "float" else printable(role),
                *(printable(entry[key]) for key in ("file", "backend", "precision")),
                number(entry["bytes"] / 1e6),
            )
            for role, entry in sorted(entries.items())
        ),
    )


def _provenance(bundle: Bundle, certificate: Mapping[str, Any]) -> tuple[tuple[str, Facts], ...]:
    manifest = bundle.manifest
    calibration: object = {}
    if (bundle.path / CALIBRATION).is_file():
        calibration = read_json(bundle.path / CALIBRATION, BundleError)
    known = {"target", "quantization", "lineage", "artifacts", "files", "schema", "digest"}
    hashes = {"bundle": bundle.digest, **(certificate.get("hashes") or {})}
    listed: Sequence[tuple[str, Facts]] = (
        ("Target", facts(manifest.get("target"))),
        ("Quantization", facts(manifest.get("quantization"))),
        ("Calibration images", facts(calibration)),
        ("Preprocessing", facts(bundle.preprocess.to_json())),
        ("Lineage", facts(manifest.get("lineage"))),
        ("Other facts of the export", facts(manifest, without=tuple(known))),
        ("Hashes in the certificate (SHA-256)", facts(hashes)),
    )
    return tuple((title, found) for title, found in listed if found)


def _files(bundle: Bundle) -> TableView:
    return TableView(
        ("File", "Bytes", "SHA-256"),
        tuple((printable(f), count(e["bytes"]), e["sha256"]) for f, e in sorted(bundle.manifest["files"].items())),
    )
