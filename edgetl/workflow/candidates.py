"""Where a run is compressed for a target: attempts are made, run on search images, compared with the trained model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from edgetl.backends import BACKENDS
from edgetl.backends.base import STEM
from edgetl.base.errors import CompressionError
from edgetl.base.progress import Progress, tracked
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, sha256_file, sha256_json, write_json
from edgetl.certify import expected_difference
from edgetl.compress.head import with_quantized_head
from edgetl.compress.layers.attribution import attribute
from edgetl.compress.layers.points import read_points
from edgetl.compress.outcome import Outcome
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import Recipe
from edgetl.compress.repair import TRAINED, Attempt
from edgetl.compress.samples import Selection, select_samples
from edgetl.core.bundle import CALIBRATION, LAYERS, Artifact, Precision
from edgetl.core.compression import Calibration, LayerNoise, Quantization
from edgetl.core.data.samples import CLASS, Sample
from edgetl.core.run import Run
from edgetl.core.targets import Target
from edgetl.core.tensors import Arrays, joined, rows, single
from edgetl.inputs import input_of, read_ahead
from edgetl.runtime.predict import infer, inferred, several
from edgetl.runtime.sessions import Session
from edgetl.runtime.transport import read_arrays, write_arrays
from edgetl.tasks import find_task
from edgetl.workflow.attempt_outcome import compare
from edgetl.workflow.network_reference import head_inputs
from edgetl.workflow.reference import EXPORTED, OUTPUTS, Reference, measured_outputs
from edgetl.workflow.stage_cache import stage, versions

if TYPE_CHECKING:
    from edgetl.compress.layers.points import Point

SOURCE = "source.onnx"
#: File of a stage that holds what a head sees of samples.
FEATURES = "features.npy"
#: Record of a stage that holds a model with another head, of an attempt's: ``of`` names the attempt's stage.
REFIT = "refit.json"
#: Images that layers are attributed on.
ATTRIBUTED = 16
TIMED = 20
#: Most validation samples that a fitted attempt is judged on, beside the search samples.
VALIDATED = 500
#: Samples of the nearest margins among which the rest of a fitted attempt is paired.
NEIGHBOURS = 20


@dataclass(frozen=True)
class Compressed:
    """A finished stage: a compressed model.

    Attributes:
        folder: of the stage; holds ``calibration.json``.
        model: the ``.onnx`` or ``.xml`` file.
        source: the float ONNX file that was compressed.
        record: precision, recipe, engine and what was done.
    """

    folder: Path
    model: Path
    source: Path
    record: Quantization


@dataclass
class Candidates:
    """Where a run is compressed for one target.

    Attributes:
        reference: what artifacts are compared with.
        target: what it is made for.
        floating: stage folder of the exported float ONNX.
        work: where stages are kept.
        progress: told of every long step.
        batch: fixed batch size of the graph, or None.
    """

    reference: Reference
    target: Target
    floating: Path
    work: Path
    progress: Progress
    batch: int | None = None

    @property
    def run(self) -> Run:
        """What was trained."""
        return self.reference.run

    @property
    def simulated(self) -> bool:
        """Whether this machine can only simulate the target."""
        return self.target.executes_on_host() == "simulated"

    def in_float(self, precision: Precision) -> Compressed:
        """The model in a float precision."""
        return self.compressed(Attempt(precision, precision, None))

    def compressed(self, attempt: Attempt) -> Compressed:
        """The model as an attempt has it, from its stage or made now."""
        source = self._source(attempt)
        inputs = {
            "onnx": source.parent.name,
            "recipe": attempt.recipe.to_json() if attempt.recipe else None,
            "precision": attempt.precision,
            "backend": self.target.backend,
            "versions": versions("onnx", "onnxruntime", "openvino", "nncf"),
        }
        folder = stage(self.work, "compressed", inputs, lambda folder: self._compress(attempt, source, folder))
        done = read_json(folder / "compressed.json")
        model = folder / done["file"] if done["file"] else source
        record = from_json(Quantization, done["record"], folder / "compressed.json")
        return Compressed(folder, model, folder / SOURCE if (folder / SOURCE).is_file() else source, record)

    def _source(self, attempt: Attempt) -> Path:
        return (self.floating if attempt.source == TRAINED else self.work / attempt.source) / EXPORTED

    def _compress(self, attempt: Attempt, source: Path, folder: Path) -> None:
        run, recipe = self.run, attempt.recipe
        if recipe is not None and self._with_head(recipe, source, folder):
            return
        if recipe is None:
            made = to_float(source, self.target.backend, cast(Precision, attempt.precision), folder)
            write_json(folder / CALIBRATION, to_json(Calibration()))
        else:
            chosen = self._chosen(recipe) if recipe.calibrates else None
            samples = read_ahead(input_of(run), chosen.paths if chosen else ())
            made = quantize(source, recipe, samples, folder, self.progress, cache=self.work / "ranges")
            write_json(folder / CALIBRATION, to_json(chosen.record if chosen else Calibration()))
        file = made.path.name if made.path.parent == folder else None
        write_json(folder / "compressed.json", {"file": file, "record": to_json(made.record)})

    def _with_head(self, recipe: Recipe, source: Path, folder: Path) -> bool:
        """Exchange the head of the model that the source's was fitted for, which is all that sets the two apart."""
        if not (source.parent / REFIT).is_file():
            return False
        of = self.work / read_json(source.parent / REFIT)["of"]
        done = read_json(of / "compressed.json")
        record = from_json(Quantization, done["record"], of / "compressed.json")
        if sha256_json(record.recipe) != sha256_json(recipe.to_json()) or not str(done["file"]).endswith(".onnx"):
            return False
        try:
            with_quantized_head(of / done["file"], source, folder / done["file"])
        except CompressionError:
            return False
        write_json(folder / CALIBRATION, read_json(of / CALIBRATION))
        record = replace(record, source_sha256=sha256_file(source))
        write_json(folder / "compressed.json", {"file": done["file"], "record": to_json(record)})
        return True

    def _chosen(self, recipe: Recipe) -> Selection:
        return select_samples(self.run.dataset, recipe.selection, recipe.size, recipe.seed, self._features)

    def _features(self, paths: Sequence[Path]) -> npt.NDArray[np.floating[Any]]:
        """Of the calibration split, by the float ONNX file if that ends in a head; kept for all targets."""

        def build(folder: Path) -> None:
            try:
                found = head_inputs(self.floating / EXPORTED, self.run, paths, self.progress)
            except CompressionError:
                found = self.reference.features(paths, self.progress)
            np.save(folder / FEATURES, found, allow_pickle=False)

        told = {"onnx": self.floating.name, "run": self.run.digest, "splits": self.run.dataset.digest}
        folder = stage(self.work, "head-inputs", {**told, "versions": versions("torch", "onnxruntime")}, build)
        found: npt.NDArray[np.floating[Any]] = np.load(folder / FEATURES, allow_pickle=False)
        return found

    def artifact(self, compressed: Compressed, precision: str) -> Artifact:
        """A compressed model as its runtime opens it."""
        if self.target.backend == "litert":
            # The one runtime that opens none of the files that engines write.
            inputs = {"model": sha256_file(compressed.model), "versions": versions("ai_edge_litert", "onnx")}
            made = stage(self.work, "litert", inputs, lambda folder: self._to_litert(compressed.model, folder))
            return Artifact("litert", made / f"{STEM}.tflite", precision)
        return Artifact(self.target.backend, compressed.model, precision, self.target.runtime_device)

    def _to_litert(self, model: Path, folder: Path) -> None:
        BACKENDS["litert"].compile(model, self.target, folder)

    def measure(self, attempt: Attempt, reference: Arrays) -> Outcome:
        """Make an attempt and compare it with the trained model's outputs on the search split.

        What a fitted attempt is expected to lose is told on validation samples, too: weights that learned differ from
        the trained ones by more than noise, and flips alone say little on few samples.
        """
        artifact, run = self.artifact(self.compressed(attempt), attempt.precision), self.run
        with several(artifact, simulated=self.simulated) as sessions:
            told = f"trying {attempt.change} on search samples"
            found = self._outputs(sessions, run.dataset.split("search"), told)
            executed = None if self.simulated else sessions[0].executed().integer_macs
            first = next(self.feeds(run.dataset.split("search")[:1]))
            ms = None if self.simulated else _milliseconds(lambda: infer(sessions[0], first))
            fitted = attempt.fitted and find_task(run.task).labels == CLASS
            validation = self.validation() if fitted else ()
            validated = self._outputs(sessions, validation, f"trying {attempt.change} on validation samples")
        planned = self._planned(attempt) if self.simulated else executed
        outcome = compare(run, reference, found, planned, ms)
        if not fitted:
            return outcome
        before, after, labels = single(reference), single(found), run.dataset.labels("search")
        if validation:
            before = np.concatenate([before, single(self.trained(validation))])
            after = np.concatenate([after, single(validated)])
            labels = np.concatenate([labels, run.dataset.labels_of(validation)])
        return replace(outcome, expected_difference=expected_difference(before, after, labels, NEIGHBOURS))

    def _outputs(self, sessions: Sequence[Session], samples: Sequence[Sample], told: str) -> Arrays:
        feeds = tracked(self.feeds(samples), told, self.progress, len(samples))
        return joined(list(inferred(sessions, feeds))) if samples else {}

    def feeds(self, samples: Sequence[Sample]) -> Iterator[Arrays]:
        """The inputs of each sample, in order, some of them read while the one before is computed with."""
        return read_ahead(input_of(self.run), map(self.run.dataset.file, samples))

    def validation(self) -> tuple[Sample, ...]:
        """Validation samples, drawn, :data:`VALIDATED` at most."""
        held = self.run.dataset.split("val")
        draw = np.random.default_rng(self.run.settings.get("seed", 0))
        return tuple(held[row] for row in draw.permutation(len(held))[:VALIDATED])

    def trained(self, samples: Sequence[Sample]) -> Arrays:
        """The trained model's outputs on samples of any split, (n, …) by name."""
        known = {sample.path: row for row, sample in enumerate(self.run.dataset.split(self.run.dataset.measured))}
        if all(sample.path in known for sample in samples):
            found = measured_outputs(self.run, self.floating, self.work, self.progress)
            return rows(found, np.array([known[sample.path] for sample in samples], np.int64))

        def build(folder: Path) -> None:
            artifact = Artifact("onnxruntime", self.floating / EXPORTED, "fp32")
            with several(artifact) as sessions:
                found = self._outputs(sessions, samples, "the trained model on the same samples")
            with (folder / OUTPUTS).open("wb") as stream:
                write_arrays(stream, found)

        inputs = {
            "onnx": self.floating.name,
            "samples": [sample.sha256 for sample in samples],
            "versions": versions("onnxruntime"),
        }
        return read_arrays((stage(self.work, "trained", inputs, build) / OUTPUTS).read_bytes())

    def _planned(self, attempt: Attempt) -> float | None:
        """Share of MACs that the file asks for in integers, where no runtime here tells what it executed."""
        if attempt.recipe is None:
            return 0.0
        points = self.points(self.compressed(attempt))
        total = sum(point.macs for point in points)
        return sum(p.macs for p in points if p.weight is not None) / total if total else None

    def points(self, compressed: Compressed) -> tuple[Point, ...]:
        """How each weighted layer of the float model is quantized."""
        return read_points(compressed.model, compressed.source)

    def noises(self, compressed: Compressed) -> tuple[LayerNoise, ...]:
        """What quantization does to each layer by itself, on search images."""

        def build(folder: Path) -> None:
            samples = [input_of(self.run).feeds(path) for path in self.spread(ATTRIBUTED)]
            found = attribute(compressed.source, self.points(compressed), samples, self.progress)
            write_json(folder / LAYERS, to_json(found))

        told = {"compressed": compressed.folder.name, "run": self.run.digest, "splits": self.run.dataset.digest}
        file = stage(self.work, "noises", {**told, "versions": versions("onnxruntime")}, build) / LAYERS
        return tuple(from_json(LayerNoise, each, file) for each in read_json(file))

    def spread(self, most: int) -> Sequence[Path]:
        """Files of some search samples, evenly spread over the split."""
        paths = self.run.dataset.paths("search") or self.run.dataset.paths("val")
        return paths[:: -(-len(paths) // most)]


def _milliseconds(infer: Any) -> float:
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        infer()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times[3:]))
