"""The certificate: what was compared, what was found, and a digest that shows any later edit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgetl.base.errors import CertifyError
from edgetl.base.storage import DIGEST_FIELD, is_sealed, sealed
from edgetl.certify.paired import Verdict

SCHEMA = 2
METHOD = "Tango 1998 score interval, or the exact unconditional bound where that is more cautious"
EXECUTED = ("device", "host", "simulated")
_TUPLES = ("ladder", "reasons", "notes", "findings", "layers")


@dataclass(frozen=True)
class Certificate:
    """Outcome of a paired test of a deployed model against its reference, on the same held-out images.

    Accuracies and recalls are fractions from 0 to 1; every difference is deployed minus reference.

    Attributes:
        verdict: pass, fail or underpowered (see :mod:`edgetl.certify.paired`); also fail when one class collapsed or
            a finding is fatal.
        reference_accuracy: share of images that the reference gets right; None for a regression metric.
        deployed_accuracy: share of images that the deployed model gets right; None likewise.
        difference: gain in ``metric``, which is deployed minus reference but for mae and rmse: negative is a loss.
        ci_low: one-sided 1 - alpha lower bound of the true difference; with ``ci_high`` the two-sided 1 - 2 alpha
            interval.
        ci_high: one-sided 1 - alpha upper bound of it.
        p_value: one-sided, of "the true loss is at least the margin".
        margin: greatest acceptable loss.
        alpha: one-sided level.
        n: images.
        n_needed: images for a pass with probability 0.8; None with margin 0.
        flips: ``lost`` and ``gained``, counts of images.
        classes: for each class name: n, reference_recall, deployed_recall, difference (None without images), lost,
            gained, p, adjusted_p (Holm), collapsed.
        reference_balanced_accuracy: mean recall of the reference over the classes that have images, or None.
        deployed_balanced_accuracy: the same of the deployed model.
        transfer_gain_retained: (deployed - baseline) / (reference - baseline) accuracy; None without a baseline, or
            where the reference is not proven better than it.
        ladder: the models in order, from the reference down to what runs on the device; each with name, accuracy,
            agreement (share of equal predictions with the one above it; 1 for the first), diverges, and against the
            one above it difference, ci_low, ci_high (score interval), lost and gained, which are None for the first,
            and logit_distance and kl (see :class:`edgetl.certify.probabilities.Step`), None where logits are unknown.
        first_divergence: name of the first rung that diverges (see :func:`edgetl.certify.certify`), or None.
        executed: where the deployed model ran: device, host or simulated.
        executed_on: the machine it ran on, such as its name and kind.
        runtime: name and version of the runtime.
        isa: instruction set.
        precision: precision that was executed.
        hashes: SHA-256 of what the certificate speaks of: model, splits, preprocess, manifest, predictions.
        reasons: why the verdict is what it is, in sentences.
        notes: what the certificate cannot say, in sentences.
        method: the interval's method.
        created: time stamp given by the caller, or empty; this package reads no clock.
        metric: what the verdict is about: accuracy, balanced-accuracy, mae, rmse or r2.
        reference_score: that metric of the reference.
        deployed_score: that metric of the deployed model.
        balanced: the bootstrapped test of balanced accuracy at the same margin, whatever ``metric`` is: difference,
            ci_low, ci_high and verdict; None for a regression metric.
        probabilities: see :func:`edgetl.certify.probabilities.probability_shift`; None without logits.
        transfer_gain: see :class:`edgetl.certify.gain.TransferGain`; None without a baseline.
        findings: what is wrong with the transfer, as :meth:`edgetl.core.findings.Finding.to_json` gives it, the fatal
            first.
        layers: the noise of each layer, the worst first: node, module, cause, sqnr_db, share and more.
        robustness: the same test under corruptions, or None.
        repair: what was tried to mend the model, or None.
        schema: version of this record.
    """

    verdict: Verdict
    reference_accuracy: float | None
    deployed_accuracy: float | None
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    margin: float
    alpha: float
    n: int
    n_needed: int | None
    flips: Mapping[str, int]
    classes: Mapping[str, Mapping[str, Any]]
    reference_balanced_accuracy: float | None
    deployed_balanced_accuracy: float | None
    transfer_gain_retained: float | None
    ladder: tuple[Mapping[str, Any], ...]
    first_divergence: str | None
    executed: str
    runtime: str
    isa: str
    precision: str
    hashes: Mapping[str, str]
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    method: str = METHOD
    created: str = ""
    executed_on: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    reference_score: float | None = None
    deployed_score: float | None = None
    balanced: Mapping[str, Any] | None = None
    probabilities: Mapping[str, Any] | None = None
    transfer_gain: Mapping[str, Any] | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    layers: tuple[Mapping[str, Any], ...] = ()
    robustness: Mapping[str, Any] | None = None
    repair: Mapping[str, Any] | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.executed not in EXECUTED:
            raise CertifyError(f"executed '{self.executed}' is unknown", f"choose one of {', '.join(EXECUTED)}")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, with its digest."""
        record = asdict(self)
        for name in _TUPLES:
            record[name] = list(record[name])
        return sealed(record)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all fields, 64 hexadecimal digits."""
        return str(self.to_json()[DIGEST_FIELD])

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Certificate:
        """Read what :meth:`to_json` gave, or a record sealed again with more fields, which are left out.

        Raises:
            CertifyError: the record was altered, is incomplete, or comes from another version of edgetl.
        """
        if not isinstance(record, Mapping):
            raise CertifyError("the certificate is not a JSON object", "make it again with edgetl verify")
        if not is_sealed(record):
            raise CertifyError(
                "the certificate was altered (its digest does not match its content)",
                "make it again with edgetl verify",
            )
        known = [known.name for known in fields(cls)]
        missing = [name for name in known if name not in record]
        if missing or record["schema"] != SCHEMA:
            unlike = (
                f"it lacks {', '.join(missing)}" if missing else f"schema {record['schema']}, this one reads {SCHEMA}"
            )
            raise CertifyError(
                f"the certificate is of another version of edgetl ({unlike})", "make it again with edgetl verify"
            )
        values = {name: record[name] for name in known}
        for name in _TUPLES:
            values[name] = tuple(values[name])
        return cls(**values)

    def sentence(self) -> str:
        """The certificate in plain words, for a report."""
        if self.reference_accuracy is None or self.deployed_accuracy is None:
            outcome = self._scores()
        else:
            before, after = round(self.reference_accuracy * self.n), round(self.deployed_accuracy * self.n)
            outcome = (
                f"On {images(self.n)} held back for certification the reference is right on {before:,} "
                f"({percent(self.reference_accuracy)}) and the deployed model, {_where(self)}, on {after:,} "
                f"({percent(self.deployed_accuracy)}): {self._interval()}; "
                f"{self.flips['lost']:,} lost and {self.flips['gained']:,} gained."
            )
        margin = f"{self.margin:.4g}" if self.reference_accuracy is None else points(self.margin, signed=False)
        found = "; ".join(f"{finding['title']} ({finding['severity']})" for finding in self.findings)
        verdict = f"Verdict at a margin of {margin}: {self.verdict}."
        return " ".join([outcome, verdict, *self.reasons, *([f"Found: {found}."] if found else [])])

    def _interval(self) -> str:
        """The difference and its interval, in points of accuracy, or of what was judged instead."""
        interval = (
            f"{points(self.difference)}, {percent(1 - 2 * self.alpha, 0)} interval {100 * self.ci_low:+.2f} to "
            f"{points(self.ci_high)}"
        )
        if self.metric == "accuracy" or self.reference_score is None or self.deployed_score is None:
            return interval
        shares = f"{percent(self.reference_score)} and {percent(self.deployed_score)}"
        return f"{self.metric.replace('-', ' ')} {shares}, {interval}"

    def _scores(self) -> str:
        return (
            f"On {images(self.n)} held back for certification the {self.metric} of the reference is "
            f"{self.reference_score:.4g} and that of the deployed model, {_where(self)}, {self.deployed_score:.4g}: "
            f"a {'loss' if self.difference < 0 else 'gain'} of {abs(self.difference):.4g}, "
            f"{percent(1 - 2 * self.alpha, 0)} interval of the gain {self.ci_low:+.4g} to {self.ci_high:+.4g}."
        )


def percent(share: float, digits: int = 2) -> str:
    """``0.0123`` as ``1.23 %``."""
    return f"{100 * share:.{digits}f} %"


def points(difference: float, signed: bool = True) -> str:
    """``-0.0123`` as ``-1.23 points``; unsigned numbers have at most four digits and no trailing zeros."""
    number = f"{100 * difference:+.2f}" if signed else f"{100 * difference:.4g}"
    return f"{number} point" + ("" if number == "1" else "s")


def images(n: int) -> str:
    """``1`` as ``1 image``, ``1240`` as ``1,240 images``."""
    return f"{n:,} image" + ("" if n == 1 else "s")


def plain(value: Any) -> Any:
    """A copy of plain JSON values: numbers of numpy as those of Python, tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _where(certificate: Certificate) -> str:
    what = " ".join(x for x in (certificate.runtime, certificate.precision, certificate.isa) if x)
    place = {"device": "run on the device", "host": "run on this host", "simulated": "simulated, not run on the device"}
    return place[certificate.executed] + (f" ({what})" if what else "")
