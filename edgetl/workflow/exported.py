"""What one target of an export came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetl.certify import Certificate
from edgetl.core.bundle import Bundle


@dataclass(frozen=True)
class Exported:
    """What one target of an export came to."""

    bundle: Bundle
    certificate: Certificate
    bench: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without the raw timings."""
        bench = {k: v for k, v in (self.bench or {}).items() if k != "samples_ms"}
        for other in ("float", "against"):
            if bench.get(other):
                bench[other] = {k: v for k, v in bench[other].items() if k != "samples_ms"}
        return {
            "target": self.bundle.target,
            "bundle": str(self.bundle.path),
            "precision": self.bundle.precision,
            "artifacts": self.bundle.manifest["artifacts"],
            "certificate": self.certificate.to_json(),
            "bench": bench or None,
            "failures": list(bench.get("failures", [])),
        }
