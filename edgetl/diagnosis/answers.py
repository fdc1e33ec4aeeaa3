"""What logits tell by themselves: classes in another order, one class damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgetl.core.findings import Finding
from edgetl.diagnosis.observations import DEPLOYED, FLOAT, REFERENCE, Logits, Observations

Columns = npt.NDArray[np.float64]
#: A moved column follows the one it is taken for with at least this correlation …
FOLLOWS = 0.8
#: … and its own one with this much less; and it is this much nearer to it, as a share of squared distances.
APART, NEARER = 0.2, 0.3
#: A damaged column's deviation, in standard deviations of its logit, and in multiples of the next worst column's.
DAMAGED, ALONE = 0.6, 4.0
#: Fewer images than this say nothing about columns.
FEWEST = 12


def audit_answers(seen: Observations, labels: Sequence[str]) -> tuple[Finding, ...]:
    """Compare the reference's logits with the float ONNX file's, then with the deployed artifact's."""
    reference = seen.logits[REFERENCE]
    found: list[Finding] = []
    for rung in (FLOAT, DEPLOYED):
        other = seen.logits.get(rung)
        if other is None or len(reference) < FEWEST or other.shape != reference.shape:
            continue
        # A fault of the float graph is found again in whatever is made of it.
        already = {finding.kind for finding in found}
        found += [f for f in _compare(reference, other, rung, labels) if f.kind not in already]
    return tuple(found)


def _compare(reference: Logits, other: Logits, rung: str, labels: Sequence[str]) -> Iterator[Finding]:
    own, found = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if not (np.isfinite(own).all() and np.isfinite(found).all()):
        return
    order = permutation(own, found)
    if order is not None:
        moved = [(column, source) for column, source in enumerate(order) if column != source]
        first = "; ".join(f"logit {c} ('{labels[c]}') behaves like '{labels[s]}'" for c, s in moved[:3])
        what = f"{len(moved)} logits of the rung '{rung}' are in another order than the reference's: {first}."
        yield Finding("label-order", what, evidence={"rung": rung, "order": order})
        return
    column = damaged_column(own, found)
    if column is not None:
        what = (
            f"The class '{labels[column]}' alone is damaged in the rung '{rung}': its logit departs from the "
            f"reference's by {_departures(own, found)[column]:.2f} standard deviations, every other by at most "
            f"{np.delete(_departures(own, found), column).max():.2f}."
        )
        yield Finding("damaged-class", what, evidence={"rung": rung, "classes": [labels[column]], "rows": [column]})


def permutation(reference: Columns, found: Columns) -> list[int] | None:
    """The column of ``reference`` that each column of ``found`` behaves like, both (n, classes).

    None unless some columns moved, clearly and among themselves.
    """
    correlations = _correlations(reference, found)
    classes = np.arange(reference.shape[1])
    like, own = correlations.argmax(axis=0), correlations.diagonal()
    best = correlations[like, classes]
    moved = (like != classes) & (best >= FOLLOWS) & (best - own >= APART)
    order = np.where(moved, like, classes)
    if not moved.any() or set(order[moved].tolist()) != set(classes[moved].tolist()):
        return None
    before = ((found - reference)[:, moved] ** 2).sum()
    after = ((found - reference[:, order])[:, moved] ** 2).sum()
    return [int(i) for i in order] if after <= NEARER * before else None


def _correlations(one: Columns, other: Columns) -> Columns:
    centred = [columns - columns.mean(axis=0) for columns in (one, other)]
    unit = [columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12) for columns in centred]
    return np.asarray(unit[0].T @ unit[1])


def damaged_column(reference: Columns, found: Columns) -> int | None:
    """The one column that departs from the reference while all others follow it; None if there is none."""
    departures = _departures(reference, found)
    if len(departures) < 3:
        return None
    worst = int(departures.argmax())
    rest = float(np.delete(departures, worst).max())
    return worst if departures[worst] >= DAMAGED and departures[worst] >= ALONE * rest else None


def _departures(reference: Columns, found: Columns) -> Columns:
    spread = np.maximum(reference.std(axis=0), 1e-6 + 0.1 * reference.std())
    return np.asarray(np.sqrt(((found - reference) ** 2).mean(axis=0)) / spread)
