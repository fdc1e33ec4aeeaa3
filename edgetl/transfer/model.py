"""The model as it is deployed: from what the input definition gives to the float32 output that the task reads."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.base.errors import RunError
from edgetl.base.progress import Progress, silent
from edgetl.core.data import Dataset
from edgetl.core.run import BASELINE, Run
from edgetl.core.tensors import Arrays
from edgetl.inputs import Tensors, input_of
from edgetl.inputs.base import Input
from edgetl.inputs.image import Preprocess
from edgetl.tasks import Task, find_task
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import are_of_columns, of_tensors
from edgetl.transfer.samples import SampleStore
from edgetl.transfer.stores import store_of
from edgetl.transfer.weights import build, read_tensors
from edgetl.transfer.widths import take_widths

#: Samples that are evaluated at once, at most, and the values of them that a CPU's caches have activations for: 8
#: photographs at 224 pixels took EfficientNet-Lite0 26 ms each, and 64 took it 37 ms each.
EVAL_BATCH, EVAL_VALUES = 64, 8 * 224 * 224 * 3
#: Size of an axis that an input leaves open, where shapes alone count.
_OPEN = 8
#: Batches whose outputs stay on the device until the host waits for them.
HELD = 16


class Normalise(nn.Module):
    """uint8 images, shape (n, height, width, c), to normalised float32, shape (n, c, height, width).

    Cast, then transpose, then normalise: TensorRT takes uint8 only if the cast comes first. Equal channels are
    normalised by scalars, others by an inference BatchNorm: per-channel Sub and Div cost ONNX Runtime 2 ms of 8 for
    EfficientNet-Lite0, because its transpose optimiser moves them to the wide layout.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        mean, std = preprocess.mean, preprocess.std
        self.scale = 1 / (255 * std[0])
        self.shift = mean[0] / std[0]
        self.channels: nn.BatchNorm2d | None = None
        if len(set(mean)) > 1 or len(set(std)) > 1:
            self.channels = nn.BatchNorm2d(len(mean), affine=False, eps=0.0)
            self.channels.running_mean = 255 * torch.tensor(mean)
            self.channels.running_var = (255 * torch.tensor(std)) ** 2
        self.train(False)

    def train(self, mode: bool = True) -> Normalise:
        """Stay in inference mode: the statistics are the backbone's, not the data's."""
        super().train(False)
        return self

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Cast, transpose, normalise."""
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        return (x * self.scale - self.shift if self.channels is None else self.channels(x),)


class Standardise(nn.Module):
    """Arrays, float32 (n, …), less their mean and divided by their standard deviation, as their definition says."""

    def __init__(self, definition: Tensors) -> None:
        super().__init__()
        self.scaled = [spec.scaling is not None for spec in definition.arrays]
        for index, spec in enumerate(definition.arrays):
            if spec.scaling is not None:
                mean, std = map(torch.from_numpy, spec.scaling)
                self.register_buffer(f"mean{index}", mean)
                self.register_buffer(f"factor{index}", 1 / std)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each array, standardised."""
        return tuple(
            (x - getattr(self, f"mean{index}")) * getattr(self, f"factor{index}") if scaled else x
            for index, (x, scaled) in enumerate(zip(inputs, self.scaled, strict=True))
        )


def _normaliser(definition: Input) -> nn.Module | None:
    """What stands before the backbone in the graph; None for texts, whose token numbers are all that it takes."""
    if isinstance(definition, Preprocess):
        return Normalise(definition)
    return Standardise(definition) if isinstance(definition, Tensors) else None


class MeanPool(nn.Module):
    """Global average pooling as a plain mean, shape (n, c, h, w) to (n, c, 1, 1) or, flattened, (n, c).

    Equal to adaptive pooling to one pixel, which the exporter turns into shape arithmetic.
    """

    def __init__(self, flatten: bool) -> None:
        super().__init__()
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        """Average over height and width."""
        return x.mean((2, 3), keepdim=not self.flatten)


class Deployable(nn.Module):
    """A backbone behind its input definition: what is trained, exported and certified.

    ``forward`` takes the network's inputs in the order of :attr:`Input.tensors`, an image as uint8, shape
    (n, height, width, channels), for one, and returns one output, float32, shape (n, width of the head).

    Args:
        backbone: from prepared inputs (a normalised float image, token numbers and their mask, an array) to the output;
            its global average pooling is replaced in place by a plain mean, which has no parameters and the same
            outcome.
        definition: an image's mean and std are applied here; other inputs go to the backbone as they are.
        output: name of the output.
        shares: names and widths of several outputs, one for each of several tasks, that lie side by side in the
            backbone's; none where it is one.
    """

    def __init__(
        self, backbone: nn.Module, definition: Input, output: str = "logits", shares: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.definition = definition
        self.output = output
        self.shares = dict(shares or {})
        self.normalise = _normaliser(definition)
        self.backbone = plain_pooling(backbone)

    @property
    def width(self) -> int:
        """Of the output: how many numbers there are for a sample."""
        return sum(self.shares.values()) or int(head_of(self.backbone)[1].out_features)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output of a batch."""
        return _answered(self.normalise, self.backbone, inputs)

    def named(self, values: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Each output by its name, of what ``forward`` gives, (n, width)."""
        if not self.shares:
            return {self.output: values}
        ends = np.cumsum(list(self.shares.values()))
        return dict(zip(self.shares, np.split(values, ends[:-1], axis=1), strict=True))

    def fed(self, arrays: Arrays, device: torch.device) -> Tensor:
        """The output for named arrays, on ``device``, where the model must be."""
        output: Tensor = self(*(_moved(arrays[spec.name], device) for spec in self.definition.tensors))
        return output


def _answered(normalise: nn.Module | None, backbone: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    output: Tensor = backbone(*(normalise(*inputs) if normalise is not None else inputs))
    return output.float()


def _moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    # From page-locked memory a GPU copies while the host goes on.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def plain_pooling(model: nn.Module) -> nn.Module:
    """Replace every average pooling to one pixel by :class:`MeanPool`, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                # timm's pooling keeps pool and flatten as two members of one layer.
                flattens = name == "pool" and isinstance(getattr(parent, "flatten", None), nn.Flatten)
                setattr(parent, name, MeanPool(flatten=flattens))
                if flattens:
                    parent.flatten = nn.Identity()
    return model


def network_for(task: Task, classes: Sequence[str], body: nn.Module, definition: Input) -> Deployable:
    """A backbone whose head is as wide as the task's outputs together."""
    widths = _widths(task, classes)
    return Deployable(body, definition, next(iter(widths)), widths if task.parts else None)


def head_width(task: Task, classes: Sequence[str]) -> int:
    """How many numbers the head gives for a sample."""
    return sum(_widths(task, classes).values())


def _widths(task: Task, classes: Sequence[str]) -> dict[str, int]:
    return {spec.name: spec.shape[1] or 0 for spec in task.outputs(classes)}


def filled(name: str, outputs: int, tensors: Mapping[str, Tensor], definition: Input | None) -> tuple[nn.Module, bool]:
    """A backbone with all the tensors of a run, and whether its shape is one that they told: of several columns, or of
    layers narrower than the backbone's own.

    Raises:
        RuntimeError: they do not fit it.
    """

    several = are_of_columns(tensors)
    narrower = list[bool]()

    def column(width: int, own: Mapping[str, Tensor]) -> nn.Module:
        made = build(name, width, weights="none", definition=definition)
        narrower.append(take_widths(made, own))
        return made

    body = of_tensors(tensors, outputs, column) if several else column(outputs, tensors)
    body.load_state_dict(tensors)
    return body, several or any(narrower)


def load_model(run: Run) -> Deployable:
    """The finalized model of a run, in evaluation mode, float32, on the CPU.

    Raises:
        RunError: the weights do not fit the run's backbone.
    """
    return _filled(run, run.weights)


def load_baseline(run: Run) -> Deployable:
    """The model that a run's transfer is measured against, as :func:`load_model` gives the run's own.

    Raises:
        RunError: none was trained, or its weights do not fit the run's backbone.
    """
    if run.baseline is None:
        raise RunError(
            f"{run.path} has no baseline", "give its finetune command again with --baseline scratch or --baseline probe"
        )
    return _filled(run, run.path / BASELINE)


def _filled(run: Run, file: Path) -> Deployable:
    task, definition = find_task(run.task), input_of(run)
    tensors = read_tensors(file)
    try:
        body, told = filled(run.backbone, head_width(task, run.classes), tensors, definition)
        model = network_for(task, run.classes, body, definition)
        if told:
            _check_widths(model)
    except RuntimeError as error:
        raise RunError(f"{file} does not fit the backbone '{run.backbone}'", "train the run again") from error
    model.eval().to(memory_format=torch.channels_last)
    return model


def _check_widths(model: Deployable) -> None:
    """Feed the shapes of a sample to layers whose shapes a file told; nothing is computed.

    Raises:
        RuntimeError: they do not fit each other.
    """
    sizes = [(spec.shape[1:], getattr(torch, spec.dtype)) for spec in model.definition.tensors]
    with torch.device("meta"), torch.inference_mode():
        copy.deepcopy(model).to("meta").eval()(*(torch.empty([1, *(n or _OPEN for n in s)], dtype=d) for s, d in sizes))


def outputs(
    model: Deployable, store: SampleStore, device: torch.device, step: str = "", progress: Progress = silent
) -> dict[str, npt.NDArray[np.float32]]:
    """What a model, in evaluation mode and on ``device``, answers in float32 to samples, in their order.

    Returns:
        the network's outputs by name, float32, their widths together that of the head.
    """
    found, done = np.empty((len(store), model.width), np.float32), 0

    def fed() -> Iterator[tuple[Sequence[int], Tensor]]:
        nonlocal done
        for indices, batch in store.batches(eval_batch(model.definition, device)):
            yield indices, model.fed(batch, device)
            done += len(indices)
            progress(step, done, len(store))

    with torch.inference_mode():
        for indices, values in gathered(fed()):
            found[indices] = values.numpy()
    return model.named(found)


def eval_batch(definition: Input, device: torch.device) -> int:
    """How many samples are best evaluated at once on a device."""
    values = sum(math.prod(size or 1 for size in spec.shape[1:]) for spec in definition.tensors)
    return EVAL_BATCH if device.type != "cpu" else min(max(EVAL_VALUES // max(values, 1), 1), EVAL_BATCH)


def gathered(batches: Iterable[tuple[Sequence[int], Tensor]]) -> Iterator[tuple[list[int], Tensor]]:
    """Indices and outputs of :data:`HELD` batches at a time, on the CPU: a GPU is waited for once for all of them."""
    order, held = list[int](), list[Tensor]()
    for indices, values in batches:
        order += indices
        held.append(values)
        if len(held) == HELD:
            yield order, torch.cat(held).cpu()
            order, held = [], []
    if held:
        yield order, torch.cat(held).cpu()


def val_outputs(
    model: Deployable, dataset: Dataset, device: torch.device, step: str = "validating", progress: Progress = silent
) -> dict[str, npt.NDArray[np.float32]]:
    """As :func:`outputs`, of the split that its metric is told of: val."""
    return outputs(model, store_of(model.definition, dataset.paths(dataset.measured)), device, step, progress)
