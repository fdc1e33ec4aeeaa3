"""What a certificate is made of: rungs, classes, scores, probabilities, the transfer's gain, robustness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgetl.base.schema import named

Verdict = Literal["pass", "fail", "underpowered"]
Unit = Literal["share", "labels", ""]


@dataclass(frozen=True)
class Score:
    """One metric of both models, and the paired test of it.

    Attributes:
        reference, deployed: the metric of each; None where only differences are known.
        difference: the gain: deployed minus reference, or the reverse where lower values are better; None where labels
            are missing that would tell it.
        ci_low, ci_high: one-sided 1 - alpha bounds of the true one.
        verdict: by the test of this metric alone.
        margin: greatest acceptable loss.
        unit: share (0 to 1), labels (the labels' own unit), or "".
    """

    reference: float | None
    deployed: float | None
    difference: float | None
    ci_low: float
    ci_high: float
    verdict: Verdict
    margin: float
    unit: Unit


@dataclass(frozen=True)
class Balanced:
    """The test of balanced accuracy at the certificate's margin; see :class:`Score`."""

    difference: float
    ci_low: float
    ci_high: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A model of the parity ladder, against the one above it.

    Attributes:
        name: of the model.
        score: the certificate's metric.
        accuracy: share of right samples, where the task has such.
        agreement: share of answers equal to those above it; 1 for the first.
        difference: the gain, of accuracy where there is one and the metric is a share, else of the metric; it and all
            that follow are None for the first rung.
        ci_low, ci_high: one-sided bounds of it.
        lost, gained: samples that only the model above, or only this one, gets right; None where no answer is right or
            wrong.
        diverges: whether it loses at least the margin, and more than chance, or has a class that collapsed.
        logit_distance, kl: see :class:`edgetl.certify.probabilities.Step`; None where logits are unknown.
        divergence: how far its outputs are from those above, as the task has it; None where outputs are unknown.
    """

    name: str
    score: float
    accuracy: float | None
    agreement: float
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    lost: int | None = None
    gained: int | None = None
    diverges: bool = False
    logit_distance: float | None = None
    kl: float | None = None
    divergence: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassRecord:
    """What happened to one class, or to the samples that have one label.

    Attributes:
        n: samples of it.
        reference_recall, deployed_recall, difference: shares that each model gets right; None without samples.
        lost, gained: samples that only the reference, or only the deployed model, gets right.
        p_value: exact one-sided McNemar p of a loss.
        adjusted_p: the same after Holm's adjustment.
        collapsed: whether the loss is more than chance and at least the margin.
    """

    n: int
    reference_recall: float | None
    deployed_recall: float | None
    difference: float | None
    lost: int
    gained: int
    p_value: float = field(metadata=named("p"))
    adjusted_p: float
    collapsed: bool


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What becomes of a confidence threshold that was chosen on the trained model so that it keeps 90 % of the samples.

    Attributes:
        kept: 0.9.
        reference, deployed: the threshold of each model that keeps at least so many.
        shift: deployed minus reference.
        deployed_kept: share that the deployed model keeps at the reference's threshold.
        reference_accuracy, deployed_accuracy: of each on what it keeps there; None if that is nothing.
    """

    kept: float
    reference: float
    deployed: float
    shift: float
    deployed_kept: float
    reference_accuracy: float
    deployed_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """What happened to the probabilities between reference and deployed model.

    Attributes:
        kl: mean KL(reference || deployed), nats.
        agreement: share of equal predictions.
        reference_ece, deployed_ece: expected calibration error of the top label over 15 bins of equal width (C. Guo et
            al. 2017, "On Calibration of Modern Neural Networks").
        reference_brier, deployed_brier: multiclass Brier score, 0 to 2.
        brier_difference: deployed minus reference, positive is worse, with its paired bootstrap bounds ``brier_ci_low``
            and ``brier_ci_high``.
        reference_nll, deployed_nll: mean -log of the true label's probability, nats.
        threshold: see :class:`Threshold`.
    """

    kl: float
    agreement: float
    reference_ece: float
    deployed_ece: float
    reference_brier: float
    deployed_brier: float
    brier_difference: float
    brier_ci_low: float
    brier_ci_high: float
    reference_nll: float
    deployed_nll: float
    threshold: Threshold


@dataclass(frozen=True, kw_only=True)
class TransferGain:
    """The transfer's gain over a baseline, and how much of it was kept.

    Attributes:
        kind: the baseline's: scratch or probe.
        baseline_accuracy: share of samples that the baseline gets right.
        retained: (deployed - baseline) / (reference - baseline) accuracy; 1 when everything was kept. None where the
            reference is not proven better than the baseline: a ratio to what may be nothing has no meaning.
        ci_low: one-sided 1 - alpha lower bound of ``retained``; None with it, or where it has no bound.
        ci_high: one-sided 1 - alpha upper bound; None likewise.
        gap: negative-transfer gap, baseline minus reference accuracy; positive where the transfer did harm.
        gap_ci_low: one-sided 1 - alpha lower bound of ``gap``, by the test of :mod:`edgetl.certify.paired`.
        gap_ci_high: one-sided 1 - alpha upper bound of it.
        helped: better (the reference is proven better than the baseline), worse (proven worse) or not shown.
    """

    kind: Literal["scratch", "probe"]
    baseline_accuracy: float
    retained: float | None
    ci_low: float | None
    ci_high: float | None
    gap: float
    gap_ci_low: float
    gap_ci_high: float
    helped: Literal["better", "not shown", "worse"]


@dataclass(frozen=True, kw_only=True)
class CorruptedRow:
    """The paired test under one corruption: ``none`` of severity 0, or another of severity 1 to 5."""

    corruption: str
    severity: int
    reference_accuracy: float
    deployed_accuracy: float
    difference: float
    ci_low: float
    ci_high: float
    lost: int
    gained: int
    n: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class CleanAndCorrupted:
    """An accuracy on clean samples, and its mean over all corruptions."""

    clean: float
    corrupted: float


@dataclass(frozen=True, kw_only=True)
class ExcessLoss:
    """How much more is lost under corruption than on clean samples, as ``edgetl.robustness.excess_loss`` gives it."""

    reference_accuracy: CleanAndCorrupted
    deployed_accuracy: CleanAndCorrupted
    clean: float
    corrupted: float
    excess: float
    ci_low: float
    ci_high: float
    p_value: float
    alpha: float
    proven: bool
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The same test under corruptions, as ``edgetl.robustness.measure`` gives it."""

    n: int
    available: int
    severities: tuple[int, ...]
    clean: CorruptedRow
    rows: tuple[CorruptedRow, ...]
    worst: CorruptedRow
    summary: ExcessLoss


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One look at the certify split: on what terms, of what, and what came of it.

    Attributes:
        target: of the bundle.
        metric, margin, alpha, sequential: the terms.
        verdict, n: of its certificate.
        executed, device: where the deployed model ran.
        artifact, predictions: SHA-256 of the model's files, and of what it answered.
        when: UTC, ISO 8601; "" where nobody noted it.
    """

    target: str
    metric: str
    margin: float
    alpha: float
    sequential: bool
    verdict: Verdict
    n: int
    executed: str
    device: str
    artifact: str
    predictions: str
    when: str = ""

    @property
    def terms(self) -> tuple[str, float, float, bool]:
        """What the certificate was held to."""
        return self.metric, self.margin, self.alpha, self.sequential
