"""Sensors and NVIDIA's versions, read from trees of files as Linux and L4T lay them out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgetl.runtime.inventory import inventory
from edgetl.runtime.machine import power_mode, saturates

#: /sys of an Orin Nano: one thermal zone, and an INA3221 whose third channel has no label.
ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: …\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5072\n",
    "sys/class/hwmon/hwmon1/curr1_input": "984\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/curr2_input": "120\n",
    "sys/class/hwmon/hwmon1/curr3_input": "80\n",
    "var/lib/dpkg/status": (
        "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2+b77\n\n"
        "Package: tensorrt\nStatus: deinstall ok config-files\nVersion: 8.6.2.3-1+cuda12.2\n\n"
        "Package: libnvinfer10\nStatus: install ok installed\nArchitecture: arm64\nVersion: 10.3.0.30-1+cuda12.5\n"
    ),
}
LAPTOP = {
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon0/temp1_input": "41000\n",
    "sys/class/hwmon/hwmon2/name": "BAT0\n",
    "sys/class/hwmon/hwmon2/power1_input": "9000000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1\n",
}


def tree(root: Path, files: Mapping[str, str]) -> dict[str, Any]:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return inventory(root)


def names(found: Mapping[str, Any], kind: str) -> list[str]:
    return [sensor["name"] for sensor in found["sensors"][kind]]


def test_a_jetson_names_its_rails_and_its_versions(tmp_path: Path) -> None:
    found = tree(tmp_path, ORIN)
    assert names(found, "temperature") == ["cpu-thermal"]
    assert names(found, "power") == ["VDD_IN", "VDD_CPU_GPU_CV"]
    assert found["jetson"] == {"l4t": "36.4.3", "jetpack": "6.2+b77", "tensorrt": "10.3.0.30-1+cuda12.5"}
    assert found["sensors"]["temperature"][0]["path"] == "/sys/class/thermal/thermal_zone0/temp"


def test_a_jetson_without_nvidias_packages_says_so(tmp_path: Path) -> None:
    found = tree(tmp_path, {"etc/nv_tegra_release": ORIN["etc/nv_tegra_release"]})
    assert found["jetson"] == {"l4t": "36.4.3", "jetpack": None, "tensorrt": None}


def test_an_x86_machine_names_its_chips_and_its_energy_counter(tmp_path: Path) -> None:
    found = tree(tmp_path, LAPTOP)
    assert names(found, "temperature") == ["coretemp Package id 0"]
    assert names(found, "power") == ["BAT0 power1"]
    assert names(found, "energy") == ["intel-rapl:0 package-0"]
    assert found["jetson"] is None


def test_this_machine_answers_with_files_that_exist() -> None:
    for kind in inventory()["sensors"].values():
        for sensor in kind:
            assert os.access(sensor["path"], os.R_OK) == sensor["readable"]


def test_a_machine_that_has_none_says_none(tmp_path: Path) -> None:
    assert inventory(tmp_path) == {"sensors": {"temperature": [], "power": [], "energy": []}, "jetson": None}


@pytest.mark.parametrize(
    ("arch", "features", "wrong"),
    [
        ("x86_64", ["avx2"], True),
        ("x86_64", ["avx2", "avx512f"], True),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("AMD64", ["avx512_vnni"], False),
        ("aarch64", ["asimddp"], False),
        ("aarch64", [], False),
    ],
)
def test_which_cpus_saturate(arch: str, features: list[str], wrong: bool) -> None:
    assert saturates({"arch": arch, "isa_features": features}) is wrong


def test_a_jetsons_power_mode_has_the_name_of_its_own_file(tmp_path: Path) -> None:
    modes = "# < POWER_MODEL ID=2 NAME=OLD >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    assert power_mode(tmp_path) is None
    tree(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002\n"})
    assert power_mode(tmp_path) == "mode 2"
    tree(tmp_path, {"etc/nvpmodel.conf": modes})
    assert power_mode(tmp_path) == "MAXN_SUPER"
