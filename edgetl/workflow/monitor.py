"""Watching a folder of samples: do they still look like those that a bundle was certified on?

found = edgetl.monitor("out/rpi5", "camera/today")
print(found.sentence)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl import devices
from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import to_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.data.walk import walk
from edgetl.core.tensors import rows
from edgetl.devices.placement import place
from edgetl.inputs import input_of, kind_of
from edgetl.runtime.drift import Departure
from edgetl.runtime.monitor import Monitor

#: Samples that are asked in one call of the device.
_BATCH = 256


@dataclass(frozen=True)
class Watched:
    """What a folder of samples looked like.

    Attributes:
        alarm: whether they are shown to be unlike those that were certified.
        alarm_at: the number of the sample that showed it, from 1; None without.
        file: that sample's file.
        n: samples that were looked at: all, or up to the alarm's batch.
        evidence, threshold: of all characteristics together, and what an alarm takes.
        alpha: the probability of a false alarm ever.
        departures: of each characteristic, what departs most first.
        sentence: what is to be said of the certificate.
    """

    alarm: bool
    alarm_at: int | None
    file: str | None
    n: int
    evidence: float
    threshold: float
    alpha: float
    departures: tuple[Departure, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        record: dict[str, Any] = to_json(self)
        return record


def monitor(
    bundle: str | Path | Bundle,
    images: str | Path | Sequence[str | Path],
    *,
    device: str | None = None,
    alpha: float = 0.01,
    progress: Progress = silent,
) -> Watched:
    """Ask a bundle unlabelled samples, in the order of their names, until they are shown to be unlike certified ones.

    Args:
        bundle: its folder, or opened already.
        images: a folder, whatever kind of sample it holds, or files in the order in which they came.
        device: where the bundle answers; this machine when None.
        alpha: the probability of a false alarm ever, 0 < alpha < 0.5.
        progress: told of each sample.

    Raises:
        BundleError: it is no bundle, or does not say what its certify samples are like.
        DataError: no sample is there, or one is damaged.
        CertifyError: alpha is out of range.
    """
    opened = load_bundle(bundle)
    watch, files = Monitor(opened, alpha=alpha), _files(opened, images)
    definition, at = input_of(opened), place(opened, device)
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        outputs = devices.predict(at.device, opened, part, simulated=at.emulates, progress=progress)
        for row, file in enumerate(part):
            watch.see(definition.feeds(file), rows(outputs, slice(row, row + 1)))
        if watch.alarm:
            break
    test = watch.test
    return Watched(
        alarm=watch.alarm,
        alarm_at=test.alarm_at,
        file=None if test.alarm_at is None else str(files[test.alarm_at - 1]),
        n=test.n,
        evidence=test.evidence,
        threshold=test.threshold,
        alpha=alpha,
        departures=tuple(test.departures()),
        sentence=watch.sentence,
    )


def _files(bundle: Bundle, images: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(images, str | Path):
        return [Path(file) for file in images]
    folder, kind = Path(images), kind_of(bundle)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", f"name a folder of {kind.noun}s")
    found = [folder / name for name in walk(folder).files if Path(name).suffix.lower() in kind.suffixes]
    if not found:
        raise DataError(f"{folder} holds no {kind.noun}", f"name a folder with files of {', '.join(kind.suffixes)}")
    return found
