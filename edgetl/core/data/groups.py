"""Which samples belong together: by a column of the data, their folders, their names, when they were taken, or how
alike they look.

Whatever belongs together by any of these is one group: groups that share a sample are joined.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, tracked
from edgetl.base.wording import counted
from edgetl.core.data.samples import Sample

PARENT, TIME, DUPLICATES = "parent", "exif-time", "duplicates"
#: Seconds: pictures of one camera that were taken closer together show one scene. Bursts and hand-held series lie
#: within a second or two, and nobody arranges another scene in ten.
SCENE_SECONDS = 10.0
#: Of 256 bits (:func:`edgetl.inputs.look.look`), those in which two pictures may differ and still be near-duplicates.
#: Of imagenet-sample no two pictures differ in fewer than 90; copies scaled, compressed or brightened differ in 24 at
#: most, and moved by a hundredth in 34 (9 of 10). Of magnetic-tile this finds the exposures of one tile.
MOST_BITS = 40
#: More than this share of all samples in one group is a mistake: nothing would be left to divide.
LARGEST = 0.5
#: Pictures that are compared at a time, so that memory does not grow with the square of their number.
_BLOCK = 1024
Bits = npt.NDArray[np.bool_]
#: When a picture was taken, and by which camera: seconds since any fixed moment.
Taken = tuple[str, float]


@dataclass(frozen=True)
class GroupRule:
    """What ``--group-by`` says.

    Attributes:
        text: as it was given.
        kind: parent, exif-time, duplicates, or regex.
        pattern: of names; None of another kind.
    """

    text: str
    kind: str
    pattern: re.Pattern[str] | None = None


def read_rule(text: str) -> GroupRule:
    """A rule as a user writes it: ``parent``, ``exif-time``, ``duplicates``, or a regular expression.

    Raises:
        DataError: it is none of them.
    """
    if text in (PARENT, TIME, DUPLICATES):
        return GroupRule(text, text)
    try:
        return GroupRule(text, "regex", re.compile(text))
    except re.error as error:
        what = f"--group-by '{text}' is no regular expression ({error})"
        raise DataError(what, f"give {PARENT}, {TIME}, {DUPLICATES} or one that finds the group in a path") from error


def grouped(
    samples: Sequence[Sample],
    root: Path,
    rule: GroupRule | None,
    taken: Callable[[Path], Taken | None] | None,
    look: Callable[[Path], Bits] | None,
    progress: Progress,
) -> list[Sample]:
    """Samples with the groups that a rule finds joined to those that they have; copies belong together.

    Args:
        samples: with their contents' hashes.
        root: their paths start from.
        rule: None for the groups that the data name, alone.
        taken: when a file was taken; None of samples that nobody takes with a camera.
        look: what a file looks like, in bits; None of samples that do not look like anything.
        progress: told of each file that is looked at.

    Raises:
        DataError: a rule that finds nothing or means nothing to these samples, or that puts most of them in one group.
    """
    if not samples or (rule is None and not any(sample.group for sample in samples)):
        return list(samples)
    found = [*_named(samples), *([] if rule is None else _by_rule(samples, root, rule, (taken, look), progress))]
    names = _joined(len(samples), found)
    (_, most), *_ = Counter(names).most_common(1)
    if rule is not None and len(samples) > 2 and most > max(LARGEST * len(samples), 1):
        what = f"--group-by {rule.text} puts {most} of {len(samples)} samples into one group"
        raise DataError(what, "group by something that tells scenes apart")
    sizes = Counter(names)
    titles = [_title(samples, name) if sizes[name] > 1 else "" for name in names]
    return [replace(sample, group=title) for sample, title in zip(samples, titles, strict=True)]


def grouping_note(samples: Sequence[Sample], noun: str) -> list[str]:
    """How many groups there are, in a sentence; none where every sample, called ``noun``, stands by itself."""
    groups = Counter(sample.group for sample in samples if sample.group)
    if not groups:
        return []
    total = len(samples) - sum(groups.values()) + len(groups)
    told = f"{counted(len(samples), noun)} in {total} groups, the largest of {max(groups.values())}"
    return [f"{told}: each stays in one split, and counts once in tests"]


def _title(samples: Sequence[Sample], place: int) -> str:
    """The name of a group: the one that the data gave to its first sample, else that sample's path."""
    return samples[place].group or samples[place].path


def _named(samples: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Pairs of places that the data name as one group, or that hold the same."""
    yield from _alike(sample.group for sample in samples)
    yield from _alike(sample.pixels for sample in samples)


def _alike(keys: Iterable[str]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key:
            yield first.setdefault(key, place), place


def _by_rule(
    samples: Sequence[Sample],
    root: Path,
    rule: GroupRule,
    of_files: tuple[Callable[[Path], Taken | None] | None, Callable[[Path], Bits] | None],
    progress: Progress,
) -> Iterator[tuple[int, int]]:
    taken, look = of_files
    if rule.kind == PARENT:
        return _alike(str(PurePosixPath(sample.path).parent) for sample in samples)
    if rule.pattern is not None:
        return _by_name(samples, rule.pattern)
    if taken is None or look is None:
        what = f"--group-by {rule.text} is of images"
        raise DataError(what, f"use {PARENT}, a regular expression, or a column group")
    files, step = [root / sample.path for sample in samples], f"grouping by {rule.text}"
    with ThreadPoolExecutor(4) as pool:
        if rule.kind == TIME:
            return _by_time(list(tracked(pool.map(taken, files), step, progress, len(files))))
        return _by_look(np.array(list(tracked(pool.map(look, files), step, progress, len(files))), np.float32))


def _by_name(samples: Sequence[Sample], pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    matches = [pattern.search(sample.path) for sample in samples]
    if not any(matches):
        what = f"--group-by '{pattern.pattern}' is found in no path, such as {samples[0].path}"
        raise DataError(what, f"give {PARENT}, {TIME}, {DUPLICATES}, or an expression that finds the group in a path")
    return _alike("" if m is None else "\0".join(part or "" for part in (m.groups() or (m[0],))) for m in matches)


def _by_time(seen: Sequence[Taken | None]) -> Iterator[tuple[int, int]]:
    known = sorted((camera, when, place) for place, told in enumerate(seen) if told for camera, when in (told,))
    if not known:
        raise DataError("no picture says when it was taken (EXIF DateTimeOriginal)", f"use {PARENT} or {DUPLICATES}")
    return (
        (one[2], other[2])
        for one, other in pairwise(known)
        if one[0] == other[0] and other[1] - one[1] <= SCENE_SECONDS
    )


def _by_look(bits: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Pairs that differ in few bits; all pairs are compared, by products of matrices."""
    signs = 2 * bits - 1
    least = bits.shape[1] - 2 * MOST_BITS
    for start in range(0, len(signs), _BLOCK):
        near = signs[start : start + _BLOCK] @ signs[start:].T >= least
        rows, columns = np.nonzero(np.triu(near, 1))
        yield from ((start + int(row), start + int(column)) for row, column in zip(rows, columns, strict=True))


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The first place of each place's group, where pairs belong together (R. E. Tarjan 1975, Journal of the ACM 22)."""
    above = list(range(count))

    def top(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    for one, other in pairs:
        first, second = sorted((top(one), top(other)))
        above[second] = first
    return [top(place) for place in range(count)]
