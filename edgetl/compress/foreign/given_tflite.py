"""A TFLite file as LiteRT runs it: unchanged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgetl.backends.litert import read_precision
from edgetl.base.errors import BackendError, CompressionError
from edgetl.compress.foreign.given import REMEDY, Given, Wanted
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import TensorSpec
from edgetl.runtime.tfl import open_session


def read_tflite(file: Path, wanted: Wanted) -> Given:
    """Read a TFLite file that another tool compressed.

    Raises:
        CompressionError: LiteRT cannot load it, or it takes or gives something else than what is fed and read.
    """
    try:
        opened = open_session(Artifact("litert", file, "fp32"), threads=1, simulated=False)
    except BackendError as error:
        raise CompressionError(error.what, REMEDY) from error
    with closing(opened) as session:
        pairs = [
            ("takes", session.inputs, wanted.definition.tensors),
            ("gives", session.outputs, (wanted.spec,)),
        ]
        for does, own, specs in pairs:
            if not _same(own, specs):
                what = f"the artifact {does} {_shown(own)}, and {_shown(specs)} is what edgetl works with"
                remedy = (
                    "convert the float ONNX of edgetl export --precision fp32, keeping names and types, or give ONNX"
                )
                raise CompressionError(what, remedy)
        return Given(file.read_bytes(), read_precision(session), "")


def _same(own: tuple[TensorSpec, ...], wanted: tuple[TensorSpec, ...]) -> bool:
    pairs = {spec.name: spec for spec in own}
    return len(own) == len(wanted) and all(
        spec.name in pairs
        and pairs[spec.name].dtype == spec.dtype
        and pairs[spec.name].shape[1:] == tuple(size for size in spec.shape[1:])
        for spec in wanted
    )


def _shown(specs: tuple[TensorSpec, ...]) -> str:
    return " and ".join(map(str, specs)) or "nothing"
