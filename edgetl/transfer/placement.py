"""Where and how precisely training computes: device, number of processes, mixed precision."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from edgetl.base.errors import EdgetlError

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Placement:
    """Attributes: "cpu" or "cuda", the number of processes, and a precision as Lightning Fabric names it."""

    accelerator: str
    devices: int
    precision: str

    @property
    def device(self) -> torch.device:
        """Where work outside the training loop is done."""
        return torch.device(self.accelerator)

    def fabric(self) -> Fabric:
        """Lightning Fabric for this placement; several processes are spawned, so that it works from any caller."""
        # Fabric announces the precision on standard error, which belongs to the caller.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        strategy = "ddp_spawn" if self.devices > 1 else "auto"
        return Fabric(accelerator=self.accelerator, devices=self.devices, precision=self.precision, strategy=strategy)


def place(accelerator: str, devices: int, precision: str) -> Placement:
    """Resolve "auto" on this machine.

    Args:
        accelerator: one of :data:`ACCELERATORS`.
        devices: processes, one for each GPU or, on the CPU, a share of its cores.
        precision: one of :data:`PRECISIONS`; "auto" is bfloat16 mixed precision where the hardware computes in it,
            float16 mixed on other GPUs, else float32.

    Raises:
        EdgetlError: unknown, or not on this machine.
    """
    if accelerator not in ACCELERATORS:
        raise EdgetlError(f"unknown accelerator '{accelerator}'", f"choose one of {', '.join(ACCELERATORS)}")
    if precision not in PRECISIONS:
        raise EdgetlError(f"unknown training precision '{precision}'", f"choose one of {', '.join(PRECISIONS)}")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "auto":
        accelerator = "cuda" if gpus else "cpu"
    if accelerator == "cuda" and not gpus:
        raise EdgetlError("torch finds no CUDA device on this machine", "use --accelerator cpu or auto")
    if devices < 1 or (accelerator == "cuda" and devices > gpus):
        here = f", this machine has {gpus}" if accelerator == "cuda" else ""
        raise EdgetlError(f"{devices} devices were asked for{here}", "give another --devices")
    if accelerator == "cpu" and precision == "16-mixed":
        raise EdgetlError("float16 mixed precision needs a GPU", "use bf16-mixed or 32-true")
    return Placement(accelerator, devices, _precision(accelerator) if precision == "auto" else precision)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Have the same input give the same numbers meanwhile, bit for bit, on the same machine.

    A GPU then takes kernels that add in a fixed order, does not search for the fastest, and computes float32 in full
    rather than as TensorFloat-32. Where an operator has no such kernel, torch warns. A CPU does so anyway.
    """
    if device.type != "cuda":
        yield
        return
    # Read when cuBLAS starts (NVIDIA, cuBLAS documentation, results reproducibility).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    wanted: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    wanted += [(kind, "fp32_precision", "ieee") for kind in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)]
    before = [getattr(module, name) for module, name, _ in wanted]
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        for module, name, value in wanted:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(wanted, before, strict=True):
            setattr(module, name, value)
        torch.use_deterministic_algorithms(strict, warn_only=warned)


def _precision(accelerator: str) -> str:
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    # Emulated bfloat16 is slower than float32, so only instructions that compute in it count.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"
