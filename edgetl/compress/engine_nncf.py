"""NNCF's post-training quantization of an OpenVINO model, with bias correction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetl.backends.openvino import read_network, save_network
from edgetl.compress import graph
from edgetl.compress.recipes import Recipe
from edgetl.errors import CompressionError
from edgetl.extras import require, version

#: OpenVINO's names of the operators with weights.
WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


def quantize(model: Path, recipe: Recipe, images: Iterator[Any], out: Path) -> dict[str, Any]:
    """Write the quantized IR to ``out`` and its ``.bin`` (see :func:`edgetl.compress.quantize.quantize`)."""
    nncf = require("nncf", "quantizing for OpenVINO")
    network = read_network(model)
    left = sorted({*_before_weights(network), *_excluded(model, recipe)})
    # NNCF goes through the samples several times: for ranges, then for each layer's bias.
    samples = [{"image": image} for image in images]
    presets = nncf.QuantizationPreset
    quantized = nncf.quantize(
        network,
        nncf.Dataset(samples),
        preset=presets.PERFORMANCE if recipe.activations_symmetric else presets.MIXED,
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(names=left, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(**_estimator(recipe)),
    )
    save_network(quantized, out)
    return {"engine": f"nncf {version('nncf')}, openvino {version('openvino')}", "left_in_float": left}


def _before_weights(network: Any) -> list[str]:
    reached: set[str] = set()
    names = []
    for node in network.get_ordered_ops():
        name = node.get_friendly_name()
        sources = [value.get_source_output().get_node() for value in node.inputs()]
        varying = [source for source in sources if source.get_type_name() != "Constant"]
        if node.get_type_name() == "Parameter":
            reached.add(name)
        elif (
            node.get_type_name() not in WEIGHTED and varying and all(n.get_friendly_name() in reached for n in varying)
        ):
            reached.add(name)
            names.append(name)
    return names


def _excluded(model: Path, recipe: Recipe) -> list[str]:
    nodes = graph.load(model).graph.node
    return [n.name for n in nodes if n.name in recipe.exclude_nodes or n.op_type in recipe.exclude_operators]


def _estimator(recipe: Recipe) -> dict[str, Any]:
    if recipe.estimator == "mean-min-max":
        return {}
    if recipe.estimator != "min-max":
        raise CompressionError(f"NNCF has no estimator '{recipe.estimator}' here", "use mean-min-max or min-max")
    ranges = require("nncf.quantization.range_estimator", "quantizing for OpenVINO")
    return {"activations_range_estimator_params": ranges.RangeEstimatorParametersSet.MINMAX}
