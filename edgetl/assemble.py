"""From a Run to a Bundle: export, choose calibration images, quantize, compile, golden vectors, seal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.bundle import (
    CALIBRATION,
    GOLDEN,
    LABELS,
    MANIFEST,
    PREPROCESS_FILE,
    REFERENCE,
    SPLITS_FILE,
    Bundle,
    Precision,
    load_bundle,
    write_manifest,
)
from edgetl.compress.recipes import Recipe
from edgetl.errors import BundleError, EdgetlError
from edgetl.progress import Progress, tracked
from edgetl.run import Run
from edgetl.stages import stage, versions
from edgetl.storage import new_folder, read_json, sha256_json, write_json
from edgetl.targets import Target

if TYPE_CHECKING:
    from torch import nn

GOLDEN_IMAGES = 4
PARITY_IMAGES = 32
OPSET = 18


@dataclass(frozen=True)
class Request:
    """One bundle to make.

    Attributes:
        run: what was trained.
        name: of the bundle's folder: the target as the user named it.
        target, precision: what it is made for.
        selection, size: override the recipe's choice of calibration images.
        batch: fixed batch size of the graph, or None.
    """

    run: Run
    name: str
    target: Target
    precision: Precision
    selection: str | None = None
    size: int | None = None
    batch: int | None = None

    @cached_property
    def recipe(self) -> Recipe | None:
        """The calibration recipe with the request's overrides; None for a float precision."""
        from edgetl.compress.recipes import load_recipe, with_changes

        name = self.target.recipe(self.precision)
        if name is None:
            return None
        changes: dict[str, Any] = {"selection": self.selection, "size": self.size}
        return with_changes(load_recipe(name), **{k: v for k, v in changes.items() if v is not None})

    def key(self) -> str:
        """SHA-256 over everything that the bundle's content depends on."""
        return sha256_json(
            {
                "run": self.run.digest,
                "target": self.target.to_json(),
                "precision": self.precision,
                "recipe": self.recipe.to_json() if self.recipe else None,
                "batch": self.batch,
                "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt_rtx", "tensorrt"),
            }
        )


@dataclass
class Trained:
    """The trained torch model, loaded when a stage first needs it."""

    run: Run
    _model: nn.Module | None = field(default=None, repr=False)

    @property
    def model(self) -> nn.Module:
        """uint8 (n, H, W, 3) → float32 logits (n, classes), in evaluation mode."""
        if self._model is None:
            from edgetl.transfer.model import load_model

            self._model = load_model(self.run)
        return self._model

    def logits(self, paths: Sequence[Path], task: str, progress: Progress) -> npt.NDArray[np.float32]:
        """The reference's answers to image files, one batch at a time: float32 (n, classes)."""
        import torch

        rows = []
        chunks = [paths[start : start + 16] for start in range(0, len(paths), 16)]
        for chunk in tracked(chunks, task, progress):
            with torch.inference_mode():
                rows.append(self.model(torch.from_numpy(self.run.preprocess.batch(chunk))).numpy())
        return np.concatenate(rows)

    def features(self, paths: Sequence[Path], task: str, progress: Progress) -> npt.NDArray[np.float32]:
        """What the head sees of image files: float32 (n, features)."""
        import torch

        from edgetl.transfer.features import compute
        from edgetl.transfer.images import ImageStore

        store = ImageStore(list(paths), self.run.preprocess)
        return compute(self.model, store, torch.device("cpu"), task, progress)


def bundle_for(request: Request, out: Path, work: Path, progress: Progress) -> Bundle:
    """The finished bundle ``out/NAME``, made if it is not there yet, damaged, or made from something else."""
    folder, key = out / request.name, request.key()
    try:
        there = load_bundle(folder)
        if there.manifest["key"] == key:
            return there
    except BundleError as error:
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise EdgetlError(f"{folder} exists and is no bundle", "choose another --out, or remove it") from error
    trained = Trained(request.run)
    floating = _exported(request, trained, work, progress)
    reference = _reference(request.run, trained, work, progress)
    compressed = _compressed(request, trained, floating, work, progress)
    twin = _compressed(_twin(request), trained, floating, work, progress)
    with new_folder(folder) as partial:
        _fill(partial, request, key, floating, reference, compressed, twin, progress)
    return load_bundle(folder)


def _twin(request: Request) -> Request:
    """The same bundle in the widest float precision that the target runs: the yardstick of the bench."""
    from edgetl.backends import BACKENDS

    runtime = BACKENDS[request.target.backend]
    widths: tuple[Precision, ...] = ("fp32", "fp16")
    widest = next((p for p in widths if runtime.refuses(request.target, p) is None), request.precision)
    return replace(request, precision=widest)


def _exported(request: Request, trained: Trained, work: Path, progress: Progress) -> Path:
    from edgetl.compress.export import check_parity, export_onnx

    run = request.run
    inputs = {"run": run.digest, "batch": request.batch, "opset": OPSET, **versions("torch", "onnx", "onnxscript")}

    def build(folder: Path) -> None:
        progress("exporting to ONNX", 0, 1)
        path = export_onnx(trained.model, run.preprocess, folder / "model.onnx", batch=request.batch, opset=OPSET)
        images = run.preprocess.batch(run.dataset.paths("val")[:PARITY_IMAGES])
        write_json(folder / "parity.json", check_parity(path, trained.model, images).to_json())
        progress("exporting to ONNX", 1, 1)

    return stage(work, "onnx", inputs, build)


def _reference(run: Run, trained: Trained, work: Path, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        logits = trained.logits(run.dataset.paths("certify"), "running the trained model", progress)
        np.savez(folder / REFERENCE, logits=logits, labels=run.dataset.labels("certify"))

    return stage(work, "reference", {"run": run.digest, **versions("torch", "timm", "torchvision")}, build)


def _compressed(request: Request, trained: Trained, floating: Path, work: Path, progress: Progress) -> Path:
    """A stage folder with ``compressed.json`` (file and record) and ``calibration.json``."""
    from edgetl.compress.quantize import quantize, to_float
    from edgetl.compress.samples import select_samples

    run, recipe = request.run, request.recipe
    inputs = {
        "onnx": floating.name,
        "recipe": recipe.to_json() if recipe else None,
        "precision": request.precision,
        "backend": request.target.backend,
        **versions("onnx", "onnxruntime", "openvino", "nncf"),
    }

    def features(paths: Sequence[Path]) -> npt.NDArray[np.floating[Any]]:
        return trained.features(paths, "features for k-centre", progress)

    def build(folder: Path) -> None:
        source = floating / "model.onnx"
        if recipe is None:
            made = to_float(source, request.target.backend, request.precision, folder)
            write_json(folder / CALIBRATION, {"images": [], "selection": None})
        else:
            chosen = select_samples(run.dataset, recipe.selection, recipe.size, recipe.seed, features)
            images = (run.preprocess.apply(path)[None] for path in chosen.paths)
            made = quantize(source, recipe, images, folder, progress)
            write_json(folder / CALIBRATION, chosen.record)
        file = made.path.name if made.path.parent == folder else None
        write_json(folder / "compressed.json", {"file": file, "record": dict(made.record)})

    return stage(work, "compressed", inputs, build)


def _fill(
    folder: Path,
    request: Request,
    key: str,
    floating: Path,
    reference: Path,
    compressed: Path,
    twin: Path,
    progress: Progress,
) -> None:
    from edgetl.backends import BACKENDS

    run, target = request.run, request.target
    outcome = read_json(compressed / "compressed.json")
    compiler = BACKENDS[target.backend]
    progress(f"compiling for {request.name}", 0, 1)
    deployed = compiler.compile(_model(compressed, floating), target, folder / "model")
    # A float model is its own yardstick; a second copy of it would only be timed against itself.
    same = compressed == twin
    artifacts = {
        "deployed": deployed,
        "float": deployed if same else compiler.compile(_model(twin, floating), target, folder / "float"),
    }
    write_json(folder / LABELS, list(run.classes))
    write_json(folder / PREPROCESS_FILE, run.preprocess.to_json())
    write_json(folder / SPLITS_FILE, run.dataset.to_json())
    for file in (compressed / CALIBRATION, reference / REFERENCE):
        (folder / file.name).write_bytes(file.read_bytes())
    _write_golden(folder / GOLDEN, request, artifacts["deployed"])
    body = {
        "key": key,
        "target": target.to_json(),
        "name": request.name,
        "classes": list(run.classes),
        "run": {"digest": run.digest, "weights_sha256": run.weights_sha256, "backbone": run.backbone,
                "strategy": run.strategy, "settings": dict(run.settings), "metrics": dict(run.metrics)},
        "lineage": dict(run.lineage),
        "quantization": outcome["record"],
        "parity": read_json(floating / "parity.json"),
        "versions": versions("torch", "onnx", "onnxruntime", "openvino", "nncf"),
    }  # fmt: skip
    write_manifest(folder, body, artifacts)
    progress(f"compiling for {request.name}", 1, 1)


def _model(compressed: Path, floating: Path) -> Path:
    file = read_json(compressed / "compressed.json")["file"]
    return compressed / file if file else floating / "model.onnx"


def _write_golden(file: Path, request: Request, artifact: Any) -> None:
    """A few images that nothing is certified on, with the logits that the artifact gives for them here."""
    from edgetl.runtime.predict import infer
    from edgetl.runtime.sessions import open_session

    run, simulated = request.run, request.target.executes_on_host() == "simulated"
    paths = (run.dataset.paths("search") or run.dataset.paths("val"))[:: max(1, len(run.dataset.paths("search")) // 4)]
    images = run.preprocess.batch(paths[:GOLDEN_IMAGES])
    session = open_session(artifact, threads=1, simulated=simulated)
    logits = np.concatenate([infer(session, image[None]) for image in images])
    session.close()
    executed: Mapping[str, Any] = {"executed": np.array("simulated" if simulated else "host")}
    np.savez(file, images=images, logits=logits, **executed)
