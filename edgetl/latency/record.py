"""From raw timings (``edgetl.runtime.measure``) to ``bench.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetl.latency.stats import percentile, samples_needed, speedup

_PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


def bench_record(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise the timings of a bundle and of its float twin.

    Args:
        raw: what :func:`edgetl.runtime.measure.bench` returned.

    Returns:
        the deployed artifact's fields at the top (``p50_ms`` …, ``samples_ms``), the twin's under ``float``,
        ``speedup`` with its interval, ``slower_than_float`` (the whole interval lies below 1), and ``failures``:
        sentences, empty when all is well.
    """
    record = _summary(raw, "deployed")
    record["device"] = {**raw["device"], "before": raw["before"], "after": raw["after"]}
    record["float"] = record["speedup"] = None
    record["slower_than_float"] = False
    record["failures"] = []
    if "float" not in raw["samples_ms"]:
        return record
    record["float"] = _summary(raw, "float")
    gain = speedup(raw["samples_ms"]["float"], raw["samples_ms"]["deployed"])
    record["speedup"] = gain.to_json()
    # An fp32 artifact is its own twin: half the time its ratio is below 1 by chance alone.
    record["slower_than_float"] = gain.ci_high < 1
    if record["slower_than_float"]:
        record["failures"] = [
            f"slower than its float twin on its own runtime: {gain.value:.2f}x "
            f"(95 % interval {gain.ci_low:.2f} to {gain.ci_high:.2f})"
        ]
    return record


def _summary(raw: Mapping[str, Any], role: str) -> dict[str, Any]:
    samples: Sequence[float] = raw["samples_ms"][role]
    executed, cold = raw["executed"][role], raw["cold"][role]
    estimates = {name: percentile(samples, q) for name, q in _PERCENTILES.items()}
    mean = float(np.mean(samples))
    return {
        **{f"{name}_ms": found.value if found else None for name, found in estimates.items()},
        "ci": {name: [found.ci_low, found.ci_high] if found else None for name, found in estimates.items()},
        "refused": {
            name: f"{len(samples)} samples; {samples_needed(_PERCENTILES[name])} are needed"
            for name, found in estimates.items()
            if found is None
        },
        "mean_ms": mean,
        "throughput_ips": 1000 * raw.get("batch", 1) / mean,
        "batch": raw.get("batch", 1),
        "n": len(samples),
        "warmup": raw["warmup"],
        "threads": raw["threads"],
        "peak_rss_mb": cold["peak_rss_mb"],
        "cold_start_ms": cold["cold_start_ms"],
        "precision_executed": executed["precision"],
        "integer_macs": executed["integer_macs"],
        "layers": executed["layers"],
        "samples_ms": list(samples),
    }
