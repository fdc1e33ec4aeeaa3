"""What a bundle leaves at home: where its maker keeps files, and the samples that certifying it does not take.

    DIR/.work/data.json    digest of a bundle's splits → the folder of its samples, on the machine that exported it

A bundle's own list of samples names no folder. Beside the bundle lies where it was; elsewhere ``--data`` says it.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from edgetl.base.schema import Json
from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle_files import DATA_NOTE, NO_ROOT
from edgetl.core.compression import Calibration
from edgetl.core.data import Dataset, Sample

#: Splits that a certificate or the search for faults behind it read.
_KEPT = ("calibration", "search", "certify")
#: An absolute path inside a text: after its start, a blank, a quote, a bracket or an equals sign.
_PATH = re.compile(r"""(?<![^\s='"(\[,:])(?:/(?!/)|~/|[A-Za-z]:[\\/])[^\s'",;)\]]+""")


def samples_home(dataset: Dataset) -> Path:
    """The folder below which all of a data set's samples lie; a CSV file may name them in full, wherever they are."""
    if not any(PurePosixPath(sample.path).is_absolute() for sample in dataset.samples):
        return dataset.root
    return Path(os.path.commonpath([str((dataset.root / sample.path).parent) for sample in dataset.samples]))


def for_certifying(dataset: Dataset) -> Dataset:
    """The samples that a bundle takes along, their folder left out; of training, only numbers: they scale a margin.

    Groups are numbered: their names, such as those of patients, are nobody's business on a device.
    """
    home, numbers = samples_home(dataset), dict[str, str]()
    for sample in dataset.samples:
        if sample.group:
            numbers.setdefault(sample.group, str(len(numbers) + 1))
    samples = [
        replace(s, path=_below(home, dataset, s.path), group=numbers.get(s.group, ""))
        for s in dataset.samples
        if s.split in _KEPT
    ]
    if "number" in (dataset.label_kind, *(part.kind for part in dataset.parts)):
        samples += [Sample("", s.label, "", "", "train") for s in dataset.split("train")]
    return replace(dataset, root=Path(NO_ROOT), samples=tuple(samples), skipped=())


def calibrated_on(calibration: Calibration, dataset: Dataset) -> Calibration:
    """What a bundle says of the samples that gave its ranges: their paths as :func:`for_certifying` has them."""
    home = samples_home(dataset)
    samples = tuple(replace(s, path=_below(home, dataset, s.path)) for s in calibration.samples)
    return replace(calibration, samples=samples)


def _below(home: Path, dataset: Dataset, path: str) -> str:
    return path if home == dataset.root else (dataset.root / path).relative_to(home).as_posix()


def note_data(out: Path, splits: str, root: Path) -> None:
    """Remember on this machine where the samples of a bundle lie, by the digest of its splits."""
    file = out / DATA_NOTE
    known = read_json(file) if file.is_file() else {}
    noted = {**(known if isinstance(known, dict) else {}), splits: str(root)}
    if noted != known:
        write_json(file, noted)


def without_places(value: Json) -> Json:
    """JSON values with each absolute path in them cut down to its last part."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(item) for item in value]
    return _without(value) if isinstance(value, str) else value


def _without(text: str) -> str:
    if _is_absolute(text) and "\n" not in text and " --" not in text:
        return _last(text)
    if " --" in text:
        try:
            # A command line: its words may hold blanks.
            return shlex.join(_without(word) if " --" not in word else word for word in shlex.split(text))
        except ValueError:
            pass
    return _PATH.sub(lambda found: _last(found[0]), text)


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~/")


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "."
