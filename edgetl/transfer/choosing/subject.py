"""A backbone with its pretrained weights, whose features are looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress
from edgetl.inputs import INPUTS, Preprocess
from edgetl.inputs.base import Input
from edgetl.tasks import find_task
from edgetl.transfer import backbones, definitions, features, weights
from edgetl.transfer.backbones import Backbone
from edgetl.transfer.classifier import head_of
from edgetl.transfer.model import Deployable, network_for
from edgetl.transfer.placement import place
from edgetl.transfer.stores import store_of
from edgetl.transfer.weights import WeightsSource

#: The head that features are looked at without has to be of some width.
_CLASSES = ("a", "b")


@dataclass(frozen=True)
class Subject:
    """A backbone as it would be trained, with a head of no meaning.

    Attributes:
        name: of the backbone.
        network: in evaluation mode.
        definition: how a file becomes its input.
        device: to compute on.
    """

    name: str
    network: Deployable
    definition: Input
    device: torch.device

    def features(self, files: Sequence[Path], told: str, progress: Progress) -> npt.NDArray[np.float32]:
        """What the head sees of each file, float32 (n, features).

        Raises:
            DataError: one cannot be read.
        """
        return features.compute(self.network, store_of(self.definition, list(files)), self.device, told, progress)

    @property
    def parameters(self) -> int:
        """Numbers in the backbone, without a head."""
        head = head_of(self.network.backbone)[1]
        return sum(int(v.numel()) for v in self.network.parameters()) - sum(int(v.numel()) for v in head.parameters())

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of convolutions and products for one sample; None of a text, whose length counts."""
        if not isinstance(self.definition, Preprocess):
            return None
        height, width, channels = self.definition.height, self.definition.width, len(self.definition.mean)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.network(torch.zeros(1, height, width, channels, dtype=torch.uint8, device=self.device))
        return int(counter.get_total_flops()) // 2


def subject(backbone: Backbone, source: WeightsSource, definition: Input, device: torch.device, seed: int) -> Subject:
    """A backbone filled from a located source.

    Raises:
        EdgetlError: the weights cannot be had, or do not fit.
    """
    torch.manual_seed(seed)
    body = weights.load(backbone, len(_CLASSES), source, definition)
    network = network_for(find_task(None), _CLASSES, body, definition)
    network.eval().to(device, memory_format=torch.channels_last)
    return Subject(backbone.name, network, definition, device)


def subject_for(kind: str, name: str | None, size: int | None, seed: int, accelerator: str) -> Subject:
    """A backbone for samples of a kind, whatever is to be learned; the one that finetune would take, by default.

    Raises:
        EdgetlError: it takes another kind, has learned nothing, or cannot be had.
    """
    backbone, noun = backbones.find(name or backbones.DEFAULTS[kind]), INPUTS[kind].noun
    if backbone.input != kind:
        raise EdgetlError(f"the backbone '{backbone.name}' takes no {noun}s", f"use {backbones.DEFAULTS[kind]}")
    if not backbone.pretrained:
        what = f"the backbone '{backbone.name}' starts from random weights, whose features tell nothing"
        raise EdgetlError(what, "name a pretrained one: --backbone NAME")
    definition = definitions.before_data(backbone, size)
    assert definition is not None, "only arrays define their own input"
    return subject(backbone, weights.locate(backbone, None), definition, place(accelerator, 1, "auto").device, seed)
