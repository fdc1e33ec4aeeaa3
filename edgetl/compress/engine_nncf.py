"""NNCF's post-training quantization of an OpenVINO model, with bias correction."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgetl.backends.openvino import read_network, save_network
from edgetl.base.extras import require, version
from edgetl.base.progress import tracked
from edgetl.compress import graph
from edgetl.compress.calibration import Calibration
from edgetl.compress.recipes import Recipe

#: OpenVINO's names of the operators with weights.
WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
#: OpenVINO's reader of ONNX writes a layer with a bias as two nodes, and gives the layer's name to the addition.
_BARE = "/WithoutBiases"


def quantize(model: Path, recipe: Recipe, calibration: Calibration, out: Path) -> dict[str, Any]:
    """Write the quantized IR to ``out`` and its ``.bin`` (see :func:`edgetl.compress.quantize.quantize`)."""
    nncf = require("nncf", "quantizing for OpenVINO")
    network = read_network(model)
    transformer = recipe.model_type == "transformer" or (
        recipe.model_type == "auto" and graph.kind_of(graph.load(model)) == "transformer"
    )
    left = sorted({*_before_weights(network), *_named(network, _excluded(model, recipe))})
    # NNCF goes through the samples several times: for ranges, then for each layer's bias.
    feeds = tracked(calibration.batches, f"quantizing ({recipe.name})", calibration.progress)
    samples = [dict(each) for each in feeds]
    presets = nncf.QuantizationPreset
    quantized = nncf.quantize(
        network,
        nncf.Dataset(samples),
        preset=presets.PERFORMANCE if recipe.activations_symmetric else presets.MIXED,
        # Without it a BERT lost 13 points: everything is quantized, and no channel is smoothed.
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        subset_size=len(samples),
        fast_bias_correction=recipe.bias_correction != "full",
        ignored_scope=nncf.IgnoredScope(names=left, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            disable_bias_correction=recipe.bias_correction == "none", **_estimator(recipe)
        ),
    )
    save_network(quantized, out)
    return {
        "engine": f"nncf {version('nncf')}, openvino {version('openvino')}",
        "estimator": {"name": recipe.estimator},
        "model_type": "transformer" if transformer else "none",
        "left_in_float": left,
        "bias_correction": {"method": recipe.bias_correction},
    }


def _before_weights(network: Any) -> list[str]:
    reached: set[str] = set()
    names = []
    for node in network.get_ordered_ops():
        name = node.get_friendly_name()
        sources = [value.get_source_output().get_node() for value in node.inputs()]
        varying = [source for source in sources if source.get_type_name() != "Constant"]
        if node.get_type_name() == "Parameter":
            reached.add(name)
        elif not _is_weighted(node, sources) and varying and all(n.get_friendly_name() in reached for n in varying):
            reached.add(name)
            names.append(name)
    return names


def _is_weighted(node: Any, sources: list[Any]) -> bool:
    """A table of embeddings is a weight too."""
    kind = node.get_type_name()
    return kind in WEIGHTED or (kind == "Gather" and sources[0].get_type_name() == "Constant")


def _excluded(model: Path, recipe: Recipe) -> list[str]:
    nodes = graph.load(model).graph.node
    return [n.name for n in nodes if n.name in recipe.exclude_nodes or n.op_type in recipe.exclude_operators]


def _named(network: Any, excluded: Iterable[str]) -> list[str]:
    """The names under which OpenVINO knows ONNX nodes."""
    wanted = {*excluded, *(name + _BARE for name in excluded)}
    return [op.get_friendly_name() for op in network.get_ordered_ops() if op.get_friendly_name() in wanted]


def _estimator(recipe: Recipe) -> dict[str, Any]:
    if recipe.estimator == "mean-min-max":
        return {}
    ranges = require("nncf.quantization.range_estimator", "quantizing for OpenVINO")
    known = ranges.RangeEstimatorParametersSet
    if recipe.estimator == "percentile":
        # Of each sample, then averaged: NNCF keeps no distribution over samples but for the histogram.
        tail = {"quantile_outlier_prob": (100 - recipe.percentile) / 200}
        kinds = {"statistics_type": ranges.StatisticsType.QUANTILE, "aggregator_type": ranges.AggregatorType.MEAN}
        end = ranges.StatisticsCollectorParameters(**kinds, **tail)
        return {"activations_range_estimator_params": ranges.RangeEstimatorParameters(min=end, max=end)}
    found = {"min-max": known.MINMAX, "mse": known.HISTOGRAM}[recipe.estimator]
    return {"activations_range_estimator_params": found}
