"""From torch to ONNX, with the preprocessing inside the graph, and the proof that nothing changed on the way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.parallel import CORES, Given, Made, in_order
from edgetl.compress import graph
from edgetl.compress.batches import batched, fed
from edgetl.compress.quiet import quiet
from edgetl.core.tensors import Arrays, TensorSpec, count, joined, rows
from edgetl.inputs.base import Input
from edgetl.runtime.ort import set_arithmetic

#: Outputs of a network, unless its task says otherwise.
OUTPUTS = ("logits",)
#: What the dynamo exporter writes and every runtime of the targets reads.
OPSETS = range(18, 24)
#: Largest difference between the exported graph and torch, as a share of the range of an output's values.
PARITY = 1e-3
#: Samples that are run at once where a graph takes any number, and the size of an open axis while it is traced.
_STEP, _OPEN = 8, 8
#: Share of samples, 0 to 1, on which the outputs of two models give the same answer.
Agreement = Callable[[Arrays, Arrays], float]


@dataclass(frozen=True)
class Parity:
    """How closely an exported graph follows the torch model.

    Attributes:
        max_abs: largest absolute difference in the output that differs most for its range.
        logit_range: highest minus lowest value of that output of the torch model.
        agreement: share of samples with the same answer; None where outputs have no answer to compare.
        n: samples compared.
    """

    max_abs: float
    logit_range: float
    agreement: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def export_onnx(
    model: nn.Module,
    source: Input,
    out: Path,
    *,
    outputs: Sequence[str] = OUTPUTS,
    batch: int | None = None,
    opset: int = 18,
) -> Path:
    """Export a model that takes the arrays of an input and gives named outputs.

    Two exports of one model are byte for byte the same; the file names no path of this machine. Axes that the input
    leaves open stay open; open axes at the same position are of one size in all inputs.

    Args:
        model: in evaluation mode; called with a tensor for each of the input's arrays, in their order; gives a tensor
            (n, …), or as many as there are outputs. Its first operation on an image (uint8) casts it.
        source: names, types and shapes of the network's inputs.
        out: the file to write, one ``.onnx`` without external data.
        outputs: their names, in the model's order.
        batch: a fixed batch size, or None for any.
        opset: ONNX operator set, one of :data:`OPSETS`.

    Raises:
        CompressionError: the model cannot be exported as asked; the message says why in one line.
    """
    if opset not in OPSETS:
        raise CompressionError(f"opset {opset} is not supported", f"use {OPSETS[0]} to {OPSETS[-1]}")
    if batch is not None and batch < 1:
        raise CompressionError(f"a batch of {batch} is impossible", "use 1 or more, or None for any")
    _refuse_training(model)
    exported = _traced(model, source.tensors, outputs, batch, opset)
    graph.canonicalise(exported)
    _check_structure(exported, source.tensors, outputs, opset)
    return graph.save(exported, out)


def _refuse_training(model: nn.Module) -> None:
    """One module in training mode is enough: a batch norm would take its statistics from whatever batch comes."""
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise CompressionError(
            f"{training[0]}{more} in the model is in training mode", "call model.eval() before exporting"
        )


def _traced(
    model: nn.Module, inputs: Sequence[TensorSpec], outputs: Sequence[str], batch: int | None, opset: int
) -> Any:
    traceable = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    # An activation in place is taken apart, and its limits compared with symbolic sizes: a third of the time.
    for module in traceable.modules():
        if getattr(module, "inplace", None) is True:
            module.inplace = False
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                traceable,
                tuple(_example(spec, batch) for spec in inputs),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name for spec in inputs],
                output_names=list(outputs),
                dynamic_shapes=_by_argument(traceable, [_open_axes(spec, batch) for spec in inputs]),
                external_data=False,
                verbose=False,
            )
            onnx = require("onnx", "exporting to ONNX")
            exported = onnx.ModelProto()
            exported.CopyFrom(program.model_proto)
            return onnx.shape_inference.infer_shapes(exported, check_type=True, strict_mode=True)
    except Exception as error:  # the exporter raises many kinds, and none of them is the user's to handle
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(
            f"{type(model).__name__} cannot be exported to ONNX ({reason[0]})", "use a backbone from: edgetl backbones"
        ) from error


def _example(spec: TensorSpec, batch: int | None) -> Tensor:
    # Exporting with a batch of 1 would bake that 1 in as a constant.
    shape = [batch or 2, *(size or _OPEN for size in spec.shape[1:])]
    kind = getattr(torch, spec.dtype)
    if spec.dtype == "uint8" and len(shape) == 4:
        # Where activations lie channels-last, torch traces a pooling as a gather by strides. So everything is
        # contiguous here: the weights, and the example too once the model has permuted it.
        n, height, width, channels = shape
        return torch.zeros(n, channels, height, width, dtype=kind).permute(0, 2, 3, 1)
    # Integers count or choose: 1 is a token that there is, and a mask that leaves something to see.
    return torch.zeros(shape, dtype=kind) if kind.is_floating_point else torch.ones(shape, dtype=kind)


def _by_argument(model: nn.Module, shapes: Sequence[dict[int, Any]]) -> tuple[Any, ...]:
    """One for each argument of the model; ``*inputs`` is one argument."""
    several = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(model.forward).parameters.values())
    return (tuple(shapes),) if several else tuple(shapes)


def _open_axes(spec: TensorSpec, batch: int | None) -> dict[int, Any]:
    axes: dict[int, Any] = {} if batch else {0: torch.export.Dim("batch")}
    # A name alone leaves limits to the model: a transformer has no positions beyond its longest text.
    return axes | {axis: "length" if axis == 1 else f"size_{axis}" for axis in _open(spec)}


def _open(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if axis and size is None]


def _check_structure(model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[str], opset: int) -> None:
    require("onnx", "exporting to ONNX").checker.check_model(model, full_check=True)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise CompressionError(f"the exporter wrote opset {versions.get('')} instead of {opset}", "use opset 18")
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    wanted = [spec.name for spec in inputs], list(outputs)
    if names != wanted:
        raise CompressionError(f"the model has inputs and outputs {names}", f"it needs {wanted}")
    for value, spec in zip(model.graph.input, inputs, strict=True):
        sizes = value.type.tensor_type.shape.dim
        if fixed := [axis for axis in _open(spec) if sizes[axis].HasField("dim_value")]:
            raise CompressionError(
                f"the exporter fixed axis {fixed[0]} of '{spec.name}'", "let the model take any size there"
            )
        # TensorRT takes a uint8 input only where a Cast reads it.
        readers = {node.op_type for node in model.graph.node if spec.name in node.input} - {"Shape"}
        if spec.dtype == "uint8" and readers != {"Cast"}:
            found = ", ".join(sorted(readers)) or "nothing"
            raise CompressionError(
                f"the {spec.name} is read by {found}, not by a Cast", "cast it to float before anything else"
            )


def run_onnx(path: Path, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Outputs (n, …) of an ONNX file for its inputs (n, …), by name, by ONNX Runtime, at the file's batch size."""
    runtime = require("onnxruntime", "checking the exported model")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    set_arithmetic(options)
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    parts = []
    for part, size in batched(feeds, session.get_inputs()[0].shape[0], _STEP):
        values = session.run(names, fed(part, session))
        parts.append({name: array[:size] for name, array in zip(names, values, strict=True)})
    return joined(parts)


def answered(answer: Callable[[Given], Made], batches: Iterable[Given]) -> Iterator[Made]:
    """What torch answers to batches, in order, each in one thread, as many at once as there are cores.

    Torch's own threads meet after each layer, and spin until the last one comes: on two cores that others worked on,
    too, EfficientNet-Lite0 took 0.2 s for each of 8 photographs in one thread, and 0.6 s in two.
    """

    def alone(batch: Given) -> Made:
        with torch.inference_mode():
            return answer(batch)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from in_order([alone] * CORES, batches)
    finally:
        torch.set_num_threads(before)


def run_torch(model: nn.Module, feeds: Arrays, outputs: Sequence[str] = OUTPUTS) -> dict[str, npt.NDArray[Any]]:
    """Outputs (n, …) of a torch model, by name, in evaluation mode on its own device, for inputs in its order."""
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))

    def answer(part: Arrays) -> dict[str, npt.NDArray[Any]]:
        found = model(*(torch.tensor(values, device=device) for values in part.values()))
        each = (found,) if isinstance(found, Tensor) else tuple(found)
        return {name: value.float().cpu().numpy() for name, value in zip(outputs, each, strict=True)}

    parts = (rows(feeds, slice(start, start + _STEP)) for start in range(0, count(feeds), _STEP))
    return joined(list(answered(answer, parts)))


def check_parity(
    path: Path, model: nn.Module, feeds: Arrays, *, outputs: Sequence[str] = OUTPUTS, agreement: Agreement | None = None
) -> Parity:
    """Compare an exported file, in ONNX Runtime, with the torch model it came from, at every output.

    Args:
        path: what :func:`export_onnx` wrote.
        model: the torch model, in evaluation mode.
        feeds: its inputs in its order, (n, …) each, of real samples.
        outputs: their names, in the model's order.
        agreement: of the task; None to compare the largest value of outputs (n, 2 or more).

    Raises:
        CompressionError: some value differs by more than :data:`PARITY` of its output's range.
    """
    if not count(feeds):
        raise CompressionError("there is no sample to compare the exported model on", "give at least one")
    expected, found = run_torch(model, feeds, outputs), run_onnx(path, feeds)
    differences = {name: float(np.abs(found[name] - expected[name]).max()) for name in outputs}
    spreads = {name: _spread(expected[name]) for name in outputs}
    # Written so that a NaN fails too.
    for name in outputs:
        if not differences[name] <= PARITY * spreads[name]:
            raise CompressionError(
                f"{path} differs from torch by {differences[name]:.3g} in {name} that span {spreads[name]:.3g}",
                "the backbone has an operation that ONNX renders differently; choose another backbone or opset",
            )
    worst = max(outputs, key=lambda name: differences[name] / max(spreads[name], 1e-30))
    same = agreement or _same_top
    return Parity(differences[worst], spreads[worst], same(expected, found), count(feeds))


def _spread(values: npt.NDArray[Any]) -> float:
    """Highest minus lowest value; their size where there is but one."""
    return float(np.ptp(values)) or float(np.abs(values).max())


def _same_top(one: Arrays, other: Arrays) -> float | None:
    tops = (name for name, values in one.items() if values.ndim == 2 and values.shape[1] > 1)
    name = next(tops, None)
    return None if name is None else float((one[name].argmax(1) == other[name].argmax(1)).mean())
