"""ONNX Runtime: sessions on the CPU, and what they executed."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.artifact import Artifact, HeadValues
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.sessions import Executed, check_feeds, closed, zeros

#: Several threads may run one session at once.
REENTRANT = True
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_ATTENTION = ("Attention", "QAttention", "MultiHeadAttention")
#: Quantizes the weights of layers that a recipe left in float between quantized neighbours, and computes them in
#: integers all the same.
_REQUANTIZER = "WeightBiasQuantization"
#: Products that a file has in integers where activations are quantized while it runs.
_INTEGERS = b"MatMulInteger"
#: What stands at each end of a pair.
_PAIRS = b"DequantizeLinear"
#: Blocked float layouts pad channels to multiples of 8 or 16, and would count the padding as work.
_PADDING = "NchwcTransformer"
_TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


class OrtSession:
    """A model in ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, threads: int, simulated: bool, head: HeadValues | None = None) -> None:
        self._ort = require("onnxruntime", "running this bundle")
        self._path, self._threads, self._simulated = path, threads, simulated
        try:
            self._session = self._load(self._options())
        except Exception as error:  # pybind exceptions of ONNX Runtime share no base class
            raise BackendError(f"ONNX Runtime cannot load {path} ({error})", "export the bundle again") from error
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._head = {} if head is None else {head.weight_name: head.stored, head.bias_name: head.bias}
        # Inputs with a default: fed, they take its place, and any number of rows fits.
        if set(self._head) - {value.name for value in self._session.get_overridable_initializers()}:
            raise BackendError(f"{path} has no head that stands open", "export the bundle again")

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
        set_arithmetic(options, self._path.read_bytes() if self._simulated else None)
        return options

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        check_feeds(feeds, self.inputs)
        session = self._session
        if session is None:
            raise closed()
        results = session.run(self._outputs, {**feeds, **self._head})
        return dict(zip(self._outputs, results, strict=True))

    def executed(self) -> Executed:
        """Profile one inference and read the kernels' own shapes and types."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            # Weights that were packed for a kernel vanish from its recorded inputs, and with them their shapes.
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._load(options, _PADDING)
            session.run(self._outputs, zeros(self.inputs))
            events = json.loads(Path(session.end_profiling()).read_bytes())
        return Executed.from_layers([layer for event in events for layer in _layers(event)])

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def set_arithmetic(options: Any, as_written: bytes | None = None) -> None:
    """Have a session multiply 8-bit numbers exactly, whatever the CPU.

    Args:
        options: SessionOptions.
        as_written: the model's file, whose pairs of Q and DQ stay in float arithmetic; one without any is executed
            without optimisations.
    """
    levels = require("onnxruntime", "running this bundle").GraphOptimizationLevel
    if saturates(machine()):
        # Slower, and exact: on an emulated Haswell top-1 of 40 photographs came back from 90.0 % to the 97.5 % of VNNI
        # (docs/recipes.md).
        options.add_session_config_entry("session.x64quantprecision", "1")
    if as_written is None:
        return
    if _PAIRS in as_written or _INTEGERS in as_written:
        # Float convolutions as they are optimised take half the time, and nothing makes integers of the pairs. Products
        # that the file itself has in integers saturate where nothing is optimised.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL


def _spec(value: Any) -> TensorSpec:
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return TensorSpec(value.name, dtype, tuple(size if isinstance(size, int) else None for size in value.shape))


def _layers(event: dict[str, Any]) -> list[tuple[str, int]]:
    """(precision, multiply-accumulates) of the weighted layers that one kernel of a profile computes."""
    arguments = event.get("args", {})
    if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
        return []
    operator = str(arguments["op_name"])
    tensors = [next(iter(tensor.items())) for tensor in arguments["input_type_shape"]]
    wide = [(kind, shape) for kind, shape in tensors if len(shape) >= 2]
    if len(wide) < 2:
        return []
    (kind, first), (weight_kind, weight) = wide[0], wide[1]
    if operator in _ATTENTION:
        return _attention(operator, _TYPES.get(kind, kind), first, weight)
    output: list[int] = next(iter(arguments["output_type_shape"][0].values()))
    plain = operator.replace("Fused", "").removesuffix("ToFloat").removesuffix("Integer")
    if not plain.endswith(_WEIGHTED) or not math.prod(output):
        return []
    # A product's second operand is stored K×N, or N×K when transposed; a convolution's is O×I×h×w.
    depth = math.prod(weight[1:]) if "Conv" in operator else math.prod(weight[-2:]) // output[-1]
    # What quantizes its float input by itself multiplies integers: the type of its weights tells the arithmetic.
    computed = weight_kind if operator.startswith("DynamicQuantize") else kind
    return [(_TYPES.get(computed, computed), math.prod(output) * depth)]


def _attention(operator: str, kind: str, first: list[int], second: list[int]) -> list[tuple[str, int]]:
    """A fused attention: the projection to queries, keys and values where it holds those weights, and two products.

    The products of activations are computed in float also where the projection is in integers.
    """
    float_kind = "fp32" if kind == "int8" else kind
    if operator == "MultiHeadAttention":
        product = (float_kind, math.prod(first) * second[1])
        return [product, product]
    product = (float_kind, math.prod(first[:2]) * first[1] * (second[-1] // 3))
    return [(kind, math.prod(first) * second[-1]), product, product]


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> OrtSession:
    """Load an ONNX file; ``simulated`` keeps what stands in Q/DQ pairs in float (see :func:`set_arithmetic`)."""
    return OrtSession(artifact.path, threads, simulated, artifact.head)
