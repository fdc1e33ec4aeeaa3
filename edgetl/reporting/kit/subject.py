"""What a kit is about: facts of a bundle that hold before anything of it is certified."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetl import __version__
from edgetl.base.extras import PROVIDERS
from edgetl.core.target import Target
from edgetl.inputs import INPUTS, Input, Preprocess
from edgetl.reporting.kit.quoting import shell_word
from edgetl.reporting.kit.runtimes import IN_C, PYTHON, TITLES
from edgetl.tasks import Task, find_task

#: Version of :class:`Preprocess` whose pixels the C runner does not make.
_OLD = 1
#: Kind of input → the file in the commands.
_SAMPLES = {"image": "photo.jpg", "tensor": "sample.npz"}
#: Kind of labels that the C runner knows → where a prediction in Python has the answer.
LABELS = {"class": "label", "classes": "labels", "number": "value"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A bundle, as far as its kit speaks of it.

    Attributes:
        name: of its folder.
        target: what it is made for.
        task: key into :data:`edgetl.tasks.TASKS`, or several of them.
        classes: their names, in the order of the outputs.
        definition: how a file becomes the network's input.
        backend, precision: of the deployed artifact.
        versions: of the packages that made it, by module; None for those that were not installed.
    """

    name: str
    target: Target
    task: str
    classes: tuple[str, ...]
    definition: Input
    backend: str
    precision: str
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def does(self) -> Task:
        """Its task."""
        return find_task(self.task)

    @property
    def runtime(self) -> str:
        """Its runtime, as people call it."""
        return TITLES.get(self.backend, self.backend)

    @property
    def sample(self) -> str:
        """A sample's file in commands."""
        return _SAMPLES.get(self.definition.kind) or f"sample{INPUTS[self.definition.kind].suffixes[0]}"

    @property
    def jetson(self) -> bool:
        """Whether the runtime and Python's bindings of it are JetPack's."""
        return self.target.family == "nvidia-jetson"

    @property
    def answers(self) -> int:
        """Most answers to one sample, when the most probable label of each task is asked for."""
        return 1 if self.does.labels in ("class", "number") else len(self.classes) + max(1, len(self.does.parts))

    @property
    def not_in_c(self) -> str | None:
        """Why the C runner does not serve it, in a clause; None where it does."""
        if self.definition.kind not in _SAMPLES:
            return f"the C runner reads pictures and arrays, and no {INPUTS[self.definition.kind].noun}s"
        if not {task.labels for task in self.does.parts.values() or [self.does]} <= LABELS.keys():
            return f"the C runner does not know what {self.task} answers"
        if self.backend not in IN_C:
            return f"the C runner of edgetl {__version__} has no backend for {self.runtime}"
        if isinstance(self.definition, Preprocess) and self.definition.version == _OLD:
            return "the C runner does not resize pictures as the first version of preprocessing did"
        return None

    @property
    def made(self) -> str:
        """Version of the runtime that made it; "" where nobody knows, or what is known is none."""
        found = self.versions.get(PYTHON.get(self.backend, ("", ""))[1]) or ""
        return found if re.fullmatch(r"[A-Za-z0-9.+!_-]*", found) else ""

    def pinned(self) -> str:
        """The runtime's package for pip, of the version that made the bundle, as a shell's word."""
        package, _ = PYTHON[self.backend]
        return shell_word(f"{package}=={self.made}") if self.made else package

    def packages(self, *extras: str) -> str:
        """What pip installs to run it in Python, as words of a shell."""
        pc = ("tensorrt",) if self.backend == "tensorrt" and not self.jetson else ()
        named = ",".join((*extras, *pc))
        edgetl = f"edgetl[{named}]=={__version__}" if named else f"edgetl=={__version__}"
        reading = [PROVIDERS[name][0] for name in INPUTS[self.definition.kind].modules if PROVIDERS[name][1]]
        return " ".join([shell_word(edgetl), *([self.pinned()] if self.backend in PYTHON else []), *reading])
