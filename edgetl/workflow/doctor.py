"""What works on this machine, and what to install for the rest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgetl.backends import BACKENDS
from edgetl.base.extras import PROVIDERS, available, version

_PARTS = {
    "": "core",
    "train": "fine-tuning and export",
    "openvino": "OpenVINO targets",
    "tensorrt": "checked TensorRT builds",
    "litert": "LiteRT targets",
    "report": "reports",
    "text": "texts",
}
_PROGRAMS = {
    "qemu-aarch64-static": ("emulated devices", "apt install qemu-user-static"),
    "ssh": ("devices behind SSH", "apt install openssh-client"),
}


@dataclass(frozen=True)
class Check:
    """One thing that edgetl can use.

    Attributes:
        what: the part of edgetl, or the program.
        works: whether it can be used now.
        version: of the package or runtime, or None.
        detail: what was found; empty when there is nothing to tell.
        remedy: what to do when it does not work.
    """

    what: str
    works: bool
    version: str | None
    detail: str
    remedy: str


def checks() -> Iterator[Check]:
    """Look at every package, runtime, program and device class that edgetl can use."""
    yield from _packages()
    yield from _backends()
    yield from _gpu()
    for program, (purpose, remedy) in _PROGRAMS.items():
        found = shutil.which(program)
        yield Check(f"{purpose} ({program})", found is not None, None, found or "", "" if found else remedy)


def _packages() -> Iterator[Check]:
    for extra, purpose in _PARTS.items():
        modules = [m for m, (_, e) in PROVIDERS.items() if e == extra and m != "tensorrt"]
        missing = [PROVIDERS[m][0] for m in modules if not available(m)]
        found = ", ".join(f"{PROVIDERS[m][0]} {version(m)}" for m in modules if m not in missing and version(m))
        remedy = f"pip install 'edgetl[{extra}]' (lacking: {', '.join(missing)})" if missing else ""
        yield Check(f"{purpose} [{extra or 'core'}]", not missing, None, found, remedy)


def _backends() -> Iterator[Check]:
    for name, backend in BACKENDS.items():
        probe = backend.probe()
        detail = ", ".join(probe.devices) if probe.available else probe.reason
        yield Check(f"backend {name}", probe.available, probe.version, detail, probe.remedy)


def _gpu() -> Iterator[Check]:
    if not available("torch"):
        return
    import torch

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    remedy = "" if count else "training runs on the CPU; a CUDA GPU makes it many times faster"
    yield Check("CUDA GPU for training", count > 0, torch.version.cuda, names, remedy)


def doctor() -> dict[str, Any]:
    """All checks as plain JSON values, with ``ready``: every package and backend works."""
    found = list(checks())
    return {"checks": [asdict(check) for check in found], "ready": all(c.works for c in found[: len(_PARTS)])}
