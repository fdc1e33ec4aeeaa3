"""Torch models: those that edgetl can build again by their names, and others, which become ONNX files first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.base.errors import CompressionError
from edgetl.compress.export import check_parity, export_onnx
from edgetl.compress.foreign import Foreign, read_foreign
from edgetl.compress.foreign.deployable import prepare
from edgetl.core.run import WEIGHTS
from edgetl.core.tensors import Arrays, rows
from edgetl.inputs import ArraySpec, Preprocess, Tensors
from edgetl.inputs.base import Input
from edgetl.tasks import Task
from edgetl.transfer.checkpoint import write_weights
from edgetl.transfer.model import head_width, network_for
from edgetl.workflow.adoption.network import Network, Values

#: What the output is called until it has the task's name.
OUTPUT = ("output",)


def from_module(body: nn.Module, definition: Input, task: Task, classes: Sequence[str]) -> Network:
    """The model as every run of edgetl has it; nothing of it is changed.

    Raises:
        CompressionError: it has not as many outputs as the task wants.
    """
    network = network_for(task, classes, body, definition)
    if network.width != head_width(task, classes):
        what = f"the model gives {network.width} values for a sample, and there are {head_width(task, classes)} classes"
        raise CompressionError(what, "name all classes in the order of the outputs: --classes FILE")
    network.eval().to(memory_format=torch.channels_last)

    def plainly(call: Callable[[], Tensor]) -> Values:
        with torch.inference_mode():
            return np.asarray(call().numpy(), np.float64)

    def answer(feeds: Arrays) -> Values:
        return plainly(
            lambda: network.fed({key: np.array(values) for key, values in feeds.items()}, torch.device("cpu"))
        )

    def prepared(planes: npt.NDArray[np.float32]) -> Values:
        return plainly(lambda: body(torch.from_numpy(planes)).float())

    def write(folder: Path) -> None:
        write_weights(folder / WEIGHTS, body.state_dict())

    return Network(network.output, answer, prepared, lambda values: values, write, (), {})


def exported(module: nn.Module, name: str, definition: Input, samples: Arrays) -> Foreign:
    """A model of any architecture as an ONNX file of somebody else's: from prepared inputs to its output.

    Args:
        module: in evaluation mode; takes a normalised image (n, channels, height, width), or a definition's arrays.
        name: of it, for messages.
        definition: how a sample becomes its input.
        samples: inputs (n, …), on which the file has to follow the model.

    Raises:
        CompressionError: it cannot be exported, or the file does not follow it.
    """
    source, feeds = definition, samples
    if isinstance(definition, Preprocess):
        (spec,) = definition.tensors
        height, width, channels = (size or 1 for size in spec.shape[1:])
        source = Tensors((ArraySpec("image", (channels, height, width)),))
        feeds = {"image": prepare(samples["image"], definition, "image", "float32 NCHW").astype(np.float32)}
    elif isinstance(definition, Tensors):
        source = Tensors(tuple(replace(array, mean=(), std=()) for array in definition.arrays))
        takes = {array.name: prepare(samples[array.name], definition, array.name, "") for array in definition.arrays}
        feeds = {key: values.astype(np.float32) for key, values in takes.items()}
    batch = None if _takes_two(module, feeds) else 1
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx(module, source, Path(folder) / "model.onnx", outputs=OUTPUT, batch=batch)
        check_parity(file, module, feeds if batch is None else rows(feeds, slice(batch)), outputs=OUTPUT)
        return replace(read_foreign(file), path=Path(name))


def _takes_two(module: nn.Module, feeds: Arrays) -> bool:
    """Whether a model takes several samples at once: a program of torch.export may have been made for one alone."""
    two = [torch.from_numpy(np.repeat(values[:1], 2, axis=0)) for values in feeds.values()]
    try:
        with torch.inference_mode():
            return len(module(*two)) == 2
    except Exception:  # whatever its guards or operators raise
        return False
