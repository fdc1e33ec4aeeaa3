"""``hf:FOLDER``: what ``save_pretrained`` wrote: config.json, weights, and how a sample becomes the input.

Nothing is downloaded, no code of the folder runs, and weights are read from safetensors alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.storage import read_json, sha256_file, sha256_json
from edgetl.base.wording import enumerated
from edgetl.compress.quiet import quiet
from edgetl.workflow.adoption.given import Given, Reader, named

if TYPE_CHECKING:
    from torch import nn

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
#: Where the preparation of images stands, in folders of this year and of earlier ones.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
#: Pillow's number of a filter → its name.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_DECLARE = "declare it with --preprocess FILE"


def _read(model: Any) -> Given:
    folder = Path(str(model).partition(":")[2])
    config = folder / CONFIG
    if not config.is_file():
        raise EdgetlError(
            f"{folder} is no folder of Hugging Face: it has no {CONFIG}", "give what save_pretrained wrote"
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EdgetlError(f"{folder} has no weights in safetensors", "save it with save_pretrained(FOLDER)")
    record = read_json(config)
    kind = _kind(record, folder)
    fields, told_by = _of_texts(record, folder) if kind == "text" else _of_images(folder)
    names = _names(record)
    digest = sha256_json([sha256_file(file) for file in (config, *files)])
    return Given(
        "hf", folder.resolve().name, digest, module=_module(folder, kind), fields=fields, told_by=told_by,
        folder=folder, classes=names, names_told_by=f"{CONFIG}, id2label" if names else "",
    )  # fmt: skip


def _kind(record: Mapping[str, Any], folder: Path) -> str:
    names = " ".join(str(name) for name in record.get("architectures") or ())
    for ending, kind in {"ForImageClassification": "image", "ForSequenceClassification": "text"}.items():
        if ending in names:
            return kind
    what = f"{folder / CONFIG} is of {names or 'no named architecture'}"
    raise EdgetlError(what, "give a model for image classification or sequence classification")


def _names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes in the order of the outputs; none where they are but numbered."""
    listed = record.get("id2label")
    if not isinstance(listed, dict):
        return ()
    names = tuple(str(listed[key]) for key in sorted(listed, key=int))
    return () if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else names


def _module(folder: Path, kind: str) -> nn.Module:
    transformers = require("transformers", "reading a Hugging Face folder")
    chosen = {
        "image": transformers.AutoModelForImageClassification,
        "text": transformers.AutoModelForSequenceClassification,
    }[kind]
    try:
        with quiet():
            # Attention in plain products: what fused kernels export as, runtimes of devices do not know.
            model, loading = chosen.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True, attn_implementation="eager", dtype="float32",
            )  # fmt: skip
    except Exception as error:  # the library raises whatever a configuration leads it into
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EdgetlError(f"transformers cannot load {folder} ({lines[0][:200]})", "save it again") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if found := sorted(str(key) for key in loading.get(problem) or ()):
            what = f"{folder} has {problem.replace('_', ' ')}: {enumerated(found)}"
            raise EdgetlError(what, "give the weights of the whole fine-tuned model")
    from edgetl.transfer.logits import OfImage, OfText

    return (OfImage if kind == "image" else OfText)(model).eval()


def _of_texts(record: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    if not (folder / TOKENIZER).is_file():
        raise EdgetlError(f"{folder} has no {TOKENIZER}", "save its fast tokenizer: tokenizer.save_pretrained(FOLDER)")
    settings = folder / "tokenizer_config.json"
    limit = read_json(settings).get("model_max_length") if settings.is_file() else None
    most = record.get("max_position_embeddings")
    known = [int(value) for value in (limit, most) if isinstance(value, (int, float)) and 3 <= value < 1 << 20]
    fields: dict[str, Any] = {"kind": "text", "tokenizer": TOKENIZER}
    told_by = {"tokenizer": TOKENIZER, "pad": TOKENIZER}
    if known:
        fields["length"] = min(known)
        told_by["length"] = "tokenizer_config.json" if limit == min(known) else CONFIG
    return fields, told_by


def _of_images(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    file = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
    if file is None:
        return {}, {}
    record = read_json(file)
    record = record.get("image_processor", record)
    fields = {**_geometry(record, file), **_statistics(record, file), "channels": "RGB"}
    return fields, dict.fromkeys(fields, file.name)


def _geometry(record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    size, crop = record.get("size") or {}, record.get("crop_size") or {}
    resample = _FILTERS.get(record.get("resample", 2))
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if resample is None or not record.get("do_resize", True):
        raise EdgetlError(f"{file} resizes in a way that edgetl does not know", _DECLARE)
    cropped = bool(record.get("do_center_crop")) and bool(crop)
    if "shortest_edge" in size and cropped:
        return {**crop, "mode": "shorter", "resize": size["shortest_edge"], "interpolation": resample}
    if {"height", "width"} <= set(size) and not record.get("do_center_crop"):
        return {"height": size["height"], "width": size["width"], "mode": "squash", "interpolation": resample}
    if (
        {"height", "width"} <= set(size)
        and cropped
        and size["height"] == size["width"]
        and crop["height"] == crop["width"]
    ):
        return {**crop, "mode": "squash", "resize": size["height"], "interpolation": resample}
    raise EdgetlError(f"{file} resizes to {size} and crops to {crop or 'nothing'}: edgetl knows no such mode", _DECLARE)


def _statistics(record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Mean and std of values from 0 to 1, whatever the folder scales pixels by before it normalises them."""
    scale = 255 * float(record.get("rescale_factor", 1 / 255)) if record.get("do_rescale", True) else 255.0
    normalises = record.get("do_normalize", True)
    mean = list(record.get("image_mean") or [0.0] * 3) if normalises else [0.0] * 3
    std = list(record.get("image_std") or [1.0] * 3) if normalises else [1.0] * 3
    if record.get("rescale_offset") or len(mean) != 3:
        raise EdgetlError(f"{file} scales pixels in a way that edgetl does not know", _DECLARE)
    return {"mean": [value / scale for value in mean], "std": [value / scale for value in std]}


READER = Reader("hf", "hf:FOLDER (config.json and safetensors)", named("hf"), _read)
