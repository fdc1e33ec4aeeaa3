"""What machine this is: read from the kernel, None where it does not say."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetl.base.schema import INLINE


@dataclass(frozen=True)
class SensorFile:
    """A sensor: what it is called, the file that tells its value, and whether this user may read that."""

    name: str
    path: str
    readable: bool


@dataclass(frozen=True)
class Jetson:
    """Versions of what NVIDIA installed; None where it is not there."""

    l4t: str | None = None
    jetpack: str | None = None
    tensorrt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a device tells of itself; None where its kernel does not say.

    Attributes:
        cpu_model, cores, arch, isa_features, memory_mb, kernel, governor, board, power_mode: as :func:`machine` has.
        clock_mhz, gpu_clock_mhz, temperatures_c, power_w, load_1min: as :func:`edgetl.runtime.sensors.state` has them.
        sensors: by kind: temperature, power, energy.
        jetson: None on other machines.
    """

    cpu_model: str | None = None
    cores: int | None = None
    arch: str | None = None
    isa_features: tuple[str, ...] = ()
    memory_mb: int | None = None
    kernel: str | None = None
    governor: str | None = None
    board: str | None = None
    power_mode: str | None = None
    clock_mhz: tuple[float, ...] | None = None
    gpu_clock_mhz: Mapping[str, Mapping[str, float]] | None = None
    temperatures_c: Mapping[str, float] | None = None
    power_w: Mapping[str, float] | None = None
    load_1min: float | None = None
    sensors: Mapping[str, tuple[SensorFile, ...]] | None = None
    jetson: Jetson | None = None


@dataclass(frozen=True, kw_only=True)
class MachineAnswer:
    """What ``python -m edgetl.runtime machine`` prints: the machine, its Python, and packages with their versions."""

    machine: Machine = field(metadata=INLINE)
    python: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)


_CPU = Path("/sys/devices/system/cpu")


def machine() -> dict[str, Any]:
    """The machine's lasting facts: CPU model, cores, ISA, memory in MB, kernel, governor, a Jetson's power mode."""
    return {
        "cpu_model": _cpu_model(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "isa_features": _features(),
        "memory_mb": _memory_mb(),
        "kernel": platform.release(),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "board": _text(Path("/proc/device-tree/model")),
        "power_mode": power_mode(),
    }


def power_mode(root: Path = Path("/")) -> str | None:
    """What ``nvpmodel`` set on a Jetson, by the name that its own file gives it, such as ``MAXN_SUPER``."""
    found = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if not found:
        return None
    number = int(found[1])
    modes = re.findall(
        r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf") or "", re.MULTILINE
    )
    return next((name for mode, name in modes if int(mode) == number), f"mode {number}")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ") or None
    except OSError:
        return None


def _cpuinfo(field: str) -> list[str]:
    return re.findall(rf"^{field}\s*:\s*(.*)$", _text(Path("/proc/cpuinfo")) or "", re.MULTILINE)


def _cpu_model() -> str:
    return next(iter(_cpuinfo("model name") or _cpuinfo("Model") or [platform.processor() or "unknown"]))


def _features() -> list[str]:
    """The instruction sets that decide int8 speed."""
    listed = set(" ".join((_cpuinfo("flags") or _cpuinfo("Features"))[:1]).split())
    x86 = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
    # asimdhp is arithmetic in fp16, asimddp the dot product of int8.
    arm = ("asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")
    wanted = (*x86, *arm)
    return [name for name in wanted if name in listed]


def saturates(facts: Mapping[str, Any]) -> bool:
    """Whether a CPU adds two products of u8 and s8 in 16 bits, where they can saturate: x86-64 without VNNI.

    Args:
        facts: what :func:`machine` tells of it.
    """
    return facts["arch"] in ("x86_64", "AMD64") and not any("vnni" in name for name in facts["isa_features"])


def _memory_mb() -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _text(Path("/proc/meminfo")) or "", re.MULTILINE)
    return int(found[1]) // 1024 if found else None
