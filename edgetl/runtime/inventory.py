"""What a machine has besides its CPU: sensors, and what NVIDIA installed on a Jetson; read from files, never run.

Every function takes the root of the file system, so that another machine's files can be read as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path("/")


def inventory(root: Path = ROOT) -> dict[str, Any]:
    """Sensors by kind, and JetPack's versions.

    Returns:
        ``sensors``: ``temperature``, ``power`` and ``energy``, each a list of {``name``, ``path``, ``readable``};
        ``jetson``: None on other machines, else ``l4t``, ``jetpack`` and ``tensorrt`` as its package lists say, None
        for those that are not installed.
    """
    return {
        "sensors": {
            "temperature": [*_thermal_zones(root), *_hwmon(root, "temp*_input")],
            "power": [*_hwmon(root, "power*_input"), *_hwmon(root, "power*_average"), *_rails(root)],
            "energy": [*_powercap(root), *_hwmon(root, "energy*_input")],
        },
        "jetson": _jetson(root),
    }


def _sensor(root: Path, name: str, file: Path) -> dict[str, Any]:
    return {"name": name, "path": f"/{file.relative_to(root)}", "readable": os.access(file, os.R_OK)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
    except OSError:
        return ""


def _thermal_zones(root: Path) -> Iterator[dict[str, Any]]:
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp")):
        yield _sensor(root, _text(zone.parent / "type") or zone.parent.name, zone)


def _hwmon(root: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for file in sorted((root / "sys/class/hwmon").glob(f"hwmon*/{pattern}")):
        channel = file.name.split("_")[0]
        label = _text(file.with_name(f"{channel}_label")) or channel
        yield _sensor(root, f"{_text(file.parent / 'name') or file.parent.name} {label}", file)


def _rails(root: Path) -> Iterator[dict[str, Any]]:
    """Rails of an INA3221, the monitor on Jetson boards: it gives volts and amperes, and their product is the power."""
    for file in sorted((root / "sys/class/hwmon").glob("hwmon*/curr*_input")):
        rail = _text(file.with_name(f"in{file.name[4:].split('_')[0]}_label"))
        if rail and _text(file.parent / "name").startswith("ina"):
            yield _sensor(root, rail, file)


def _powercap(root: Path) -> Iterator[dict[str, Any]]:
    """Energy counters of x86 CPUs (RAPL); Linux lets only root read them since 5.10."""
    for file in sorted((root / "sys/class/powercap").glob("*/energy_uj")):
        yield _sensor(root, f"{file.parent.name} {_text(file.parent / 'name')}".strip(), file)


def _jetson(root: Path) -> dict[str, str | None] | None:
    released = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if not released:
        return None
    return {
        "l4t": f"{released[1]}.{released[2]}",
        "jetpack": _package(root, "nvidia-jetpack"),
        "tensorrt": _package(root, r"tensorrt|libnvinfer\d+"),
    }


def _package(root: Path, name: str) -> str | None:
    """The version of an installed Debian package."""
    for paragraph in _text(root / "var/lib/dpkg/status").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.MULTILINE))
        if re.fullmatch(name, fields.get("Package", "")) and fields.get("Status", "").endswith(" installed"):
            return fields.get("Version")
    return None
