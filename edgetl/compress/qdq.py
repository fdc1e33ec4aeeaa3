"""Corrections to quantized graphs: quantize/dequantize pairs that cost precision or stop a runtime from fusing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgetl.compress.graph import WEIGHTED

#: Activations that runtimes fold into the operator before them.
FOLDED_ACTIVATIONS = ("Clip", "Relu")

Pair = tuple[Any, Any]
#: Told the node before a pair, the nodes after it and whether the graph's output is among these.
Judge = Callable[[Any, list[Any], bool], bool]


def merge_activations(model: Any) -> int:
    """Take away the pairs between an operator and the activation that is its only reader, in place.

    TensorRT fuses convolution and activation only where nothing stands between, and the range before a ReLU is
    wider than after it. Returns how many pairs went.
    """
    return _drop(model, lambda producer, readers, is_output: not is_output and _folds(producer, readers))


def free_outputs(model: Any) -> int:
    """Take away the pairs on the graph's outputs, in place: 256 steps make ties among logits.

    Returns how many pairs went.
    """
    return _drop(model, lambda producer, readers, is_output: is_output and not readers)


def free_constants(model: Any, floating: Any) -> int:
    """Take constants that are no layer's weights back from the float model, in place.

    TensorRT refuses to build some of them in integers, such as the 3 that a hard swish adds: "Quantized constant is
    only allowed before DQ". What reads them works in float there anyway. Returns how many went.
    """
    graph, stored = model.graph, {tensor.name: tensor for tensor in floating.graph.initializer}
    rounded = {tensor.name for tensor in graph.initializer}
    gone = 0
    for node in [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in rounded]:
        own = stored.get(node.input[0].removesuffix("_quantized"))
        readers = [reader for reader in graph.node if node.output[0] in reader.input]
        if own is None or any(reader.op_type in WEIGHTED for reader in readers):
            continue
        for reader in readers:
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = own.name
        if own.name not in rounded:
            graph.initializer.append(own)
        graph.node.remove(node)
        gone += 1
    _drop_unused(graph)
    return gone


def free_floats(model: Any) -> int:
    """Take away the pairs on tensors that only float operators read and no layer in integers writes, in place.

    Where layers are left in float, the quantizer still rounds what pooling, additions and reshaping before them
    write. Returns how many pairs went.
    """
    gone = 0
    while found := _free_once(model):
        gone += found
    return gone


def _free_once(model: Any) -> int:
    nodes = model.graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    rewritten = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    weighted = [node for node in nodes if node.op_type in WEIGHTED]
    layers = {node.output[0] for node in weighted if node.input[1] in rounded}
    # Anything else works in integers where it reads rounded values and what it writes is rounded again.
    others = (node for node in nodes if node.op_type not in WEIGHTED and rounded & set(node.input))
    integer = {name for node in others for name in node.output if name in rewritten} | layers

    def judge(producer: Any, readers: list[Any], is_output: bool) -> bool:
        needed = is_output or producer.output[0] in layers or any(set(node.output) & integer for node in readers)
        return bool(readers) and not needed

    return _drop(model, judge)


def _folds(producer: Any, readers: list[Any]) -> bool:
    heads = (*WEIGHTED, "Add")
    return producer.op_type in heads and len(readers) == 1 and readers[0].op_type in FOLDED_ACTIVATIONS


def _drop(model: Any, judge: Judge) -> int:
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    doomed: list[Pair] = []
    for quantize in graph.node:
        if quantize.op_type != "QuantizeLinear" or quantize.input[0] not in producers:
            continue
        following = readers.get(quantize.output[0], [])
        if len(following) != 1 or following[0].op_type != "DequantizeLinear":
            continue
        tensor = following[0].output[0]
        if judge(producers[quantize.input[0]], readers.get(tensor, []), tensor in outputs):
            doomed.append((quantize, following[0]))
    for quantize, dequantize in doomed:
        _bypass(graph, quantize, dequantize, producers, readers, outputs)
    _drop_unused(graph)
    return len(doomed)


def _bypass(
    graph: Any, quantize: Any, dequantize: Any, producers: Any, readers: dict[str, list[Any]], outputs: set[str]
) -> None:
    source, tensor = quantize.input[0], dequantize.output[0]
    if tensor in outputs:
        # An output keeps its name, so whatever produced the pair's input has to write it.
        producer = producers[source]
        producer.output[list(producer.output).index(source)] = tensor
        source, tensor = tensor, source
    for node in readers.get(tensor, []):
        for index, name in enumerate(node.input):
            if name == tensor:
                node.input[index] = source
    graph.node.remove(quantize)
    graph.node.remove(dequantize)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    known = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name not in known]:
        graph.value_info.remove(value)
