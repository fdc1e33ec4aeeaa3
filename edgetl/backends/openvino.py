"""OpenVINO on Intel CPUs, GPUs and NPUs: the artifact is an IR with a fixed batch."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from edgetl.backends.base import STEM, Probe, accept, load_onnx, why_refused
from edgetl.base.errors import BackendError
from edgetl.base.extras import available, require, version
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import Artifact
from edgetl.core.targets import Target
from edgetl.runtime.ov import core
from edgetl.runtime.sessions import Session, open_session


class OpenVino:
    """IR models in OpenVINO's device plugins."""

    name = "openvino"

    def probe(self) -> Probe:
        """See :class:`edgetl.backends.base.Backend`."""
        if not available("openvino"):
            return Probe(False, None, (), "the package openvino is not installed", "pip install 'edgetl[openvino]'")
        try:
            found = core()
            devices = tuple(f"{n}: {found.get_property(n, 'FULL_DEVICE_NAME')}" for n in found.available_devices)
        except (ImportError, OSError, RuntimeError) as error:
            return Probe(False, version("openvino"), (), f"openvino cannot be loaded ({error})", "reinstall it")
        if not available("nncf"):
            return Probe(
                True, version("openvino"), devices, "nncf is missing: no int8", "pip install 'edgetl[openvino]'"
            )
        return Probe(True, version("openvino"), devices)

    def refuses(self, target: Target, precision: str) -> str | None:
        """See :class:`edgetl.backends.base.Backend`."""
        return why_refused(self.name, target, precision)

    def compile(self, model: Path, target: Target, out: Path) -> Artifact:
        """See :class:`edgetl.backends.base.Backend`.

        A batch left open is fixed to one: NPUs take no other shape, and on CPUs an open one made inference 8 %
        slower.
        """
        network = read_network(model)
        precision = precision_of(network, target)
        accept(self, target, precision)
        _fix_batch(network)
        path = out / f"{STEM}.xml"
        save_network(network, path)
        device = target.runtime_device
        here = {name.split(".")[0] for name in core().available_devices}
        try:
            core().compile_model(str(path), device if device in here else "CPU")
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot compile {model} ({_first_line(error)})", "export it again") from error
        return Artifact(self.name, path, precision, device)

    def open(self, artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
        """See :class:`edgetl.backends.base.Backend`."""
        return open_session(artifact, threads=threads, simulated=simulated)


def _fix_batch(network: Any) -> None:
    """A batch left open becomes one, in place; other open axes, such as a text's tokens, stay open."""
    shapes = {port: list(port.get_partial_shape()) for port in network.inputs}
    if any(shape and not shape[0].is_static for shape in shapes.values()):
        wanted = {
            port: [1, *(size.get_length() if size.is_static else -1 for size in shape[1:])]
            for port, shape in shapes.items()
        }
        network.reshape(wanted)


def read_network(model: Path) -> Any:
    """Read an ``.onnx`` or ``.xml`` file into OpenVINO, ready to be quantized, saved or compiled.

    Does for ONNX what ``openvino.convert_model`` does, except that it reports nothing over the network. Without
    these transformations, 16 of EfficientNet-Lite0's 50 layers stayed in float after quantization.

    Raises:
        BackendError: missing, truncated, or of operators that OpenVINO lacks.
    """
    if model.suffix == ".onnx":
        load_onnx(model)
    elif not model.with_suffix(".bin").is_file():
        raise BackendError(f"{model} lacks its weights, {model.with_suffix('.bin').name}", "export it again")
    try:
        network = core().read_model(model)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read {model} ({_first_line(error)})", "export it again") from error
    if model.suffix == ".onnx":
        passes = require("openvino._offline_transformations", "compiling for this target")
        passes.apply_moc_transformations(network, cf=False, smart_reshape=True)
    name_nodes(network)
    return network


def save_network(network: Any, path: Path, *, float16: bool = False) -> None:
    """Write a network as ``.xml`` and ``.bin``, the same bytes for the same network; ``float16`` stores weights so."""
    openvino = require("openvino", "compiling for this target")
    name_nodes(network)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        openvino.save_model(network, written, compress_to_fp16=float16)
        # Weights first: an IR without them is refused, an .xml that lies beside older weights would not be.
        for suffix in (".bin", ".xml"):
            write_bytes(path.with_suffix(suffix), written.with_suffix(suffix).read_bytes())


def name_nodes(network: Any) -> None:
    """Number the nodes that OpenVINO named by a counter of the whole process, in place."""
    counts: Counter[str] = Counter()
    for node in network.get_ordered_ops():
        kind = node.get_type_name()
        # A folded constant keeps the kind of what it was folded from: Reshape_29.
        if re.fullmatch(r"\w+[_.]\d+", node.get_friendly_name()):
            counts[kind] += 1
            node.set_friendly_name(f"{kind}.{counts[kind]}")


def precision_of(network: Any, target: Target) -> str:
    """What a network is on a target: int8, fp16 or fp32.

    Weights that are only stored in halves, which ``openvino.save_model`` does unless told otherwise, are computed with
    in the target's own way: where it has no fp16, the network is fp32.
    """
    nodes = [node for node in network.get_ops() if node.get_output_size()]
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    if any(node.get_type_name() == "FakeQuantize" for node in nodes) or any(map(_is_decoded, constants)):
        return "int8"
    halves = [node for node in constants if node.get_output_element_type(0).get_type_name() == "f16"]
    stored = all(_widened(node) for node in halves)
    return "fp16" if halves and ("fp16" in target.precisions or not stored) else "fp32"


def _is_decoded(constant: Any) -> bool:
    """Whether it holds weights in 8 bits or fewer, which a Convert makes numbers of."""
    return constant.get_output_element_type(0).get_type_name() in ("i8", "u8", "i4", "u4", "nf4") and _widened(constant)


def _widened(constant: Any) -> bool:
    return all(port.get_node().get_type_name() == "Convert" for port in constant.output(0).get_target_inputs())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
