"""From a trained torch model to what a runtime takes: ONNX, calibration samples, recipes, quantization.

Names are imported when they are first used: exporting needs torch, quantizing needs the engine of the recipe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetl.compress.export import Parity, check_parity, export_onnx
    from edgetl.compress.quantization import QuantizedModel, quantize, to_float
    from edgetl.compress.recipes import Recipe, load_recipe, recipe_for, recipe_names
    from edgetl.compress.samples import Selection, select_samples

_HOMES = {
    "Parity": "export",
    "check_parity": "export",
    "export_onnx": "export",
    "QuantizedModel": "quantization",
    "quantize": "quantization",
    "to_float": "quantization",
    "Recipe": "recipes",
    "load_recipe": "recipes",
    "recipe_for": "recipes",
    "recipe_names": "recipes",
    "Selection": "samples",
    "select_samples": "samples",
}

__all__ = [
    "Parity",
    "QuantizedModel",
    "Recipe",
    "Selection",
    "check_parity",
    "export_onnx",
    "load_recipe",
    "quantize",
    "recipe_for",
    "recipe_names",
    "select_samples",
    "to_float",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
