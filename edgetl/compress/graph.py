"""Reading an ONNX graph: where preprocessing ends, which file holds what, canonical bytes."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.storage import write_bytes

#: Operators with weights, whose arithmetic is worth doing in integers.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Those of them that can have a bias.
BIASED = ("Conv", "ConvTranspose", "Gemm")
#: What a model may be; a recipe says which of them it serves.
KINDS = ("convolutional", "dense", "transformer")
#: Operators that are an attention as a whole.
ATTENTION = {"Attention", "MultiHeadAttention", "QAttention"}
#: Operators between the two products of an attention, beside its Softmax.
BETWEEN = {
    "Add", "Sub", "Mul", "Div", "Where", "Cast", "Clip", "Dropout", "Expand", "Identity", "IsNaN", "Max", "Reshape",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
#: Most samples of a graph's fixed batch.
MOST_AT_ONCE = 4096
#: Metadata key of a node: dotted name of the torch module that it came from.
MODULE = "edgetl.module"
_SCOPES = "pkg.torch.onnx.name_scopes"


def load(path: Path) -> Any:
    """Parse an ONNX file.

    Raises:
        CompressionError: missing, truncated or no ONNX model.
    """
    onnx = require("onnx", "reading ONNX models")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise CompressionError(f"cannot read {path} ({error.strerror or error})", "export the model again") from error
    except Exception as error:  # protobuf's decoding error is not importable from a stable place
        raise CompressionError(f"{path} is no valid ONNX model ({error})", "export the model again") from error
    return model


def save(model: Any, path: Path) -> Path:
    """Write an ONNX model as one file of reproducible bytes.

    Raises:
        CompressionError: over 2 GB, which one protobuf file cannot hold.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except ValueError as error:
        raise CompressionError(f"the model does not fit into one ONNX file ({error})", "use a smaller one") from error
    write_bytes(path, data)
    return path


def before_weights(model: Any) -> list[str]:
    """Names of the nodes between the inputs and the first weighted operators: the preprocessing.

    A node belongs to it if everything it reads, constants aside, comes from the inputs through such nodes alone. A
    table of embeddings is a weight.
    """
    graph = model.graph
    fixed = _fixed(model)
    reached = {value.name for value in graph.input} - fixed
    names = []
    for node in graph.node:
        read = [name for name in node.input if name not in fixed]
        if node.input and not read:
            fixed.update(node.output)
        weighted = node.op_type in WEIGHTED or (node.op_type == "Gather" and node.input[0] in fixed)
        if read and not weighted and all(name in reached for name in read):
            reached.update(node.output)
            names.append(node.name)
    return names


def _fixed(model: Any) -> set[str]:
    """Names of what does not vary: initializers, outputs of Constant nodes, and inputs that are left out."""
    made = {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    return {tensor.name for tensor in model.graph.initializer} | made | {""}


def kind_of(model: Any) -> str:
    """Which of :data:`KINDS` a float model is.

    A transformer has attention: a product of two activations that a Softmax turns into weights of another such
    product, with or without a convolution before it; or an operator of that name.
    """
    operators = {node.op_type for node in model.graph.node}
    if operators & ATTENTION or _attends(model):
        return "transformer"
    return "convolutional" if operators & {"Conv", "ConvTranspose"} else "dense"


def _attends(model: Any) -> bool:
    fixed = _fixed(model)
    makers = {name: node for node in model.graph.node for name in node.output}

    def is_product(node: Any) -> bool:
        return node.op_type == "MatMul" and not fixed & set(node.input)

    def behind(node: Any, kind: Callable[[Any], bool]) -> bool:
        """Whether such a node is upstream of this one, with nothing between them but what scales, masks or moves."""
        waiting, seen = list(node.input), set()
        while waiting:
            name = waiting.pop()
            maker = makers.get(name)
            if maker is None or name in seen:
                continue
            seen.add(name)
            if kind(maker):
                return True
            if maker.op_type in BETWEEN:
                waiting += maker.input
        return False

    def is_attention(node: Any) -> bool:
        return node.op_type == "Softmax" and behind(node, is_product)

    return any(is_product(node) and behind(node, is_attention) for node in model.graph.node)


def canonicalise(model: Any) -> None:
    """Rename nodes after the torch modules they came from and drop everything that tells of the machine, in place.

    Stack traces with local paths go; :data:`MODULE` stays, and each node is called ``module/Operator``.
    """
    parameters = {tensor.name for tensor in model.graph.initializer}
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        module = _module_of(node, parameters)
        stem = f"{module}/{node.op_type}" if module else node.op_type
        seen[stem] += 1
        node.name = stem if seen[stem] == 1 else f"{stem}_{seen[stem]}"
        node.doc_string = ""
        del node.metadata_props[:]
        node.metadata_props.add(key=MODULE, value=module)
    graph = model.graph
    for item in (model, graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def _module_of(node: Any, parameters: set[str]) -> str:
    # The exporter folds batch norms into convolutions and then names the batch norm; the weight's name is the layer's.
    if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in parameters and "." in node.input[1]:
        return str(node.input[1]).rsplit(".", 1)[0]
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    names = [name for name in ast.literal_eval(scopes) if not name.startswith("_empty_nn_module")]
    # The last scope is the operation itself; the one before it, the module that called it.
    return str(names[-2]) if len(names) >= 2 else ""


def fixed_batch(model: Any) -> int | None:
    """The batch size that a model was exported for, or None if it takes any."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    return size.dim_value if size.HasField("dim_value") else None


def with_biases(model: Any) -> Any:
    """A copy in which every Conv, ConvTranspose and Gemm with constant weights has a bias, 0 where there was none."""
    onnx = require("onnx", "adding biases")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copied.graph.initializer}
    for node in copied.graph.node:
        bare = len(node.input) < 3 or not node.input[2]
        if node.op_type not in BIASED or not bare or node.input[1] not in weights:
            continue
        size = output_channels(node, tuple(weights[node.input[1]].dims))
        zeros = onnx.numpy_helper.from_array(np.zeros(size, np.float32), f"{node.name}.bias")
        copied.graph.initializer.append(zeros)
        node.input[:] = [*node.input[:2], zeros.name]
    return copied


def attribute(node: Any, name: str, default: Any) -> Any:
    """Value of a node's attribute, or the default."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else require("onnx", "reading ONNX models").helper.get_attribute_value(found)


def output_channels(node: Any, shape: tuple[int, ...]) -> int:
    """Output channels of a weighted node whose weights have this shape."""
    if node.op_type == "ConvTranspose":
        return int(shape[1] * attribute(node, "group", 1))
    return int(shape[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else shape[1])
