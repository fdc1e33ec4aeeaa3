"""Was a benchmark disturbed? Judged from what the device's kernel counted meanwhile, and from the timings' course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgetl.core.bench import Disturbance, Drift, Evidence
from edgetl.latency.stats import trend
from edgetl.runtime.measurement import Look, Measurement

#: Share of one core that other processes may take. A quiet Linux takes 1 to 3 % (the progress bar of whoever waits for
#: the result included); a neighbour at a tenth of a core runs often enough to sit in one timing out of ten, the p90.
MOST_BY_OTHERS = 0.10
#: Share of one core that the hypervisor may give to others: as above, but a guest cannot make steal time by itself.
MOST_STOLEN = 0.02
#: Share of the time that our threads may stand ready without a core: so much of the mean is waiting, not inferring.
MOST_WAITING = 0.02
#: Involuntary context switches a second, where the kernel does not tell how long we waited. Kernel threads make a few
#: a second; a process that shares our core makes one every time slice, of 3 to 10 ms.
MOST_SWITCHES = 50.0
#: Fall of the clock from the run's first third to its last that is no turbo bin's flutter (100 MHz of 3 GHz is 3 %).
MOST_CLOCK_FALL = 0.05
#: Drift that no idle machine shows. The speed of an idle virtual machine (Xeon, two cores) wandered by up to 11.6 % in
#: windows of 4 to 40 s out of 200 s, and 1 in 8 of them had a trend of more than 5 % that is significant. A lesser
#: drift is in the evidence.
MOST_DRIFT = 0.15
#: Chance of calling a run without a trend drifting. With the size above both must hold.
DRIFT_ALPHA = 0.01


def disturbance(measured: Measurement) -> Disturbance | None:
    """What disturbed a benchmark; None where nothing was watched."""
    watch = measured.watch
    if len(watch) < 2 or watch[-1].at_s <= watch[0].at_s:
        return None
    evidence = _evidence(watch, measured.samples_ms)
    # With more threads than cores, a benchmark takes its own cores away.
    most = max(each.schedule.streams * each.schedule.threads for each in measured.schedules.values())
    reasons = (*_noise(evidence, most > watch[0].cores), *_throttling(evidence), *_drifting(evidence.drift))
    return Disturbance(bool(reasons), reasons, evidence)


def _evidence(watch: Sequence[Look], samples: Mapping[str, Sequence[float]]) -> Evidence:
    first, last = watch[0], watch[-1]
    wall = last.at_s - first.at_s
    busy, own = _grown(first.busy_s, last.busy_s), _grown(first.own_s, last.own_s)
    hottest = _hottest(watch)
    return Evidence(
        seconds=wall,
        cores=first.cores,
        others_cores=None if busy is None or own is None else max(0.0, busy - own) / wall,
        own_cores=_share(first.own_s, last.own_s, wall),
        steal_cores=_share(first.steal_s, last.steal_s, wall),
        waiting_share=_share(first.waited_s, last.waited_s, wall),
        pressure_share=_share(first.pressure_s, last.pressure_s, wall),
        involuntary_per_s=_share(first.involuntary, last.involuntary, wall),
        quota_s=_grown(first.quota_s, last.quota_s),
        clock_mhz=_thirds([look.clock_mhz for look in watch if look.clock_mhz]),
        gpu_clock_mhz=_thirds([look.gpu_clock_mhz for look in watch if look.gpu_clock_mhz]),
        throttle_events=_grown(first.throttled, last.throttled),
        capped=tuple(sorted({name for look in watch for name in look.capped})),
        hottest_c=hottest or None,
        reached_c={zone: (hottest[zone], trip) for zone, trip in last.trips_c.items() if hottest.get(zone, 0) >= trip},
        drift={role: _drift(values) for role, values in samples.items()},
    )


def _grown(first: float | None, last: float | None) -> float | None:
    """How much a counter grew."""
    return None if first is None or last is None else max(0.0, last - first)


def _share(first: float | None, last: float | None, wall: float) -> float | None:
    grown = _grown(first, last)
    return None if grown is None else grown / wall


def _hottest(watch: Sequence[Look]) -> dict[str, float]:
    found: dict[str, float] = {}
    for look in watch:
        for zone, value in (look.temperatures_c or {}).items():
            found[zone] = max(value, found.get(zone, value))
    return found


def _thirds(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle of the first third and of the last."""
    third = max(1, len(values) // 3)
    return (_middle(values[:third]), _middle(values[-third:])) if values else None


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _drift(values: Sequence[float]) -> Drift | None:
    found = trend(values)
    return None if found is None else Drift(found.change, found.p)


def _noise(evidence: Evidence, crowded: bool) -> Iterator[str]:
    others, stolen = evidence.others_cores, evidence.steal_cores
    waiting, switches, pressure = evidence.waiting_share, evidence.involuntary_per_s, evidence.pressure_share
    if others is not None and others > MOST_BY_OTHERS:
        under = "" if pressure is None else f"; tasks waited for a core {pressure:.0%} of the time"
        yield (
            f"noisy neighbour: other processes took {others:.2f} of {evidence.cores} cores "
            f"({MOST_BY_OTHERS:.2f} is usual at most){under}"
        )
    if stolen is not None and stolen > MOST_STOLEN:
        yield f"noisy neighbour: the hypervisor gave {stolen:.1%} of a core to others ({MOST_STOLEN:.0%} at most)"
    if not crowded and waiting is not None and waiting > MOST_WAITING:
        yield (
            f"noisy neighbour: the measuring threads stood in the run queue {waiting:.1%} of the time "
            f"({MOST_WAITING:.0%} at most), with {switches or 0:.0f} involuntary context switches a second"
        )
    elif not crowded and waiting is None and switches is not None and switches > MOST_SWITCHES:
        yield f"noisy neighbour: {switches:.0f} involuntary context switches a second ({MOST_SWITCHES:.0f} at most)"
    if evidence.quota_s:
        yield f"throttling: a CPU quota stopped this container for {evidence.quota_s:.2f} s"


def _throttling(evidence: Evidence) -> Iterator[str]:
    for whose, clocks in (("the clock", evidence.clock_mhz), ("the GPU's clock", evidence.gpu_clock_mhz)):
        if clocks and clocks[1] < (1 - MOST_CLOCK_FALL) * clocks[0]:
            yield f"throttling: {whose} fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz"
    if evidence.throttle_events:
        yield f"throttling: {evidence.throttle_events:.0f} throttle events were counted: too warm, or too much current"
    if evidence.capped:
        yield f"throttling: the clock was held down by {', '.join(evidence.capped)}"
    for zone, (reached, trip) in evidence.reached_c.items():
        yield f"throttling: {zone} reached {reached:.0f} °C, and the kernel slows it down from {trip:.0f} °C"


def _drifting(drifts: Mapping[str, Drift | None]) -> Iterator[str]:
    for role, found in drifts.items():
        if found is not None and abs(found.change) > MOST_DRIFT and found.p < DRIFT_ALPHA:
            yield (
                f"drift: the {role} artifact's latency changed by {found.change:+.0%} over the run "
                f"(Mann-Kendall p {found.p:.1g})"
            )
