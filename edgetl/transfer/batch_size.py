"""The batch size found by trial: real steps of the real network on the device of training, before training starts.

The size is doubled as long as a step fits into memory and samples go through clearly faster. What is timed is the step
on samples that lie ready, the same few again and again; where they differ in length, the longest. lightning's
``Tuner.scale_batch_size`` looks for memory alone, and belongs to its Trainer.

The learning rate stays what it is. The rules that raise it with the size (linearly for SGD, Goyal et al. 2017; with its
square root for Adam, Malladi et al. 2022) hold for long trainings, where what they keep alike is the noise of many
steps. A transfer is short, and a larger batch mostly leaves it fewer steps. EfficientNet-Lite0 at 32 pixels on 360
digits for 6 epochs (last one kept, two seeds), from a linear start of 84.6 and 85.4 %: 91.7 and 91.9 % at size 16, 89.2
and 87.9 at 32, 86.0 and 86.0 at 64, 77.5 and 79.1 at 128; with the rate doubled, as the square root says, 66.3 and 67.5
at 128. So an epoch keeps its steps (:data:`EPOCH`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgetl.base.errors import OutOfMemoryError
from edgetl.base.memory import available, shortage
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import read_json, write_json
from edgetl.base.wording import count, enumerated, number
from edgetl.core.data import Dataset
from edgetl.inputs.image import Preprocess
from edgetl.transfer import train
from edgetl.transfer.ahead import shortened
from edgetl.transfer.assembly import Job, Setup, assemble, enter_train_mode
from edgetl.transfer.feed import Step, feed_of
from edgetl.transfer.placement import Placement
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import StreamBatch

RECORD = "batch-size.json"
#: For each device: where the search begins, the largest size that it tries, and the smallest that it falls back to.
#: Beyond 512 a batch begins to cost accuracy on new samples (Keskar et al. 2017).
BEGINS, MOST, LEAST = 16, 512, 2
#: Steps that an epoch keeps at least: of the sizes measured above 16 and 32 leave 22 and 11, 64 and 128 only 6 and 3.
EPOCH = 8
#: How much faster samples must go through in twice as large a batch, as a share.
GROWTH = 0.05
#: Samples that are tried, again and again.
FEW = 8
#: Steps of a size that are timed at least, and for how many seconds; the fastest counts, as others were disturbed.
STEPS, SECONDS = 3, 0.3
#: Bytes that a step takes at its height, for each byte that the forward pass keeps for the backward one: 1.01 of
#: EfficientNet-Lite0, 1.17 of MobileNetV3 small, 1.36 of ResNet-18 (32 images of 128 pixels, torch 2.15, CPU).
HEIGHT = 1.5
#: An epoch in which no gradual unfreezing holds anything back.
_EVERY_LAYER = 1 << 30


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        size: samples in a step of one device.
        rates: samples a second by the sizes that were tried.
        ended: why no larger one was taken.
    """

    size: int
    rates: Mapping[int, float]
    ended: str

    def to_json(self, devices: int = 1) -> dict[str, Any]:
        """For the run's lineage."""
        gave = [f"{count(size)} gave {number(rate)}" for size, rate in sorted(self.rates.items())]
        gave[0] += " samples/s"
        each = f" on each of {devices} devices" if devices > 1 else ""
        return {
            "size": self.size * devices,
            "samples_per_second": {str(size): round(rate, 1) for size, rate in self.rates.items()},
            "reason": f"batch size {count(self.size)}{each}: {enumerated(gave, len(gave))}; {self.ended}",
        }


def sized(placement: Placement, job: Job, progress: Progress) -> Job:
    """The job with a batch size: the one that was found before an interruption, or one that is found now.

    Args:
        placement: of the training; the trial is on one of its devices.
        job: whose start is written; its checkpoint folder gets the number and the reason.
        progress: told of each size.

    Raises:
        OutOfMemoryError: the smallest batch does not fit.
    """
    told = recorded(job.checkpoints)
    if told is None:
        told = _searched(placement, job, progress).to_json(placement.devices)
        _let_go(placement.device)
        write_json(job.checkpoints / RECORD, told)
    return replace(job, settings=replace(job.settings, batch_size=int(told["size"])))


def recorded(checkpoints: Path) -> dict[str, Any] | None:
    """What a search came to, of a run that is not finished; None where there was none."""
    return read_json(checkpoints / RECORD) if (checkpoints / RECORD).is_file() else None


def search(trial: Callable[[int], float], most: int) -> Found:
    """The largest power of two that pays.

    Args:
        trial: a size → samples a second.
        most: the largest size that leaves an epoch its steps.

    Raises:
        OutOfMemoryError: the smallest batch does not fit.
    """
    size, rates, ended = _power(min(BEGINS, most)), dict[int, float](), ""
    while not rates:
        try:
            rates[size] = trial(size)
        except OutOfMemoryError:
            if size <= LEAST:
                raise
            ended, size = f"{count(size)} does not fit into memory", size // 2
    while not ended:
        twice = 2 * size
        if twice > min(most, MOST):
            what = "is more than is tried" if most >= MOST else f"would leave an epoch fewer than {EPOCH} steps"
            ended = f"{count(twice)} {what}"
            break
        try:
            rates[twice] = trial(twice)
        except OutOfMemoryError:
            ended = f"{count(twice)} does not fit into memory"
            break
        if rates[twice] < (1 + GROWTH) * rates[size]:
            ended = f"{count(twice)} is not {GROWTH:.0%} faster".replace("%", " %")
        else:
            size = twice
    return Found(size, rates, ended)


def _power(most: int) -> int:
    """The largest power of two up to a number, and 2 at least."""
    return max(1 << (max(most, 1).bit_length() - 1), LEAST)


def _searched(placement: Placement, job: Job, progress: Progress) -> Found:
    fabric = replace(placement, devices=1).fabric()
    fabric.launch()
    setup = assemble(fabric, job)
    few = replace(job, dataset=_few(job), workers=0)
    setup, ahead = shortened(setup, few, silent)
    enter_train_mode(setup)
    feed = feed_of(setup, few, silent, ahead.get("train"))
    (step,) = feed.epoch([np.arange(len(few.dataset.split("train")))], 0, 0)
    share = available() if fabric.device.type == "cpu" else None
    trial = _Trial(setup, step, None if share is None else share // placement.devices)
    most = len(job.dataset.split("train")) // (EPOCH * placement.devices)

    def told(size: int) -> float:
        progress("trying batch sizes", size.bit_length() - 1, MOST.bit_length() - 1, f"{count(size)} samples a step")
        return trial(size)

    return search(told, most)


def _few(job: Job) -> Dataset:
    """A few samples to train on, the longest where they differ in length, and one to validate with."""
    dataset = job.dataset
    train_samples, lengths = dataset.split("train"), None
    if not isinstance(job.definition, Preprocess):
        lengths = store_of(job.definition, dataset.paths("train")).lengths
    order = range(len(train_samples)) if lengths is None else np.argsort(-lengths, kind="stable").tolist()
    chosen = [train_samples[index] for index in order[:FEW]]
    return replace(dataset, samples=(*chosen, *dataset.split("val")[:1]))


@dataclass
class _Trial:
    """Steps of one device.

    Attributes:
        setup: of the training; its weights stay what they are.
        step: a few samples on the device, with those of streams beside them.
        room: bytes that a step may take, where that can be told before it is made.
        each: bytes that it takes for a sample; 0 until it is known.
    """

    setup: Setup
    step: Step
    room: int | None
    each: float = 0.0

    def __call__(self, size: int) -> float:
        """Samples a second.

        Raises:
            OutOfMemoryError: a step of so many does not fit, or would not.
        """
        device = self.setup.fabric.device
        self.setup.optimizer.zero_grad()
        _let_go(device)
        try:
            if self.room is not None:
                self.each = self.each or self._each()
                needed = int(self.each * size)
                if needed > self.room:
                    raise OutOfMemoryError(f"a step takes {needed >> 20} MiB", "close what else runs")
            self._made(size)
            return size / self._fastest(size)
        except Exception as error:
            short = error if isinstance(error, OutOfMemoryError) else shortage(error)
            if short is None:
                raise
            told = short.what
        # Out here nothing leads to the traceback, which holds the tensors that were too many.
        raise OutOfMemoryError(told, "choose a smaller --image-size or another --backbone")

    def _fastest(self, size: int) -> float:
        seconds, began = list[float](), time.monotonic()
        while len(seconds) < STEPS or time.monotonic() - began < SECONDS:
            before = time.perf_counter()
            self._made(size)
            seconds.append(time.perf_counter() - before)
        return min(seconds)

    def _made(self, size: int) -> None:
        """One step of so many samples, done when this returns."""
        setup, (inputs, targets, streams) = self.setup, self.step
        train.reseed(setup.seed, 0, 0, 0)
        beside = {
            name: StreamBatch(
                _tiled(each.inputs, size), None if each.targets is None else _repeated(each.targets, size)
            )
            for name, each in streams.items()
        }
        train.accumulate(setup, _tiled(inputs, size), _repeated(targets, size), size, 0.0, beside)
        # At rate 0 all is computed and nothing moves.
        train.update(setup, 0.0, _EVERY_LAYER)
        if setup.fabric.device.type == "cuda":
            torch.cuda.synchronize(setup.fabric.device)

    def _each(self) -> float:
        """Bytes at the height of a step for each sample, by what the forward pass of a few keeps."""
        weights = {value.untyped_storage().data_ptr() for value in self.setup.model.parameters()}
        kept, size = dict[int, int](), len(self.step[1])

        def keep(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            self._made(size)
        return HEIGHT * sum(held for place, held in kept.items() if place not in weights) / size


def _tiled(arrays: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    return {name: _repeated(values, size) for name, values in arrays.items()}


def _repeated(values: Tensor, size: int) -> Tensor:
    times = -(-size // len(values))
    return values.repeat(times, *(1 for _ in values.shape[1:]))[:size]


def _let_go(device: torch.device) -> None:
    """Give back what no tensor holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
