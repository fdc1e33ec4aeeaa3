"""What an artifact is compared with, and what every bundle of a run shares, each computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgetl.base.progress import Progress, tracked
from edgetl.base.schema import to_json
from edgetl.base.storage import write_json
from edgetl.core.bundle import Artifact
from edgetl.core.run import Run
from edgetl.core.tensors import Arrays, joined
from edgetl.inputs import input_of, read_ahead
from edgetl.runtime.predict import inferred, several
from edgetl.runtime.transport import read_arrays, write_arrays
from edgetl.tasks import find_task
from edgetl.workflow.stage_cache import stage, versions

if TYPE_CHECKING:
    from torch import nn

Outputs = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]
PARITY_SAMPLES = 32
OPSET = 18
EXPORTED = "model.onnx"
#: Of what these stages keep.
FORMAT = 4
#: File of a stage that holds a model's outputs.
OUTPUTS = "outputs.npz"


class Reference(Protocol):
    """A model that an artifact is compared with.

    Attributes:
        run: its classes, samples, task, input and settings.
    """

    run: Run

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Of what computes its outputs: part of the key of whatever is kept of them."""
        ...

    @property
    def module(self) -> nn.Module | None:
        """The torch model, in evaluation mode, for what trains it again; None where there is none."""
        ...

    def outputs(self, split: str, progress: Progress) -> Outputs:
        """What it gives for the samples of a split, (n, …) by name."""
        ...

    def baseline(self, progress: Progress) -> Outputs:
        """What the model gives that the transfer is measured against, on the certify split; see ``Run.baseline``."""
        ...

    def export(self, out: Path, batch: int | None) -> Mapping[str, Any]:
        """Write it as float ONNX; returns how closely that follows it.

        Raises:
            CompressionError: it cannot be exported, or the file does not follow it.
        """
        ...

    def features(self, paths: Sequence[Path], progress: Progress) -> Floats:
        """What its head sees of sample files: (n, features).

        Raises:
            CompressionError: it has no head that is known.
        """
        ...


@dataclass
class TorchReference:
    """A run of edgetl's own, whose torch model is loaded when a stage first needs it."""

    run: Run
    _module: nn.Module | None = field(default=None, repr=False)

    @property
    def versions(self) -> Mapping[str, str | None]:
        """See :class:`Reference`."""
        return versions("torch", "timm", "torchvision")

    @property
    def module(self) -> nn.Module:
        """See :class:`Reference`."""
        if self._module is None:
            from edgetl.transfer.model import load_model

            self._module = load_model(self.run)
        return self._module

    def outputs(self, split: str, progress: Progress) -> Outputs:
        """See :class:`Reference`."""
        return self._outputs(self.module, split, f"running the trained model ({split})", progress)

    def baseline(self, progress: Progress) -> Outputs:
        """See :class:`Reference`."""
        from edgetl.transfer.model import load_baseline

        return self._outputs(load_baseline(self.run), "certify", "running the baseline", progress)

    def _outputs(self, module: Any, split: str, step: str, progress: Progress) -> Outputs:
        import torch

        from edgetl.compress.export import answered
        from edgetl.transfer.model import eval_batch
        from edgetl.transfer.stores import store_of

        paths = self.run.dataset.paths(split)
        if not paths:
            return no_outputs(self.run)
        device, store = torch.device("cpu"), store_of(input_of(self.run), paths)
        found, done = np.empty((len(store), module.width), np.float32), 0
        batches = store.batches(eval_batch(module.definition, device))
        for indices, values in answered(lambda batch: (batch[0], module.fed(batch[1], device)), batches):
            found[indices] = values.numpy()
            done += len(indices)
            progress(step, done, len(store))
        return dict(module.named(found))

    def export(self, out: Path, batch: int | None) -> Mapping[str, Any]:
        """See :class:`Reference`."""
        from edgetl.compress.export import check_parity, export_onnx
        from edgetl.transfer.exportable import exportable

        run, source = self.run, input_of(self.run)
        task = find_task(run.task)
        names = tuple(spec.name for spec in task.outputs(run.classes))
        module = exportable(self.module)
        path = export_onnx(module, source, out, outputs=names, batch=batch, opset=OPSET)
        feeds = source.batch(run.dataset.paths(run.dataset.measured)[:PARITY_SAMPLES])

        def agreement(expected: Arrays, found: Arrays) -> float:
            return task.agreement(task.decode(expected, task.options), task.decode(found, task.options))

        return check_parity(path, module, feeds, outputs=names, agreement=agreement).to_json()

    def features(self, paths: Sequence[Path], progress: Progress) -> Floats:
        """See :class:`Reference`."""
        import torch

        from edgetl.transfer.features import compute
        from edgetl.transfer.stores import store_of

        store = store_of(input_of(self.run), list(paths))
        model: Any = self.module
        return compute(model, store, torch.device("cpu"), "features for k-centre", progress)


def no_outputs(run: Run) -> Outputs:
    """The outputs for no sample at all."""
    specs = find_task(run.task).outputs(run.classes)
    return {spec.name: np.empty((0, *(size or 0 for size in spec.shape[1:])), spec.dtype) for spec in specs}


def exported(reference: Reference, batch: int | None, work: Path, progress: Progress) -> Path:
    """Folder of the float ONNX, ``model.onnx``, with the proof that it follows the reference, ``parity.json``."""
    inputs = {
        "run": reference.run.digest,
        "batch": batch,
        "opset": OPSET,
        "versions": versions("torch", "onnx", "onnxscript"),
    }

    def build(folder: Path) -> None:
        progress("exporting to ONNX", 0, 1)
        write_json(folder / "parity.json", dict(reference.export(folder / EXPORTED, batch)))
        progress("exporting to ONNX", 1, 1)

    return stage(work, "onnx", inputs, build)


@dataclass(frozen=True)
class Answers:
    """What the models of a run say, before any compression; outputs are by name, (n, …).

    Attributes:
        certify: the trained model's, on that split.
        search: those of the float ONNX file, which was checked to follow it, in ONNX Runtime, on that split.
        exported: the same on the certify split.
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


def answers(reference: Reference, floating: Path, work: Path, progress: Progress) -> Answers:
    """Run the reference, its baseline and the exported graph; each is kept in ``work``."""
    run = reference.run
    certify = _reference(reference, work, progress)
    of_file = _floating(run, floating, work, progress)
    baseline, kind = _baseline(reference, work, progress)
    exported, search, measured = (_read(of_file / f"{split}.npz") for split in _splits(run))
    return Answers(certify, search, exported, baseline, kind, reproduced(run, measured))


def measured_outputs(run: Run, floating: Path, work: Path, progress: Progress) -> Outputs:
    """The float ONNX file's outputs on the split whose metric its run records, (n, …) by name."""
    return _read(_floating(run, floating, work, progress) / f"{run.dataset.measured}.npz")


def _splits(run: Run) -> tuple[str, str, str]:
    return "certify", "search", run.dataset.measured


def reproduced(run: Run, outputs: Arrays) -> tuple[float, float, int]:
    """The task's default metric as training recorded it, and as the outputs have it: on the machine that trained the
    two are equal, elsewhere they may differ by a sample that almost ties."""
    task, labels = find_task(run.task), run.dataset.labels(run.dataset.measured)
    again = task.metrics[task.metric].of(task.evidence(task.decode(outputs, task.options), labels))
    return float(run.metrics.val.get(run.metrics.metric, math.nan)), again, len(labels)


def _reference(reference: Reference, work: Path, progress: Progress) -> Outputs:
    def build(folder: Path) -> None:
        _write(folder / OUTPUTS, reference.outputs("certify", progress))

    run = reference.run
    told = {"run": run.digest, "metrics": to_json(run.metrics)}
    inputs = {"format": FORMAT, **told, "versions": dict(reference.versions)}
    return _read(stage(work, "reference", inputs, build) / OUTPUTS)


def _floating(run: Run, floating: Path, work: Path, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        artifact = Artifact("onnxruntime", floating / EXPORTED, "fp32")
        for split in dict.fromkeys(_splits(run)):
            told = f"running float ONNX ({split})"
            _write(folder / f"{split}.npz", run_artifact(artifact, run, split, False, told, progress))

    told = {"onnx": floating.name, "splits": run.dataset.digest}
    inputs = {"format": FORMAT, **told, "versions": versions("onnxruntime")}
    return stage(work, "float", inputs, build)


def run_artifact(artifact: Artifact, run: Run, split: str, simulated: bool, step: str, progress: Progress) -> Outputs:
    """Outputs (n, …) by name of an artifact on a split of a run, in this process, one sample at a time."""
    paths = run.dataset.paths(split)
    if not paths:
        return no_outputs(run)
    feeds = tracked(read_ahead(input_of(run), paths), step, progress, len(paths))
    with several(artifact, simulated=simulated) as sessions:
        return joined(list(inferred(sessions, feeds)))


def _write(file: Path, outputs: Arrays) -> None:
    with file.open("wb") as stream:
        write_arrays(stream, outputs)


def _read(file: Path) -> Outputs:
    return read_arrays(file.read_bytes())


def _baseline(reference: Reference, work: Path, progress: Progress) -> tuple[Arrays | None, str]:
    run = reference.run
    if run.baseline is None:
        return None, ""

    def build(folder: Path) -> None:
        _write(folder / OUTPUTS, reference.baseline(progress))

    told = {"run": run.digest, "baseline": to_json(run.baseline)}
    inputs = {"format": FORMAT, **told, "versions": dict(reference.versions)}
    return _read(stage(work, "baseline", inputs, build) / OUTPUTS), run.baseline.kind
