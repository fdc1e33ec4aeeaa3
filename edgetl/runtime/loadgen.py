"""MLPerf's LoadGen in charge of queries and clock (``mlcommons-loadgen``)."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

from edgetl.base.errors import BackendError
from edgetl.base.extras import require, version
from edgetl.core.bench import LoadGen
from edgetl.runtime.plan import Plan
from edgetl.runtime.queries import Query

_MODULE = "mlperf_loadgen"
_SUMMARY = "mlperf_log_summary.txt"
#: LoadGen wants so many queries however short the test is.
MIN_QUERIES = 64
#: Queries before LoadGen begins: it knows no warm-up of its own.
_WARMUP = 10


def run_loadgen(query: Query, plan: Plan, size: int) -> tuple[list[float], LoadGen]:
    """Let LoadGen ask for as long as the plan says, and read its own log.

    Args:
        query: works on ``size`` samples, given a number.
        plan: ``seconds``; ``scenario`` single-stream, or offline.
        size: samples of one query.

    Returns:
        milliseconds of each query between LoadGen's call and our answer to it, in order; and LoadGen's own figures.

    Raises:
        MissingExtraError: the package is not installed here.
        BackendError: LoadGen left no log, or a query failed.
    """
    lg = require(_MODULE, "--harness loadgen")
    for number in range(_WARMUP):
        query(number)
    samples: list[float] = []
    failed: list[Exception] = []

    def issue(queries: list[Any]) -> None:
        for one in queries:
            before = time.perf_counter_ns()
            try:
                query(one.index)
            except Exception as error:  # an exception must not unwind through LoadGen's C++
                failed.append(error)
            samples.append((time.perf_counter_ns() - before) / 1e6)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(one.id, 0, 0)])

    with tempfile.TemporaryDirectory(prefix="edgetl-loadgen-") as folder:
        _run(lg, issue, plan, _expected_rate(query), Path(folder))
        if failed:
            raise BackendError(f"a query failed under LoadGen ({failed[0]})", "run: edgetl bench without --harness")
        log = Path(folder) / _SUMMARY
        if not log.is_file():
            raise BackendError("LoadGen left no summary log", "see its messages above")
        return samples, read_summary(log.read_text(encoding="utf-8", errors="replace"), size)


def _expected_rate(query: Query) -> float:
    started = time.perf_counter()
    query(0)
    return 1 / max(time.perf_counter() - started, 1e-6)


def _run(lg: Any, issue: Any, plan: Plan, rate: float, folder: Path) -> None:
    settings = lg.TestSettings()
    offline = plan.scenario == "offline"
    settings.scenario = lg.TestScenario.Offline if offline else lg.TestScenario.SingleStream
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * plan.seconds)
    settings.min_query_count = MIN_QUERIES
    if offline:
        settings.offline_expected_qps = rate
    else:
        settings.single_stream_expected_latency_ns = int(1e9 / rate)
    logged, where = lg.LogSettings(), lg.LogOutputSettings()
    where.outdir, where.copy_summary_to_stdout = str(folder), False
    logged.log_output, logged.enable_trace = where, False
    known = 64
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(known, known, lambda _: None, lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, qsl, settings, logged, "")
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)


def read_summary(summary: str, size: int) -> LoadGen:
    """LoadGen's figures from its summary log; latencies in ms, None where the scenario has none."""

    def number(label: str) -> float | None:
        found = re.search(rf"^{label}\s*:\s*([\d.eE+]+)\s*$", summary, re.MULTILINE)
        return float(found[1]) if found else None

    def milliseconds(label: str) -> float | None:
        value = number(rf"{label} latency \(ns\)")
        return None if value is None else value / 1e6

    rate = number(r"Samples per second") or number(r"QPS w/o loadgen overhead")
    return LoadGen(
        version=version(_MODULE),
        valid=re.search(r"^Result is : VALID$", summary, re.MULTILINE) is not None,
        p50_ms=milliseconds(r"50\.00 percentile"),
        p90_ms=milliseconds(r"90\.00 percentile"),
        p99_ms=milliseconds(r"99\.00 percentile"),
        mean_ms=milliseconds("Mean"),
        throughput_ips=None if rate is None else rate * size,
        summary=summary,
    )
