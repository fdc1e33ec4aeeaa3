"""Foreign ONNX files: what is refused before it is followed, and what is changed without another outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress.foreign import make_deployable, read_foreign
from edgetl.compress.foreign.deployable import open_model
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Preprocess

PREPARED = Preprocess(8, 8, 8, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "squash")
LOGITS = TensorSpec("logits", "float32", (None, 3))


def written(file: Path, change: Callable[[Any], None] | None = None, opset: int = 13) -> Path:
    """A convolution, a batch norm apart from it, a reshape to one sample and a linear layer."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.normal(size=(4, 3, 8, 8)),
        "scale": draw.uniform(0.5, 2, 4),
        "shift": draw.normal(size=4),
        "mean": draw.normal(size=4),
        "variance": draw.uniform(0.5, 2, 4),
        "head": draw.normal(size=(4, 3)),
        "bias": draw.normal(size=3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Reshape", ["b", "sizes"], ["r"]),
        helper.make_node("MatMul", ["r", "head"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
    ]
    held = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    held.append(numpy_helper.from_array(np.array([1, 4], np.int64), "sizes"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "elsewhere", [x], [y], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if change is not None:
        change(model)
    file.write_bytes(model.SerializeToString())
    return file


def test_a_file_for_one_sample_takes_any_number_and_computes_the_same(tmp_path: Path) -> None:
    made = make_deployable(read_foreign(written(tmp_path / "m.onnx")), PREPARED, LOGITS, "class")
    nodes = [node.op_type for node in made.model.graph.node]
    assert nodes[0] == "Cast"
    # ORT's quantizer would make one of them, and its layers would be called otherwise than the float model's.
    assert nodes.count("Gemm") == 1
    assert "MatMul" not in nodes
    # The one that is left is the normalisation.
    assert nodes.count("BatchNormalization") == 1
    assert "1 BatchNormalization folded" in made.changes
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    (together,) = open_model(made.model).run(["logits"], {"image": images})
    session = open_model(onnx.load(tmp_path / "m.onnx"))
    planes = ((images / 255 - PREPARED.mean) / PREPARED.std).transpose(0, 3, 1, 2).astype(np.float32)
    alone = np.concatenate([session.run(["y"], {"x": row[None]})[0] for row in planes])
    assert together.shape == (5, 3)
    assert np.abs(together - alone).max() < 1e-4 * np.abs(alone).max()


def test_two_adoptions_of_a_file_are_the_same_bytes(tmp_path: Path) -> None:
    foreign = read_foreign(written(tmp_path / "m.onnx"))
    one, other = (make_deployable(foreign, PREPARED, LOGITS, "class").model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def _elsewhere(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)

    return change


def _own_operator(model: Any) -> None:
    model.graph.node[0].domain = "com.acme"
    model.opset_import.add(domain="com.acme", version=1)


def _quantized(model: Any) -> None:
    model.graph.node.insert(0, helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_elsewhere("/etc/passwd"), "is absolute"),
        (_elsewhere("../secret.bin"), "leads out of the folder"),
        (_elsewhere("weights.bin"), "cannot read"),
        (_own_operator, "not of the ONNX standard"),
        (_quantized, "is quantized already"),
    ],
    ids=["absolute", "above", "missing", "operators", "quantized"],
)
def test_what_a_file_must_not_be(change: Callable[[Any], None], reason: str, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=reason):
        read_foreign(written(tmp_path / "m.onnx", change))
