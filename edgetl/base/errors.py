"""The errors a user can meet, and the exit status each one ends in.

    EdgetlError                 exit 2: wrong usage or bad input
    ├── UnknownNameError        a target, backbone, strategy, … that does not exist (offers the near ones)
    ├── DataError               images, labels or splits that cannot be used
    ├── RunError                a training run that is missing, incomplete or altered
    ├── BundleError             a bundle that is missing, incomplete or altered
    ├── MissingExtraError       a package that an optional feature needs is not installed
    ├── OutOfMemoryError        this machine has too little memory for what was asked
    ├── TrainingError           training diverged or cannot start
    ├── CompressionError        export, calibration or quantization is impossible as asked
    ├── BackendError            a runtime refuses a model, a target or this machine
    ├── DeviceError             a device is unknown, unreachable or unfit
    ├── CertifyError            a comparison that would be meaningless
    └── NotReproducedError      exit 3: an adopted model does not do here what its owner says it does

Each message is one line: what was wrong, where, what was available, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from edgetl.base.wording import printable

#: Characters of either part of a message; of longer ones the middle is left out.
_MOST = 1000


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} … {text[-_MOST // 2 :]}"


class EdgetlError(Exception):
    """Base of every error that is the input's fault rather than edgetl's.

    Args:
        what: what was wrong and where, without a full stop at the end.
        remedy: what to do about it, as an imperative clause; empty when the first part says it all.
    """

    exit_status = 2

    def __init__(self, what: str, remedy: str = "") -> None:
        # What it quotes may come from a file, a bundle or a device that means harm to a terminal.
        # It may also be of any length.
        self.what, self.remedy = (_shortened(printable(" ".join(text.split()))) for text in (what, remedy))
        super().__init__(f"{self.what}: {self.remedy}" if self.remedy else self.what)


class UnknownNameError(EdgetlError):
    """A name that is not in a known set.

    Args:
        kind: what is being named, such as ``"target"``.
        name: what was given.
        known: the names that exist; the nearest few are offered.
        listing: the command or place that lists them all.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], listing: str = "") -> None:
        self.kind, self.name = kind, name
        names = sorted(set(known))
        self.near = (
            tuple(difflib.get_close_matches(name, names, n=3, cutoff=0.5))
            or tuple(n for n in names if name.lower() in n.lower() or n.lower() in name.lower())[:3]
        )
        if self.near:
            remedy = "did you mean " + " or ".join(self.near) + "?"
        else:
            remedy = f"choose one of {', '.join(names[:12])}" + (" …" if len(names) > 12 else "")
        super().__init__(f"unknown {kind} '{name}'", remedy + (f" ({listing} lists them all)" if listing else ""))


class DataError(EdgetlError):
    """Images, labels or splits that cannot be used."""


class RunError(EdgetlError):
    """A training run that is missing, incomplete or altered."""


class BundleError(EdgetlError):
    """A bundle that is missing, incomplete or altered."""


class MissingExtraError(EdgetlError, ImportError):
    """A package that an optional feature needs is not installed: also an ImportError, which scripts look for."""


class OutOfMemoryError(EdgetlError):
    """This machine has too little memory for what was asked."""


class TrainingError(EdgetlError):
    """Training diverged or cannot start."""


class CompressionError(EdgetlError):
    """Export, calibration or quantization is impossible as asked."""


class BackendError(EdgetlError):
    """A runtime refuses a model, a target or this machine."""


class DeviceError(EdgetlError):
    """A device is unknown, unreachable or unfit."""


class CertifyError(EdgetlError):
    """A comparison that would be meaningless."""


class NotReproducedError(EdgetlError):
    """An adopted model does not do here what its owner says it does."""

    exit_status = 3
