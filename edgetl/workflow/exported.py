"""What an export and the demo came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.schema import to_json
from edgetl.certify import Certificate
from edgetl.core.bench import BenchRecord
from edgetl.core.bundle import Bundle
from edgetl.core.run import Run


@dataclass(frozen=True)
class Exported:
    """What an export and the demo came to."""

    bundle: Bundle
    certificate: Certificate
    bench: BenchRecord | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without the raw timings."""
        bench = to_json(self.bench)
        for timing in (bench, *(bench[other] for other in ("float", "against"))) if bench else ():
            (timing or {}).pop("samples_ms", None)
        return {
            "target": self.bundle.target,
            "bundle": str(self.bundle.path),
            "precision": self.bundle.precision,
            "artifacts": to_json(self.bundle.manifest.artifacts),
            "certificate": self.certificate.to_json(),
            "bench": bench,
            "failures": list(self.bench.failures) if self.bench else [],
        }


@dataclass(frozen=True)
class Demo:
    """What the demo left behind."""

    run: Run
    bundles: Sequence[Exported]
    report: Path

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "run": self.run.to_json(),
            "bundles": [item.to_json() for item in self.bundles],
            "report": str(self.report),
        }
