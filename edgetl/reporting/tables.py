"""The tables of the page, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.bundle import Bundle
from edgetl.reporting.summary import Row
from edgetl.reporting.wording import ABSENT, count, number, percent, points, printable, span


@dataclass(frozen=True)
class TableView:
    """A table: the first cell of each row is its heading; a line break in a cell is kept."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def ladder(certificate: Mapping[str, Any]) -> TableView | None:
    """Each step from the trained model to the artifact, against the step above it; None without a ladder."""
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


def recall(classes: Sequence[tuple[str, Mapping[str, Any]]]) -> TableView | None:
    """Every class before and after; ``classes`` are (name, entry of the certificate)."""
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


def series(bench: Mapping[str, Any], row: Row) -> list[tuple[str, str, Mapping[str, Any]]]:
    """What was timed: (name in words, style class, record), the artifact first."""
    found = [(f"deployed, {row.precision}", "deployed", bench)]
    if bench.get("float"):
        found.append(("float twin", "floating", bench["float"]))
    return found


def latency(bench: Mapping[str, Any], row: Row) -> TableView:
    """Percentiles with their intervals, and the conditions, of the artifact and of its float twin."""
    timed = series(bench, row)
    lines: list[tuple[str, ...]] = [
        (name, *(_percentile(record, name) for _, _, record in timed)) for name in ("p50", "p90", "p99")
    ]
    plain = (
        ("mean_ms", "mean", "ms"),
        ("throughput_ips", "throughput", "images/s"),
        ("cold_start_ms", "cold start", "ms"),
        ("peak_rss_mb", "peak memory", "MB"),
    )
    lines += [(title, *(number(r.get(key), unit) for _, _, r in timed)) for key, title, unit in plain]
    whole = (("n", "samples, all kept"), ("warmup", "warm-up runs"), ("threads", "threads"))
    lines += [(title, *(count(r.get(key)) for _, _, r in timed)) for key, title in whole]
    lines.append(("executed as", *(printable(r.get("precision_executed") or ABSENT) for _, _, r in timed)))
    lines.append(("integer MACs", *(percent(r.get("integer_macs"), 1) for _, _, r in timed)))
    return TableView(("", *(name for name, _, _ in timed)), tuple(lines))


def _percentile(record: Mapping[str, Any], name: str) -> str:
    value = record.get(f"{name}_ms")
    if value is None:
        refused = printable((record.get("refused") or {}).get(name, "too few samples"))
        return f"{ABSENT}\n" + refused.replace("; ", "\n")
    found = (record.get("ci") or {}).get(name)
    return number(value, "ms") + (f"\n{number(found[0])} to {number(found[1])}" if found else "")


def sizes(bundle: Bundle) -> TableView:
    """The model files of a bundle."""
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


def files(bundle: Bundle) -> TableView:
    """Every file of a bundle with its hash."""
    return TableView(
        ("File", "Bytes", "SHA-256"),
        tuple((printable(f), count(e["bytes"]), e["sha256"]) for f, e in sorted(bundle.manifest["files"].items())),
    )
