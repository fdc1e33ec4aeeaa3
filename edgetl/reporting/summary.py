"""One row for each bundle: what the table and the page show of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgetl.core.bench import BenchRecord, Estimate
from edgetl.core.bundle import Bundle
from edgetl.core.certificate import Certificate
from edgetl.reporting.terms import noun

SIMULATED = "simulated"


@dataclass(frozen=True)
class Row:
    """A bundle in figures.

    Attributes:
        bundle: name of its folder.
        target, runtime, precision: what it was made for; ``precision`` is what it was compressed to.
        noun: what a sample is called: image, text, …
        certificate: of its answers, or None.
        bench: its times, or None, also where they are of a simulation, which are no latency.
        size_mb, float_size_mb: megabytes (10^6 bytes) on disk, of the artifact and of its float twin, if it has one.
        failures: what is wrong with the artifact, in words, such as being slower than its float twin.
        notes: why a figure is missing, in words.
    """

    bundle: str
    target: str
    runtime: str
    precision: str
    noun: str
    certificate: Certificate | None
    bench: BenchRecord | None
    size_mb: float
    float_size_mb: float | None
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """pass, fail or underpowered; "" without a certificate."""
        return self.certificate.verdict if self.certificate else ""

    @property
    def executed(self) -> str:
        """device, host or simulated; "" without a certificate."""
        return self.certificate.executed if self.certificate else ""

    @property
    def p50_ms(self) -> float | None:
        """Median time of one query (one sample, but for a fixed batch)."""
        return self.bench.deployed.p50_ms if self.bench else None

    @property
    def float_p50_ms(self) -> float | None:
        """The same of the float twin."""
        return self.bench.twin.p50_ms if self.bench and self.bench.twin else None

    @property
    def speedup(self) -> Estimate | None:
        """The float twin's time over the artifact's."""
        return self.bench.speedup if self.bench else None


def rows(bundles: Iterable[Bundle]) -> list[Row]:
    """Summarise bundles, in the order given.

    Raises:
        BundleError: a record was altered or belongs to another bundle.
        CertifyError: a certificate is of another version.
    """
    return [_row(bundle) for bundle in bundles]


def _row(bundle: Bundle) -> Row:
    certificate, bench = bundle.certificate, bundle.bench
    deployed, twin = bundle.manifest.artifacts["deployed"], bundle.manifest.artifacts.get("float")
    measured = None if bench is None or bench.executed == SIMULATED else bench
    called = noun(str(bundle.input_record.get("kind", "image")))
    return Row(
        bundle=bundle.path.resolve().name,
        target=bundle.target,
        runtime=deployed.backend,
        precision=deployed.precision,
        noun=called,
        certificate=certificate,
        bench=measured,
        size_mb=deployed.bytes / 1e6,
        float_size_mb=twin.bytes / 1e6 if twin else None,
        failures=_failures(measured) if measured else (),
        notes=_notes(bundle, certificate, measured, called),
    )


def _failures(bench: BenchRecord) -> tuple[str, ...]:
    if bench.slower_than_float and not bench.failures:
        return ("slower than its float twin on the same runtime",)
    return bench.failures


def _notes(bundle: Bundle, certificate: Certificate | None, bench: BenchRecord | None, called: str) -> tuple[str, ...]:
    notes = []
    if certificate is None:
        notes.append("no certificate yet: edgetl verify BUNDLE")
    if bench is None:
        return (*notes, _why_no_bench(bundle, certificate))
    if bench.deployed.p50_ms is None:
        notes.append(f"no p50: {bench.deployed.n} samples cannot support it")
    if bench.twin is None:
        notes.append(f"no speed-up: {_why_no_twin(bundle)}")
    if bench.deployed.images_per_query > 1:
        notes.append(f"times are of a batch of {bench.deployed.images_per_query} {called}s")
    reasons = bench.disturbance.reasons if bench.disturbance else ()
    return (*notes, *(f"the timing was disturbed: {reason}" for reason in reasons))


def _why_no_twin(bundle: Bundle) -> str:
    entries = bundle.manifest.artifacts
    if "float" not in entries or entries["float"].file == entries["deployed"].file:
        return "the artifact has no float twin but itself"
    return "the float twin was not benchmarked"


def _why_no_bench(bundle: Bundle, certificate: Certificate | None) -> str:
    if (certificate and certificate.executed == SIMULATED) or bundle.bench is not None:
        return "no latency: it was only simulated, and simulated time is not device time; bench it on the device"
    return "no latency yet: edgetl bench BUNDLE"
