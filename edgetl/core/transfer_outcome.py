"""Whether a transfer helped, as a value: gaps to what it is measured against, and what became of an earlier skill."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgetl.base.errors import RunError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import read_sealed, write_sealed

#: Next to a run: what :func:`edgetl.retention` measured of it last.
RETENTION = "retention.json"
Helped = Literal["better", "not shown", "worse"]


@dataclass(frozen=True, kw_only=True)
class TransferGap:
    """How much better a run's model is than another one on the run's own validation samples, paired.

    Attributes:
        against: "start", the pretrained network with its fitted linear head, before the first step; or the baseline
            that was trained, "scratch" or "probe".
        metric: the task's default one; ``unit``: its, see :data:`edgetl.tasks.Unit`.
        n: validation samples.
        before, after: the other model's score and the run's.
        difference: the gain; a loss is negative whichever values are better.
        ci_low, ci_high: its interval at ``level``.
        chosen: whether the same samples chose the epoch that is kept, which flatters the gain.
        kept: whether the run's model is that start.
    """

    against: Literal["start", "scratch", "probe"]
    metric: str
    unit: Literal["share", "labels", ""]
    n: int
    before: float
    after: float
    difference: float
    ci_low: float
    ci_high: float
    level: float
    chosen: bool
    kept: bool = False

    @property
    def helped(self) -> Helped:
        """On which side of 0 the interval lies; "worse" is negative transfer."""
        return "better" if self.ci_low > 0 else "worse" if self.ci_high < 0 else "not shown"


@dataclass(frozen=True)
class Retained:
    """What is left of a score.

    Attributes:
        n: samples of the old task; left_out: those that either run was trained on.
        metric: of the old task.
        before, after: of the old model, and of its head on the new backbone.
        difference, ci_low, ci_high: the gain, paired, with the interval of the certificates at both ends.
        unit: of the metric.
    """

    n: int
    left_out: int
    metric: str
    before: float
    after: float
    difference: float
    ci_low: float
    ci_high: float
    unit: str


@dataclass(frozen=True)
class RetentionRecord:
    """``retention.json``: what was measured, of which run, against which earlier one (digests; the latter's name)."""

    run: str
    of: str
    name: str
    retained: Retained


@dataclass(frozen=True)
class TransferOutcome:
    """What a run tells of its transfer.

    Attributes:
        gaps: to its start, then to the baseline.
        absent: why there is none to the start, in a sentence; "" where there is, or where nothing was trained.
        retention: None where none was measured.
        earlier: the run that it started from; "" where it started from published weights.
        frozen: why layers stayed as they are; "" where all were free to move.
    """

    gaps: tuple[TransferGap, ...] = ()
    absent: str = ""
    retention: RetentionRecord | None = None
    earlier: str = ""
    frozen: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, each gap with whether the transfer helped."""
        gaps = [{**asdict(gap), "helped": gap.helped} for gap in self.gaps]
        return {**to_json(self), "gaps": gaps}


def write_retention(folder: Path, record: RetentionRecord) -> None:
    """Keep in a run's folder what was measured last."""
    write_sealed(folder / RETENTION, to_json(record))


def read_retention(folder: Path, digest: str) -> RetentionRecord | None:
    """What :func:`write_retention` wrote for the run of this digest; None without it, or of another run.

    Raises:
        RunError: it was altered.
    """
    file = folder / RETENTION
    if not file.is_file():
        return None
    record = from_json(
        RetentionRecord, read_sealed(file, RunError), file, RunError, "measure it again: edgetl retention"
    )
    return record if record.run == digest else None
