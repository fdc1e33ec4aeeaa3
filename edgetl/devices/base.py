"""What every place where an artifact runs has in common.

A device is a place, not a kind of hardware: this machine (``local.py``), an emulated one (``emulated.py``), or
another one behind SSH (``ssh.py``). Each runs ``python -m edgetl.runtime`` there and brings the answer back.
Sample *files* travel, never preprocessed arrays: what is certified starts at the JPEG bytes, on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DeviceError
from edgetl.base.extras import PROVIDERS
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import from_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.tensors import TensorSpec
from edgetl.runtime.installed import InCharge, Installed, SelfTest
from edgetl.runtime.machine import Machine, MachineAnswer
from edgetl.runtime.measurement import Measurement
from edgetl.runtime.plan import Plan
from edgetl.runtime.predict import Head, output_specs

_T = TypeVar("_T")
Kind = Literal["local", "emulated", "ssh"]
Executed = Literal["host", "simulated", "device"]

#: What results carry about the place they come from. An emulator's results are never a device's.
EXECUTED: Mapping[Kind, Executed] = {"local": "host", "emulated": "simulated", "ssh": "device"}
#: Runtimes of which a device needs at least one.
RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "litert")


@dataclass(frozen=True)
class DeviceProbe:
    """Whether a device can be used, and what it is.

    Attributes:
        reachable: a bundle could be run there now, as far as can be told without one.
        python: version of its Python, or None.
        packages: numpy, PIL, tokenizers and the runtimes → version, None where not installed.
        machine: what it tells of itself.
        reason: why it cannot be used; empty when it can.
        remedy: what to do about that.
    """

    reachable: bool
    python: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    reason: str = ""
    remedy: str = ""


class Device(Protocol):
    """A place where an artifact runs."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def kind(self) -> Kind:
        """How it is reached."""
        ...

    @property
    def arch(self) -> str:
        """``x86_64``, ``aarch64``, …; empty where only a probe can tell and none was kept."""
        ...

    @property
    def executed(self) -> Executed:
        """What results obtained here must say about themselves."""
        ...

    @property
    def where(self) -> str:
        """Its folder or address; empty for this machine."""
        ...

    @property
    def required_key(self) -> str:
        """The public key, 64 hexadecimal digits, that must have signed whatever runs there; "" where none must have."""
        ...

    def to_json(self) -> dict[str, str]:
        """``name``, ``kind``, ``arch``, ``executed`` and ``where``, as :func:`describe` gives them."""
        ...

    def probe(self) -> DeviceProbe:
        """Look whether it can be used. Never raises for a device that cannot."""
        ...

    def call(
        self,
        arguments: Sequence[str],
        *,
        bundle: Path | None = None,
        files: Sequence[Path] = (),
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Run ``python -m edgetl.runtime VERB [BUNDLE] [OPTIONS]`` there.

        Args:
            arguments: the verb, then its options; without the bundle, ``--samples`` and ``--out``.
            bundle: a folder that is taken there and put after the verb.
            files: sample files that are taken there and handed to ``--samples``, in this order.
            progress: told of the steps done there.

        Returns:
            the JSON object it printed; with ``files``, ``outputs`` holds the arrays it wrote by name.

        Raises:
            DeviceError: unreachable, unfit, or the call failed; one line with the last line of its standard error.
            BundleError: the bundle lacks files and cannot be sent.
        """
        ...

    def close(self) -> None:
        """Let go of what keeps it reachable; the next call reaches it anew."""
        ...


def describe(device: Device) -> dict[str, str]:
    """A device as plain JSON values."""
    return {
        "name": device.name,
        "kind": device.kind,
        "arch": device.arch,
        "executed": device.executed,
        "where": device.where,
        **({"required_key": device.required_key} if device.required_key else {}),
    }


def predict(
    device: Device,
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    role: str = "deployed",
    threads: int | None = None,
    simulated: bool = False,
    head: Head = "certified",
    progress: Progress = silent,
) -> dict[str, npt.NDArray[Any]]:
    """Run sample files through a bundle on a device.

    Args:
        device: where.
        bundle: opened and checked.
        paths: sample files on this machine.
        role: ``deployed`` or ``float``.
        threads: worker threads there; all its cores when None.
        simulated: execute there in float what was made for other hardware (``edgetl.runtime.sessions``).
        head: see :data:`edgetl.runtime.predict.HEADS`.
        progress: told of each sample.

    Returns:
        each of the network's outputs by name, (n, …), in the order of ``paths``.

    Raises:
        DeviceError: see :meth:`Device.call`; or what it answered are not the outputs of that bundle for these files.
    """
    specs = output_specs(bundle, head)
    if not paths:
        return {spec.name: np.empty((0, *(size or 0 for size in spec.shape[1:])), spec.dtype) for spec in specs}
    options = [*_threads(threads), *(["--simulated"] if simulated else [])]
    asked = ["predict", "--role", role, "--head", head, *options]
    return _outputs(device, specs, len(paths), _call(device, asked, bundle, files=paths, progress=progress))


def _outputs(
    device: Device, specs: Sequence[TensorSpec], n: int, answer: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an answer, if they are such as were to be expected for ``n`` samples."""
    outputs: dict[str, npt.NDArray[Any]] = answer["outputs"]
    wanted = tuple(replace(spec, shape=(n, *spec.shape[1:])) for spec in specs)
    fits = set(outputs) == {spec.name for spec in specs} and all(spec.accepts(outputs[spec.name]) for spec in wanted)
    if not fits:
        got = ", ".join(f"{name[:40]!a}: {x.dtype} {'x'.join(map(str, x.shape))}" for name, x in outputs.items())
        asked = ", ".join(map(str, wanted))
        raise DeviceError(f"{device.name} gave {got[:200] or 'nothing'} instead of {asked}", "report this as a bug")
    return outputs


def bench(device: Device, bundle: Bundle, plan: Plan | None = None, *, progress: Progress = silent) -> Measurement:
    """Time a bundle's artifacts in turn on a device.

    Args:
        device: where.
        bundle: opened and checked.
        plan: how; :class:`edgetl.runtime.plan.Plan` with its defaults when None.
        progress: told once a second.

    Raises:
        DeviceError: the device is emulated (its times say nothing about any device), its answer is no measurement, or
            see :meth:`Device.call`.
    """
    if device.executed == "simulated":
        raise DeviceError(
            f"{device.name} is emulated, and emulated time is not device time",
            "bench on the device itself: edgetl devices add NAME ssh://user@host",
        )
    answer = _call(device, ["bench", *(plan or Plan()).options()], bundle, progress=progress)
    return _checked(Measurement, answer, device)


def selftest(device: Device, bundle: Bundle, *, threads: int | None = None, simulated: bool = False) -> SelfTest:
    """Run the bundle's golden vectors on a device; see :func:`edgetl.runtime.selftest.selftest`.

    Raises:
        DeviceError: see :meth:`Device.call`.
    """
    options = [*_threads(threads), *(["--simulated"] if simulated else [])]
    return _checked(SelfTest, _call(device, ["selftest", *options], bundle), device)


def install(device: Device, bundle: Bundle, name: str, *, progress: Progress = silent) -> Installed:
    """Put a bundle in charge on a device under ``name``; see :func:`edgetl.runtime.releases.install`.

    Raises:
        DeviceError: see :meth:`Device.call`; what was in charge there stays.
    """
    answer = _call(device, ["install", "--name", name], bundle, progress=progress)
    return _checked(Installed, answer, device)


def current(device: Device, name: str) -> InCharge:
    """What is in charge on a device under ``name``.

    Raises:
        DeviceError: see :meth:`Device.call`.
    """
    return _checked(InCharge, device.call(["current", "--name", name, *_required(device)]), device)


def predict_current(
    device: Device, name: str, bundle: Bundle, paths: Sequence[Path], *, progress: Progress = silent
) -> tuple[InCharge, dict[str, npt.NDArray[Any]]]:
    """Run sample files through the release in charge on a device, whose outputs are such as a bundle's.

    Args:
        device: where.
        name: of what is deployed there.
        bundle: that has outputs of the same names and sizes.
        paths: sample files on this machine.
        progress: told of each sample.

    Returns:
        the release that answered, and each of its outputs by name, (n, …), in the order of ``paths``.

    Raises:
        DeviceError: see :meth:`Device.call`; or the outputs are others.
    """
    asked = ["current", "--name", name, *_required(device)]
    answer = device.call(asked, files=paths, progress=progress)
    found = _checked(InCharge, {key: value for key, value in answer.items() if key != "outputs"}, device)
    return found, _outputs(device, output_specs(bundle), len(paths), answer)


def rollback(device: Device, name: str) -> Installed:
    """Put the previous release in charge again; see :func:`edgetl.runtime.releases.rollback`.

    Raises:
        DeviceError: see :meth:`Device.call`; what was in charge there stays.
    """
    return _checked(Installed, device.call(["rollback", "--name", name, *_required(device)]), device)


def _required(device: Device) -> list[str]:
    return ["--public-key", device.required_key] if device.required_key else []


def _call(
    device: Device,
    arguments: Sequence[str],
    bundle: Bundle,
    *,
    files: Sequence[Path] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Call a device with a bundle, which there is checked for the signature that was asked for here, or is there."""
    if device.required_key:
        bundle = load_bundle(bundle, device.required_key)
    key = ["--public-key", bundle.signed_by] if bundle.signed_by else []
    return device.call([*arguments, *key], bundle=bundle.path, files=files, progress=progress)


def _checked(cls: type[_T], answer: Mapping[str, Any], device: Device) -> _T:
    """An answer as a record: what runs there may be another version, or hostile."""
    return from_json(cls, answer, f"the answer of {device.name}", DeviceError, "look what runs there")


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]


def probe_by_calling(device: Device) -> DeviceProbe:
    """Probe a device by asking it for its ``machine`` facts."""
    try:
        answer = _checked(MachineAnswer, device.call(["machine"]), device)
    except DeviceError as error:
        return DeviceProbe(False, reason=error.what, remedy=error.remedy)
    packages = answer.packages
    # Whether Pillow or a tokenizer is missed depends on the bundle.
    lacking = [] if packages.get("numpy") else ["numpy"]
    if not any(packages.get(name) for name in RUNTIMES):
        lacking.append(" or ".join(RUNTIMES))
    if lacking:
        reason = f"{device.name} lacks {', '.join(lacking)}"
        return DeviceProbe(False, answer.python, packages, answer.machine, reason, install_remedy("its Python"))
    return DeviceProbe(True, answer.python, packages, answer.machine)


def install_remedy(python: str, modules: Sequence[str] = ("numpy", "PIL")) -> str:
    """What to do on a device that lacks modules, or a runtime."""
    wanted = [PROVIDERS[name][0] for name in (*modules, "onnxruntime")]
    return f"install them on the device: {python} -m pip install {' '.join(wanted)}"
