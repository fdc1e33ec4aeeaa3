"""Where a bundle runs: on which device, and what may be said of results that it gives there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.core.bundle import Bundle
from edgetl.devices.base import Device, DeviceProbe, predict
from edgetl.devices.registry import find_device
from edgetl.runtime.predictor import TOP, Prediction, describe


@dataclass(frozen=True)
class Placement:
    """Where a bundle's artifact runs.

    Attributes:
        device: the place.
        executed: what its results may be called: device, host or simulated.
        probe: what is known of the machine.
    """

    device: Device
    executed: str
    probe: DeviceProbe

    @property
    def emulates(self) -> bool:
        """Whether this machine only imitates the artifact's arithmetic."""
        return self.executed == "simulated" and self.device.kind == "local"


def place(bundle: Bundle, device: str | None) -> Placement:
    """Where a bundle runs.

    Raises:
        DeviceError: the device has another instruction set than the bundle was made for.
        UnknownNameError: no device of that name.
    """
    where = find_device(device or "local")
    probe = where.probe()
    if where.kind == "local":
        return Placement(where, bundle.manifest.target.executes_on_host(), probe)
    check_fits(bundle, where, probe.machine.arch or where.arch)
    return Placement(where, where.executed, probe)


def check_fits(bundle: Bundle, device: Device, arch: str) -> None:
    """Check that a device of machine ``arch`` can execute a bundle, as far as its target tells; "" is any.

    Raises:
        DeviceError: it has another instruction set than the bundle was made for, or not its accelerator.
    """
    target = bundle.manifest.target
    if arch and arch != target.arch:
        raise DeviceError(
            f"{device.name} is {arch}, and {bundle.path} is made for {target.name} ({target.arch})",
            "choose another device, or export for a target of this one",
        )
    if device.executed != "device" and target.executes_on_host(target.arch) == "simulated":
        what = "emulates a CPU" if device.kind == "emulated" else "is this machine"
        raise DeviceError(f"{device.name} {what}, and {target.name} needs its accelerator", "use the device")


def answer(
    bundle: Bundle,
    paths: Sequence[Path],
    device: str | None = None,
    *,
    top: int = TOP,
    threads: int | None = None,
    progress: Progress = silent,
) -> list[Prediction]:
    """A bundle's answers for sample files on a device, simulated where this machine lacks the target's hardware.

    Args:
        bundle: opened and checked.
        paths: sample files on this machine.
        device: name; this machine when None.
        top: most labels that an answer names.
        threads: worker threads there; all its cores when None.
        progress: told of each sample.

    Raises:
        DeviceError: it cannot run there; see :func:`edgetl.devices.predict`.
        UnknownNameError: no device of that name.
    """
    at = place(bundle, device)
    outputs = predict(
        at.device, bundle, paths, threads=threads, simulated=at.emulates, head="enrolled", progress=progress
    )
    return describe(bundle, outputs, top)
