"""Reading an ONNX file that anybody may have made: what it names is judged before it is followed, nothing is run."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.names import below
from edgetl.base.wording import enumerated
from edgetl.compress.quiet import quiet
from edgetl.core.onnx_file import external_files

#: Bytes of a model with its external data: one protobuf file, which runtimes of devices open, holds no more.
MOST_BYTES = (2 << 30) - (1 << 20)
#: What every runtime of the targets reads, as :data:`edgetl.compress.export.OPSETS`, and what others are converted to.
OPSETS, OPSET = range(18, 24), 18
STANDARD = ("", "ai.onnx")
#: Operators of a model whose weights or activations are integers already.
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class Foreign:
    """A model of another tool in the operators that edgetl reads; it computes what its file does.

    Attributes:
        model: the ONNX model, functions inlined and data inside.
        path: of the file.
        changes: what was done to it, a clause each.
    """

    model: Any
    path: Path
    changes: tuple[str, ...] = ()


def read_foreign(path: Path) -> Foreign:
    """Read an ONNX file and convert it to an opset that the runtimes of the targets read.

    Raises:
        CompressionError: no ONNX model, too large, quantized already, with operators of nobody's standard, or of an
            opset that cannot be converted.
    """
    model = read_model(path, STANDARD)
    _refuse_quantized(model, path)
    version = opset_of(model)
    if version in OPSETS:
        return Foreign(model, path)
    return Foreign(_converted(model, version, path), path, (f"opset {version} converted to {OPSET}",))


def opset_of(model: Any) -> int:
    """The version of the standard operators."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 1)


def read_model(path: Path, domains: Collection[str]) -> Any:
    """Read an ONNX file: functions inlined, data inside, nothing else changed.

    Args:
        path: of the file.
        domains: that its operators may be of.

    Raises:
        CompressionError: no ONNX model, too large, or with operators of another domain.
    """
    onnx = require("onnx", "reading ONNX models")
    files_of(path)
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except OSError as error:
        raise CompressionError(f"cannot read {path} ({error.strerror or error})", "give a whole file") from error
    except Exception as error:  # protobuf's and the checker's errors have no common base
        raise CompressionError(f"{path} is no valid ONNX model ({_first_line(error)})", "export it again") from error
    _refuse_operators(model, path, domains)
    _without_default_inputs(model)
    return model


def files_of(path: Path) -> tuple[Path, ...]:
    """An ONNX file, and those with its external data, which onnx would follow while it reads.

    Raises:
        CompressionError: their names lead elsewhere, one is missing or no file, or they are too large.
    """
    check_sizes([path])
    try:
        files = (path, *(below(path.parent, name) for name in external_files(path)))
    except OSError as error:
        raise CompressionError(f"cannot read {path} ({error.strerror or error})", "give a whole ONNX file") from error
    except ValueError as error:
        raise CompressionError(f"{path} is no ONNX file that edgetl reads: {error}", "export it again") from error
    check_sizes(files)
    return files


def check_sizes(files: Sequence[Path]) -> None:
    """Refuse what is no file, and what takes more than a model may, before any of it is read.

    Raises:
        CompressionError: one is missing or no file, or they are too large.
    """
    try:
        found = [file.stat() for file in files]
    except OSError as error:
        where = error.filename or files[0]
        raise CompressionError(f"cannot read {where} ({error.strerror or error})", "give a whole model file") from error
    other = next((file for file, one in zip(files, found, strict=True) if not stat.S_ISREG(one.st_mode)), None)
    if other is not None:
        raise CompressionError(f"{other} is no file", "give a model file")
    size = sum(one.st_size for one in found)
    if size > MOST_BYTES:
        what = f"{files[0]} takes {size / 1e9:.1f} GB, more than the 2 GB of one ONNX file"
        raise CompressionError(what, "shrink it")


def _refuse_operators(model: Any, path: Path, domains: Collection[str]) -> None:
    nodes = _nodes(model.graph)
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in domains})
    if foreign:
        what = f"{path} has operators that are not of the ONNX standard ({enumerated(foreign)})"
        raise CompressionError(what, "export it in standard operators alone")


def _refuse_quantized(model: Any, path: Path) -> None:
    quantized = sorted({node.op_type for node in _nodes(model.graph) if node.op_type in _QUANTIZED})
    if quantized:
        what = f"{path} is quantized already ({enumerated(quantized)}): no float model to compare with"
        raise CompressionError(what, "adopt the float model it was made of")


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _without_default_inputs(model: Any) -> None:
    """Files of before 2019 list their weights among the inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 8)


def _converted(model: Any, version: int, path: Path) -> Any:
    converter = require("onnx.version_converter", "converting ONNX models")
    try:
        with quiet():
            return converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and worse, by operator
        what = f"{path} is of opset {version}, which cannot be converted to {OPSET} ({_first_line(error)})"
        raise CompressionError(what, f"export it with opset {OPSETS[0]} to {OPSETS[-1]}") from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
