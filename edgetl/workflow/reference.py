"""What every bundle of a run shares, each computed once: the exported graph and the answers that it is judged by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.progress import Progress, tracked
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import Artifact
from edgetl.core.run import Run
from edgetl.core.tensors import Arrays, joined
from edgetl.inputs import input_of, preprocess_of
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session
from edgetl.runtime.transport import read_arrays, write_arrays
from edgetl.workflow.stage_cache import stage, versions

if TYPE_CHECKING:
    from torch import nn

Logits = npt.NDArray[np.float32]
PARITY_IMAGES = 32
OPSET = 18
EXPORTED = "model.onnx"
#: Of what these stages keep.
FORMAT = 2
#: File of a stage that holds a model's outputs, and the name of the only one that a classifier has.
OUTPUTS, OUTPUT = "outputs.npz", "logits"


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
        path = export_onnx(trained.model, input_of(run), folder / EXPORTED, batch=batch, opset=OPSET)
        feeds = input_of(run).batch(run.dataset.paths("val")[:PARITY_IMAGES])
        write_json(folder / "parity.json", check_parity(path, trained.model, feeds).to_json())
        progress("exporting to ONNX", 1, 1)

    return stage(work, "onnx", inputs, build)


@dataclass(frozen=True)
class Answers:
    """What the models of a run say, before any compression; outputs are by name, (n, …).

    Attributes:
        certify, search: the trained model's, on either split.
        exported: the float ONNX file's, in ONNX Runtime, on the certify split.
        baseline: those of the model that the transfer is measured against, on the certify split; None without one.
        baseline_kind: scratch or probe; "" without one.
        reproduced: validation accuracy as training recorded it, as the weights give it now, and the images.
    """

    certify: Arrays
    search: Arrays
    exported: Arrays
    baseline: Arrays | None
    baseline_kind: str
    reproduced: tuple[float, float, int]

    def save(self, file: Path) -> None:
        """Write what a bundle keeps of them: ``reference.NAME``, ``exported.NAME``, ``baseline.NAME``, and the rest."""
        models = {"reference": self.certify, "exported": self.exported, "baseline": self.baseline or {}}
        kept: dict[str, Any] = {
            f"{model}.{name}": values for model, outputs in models.items() for name, values in outputs.items()
        }
        if self.baseline is not None:
            kept["baseline_kind"] = np.array(self.baseline_kind)
        np.savez(file, **kept, reproduced=np.array(self.reproduced))


def answers(trained: TorchReference, floating: Path, work: Path, progress: Progress) -> Answers:
    """Run the trained model, its baseline and the exported graph; each is kept in ``work``."""
    run = trained.run
    reference = _reference(trained, work, progress)
    floats = _floating(run, floating, work, progress)
    baseline, kind = _baseline(run, work, progress)
    certify, search = (_read(reference / f"{split}.npz") for split in ("certify", "search"))
    recorded, measured, n = read_json(reference / "reproduced.json")
    return Answers(certify, search, floats, baseline, kind, (recorded, measured, n))


def _reference(trained: TorchReference, work: Path, progress: Progress) -> Path:
    from edgetl.transfer.model import measured

    run = trained.run

    def build(folder: Path) -> None:
        for split in ("certify", "search"):
            outputs = _torch_outputs(trained.model, run, split, f"running the trained model ({split})", progress)
            _write(folder / f"{split}.npz", outputs)
        write_json(folder / "reproduced.json", list(measured(run, progress)))

    inputs = {
        "format": FORMAT,
        "run": run.digest,
        "metrics": dict(run.metrics),
        **versions("torch", "timm", "torchvision"),
    }
    return stage(work, "reference", inputs, build)


def _torch_outputs(model: nn.Module, run: Run, split: str, task: str, progress: Progress) -> dict[str, Any]:
    import torch

    paths = run.dataset.paths(split)

    def infer(images: npt.NDArray[np.uint8]) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(images)).numpy()
        return logits

    return {OUTPUT: batched(infer, run, paths, task, progress)}


def batched(
    infer: Callable[[npt.NDArray[np.uint8]], Logits], run: Run, paths: Sequence[Path], task: str, progress: Progress
) -> Logits:
    """Logits (n, classes) of image files, 16 at a time."""
    rows = [np.empty((0, len(run.classes)), np.float32)]
    chunks = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    rows += [infer(input_of(run).batch(chunk)["image"]) for chunk in tracked(chunks, task, progress)]
    return np.concatenate(rows)


def _floating(run: Run, floating: Path, work: Path, progress: Progress) -> Arrays:
    def build(folder: Path) -> None:
        artifact = Artifact("onnxruntime", floating / EXPORTED, "fp32")
        _write(folder / OUTPUTS, run_artifact(artifact, run, "certify", False, "running float ONNX", progress))

    inputs = {"format": FORMAT, "onnx": floating.name, "splits": run.dataset.digest, **versions("onnxruntime")}
    return _read(stage(work, "float", inputs, build) / OUTPUTS)


def run_artifact(
    artifact: Artifact, run: Run, split: str, simulated: bool, task: str, progress: Progress
) -> dict[str, npt.NDArray[Any]]:
    """Outputs (n, …) by name of an artifact on a split of a run, in this process, one sample at a time."""
    source, paths = input_of(run), run.dataset.paths(split)
    if not paths:
        return {OUTPUT: np.empty((0, len(run.classes)), np.float32)}
    with closing(open_session(artifact, threads=os.cpu_count() or 1, simulated=simulated)) as session:
        return joined([infer(session, source.feeds(path)) for path in tracked(paths, task, progress)])


def _write(file: Path, outputs: Arrays) -> None:
    with file.open("wb") as stream:
        write_arrays(stream, outputs)


def _read(file: Path) -> dict[str, npt.NDArray[Any]]:
    return read_arrays(file.read_bytes())


def _baseline(run: Run, work: Path, progress: Progress) -> tuple[Arrays | None, str]:
    if run.baseline is None:
        return None, ""
    from edgetl.transfer.model import load_baseline

    def build(folder: Path) -> None:
        model = load_baseline(run)
        _write(folder / OUTPUTS, _torch_outputs(model, run, "certify", "running the baseline", progress))

    described = {"run": run.digest, "baseline": dict(run.baseline)}
    inputs: dict[str, Any] = {"format": FORMAT, **described, **versions("torch", "timm")}
    return _read(stage(work, "baseline", inputs, build) / OUTPUTS), str(run.baseline["kind"])
