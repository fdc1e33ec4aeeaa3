"""``bench.json`` as a value: what was timed on a device, how, and what disturbed it. Times are in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetl.base.schema import INLINE, Json, named


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95 % interval."""

    value: float
    ci_low: float
    ci_high: float

    @property
    def width(self) -> float:
        """Of the interval, as a share of the value."""
        return (self.ci_high - self.ci_low) / self.value if self.value else math.inf


@dataclass(frozen=True)
class Tried:
    """A way of working on offline queries that was tried before the best was measured; ``batch`` counts samples."""

    streams: int
    threads: int
    batch: int
    images_per_s: float


@dataclass(frozen=True)
class Energy:
    """How energy was measured, or why not.

    Attributes:
        reason: why it was not; None where it was.
        sensor: its name.
        above_idle_mj: millijoules of a sample beyond what idling takes.
        idle_w, busy_w: watts before, and while the artifact worked.
        seconds, images: for how long, and how many samples that were.
    """

    reason: str | None = None
    sensor: str | None = None
    above_idle_mj: float | None = None
    idle_w: float | None = None
    busy_w: float | None = None
    seconds: float | None = None
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One artifact's times.

    Attributes:
        p50_ms, p90_ms, p99_ms: of a query; None where the samples are too few to tell.
        ci: percentile, or mean, → its 95 % interval.
        block_length: percentile → successive queries that were resampled together.
        refused: percentile → why it is None.
        mean_ms: of a query.
        throughput_ips: samples a second.
        batch: samples that a session takes at once.
        streams: sessions at work at once; ``threads`` are those of each.
        images_per_query: samples of one query.
        tried: ways of working that were slower.
        n: queries measured, after ``warmup`` that were not.
        cold_start_ms: from opening the file to the first outputs, in a fresh process.
        peak_rss_mb: that process's greatest memory, MiB; None where the system does not tell (Windows).
        energy_mj: millijoules a sample; None where no sensor tells.
        energy: how it was measured.
        precision_executed: of the weighted layers, as the runtime tells.
        integer_macs: share of multiply-accumulates in integers, 0 to 1; None where it does not tell.
        layers: precision → weighted layers.
        samples_ms: every query, in order.
    """

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    ci: Mapping[str, tuple[float, float] | None]
    block_length: Mapping[str, int]
    refused: Mapping[str, str]
    mean_ms: float
    throughput_ips: float
    batch: int
    streams: int
    threads: int
    images_per_query: int
    tried: tuple[Tried, ...]
    n: int
    warmup: int
    cold_start_ms: float
    peak_rss_mb: float | None
    energy_mj: float | None
    energy: Energy
    precision_executed: str
    integer_macs: float | None
    layers: Mapping[str, int]
    samples_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_ms or min(self.samples_ms) <= 0:
            raise ValueError("a query that took no time, or none at all")
        intervals = [bound for interval in self.ci.values() if interval for bound in interval]
        figures = (self.p50_ms, self.p90_ms, self.p99_ms, self.mean_ms, self.throughput_ips, *intervals)
        if any(figure is not None and figure <= 0 for figure in figures):
            raise ValueError("a time or a rate that is not above 0")
        if min(self.batch, self.streams, self.threads, self.images_per_query, self.n) < 1:
            raise ValueError("a count that is not above 0")


@dataclass(frozen=True, kw_only=True)
class Against:
    """Another bundle's artifact, timed in turn: its times, its median over this one's, and which bundle it is of."""

    timing: Timing = field(metadata=INLINE)
    ratio: Estimate
    manifest: str = ""
    target: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Goal:
    """The width of p90's interval, as a share of it, that was wanted; and the one that was reached, if any."""

    wanted: float
    width: float | None
    reached: bool


@dataclass(frozen=True)
class LoadGen:
    """MLPerf's own figures, None where its scenario has none; ``summary`` is its whole log."""

    version: str | None
    valid: bool
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    throughput_ips: float | None
    summary: str


@dataclass(frozen=True)
class Drift:
    """How latency moved over a run: its change as a share of the median, and the p-value of no trend."""

    change: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Figures behind a disturbance; None where the kernel does not tell.

    Attributes:
        seconds, cores: of watching, and of the machine.
        others_cores, own_cores, steal_cores: taken by other processes, by this one, and by the hypervisor for others.
        waiting_share: of the time that our threads stood ready without a core.
        pressure_share: of the time that any task waited for one.
        involuntary_per_s: times a second that one of our threads was taken off its core.
        quota_s: seconds taken away by a container's quota.
        clock_mhz, gpu_clock_mhz: of the first third and of the last.
        throttle_events: counted by CPU or SoC: too warm, or too much current.
        capped: what held the clock down.
        hottest_c: zone → highest temperature.
        reached_c: zone → that temperature and the one at which the kernel slows the CPU down, where it was reached.
        drift: artifact → how its latency moved; None where the samples are too few to tell.
    """

    seconds: float
    cores: int
    others_cores: float | None = None
    own_cores: float | None = None
    steal_cores: float | None = None
    waiting_share: float | None = None
    pressure_share: float | None = None
    involuntary_per_s: float | None = None
    quota_s: float | None = None
    clock_mhz: tuple[float, float] | None = None
    gpu_clock_mhz: tuple[float, float] | None = None
    throttle_events: float | None = None
    capped: tuple[str, ...] = ()
    hottest_c: Mapping[str, float] | None = None
    reached_c: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    drift: Mapping[str, Drift | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Disturbance:
    """Whether something disturbed a benchmark, the reasons as sentences, and the figures."""

    disturbed: bool
    reasons: tuple[str, ...]
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """A benchmark.

    Attributes:
        deployed: the artifact's times; in the file they stand at the top.
        twin: its float twin's; None where there is none.
        against: another bundle's artifact; None where none was named.
        speedup: the twin's median over the artifact's.
        slower_than_float: whether its whole interval lies below 1.
        failures: sentences, empty when all is well.
        device: facts about the machine, and its state before and after.
        scenario, harness: as in :class:`edgetl.runtime.plan.Plan`.
        stopped: why it ended: duration or interval.
        until: the goal; None without one.
        disturbance: None where nothing was watched.
        loadgen: MLPerf's figures, where it asked.
        executed: what the times may be called: device or host.
        manifest, digest: of the bundle, and of this record; "" before it is written.
    """

    deployed: Timing = field(metadata=INLINE)
    twin: Timing | None = field(metadata=named("float"))
    against: Against | None
    speedup: Estimate | None
    slower_than_float: bool
    failures: tuple[str, ...]
    device: Mapping[str, Json]
    scenario: str
    harness: str
    stopped: str
    until: Goal | None
    disturbance: Disturbance | None
    loadgen: LoadGen | None
    executed: str = "host"
    manifest: str = ""
    digest: str = ""

    @property
    def timings(self) -> dict[str, Timing]:
        """What was timed, by role."""
        other = None if self.against is None else self.against.timing
        sides = {"deployed": self.deployed, "float": self.twin, "against": other}
        return {role: timing for role, timing in sides.items() if timing is not None}
