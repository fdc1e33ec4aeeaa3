"""From predictions to a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify import bootstrap, certificate, reasons, sanity
from edgetl.certify.bootstrap import BootstrapTest, balanced_accuracy_test
from edgetl.certify.certificate import Certificate, plain
from edgetl.certify.classes import ClassOutcome, balanced_accuracy, class_outcomes
from edgetl.certify.comparison import Comparison, Models, compared, indexes
from edgetl.certify.gain import Baseline, TransferGain, transfer_gain
from edgetl.certify.ladder import first_divergence, ladder, responsible
from edgetl.certify.paired import (
    Indexes,
    NonInferiority,
    PairedCounts,
    Verdict,
    check_margin,
    noninferiority,
)
from edgetl.certify.probabilities import LogitEvidence, logit_evidence, probability_shift
from edgetl.core.findings import Finding

METRICS = ("accuracy", "balanced-accuracy")


@dataclass(frozen=True)
class _Judged:
    """What was measured of the predictions, before anything is said about it.

    Attributes:
        counts: images by who got them right.
        accuracy: the test of accuracy.
        balanced: the test of balanced accuracy.
        metric: which of the two decides.
        outcomes: what happened to each class.
        gain: the transfer's, or None without a baseline.
        findings: all of them, the fatal ones first.
    """

    counts: PairedCounts
    accuracy: NonInferiority
    balanced: BootstrapTest
    metric: str
    outcomes: tuple[ClassOutcome, ...]
    gain: TransferGain | None
    findings: tuple[Finding, ...]

    @property
    def test(self) -> NonInferiority | BootstrapTest:
        """The test that decides."""
        return self.accuracy if self.metric == "accuracy" else self.balanced

    @property
    def scores(self) -> tuple[float, float]:
        """The metric that decides, of the reference and of the deployed model."""
        if self.metric == "accuracy":
            return self.counts.reference_accuracy, self.counts.deployed_accuracy
        return self.balanced.reference_score, self.balanced.deployed_score


def certify(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    margin: float = 0.01,
    alpha: float = 0.05,
    rungs: Sequence[tuple[str, npt.ArrayLike]] = (),
    executed: str = "host",
    runtime: str = "",
    isa: str = "",
    precision: str = "",
    hashes: Mapping[str, str] | None = None,
    created: str = "",
    executed_on: Mapping[str, Any] | None = None,
    *,
    metric: str = "accuracy",
    logits: Mapping[str, npt.ArrayLike] | LogitEvidence | None = None,
    baseline: Baseline | None = None,
    reproduced: tuple[float, float, int] | None = None,
    findings: Sequence[Finding] = (),
    layers: Sequence[Mapping[str, Any]] = (),
    robustness: Mapping[str, Any] | None = None,
    repair: Mapping[str, Any] | None = None,
) -> Certificate:
    """Test a deployed model against its reference on the same held-out images.

    The verdict is that of :func:`edgetl.certify.noninferiority` (or of the bootstrap, for balanced accuracy), and fail
    whenever a finding is fatal or a class collapsed: its loss is more than chance (Holm-adjusted exact McNemar
    p < ``alpha``) and at least ``margin``. ``first_divergence`` is the first rung that, against the rung above it,
    loses at least ``margin`` in accuracy, and more than chance, or has a class that collapsed.

    Args:
        reference: class index predicted by the trained model, integers [n].
        deployed: class index predicted by the deployed model for the same images, integers [n].
        labels: true class index, integers [n].
        class_names: name of every class index; without it the indexes that occur in ``labels`` are the names.
        margin: greatest acceptable loss of accuracy as a fraction, 0 <= margin < 1. With 0 the deployed model has to be
            proven better.
        alpha: one-sided level, 0 < alpha < 0.5.
        rungs: models between reference and deployed, in order, as (name, class indexes [n]).
        executed: where the deployed model ran: device, host or simulated.
        runtime: name and version of its runtime.
        isa: its instruction set.
        precision: precision that was executed.
        hashes: SHA-256 of model, splits, preprocess, manifest, predictions; those that are known.
        created: time stamp to record; no clock is read here.
        executed_on: the machine it ran on, such as its name and kind.
        metric: what the verdict is about: accuracy or balanced-accuracy.
        logits: float [n, classes] of "reference", "deployed" and rungs by name, any of which may be missing; or what
            was kept of them.
        baseline: predictions of the model that the transfer is measured against.
        reproduced: (validation accuracy that training recorded, the same measured again now, images).
        findings: faults that were found elsewhere. What is tested here anew replaces an earlier finding of its kind.
        layers: noise of each layer, the worst first, with ``module`` or ``node``; JSON values.
        robustness: to be recorded; JSON values.
        repair: to be recorded; JSON values.

    Raises:
        CertifyError: arrays that are empty, of unequal length, not integers or negative; an index without a name; a
            name given twice; logits that do not fit; a margin, alpha or place out of range.
        UnknownNameError: no metric of that name.
    """
    check_margin(margin, alpha)
    check_metric(metric)
    models, comparison = compared(reference, deployed, labels, class_names, rungs, (float(margin), float(alpha)))
    judged = _judged(models, comparison, metric, baseline, reproduced, findings)
    evidence = _evidence(logits, models, comparison.labels)
    steps = ladder(models, comparison, evidence)
    first = first_divergence(steps, judged.test.verdict == "fail", comparison.margin)
    verdict, why, notes = _said(judged, first, len(models) > 2, layers)
    outcomes = tuple(c for c in judged.outcomes if c.n or class_names is not None)
    return Certificate(
        verdict=verdict,
        **_measured(judged, outcomes),
        **_beyond(judged, evidence, models, comparison),
        ladder=steps,
        first_divergence=first,
        executed=executed,
        runtime=runtime,
        isa=isa,
        precision=precision,
        hashes=dict(hashes or {}),
        reasons=tuple(why),
        notes=(
            *notes,
            *reasons.class_notes(outcomes, comparison.margin, comparison.alpha),
            *sanity.far_below(judged.counts, reproduced),
        ),
        created=created,
        executed_on=dict(executed_on or {}),
        layers=tuple(plain(layer) for layer in layers),
        robustness=plain(robustness),
        repair=plain(repair),
    )


def check_metric(metric: str) -> None:
    """Raise UnknownNameError unless ``metric`` is one that :func:`certify` judges by."""
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)


def _judged(
    models: Models,
    comparison: Comparison,
    metric: str,
    baseline: Baseline | None,
    reproduced: tuple[float, float, int] | None,
    given: Sequence[Finding],
) -> _Judged:
    before, after, labels = models[0][1], models[-1][1], comparison.labels
    limits = comparison.margin, comparison.alpha
    counts = PairedCounts.from_predictions(before, after, labels)
    accuracy = noninferiority(counts, *limits)
    gain = None
    tested = ["suspicious-gain"] + (["reference-not-reproduced"] if reproduced else [])
    if baseline is not None:
        gain = transfer_gain(
            baseline.kind, indexes("baseline", baseline.predictions, labels), before, after, labels, comparison.alpha
        )
        tested.append("negative-transfer")
    found = (
        *sanity.reference_findings(reproduced),
        *sanity.gain_findings(accuracy),
        *sanity.transfer_findings(gain, counts.reference_accuracy),
    )
    return _Judged(
        counts=counts,
        accuracy=accuracy,
        balanced=balanced_accuracy_test(before, after, labels, *limits),
        metric=metric,
        outcomes=class_outcomes(before, after, labels, comparison.names),
        gain=gain,
        findings=sanity.together(given, found, tested),
    )


def _evidence(
    logits: Mapping[str, npt.ArrayLike] | LogitEvidence | None, models: Models, labels: Indexes
) -> LogitEvidence:
    if isinstance(logits, LogitEvidence):
        if logits.per_image is not None and len(logits.per_image) != len(labels):
            raise CertifyError(f"what was kept of the logits is of {len(logits.per_image)} images, not {len(labels)}")
        return logits
    return logit_evidence(logits or {}, labels, [name for name, _ in models])


def _said(
    judged: _Judged, first: str | None, has_rungs: bool, layers: Sequence[Mapping[str, Any]]
) -> tuple[Verdict, list[str], list[str]]:
    """The verdict, why it is that, and what else there is to say."""
    test = judged.test
    fatal = [reasons.finding_sentence(f) for f in judged.findings if f.severity == "fatal"]
    collapsed = reasons.collapse_reasons(judged.outcomes, test.margin, test.alpha)
    verdict: Verdict = "fail" if fatal or collapsed else test.verdict
    why = [*fatal, *reasons.verdict_reasons(test, judged.counts.n, judged.metric), *collapsed]
    notes = [
        *reasons.gain_notes(judged.gain),
        *(reasons.finding_sentence(f) for f in judged.findings if f.severity == "warning"),
    ]
    (why if verdict == "fail" else notes).extend(responsible(first, layers))
    # What the rungs lost of balanced accuracy is not known.
    lost = judged.accuracy.verdict == "fail" or bool(collapsed)
    if verdict == "fail" and lost and has_rungs and first is None:
        notes.append(reasons.SPREAD_LOSS)
    return verdict, why, notes


def _measured(judged: _Judged, outcomes: Sequence[ClassOutcome]) -> dict[str, Any]:
    """The certificate's fields that hold figures of the paired test."""
    counts, test = judged.counts, judged.test
    return {
        "reference_accuracy": counts.reference_accuracy,
        "deployed_accuracy": counts.deployed_accuracy,
        "difference": test.difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "p_value": test.p_value,
        "margin": test.margin,
        "alpha": test.alpha,
        "n": counts.n,
        "n_needed": test.n_needed,
        "flips": {"lost": counts.lost, "gained": counts.gained},
        "classes": {c.name: _class_record(c, test.margin, test.alpha) for c in outcomes},
        "reference_balanced_accuracy": balanced_accuracy(tuple(c.reference_recall for c in outcomes)),
        "deployed_balanced_accuracy": balanced_accuracy(tuple(c.deployed_recall for c in outcomes)),
    }


def _beyond(judged: _Judged, evidence: LogitEvidence, models: Models, comparison: Comparison) -> dict[str, Any]:
    """The fields that go beyond the test of accuracy."""
    balanced, (before, after) = judged.balanced, judged.scores
    shift = None
    if evidence.per_image is not None:
        answers = models[0][1], models[-1][1], comparison.labels
        shift = probability_shift(evidence.per_image, *answers, comparison.alpha)
    return {
        "metric": judged.metric,
        "method": certificate.METHOD if judged.metric == "accuracy" else bootstrap.METHOD,
        "reference_score": before,
        "deployed_score": after,
        "balanced": {name: getattr(balanced, name) for name in ("difference", "ci_low", "ci_high", "verdict")},
        "probabilities": shift,
        "transfer_gain": judged.gain.to_json() if judged.gain else None,
        "transfer_gain_retained": judged.gain.retained if judged.gain else None,
        "findings": tuple(plain(finding.to_json()) for finding in judged.findings),
    }


def _class_record(outcome: ClassOutcome, margin: float, alpha: float) -> dict[str, Any]:
    return {
        "n": outcome.n,
        "reference_recall": outcome.reference_recall,
        "deployed_recall": outcome.deployed_recall,
        "difference": outcome.difference,
        "lost": outcome.lost,
        "gained": outcome.gained,
        "p": outcome.p_value,
        "adjusted_p": outcome.adjusted_p,
        "collapsed": outcome.collapsed(margin, alpha),
    }
