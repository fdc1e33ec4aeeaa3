"""LiteRT: sessions on the CPU, with XNNPACK where it has a kernel, and what they executed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.runtime.sessions import Executed, check_feeds, closed

#: Operators with weights, and the axes of these whose sizes multiply to the products for one output value.
_WEIGHTED = {"CONV_2D": slice(1, None), "DEPTHWISE_CONV_2D": slice(1, 3), "FULLY_CONNECTED": slice(1, None)}
_TYPES = {np.dtype(np.int8): "int8", np.dtype(np.float32): "fp32", np.dtype(np.float16): "fp16"}


class LiteRtSession:
    """A ``.tflite`` model in LiteRT's interpreter.

    Attributes:
        inputs, outputs: of the network, in its order.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        litert = require("ai_edge_litert.interpreter", "running this bundle")
        try:
            # XNNPACK is the default delegate of this resolver; an operator that it lacks runs in LiteRT's own kernel.
            self._interpreter = litert.Interpreter(model_path=str(artifact.path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise BackendError(
                f"LiteRT cannot load {artifact.path} ({reason[0]})", "export the bundle again"
            ) from error
        entries = self._interpreter.get_input_details()
        given = self._interpreter.get_output_details()
        self.inputs, self.outputs = (tuple(map(_spec, found)) for found in (entries, given))
        self._indexes = {x["name"]: x["index"] for x in entries}
        self._outputs = {str(x["name"]): x["index"] for x in given}

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        check_feeds(feeds, self.inputs)
        if self._interpreter is None:
            raise closed()
        for name, index in self._indexes.items():
            self._interpreter.set_tensor(index, feeds[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def executed(self) -> Executed:
        """Read the types in the interpreter's own table of operators and tensors.

        LiteRT has one kernel for each combination of types, so the types of an operator's weights tell its arithmetic:
        with int8 weights it multiplies integers, also where its input is float (then each row is rounded to 8 bits
        first).
        """
        tensors = {tensor["index"]: tensor for tensor in self._interpreter.get_tensor_details()}
        layers = []
        for operator in self._interpreter._get_ops_details():
            if operator["op_name"] in _WEIGHTED:
                weight, output = tensors[operator["inputs"][1]], tensors[operator["outputs"][0]]
                products = math.prod(int(size) for size in weight["shape"][_WEIGHTED[operator["op_name"]]])
                kind = _TYPES.get(np.dtype(weight["dtype"]), np.dtype(weight["dtype"]).name)
                layers.append((kind, math.prod(int(size) for size in output["shape"]) * products))
        return Executed.from_layers(layers)

    def close(self) -> None:
        """Drop the interpreter."""
        self._interpreter = None


def _spec(entry: dict[str, Any]) -> TensorSpec:
    return TensorSpec(str(entry["name"]), np.dtype(entry["dtype"]).name, _sizes(entry))


def _sizes(entry: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in entry["shape"])


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> LiteRtSession:
    """Load a ``.tflite`` file; simulations run the ONNX file beside it, where there is one."""
    return LiteRtSession(artifact, threads)
