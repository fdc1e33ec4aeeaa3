"""A torch model that edgetl can build again by its name, as it is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.core.run import WEIGHTS
from edgetl.core.tensors import Arrays
from edgetl.inputs.base import Input
from edgetl.tasks import Task
from edgetl.transfer.checkpoint import write_weights
from edgetl.transfer.model import network_for
from edgetl.workflow.adoption.network import Network, Values


def from_module(body: nn.Module, definition: Input, task: Task, classes: Sequence[str]) -> Network:
    """The model as every run of edgetl has it; nothing of it is changed."""
    network = network_for(task, classes, body, definition)
    network.eval().to(memory_format=torch.channels_last)

    def plainly(call: Callable[[], Tensor]) -> Values:
        with torch.inference_mode():
            return np.asarray(call().numpy(), np.float64)

    def answer(feeds: Arrays) -> Values:
        return plainly(lambda: network.fed(feeds, torch.device("cpu")))

    def prepared(planes: npt.NDArray[np.float32]) -> Values:
        return plainly(lambda: body(torch.from_numpy(planes)).float())

    def write(folder: Path) -> None:
        write_weights(folder / WEIGHTS, body.state_dict())

    return Network(network.output, answer, prepared, lambda values: values, write, (), {})
