"""What is held still beside a model in training: the start, or a teacher that sees what the model sees."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgetl.base.errors import RunError
from edgetl.core.bundle import Artifact
from edgetl.core.run import Run
from edgetl.inputs import Text, input_of
from edgetl.inputs.base import Input
from edgetl.inputs.image import CHANNELS, Preprocess
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session
from edgetl.transfer.model import Deployable, load_model
from edgetl.transfer.tasks import Scale

#: Shares of red, green and blue in grey (ITU-R 601-2, as Pillow's).
_LUMA = (0.299, 0.587, 0.114)


class Teacher(nn.Module):
    """A finished run's model, which sees a student's inputs and answers in the student's classes and scale.

    Args:
        run: of edgetl's own, or adopted.
        student: the student's input definition.
        classes: the student's, in the order of its outputs.
        scale: from the student's outputs in training to the labels' unit.

    Raises:
        RunError: other classes, or inputs that cannot be made of the student's.
    """

    def __init__(self, run: Run, student: Input, classes: Sequence[str], scale: Scale) -> None:
        super().__init__()
        if sorted(run.classes) != sorted(classes):
            apart = sorted(set(run.classes) ^ set(classes))
            raise RunError(f"the teacher {run.path} has other classes ('{apart[0]}')", "give one of the same classes")
        theirs = input_of(run)
        self.view = _view(run, student, theirs)
        self.network = load_model(run) if run.network is None else OnnxNetwork(run.network, theirs)
        self.order = [run.classes.index(name) for name in classes]
        self.scale = scale

    def forward(self, *inputs: Tensor) -> Tensor:
        """From the student's inputs to outputs like the student's, float32 (n, width)."""
        outputs: Tensor = self.network(*self.view(*inputs)).float()
        if self.order:
            outputs = outputs[:, self.order]
        return self.scale.standardised(outputs)


class OnnxNetwork(nn.Module):
    """An adopted network, in ONNX Runtime on the CPU wherever the tensors are."""

    def __init__(self, file: Path, definition: Input) -> None:
        super().__init__()
        self.names = [spec.name for spec in definition.tensors]
        self.session = open_session(Artifact("onnxruntime", file, "fp32"), threads=torch.get_num_threads())

    def forward(self, *inputs: Tensor) -> Tensor:
        """The one output of a batch."""
        feeds = {name: values.cpu().numpy() for name, values in zip(self.names, inputs, strict=True)}
        (found,) = infer(self.session, feeds).values()
        return torch.from_numpy(np.ascontiguousarray(found)).to(inputs[0].device)


class AsTheyAre(nn.Module):
    """Inputs that both take."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Unchanged."""
        return inputs


class Pictures(nn.Module):
    """A student's pictures, uint8 (n, height, width, channels), in a teacher's size and order of channels.

    The teacher sees what the student sees: its own resize and crop, which start from the file, have no say.
    """

    def __init__(self, student: Preprocess, teacher: Preprocess) -> None:
        super().__init__()
        self.size = (teacher.height, teacher.width)
        self.ours, self.theirs = student.channels, teacher.channels

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """uint8 (n, height, width, channels) of the teacher."""
        x = image.permute(0, 3, 1, 2).float()
        if self.ours != self.theirs:
            x = self._recoloured(x)
        if tuple(x.shape[2:]) != self.size:
            x = functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        return (x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous(),)

    def _recoloured(self, x: Tensor) -> Tensor:
        if self.ours == "L":
            return x.expand(-1, CHANNELS[self.theirs], -1, -1)
        rgb = x.flip(1) if self.ours == "BGR" else x
        if self.theirs == "L":
            return (rgb * torch.tensor(_LUMA, device=x.device)[:, None, None]).sum(1, keepdim=True)
        return rgb.flip(1) if self.theirs == "BGR" else rgb


def _view(run: Run, student: Input, teacher: Input) -> nn.Module:
    if isinstance(student, Preprocess) and isinstance(teacher, Preprocess):
        return Pictures(student, teacher)
    if isinstance(teacher, Text) and teacher.digest != student.digest:
        what = f"the teacher {run.path} reads texts by another tokenizer or length"
        raise RunError(what, "give one with the student's tokenizer")
    if teacher.tensors != student.tensors:
        shown = ", ".join(map(str, teacher.tensors))
        raise RunError(f"the teacher {run.path} takes {shown}", "give one of the student's inputs")
    return AsTheyAre()


def frozen(module: nn.Module) -> nn.Module:
    """The module, in evaluation mode, without gradients."""
    return module.eval().requires_grad_(False)


def held_start(network: Deployable) -> nn.Module:
    """A model as training starts, to be compared with while it changes."""
    return frozen(copy.deepcopy(network))
