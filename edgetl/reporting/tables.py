"""The tables of the page, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgetl.base.wording import ABSENT, count, number, percent, points, printable, signed, small, span
from edgetl.core.bench import BenchRecord, Timing
from edgetl.core.bundle import Bundle
from edgetl.reporting.summary import Row
from edgetl.reporting.views import TableView


def ladder(certificate: Mapping[str, Any]) -> TableView | None:
    """Each step from the trained model to the artifact, against the step above it; None without a ladder."""
    rungs = certificate.get("ladder") or []
    if not rungs:
        return None
    columns = ("Rung", "Accuracy", "Agreement", "Difference", "Interval", "Lost", "Gained")
    distances = any(rung.get("logit_distance") is not None or rung.get("kl") is not None for rung in rungs)
    return TableView(
        (*columns, *(("Logit distance", "KL, nats") if distances else ()), "Diverges"),
        tuple(_rung(rung, distances) for rung in rungs),
    )


def _rung(rung: Mapping[str, Any], distances: bool) -> tuple[str, ...]:
    return (
        printable(rung["name"]),
        percent(rung["accuracy"]),
        percent(rung["agreement"]),
        points(rung.get("difference")),
        span(rung.get("ci_low"), rung.get("ci_high")),
        count(rung.get("lost")),
        count(rung.get("gained")),
        *((small(rung.get("logit_distance")), small(rung.get("kl"))) if distances else ()),
        "yes" if rung.get("diverges") else "no",
    )


def layers(rows: Sequence[Mapping[str, Any]]) -> TableView:
    """The noise that quantization makes in each layer by itself, the worst first."""
    return TableView(
        ("Module", "Node", "Quantized", "Measured at", "SQNR, dB", "Of the noise", "Saturated"),
        tuple(
            (
                printable(row.get("module") or ABSENT),
                printable(row["node"] or "image"),
                printable(row["cause"]),
                printable(row.get("consumer") or ABSENT),
                f"{row['sqnr_db']:.1f}".replace("-", "−"),
                percent(row["share"], 1),
                percent(row.get("saturated")),
            )
            for row in rows
        ),
        numbers_from=4,
    )


def trials(rows: Sequence[Mapping[str, Any]], unit: str) -> TableView:
    """Everything that repair tried, on search samples, scored in this unit; what was not measured has its note."""
    score, difference = (percent, points) if unit == "share" else (number, signed)
    return TableView(
        ("Trial", "Remedy", "Change", "Kept", "Score", "Difference", "Lost", "Gained", "Divergence", "Integer MACs",
         "ms", "Seconds"),
        tuple(
            (
                str(position),
                printable(row["remedy"]),
                "; ".join(printable(words) for words in (row.get("change"), row.get("note")) if words) or ABSENT,
                "yes" if row.get("kept") else "no",
                score(row.get("score")),
                difference(row.get("difference")),
                count(row.get("lost")),
                count(row.get("gained")),
                small(row.get("divergence")),
                percent(row.get("integer_macs"), 1),
                number(row.get("ms")),
                number(row.get("seconds")),
            )
            for position, row in enumerate(rows, 1)
        ),
        numbers_from=4,
    )  # fmt: skip


def corruptions(rows: Sequence[Mapping[str, Any]]) -> TableView:
    """The paired test on clean images and under each corruption."""
    return TableView(
        ("Corruption", "Severity", "Reference", "Deployed", "Difference", "Interval", "Lost", "Gained", "Verdict"),
        tuple(
            (
                printable(row["corruption"]) if row["severity"] else "clean",
                count(row["severity"]) if row["severity"] else ABSENT,
                percent(row["reference_accuracy"]),
                percent(row["deployed_accuracy"]),
                points(row["difference"]),
                span(row["ci_low"], row["ci_high"]),
                count(row["lost"]),
                count(row["gained"]),
                printable(row["verdict"]),
            )
            for row in rows
        ),
    )


def probabilities(found: Mapping[str, Any]) -> TableView:
    """Calibration before and after, and a threshold that was set on the trained model."""
    low, high = found.get("brier_ci_low"), found.get("brier_ci_high")
    bounds = "" if low is None or high is None else f"\n{_signed(low)}\nto {_signed(high)}"
    lines: list[tuple[str, ...]] = [
        ("calibration error (ECE)", *_pair(found, "ece", percent), points(_change(found, "ece"))),
        ("Brier score", *_pair(found, "brier", number), _signed(found.get("brier_difference")) + bounds),
        ("negative log-likelihood", *_pair(found, "nll", number), _signed(_change(found, "nll"))),
    ]
    threshold = found.get("threshold") or {}
    if threshold:
        kept = percent(threshold["kept"], 0).replace(" ", "\u00a0")
        shares = (percent(threshold["kept"], 1), percent(threshold["deployed_kept"], 1))
        lines += [
            (f"threshold that keeps {kept}", *_pair(threshold, "", "{:.3f}".format), _signed(threshold["shift"])),
            ("kept at the threshold from before", *shares, points(threshold["deployed_kept"] - threshold["kept"])),
            (
                "accuracy of what it keeps",
                *_pair(threshold, "accuracy", percent),
                points(_change(threshold, "accuracy")),
            ),
        ]
    return TableView(("", "Before", "After", "Change"), tuple(lines))


def _pair(found: Mapping[str, Any], name: str, told: Callable[[float], str]) -> tuple[str, str]:
    values = (found.get(f"{model}_{name}" if name else model) for model in ("reference", "deployed"))
    before, after = (ABSENT if value is None else told(value) for value in values)
    return before, after


def _change(found: Mapping[str, Any], name: str) -> float | None:
    before, after = found.get(f"reference_{name}"), found.get(f"deployed_{name}")
    return None if before is None or after is None else after - before


def _signed(value: float | None) -> str:
    if value is None:
        return ABSENT
    text = f"{value:+.4f}"
    return text.replace("-", "−") if float(text) else text[1:]


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


def series(bench: BenchRecord, row: Row) -> list[tuple[str, str, Timing]]:
    """What was timed: (name in words, style class, times), the artifact first."""
    found = [(f"deployed, {row.precision}", "deployed", bench.deployed)]
    if bench.twin is not None:
        found.append(("float twin", "floating", bench.twin))
    return found


def latency(bench: BenchRecord, row: Row) -> TableView:
    """Percentiles with their intervals, and the conditions, of the artifact and of its float twin."""
    named = series(bench, row)
    timed = [timing for _, _, timing in named]
    lines: list[tuple[str, ...]] = [
        ("p50", *(_percentile(t, "p50", t.p50_ms) for t in timed)),
        ("p90", *(_percentile(t, "p90", t.p90_ms) for t in timed)),
        ("p99", *(_percentile(t, "p99", t.p99_ms) for t in timed)),
        ("mean", *(number(t.mean_ms, "ms") for t in timed)),
        ("throughput", *(number(t.throughput_ips, "images/s") for t in timed)),
        ("cold start", *(number(t.cold_start_ms, "ms") for t in timed)),
        ("peak memory", *(number(t.peak_rss_mb, "MB") for t in timed)),
        ("samples, all kept", *(count(t.n) for t in timed)),
        ("warm-up runs", *(count(t.warmup) for t in timed)),
        ("threads", *(count(t.threads) for t in timed)),
        ("streams", *(count(t.streams) for t in timed)),
    ]
    if any(t.energy_mj is not None for t in timed):
        lines.append(("energy an image", *(number(t.energy_mj, "mJ") for t in timed)))
    lines.append(("scenario", *(printable(bench.scenario) for _ in timed)))
    lines.append(("executed as", *(printable(t.precision_executed) for t in timed)))
    lines.append(("integer MACs", *(percent(t.integer_macs, 1) for t in timed)))
    return TableView(("", *(name for name, _, _ in named)), tuple(lines))


def _percentile(timing: Timing, name: str, value: float | None) -> str:
    if value is None:
        refused = printable(timing.refused.get(name, "too few samples"))
        return f"{ABSENT}\n" + refused.replace("; ", "\n")
    found = timing.ci.get(name)
    return number(value, "ms") + (f"\n{number(found[0])} to {number(found[1])}" if found else "")


def sizes(bundle: Bundle) -> TableView:
    """The model files of a bundle."""
    entries = bundle.manifest.artifacts
    return TableView(
        ("Artifact", "File", "Runtime", "Precision", "Megabytes"),
        tuple(
            (
                "deployed" if role == "deployed" else "float twin" if role == "float" else printable(role),
                *(printable(text) for text in (entry.file, entry.backend, entry.precision)),
                number(entry.bytes / 1e6),
            )
            for role, entry in sorted(entries.items())
        ),
        numbers_from=4,
    )


def files(bundle: Bundle) -> TableView:
    """Every file of a bundle with its hash."""
    return TableView(
        ("File", "Bytes", "SHA-256"),
        tuple((printable(f), count(e.bytes), e.sha256) for f, e in sorted(bundle.manifest.files.items())),
        numbers_from=9,
    )
