"""One row for each bundle: what the table, the page and ``--json`` show of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetl.core.bundle import BENCH, CERTIFICATE, Bundle
from edgetl.reporting.wording import megabytes

SIMULATED = "simulated"


@dataclass(frozen=True)
class Row:
    """A bundle in figures. What was not measured is None and ``notes`` says why.

    Attributes:
        bundle: name of its folder.
        target, runtime, precision: what it was made for; ``precision`` is what it was compressed to.
        executed: device, host or simulated, or "" without a certificate.
        reference_accuracy, deployed_accuracy: top-1 share of the trained model and of the artifact, 0 to 1.
        difference: deployed minus reference, with its interval ``ci_low`` to ``ci_high``.
        margin: the loss that was allowed.
        verdict: pass, fail or underpowered, or "" without a certificate.
        n, n_needed: images that were compared, and how many a verdict would need.
        p50_ms, float_p50_ms: median time of one inference (one image, but for a fixed batch), of the artifact and of
            its float twin.
        speedup: float twin's time over the artifact's, with its interval.
        size_mb, float_size_mb: megabytes (10^6 bytes) on disk.
        failures: what is wrong with the artifact, in words, such as being slower than its float twin.
        notes: why a figure is missing, in words.
    """

    bundle: str
    target: str
    runtime: str
    precision: str
    executed: str
    reference_accuracy: float | None
    deployed_accuracy: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    margin: float | None
    verdict: str
    n: int | None
    n_needed: int | None
    p50_ms: float | None
    float_p50_ms: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    size_mb: float
    float_size_mb: float | None
    failures: tuple[str, ...]
    notes: tuple[str, ...]


def rows(bundles: Iterable[Bundle]) -> list[Row]:
    """Summarise bundles, in the order given.

    Raises:
        BundleError: a record was altered or belongs to another bundle.
    """
    return [_row(bundle) for bundle in bundles]


def measured_bench(bundle: Bundle) -> dict[str, Any] | None:
    """The benchmark record, or None where there is none or its times are of a simulation, which are no latency."""
    bench = bundle.record(BENCH)
    return None if bench is None or bench.get("executed") == SIMULATED else bench


def _row(bundle: Bundle) -> Row:
    certificate: Mapping[str, Any] = bundle.record(CERTIFICATE) or {}
    bench: Mapping[str, Any] = measured_bench(bundle) or {}
    deployed, twin = bundle.manifest.artifacts["deployed"], bundle.manifest.artifacts.get("float")
    speedup: Mapping[str, Any] = bench.get("speedup") or {}
    floating: Mapping[str, Any] = bench.get("float") or {}
    return Row(
        bundle=bundle.path.resolve().name,
        target=bundle.target,
        runtime=deployed.backend,
        precision=deployed.precision,
        executed=str(certificate.get("executed", "")),
        reference_accuracy=certificate.get("reference_accuracy"),
        deployed_accuracy=certificate.get("deployed_accuracy"),
        difference=certificate.get("difference"),
        ci_low=certificate.get("ci_low"),
        ci_high=certificate.get("ci_high"),
        margin=certificate.get("margin"),
        verdict=str(certificate.get("verdict", "")),
        n=certificate.get("n"),
        n_needed=certificate.get("n_needed"),
        p50_ms=bench.get("p50_ms"),
        float_p50_ms=floating.get("p50_ms"),
        speedup=speedup.get("value"),
        speedup_low=speedup.get("ci_low"),
        speedup_high=speedup.get("ci_high"),
        size_mb=deployed.bytes / 1e6,
        float_size_mb=megabytes(twin.bytes if twin else None),
        failures=_failures(bench),
        notes=_notes(bundle, certificate, bench),
    )


def _failures(bench: Mapping[str, Any]) -> tuple[str, ...]:
    listed = tuple(str(failure) for failure in bench.get("failures") or ())
    if bench.get("slower_than_float") and not listed:
        return ("slower than its float twin on the same runtime",)
    return listed


def _notes(bundle: Bundle, certificate: Mapping[str, Any], bench: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if not certificate:
        notes.append("no certificate yet: edgetl verify BUNDLE")
    if not bench:
        notes.append(_why_no_bench(bundle, certificate))
    elif bench.get("p50_ms") is None:
        notes.append(f"no p50: {bench.get('n', 0)} samples cannot support it")
    if bench and not bench.get("float"):
        notes.append(f"no speed-up: {_why_no_twin(bundle)}")
    if batch_of(bench) > 1:
        notes.append(f"times are of a batch of {batch_of(bench)} images")
    notes += [f"the timing was disturbed: {reason}" for reason in disturbances(bench)]
    return tuple(notes)


def _why_no_twin(bundle: Bundle) -> str:
    entries = bundle.manifest.artifacts
    if "float" not in entries or entries["float"].file == entries["deployed"].file:
        return "the artifact has no float twin but itself"
    return "the float twin was not benchmarked"


def disturbances(bench: Mapping[str, Any]) -> tuple[str, ...]:
    """What disturbed the benchmark, a sentence each."""
    return tuple(str(reason) for reason in (bench.get("disturbance") or {}).get("reasons", ()))


def batch_of(bench: Mapping[str, Any]) -> int:
    """How many images one timed query had."""
    return int(bench.get("images_per_query") or bench.get("batch") or 1)


def _why_no_bench(bundle: Bundle, certificate: Mapping[str, Any]) -> str:
    if certificate.get("executed") == SIMULATED or bundle.record(BENCH) is not None:
        return "no latency: it was only simulated, and simulated time is not device time; bench it on the device"
    return "no latency yet: edgetl bench BUNDLE"
