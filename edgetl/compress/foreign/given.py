"""What a file that another tool compressed has to be, and what it turned out to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.backends.openvino import save_network
from edgetl.base.extras import require
from edgetl.base.storage import write_bytes
from edgetl.compress import graph
from edgetl.core.targets import Target
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Input

REMEDY = "give the file that was made from this very model"
#: What is said of a Softmax or Sigmoid at the end. Where a file quantizes the probabilities, what it loses by that has
#: to stay, and logits are made of them; logarithms of probabilities are logits already.
CUT = "{} at the end cut off"
UNENDED = dict.fromkeys(("Softmax", "Sigmoid"), "logits made of what its {} gives, quantized")
#: Probabilities are told no nearer to 0 and 1 than this: a quantized 0 would have no logarithm.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Wanted:
    """What a file is to do in the place of edgetl's own.

    Attributes:
        target: that is to run it.
        definition: how a sample becomes the network's input.
        spec: the output that the task reads.
        labels: kind of label of the task.
    """

    target: Target
    definition: Input
    spec: TensorSpec
    labels: str


@dataclass(frozen=True)
class Given:
    """A compressed model as its backend compiles it.

    Attributes:
        model: an ONNX model, an OpenVINO network, or the bytes of a TFLite model.
        precision: int8, fp16 or fp32, read from what it holds.
        producer: what the file says of who wrote it; "" where it says nothing.
        changes: what was put before and behind it, a clause each.
    """

    model: Any
    precision: str
    producer: str
    changes: tuple[str, ...] = ()

    def save(self, folder: Path) -> Path:
        """Write it; the file."""
        if isinstance(self.model, bytes):
            write_bytes(folder / "given.tflite", self.model)
            return folder / "given.tflite"
        if isinstance(self.model, require("onnx", "writing ONNX models").ModelProto):
            return graph.save(self.model, folder / "given.onnx")
        save_network(self.model, folder / "given.xml")
        return folder / "given.xml"


def changes_of(ending: str, before: str) -> tuple[str, ...]:
    """What was done, a clause each: to the end, and before the input, which takes an image in this way."""
    clauses = (ending, f"preprocessing put before the input ({before})" if before else "")
    return tuple(filter(None, clauses))
