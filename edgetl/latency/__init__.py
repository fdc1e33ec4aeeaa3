"""Latency, throughput, memory and energy of a bundle, from raw samples. Knows no labels."""

from edgetl.latency.record import bench_record
from edgetl.latency.stats import Estimate, effective_samples, percentile, samples_needed, speedup

__all__ = ["Estimate", "bench_record", "effective_samples", "percentile", "samples_needed", "speedup"]
