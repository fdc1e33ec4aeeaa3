"""What an artifact is made for, as a value: :mod:`edgetl.core.targets` reads it from files, and a manifest keeps it."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from typing import Any, Literal

from edgetl.base.errors import EdgetlError

Family = Literal["nvidia-jetson", "nvidia-rtx", "intel", "arm", "x86"]
BackendName = Literal["tensorrt", "openvino", "onnxruntime", "litert"]
Arch = Literal["aarch64", "x86_64"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Execution = Literal["host", "simulated"]

_ARCH_SPELLINGS = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Where hardware figures were read: the figures' keys (see :meth:`Target.figures`), title and address."""

    figures: tuple[str, ...]
    title: str
    url: str


@dataclasses.dataclass(frozen=True)
class PowerMode:
    """A power mode as the device names it; ``watts`` is its budget, None where the vendor gives none."""

    name: str
    watts: int | None = None


@dataclasses.dataclass(frozen=True)
class Cpu:
    """The host CPU; ``features`` are the names in Linux's ``/proc/cpuinfo`` that decide how fast int8 is."""

    model: str
    cores: int
    features: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What runs the model beside the CPU; ``peak`` is the vendor's rate with its number format, or ''."""

    model: str
    peak: str = ""


@dataclasses.dataclass(frozen=True)
class RuntimeVersion:
    """The version of the backend's runtime that a system release puts on the device."""

    system: str
    version: str


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of device that artifacts are made for.

    Attributes:
        isa: what the artifact's kernels are written in: 'sm87', 'x86-64', 'aarch64', 'xe', 'npu'. A recipe
            belongs to a pair (backend, isa).
        arch: machine of the CPU that hosts the runtime, as ``platform.machine()`` spells it on Linux.
        runtime_device: OpenVINO's device name ('CPU', 'GPU', 'NPU'); '' for the other backends.
        compute_capability: of the GPU ('8.7'); '' without CUDA.
        stand_in_compute_capability: the one ``tensorrt_rtx`` builds for, on any machine, to check that a model
            is parsed and built; equal to ``compute_capability`` where that builder offers it. '' without CUDA.
        shapes: 'static' where the runtime takes fixed shapes only.
        memory_mb: in MiB, shared with the CPU on a board; None where the target is a family of machines.
        precisions: those that the hardware executes natively and the backend supports.
        recipes: precision → name of a file in ``calibration/recipes``; a precision without one needs none.
        compile_on: where the artifact that runs is made: 'host' or 'device'.
        notes: what a user should know, a sentence each.
        unconfirmed: what could not be read on a vendor's page, a sentence each.
    """

    name: str
    title: str
    family: Family
    backend: BackendName
    isa: str
    arch: Arch
    precisions: tuple[Precision, ...]
    default_precision: Precision
    compile_on: Literal["host", "device"]
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()
    runtime_device: Literal["", "CPU", "GPU", "NPU"] = ""
    compute_capability: str = ""
    stand_in_compute_capability: str = ""
    shapes: Literal["dynamic", "static"] = "dynamic"
    memory_mb: int | None = None
    recipes: Mapping[Precision, str] = dataclasses.field(default_factory=dict, hash=False)
    power_modes: tuple[PowerMode, ...] = ()
    cpu: Cpu | None = None
    accelerator: Accelerator | None = None
    runtimes: tuple[RuntimeVersion, ...] = ()
    notes: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()

    def recipe(self, precision: Precision) -> str | None:
        """Name of the calibration recipe for ``precision``, None where it needs none.

        Raises:
            EdgetlError: the target does not run that precision.
        """
        if precision not in self.precisions:
            raise EdgetlError(
                f"target {self.name} does not run {precision}", f"choose one of {', '.join(self.precisions)}"
            )
        return self.recipes.get(precision)

    def figures(self) -> tuple[str, ...]:
        """Keys of the hardware figures that this target states; each has a source."""
        stated = {
            "precisions": True,
            "memory_mb": self.memory_mb is not None,
            "compute_capability": self.compute_capability,
            "power_modes": self.power_modes,
            "cpu": self.cpu,
            "cpu.features": self.cpu and self.cpu.features,
            "accelerator": self.accelerator,
            "accelerator.peak": self.accelerator and self.accelerator.peak,
            "runtimes": self.runtimes,
        }
        return tuple(key for key, given in stated.items() if given)

    def executes_on_host(self, machine: str = "") -> Execution:
        """Whether a machine can execute the very artifact on its CPU.

        'host': same runtime and same family of instruction sets, though perhaps another board: the OpenVINO CPU
        plugin runs on any x86-64 CPU, and an artifact for a Raspberry Pi runs on any 64-bit Arm machine, so
        accuracy carries over and times do not. 'simulated': it needs a GPU, an NPU or another instruction set.
        Looks at no driver: whether a GPU or NPU is present is the backend's to probe.

        Args:
            machine: as ``platform.machine()`` spells it; '' for this machine.
        """
        spelled = (machine or platform.machine()).lower()
        on_cpu = self.backend in ("onnxruntime", "litert") or self.runtime_device == "CPU"
        return "host" if on_cpu and _ARCH_SPELLINGS.get(spelled, spelled) == self.arch else "simulated"

    def to_json(self) -> dict[str, Any]:
        """Everything above as JSON values (``sources``: figure → list of {title, url})."""
        record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        record["sources"] = {
            figure: [{"title": s.title, "url": s.url} for s in self.sources if figure in s.figures]
            for figure in self.figures()
        }
        return record
