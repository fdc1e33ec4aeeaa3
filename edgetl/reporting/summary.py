"""One row for each bundle: what the table, the page and ``--json`` show of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetl.core.bench import BenchRecord
from edgetl.core.bundle import CERTIFICATE, Bundle
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


def measured_bench(bundle: Bundle) -> BenchRecord | None:
    """The benchmark record, or None where there is none or its times are of a simulation, which are no latency."""
    bench = bundle.bench
    return None if bench is None or bench.executed == SIMULATED else bench


def _row(bundle: Bundle) -> Row:
    certificate: Mapping[str, Any] = bundle.record(CERTIFICATE) or {}
    bench = measured_bench(bundle)
    deployed, twin = bundle.manifest.artifacts["deployed"], bundle.manifest.artifacts.get("float")
    speedup, floating = (bench.speedup, bench.twin) if bench else (None, None)
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
        p50_ms=bench.deployed.p50_ms if bench else None,
        float_p50_ms=floating.p50_ms if floating else None,
        speedup=speedup.value if speedup else None,
        speedup_low=speedup.ci_low if speedup else None,
        speedup_high=speedup.ci_high if speedup else None,
        size_mb=deployed.bytes / 1e6,
        float_size_mb=megabytes(twin.bytes if twin else None),
        failures=_failures(bench) if bench else (),
        notes=_notes(bundle, certificate, bench),
    )


def _failures(bench: BenchRecord) -> tuple[str, ...]:
    if bench.slower_than_float and not bench.failures:
        return ("slower than its float twin on the same runtime",)
    return bench.failures


def _notes(bundle: Bundle, certificate: Mapping[str, Any], bench: BenchRecord | None) -> tuple[str, ...]:
    notes = []
    if not certificate:
        notes.append("no certificate yet: edgetl verify BUNDLE")
    if bench is None:
        return (*notes, _why_no_bench(bundle, certificate))
    if bench.deployed.p50_ms is None:
        notes.append(f"no p50: {bench.deployed.n} samples cannot support it")
    if bench.twin is None:
        notes.append(f"no speed-up: {_why_no_twin(bundle)}")
    if bench.deployed.images_per_query > 1:
        notes.append(f"times are of a batch of {bench.deployed.images_per_query} images")
    reasons = bench.disturbance.reasons if bench.disturbance else ()
    return (*notes, *(f"the timing was disturbed: {reason}" for reason in reasons))


def _why_no_twin(bundle: Bundle) -> str:
    entries = bundle.manifest.artifacts
    if "float" not in entries or entries["float"].file == entries["deployed"].file:
        return "the artifact has no float twin but itself"
    return "the float twin was not benchmarked"


def _why_no_bench(bundle: Bundle, certificate: Mapping[str, Any]) -> str:
    if certificate.get("executed") == SIMULATED or bundle.bench is not None:
        return "no latency: it was only simulated, and simulated time is not device time; bench it on the device"
    return "no latency yet: edgetl bench BUNDLE"
