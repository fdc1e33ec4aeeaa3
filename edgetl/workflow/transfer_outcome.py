"""Did a transfer help? A run's model against its own start, and against its baseline, on its validation samples.

The start is the linear probe: the pretrained network with the head that was fitted on its features. Its answers and
those of the finished model are kept in the run, so nothing is computed again but the paired test. An interval that
lies below 0 is negative transfer (Wang et al. 2019, "Characterizing and Avoiding Negative Transfer").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, RunError
from edgetl.certify import paired_test, restricted
from edgetl.core.run import Run, load_run
from edgetl.core.tensors import Arrays
from edgetl.core.transfer_outcome import TransferGap, TransferOutcome, read_retention
from edgetl.tasks import Task, find_task
from edgetl.tasks.several import rows_of

#: One-sided, of each bound: together they are a 95 % interval.
ALPHA = 0.025
Outputs = Mapping[str, npt.NDArray[Any]]
_RANDOM = "random initialisation"


def transfer_outcome(run: str | Path | Run) -> TransferOutcome:
    """What a run tells of its transfer: gaps with paired intervals, and whether it was measured what it forgot.

    Args:
        run: a finished run or its folder; nothing is trained, and no sample is read.

    Raises:
        RunError: a file of the run holds something else than it should.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    frozen, absent = opened.lineage.get("frozen"), _absent(opened)
    gaps = () if absent else _against_start(opened)
    if not absent and opened.metrics.epochs_run and not gaps:
        absent = f"The {opened.metrics.metric} is not defined on these validation samples: there is no gap to tell."
    given = opened.settings.get("given")
    # What has a column of its own is not forgotten.
    kept = "columns" in opened.lineage
    previous = given.get("previous") if isinstance(given, Mapping) and not kept else None
    return TransferOutcome(
        gaps=(*gaps, *_against_baseline(opened)),
        absent=absent,
        retention=read_retention(opened.path, opened.digest),
        earlier=str(previous.get("run", "")) if isinstance(previous, Mapping) else "",
        frozen=str(frozen.get("reason") or "") if isinstance(frozen, Mapping) else "",
    )


def _absent(run: Run) -> str:
    """Why a run that was trained has no start to compare with."""
    if not run.metrics.epochs_run or run.start_outputs is not None:
        return ""
    if run.lineage.get("weights") == _RANDOM:
        return "The start was random: there is no linear probe of pretrained weights to compare with."
    return "The run does not hold what its start answered: it was made before runs kept it (--fresh makes it again)."


def _against_start(run: Run) -> tuple[TransferGap, ...]:
    start = run.start_outputs
    if not run.metrics.epochs_run or start is None:
        return ()
    return _gap(run, "start", run.val_outputs if run.metrics.best_epoch == 0 else start)


def _against_baseline(run: Run) -> tuple[TransferGap, ...]:
    return () if run.baseline is None else _gap(run, run.baseline.kind, run.baseline_outputs)


def _gap(run: Run, against: Literal["start", "scratch", "probe"], other: Outputs | None) -> tuple[TransferGap, ...]:
    """The gain over another model's outputs, of several tasks that of each.

    There is none where they were not kept, or where the metric is not defined.
    """
    own, task = run.val_outputs, find_task(run.task)
    if own is None or other is None:
        return ()
    answers = [task.decode(_checked(run, task, outputs), task.options) for outputs in (other, own)]
    labels, groups = run.dataset.labels(run.dataset.measured), run.dataset.groups(run.dataset.measured)
    if not task.parts:
        found = [_tested(run, against, ("", task), answers, labels, groups)]
    else:
        found = []
        for part in run.dataset.parts:
            judged = task.parts[part.name]
            rows = [rows_of(part, labels, each, judged) for each in answers]
            known = restricted(groups, part.known(labels))
            found.append(_tested(run, against, (f"{part.name}.", judged), rows, part.own(labels), known))
    return tuple(gap for gap in found if gap is not None)


def _tested(
    run: Run,
    against: Literal["start", "scratch", "probe"],
    of: tuple[str, Task],
    answers: Sequence[Arrays],
    labels: npt.NDArray[Any],
    groups: npt.NDArray[np.int64] | None,
) -> TransferGap | None:
    """The gap of a task, ``of`` being what its metrics' names begin with, and the task; None without samples."""
    prefix, task = of
    metric, kept = task.metrics[task.metric], against == "start" and run.metrics.best_epoch == 0
    if not len(labels):
        return None
    try:
        before, after = (task.evidence(each, labels) for each in answers)
        test = paired_test(metric, before, after, 0.0, ALPHA, groups=groups)
    except CertifyError:
        return None
    # The same model twice: there is nothing that other samples could tell.
    low, high = (0.0, 0.0) if kept else (test.ci_low, test.ci_high)
    return TransferGap(
        against=against,
        metric=f"{prefix}{task.metric}",
        unit=metric.unit,
        n=len(labels),
        before=test.reference_score,
        after=test.deployed_score,
        difference=test.difference,
        ci_low=low,
        ci_high=high,
        level=1 - 2 * ALPHA,
        chosen=_chosen(run),
        kept=kept,
    )


def _checked(run: Run, task: Task, outputs: Outputs) -> Outputs:
    if run.dataset.label_kind != task.labels:
        raise RunError(
            f"{run.path} has labels of the kind '{run.dataset.label_kind}' for {task.name}", "train it again"
        )
    for spec in task.outputs(run.classes):
        values = outputs.get(spec.name)
        if values is None or not spec.accepts(values) or not np.isfinite(values).all():
            raise RunError(f"{run.path} keeps outputs that are no finite {spec}", "train the run again")
    return outputs


def _chosen(run: Run) -> bool:
    """Whether validation samples chose the epoch: not where the last one is kept, or samples of a target chose."""
    details = run.settings.get("details")
    last = isinstance(details, Mapping) and details.get("keep") == "last"
    return bool(run.metrics.epochs_run) and not last and not (run.adaptation and run.adaptation.judged)
