"""What the sweep tries: variations of the default recipes, NNCF on ONNX, and settings of the runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.storage import write_bytes
from edgetl.compress import graph
from edgetl.compress.quantize import quantize
from edgetl.compress.quiet import quiet
from edgetl.compress.recipes import load_recipe, with_changes

Images = npt.NDArray[np.uint8]
Changes = Mapping[str, Any]

FLOAT = "float32"
#: recipe → name of a variation → what it changes. "default" comes first and is what the others are compared with.
VARIATIONS: Mapping[str, Mapping[str, Changes]] = {
    "ort-x86-int8": {
        "default": {},
        "per tensor": {"per_channel": False},
        "s8, asymmetric": {"activations": "int8"},
        "s8, symmetric": {"activations": "int8", "activations_symmetric": True},
        "s8, symmetric, merged": {"activations": "int8", "activations_symmetric": True, "merge_activations": True},
        "percentile 99.999": {"estimator": "percentile"},
        "mse": {"estimator": "mse"},
        "entropy": {"estimator": "entropy"},
        "bias float32": {"bias": "float32"},
        "bias corrected, fast": {"bias_correction": "fast"},
        "32 images": {"size": 32},
    },
    "openvino-int8": {
        "default": {},
        "mixed": {"activations_symmetric": False},
        "no bias correction": {"bias_correction": "none"},
        "mse": {"estimator": "mse"},
        "16 images": {"size": 16},
    },
}
#: NNCF on the ONNX graph itself: a file that both runtimes take.
NNCF_ONNX: Mapping[str, bool] = {"nncf-onnx": True}


def make(source: Path, recipe: str, changes: Changes, images: Images, out: Path, cache: Path) -> Path:
    """The quantized file of a variation, made once.

    Args:
        source: float ONNX file.
        recipe: name of the default.
        changes: as in :data:`VARIATIONS`.
        images: uint8 (n, H, W, 3) of the calibration split, in the order in which a recipe takes them.
        out: its folder.
        cache: where observed ranges are kept.
    """
    name = "quantized.xml" if recipe == "openvino-int8" else "quantized.onnx"
    if not (out / name).is_file():
        changed = with_changes(load_recipe(recipe), **changes)
        quantize(source, changed, ({"image": image[None]} for image in images[: changed.size]), out, cache=cache)
    return out / name


def make_nncf_onnx(source: Path, symmetric: bool, images: Images, out: Path) -> Path:
    """The float ONNX file quantized by NNCF's own ONNX engine, preprocessing excepted, made once."""
    path = out / "quantized.onnx"
    if not path.is_file():
        import nncf

        model = graph.load(source)
        presets = nncf.QuantizationPreset
        with quiet():
            made = nncf.quantize(
                model,
                nncf.Dataset([{"image": image[None]} for image in images]),
                preset=presets.PERFORMANCE if symmetric else presets.MIXED,
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=sorted(graph.before_weights(model)), validate=False),
            )
        write_bytes(path, made.SerializeToString())
    return path


#: runtime → setting's name → what replaces edgetl's own (see ``recipe_guest.py``)
OPTIONS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "onnxruntime": {
        "graph optimisations: none": {"graph_optimization_level": "ORT_DISABLE_ALL"},
        "graph optimisations: basic": {"graph_optimization_level": "ORT_ENABLE_BASIC"},
        "graph optimisations: extended": {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
        "graph optimisations: layout": {"graph_optimization_level": "ORT_ENABLE_LAYOUT"},
        "layout: no NHWC kernels": {"disabled_optimizers": "NhwcTransformer"},
        "memory arena: off": {"enable_cpu_mem_arena": "False"},
        "memory pattern: off": {"enable_mem_pattern": "False"},
        "prepacked weights: off": {"session.disable_prepacking": "1"},
        "spinning: off": {"session.intra_op.allow_spinning": "0"},
        "spinning: goes on after a run": {"session.force_spinning_stop": "0"},
        "execution: parallel": {"execution_mode": "ORT_PARALLEL"},
        "denormals: flushed": {"session.set_denormal_as_zero": "1"},
        "unsigned weights without VNNI": {"session.x64quantprecision": "1"},
    },
    "openvino": {
        "hint: throughput": {"PERFORMANCE_HINT": "THROUGHPUT"},
        "hint: none": {"PERFORMANCE_HINT": "CUMULATIVE_THROUGHPUT"},
        "inference precision: bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
        "inference precision: f16": {"INFERENCE_PRECISION_HINT": "f16"},
        "pinned threads": {"ENABLE_CPU_PINNING": "YES"},
        "threads not pinned": {"ENABLE_CPU_PINNING": "NO"},
        "hyper-threads: off": {"ENABLE_HYPER_THREADING": "NO"},
        "denormals: flushed": {"CPU_DENORMALS_OPTIMIZATION": "YES"},
    },
}
