"""One certificate for several tasks, and one for each: the whole passes if every task does.

Each task is tested by itself, on the samples that have a label of it. Claiming that all of them hold when each test
says so at its own level errs no more often than that level: an intersection-union test (Berger 1982, "Multiparameter
Hypothesis Testing and Acceptance Sampling", Technometrics 24), so no correction is due. A model
that lost nothing fails if any task says so: there the level is shared among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.wording import enumerated
from edgetl.certify import reasons, sanity
from edgetl.certify.checks import checked
from edgetl.certify.facts import Facts, plain
from edgetl.certify.groups import group_indexes, restricted
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Verdict
from edgetl.core.data import Part, parts_of
from edgetl.core.findings import Finding
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task
from edgetl.tasks.several import MEAN, rows_of

#: The worst first.
_ORDER: tuple[Verdict, ...] = ("fail", "underpowered", "pass")
#: The margin that default margins are multiples of.
_DEFAULT = 0.01


def certify_several(
    one: Callable[..., Certificate],
    task: Task,
    labels: npt.ArrayLike,
    models: Mapping[str, Arrays],
    names: Sequence[str] | None,
    *,
    metric: str | None,
    margin: float | None,
    alpha: float,
    trained: npt.ArrayLike | None,
    groups: npt.ArrayLike | None,
    reproduced: tuple[float, float, int] | None,
    findings: Sequence[Finding],
    facts: Facts,
) -> Certificate:
    """Test each task of several, and all of them together.

    Args:
        one: gives the certificate of a task: :func:`edgetl.certify.certify_answers`.
        task: of several, its :attr:`Task.parts`.
        labels: float64 (n, columns), NaN where a sample has no label of a task.
        models: answers by name, as ``task.decode`` gives them.
        names: of the classes of all tasks.
        metric: what one of the tasks is judged by instead of its default metric, ``NAME.metric``; "mean" or None: none.
        margin: greatest acceptable loss of a share, and in standard deviations of the labels where its unit is theirs;
            None for each metric's own.
        alpha: one-sided level of each test, and of the whole.
        trained: labels of training, as ``labels``.
        groups: one value for what belongs together [n], or None.
        reproduced, findings, facts: as of one task; they are of the whole.

    Raises:
        CertifyError: no sample has a label of a task, or arrays that do not fit.
        UnknownNameError: no metric of that name.
    """
    chosen = task.find_metric(metric)
    truth, answers, named = checked(task, labels, models, names)
    together = group_indexes(groups, len(truth))
    scale = truth if trained is None else np.asarray(trained, np.float64)
    # What is told of the artifact is told once.
    shared = replace(facts, layers=(), robustness=None, repair=None, readings=())
    found: dict[str, Certificate] = {}
    for part in parts_of(task.labels, named):
        judged = task.parts[part.name]
        by = chosen.removeprefix(f"{part.name}.") if chosen.startswith(f"{part.name}.") else judged.metric
        rows = {name: rows_of(part, truth, given, judged) for name, given in answers.items()}
        seen = _labels(part, truth)
        known = _labels(part, scale) if part.known(scale).any() else seen
        held = None if margin is None else margin / _DEFAULT * judged.metrics[by].margin_for(known)
        own = None if judged.labels == "number" else part.classes
        found[part.name] = one(
            judged, seen, rows, own, metric=by, margin=held, alpha=alpha, trained=known, facts=shared,
            groups=restricted(together, part.known(truth)), tasks=len(task.parts),
        )  # fmt: skip
    told = (
        *findings,
        *sanity.reference_findings(reproduced, task.metrics[MEAN], facts.sample),
    )
    whole = _whole(task, found, sanity.together(told, (), []))
    whole = replace(whole, layers=tuple(facts.layers), robustness=facts.robustness, repair=facts.repair)
    return replace(whole, readings=facts.readings)


def _labels(part: Part, labels: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    own = part.own(labels)
    if not len(own):
        what = f"no sample that is certified on has a label of the task '{part.name}'"
        raise CertifyError(what, "label some, or leave the task out")
    return own


def _whole(task: Task, found: Mapping[str, Certificate], findings: tuple[Finding, ...]) -> Certificate:
    """All figures are those of the task that decides; the verdict is about all of them."""
    name = min(found, key=lambda each: (_ORDER.index(found[each].verdict), _room(found[each])))
    decides = found[name]
    fatal = [finding for finding in findings if finding.severity == "fatal"]
    verdict: Verdict = "fail" if fatal else decides.verdict
    why = [reasons.finding_sentence(finding) for finding in fatal]
    why += [f"{each}: {reason}" for each, own in found.items() for reason in own.reasons if own.verdict == verdict]
    tested = f"The {len(found)} tasks ({enumerated(found)}) are tested one by one, and the whole passes if all do."
    warnings = [reasons.finding_sentence(f) for f in findings if f.severity == "warning"]
    said = {
        note: [each for each, own in found.items() if note in own.notes] for c in found.values() for note in c.notes
    }
    notes = [f"{', '.join(who)}: {note}" for note, who in said.items()]
    return replace(
        decides,
        verdict=verdict,
        task=task.name,
        metric=f"{name}.{decides.metric}",
        scores={f"{each}.{key}": score for each, own in found.items() for key, score in own.scores.items()},
        classes={f"{each}: {key}": row for each, own in found.items() for key, row in own.classes.items()},
        reasons=tuple(why),
        notes=(tested, *warnings, *notes),
        findings=tuple(replace(finding, evidence=plain(finding.evidence)) for finding in findings),
        parts=dict(found),
    )


def _room(certificate: Certificate) -> float:
    """How far the interval stays above the greatest acceptable loss, in units of it."""
    room = certificate.ci_low + certificate.margin
    return room / certificate.margin if certificate.margin else certificate.ci_low
