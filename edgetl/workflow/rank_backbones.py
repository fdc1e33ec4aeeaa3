"""Which backbone suits a data set, and how long each takes on a target: measured, where this machine executes it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends import BACKENDS
from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.compress.export import export_onnx
from edgetl.compress.graph import kind_of, load
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import family, serving
from edgetl.core.bench import Estimate
from edgetl.core.bundle import Artifact, Precision
from edgetl.core.targets import Target, find_target
from edgetl.core.tensors import Arrays
from edgetl.inputs import Preprocess, Text
from edgetl.inputs.base import Input
from edgetl.runtime.intervals import percentile
from edgetl.runtime.measure import interleave
from edgetl.runtime.sessions import open_session
from edgetl.transfer.choosing import ranking
from edgetl.transfer.choosing.ranking import Ranking
from edgetl.transfer.choosing.subject import Subject
from edgetl.workflow.requests import precision_for

#: Seconds of timing for each backbone, which take turns; made-up samples, whose values do not count.
SECONDS, SAMPLES = 3.0, 8
_SENTENCE = "Good or bad, it is a very long way home, and nobody who has gone it says otherwise."


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one sample on a target, one thread.

    Attributes:
        precision: that it was timed in.
        p50: the median.
    """

    precision: str
    p50: Estimate


@dataclass(frozen=True)
class Choice:
    """Ranked backbones, and how fast they are where that was asked.

    Attributes:
        ranking: by what their features are worth.
        target: its name; "" where none was named.
        latencies: by backbone.
        untimed: why there are none on that target; "".
    """

    ranking: Ranking
    target: str = ""
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    untimed: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``edgetl rank --json`` has it."""
        rows = [{**row.to_json(), "latency": self._latency(row.backbone)} for row in self.ranking.rows]
        return {
            "task": self.ranking.task.name,
            "samples": self.ranking.samples,
            "classes": dict(self.ranking.classes),
            "target": self.target or None,
            "untimed": self.untimed,
            "backbones": rows,
            "left_out": dict(self.ranking.left_out),
        }

    def _latency(self, backbone: str) -> dict[str, Any] | None:
        found = self.latencies.get(backbone)
        if found is None:
            return None
        p50 = found.p50
        return {"precision": found.precision, "p50": p50.value, "ci_low": p50.ci_low, "ci_high": p50.ci_high}


def rank(
    data: str | Path,
    *,
    task: str | None = None,
    backbones: Sequence[str] = (),
    target: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    progress: Progress = silent,
) -> Choice:
    """Judge backbones by what a linear head reaches on their features, by LogME and NLEEP, by size and by speed.

    Only samples to learn from are read (train and val): what certifies stays unseen.

    Args:
        data: as for :func:`edgetl.finetune`.
        task: as for finetune.
        backbones: names; by default all whose weights lie on this machine and that take samples of this kind.
        target: also time each in that target's own precision and runtime, where this machine executes it.
        image_size, seed, accelerator: as for finetune.
        progress: told of each sample.

    Raises:
        UnknownNameError: no such task, backbone or target.
        DataError: samples that cannot be used.
        EdgetlError: none of the backbones can be ranked.
    """
    wanted = None if target is None else find_target(target)
    precision = None if wanted is None else precision_for(wanted, None)
    looked: list[Subject] = []
    found = ranking.rank(
        data, task=task, names=backbones, image_size=image_size, seed=seed, accelerator=accelerator,
        look=looked.append if wanted else None, progress=progress,
    )  # fmt: skip
    if wanted is None or precision is None:
        return Choice(found)
    if wanted.executes_on_host() != "host":
        return Choice(found, wanted.name, {}, f"this machine does not execute what is made for {wanted.name}")
    return Choice(found, wanted.name, time_backbones(looked, wanted, precision, seed, progress))


def time_backbones(
    subjects: Sequence[Subject], target: Target, precision: Precision, seed: int, progress: Progress
) -> dict[str, Latency]:
    """Milliseconds of each backbone, compiled for a target that this machine executes, by its name.

    Raises:
        EdgetlError: one of them cannot be compressed or compiled.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        feeds, sessions = dict[str, list[Arrays]](), {}
        for number, subject in enumerate(subjects):
            progress(f"compiling for {target.name}", number, len(subjects))
            feeds[subject.name] = made_up(subject.definition, seed)
            artifact = _compiled(subject, feeds[subject.name], target, precision, Path(folder) / str(number))
            sessions[subject.name] = stack.enter_context(closing(open_session(artifact, threads=1)))
        progress(f"compiling for {target.name}", len(subjects), len(subjects))
        return {name: _latency(ms, precision) for name, ms in _timed(sessions, feeds, progress).items()}


def _timed(
    sessions: Mapping[str, Any], feeds: Mapping[str, list[Arrays]], progress: Progress
) -> dict[str, list[float]]:
    # Networks of one input take turns; those of different sizes cannot be fed the same samples.
    groups: dict[str, list[str]] = {}
    for name, samples in feeds.items():
        shapes = sorted((key, values.shape) for key, values in samples[0].items())
        groups.setdefault(str(shapes), []).append(name)
    found: dict[str, list[float]] = {}
    for names in groups.values():
        group = {name: sessions[name] for name in names}
        found |= interleave(group, feeds[names[0]], seconds=SECONDS * len(names), progress=progress)
    return found


def _latency(ms: Sequence[float], precision: str) -> Latency:
    middle = percentile(ms, 0.5)
    assert middle is not None, "interleave makes enough rounds"
    return Latency(precision, middle)


def _compiled(subject: Subject, samples: list[Arrays], target: Target, precision: Precision, folder: Path) -> Artifact:
    folder.mkdir()
    model = export_onnx(subject.network.cpu(), subject.definition, folder / "model.onnx")
    recipes = family(target.recipe(precision), {})
    if recipes:
        made = quantize(model, serving(recipes, kind_of(load(model))), samples, folder / "compressed")
    else:
        made = to_float(model, target.backend, precision, folder / "compressed")
    return BACKENDS[target.backend].compile(made.path, target, folder / "compiled")


def made_up(definition: Input, seed: int) -> list[Arrays]:
    """Inputs of samples that nobody took: noise, or a sentence; how long they take is what real ones take.

    Raises:
        EdgetlError: an input that nothing can be made up for.
    """
    draw = np.random.default_rng(seed)
    if isinstance(definition, Text):
        return [definition.feeds(_SENTENCE)] * SAMPLES
    if isinstance(definition, Preprocess):
        (spec,) = definition.tensors
        shape = (1, *(size or 1 for size in spec.shape[1:]))
        return [{spec.name: draw.integers(0, 256, shape, dtype=np.uint8)} for _ in range(SAMPLES)]
    raise EdgetlError("backbones for arrays are not timed", "leave --target out")
