"""A file that another tool compressed, in the place of what edgetl would have made of the run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgetl.base.errors import CompressionError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_json, sha256_file, sha256_json, write_json
from edgetl.base.wording import printable
from edgetl.compress.foreign.artifact import artifact_files, copied, read_artifact
from edgetl.compress.foreign.given import Given, Wanted
from edgetl.core.bundle import CALIBRATION, Precision
from edgetl.core.compression import Calibration, ForeignArtifact, LayerNoise, Quantization
from edgetl.core.run import Run
from edgetl.core.targets import Target
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.workflow.candidates import Candidates, Compressed
from edgetl.workflow.reference import EXPORTED
from edgetl.workflow.stage_cache import stage, versions

#: Characters of what a file says of its maker.
_MOST_WORDS = 80


@dataclass(frozen=True)
class GivenArtifact:
    """The file.

    Attributes:
        path: of it.
        sha256: of its content; where its weights are in other files, of the names and hashes of all.
    """

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> GivenArtifact:
        """The file as it is now.

        Raises:
            CompressionError: it cannot be read, is too large or no form of artifact.
        """
        file = Path(path)
        try:
            return cls(file, _hash(file))
        except OSError as error:
            what = f"cannot read the artifact {error.filename or file} ({error.strerror or error})"
            raise CompressionError(what, "give the compressed file: --artifact FILE") from error

    def precision(self, run: Run, target: Target) -> Precision:
        """Of what it holds; read, and judged, before any work is done.

        Raises:
            CompressionError: the target's runtime takes no such file, or it is of another model.
        """
        return cast(Precision, read_artifact(self.path, _wanted(run, target)).precision)

    def read(self, run: Run, target: Target, folder: Path) -> Given:
        """What the hash is of, from a copy that is made in a folder.

        Raises:
            CompressionError: the file was changed meanwhile, or as :meth:`precision`.
        """
        # OpenVINO keeps the file mapped, which Windows does not remove while it is.
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as inner:
            copy = copied(self.path, Path(inner))
            if _hash(copy) != self.sha256:
                raise CompressionError(f"{self.path} was changed while it was read", "export again")
            return read_artifact(copy, _wanted(run, target))


def _hash(file: Path) -> str:
    first, *others = artifact_files(file)
    if not others:
        return sha256_file(first)
    # The weights of an IR have no name of their own: that of the .xml leads to them.
    names = ["weights"] if len(others) == 1 and others[0] == first.with_suffix(".bin") else None
    told = names or [other.relative_to(first.parent).as_posix() for other in others]
    return sha256_json([sha256_file(first), *([name, sha256_file(o)] for name, o in zip(told, others, strict=True))])


def compressed_elsewhere(candidates: Candidates, artifact: GivenArtifact) -> tuple[Compressed, tuple[LayerNoise, ...]]:
    """The file as its runtime opens it, and the noise of each layer, where the layers are those of the run's graph.

    Raises:
        CompressionError: as :meth:`GivenArtifact.read`.
    """
    floating, run, target = candidates.floating / EXPORTED, candidates.run, candidates.target

    def build(folder: Path) -> None:
        given = artifact.read(run, target, folder)
        record = Quantization(
            precision=given.precision,
            engine="another tool",
            source_sha256=sha256_file(floating),
            foreign=ForeignArtifact(artifact.path.name, artifact.sha256, _plain(given.producer), given.changes),
        )
        file = given.save(folder)
        write_json(folder / CALIBRATION, to_json(Calibration()))
        write_json(folder / "compressed.json", {"file": file.name, "record": to_json(record)})

    inputs = {
        "onnx": candidates.floating.name,
        "artifact": artifact.sha256,
        "name": artifact.path.name,
        "run": run.digest,
        "target": target.to_json(),
        "versions": versions("onnx", "onnxruntime", "openvino", "ai_edge_litert"),
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


def _plain(words: str) -> str:
    """What a file says of itself, for a line of a certificate."""
    return printable(" ".join(words.split()))[:_MOST_WORDS]


def _wanted(run: Run, target: Target) -> Wanted:
    task = find_task(run.task)
    (spec,) = task.outputs(run.classes)
    return Wanted(target, input_of(run), spec, task.labels)
