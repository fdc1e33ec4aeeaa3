"""What every bundle of a run shares, each computed once: the exported graph and the answers that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.progress import Progress, tracked
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import REFERENCE, Artifact
from edgetl.core.run import Run
from edgetl.inputs import input_of, preprocess_of
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session
from edgetl.workflow.stage_cache import stage, versions

if TYPE_CHECKING:
    from torch import nn

Logits = npt.NDArray[np.float32]
PARITY_IMAGES = 32
OPSET = 18
EXPORTED = "model.onnx"


@dataclass
class TorchReference:
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

    def features(self, paths: Sequence[Path], task: str, progress: Progress) -> Logits:
        """What the head sees of image files: float32 (n, features)."""
        import torch

        from edgetl.transfer.features import compute
        from edgetl.transfer.images import ImageStore

        store = ImageStore(list(paths), preprocess_of(self.run))
        return compute(self.model, store, torch.device("cpu"), task, progress)


def exported(trained: TorchReference, batch: int | None, work: Path, progress: Progress) -> Path:
    """Folder of the float ONNX, ``model.onnx``, with the proof that it follows torch, ``parity.json``."""
    from edgetl.compress.export import check_parity, export_onnx

    run = trained.run
    inputs = {"run": run.digest, "batch": batch, "opset": OPSET, **versions("torch", "onnx", "onnxscript")}

    def build(folder: Path) -> None:
        progress("exporting to ONNX", 0, 1)
        path = export_onnx(trained.model, preprocess_of(run), folder / EXPORTED, batch=batch, opset=OPSET)
        images = input_of(run).batch(run.dataset.paths("val")[:PARITY_IMAGES])["image"]
        write_json(folder / "parity.json", check_parity(path, trained.model, images).to_json())
        progress("exporting to ONNX", 1, 1)

    return stage(work, "onnx", inputs, build)


@dataclass(frozen=True)
class Answers:
    """What the models of a run say, before any compression; logits are float32 (n, classes).

    Attributes:
        certify, search: the trained model's, on either split.
        exported: the float ONNX file's, in ONNX Runtime, on the certify split.
        baseline: those of the model that the transfer is measured against, on the certify split; None without one.
        baseline_kind: scratch or probe; "" without one.
        reproduced: validation accuracy as training recorded it, as the weights give it now, and the images.
    """

    certify: Logits
    search: Logits
    exported: Logits
    baseline: Logits | None
    baseline_kind: str
    reproduced: tuple[float, float, int]

    def save(self, file: Path) -> None:
        """Write what a bundle keeps of them."""
        more: dict[str, Any] = {}
        if self.baseline is not None:
            more = {"baseline": self.baseline, "baseline_kind": np.array(self.baseline_kind)}
        np.savez(file, logits=self.certify, exported=self.exported, reproduced=np.array(self.reproduced), **more)


def answers(trained: TorchReference, floating: Path, work: Path, progress: Progress) -> Answers:
    """Run the trained model, its baseline and the exported graph; each is kept in ``work``."""
    run = trained.run
    reference = _reference(trained, work, progress)
    floats = _floating(run, floating, work, progress)
    baseline, kind = _baseline(run, work, progress)
    with np.load(reference / REFERENCE, allow_pickle=False) as stored:
        certify, search = stored["certify"], stored["search"]
    recorded, measured, n = read_json(reference / "reproduced.json")
    return Answers(certify, search, floats, baseline, kind, (recorded, measured, n))


def _reference(trained: TorchReference, work: Path, progress: Progress) -> Path:
    from edgetl.transfer.model import measured

    run = trained.run

    def build(folder: Path) -> None:
        logits: dict[str, Any] = {
            split: _torch_logits(trained.model, run, split, f"running the trained model ({split})", progress)
            for split in ("certify", "search")
        }
        write_json(folder / "reproduced.json", list(measured(run, progress)))
        np.savez(folder / REFERENCE, **logits)

    inputs = {"run": run.digest, "metrics": dict(run.metrics), **versions("torch", "timm", "torchvision")}
    return stage(work, "reference", inputs, build)


def _torch_logits(model: nn.Module, run: Run, split: str, task: str, progress: Progress) -> Logits:
    import torch

    paths = run.dataset.paths(split)

    def infer(images: npt.NDArray[np.uint8]) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(images)).numpy()
        return logits

    return batched(infer, run, paths, task, progress)


def batched(
    infer: Callable[[npt.NDArray[np.uint8]], Logits], run: Run, paths: Sequence[Path], task: str, progress: Progress
) -> Logits:
    """Logits (n, classes) of image files, 16 at a time."""
    rows = [np.empty((0, len(run.classes)), np.float32)]
    chunks = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    rows += [infer(input_of(run).batch(chunk)["image"]) for chunk in tracked(chunks, task, progress)]
    return np.concatenate(rows)


def _floating(run: Run, floating: Path, work: Path, progress: Progress) -> Logits:
    def build(folder: Path) -> None:
        artifact = Artifact("onnxruntime", floating / EXPORTED, "fp32")
        np.save(folder / "logits.npy", run_artifact(artifact, run, "certify", False, "running float ONNX", progress))

    inputs = {"onnx": floating.name, "splits": run.dataset.digest, **versions("onnxruntime")}
    logits: Logits = np.load(stage(work, "float", inputs, build) / "logits.npy", allow_pickle=False)
    return logits


def run_artifact(artifact: Artifact, run: Run, split: str, simulated: bool, task: str, progress: Progress) -> Logits:
    """Logits (n, classes) of an artifact on a split of a run, in this process, one image at a time."""
    import os
    from contextlib import closing

    rows = [np.empty((0, len(run.classes)), np.float32)]
    with closing(open_session(artifact, threads=os.cpu_count() or 1, simulated=simulated)) as session:
        for path in tracked(run.dataset.paths(split), task, progress):
            rows.append(infer(session, input_of(run).feeds(path)["image"]))
    return np.concatenate(rows)


def _baseline(run: Run, work: Path, progress: Progress) -> tuple[Logits | None, str]:
    from edgetl.transfer.model import load_baseline

    if run.baseline is None:
        return None, ""

    def build(folder: Path) -> None:
        model = load_baseline(run)
        np.save(folder / "logits.npy", _torch_logits(model, run, "certify", "running the baseline", progress))

    inputs: dict[str, Any] = {"run": run.digest, "baseline": dict(run.baseline), **versions("torch", "timm")}
    logits: Logits = np.load(stage(work, "baseline", inputs, build) / "logits.npy", allow_pickle=False)
    return logits, str(run.baseline["kind"])
