"""Energy per inference, where the device has a sensor: Intel and AMD RAPL, INA3221 (Jetson), hwmon counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.core.bench import Energy
from edgetl.runtime.measurement import Spent
from edgetl.runtime.sensors import ROOT, text

#: Seconds of idling before, whose power is stated beside the result.
IDLE_S = 2.0
#: Seconds of inferences of each artifact.
BUSY_S = 4.0
#: How often power is read, in seconds: INA3221 averages over a few milliseconds by itself.
_EVERY_S = 0.02
#: Rails that carry the whole board's current; where one is there, the others are parts of it. An AGX Orin has none:
#: VIN_SYS_5V0 feeds its memory and its ports, and neither CPU nor GPU.
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN", "VDD_TOTAL")
#: Rails that another one feeds, VIN_SYS_5V0: they would be counted twice.
_PARTS = ("VDDQ_VDD2_1V8AO",)


@dataclass(frozen=True)
class Sensor:
    """Where energy or power can be read.

    Attributes:
        name: in words, for the record.
        counters: files of energy counted up, in µJ, each with the value after which it starts again (0: never).
        rails: pairs of files whose product is power: mV and mA.
    """

    name: str
    counters: Sequence[tuple[Path, int]] = ()
    rails: Sequence[tuple[Path, Path]] = ()


class Tally:
    """Energy in joules since this was made, by a sensor that is read now and then."""

    def __init__(self, sensor: Sensor, now: float) -> None:
        self._sensor, self._at = sensor, now
        self._counts, self._watts = self._read()
        self.joules = 0.0

    def _read(self) -> tuple[list[int], float]:
        counts = [int(file.read_bytes()) for file, _ in self._sensor.counters]
        watts = sum(int(volts.read_bytes()) * int(amperes.read_bytes()) / 1e6 for volts, amperes in self._sensor.rails)
        return counts, watts

    def update(self, now: float) -> None:
        """Add what was spent since the last time; ``now`` in seconds. Often enough that no counter wraps twice."""
        counts, watts = self._read()
        for before, after, (_, wrap) in zip(self._counts, counts, self._sensor.counters, strict=True):
            self.joules += (after - before + (wrap if after < before else 0)) / 1e6
        self.joules += (now - self._at) * (watts + self._watts) / 2
        self._counts, self._watts, self._at = counts, watts, now


def find_sensor(root: Path = ROOT) -> Sensor | str:
    """The sensor that covers most of this machine, or why there is none."""
    packages = _rapl(root / "sys/class/powercap")
    closed = [file for file, _ in packages if text(file) is None]
    if packages and not closed:
        return Sensor(f"RAPL, {len(packages)} package(s)", counters=packages)
    rails = _rails(root / "sys/class/hwmon")
    if rails:
        return Sensor(f"INA3221, {', '.join(rails)}", rails=tuple(rails.values()))
    counters = [(f, 0) for f in sorted((root / "sys/class/hwmon").glob("hwmon*/energy*_input")) if text(f)]
    if counters:
        chip = text(counters[0][0].parent / "name") or "hwmon"
        return Sensor(f"{chip}, {len(counters)} counter(s)", counters=counters)
    if closed:
        return f"only root may read {closed[0]}"
    return "no energy sensor here (RAPL, INA3221 or hwmon energy)"


def _rapl(folder: Path) -> list[tuple[Path, int]]:
    """Packages only: their domains are parts of them, and psys covers them again."""
    zones = [zone for zone in sorted(folder.glob("intel-rapl*")) if (text(zone / "name") or "").startswith("package")]
    return [(zone / "energy_uj", int(text(zone / "max_energy_range_uj") or 0)) for zone in zones]


def _rails(folder: Path) -> dict[str, tuple[Path, Path]]:
    found = {}
    for label in sorted(folder.glob("hwmon*/in[0-9]_label")):
        pair = (label.with_name(f"in{label.name[2]}_input"), label.with_name(f"curr{label.name[2]}_input"))
        name = text(label)
        if name and name not in _PARTS and all(text(file) for file in pair):
            found[name] = pair
    whole = {name: pair for name, pair in found.items() if name in _WHOLE_BOARD}
    return whole or found


def measure(
    queries: dict[str, tuple[Callable[[int], object], int]], root: Path = ROOT, seconds: float = BUSY_S
) -> dict[str, Spent]:
    """Energy of each artifact by itself: others in between would spend in its name.

    Args:
        queries: name → the query and its number of images.
        root: of the file system in which sensors are looked for.
        seconds: of each.

    Returns:
        name → millijoules a sample (all that the sensor covers, idle power included) or why there are none.
    """
    sensor = find_sensor(root)
    if isinstance(sensor, str):
        return {name: Spent(energy=Energy(reason=sensor)) for name in queries}
    _, idle, spent = _spend(sensor, lambda _: time.sleep(_EVERY_S), min(IDLE_S, seconds))
    results: dict[str, Spent] = {}
    for name, (query, images) in queries.items():
        count, joules, elapsed = _spend(sensor, query, seconds)
        if joules <= 0:
            results[name] = Spent(energy=Energy(reason=f"{sensor.name}: stood still while the artifact ran"))
            continue
        measured = Energy(
            sensor=sensor.name,
            above_idle_mj=1000 * (joules - elapsed * idle / spent) / (count * images),
            idle_w=idle / spent,
            busy_w=joules / elapsed,
            seconds=elapsed,
            images=count * images,
        )
        results[name] = Spent(energy_mj=1000 * joules / (count * images), energy=measured)
    return results


def _spend(sensor: Sensor, query: Callable[[int], object], seconds: float) -> tuple[int, float, float]:
    """Ask for so many seconds: number of queries, joules, and the seconds that it took."""
    started = reported = time.perf_counter()
    tally, count = Tally(sensor, started), 0
    while (now := time.perf_counter()) - started < seconds or not count:
        query(count)
        count += 1
        if now - reported > _EVERY_S:
            reported = now
            tally.update(time.perf_counter())
    ended = time.perf_counter()
    tally.update(ended)
    return count, tally.joules, ended - started
