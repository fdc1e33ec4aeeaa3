"""The model as it is deployed: from a uint8 image batch to float32 logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.base.errors import RunError
from edgetl.base.progress import Progress, silent
from edgetl.core.data import Dataset
from edgetl.core.run import BASELINE, Run
from edgetl.inputs import preprocess_of
from edgetl.inputs.image import Preprocess
from edgetl.transfer.images import ImageStore
from edgetl.transfer.scores import Scores, score
from edgetl.transfer.weights import build, read_tensors

EVAL_BATCH = 64


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

    def forward(self, image: Tensor) -> Tensor:
        """Cast, transpose, normalise."""
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        if self.channels is None:
            return x * self.scale - self.shift
        return self.channels(x)


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
    """A backbone with its normalisation: what is trained, exported and certified.

    ``forward`` takes ``image``, uint8, shape (n, height, width, 3), as :meth:`Preprocess.apply` makes it, and returns
    float32 logits, shape (n, classes).

    Args:
        backbone: from normalised float images to logits; its global average pooling is replaced in place by a plain
            mean, which has no parameters and the same outcome.
        preprocess: whose mean and std are applied.
    """

    def __init__(self, backbone: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.normalise = Normalise(preprocess)
        self.backbone = plain_pooling(backbone)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.backbone(self.normalise(image))
        return logits.float()


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
    backbone = build(run.backbone, len(run.classes), weights="none", preprocess=preprocess_of(run))
    try:
        backbone.load_state_dict(read_tensors(file))
    except RuntimeError as error:
        raise RunError(f"{file} does not fit the backbone '{run.backbone}'", "train the run again") from error
    model = Deployable(backbone, preprocess_of(run))
    model.eval().to(memory_format=torch.channels_last)
    return model


def val_scores(
    model: Deployable, dataset: Dataset, device: torch.device, task: str = "validating", progress: Progress = silent
) -> Scores:
    """Score a model, in evaluation mode and on ``device``, in float32 on the images of the val split."""
    return score(val_outputs(model, dataset, device, task, progress)["logits"], dataset.labels("val"))


def val_outputs(
    model: Deployable, dataset: Dataset, device: torch.device, task: str = "validating", progress: Progress = silent
) -> dict[str, npt.NDArray[np.float32]]:
    """What a model, in evaluation mode and on ``device``, answers in float32 to the images of the val split, in order.

    Returns:
        ``logits``, float32, shape (n, classes).
    """
    store = ImageStore(dataset.paths("val"), model.preprocess)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for batch in store.batches(EVAL_BATCH):
            parts.append(model(torch.from_numpy(batch).to(device)).cpu())
            progress(task, sum(map(len, parts)), len(store))
    return {"logits": torch.cat(parts).numpy()}


def measured(run: Run, progress: Progress = silent) -> tuple[float, float, int]:
    """Does the run's model still do what its training recorded?

    Returns:
        val accuracy as recorded, as measured now on the CPU, and the number of images: on the machine that trained
        the two are equal, elsewhere they may differ by an image whose two best logits almost tie.

    Raises:
        RunError: the weights do not fit the run's backbone.
        DataError: an image cannot be read.
    """
    found = val_scores(load_model(run), run.dataset, torch.device("cpu"), "validating the trained model", progress)
    return float(run.metrics["val"]["accuracy"]), found.accuracy, found.n
