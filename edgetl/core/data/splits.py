"""Splits: stratified, the same for the same seed, and disjoint by picture, not by file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from edgetl.base.errors import DataError
from edgetl.core.data.samples import SPLITS, Sample

SHARES: Mapping[str, float] = {"train": 0.5, "val": 0.1, "calibration": 0.1, "search": 0.1, "certify": 0.2}
SPLIT_ALIASES = {"valid": "val", "validation": "val", "test": "certify", "calib": "calibration"}
#: When a class has fewer images than there are splits, the splits go without in this order, last first.
_PRIORITY = ("train", "certify", "val", "calibration", "search")


def assign_splits(samples: Iterable[Sample], seed: int, shares: Mapping[str, float] = SHARES) -> list[Sample]:
    """Give each sample its split: stratified, disjoint by picture, and the same for the same seed.

    Samples that already have a split keep it; where only some splits were given, calibration and search are
    taken from train.

    Raises:
        DataError: shares that are no partition, or one picture in two of the given splits.
    """
    if set(shares) != set(SPLITS) or min(shares.values()) < 0 or not abs(sum(shares.values()) - 1) <= 1e-6:
        raise DataError(f"the shares {dict(shares)} do not split the images", f"give {', '.join(SPLITS)}, summing to 1")
    listed = list(samples)
    given = {s.split for s in listed if s.split}
    if given and any(not s.split for s in listed):
        raise DataError("only some rows name a split", "fill the column split for every row, or for none")
    if given:
        _refuse_straddling(listed)
        missing = {name: shares[name] for name in ("calibration", "search", "val", "certify") if name not in given}
        pool = [s for s in listed if s.split == "train"]
        rest = {"train": 1 - sum(missing.values()), **missing}
        return sorted([s for s in listed if s.split != "train"] + _divide(pool, seed, rest), key=lambda s: s.path)
    return sorted(_divide(listed, seed, shares), key=lambda s: s.path)


def _refuse_straddling(samples: Iterable[Sample]) -> None:
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.pixels, sample)
        if other.split != sample.split:
            raise DataError(
                f"{other.path} ({other.split}) and {sample.path} ({sample.split}) are the same picture",
                "keep each picture in one split",
            )


def _divide(samples: Sequence[Sample], seed: int, shares: Mapping[str, float]) -> list[Sample]:
    result: list[Sample] = []
    for label in sorted({s.label for s in samples}):
        groups: dict[str, list[Sample]] = {}
        for sample in samples:
            if sample.label == label:
                groups.setdefault(sample.pixels, []).append(sample)
        order = sorted(groups, key=lambda pixels: hashlib.sha256(f"{seed}:{pixels}".encode()).digest())
        names = _quota(len(order), shares)
        for pixels, name in zip(order, names, strict=True):
            result += [replace(sample, split=name) for sample in groups[pixels]]
    return result


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
