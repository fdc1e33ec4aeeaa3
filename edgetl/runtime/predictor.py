"""A bundle's answers, as a program gets them: the runtime stays loaded from one question to the next.

    with open_bundle("out/rpi5") as model:
        print(model.predict("photo.jpg").label)
        answers = model.predict(files, batch=8)              # eight in one inference
        answer = await model.predict_async(jpeg)             # in a thread, while the event loop goes on

Needs numpy, the bundle's one runtime, and Pillow for images or ``tokenizers`` for texts.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.tensors import Arrays
from edgetl.inputs import input_of
from edgetl.runtime.open_head import answering, labels_of
from edgetl.runtime.predict import infer, task_of
from edgetl.runtime.sessions import fixed_batch, open_session
from edgetl.tasks import Task

if TYPE_CHECKING:
    from PIL.Image import Image

#: How many of the most probable labels an answer names, unless told otherwise.
TOP = 5


@dataclass(frozen=True)
class LabelProbability:
    """A label and its probability, 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one sample.

    Attributes:
        labels: what the sample is: the one class; of several labels those that are present, the most probable first;
            empty where the task has none.
        top: the most probable labels, whether present or not, the most probable first.
        value: the number, in the labels' own unit; None where the task gives labels.
        tasks: of a network for several tasks, the answer of each by its name; all else is empty then.
    """

    labels: tuple[LabelProbability, ...] = ()
    top: tuple[LabelProbability, ...] = ()
    value: float | None = None
    tasks: Mapping[str, Prediction] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The most probable label; None where there is none."""
        return self.labels[0].label if self.labels else None

    @property
    def probability(self) -> float | None:
        """Of :attr:`label`, 0 to 1; None where there is none."""
        return self.labels[0].probability if self.labels else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without what the task does not have."""
        if self.tasks:
            return {"tasks": {name: answer.to_json() for name, answer in self.tasks.items()}}
        if self.value is not None:
            return {"value": self.value}
        values = asdict(self)
        return {"labels": list(values["labels"]), "top": list(values["top"])}


#: One sample as a program has it: a file (of text bundles, a Path) or its bytes, a text, a Pillow image, an array,
#: arrays by name.
if TYPE_CHECKING:
    Source = str | Path | bytes | Image | npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]


class Predictor:
    """A bundle's artifact, loaded into its runtime; may be asked from several threads, which then take turns.

    Args:
        bundle: its folder, or opened already.
        role: ``deployed``, or its ``float`` twin.
        threads: worker threads of the runtime; all cores when None.
        simulated: execute on this machine, in float, what was made for other hardware.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.

    Raises:
        BundleError: it is no bundle, a file of it was altered, or it is not signed.
        BackendError: the runtime refuses the artifact or is not installed.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        role: str = "deployed",
        threads: int | None = None,
        simulated: bool = False,
        public_key: str | Path | None = None,
    ) -> None:
        self.bundle = load_bundle(bundle, public_key)
        # A release is removed when later ones are in charge: what answers take of its folder is read now.
        self._input, self._task, self._labels = input_of(self.bundle), task_of(self.bundle), labels_of(self.bundle)
        self._session = open_session(
            answering(self.bundle, role), threads=threads or os.cpu_count() or 1, simulated=simulated
        )
        self._lock = threading.Lock()
        self._closed = False

    @overload
    def predict(self, source: list[Any] | tuple[Any, ...], *, top: int = TOP, batch: int = 1) -> list[Prediction]: ...
    @overload
    def predict(self, source: Source, *, top: int = TOP, batch: int = 1) -> Prediction: ...
    def predict(self, source: Any, *, top: int = TOP, batch: int = 1) -> Prediction | list[Prediction]:
        """Answer for one sample, or for each of a list.

        Args:
            source: an image's path, a Pillow image or a uint8 array of it, RGB (h, w, 3); for text bundles a text, or
                the Path of a file that holds one; for tensor bundles the path of an .npy or .npz file, an array, or
                arrays by name; the bytes of any such file; or a list of these.
            top: most labels that :attr:`Prediction.top` names.
            batch: samples of a list that one inference computes, or as many as the artifact has a fixed batch for, if
                those are fewer. Texts of one batch are padded to the longest. A runtime may sum up in another order
                than for one sample, so that last digits differ.

        Raises:
            DataError: a file is missing or damaged, or no such sample.
            BundleError: the predictor was closed.
        """
        if not isinstance(source, list | tuple):
            return self._described(self.outputs(source), top)[0]
        most = max(1, min(batch, fixed_batch(self._session.inputs) or batch))
        if most == 1:
            return [self._described(self.outputs(one), top)[0] for one in source]
        parts = [source[start : start + most] for start in range(0, len(source), most)]
        return [found for part in parts for found in self._described(self.run(self._input.batch(part)), top)]

    @overload
    async def predict_async(
        self, source: list[Any] | tuple[Any, ...], *, top: int = TOP, batch: int = 1
    ) -> list[Prediction]: ...
    @overload
    async def predict_async(self, source: Source, *, top: int = TOP, batch: int = 1) -> Prediction: ...
    async def predict_async(self, source: Any, *, top: int = TOP, batch: int = 1) -> Prediction | list[Prediction]:
        """As :meth:`predict`, in a thread: the event loop goes on meanwhile. Several may be awaited at once."""
        return await asyncio.to_thread(self.predict, source, top=top, batch=batch)

    def outputs(self, source: Source) -> dict[str, npt.NDArray[Any]]:
        """The network's outputs for one sample by name, (1, …), as the artifact gave them."""
        return self.run(self.feeds(source))

    def feeds(self, source: Source) -> dict[str, npt.NDArray[Any]]:
        """What the network is fed for one sample, each array (1, …)."""
        return self._input.feeds(source)

    def _described(self, outputs: Arrays, top: int) -> list[Prediction]:
        return described(self._task, self._labels, outputs, top)

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The network's outputs for samples as it is fed them, (n, …)."""
        with self._lock:
            if self._closed:
                raise BundleError(f"{self.bundle.path} was closed", "open it again")
            return infer(self._session, feeds)

    def close(self) -> None:
        """Free the runtime's memory and threads; a second time does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bundle(
    path: str | Path | Bundle,
    *,
    role: str = "deployed",
    threads: int | None = None,
    simulated: bool = False,
    public_key: str | Path | None = None,
) -> Predictor:
    """Open a bundle to ask it; see :class:`Predictor`."""
    return Predictor(path, role=role, threads=threads, simulated=simulated, public_key=public_key)


def describe(bundle: Bundle, outputs: Arrays, top: int = TOP) -> list[Prediction]:
    """What a bundle's outputs for n samples mean, as its task decodes them.

    Args:
        bundle: whose outputs they are.
        outputs: by name, (n, …), obtained here or on a device, with what was added to its head.
        top: most labels that :attr:`Prediction.top` names.

    Returns:
        n answers, in order.
    """
    return described(task_of(bundle), labels_of(bundle), outputs, top)


def described(task: Task, labels: Sequence[str], outputs: Arrays, top: int = TOP) -> list[Prediction]:
    """The same where there is no bundle yet."""
    answers = task.decode(outputs, task.options)
    return [_prediction(found) for found in task.describe(answers, labels, top)]


def _prediction(found: Mapping[str, Any]) -> Prediction:
    """Of what a task describes: ``value``; or ``top``, and with it ``labels`` or the one ``label``; or ``tasks``."""
    if "tasks" in found:
        return Prediction(tasks={name: _prediction(answer) for name, answer in found["tasks"].items()})
    top = _labels(found.get("top", ()))
    labels = _labels(found["labels"]) if "labels" in found else top[:1]
    return Prediction(labels, top, found.get("value"))


def _labels(entries: Sequence[Mapping[str, Any]]) -> tuple[LabelProbability, ...]:
    return tuple(LabelProbability(str(entry["label"]), float(entry["probability"])) for entry in entries)
