"""An Arm machine emulated on this one: real aarch64 builds of Python and the runtime, under qemu.

It executes the aarch64 kernels, so its numbers are closer to an Arm device's than this machine's are, but they
are an emulator's: results say ``simulated``, and its times say nothing. Float logits of ONNX Runtime agree with
x86-64 to rounding; int8 logits are equal or differ by up to 2 % of their range, depending on the quantization.

Its files are this machine's: what does not exist in the root folder (see ``rootfs.py``) is looked up here, so
bundles and images need no copying. What is deployed on it lies in ``data/edgetl`` beside its root folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.devices.base import EXECUTED, DeviceProbe, Executed, Kind, describe, probe_by_calling
from edgetl.devices.local import call_here
from edgetl.devices.payload import write_payload
from edgetl.devices.process import SCRATCH_VARIABLE
from edgetl.devices.rootfs import QEMU, emulated_environment, emulated_python, read_marker
from edgetl.inputs import modules_for
from edgetl.runtime.machine import Machine


@dataclass(frozen=True)
class EmulatedDevice:
    """An emulated Arm machine.

    Attributes:
        name: what the user calls it.
        root: its root folder, made by :func:`edgetl.devices.rootfs.create_rootfs`.
        required_key: see :class:`edgetl.devices.base.Device`.
    """

    name: str
    root: Path
    required_key: str = ""

    @property
    def kind(self) -> Kind:
        """See :class:`edgetl.devices.base.Device`."""
        return "emulated"

    @property
    def arch(self) -> str:
        """``aarch64``."""
        return "aarch64"

    @property
    def executed(self) -> Executed:
        """``simulated``."""
        return EXECUTED[self.kind]

    @property
    def where(self) -> str:
        """The root folder."""
        return str(self.root)

    def to_json(self) -> dict[str, str]:
        """See :class:`edgetl.devices.base.Device`."""
        return describe(self)

    def probe(self) -> DeviceProbe:
        """See :class:`edgetl.devices.base.Device`. This machine's sensors, clocks and kernel are not its own."""
        found = probe_by_calling(self)
        facts = found.machine
        own = Machine(
            cpu_model=facts.cpu_model,
            cores=facts.cores,
            arch=facts.arch,
            isa_features=facts.isa_features,
            memory_mb=facts.memory_mb,
            board=facts.board,
            jetson=facts.jetson,
        )
        return replace(found, machine=own)

    def call(
        self,
        arguments: Sequence[str],
        *,
        bundle: Path | None = None,
        files: Sequence[Path] = (),
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """See :class:`edgetl.devices.base.Device`."""
        if shutil.which(QEMU) is None:
            raise DeviceError(f"{self.name} needs {QEMU}, not installed here", "apt-get install qemu-user-static")
        marker = read_marker(self.root)
        if bundle is not None and files:
            self._check_modules(marker["packages"], modules_for(bundle))
        python = emulated_python(self.root, marker["cpu"], marker["python"])
        with tempfile.TemporaryDirectory(prefix="edgetl-code-") as code:
            own = {"XDG_DATA_HOME": str(self.root.parent / "data"), SCRATCH_VARIABLE: code}
            environment = {**emulated_environment(write_payload(Path(code))), **own}
            return call_here(self.name, python, environment, arguments, bundle, files, progress)

    def _check_modules(self, packages: Mapping[str, str | None], needed: Sequence[str]) -> None:
        if lacking := [name for name in needed if not packages.get(name)]:
            options = " ".join(f"--with-{name}" for name in lacking)
            raise DeviceError(
                f"{self.name} lacks {', '.join(lacking)}, without which it cannot read these samples",
                f"make it anew: edgetl devices remove {self.name}; edgetl devices create {self.name} {options}",
            )

    def close(self) -> None:
        """Nothing to let go of."""
