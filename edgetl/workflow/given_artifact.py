"""A file that another tool compressed, in the place of what edgetl would have made of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgetl.base.errors import CompressionError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, sha256_file, sha256_json, write_json
from edgetl.compress.foreign.artifact import read_artifact
from edgetl.core.bundle import CALIBRATION, Precision
from edgetl.core.compression import Calibration, ForeignArtifact, LayerNoise, Quantization
from edgetl.core.run import Run
from edgetl.core.targets import Target
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Input, input_of
from edgetl.tasks import find_task
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.reference import EXPORTED
from edgetl.workflow.stage_cache import stage, versions


@dataclass(frozen=True)
class GivenArtifact:
    """The file.

    Attributes:
        path: of it.
        sha256: of its content, and of an IR's weights.
    """

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> GivenArtifact:
        """The file as it is now.

        Raises:
            CompressionError: it cannot be read.
        """
        file = Path(path)
        try:
            parts = [sha256_file(file), *([sha256_file(file.with_suffix(".bin"))] if file.suffix == ".xml" else [])]
        except OSError as error:
            what = f"cannot read the artifact {error.filename or file} ({error.strerror})"
            raise CompressionError(what, "give the compressed file: --artifact FILE") from error
        return cls(file, parts[0] if len(parts) == 1 else sha256_json(parts))

    def precision(self, run: Run, target: Target) -> Precision:
        """Of what it holds; read, and judged, before any work is done.

        Raises:
            CompressionError: the target's runtime takes no such file, or it is of another model.
        """
        return cast(Precision, read_artifact(self.path, target.backend, *_taken(run)).precision)


def compressed_elsewhere(candidates: Candidates, artifact: GivenArtifact) -> tuple[Compressed, tuple[LayerNoise, ...]]:
    """The file as its runtime opens it, and the noise of each layer, where the layers are those of the run's graph.

    Raises:
        CompressionError: as :meth:`GivenArtifact.precision`.
    """
    floating, run, target = candidates.floating / EXPORTED, candidates.run, candidates.target

    def build(folder: Path) -> None:
        given = read_artifact(artifact.path, target.backend, *_taken(run))
        origin = ForeignArtifact(artifact.path.name, artifact.sha256, given.producer, given.changes)
        record = Quantization(
            precision=given.precision,
            engine=given.producer or "unknown",
            source_sha256=sha256_file(floating),
            foreign=origin,
        )
        file = given.save(folder)
        write_json(folder / CALIBRATION, to_json(Calibration()))
        write_json(folder / "compressed.json", {"file": file.name, "record": to_json(record)})

    inputs = {
        "onnx": candidates.floating.name,
        "artifact": artifact.sha256,
        "name": artifact.path.name,
        "run": run.digest,
        "backend": target.backend,
        "versions": versions("onnx", "openvino"),
    }
    folder = stage(candidates.work, "given", inputs, build)
    done = read_json(folder / "compressed.json")
    record = from_json(Quantization, done["record"], folder / "compressed.json")
    found = Compressed(folder, folder / done["file"], floating, record)
    return found, _noises(candidates, found)


def _noises(candidates: Candidates, found: Compressed) -> tuple[LayerNoise, ...]:
    """None where the file calls its layers otherwise: nothing then says which of them lost what."""
    if found.record.precision != "int8":
        return ()
    try:
        return candidates.noises(found)
    except CompressionError:
        return ()


def _taken(run: Run) -> tuple[Input, TensorSpec, str]:
    task = find_task(run.task)
    (spec,) = task.outputs(run.classes)
    return input_of(run), spec, task.labels
