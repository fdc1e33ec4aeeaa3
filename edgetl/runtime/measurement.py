"""What a device answers when it has timed a bundle: everything as it was measured, nothing averaged or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetl.base.schema import INLINE, Json
from edgetl.core.bench import Energy, LoadGen, Tried
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed


@dataclass(frozen=True)
class Cold:
    """A fresh process: milliseconds from opening the file to the first outputs, and its greatest memory in MiB."""

    cold_start_ms: float
    peak_rss_mb: float | None


@dataclass(frozen=True)
class Schedule:
    """How queries are worked on.

    Attributes:
        streams: sessions at work at once.
        threads: worker threads of each.
        batch: samples that a session takes at once.
        turns: times that each session is called in one query, on average.
    """

    streams: int = 1
    threads: int = 1
    batch: int = 1
    turns: int = 1

    def __post_init__(self) -> None:
        if min(self.streams, self.threads, self.batch, self.turns) < 1:
            raise ValueError("a query of no samples")

    @property
    def samples(self) -> int:
        """Samples of one query."""
        return self.streams * self.batch * self.turns


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """The schedule by which an artifact was timed, and those that were tried for it."""

    schedule: Schedule = field(metadata=INLINE)
    tried: tuple[Tried, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Energy of an artifact: millijoules a sample, or None; and how it was measured."""

    energy_mj: float | None = None
    energy: Energy = field(metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What tells of a disturbance, as it stood: counters since boot (this process's since its start), in seconds.

    Attributes:
        at_s: a clock that only goes forward.
        cores: of the machine.
        n: queries done by then.
        busy_s, steal_s: CPU time of all cores together.
        own_s: this process's share of ``busy_s``.
        involuntary: times that one of its threads was taken off its core.
        waited_s: its threads' time in the run queue.
        pressure_s: time during which any task waited for a core.
        throttled: throttle events: too warm, or too much current.
        quota_s: time taken away by a container's quota.
        capped: names of what holds the clock down now.
        clock_mhz: the fastest core's; ``gpu_clock_mhz``, the fastest GPU's.
        temperatures_c: by zone.
        trips_c: temperatures at which the kernel slows the CPU down, by zone.
    """

    at_s: float
    cores: int
    n: int = 0
    busy_s: float | None = None
    steal_s: float | None = None
    own_s: float | None = None
    involuntary: int | None = None
    waited_s: float | None = None
    pressure_s: float | None = None
    throttled: int | None = None
    quota_s: float | None = None
    capped: tuple[str, ...] = ()
    clock_mhz: float | None = None
    gpu_clock_mhz: float | None = None
    temperatures_c: Mapping[str, float] | None = None
    trips_c: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Timings of the artifacts of a bundle, by role: ``deployed``, ``float``, ``against``.

    Attributes:
        samples_ms: milliseconds of each query, in order.
        executed: what the runtime did.
        cold: start in a fresh process.
        schedules: how queries were worked on.
        energy: what a sample took.
        plan: what was asked for.
        stopped: why it ended: duration or interval.
        warmup: queries thrown away first.
        watch: looks at the machine meanwhile.
        device: facts about it; ``before`` and ``after`` are its state.
        loadgen: MLPerf's own figures, where it asked.
    """

    samples_ms: Mapping[str, tuple[float, ...]]
    executed: Mapping[str, Executed]
    cold: Mapping[str, Cold]
    schedules: Mapping[str, Scheduled]
    energy: Mapping[str, Spent]
    plan: Plan
    stopped: str
    warmup: int
    watch: tuple[Look, ...]
    device: Mapping[str, Json]
    before: Mapping[str, Json]
    after: Mapping[str, Json]
    loadgen: LoadGen | None = None

    def __post_init__(self) -> None:
        if "deployed" not in self.samples_ms:
            raise ValueError("no samples of the deployed artifact")
        for role, samples in self.samples_ms.items():
            if not samples or min(samples) <= 0:
                raise ValueError(f"queries of {role!a} that took no time, or none at all")
            if any(role not in part for part in (self.executed, self.cold, self.schedules, self.energy)):
                raise ValueError(f"{role!a} was timed, and not all is told of it")
        if self.plan.harness == "edgetl" and len({len(samples) for samples in self.samples_ms.values()}) != 1:
            raise ValueError("artifacts that took turns, and not as often each")
