"""The C runner in the place of Python's runtime: the same bundle and the same samples, through ``edgetl-run``.

``runner/README.md`` says how the program is built. On an emulated machine it has to be one for aarch64 that brings its
libraries along (``-DEDGETL_STATIC_DEPENDENCIES=ON``).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError, DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Bundle
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.local import sample_list
from edgetl.devices.placement import Placement
from edgetl.devices.process import run_watched
from edgetl.devices.rootfs import emulated_start
from edgetl.runtime.predict import output_specs

#: What ``--runner`` calls the program that lies on the search path.
C, PROGRAM = "c", "edgetl-run"
#: Backend → the module whose package brings the runtime's shared library, and where it lies in it.
_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "capi/libonnxruntime.so.*"),
    "openvino": ("openvino", "libs/libopenvino_c.so.*"),
    "litert": ("ai_edge_litert", "libLiteRt.so"),
}
#: Of the runner's exit statuses and of its lines: a picture that it does not take.
_INPUT = 5


def find_runner(name: str) -> Path:
    """The runner's program: its file, or ``c`` for the one on the search path.

    Raises:
        DeviceError: there is none.
    """
    found = shutil.which(PROGRAM if name == C else name)
    if found is None:
        raise DeviceError(f"there is no program {PROGRAM if name == C else name}", "build it: see runner/README.md")
    return Path(found).resolve()


def described(program: Path) -> dict[str, str]:
    """What a certificate says of the program: its name and its SHA-256."""
    return {"program": program.name, "sha256": sha256_file(program)}


def predict_in_c(
    at: Placement, bundle: Bundle, paths: Sequence[Path], program: Path, *, progress: Progress = silent
) -> dict[str, npt.NDArray[Any]]:
    """Run sample files through a bundle with the C runner.

    Args:
        at: where: this machine, or an emulated one.
        bundle: opened and checked; pictures.
        paths: sample files on this machine.
        program: ``edgetl-run``, compiled for that place.
        progress: told of each sample.

    Returns:
        each of the network's outputs by name, (n, …), in the order of ``paths``.

    Raises:
        DataError: a picture that the runner does not take, such as a WebP; the message names it.
        DeviceError: no such place, or the runner failed.
    """
    start = _start(at)
    library = _library(at, bundle.artifact().backend)
    options = ["--outputs", *(["--library", str(library)] if library else []), str(bundle.path.resolve()), "-"]
    listed = sample_list([str(path.resolve()) for path in paths]).encode()
    task, done = f"{bundle.target}: running deployed in C", 0

    def feed(stream: IO[bytes]) -> None:
        with stream:
            stream.write(listed)

    def count(line: str) -> None:
        nonlocal done
        done += line.startswith("{")
        progress(task, done, len(paths), "")

    finished = run_watched([*start, str(program), *options], feed=feed, on_line=count)
    lines = [line for line in finished.stdout.decode("utf-8", "replace").splitlines() if line.startswith("{")]
    if finished.status not in (0, 1) or len(lines) != len(paths):
        raise DeviceError(f"the C runner failed ({finished.last_line})", "look whether edgetl predict answers")
    return _outputs(bundle, paths, lines)


def _outputs(bundle: Bundle, paths: Sequence[Path], lines: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    outputs: dict[str, list[npt.NDArray[Any]]] = {spec.name: [] for spec in output_specs(bundle)}
    for path, line in zip(paths, lines, strict=True):
        record = json.loads(line)
        if record.get("status") == _INPUT:
            raise DataError(f"the C runner does not take {path} ({record['error']})", "see runner/README.md")
        if "outputs" not in record:
            raise DeviceError(f"the C runner failed at {path} ({record.get('error')})", "report this as a bug")
        for spec in output_specs(bundle):
            values = np.array(record["outputs"].get(spec.name, ()), spec.dtype)
            if values.size != np.prod([size or 0 for size in spec.shape[1:]]):
                raise DeviceError(f"the C runner gave {values.size} numbers as '{spec.name}'", "report this as a bug")
            outputs[spec.name].append(values.reshape([size or 0 for size in spec.shape[1:]]))
    return {name: np.stack(found) for name, found in outputs.items()}


def _start(at: Placement) -> list[str]:
    if at.emulates:
        remedy = "choose a bundle that this machine executes, or the device"
        raise DeviceError("the C runner executes a bundle on what it was made for and imitates nothing", remedy)
    if isinstance(at.device, EmulatedDevice):
        return emulated_start(at.device.root)
    if at.device.kind != "local":
        remedy = f"run {PROGRAM} --outputs there, and hand its answers to --predictions"
        raise DeviceError(f"the C runner is not taken to {at.device.name}", remedy)
    return []


def _library(at: Placement, backend: str) -> Path | None:
    """The runtime's shared library as that place's Python has it; None leaves it to the runner's usual names."""
    module, pattern = _LIBRARIES.get(backend, ("", ""))
    if isinstance(at.device, EmulatedDevice):
        return next(iter(sorted(at.device.root.glob(f"usr/**/*-packages/{module}/{pattern}"))), None)
    spec = importlib.util.find_spec(module) if module else None
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(pattern))), None)
