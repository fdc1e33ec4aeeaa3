"""What the kernel of an Arm machine tells programs, as files: ONNX Runtime and OpenVINO choose their kernels by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cpu:
    """What the kernel of a machine with this core tells.

    Attributes:
        midr: the Main ID Register (MIDR_EL1): implementer, variant, part and revision, as qemu gives them.
        features: hwcaps in Linux's names and order; ``asimddp`` is the int8 dot product.
    """

    midr: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """One core's paragraph of /proc/cpuinfo, without its number."""
        return (
            f"BogoMIPS\t: 108.00\nFeatures\t: {self.features}\nCPU implementer\t: {self.midr >> 24:#04x}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.midr >> 20 & 15:#x}\nCPU part\t: {self.midr >> 4 & 0xFFF:#05x}\n"
            f"CPU revision\t: {self.midr & 15}\n\n"
        )


_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
_ARMV82 = f"{_ARMV8} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
#: qemu's name → the core. MIDR_EL1: Arm's Technical Reference Manual of each, at the revision that qemu models.
CPUS: Mapping[str, Cpu] = {
    "cortex-a53": Cpu(0x410FD034, f"{_ARMV8} cpuid"),
    "cortex-a72": Cpu(0x410FD083, f"{_ARMV8} cpuid"),
    "cortex-a76": Cpu(0x414FD0B1, _ARMV82),
}


def write_kernel_files(folder: Path, cpu: str) -> None:
    """Write /proc and /sys of a machine with ``cpu`` (key of :data:`CPUS`) and as many cores as this one."""
    cores = os.cpu_count() or 1
    core = CPUS[cpu]
    (folder / "proc").mkdir(exist_ok=True)
    paragraphs = "".join(f"processor\t: {index}\n{core.cpuinfo}" for index in range(cores))
    (folder / "proc/cpuinfo").write_text(f"{paragraphs}Model\t\t: {cpu} emulated by qemu\n", encoding="utf-8")
    system = folder / "sys/devices/system/cpu"
    for index in range(cores):
        registers = system / f"cpu{index}/regs/identification"
        registers.mkdir(parents=True, exist_ok=True)
        (registers / "midr_el1").write_text(f"{core.midr:#018x}\n", encoding="ascii")
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n", encoding="ascii")
