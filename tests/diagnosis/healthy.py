"""Healthy bundles: as the pipeline makes them, without its training, certificates and caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from edgetl.backends import BACKENDS
from edgetl.base.schema import to_json
from edgetl.base.storage import write_json
from edgetl.compress.export import export_onnx, run_onnx
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.compress.samples import select_samples
from edgetl.core.bundle import (
    CALIBRATION,
    EXPORTED,
    LABELS,
    LAYERS,
    PREPROCESS_FILE,
    SPLITS_FILE,
    Bundle,
    load_bundle,
    write_manifest,
)
from edgetl.core.data import Dataset
from edgetl.core.manifest import Manifest, TrainedRun
from edgetl.core.targets import find_target
from edgetl.core.tensors import single
from edgetl.diagnosis import Observations
from edgetl.inputs import input_of, preprocess_of
from edgetl.inputs.image import Preprocess
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session

Logits = npt.NDArray[np.float32]


def healthy_bundle(
    model: nn.Module, dataset: Dataset, preprocess: Preprocess, target: str, folder: Path, **changes: object
) -> Bundle:
    """Export, quantize by the target's recipe (with ``changes``) and seal."""
    wanted = find_target(target)
    recipe = with_changes(load_recipe(wanted.recipe("int8") or ""), **changes)
    (folder / "exported").mkdir(parents=True)
    exported = export_onnx(model, preprocess, folder / EXPORTED)
    chosen = select_samples(dataset, recipe.selection, recipe.size, recipe.seed)
    samples = (preprocess.feeds(path) for path in chosen.paths)
    made = quantize(exported, recipe, samples, folder.parent / f".{folder.name}.work")
    deployed = BACKENDS[wanted.backend].compile(made.path, wanted, folder / "model")
    write_json(folder / LABELS, list(dataset.classes))
    write_json(folder / PREPROCESS_FILE, preprocess.to_json())
    write_json(folder / SPLITS_FILE, dataset.to_json())
    write_json(folder / CALIBRATION, to_json(chosen.record))
    write_json(folder / LAYERS, [])
    manifest = Manifest(
        target=wanted,
        name=target,
        run=TrainedRun(input=preprocess.to_json(), classes=dataset.classes),
        quantization=made.record,
        exported=EXPORTED,
        source=EXPORTED,
    )
    write_manifest(folder, manifest, {"deployed": deployed})
    return load_bundle(folder)


def is_simulated(bundle: Bundle) -> bool:
    """Whether this machine can only imitate the bundle's arithmetic."""
    return find_target(bundle.target).executes_on_host() == "simulated"


def deployed_logits(bundle: Bundle, images: Sequence[npt.NDArray[np.uint8]]) -> Logits:
    """What the artifact answers to network inputs, uint8 (H, W, 3) each."""
    session = open_session(bundle.artifact(), threads=1, simulated=is_simulated(bundle))
    return np.concatenate([single(infer(session, {"image": image[None]})) for image in images])


def observed(bundle: Bundle, reference: Bundle, deployed: Logits | None = None, *, most: int = 40) -> Observations:
    """What a certify run sees of ``bundle``; ``reference`` is the healthy one, whose float graph stands for torch's."""
    root, samples = reference.dataset.root, reference.dataset.split("certify")[:most]
    paths = [root / sample.path for sample in samples]
    logits = {
        "reference": run_onnx(reference.exported, input_of(reference).batch(paths))["logits"],
        "float ONNX": run_onnx(bundle.exported, input_of(bundle).batch(paths))["logits"],
        "deployed": deployed_logits(bundle, [preprocess_of(bundle).apply(p) for p in paths])
        if deployed is None
        else deployed,
    }
    labels = np.array([sample.label for sample in samples], np.int64)
    return Observations(paths, labels, logits, is_simulated(bundle))
