"""Splits: stratified, the same for the same seed, and disjoint by what a sample holds, not by file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgetl.base.errors import DataError
from edgetl.core.data.labels import LabelKind
from edgetl.core.data.samples import CLASS, SPLITS, Sample
from edgetl.core.data.several import label_kind

SHARES: Mapping[str, float] = {"train": 0.5, "val": 0.1, "calibration": 0.1, "search": 0.1, "certify": 0.2}
#: Of samples for a model that was trained elsewhere.
ADOPTED: Mapping[str, float] = {"calibration": 0.15, "search": 0.25, "certify": 0.6}
#: What splits of training are to such a model: early stopping has not seen a gradient.
_UNLEARNED: Mapping[str, str] = {"train": "calibration", "val": "search"}
#: What people call the splits, in lower case.
SPLIT_ALIASES: Mapping[str, str] = {
    "training": "train",
    **dict.fromkeys(("valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "certify"),
    "calib": "calibration",
}
#: When a class has fewer samples than there are splits, the splits go without in this order, last first.
_PRIORITY = ("train", "certify", "val", "calibration", "search")


def assign_splits(
    samples: Iterable[Sample], seed: int, shares: Mapping[str, float] = SHARES, kind: str = CLASS
) -> list[Sample]:
    """Give each sample its split: stratified by label, disjoint by content, and the same for the same seed.

    Classes keep their shares, several of one sample each its own, and numbers their distribution. Samples that already
    have a split keep it; where only some splits were given, calibration and search are taken from train. What belongs
    together goes into one split, whole.

    Args:
        samples: what to divide.
        seed: decides which sample falls into which split; nothing else does.
        shares: of each split, summing to 1.
        kind: of the labels, its name.

    Raises:
        DataError: shares that are no partition, or one sample in two of the given splits.
    """
    if set(shares) != set(SPLITS) or min(shares.values()) < 0 or not abs(sum(shares.values()) - 1) <= 1e-6:
        what = f"the shares {dict(shares)} do not split the samples"
        raise DataError(what, f"give {', '.join(SPLITS)}, summing to 1")
    listed = list(samples)
    given = {s.split for s in listed if s.split}
    if given and any(not s.split for s in listed):
        raise DataError("only some rows name a split", "fill the column split for every row, or for none")
    if given:
        _refuse_straddling(listed)
        missing = {name: shares[name] for name in ("calibration", "search", "val", "certify") if name not in given}
        pool = [s for s in listed if s.split == "train"]
        rest = {"train": 1 - sum(missing.values()), **missing}
        divided = _divide(pool, seed, rest, label_kind(kind))
        return sorted([s for s in listed if s.split != "train"] + divided, key=lambda s: s.path)
    return sorted(_divide(listed, seed, shares, label_kind(kind)), key=lambda s: s.path)


def assign_unlearned(samples: Iterable[Sample], seed: int, kind: str = CLASS) -> list[Sample]:
    """Give the samples of a model that was trained elsewhere their splits: calibration, search and certify.

    What it was trained on (train) serves calibration alone, and what else is named serves search and certify; where
    nothing is named, everything is divided among all three.

    Args:
        samples: with the splits that the data name, all of them or none.
        seed: decides which sample falls into which split; nothing else does.
        kind: of the labels, its name.

    Raises:
        DataError: only some samples have a split, or one sample is in two of them.
    """
    listed = [replace(s, split=_UNLEARNED.get(s.split, s.split)) for s in samples]
    given = {s.split for s in listed}
    if "" in given and len(given) > 1:
        raise DataError("only some rows name a split", "fill the column split for every row, or for none")
    if given != {""}:
        _refuse_straddling(listed)
    shares = {name: share for name, share in ADOPTED.items() if name not in given}
    pool = [s for s in listed if s.split in ("", "certify")]
    if shares:
        shares["certify"] = 1 - sum(share for name, share in shares.items() if name != "certify")
        divided = _divide(pool, seed, shares, _pooled(label_kind(kind), len(shares)))
        listed = [s for s in listed if s.split not in ("", "certify")] + divided
    return sorted(listed, key=lambda s: s.path)


def _refuse_straddling(samples: Iterable[Sample]) -> None:
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.unit, sample)
        if other.split != sample.split:
            same = "are the same sample" if other.pixels == sample.pixels else "belong together"
            raise DataError(
                f"{other.path} ({other.split}) and {sample.path} ({sample.split}) {same}",
                "keep each one in one split" if same[0] == "a" else "keep each group in one split",
            )


def _divide(samples: Sequence[Sample], seed: int, shares: Mapping[str, float], kind: LabelKind) -> list[Sample]:
    units: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.path):
        units.setdefault(sample.unit, []).append(sample)

    # In an order that depends on the seed and on the contents alone, not on names.
    def drawn(members: Sequence[Sample]) -> bytes:
        return hashlib.sha256(f"{seed}:{min(s.pixels for s in members)}".encode()).digest()

    order = sorted(units.values(), key=drawn)
    if any(members[0].group for members in order):
        names = _by_class(_marks(kind, order), shares, [len(members) for members in order])
    else:
        labels = [members[0].label for members in order]
        names = _by_class(kind.marks(labels), shares) if kind.marks else _by_stratum(_strata(kind, labels), shares)
    return [replace(s, split=name) for members, name in zip(order, names, strict=True) for s in members]


def _marks(kind: LabelKind, units: Sequence[Sequence[Sample]]) -> list[list[int]]:
    """For each group what splits keep the shares of, as often as its samples have it."""
    labels = [sample.label for members in units for sample in members]
    numbers: dict[Hashable, int] = {}
    strata = kind.marks(labels) if kind.marks else [[s] for s in _strata(kind, labels)]
    each = iter([[numbers.setdefault(one, len(numbers)) for one in found] for found in strata])
    return [[mark for _ in members for mark in next(each)] for members in units]


def _strata(kind: LabelKind, labels: Sequence[Any]) -> Sequence[Hashable]:
    assert kind.strata is not None, f"labels of the kind {kind.name} have neither strata nor marks"
    return kind.strata(labels)


def _pooled(kind: LabelKind, splits: int) -> LabelKind:
    """A kind of label whose strata that are too small to be divided are one: else all of them went to one split."""
    strata = kind.strata
    if strata is None:
        return kind

    def common(labels: Sequence[Any]) -> list[Hashable]:
        found = strata(labels)
        sizes = Counter(found)
        return [stratum if sizes[stratum] >= splits else None for stratum in found]

    return replace(kind, strata=common)


def _by_stratum(strata: Sequence[Hashable], shares: Mapping[str, float]) -> list[str]:
    """A split for each, so that each stratum is divided by the shares."""
    places: dict[Hashable, list[int]] = {}
    for place, stratum in enumerate(strata):
        places.setdefault(stratum, []).append(place)
    names = [""] * len(strata)
    for inside in places.values():
        for place, name in zip(inside, _quota(len(inside), shares), strict=True):
            names[place] = name
    return names


def _by_class(labels: Sequence[Any], shares: Mapping[str, float], sizes: Sequence[int] | None = None) -> list[str]:
    """A split for each sample of any number of classes, so that each class is divided by the shares.

    ``labels`` may be of groups of samples instead, whose ``sizes`` differ; a class stands there once a sample.

    The rarest class goes first, because its samples can be shared out in few ways (Sechidis, Tsoumakas and Vlahavas
    2011, On the stratification of multi-label data, ECML PKDD). A sample goes to a split that lacks its rarest class,
    and of those to the one that lacks most of all its classes: by the rarest alone, the commonest of several classes
    that mostly go together ended up to 9 samples from their shares in 300, instead of 3.
    """
    wanted = [name for name in _PRIORITY if shares.get(name, 0) > 0]
    share = np.array([shares[name] for name in wanted])
    total = np.bincount([c for label in labels for c in label], minlength=1)
    left = total.copy()
    weights = np.ones(len(labels)) if sizes is None else np.array(sizes, np.float64)
    lacking, lacking_all = share[:, None] * total, share * weights.sum()
    waiting: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        for c in dict.fromkeys(label):
            waiting.setdefault(c, []).append(place)
    names = [""] * len(labels)

    def give(place: int, rarest: int | None) -> None:
        own, times = np.unique(np.array(labels[place], np.int64), return_counts=True)
        need = ((lacking[:, own] / total[own]).sum(1) + lacking_all / weights.sum()) / share
        lacks = np.zeros(len(wanted), bool) if rarest is None else lacking[:, rarest] >= 0.5
        best = max(range(len(wanted)), key=lambda k: (lacks[k], need[k], -k))
        names[place] = wanted[best]
        lacking[best, own] -= times
        left[own] -= times
        lacking_all[best] -= weights[place]

    while left.any():
        rarest = min((c for c in waiting if left[c] > 0), key=lambda c: (left[c], c))
        for place in waiting[rarest]:
            if not names[place]:
                give(place, rarest)
    for place in range(len(labels)):
        if not names[place]:
            give(place, None)
    return names


def _quota(count: int, shares: Mapping[str, float]) -> list[str]:
    wanted = [name for name in _PRIORITY if shares.get(name, 0) > 0]
    floors = {name: int(shares[name] * count) for name in wanted}
    for name in wanted[:count]:
        floors[name] = max(floors[name], 1)
    by_need = sorted(wanted, key=lambda name: (floors[name] - shares[name] * count, wanted.index(name)))
    for name in (by_need * (count + 1))[: max(count - sum(floors.values()), 0)]:
        floors[name] += 1
    while sum(floors.values()) > count:
        floors[max(floors, key=lambda name: floors[name])] -= 1
    return [name for name in wanted for _ in range(floors[name])]
