"""Which samples belong together: the group of each, as every test reads it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError

Indexes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def group_indexes(groups: npt.ArrayLike | None, n: int) -> Indexes | None:
    """The group of each sample, from 0 up, int64 [n]; None where every sample is a group of its own.

    Args:
        groups: one value for what belongs together, integers or strings [n].
        n: samples.

    Raises:
        CertifyError: another length, or values that are no names.
    """
    if groups is None:
        return None
    named = np.asarray(groups)
    if named.shape != (n,) or named.dtype.kind not in "iuUS":
        what = f"groups is {named.dtype} of the shape {named.shape}"
        raise CertifyError(what, f"give an integer or a name for each of the {n} samples")
    values, indexes = np.unique(named, return_inverse=True)
    return None if len(values) == n else indexes.astype(np.int64)


def restricted(groups: Indexes | None, chosen: npt.NDArray[np.bool_]) -> Indexes | None:
    """The groups of some of the samples; None where none of these belong together."""
    return None if groups is None else group_indexes(groups[chosen], int(chosen.sum()))


def units(groups: Indexes | None, n: int) -> int:
    """How many of ``n`` samples are independent: the groups, counting a sample by itself as one."""
    return n if groups is None else int(groups.max()) + 1


def group_sums(values: Floats, groups: Indexes) -> Floats:
    """Sums over the samples of each group: float64 [n, k] → [groups, k]."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[order], starts, axis=0))
