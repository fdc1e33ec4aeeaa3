"""Does an adopted model reach what its owner says of it? ``--claim METRIC=VALUE``, on samples of the search split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, NotReproducedError
from edgetl.base.progress import Progress, tracked
from edgetl.base.wording import count, figure
from edgetl.certify.binomial import binomial_cdf, mcnemar_loss
from edgetl.core.data import Dataset
from edgetl.diagnosis.runner import Suspect
from edgetl.inputs import Preprocess
from edgetl.inputs.base import Input
from edgetl.tasks import Evidence, Metric, Task
from edgetl.workflow.adoption.network import Network, Values
from edgetl.workflow.adoption.suspects import suspects

#: Of the interval that a claim has to lie in, two-sided.
CONFIDENCE = 0.99
REPLICATES = 2000
#: Samples on which every suspect is scored.
SCORED = 120
#: Chance at which classes in another order are believed, and how often they must be right then.
PROVEN, MOSTLY = 1e-4, 0.5


@dataclass(frozen=True)
class Claim:
    """What the owner of a model says of it: a metric of the task, and its value."""

    metric: str
    value: float


def read_claim(text: str, task: Task) -> Claim:
    """``METRIC=VALUE``; a share may be written in percent.

    Raises:
        UnknownNameError: the task has no such metric.
        CertifyError: no value, or one that the metric cannot have.
    """
    name, _, number = text.partition("=")
    metric = task.find_metric(name.strip())
    shares = task.metrics[metric].unit == "share"
    try:
        value = float(number.strip().removesuffix("%")) / (100 if number.strip().endswith("%") else 1)
    except ValueError as error:
        raise CertifyError(f"the claim '{text}' holds no number", "write METRIC=VALUE, as in accuracy=0.934") from error
    if not np.isfinite(value) or (shares and not 0 <= value <= 1):
        raise CertifyError(
            f"{value:g} is no {task.metrics[metric].title}", "give a share from 0 to 1, or percent: 93.4%"
        )
    return Claim(metric, value)


@dataclass(frozen=True)
class Measured:
    """What a model answers to labelled samples."""

    task: Task
    output: str
    paths: Sequence[Path]
    labels: npt.NDArray[Any]

    def evidence(self, values: Values, rows: slice | npt.NDArray[np.int64] = slice(None)) -> Evidence:
        """Of outputs float64 (n, width) for some of the samples."""
        answers = self.task.decode({self.output: values.astype(np.float32)}, self.task.options)
        return self.task.evidence(answers, self.labels[rows])


def measured_on(task: Task, network: Network, dataset: Dataset) -> Measured:
    """The samples of the split that a model's own metric is told of."""
    split = dataset.measured
    return Measured(task, network.output, dataset.paths(split), dataset.labels(split))


def check_claim(
    claim: Claim, own: Values, measured: Measured, network: Network, definition: Input, progress: Progress
) -> dict[str, Any]:
    """Compare a claim with what is measured; the evidence that it holds.

    Args:
        claim: by the model's owner.
        own: the model's outputs for the samples, float64 (n, width).
        measured: the samples.
        network: the model.
        definition: how a file becomes its input.
        progress: told of each suspect.

    Raises:
        NotReproducedError: it lies outside of the interval; the message names what would restore it, if that is known.
    """
    metric = measured.task.metrics[claim.metric]
    evidence = measured.evidence(own)
    found, (low, high) = metric.of(evidence), interval(metric, evidence)
    record = {
        "metric": claim.metric,
        "claimed": claim.value,
        "measured": found,
        "low": low,
        "high": high,
        "n": len(own),
    }
    if low <= claim.value <= high:
        return record
    why = _why(claim, metric, measured, network, definition, progress)
    shown = [figure(value, metric.unit) for value in (claim.value, found, low, high)]
    what = (
        f"the claimed {metric.title} of {shown[0]} is not reproduced: on {count(len(own))} samples it is {shown[1]} "
        f"({CONFIDENCE:.0%} interval {shown[2]} to {shown[3]}): {why}"
    )
    raise NotReproducedError(what, "correct what was declared, or the claim, and adopt it again")


def interval(metric: Metric, evidence: Evidence) -> tuple[float, float]:
    """Bounds of a metric at :data:`CONFIDENCE`: exact (Clopper and Pearson 1934) of a share, else by the bootstrap."""
    tail = (1 - CONFIDENCE) / 2
    if metric.right is not None and metric.strata is None:
        right = metric.right(evidence)
        return _exact(int(right.sum()), len(right), tail)
    n = len(next(iter(evidence.values())))
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=REPLICATES).astype(np.float64)
    values = metric.score(evidence, weights)
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _exact(right: int, n: int, tail: float) -> tuple[float, float]:
    grid = np.linspace(0, 1, 20001)
    fits = (binomial_cdf(right, n, grid) > tail) & (1 - binomial_cdf(right - 1, n, grid) > tail)
    inside = grid[fits]
    return float(inside.min()), float(inside.max())


@dataclass(frozen=True)
class _Scored:
    """What the metric would be if a suspect is true, with its interval."""

    suspect: Suspect
    value: float
    low: float
    high: float


def _scored(metric: Metric, measured: Measured, tried: Sequence[Suspect], progress: Progress) -> list[_Scored]:
    rows = np.unique(np.linspace(0, len(measured.paths) - 1, min(SCORED, len(measured.paths))).astype(np.int64))
    scored = []
    for suspect in tracked(tried, "scoring what may be wrong", progress):
        values = np.concatenate([np.asarray(suspect.answer(measured.paths[row]), np.float64) for row in rows])
        evidence = measured.evidence(values, rows)
        scored.append(_Scored(suspect, metric.of(evidence), *interval(metric, evidence)))
    return scored


def _why(
    claim: Claim, metric: Metric, measured: Measured, network: Network, definition: Input, progress: Progress
) -> str:
    if not isinstance(definition, Preprocess):
        return "other weights, another tokenizer or scaling, or classes in another order"
    scored = _scored(metric, measured, suspects(network, definition), progress)
    restoring = [item for item in scored if item.low <= claim.value <= item.high]
    if not restoring:
        return f"none of {len(scored)} known mistakes of preprocessing restores it"
    best = min(restoring, key=lambda item: abs(item.value - claim.value))
    more = f" ({len(restoring) - 1} others would, too)" if len(restoring) > 1 else ""
    return f"[{best.suspect.kind}] {best.suspect.what} gives {figure(best.value, metric.unit)}{more}"


def refuse_other_order(
    own: Values, measured: Measured, names: Sequence[str], network: Network, definition: Input, progress: Progress
) -> None:
    """Refuse names of classes that the labels contradict, where another order of them is proven right.

    The order is chosen on every other sample, and tested on the rest (exact McNemar). Where colours tell the classes,
    swapped channels look the same: what makes as many samples right is named instead.

    Args:
        own: the model's outputs, float64 (n, classes).
        measured: the samples and their labels, class indexes.
        names: of the classes.
        network: the model.
        definition: how a file becomes its input.
        progress: told of each suspect.

    Raises:
        NotReproducedError: it is.
    """
    if not measured.task.has_accuracy:
        return
    found, labels = own.argmax(axis=1), measured.labels
    chosen, tested = slice(0, None, 2), slice(1, None, 2)
    order = _assigned(found[chosen], labels[chosen], len(names))
    before, after = found[tested] == labels[tested], order[found[tested]] == labels[tested]
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    if not len(after) or after.mean() < MOSTLY or gained <= lost or float(mcnemar_loss(gained, lost)) > PROVEN:
        return
    if isinstance(definition, Preprocess):
        accuracy = measured.task.metrics["accuracy"]
        best = max(_scored(accuracy, measured, suspects(network, definition), progress), key=lambda item: item.value)
        if best.value >= after.mean():
            what = (
                f"[{best.suspect.kind}] the preprocessing is not what was declared: {before.mean():.1%} of "
                f"{len(after)} samples are right, and {best.suspect.what} makes it {best.value:.1%}"
            )
            raise NotReproducedError(what, "correct what was declared, and adopt it again")
    moved = [(names[k], names[order[k]]) for k in range(len(names)) if order[k] != k and (found == k).any()]
    shown = "; ".join(f"output '{one}' is right as '{other}'" for one, other in moved[:3])
    what = (
        f"[label-order] the names of the classes are in another order than the model's outputs ({shown}): as named, "
        f"{before.mean():.1%} of {len(after)} samples are right, and {after.mean():.1%} in that order"
    )
    raise NotReproducedError(what, "give the names in the order of the outputs: --classes FILE")


def _assigned(found: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """For each output the class that it mostly stands for, each class once, the clearest pairs first."""
    counted = np.zeros((classes, classes), np.int64)
    np.add.at(counted, (found, labels), 1)
    order = np.arange(classes)
    free = set(range(classes))
    open_outputs = set(range(classes))
    for place in np.argsort(-counted, axis=None, kind="stable"):
        output, label = divmod(int(place), classes)
        if not counted[output, label]:
            break
        if output in open_outputs and label in free:
            order[output] = label
            open_outputs.remove(output)
            free.remove(label)
    for output in sorted(open_outputs):
        order[output] = output if output in free else min(free)
        free.remove(int(order[output]))
    return order
