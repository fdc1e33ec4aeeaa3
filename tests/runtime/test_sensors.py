"""Sensors and counters, from trees of files as real kernels lay them out, and from this machine's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.base.schema import from_json, to_json
from edgetl.runtime import energy
from edgetl.runtime.measurement import Look, Spent
from edgetl.runtime.sensors import sample, state

Tree = Callable[[dict[str, object]], Path]
RAPL = "sys/class/powercap/intel-rapl:0"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Lays files out below a root; returns the root."""

    def lay(files: dict[str, object]) -> Path:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")
        return tmp_path

    return lay


def test_this_machine() -> None:
    first, second = sample(), sample()
    assert from_json(Look, json.loads(json.dumps(to_json(first), allow_nan=False)), "a look") == first
    assert first.cores == os.cpu_count()
    for counter in ("at_s", "busy_s", "steal_s", "own_s", "involuntary"):
        assert getattr(second, counter) >= getattr(first, counter) >= 0
    assert {"clock_mhz", "gpu_clock_mhz", "temperatures_c", "power_w", "load_1min"} == set(state())


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    seen = sample(tmp_path)
    assert seen.busy_s is seen.throttled is seen.pressure_s is seen.temperatures_c is seen.waited_s is None
    assert (seen.capped, seen.trips_c) == ((), {})
    assert seen.gpu_clock_mhz is None
    assert state(tmp_path)["power_w"] is state(tmp_path)["gpu_clock_mhz"] is None


def test_counters(tree: Tree) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    root = tree(
        {
            # user nice system idle iowait irq softirq steal guest guest_nice
            "proc/stat": "cpu  100 20 30 9000 70 5 6 40 50 0\ncpu0 1 2 3\ncpu1 1 2 3\ncpu2 1 2 3\nintr 7",
            "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0 total=0",
            "proc/self/task/7/schedstat": "99 2000000000 5",
            "proc/self/task/8/schedstat": "99 500000000 5",
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 3\nthrottled_usec 250000",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 4,
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": 6,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1200000,
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": 2400000,
        }
    )
    seen = sample(root)
    assert seen.cores == 3
    assert seen.busy_s == pytest.approx(161 / tick)
    assert seen.steal_s == pytest.approx(40 / tick)
    assert (seen.pressure_s, seen.waited_s, seen.quota_s) == (pytest.approx(1.5), 2.5, 0.25)
    assert (seen.throttled, seen.clock_mhz) == (10, 2400)


@pytest.mark.parametrize("gpu", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0"])
def test_a_jetsons_gpu(gpu: str, tree: Tree) -> None:
    devfreq, clocks = "sys/class/devfreq", {"cur_freq": 612000000, "min_freq": 306000000, "max_freq": 1020000000}
    root = tree(
        {
            **{f"{devfreq}/{gpu}/{name}": value for name, value in clocks.items()},
            f"{devfreq}/bwmgr/cur_freq": 3199000000,
            "sys/class/hwmon/hwmon3/name": "soctherm_oc",
            **{f"sys/class/hwmon/hwmon3/oc{i}_event_cnt": count for i, count in ((1, 0), (2, 15), (3, 37))},
            "sys/class/thermal/cooling_device4/type": f"devfreq-{gpu}",
            "sys/class/thermal/cooling_device4/cur_state": 1,
        }
    )
    seen = sample(root)
    assert (seen.gpu_clock_mhz, seen.throttled) == (612, 52)
    assert seen.capped == (f"devfreq-{gpu} (cooling_device4)",)
    assert state(root)["gpu_clock_mhz"] == {gpu: {"now": 612, "least": 306, "most": 1020}}


def test_what_holds_the_clock_down(tree: Tree) -> None:
    thermal = "sys/class/thermal"
    root = tree(
        {
            f"{thermal}/cooling_device0/type": "pwm-fan",
            f"{thermal}/cooling_device0/cur_state": 3,
            f"{thermal}/cooling_device1/type": "cpufreq-cpu0",
            f"{thermal}/cooling_device1/cur_state": 2,
            f"{thermal}/cooling_device2/type": "Processor",
            f"{thermal}/cooling_device2/cur_state": 0,
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
            f"{thermal}/thermal_zone0/type": "cpu-thermal",
            f"{thermal}/thermal_zone0/temp": 81500,
            f"{thermal}/thermal_zone0/trip_point_0_type": "critical",
            f"{thermal}/thermal_zone0/trip_point_0_temp": 110000,
            f"{thermal}/thermal_zone0/trip_point_1_type": "passive",
            f"{thermal}/thermal_zone0/trip_point_1_temp": 80000,
            f"{thermal}/thermal_zone0/trip_point_2_type": "passive",
            f"{thermal}/thermal_zone0/trip_point_2_temp": 0,
        }
    )
    seen = sample(root)
    assert seen.capped == ("cpufreq-cpu0 (cooling_device1)", "the board's firmware (get_throttled 50005)")
    assert seen.temperatures_c == {"cpu-thermal": 81.5}
    assert seen.trips_c == {"cpu-thermal": 80}


def test_past_undervoltage_is_not_now(tree: Tree) -> None:
    assert sample(tree({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000"})).capped == ()


def test_no_sensor_is_said(tmp_path: Path) -> None:
    found = energy.measure({"deployed": (lambda _: None, 1)}, tmp_path)
    assert found["deployed"].energy_mj is None
    assert "no energy sensor" in (found["deployed"].energy.reason or "")


def rapl(tree: Tree, microjoules: int) -> Path:
    zones = {"": "package-0", ":0": "core"}
    named: dict[str, object] = {f"{RAPL}{zone}/name": name for zone, name in zones.items()}
    return tree(
        {
            **named,
            f"{RAPL}/energy_uj": microjoules,
            f"{RAPL}/max_energy_range_uj": 10_000_000,
            f"{RAPL}:0/energy_uj": 77,
            f"{RAPL}:0/max_energy_range_uj": 10_000_000,
            "sys/class/powercap/intel-rapl:1/name": "psys",
            "sys/class/powercap/intel-rapl:1/energy_uj": 5,
        }
    )


def test_rapl_counts_packages_and_wraps(tree: Tree) -> None:
    root = rapl(tree, 9_000_000)
    sensor = energy.find_sensor(root)
    assert isinstance(sensor, energy.Sensor)
    assert sensor.name == "RAPL, 1 package(s)"
    tally = energy.Tally(sensor, 0.0)
    for now, microjoules in ((1.0, 9_500_000), (2.0, 500_000), (3.0, 700_000)):
        rapl(tree, microjoules)
        tally.update(now)
    assert tally.joules == pytest.approx(0.5 + 1.0 + 0.2)


def test_an_agx_orins_energy_is_the_sum_of_its_rails(tree: Tree) -> None:
    """None of them is the whole board's: the five volts of the system are without the GPU."""
    rails = {"hwmon1": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "hwmon2": ("NC", "VDDQ_VDD2_1V8AO")}
    files: dict[str, object] = {}
    for chip, names in rails.items():
        for index, name in enumerate(names, 1):
            files[f"sys/class/hwmon/{chip}/in{index}_label"] = name
            if name != "NC":
                files |= {f"sys/class/hwmon/{chip}/{kind}{index}_input": 1000 for kind in ("in", "curr")}
    sensor = energy.find_sensor(tree(files))
    assert isinstance(sensor, energy.Sensor)
    assert sensor.name == "INA3221, VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"
    tally = energy.Tally(sensor, 0.0)
    tally.update(2.0)
    assert tally.joules == pytest.approx(6.0)


def test_jetsons_rails_are_integrated(tree: Tree) -> None:
    hwmon = "sys/class/hwmon/hwmon3"

    def draw(milliamperes: int) -> Path:
        rails: dict[str, object] = {f"{hwmon}/in1_label": "VDD_IN", f"{hwmon}/in2_label": "VDD_CPU_GPU_CV"}
        values = {f"{hwmon}/in{i}_input": 5000 for i in (1, 2)}
        return tree({**rails, **values, f"{hwmon}/curr1_input": milliamperes, f"{hwmon}/curr2_input": 400})

    root = draw(1000)
    sensor = energy.find_sensor(root)
    assert isinstance(sensor, energy.Sensor)
    assert sensor.name == "INA3221, VDD_IN", "the board's rail holds the others"
    assert state(root)["power_w"] == {"VDD_IN": 5.0, "VDD_CPU_GPU_CV": 2.0}
    tally = energy.Tally(sensor, 10.0)
    draw(2000)
    tally.update(12.0)
    assert tally.joules == pytest.approx(2 * (5 + 10) / 2)


def test_energy_of_an_inference(tree: Tree) -> None:
    """A query that spends 3 mJ by the counter, on 2 images; idling spends nothing."""
    root, spent = rapl(tree, 0), [0]

    def query(_: int) -> None:
        spent[0] += 3000
        rapl(tree, spent[0])

    found = energy.measure({"deployed": (query, 2)}, root, seconds=0.05)["deployed"]
    assert found.energy_mj == pytest.approx(1.5)
    assert found.energy.above_idle_mj == pytest.approx(1.5)
    assert found.energy.idle_w == 0
    assert found.energy.images == 2 * spent[0] // 3000
    assert from_json(Spent, json.loads(json.dumps(to_json(found), allow_nan=False)), "energy") == found


def test_a_counter_that_stands_still_is_no_measurement(tree: Tree) -> None:
    found = energy.measure({"deployed": (lambda _: None, 1)}, rapl(tree, 5), seconds=0.01)["deployed"]
    assert found.energy_mj is None
    assert "stood still" in (found.energy.reason or "")


def test_a_closed_counter_is_said(tree: Tree) -> None:
    root = tree({f"{RAPL}/name": "package-0", f"{RAPL}/max_energy_range_uj": 9})
    found = energy.find_sensor(root)
    assert isinstance(found, str)
    assert "only root" in found
    hwmon = tree({"sys/class/hwmon/hwmon1/energy1_input": 7, "sys/class/hwmon/hwmon1/name": "amd_energy"})
    other = energy.find_sensor(hwmon)
    assert isinstance(other, energy.Sensor)
    assert other.name == "amd_energy, 1 counter(s)"
