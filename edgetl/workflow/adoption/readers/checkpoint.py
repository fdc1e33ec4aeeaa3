"""``timm:NAME@FILE`` and ``torchvision:NAME@FILE``: an architecture by name, and weights as somebody trained them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.storage import sha256_file
from edgetl.base.wording import enumerated
from edgetl.inputs.image import Preprocess
from edgetl.workflow.adoption.given import Given, Reader, named


def _read(model: Any) -> Given:
    library, _, rest = str(model).partition(":")
    name, _, file = rest.partition("@")
    path = Path(file)
    if not name or not file:
        raise EdgetlError(
            f"'{model}' names no weights", f"write {library}:NAME@FILE, as in {library}:resnet18@best.pth"
        )
    if not path.is_file():
        raise EdgetlError(f"there is no weights file {path}", "give a .pth, .pt or .safetensors file of a state dict")
    require("torch", "reading weights")
    from edgetl.transfer.backbones import find
    from edgetl.transfer.classifier import head_of
    from edgetl.transfer.weights import build, read_tensors

    backbone = find(f"{library}/{name}")
    tensors = read_tensors(path)
    digest = sha256_file(path)
    head, _ = head_of(build(backbone.name, 2, weights="none"), backbone.name)
    if f"{head}.weight" not in tensors:
        raise EdgetlError(
            f"{path} lacks {head}.weight, the classifier of {name}", "give the weights of the whole model"
        )
    width = int(tensors[f"{head}.weight"].shape[0])
    module = build(backbone.name, width, weights="none").eval()
    _fill(module, tensors, path, name)
    assert backbone.preprocess is not None
    definition, told = _told(library, name, digest, backbone.preprocess)
    fields = {key: value for key, value in definition.to_json().items() if key not in ("layout", "kind", "version")}
    return Given(
        library, f"{name}@{path.name}", digest, module=module, backbone=backbone.name,
        fields=fields, told_by=dict.fromkeys(fields, told),
    )  # fmt: skip


def _fill(module: Any, tensors: Any, path: Path, name: str) -> None:
    """Load every tensor; none may be left as it was drawn."""
    own = module.state_dict()
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    shapes = [key for key in needed & set(tensors) if tensors[key].shape != own[key].shape]
    for problem, keys in (
        ("lacks", needed - set(tensors)),
        ("has the unknown", set(tensors) - set(own)),
        ("has another shape for", shapes),
    ):
        if keys:
            what = f"{path} {problem} {enumerated(sorted(keys))}: these are no weights of {name}"
            raise EdgetlError(what, "name the architecture that they were trained with")
    module.load_state_dict(tensors, strict=False)


def _told(library: str, name: str, digest: str, default: Preprocess) -> tuple[Preprocess, str]:
    """How images were prepared for the published weights: of torchvision, for the ones that these are, if they are.

    A file that was fine-tuned says nothing of it: then it is that of the weights which are offered first.
    """
    if library == "timm":
        return default, f"timm's configuration of {name}"
    weights = require("torchvision", "reading weights").models.get_model_weights(name)
    for member in weights:
        if member.url.rsplit("-", 1)[-1].startswith(digest[:8]):
            preset = member.transforms()
            side, mean, std = preset.crop_size[0], tuple(preset.mean), tuple(preset.std)
            filter_ = preset.interpolation.value
            return Preprocess(side, side, preset.resize_size[0], filter_, mean, std), f"torchvision's {member}"
    return default, f"torchvision's {weights.DEFAULT}, which may not be what these weights were trained with"


TIMM = Reader("timm", "timm:NAME@FILE", named("timm"), _read)
TORCHVISION = Reader("torchvision", "torchvision:NAME@FILE", named("torchvision"), _read)
