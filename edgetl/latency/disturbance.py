"""Was a benchmark disturbed? Judged from what the device's kernel counted meanwhile, and from the timings' course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgetl.latency.stats import trend

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


def disturbance(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """What disturbed a benchmark.

    Args:
        raw: what :func:`edgetl.runtime.measure.bench` returned.

    Returns:
        ``disturbed``, ``reasons`` (sentences with figures) and ``evidence`` (figures by name, None where the kernel
        does not tell); None where nothing was watched.
    """
    watch: Sequence[Mapping[str, Any]] = raw.get("watch") or ()
    if len(watch) < 2 or watch[-1]["at_s"] <= watch[0]["at_s"]:
        return None
    evidence = {**_neighbours(watch), **_heat(watch), "drift": _drifts(raw["samples_ms"])}
    # With more threads than cores, a benchmark takes its own cores away.
    schedules = (raw.get("schedules") or {}).values()
    crowded = max((each["streams"] * each["threads"] for each in schedules), default=1) > watch[0]["cores"]
    reasons = [*_noise(evidence, crowded), *_throttling(evidence), *_drifting(evidence["drift"])]
    return {"disturbed": bool(reasons), "reasons": reasons, "evidence": evidence}


def _grown(watch: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """How much a counter grew from the first look to the last."""
    first, last = watch[0].get(name), watch[-1].get(name)
    return None if first is None or last is None else max(0.0, last - first)


def _neighbours(watch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    wall = watch[-1]["at_s"] - watch[0]["at_s"]

    def share(name: str) -> float | None:
        grown = _grown(watch, name)
        return None if grown is None else grown / wall

    busy, own = _grown(watch, "busy_s"), _grown(watch, "own_s")
    return {
        "seconds": wall,
        "cores": watch[0]["cores"],
        "others_cores": None if busy is None or own is None else max(0.0, busy - own) / wall,
        "own_cores": share("own_s"),
        "steal_cores": share("steal_s"),
        "waiting_share": share("waited_s"),
        "pressure_share": share("pressure_s"),
        "involuntary_per_s": share("involuntary"),
        "quota_s": _grown(watch, "quota_s"),
    }


def _heat(watch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    clocks = [look["clock_mhz"] for look in watch if look.get("clock_mhz")]
    third = max(1, len(clocks) // 3)
    temperatures = [look["temperatures_c"] for look in watch if look.get("temperatures_c")]
    hottest = {zone: max(t[zone] for t in temperatures if zone in t) for zone in (temperatures or [{}])[0]}
    trips = watch[-1].get("trips_c") or {}
    return {
        "clock_mhz": [_middle(clocks[:third]), _middle(clocks[-third:])] if clocks else None,
        "throttle_events": _grown(watch, "throttled"),
        "capped": sorted({name for look in watch for name in look.get("capped") or ()}),
        "hottest_c": hottest or None,
        "reached_c": {zone: [hottest[zone], trip] for zone, trip in trips.items() if hottest.get(zone, 0) >= trip},
    }


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _drifts(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    found = {role: trend(values) for role, values in samples.items()}
    return {role: None if it is None else {"change": it.change, "p": it.p} for role, it in found.items()}


def _noise(evidence: Mapping[str, Any], crowded: bool) -> Iterator[str]:
    others, stolen = evidence["others_cores"], evidence["steal_cores"]
    waiting, switches, pressure = (evidence[k] for k in ("waiting_share", "involuntary_per_s", "pressure_share"))
    if others is not None and others > MOST_BY_OTHERS:
        under = "" if pressure is None else f"; tasks waited for a core {pressure:.0%} of the time"
        yield (
            f"noisy neighbour: other processes took {others:.2f} of {evidence['cores']} cores "
            f"({MOST_BY_OTHERS:.2f} is usual at most){under}"
        )
    if stolen is not None and stolen > MOST_STOLEN:
        yield f"noisy neighbour: the hypervisor gave {stolen:.1%} of a core to others ({MOST_STOLEN:.0%} at most)"
    if not crowded and waiting is not None and waiting > MOST_WAITING:
        yield (
            f"noisy neighbour: the measuring threads stood in the run queue {waiting:.1%} of the time "
            f"({MOST_WAITING:.0%} at most), with {switches:.0f} involuntary context switches a second"
        )
    elif not crowded and waiting is None and switches is not None and switches > MOST_SWITCHES:
        yield f"noisy neighbour: {switches:.0f} involuntary context switches a second ({MOST_SWITCHES:.0f} at most)"
    if evidence["quota_s"]:
        yield f"throttling: a CPU quota stopped this container for {evidence['quota_s']:.2f} s"


def _throttling(evidence: Mapping[str, Any]) -> Iterator[str]:
    clocks = evidence["clock_mhz"]
    if clocks and clocks[1] < (1 - MOST_CLOCK_FALL) * clocks[0]:
        yield f"throttling: the clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz"
    if evidence["throttle_events"]:
        yield f"throttling: the CPU counted {evidence['throttle_events']:.0f} thermal throttle events"
    if evidence["capped"]:
        yield f"throttling: the clock was held down by {', '.join(evidence['capped'])}"
    for zone, (reached, trip) in evidence["reached_c"].items():
        yield f"throttling: {zone} reached {reached:.0f} °C, and the kernel slows it down from {trip:.0f} °C"


def _drifting(drifts: Mapping[str, Any]) -> Iterator[str]:
    for role, found in drifts.items():
        if found and abs(found["change"]) > MOST_DRIFT and found["p"] < DRIFT_ALPHA:
            yield (
                f"drift: the {role} artifact's latency changed by {found['change']:+.0%} over the run "
                f"(Mann-Kendall p {found['p']:.1g})"
            )
