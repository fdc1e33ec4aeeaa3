"""From answers to a certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify import reasons, sanity
from edgetl.certify.checks import DEPLOYED, REFERENCE
from edgetl.certify.classes import ClassOutcome, balanced_accuracy
from edgetl.certify.comparison import Comparison, compared
from edgetl.certify.facts import Facts, plain, stated
from edgetl.certify.gain import Baseline, transfer_gain
from edgetl.certify.groups import units
from edgetl.certify.ladder import first_divergence, ladder, responsible
from edgetl.certify.metric_test import MetricTest
from edgetl.certify.paired import PairedCounts, paired_indexes
from edgetl.certify.probabilities import LogitEvidence, logit_evidence, probability_shift
from edgetl.certify.several import certify_several
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Balanced, Probabilities, Rung, TransferGain, Verdict
from edgetl.core.compression import LayerNoise
from edgetl.core.data.samples import CLASS
from edgetl.core.findings import Finding
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task

ACCURACY, BALANCED = "accuracy", "balanced-accuracy"
#: From the ladder of a model that lost too much to what is behind it.
Explain = Callable[[Sequence[Rung]], Sequence[Finding]]


@dataclass(frozen=True)
class _Judged:
    """What was measured of the answers, before anything is said about it.

    Attributes:
        comparison: what was compared.
        tests: of every metric that has a value.
        counts: samples by which model is right, or None.
        outcomes: what happened to each class.
        gain: the transfer's, or None without a baseline.
        findings: all of them, the fatal ones first.
        sample: what a sample is called.
    """

    comparison: Comparison
    tests: Mapping[str, MetricTest]
    counts: PairedCounts | None
    outcomes: tuple[ClassOutcome, ...]
    gain: TransferGain | None
    findings: tuple[Finding, ...]
    sample: str

    @property
    def test(self) -> MetricTest:
        """The test that decides."""
        return self.tests[self.comparison.metric]

    @property
    def class_margin(self) -> float:
        """The greatest acceptable loss of a class's recall."""
        return self.comparison.class_margin

    @property
    def fatal(self) -> bool:
        """Whether a finding makes the comparison worthless."""
        return any(finding.severity == "fatal" for finding in self.findings)

    @property
    def lost(self) -> bool:
        """Whether the deployed model fails by its answers alone."""
        return self.test.verdict == "fail" or bool(self.collapsed)

    @property
    def collapsed(self) -> list[str]:
        """A sentence for each class that collapsed."""
        return reasons.collapse_reasons(self.outcomes, self.class_margin, self.comparison.chance, self.sample)


def certify_answers(
    task: Task,
    labels: npt.ArrayLike,
    models: Mapping[str, Arrays],
    names: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    trained: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    logits: Mapping[str, npt.ArrayLike] | LogitEvidence | None = None,
    baseline: Baseline | None = None,
    reproduced: tuple[float, float, int] | None = None,
    findings: Sequence[Finding] = (),
    explain: Explain | None = None,
    facts: Facts | None = None,
    tasks: int = 1,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
) -> Certificate:
    """Test a deployed model against its reference on the same held-out samples, whatever they are for.

    Several tasks at once are judged by :func:`edgetl.certify.several.certify_several`. The verdict is that of
    :func:`edgetl.certify.paired_test` for ``metric``, and fail whenever a finding is fatal or a class collapsed: its
    loss is more than chance (Holm-adjusted exact p) and at least ``margin``. ``first_divergence`` is the first rung
    that loses as much, and more than chance, or has a class that collapsed.

    Args:
        task: what the models are for.
        labels: the truth, as the task's kind of label has it.
        models: answers by name, as ``task.decode`` gives them: "reference", the rungs below it in order, "deployed".
        names: of the classes or labels, or else their indexes.
        metric: what the verdict is about; the task's default when None.
        margin: greatest acceptable loss of it; its default when None. With 0 the deployed model has to be better.
        trained: labels of training, of whose spread default margins in their unit are a hundredth; or ``labels``.
        alpha: one-sided level, 0 < alpha < 0.5.
        groups: one value for what belongs together, integers or strings [n]: whole groups are tested then.
        logits: of classes, float [n, classes] of the models by name, any of which may be missing; or what was kept of
            them. Where it is None they are taken from the answers.
        baseline: predictions of the model that the transfer is measured against.
        reproduced: validation metric that training recorded, the same measured again now, samples.
        findings: faults that were found elsewhere. What is tested here anew replaces an earlier finding of its kind.
        explain: asked what is behind a loss, where there is one that no fatal finding explains.
        facts: what else the certificate says.
        tasks: that are judged together, of which this is one.
        value_range: least and greatest value that there can be, of a regression; None where that is not known.
        sequential: whether it may be read after every new batch of samples, as often as one likes.

    Raises:
        CertifyError: arrays that are empty or do not fit each other or the task; a margin, alpha or place out of range.
        UnknownNameError: no metric of that name.
    """
    facts = facts or Facts()
    if task.parts:
        if value_range is not None or sequential:
            raise CertifyError("--value-range and --sequential are of one task", "leave them out")
        return certify_several(
            certify_answers, task, labels, models, names, metric=metric, margin=margin, alpha=alpha, trained=trained,
            groups=groups, reproduced=reproduced, findings=findings, facts=facts,
        )  # fmt: skip
    comparison = compared(
        task, labels, models, names, metric, margin, alpha, trained, groups, tasks, value_range, sequential
    )
    judged = _judged(comparison, baseline, reproduced, findings, facts.sample)
    evidence = _evidence(logits, comparison)
    rungs = ladder(comparison, evidence)
    first = first_divergence(rungs, judged.test.verdict == "fail", comparison.margin)
    if explain is not None and judged.lost and not judged.fatal:
        judged = replace(judged, findings=(*judged.findings, *explain(rungs)))
    verdict, why, notes = _said(judged, first, len(rungs) > 2, facts.layers)
    outcomes = tuple(c for c in judged.outcomes if c.n or names is not None)
    return Certificate(
        verdict=verdict,
        task=task.name,
        value_range=value_range,
        sequential=sequential,
        registered=reasons.is_registered(comparison, facts.readings),
        **_measured(judged, outcomes),
        **_beyond(judged, evidence),
        ladder=rungs,
        first_divergence=first,
        reasons=tuple(why),
        notes=(*notes, *_told(judged, outcomes, reproduced, facts)),
        **stated(facts),
    )


def _told(
    judged: _Judged,
    outcomes: Sequence[ClassOutcome],
    reproduced: tuple[float, float, int] | None,
    facts: Facts,
) -> Iterator[str]:
    """What has to be said of the samples, of earlier readings, and of single classes."""
    yield from facts.notes
    yield from reasons.reading_notes(judged.comparison, facts.readings)
    yield from reasons.class_notes(outcomes, judged.class_margin, judged.comparison.chance, facts.sample)
    if judged.comparison.task.metric == ACCURACY and judged.counts:
        yield from sanity.far_below(judged.counts, reproduced, facts.sample)


def _judged(
    comparison: Comparison,
    baseline: Baseline | None,
    reproduced: tuple[float, float, int] | None,
    given: Sequence[Finding],
    sample: str,
) -> _Judged:
    task, counts = comparison.task, comparison.counts()
    metrics = [name for name in task.metrics if name == comparison.metric or comparison.defined(name)]
    tests = {name: comparison.test(name) for name in metrics}
    trusted = ACCURACY if ACCURACY in tests else comparison.metric
    gain, tested = None, ["suspicious-gain"] + (["reference-not-reproduced"] if reproduced else [])
    if baseline is not None:
        gain = _gain(comparison, baseline)
        tested.append("negative-transfer")
    found = (
        *sanity.reference_findings(reproduced, task.metrics[task.metric], sample),
        *sanity.gain_findings(tests[trusted], task.metrics[trusted]),
        *sanity.transfer_findings(gain, tests[trusted].reference_score, sample),
    )
    return _Judged(
        comparison, tests, counts, comparison.outcomes(), gain, sanity.together(given, found, tested), sample
    )


def _gain(comparison: Comparison, baseline: Baseline) -> TransferGain:
    if not comparison.task.has_accuracy:
        raise CertifyError(f"a baseline of {comparison.task.name} cannot be compared", "leave it out")
    labels, own = paired_indexes(labels=comparison.labels, baseline=baseline.predictions)
    before, after = (comparison.models[name]["class"] for name in (REFERENCE, DEPLOYED))
    return transfer_gain(baseline.kind, own, before, after, labels, comparison.alpha, comparison.groups)


def _evidence(logits: Mapping[str, npt.ArrayLike] | LogitEvidence | None, comparison: Comparison) -> LogitEvidence:
    if comparison.task.labels != CLASS:
        return LogitEvidence()
    if isinstance(logits, LogitEvidence):
        if logits.per_image is not None and len(logits.per_image) != comparison.n:
            raise CertifyError(f"what was kept of the logits is of {len(logits.per_image)} samples, not {comparison.n}")
        return logits
    own = {name: answers["logits"] for name, answers in comparison.models.items() if "logits" in answers}
    return logit_evidence(own if logits is None else logits, comparison.labels, list(comparison.models))


def _said(
    judged: _Judged, first: str | None, has_rungs: bool, layers: Sequence[LayerNoise]
) -> tuple[Verdict, list[str], list[str]]:
    """The verdict, why it is that, and what else there is to say."""
    test, metric = judged.test, judged.comparison.decides
    fatal = [reasons.finding_sentence(f) for f in judged.findings if f.severity == "fatal"]
    collapsed = judged.collapsed
    verdict: Verdict = "fail" if fatal or collapsed else test.verdict
    why = [*fatal, *reasons.verdict_reasons(test, judged.comparison.n, metric, judged.sample), *collapsed]
    notes = [
        *([metric.assumes] if metric.assumes else []),
        *reasons.margin_notes(judged.comparison),
        *reasons.sequential_notes(judged.comparison, judged.test, judged.sample),
        *reasons.gain_notes(judged.gain, judged.comparison.task),
        *(reasons.finding_sentence(f) for f in judged.findings if f.severity == "warning"),
    ]
    (why if verdict == "fail" else notes).extend(responsible(first, layers))
    # What the rungs lost of balanced accuracy is not known.
    known = judged.tests.get(ACCURACY, test) if metric.unit == "share" else test
    lost = known.verdict == "fail" or bool(collapsed)
    if verdict == "fail" and lost and has_rungs and first is None:
        notes.append(reasons.SPREAD_LOSS)
    return verdict, why, notes


def _measured(judged: _Judged, outcomes: Sequence[ClassOutcome]) -> dict[str, Any]:
    """The certificate's fields that hold figures of the paired test."""
    counts, test, comparison = judged.counts, judged.test, judged.comparison
    accuracy, balanced = judged.tests.get(ACCURACY), judged.tests.get(BALANCED)
    recalls = [[getattr(c, f"{model}_recall") for c in outcomes] for model in (REFERENCE, DEPLOYED)]
    return {
        "metric": comparison.metric,
        "reference_score": test.reference_score,
        "deployed_score": test.deployed_score,
        "difference": test.difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "p_value": test.p_value,
        "margin": test.margin,
        "alpha": test.alpha,
        "n": comparison.n,
        "units": units(comparison.groups, comparison.n),
        "n_needed": test.n_needed,
        "method": test.method,
        "scores": {name: found.record(comparison.task.metrics[name].unit) for name, found in judged.tests.items()},
        "flips": {"lost": counts.lost, "gained": counts.gained} if counts else {},
        "reference_accuracy": accuracy and accuracy.reference_score,
        "deployed_accuracy": accuracy and accuracy.deployed_score,
        "reference_balanced_accuracy": balanced and balanced_accuracy(recalls[0]),
        "deployed_balanced_accuracy": balanced and balanced_accuracy(recalls[1]),
        "balanced": balanced and Balanced(balanced.difference, balanced.ci_low, balanced.ci_high, balanced.verdict),
        "classes": {c.name: c.record(judged.class_margin, comparison.chance) for c in outcomes},
    }


def _beyond(judged: _Judged, evidence: LogitEvidence) -> dict[str, Any]:
    """The fields that go beyond the test of the metric."""
    shift: Probabilities | None = None
    comparison = judged.comparison
    if evidence.per_image is not None:
        before, after = (comparison.models[name]["class"] for name in (REFERENCE, DEPLOYED))
        told = (comparison.labels, comparison.alpha, comparison.groups)
        shift = probability_shift(evidence.per_image, before, after, *told)
    return {
        "probabilities": shift,
        "transfer_gain": judged.gain,
        "transfer_gain_retained": judged.gain.retained if judged.gain else None,
        "findings": tuple(replace(finding, evidence=plain(finding.evidence)) for finding in judged.findings),
    }
