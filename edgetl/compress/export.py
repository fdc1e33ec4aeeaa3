"""From torch to ONNX, with the preprocessing inside the graph, and the proof that nothing changed on the way."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.compress.quiet import quiet
from edgetl.inputs.image import Preprocess

INPUT, OUTPUT = "image", "logits"
#: What the dynamo exporter writes and every runtime of the targets reads.
OPSETS = range(18, 24)
#: Largest difference between the exported graph and torch, as a share of the logits' range.
PARITY = 1e-3


@dataclass(frozen=True)
class Parity:
    """How closely an exported graph follows the torch model.

    Attributes:
        max_abs: largest absolute difference of any logit.
        logit_range: highest minus lowest logit of the torch model.
        agreement: share of images with the same top class.
        n: images compared.
    """

    max_abs: float
    logit_range: float
    agreement: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def export_onnx(
    model: nn.Module, preprocess: Preprocess, out: Path, *, batch: int | None = None, opset: int = 18
) -> Path:
    """Export a model that takes uint8 NHWC images and gives logits.

    Two exports of one model are byte for byte the same; the file names no path of this machine.

    Args:
        model: in evaluation mode; uint8 (n, H, W, 3) → float (n, classes). Its first operation casts the image.
        preprocess: gives H and W.
        out: the file to write, one ``.onnx`` without external data.
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
    exported = _traced(model, preprocess, batch, opset)
    graph.canonicalise(exported)
    _check_structure(exported, opset)
    return graph.save(exported, out)


def _refuse_training(model: nn.Module) -> None:
    """One module in training mode is enough: a batch norm would take its statistics from whatever batch comes."""
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    if training:
        more = f" and {len(training) - 1} more" if len(training) > 1 else ""
        raise CompressionError(
            f"{training[0]}{more} in the model is in training mode", "call model.eval() before exporting"
        )


def _traced(model: nn.Module, preprocess: Preprocess, batch: int | None, opset: int) -> Any:
    # Exporting with a batch of 1 would bake that 1 in as a constant.
    planes = torch.zeros(batch or 2, len(preprocess.mean), preprocess.height, preprocess.width, dtype=torch.uint8)
    # Where activations lie channels-last, torch traces a pooling as a gather by strides. So everything is contiguous
    # here: the weights, and the example too once the model has permuted it.
    example = planes.permute(0, 2, 3, 1)
    traceable = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    shapes = None if batch else {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                traceable,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
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


def _check_structure(model: Any, opset: int) -> None:
    require("onnx", "exporting to ONNX").checker.check_model(model, full_check=True)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != opset:
        raise CompressionError(f"the exporter wrote opset {versions.get('')} instead of {opset}", "use opset 18")
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    if names != ([INPUT], [OUTPUT]):
        raise CompressionError(f"the model has inputs and outputs {names}", "it needs one image in, one array out")
    # TensorRT takes a uint8 input only where a Cast reads it.
    readers = {node.op_type for node in model.graph.node if INPUT in node.input} - {"Shape"}
    if readers != {"Cast"}:
        found = ", ".join(sorted(readers)) or "nothing"
        raise CompressionError(f"the image is read by {found}, not by a Cast", "cast it to float before anything else")


def run_onnx(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (n, classes) of an ONNX file for uint8 images (n, H, W, 3), by ONNX Runtime, at the file's batch size."""
    runtime = require("onnxruntime", "checking the exported model")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else 16
    rows = []
    for start in range(0, len(images), step):
        part = images[start : start + step]
        padding = step - len(part) if isinstance(batch, int) else 0
        whole = np.concatenate([part, np.repeat(part[-1:], padding, axis=0)]) if padding else part
        rows.append(session.run([OUTPUT], {INPUT: whole})[0][: len(part)])
    return np.concatenate(rows)


def check_parity(path: Path, model: nn.Module, images: npt.NDArray[np.uint8]) -> Parity:
    """Compare an exported file, in ONNX Runtime, with the torch model it came from.

    Args:
        path: what :func:`export_onnx` wrote.
        model: the torch model, in evaluation mode.
        images: uint8 (n, H, W, 3), real ones.

    Raises:
        CompressionError: some logit differs by more than :data:`PARITY` of the logits' range.
    """
    if not len(images):
        raise CompressionError("there is no image to compare the exported model on", "give at least one")
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    with torch.inference_mode():
        parts = [model(torch.tensor(images[i : i + 16], device=device)) for i in range(0, len(images), 16)]
    expected = torch.cat(parts).float().cpu().numpy()
    found = run_onnx(path, images)
    spread = float(np.ptp(expected))
    parity = Parity(
        max_abs=float(np.abs(found - expected).max()),
        logit_range=spread,
        agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        n=len(images),
    )
    # Written so that a NaN fails too.
    if not parity.max_abs <= PARITY * spread:
        raise CompressionError(
            f"{path} differs from torch by {parity.max_abs:.3g} in logits that span {spread:.3g}",
            "the backbone has an operation that ONNX renders differently; choose another backbone or opset",
        )
    return parity
