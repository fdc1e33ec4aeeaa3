"""What a device answers when a bundle was tested or put in charge there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SelfTest:
    """Whether a machine reads, computes and answers as a bundle expects.

    Attributes:
        passed: whether it does.
        max_difference: the greatest of all outputs, as a share of an output's range; None where an output is no number.
        tolerance: that it may have.
        n: golden samples.
        agreement: share (0 to 1) of the golden samples with a clear answer that get the expected label; None where
            answers have no labels, or none is clear.
        input_difference: the greatest mean difference of the inputs that the probe file becomes, as a share of their
            range; None where there is no probe, or it is another input altogether.
        problems: why it did not pass, in clauses.
    """

    passed: bool
    max_difference: float | None
    tolerance: float
    n: int
    agreement: float | None = None
    input_difference: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """What is in charge on a device under a name.

    Attributes:
        state: what was done; unchanged where this very bundle was in charge already.
        release, previous: names of folders in ``releases``; None where there is none.
        path: of the link that programs open.
        selftest: of the release in charge.
    """

    state: Literal["deployed", "unchanged", "rolled back"]
    release: str | None
    previous: str | None
    path: str
    selftest: SelfTest


@dataclass(frozen=True)
class InCharge:
    """The release in charge on a device under a name.

    Attributes:
        release: name of its folder in ``releases``; None where nothing is in charge.
        digest: of its manifest.
        task: what it is for.
        classes: how many it tells apart.
        classes_sha256: of their names in order, a JSON list.
        n: samples that it has answered.
    """

    release: str | None = None
    digest: str = ""
    task: str = ""
    classes: int = 0
    classes_sha256: str = ""
    n: int = 0
