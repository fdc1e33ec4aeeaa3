"""The certificate: what was compared, what was found, and a digest that shows any later edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from edgetl.base.errors import CertifyError
from edgetl.base.schema import Json, from_json, to_json
from edgetl.base.storage import DIGEST_FIELD, is_sealed, sealed
from edgetl.base.wording import amount, change, count, counted, figure, percent
from edgetl.core.agreement import Agreement
from edgetl.core.certificate_parts import (
    Balanced,
    ClassRecord,
    Probabilities,
    Reading,
    Robustness,
    Rung,
    Score,
    TransferGain,
    Verdict,
)
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.findings import Finding

SCHEMA: Literal[3] = 3
Executed = Literal["device", "host", "simulated", "claimed"]
EXECUTED: tuple[Executed, ...] = get_args(Executed)
AGAIN = "delete it, then make it again with edgetl verify --data"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Outcome of a paired test of a deployed model against its reference, on the same held-out samples.

    Accuracies and recalls are fractions from 0 to 1; every difference is a gain: deployed minus reference, or the
    reverse for a metric of which lower values are better.

    Attributes:
        verdict: pass, fail or underpowered (see :mod:`edgetl.certify.paired`); also fail when one class collapsed or
            a finding is fatal.
        task: key into :data:`edgetl.tasks.TASKS`.
        metric: what the verdict is about, a key of ``scores``.
        reference_score: that metric of the reference; None with ``agreement``, which tells differences alone.
        deployed_score: that metric of the deployed model; None likewise.
        difference: gain in ``metric``: negative is a loss; None where labels are missing that would tell it.
        ci_low: one-sided 1 - alpha lower bound of the true difference; with ``ci_high`` the two-sided 1 - 2 alpha
            interval.
        ci_high: one-sided 1 - alpha upper bound of it.
        p_value: one-sided, of "the true loss is at least the margin".
        margin: greatest acceptable loss.
        alpha: one-sided level.
        n: samples.
        units: how many of them are independent: groups of samples that belong together count once; None, as in older
            certificates: all.
        n_needed: samples for a pass with probability 0.8; None with margin 0.
        scores: every metric of the task, at the same margin where its unit is that of ``metric``.
        flips: ``lost`` and ``gained``, counts of samples; empty where no answer is right or wrong.
        reference_accuracy: share of samples that the reference gets right; None for a task without right answers.
        deployed_accuracy: share of samples that the deployed model gets right; None likewise.
        reference_balanced_accuracy: mean recall of the reference over the classes that have samples, or None.
        deployed_balanced_accuracy: the same of the deployed model.
        balanced: the bootstrapped test of balanced accuracy at the same margin, whatever ``metric`` is; None for a task
            without classes.
        classes: what happened to each class or label, by name.
        probabilities: what happened to the probabilities; None without logits.
        transfer_gain: see :class:`TransferGain`; None without a baseline.
        transfer_gain_retained: its ``retained``.
        ladder: the models in order, from the reference down to what runs on the device.
        first_divergence: name of the first rung that diverges (see :func:`edgetl.certify.certify`), or None.
        executed: where the deployed model ran: device, host or simulated; claimed where edgetl was given its answers
            and saw nothing run.
        executed_on: the machine it ran on, such as its name and kind.
        runtime: name and version of the runtime.
        isa: instruction set.
        precision: precision that was executed.
        hashes: SHA-256 of what the certificate speaks of: model, splits, preprocess, manifest, predictions.
        reasons: why the verdict is what it is, in sentences.
        notes: what the certificate cannot say, in sentences.
        findings: what is wrong with the transfer, the fatal first.
        layers: the noise of each layer, the worst first.
        robustness: the same test under corruptions, or None.
        repair: what was tried to mend the model, or None.
        method: the interval's method.
        sample: what one sample is called, such as image; its plural ends in s.
        labelled_by: who says what is right: the data's owner, or the trained model, where nobody labelled the samples:
            then every score is one of agreement with it.
        parts: of several tasks, the certificate of each by its name; the figures of this one are those of the task
            that decides, whose name its ``metric`` begins with. None of a single task.
        value_range: least and greatest value that there can be, of a regression on whose range the verdict rests;
            None where that is not known.
        sequential: whether the verdict holds however often samples were added and it was read.
        readings: of the certify split that came before this one, the first one first.
        registered: whether the terms are those of the first reading; False where they were chosen after it.
        agreement: of samples without labels, what they say; None where all samples have one.
        created: time stamp given by the caller, or empty; no clock is read.
        schema: version of this record.

    Raises:
        CertifyError: ``executed`` is no place.
        ValueError: there is no score of the metric, or accuracies without flips.
    """

    verdict: Verdict
    task: str
    metric: str
    reference_score: float | None
    deployed_score: float | None
    difference: float | None
    ci_low: float
    ci_high: float
    p_value: float
    margin: float
    alpha: float
    n: int
    n_needed: int | None
    scores: Mapping[str, Score]
    flips: Mapping[str, int]
    reference_accuracy: float | None
    deployed_accuracy: float | None
    reference_balanced_accuracy: float | None
    deployed_balanced_accuracy: float | None
    balanced: Balanced | None
    classes: Mapping[str, ClassRecord]
    probabilities: Probabilities | None
    transfer_gain: TransferGain | None
    transfer_gain_retained: float | None
    ladder: tuple[Rung, ...]
    first_divergence: str | None
    executed: Executed
    executed_on: Mapping[str, Json]
    runtime: str
    isa: str
    precision: str
    hashes: Mapping[str, str]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    layers: tuple[LayerNoise, ...]
    robustness: Robustness | None
    repair: RepairRecord | None
    method: str
    sample: str
    created: str
    labelled_by: Literal["owner", "model"] = "owner"
    parts: Mapping[str, Certificate] = field(default_factory=dict)
    units: int | None = None
    value_range: tuple[float, float] | None = None
    sequential: bool = False
    readings: tuple[Reading, ...] = ()
    registered: bool = True
    agreement: Agreement | None = None
    schema: Literal[3] = SCHEMA

    def __post_init__(self) -> None:
        if self.executed not in EXECUTED:
            raise CertifyError(f"executed '{self.executed}' is unknown", f"choose one of {', '.join(EXECUTED)}")
        if self.units is None:
            object.__setattr__(self, "units", self.n)
        if self.metric not in self.scores:
            raise ValueError(f"there is no score of its metric '{self.metric}'")
        if self.n < 1 or (self.reference_accuracy is None) != (self.deployed_accuracy is None):
            raise ValueError("it compares nothing")
        if not 0 < (self.units or 0) <= self.n:
            raise ValueError(f"it rests on {self.units} independent ones of {self.n}")
        if self.reference_accuracy is not None and not {"lost", "gained"} <= set(self.flips):
            raise ValueError("it has accuracies without flips")
        if self.agreement is None and None in (self.reference_score, self.deployed_score, self.difference):
            raise ValueError("it has no scores")
        if self.agreement is not None and self.agreement.disagreed > self.n:
            raise ValueError("more samples differ than there are")

    @property
    def figures(self) -> tuple[float, float, float]:
        """The scores of the reference and of the deployed model, and the difference, where all samples have a label.

        Raises:
            CertifyError: some have none.
        """
        before, after, difference = self.reference_score, self.deployed_score, self.difference
        if before is None or after is None or difference is None:
            raise CertifyError("scores of samples without labels are not known", "give labels to all of them")
        return before, after, difference

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, with its digest."""
        record = {**to_json(self), "findings": [finding.to_json() for finding in self.findings]}
        # Certificates from before there was another one do not say it, and most are of one task.
        if self.labelled_by == "owner":
            del record["labelled_by"]
        if self.value_range is None:
            del record["value_range"]
        if not self.sequential:
            del record["sequential"]
        if self.registered:
            del record["registered"]
        if self.parts:
            record["parts"] = {name: part.to_json() for name, part in self.parts.items()}
        else:
            del record["parts"]
        if self.agreement is None:
            del record["agreement"]
        return sealed(record)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, 64 hexadecimal digits."""
        return str(self.to_json()[DIGEST_FIELD])

    @classmethod
    def from_json(cls, record: Mapping[str, Any], source: str = "the certificate") -> Certificate:
        """Read what :meth:`to_json` gave, or a record sealed again with more fields, which are left out.

        Args:
            record: plain JSON values.
            source: the file that they come from, for the message.

        Raises:
            CertifyError: the record was altered, is of another shape, or comes from another version of edgetl.
        """
        if not isinstance(record, Mapping):
            raise CertifyError(f"{source} is not a JSON object", AGAIN)
        if not is_sealed(record):
            raise CertifyError(f"{source} was altered (its digest does not match its content)", AGAIN)
        if record.get("schema") != SCHEMA:
            raise CertifyError(
                f"{source} is of another version of edgetl (schema {record.get('schema')!r:.20}, this one reads "
                f"{SCHEMA})",
                AGAIN,
            )
        parts = record.get("parts")
        # One level, so that nobody's nesting is followed.
        if isinstance(parts, Mapping) and any(isinstance(part, Mapping) and "parts" in part for part in parts.values()):
            raise CertifyError(f"{source}: a task has tasks of its own", AGAIN)
        return from_json(cls, dict(record), source, CertifyError, AGAIN)

    @property
    def unit(self) -> str:
        """Of the metric: share, labels or "" (see :class:`Score`)."""
        return self.scores[self.metric].unit

    @property
    def basis(self) -> str:
        """What it rests on, in words: the samples, and how many of them are independent where not all are."""
        samples = counted(self.n, self.sample)
        if self.units is None or self.units == self.n:
            return samples
        return f"{samples} in {counted(self.units, 'independent group')}"

    def sentence(self) -> str:
        """The certificate in plain words, for a report."""
        found = "; ".join(f"{finding.title} ({finding.severity})" for finding in self.findings)
        verdict = f"Verdict at a margin of {amount(self.margin, self.unit)}: {self.verdict}."
        outcome = self._scores() if self.reference_accuracy is None else self._accuracies()
        if self.agreement is not None:
            outcome = self._differing(self.agreement)
        if self.parts:
            name = self.metric.partition(".")[0]
            outcome = f"Of {len(self.parts)} tasks '{name}' decides. {outcome}"
        return " ".join([outcome, verdict, *self.reasons, *([f"Found: {found}."] if found else [])])

    def _accuracies(self) -> str:
        before, after = self.reference_accuracy or 0.0, self.deployed_accuracy or 0.0
        if self.labelled_by == "model":
            return (
                f"On {self.basis} held back for certification, which nobody labelled, the deployed "
                f"model, {_where(self)}, answers as the reference does on {count(round(after * self.n))} "
                f"({percent(after)}): {self._interval(' of the loss of agreement')}."
            )
        judged = ""
        if self.metric != "accuracy":
            both = f"{figure(self.reference_score, self.unit)} and {figure(self.deployed_score, self.unit)}"
            judged = f"{self.metric.replace('-', ' ')} {both}, "
        return (
            f"On {self.basis} held back for certification the reference is right on "
            f"{count(round(before * self.n))} ({percent(before)}) and the deployed model, {_where(self)}, on "
            f"{count(round(after * self.n))} ({percent(after)}): {judged}{change(self.difference, self.unit)}, "
            f"{self._interval()}; {count(self.flips['lost'])} lost and {count(self.flips['gained'])} gained."
        )

    def _scores(self) -> str:
        return (
            f"On {self.basis} held back for certification the {self.metric} of the reference is "
            f"{figure(self.reference_score, self.unit)} and that of the deployed model, {_where(self)}, "
            f"{figure(self.deployed_score, self.unit)}: a {'loss' if (self.difference or 0) < 0 else 'gain'} of "
            f"{amount(abs(self.difference or 0), self.unit)}, {self._interval(' of the gain')}."
        )

    def _differing(self, found: Agreement) -> str:
        lost, gained = count(found.lost), count(found.gained)
        told = f"; {count(found.labelled)} of these are labelled, {lost} lost and {gained} gained"
        return (
            f"On {counted(self.n, self.sample)} without labels the {found.reference} and the deployed model, "
            f"{_where(self)}, answer differently on {count(found.disagreed)}{told if found.labelled else ''}: "
            f"{self._interval(' of the gain')}. How many answers are right is not known of either."
        )

    def _interval(self, of: str = "") -> str:
        low, high = change(self.ci_low, self.unit), change(self.ci_high, self.unit)
        return f"{percent(1 - 2 * self.alpha, 0)} interval{of} {low.removesuffix(' points')} to {high}"


def _where(certificate: Certificate) -> str:
    what = " ".join(x for x in (certificate.runtime, certificate.precision, certificate.isa) if x)
    place = {
        "device": "run on the device",
        "host": "run on this host",
        "simulated": "simulated, not run on the device",
        "claimed": "whose answers edgetl was given",
    }
    return place[certificate.executed] + (f" ({what})" if what else "")
