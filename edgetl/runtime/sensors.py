"""How the machine runs right now, and who else runs on it: read from the kernel, None where it does not say.

Every function takes the root of the file system, so that another machine's files can be read as well.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgetl.runtime.measurement import Look

ROOT = Path("/")
#: Bits of the Raspberry Pi firmware's ``get_throttled`` that tell of now: under-voltage, capped, throttled, too warm.
_FIRMWARE_NOW = 0xF
#: Names of GPUs among the devices that scale their clock: gpu-gpc-0 on Jetson Thor, 17000000.gpu or .ga10b on Orin.
_GPU = re.compile(r"gpu|g[abpv]1\db")

_CLOCKS = {"now": "cur", "least": "min", "most": "max"}


def state(root: Path = ROOT) -> dict[str, Any]:
    """What changes while a benchmark runs: clocks in MHz, temperatures in °C, power in W, load.

    A GPU's ``least`` and ``most`` clock are equal where it does not scale, as after ``jetson_clocks``.
    """
    return {
        "clock_mhz": _clocks(root),
        "gpu_clock_mhz": _gpu_clocks(root) or None,
        "temperatures_c": _temperatures(root),
        "power_w": _power(root),
        "load_1min": _load(),
    }


def sample(root: Path = ROOT, *, n: int = 0) -> Look:
    """What tells of a disturbance, as it stands, when ``n`` queries are done."""
    clocks, gpus = _clocks(root), _gpu_clocks(root).values()
    cores, busy, stolen = _cpu_times(root)
    return Look(
        at_s=time.perf_counter(),
        cores=cores,
        n=n,
        busy_s=busy,
        steal_s=stolen,
        own_s=time.process_time(),
        involuntary=_involuntary(),
        waited_s=_waited(root),
        pressure_s=_found(root / "proc/pressure/cpu", r"some .*total=(\d+)", 1e-6),
        throttled=_throttle_events(root),
        quota_s=_found(root / "sys/fs/cgroup/cpu.stat", r"throttled_usec (\d+)", 1e-6),
        capped=_capped(root),
        clock_mhz=max(clocks) if clocks else None,
        gpu_clock_mhz=max((each["now"] for each in gpus), default=None),
        temperatures_c=_temperatures(root),
        trips_c=_trips(root),
    )


def text(path: Path) -> str | None:
    """What a small file of the kernel's says, None where it is absent, closed to us, or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ") or None
    except OSError:
        return None


def _load() -> float | None:
    # Windows keeps no such average.
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _involuntary() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _found(path: Path, pattern: str, unit: float) -> float | None:
    found = re.search(pattern, text(path) or "")
    return int(found[1]) * unit if found else None


def _integer(path: Path) -> int | None:
    written = text(path)
    return int(written) if written and re.fullmatch(r"-?\d+", written) else None


def _integers(paths: Iterable[Path]) -> list[int]:
    return [value for path in sorted(paths) if (value := _integer(path)) is not None]


def _cpu_times(root: Path) -> tuple[int, float | None, float | None]:
    """Cores, and the CPU time of all together: at work, and given to other guests; seconds since boot."""
    stat = text(root / "proc/stat") or ""
    found = re.search(r"^cpu +([\d ]+)$", stat, re.MULTILINE)
    cores = len(re.findall(r"^cpu\d+ ", stat, re.MULTILINE)) or os.cpu_count() or 1
    if not found:
        return cores, None, None
    # user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user time already.
    ticks = [*map(int, found[1].split()), *[0] * 8][:8]
    # Whoever has /proc has this; another machine's may be read from anywhere.
    tick = 1 / (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
    return cores, (sum(ticks[:3]) + sum(ticks[5:7])) * tick, ticks[7] * tick


def _waited(root: Path) -> float | None:
    """Time that the threads now alive stood ready and had no core (the second field of schedstat, ns)."""
    lines = [text(path) for path in (root / "proc/self/task").glob("*/schedstat")]
    found = [int(line.split()[1]) for line in lines if line]
    return sum(found) / 1e9 if found else None


def _throttle_events(root: Path) -> int | None:
    """Events counted by x86 cores and packages, and for too much current by a Jetson's SoC, which then slows down.

    A package's count appears once for each core of it.
    """
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    currents = (root / "sys/class/hwmon").glob("hwmon*/oc[0-9]_event_cnt")
    return sum(counted) if (counted := _integers((*cores, *currents))) else None


def _capped(root: Path) -> tuple[str, ...]:
    capped = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind = text(device / "type") or ""
        # A fan at work is no harm; a frequency of CPU or GPU that is held down is.
        if re.search(r"cpu|processor|gpu|devfreq", kind, re.IGNORECASE) and (_integer(device / "cur_state") or 0) > 0:
            capped.append(f"{kind} ({device.name})")
    firmware = text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if firmware and re.fullmatch(r"(0x)?[0-9a-fA-F]+", firmware) and int(firmware, 16) & _FIRMWARE_NOW:
        capped.append(f"the board's firmware (get_throttled {firmware})")
    return tuple(capped)


def _clocks(root: Path) -> list[float] | None:
    scaled = _integers((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if scaled:
        return [round(value / 1000, 1) for value in scaled]
    clocks = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return [round(float(value), 1) for value in clocks] or None


def _gpu_clocks(root: Path) -> dict[str, dict[str, float]]:
    """Of each GPU that scales its clock: what it is now, and between what it may move; MHz."""
    found = {}
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        read = {name: _integer(device / f"{file}_freq") for name, file in _CLOCKS.items()}
        if _GPU.search(device.name) and read["now"] is not None:
            found[device.name] = {name: round(value / 1e6, 1) for name, value in read.items() if value is not None}
    return found


def _zones(root: Path) -> list[Path]:
    return sorted((root / "sys/class/thermal").glob("thermal_zone*"))


def _temperatures(root: Path) -> dict[str, float] | None:
    read = {text(zone / "type") or zone.name: _integer(zone / "temp") for zone in _zones(root)}
    return {name: value / 1000 for name, value in read.items() if value is not None} or None


def _trips(root: Path) -> dict[str, float]:
    """By zone, the lowest temperature at which the kernel starts to slow things down ("passive")."""
    found: dict[str, float] = {}
    for zone in _zones(root):
        passive = [p for p in zone.glob("trip_point_*_type") if text(p) == "passive"]
        limits = _integers(p.with_name(p.name.replace("_type", "_temp")) for p in passive)
        # Trip points that are switched off are written as 0 or below.
        if limits := [limit for limit in limits if limit > 0]:
            found[text(zone / "type") or zone.name] = min(limits) / 1000
    return found


def _power(root: Path) -> dict[str, float] | None:
    """Power rails of an INA3221 (Jetson): volts times amperes, in watts."""
    rails: dict[str, float] = {}
    for label in (root / "sys/class/hwmon").glob("hwmon*/in[0-9]_label"):
        index = label.name[2]
        millivolts, milliamperes = (_integer(label.parent / f"{kind}{index}_input") for kind in ("in", "curr"))
        name = text(label)
        if name and millivolts and milliamperes is not None:
            rails[name] = millivolts * milliamperes / 1e6
    return rails or None
