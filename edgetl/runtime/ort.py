"""ONNX Runtime: sessions on the CPU, and what they executed."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.bundle import Artifact
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.sessions import Arrays, Executed, the_image

_WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Quantizes the weights of layers that a recipe left in float between quantized neighbours, and computes them in
#: integers all the same.
_REQUANTIZER = "WeightBiasQuantization"
#: Blocked float layouts pad channels to multiples of 8 or 16, and would count the padding as work.
_PADDING = "NchwcTransformer"
_TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


class OrtSession:
    """A model in ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, threads: int, simulated: bool) -> None:
        self._ort = require("onnxruntime", "running this bundle")
        self._path, self._threads, self._simulated = path, threads, simulated
        try:
            self._session = self._load(self._options())
        except Exception as error:  # pybind exceptions of ONNX Runtime share no base class
            raise BackendError(f"ONNX Runtime cannot load {path} ({error})", "export the bundle again") from error
        only = self._session.get_inputs()[0]
        self.input_name: str = only.name
        self.input_shape = tuple(size if isinstance(size, int) else None for size in only.shape)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _load(self, options: Any, *disabled: str) -> Any:
        optimizers = [_REQUANTIZER, *disabled]
        return self._ort.InferenceSession(
            str(self._path), options, providers=["CPUExecutionProvider"], disabled_optimizers=optimizers
        )

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # An idle pool that keeps spinning takes a core from whatever is measured or run next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Slower, and exact: on an emulated Haswell top-1 of 40 photographs came back from 90.0 % to the 97.5 % of VNNI
        # (docs/recipes.md).
        if saturates(machine()):
            options.add_session_config_entry("session.x64quantprecision", "1")
        if self._simulated:
            options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        image = the_image(feeds, self.input_shape, self.input_name)
        results = self._session.run(self._outputs, {self.input_name: image})
        return dict(zip(self._outputs, results, strict=True))

    def executed(self) -> Executed:
        """Profile one inference and read the kernels' own shapes and types."""
        shape = tuple(1 if size is None else size for size in self.input_shape)
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            # Weights that were packed for a kernel vanish from its recorded inputs, and with them their shapes.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._load(options, _PADDING)
            session.run(self._outputs, {self.input_name: np.zeros(shape, np.uint8)})
            events = json.loads(Path(session.end_profiling()).read_text())
        return Executed.from_layers([layer for event in events if (layer := _layer(event)) is not None])

    def close(self) -> None:
        """Drop the session."""
        del self._session


def _layer(event: dict[str, Any]) -> tuple[str, int] | None:
    arguments = event.get("args", {})
    if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
        return None
    operator = arguments["op_name"]
    if not operator.replace("Fused", "").removesuffix("ToFloat").removesuffix("Integer").endswith(_WEIGHTED):
        return None
    tensors = [next(iter(tensor.items())) for tensor in arguments["input_type_shape"]]
    wide = [(kind, shape) for kind, shape in tensors if len(shape) >= 2]
    output = next(iter(arguments["output_type_shape"][0].values()))
    if len(wide) < 2 or not math.prod(output):
        return None
    (kind, _), (_, weight) = wide[0], wide[1]
    # A product's second operand is stored K×N, or N×K when transposed; a convolution's is O×I×h×w.
    depth = math.prod(weight[1:]) if "Conv" in operator else math.prod(weight[-2:]) // output[-1]
    return _TYPES.get(kind, kind), math.prod(output) * depth


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> OrtSession:
    """Load an ONNX file; ``simulated`` switches every graph optimisation off, so Q/DQ stay in float."""
    return OrtSession(artifact.path, threads, simulated)
