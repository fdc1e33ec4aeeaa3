"""Did the transfer survive? Paired tests, the certificate, and the predictions behind it.

Needs numpy alone and reads no clock, so it also runs on a device.
"""

from edgetl.certify.arrays import verify_arrays
from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.bootstrap import REGRESSION, BootstrapTest, balanced_accuracy_test, score_test
from edgetl.certify.certificate import EXECUTED, METHOD, Certificate
from edgetl.certify.classes import ClassOutcome, class_outcomes, holm
from edgetl.certify.expected import expected_difference
from edgetl.certify.gain import Baseline, TransferGain, transfer_gain
from edgetl.certify.paired import (
    NonInferiority,
    PairedCounts,
    Verdict,
    check_margin,
    images_needed,
    noninferiority,
)
from edgetl.certify.predictions import Predictions
from edgetl.certify.probabilities import (
    LogitEvidence,
    Step,
    expected_calibration_error,
    logit_evidence,
    probability_shift,
    threshold_shift,
)
from edgetl.certify.score import score_interval, score_statistic
from edgetl.certify.scores import certify_scores
from edgetl.certify.unconditional import cautious_lower_bound
from edgetl.certify.verdict import METRICS, certify, check_metric

__all__ = [
    "EXECUTED",
    "METHOD",
    "METRICS",
    "REGRESSION",
    "Baseline",
    "BootstrapTest",
    "Certificate",
    "ClassOutcome",
    "LogitEvidence",
    "NonInferiority",
    "PairedCounts",
    "Predictions",
    "Step",
    "TransferGain",
    "Verdict",
    "balanced_accuracy_test",
    "cautious_lower_bound",
    "certify",
    "certify_scores",
    "check_margin",
    "check_metric",
    "class_outcomes",
    "expected_calibration_error",
    "expected_difference",
    "holm",
    "images_needed",
    "logit_evidence",
    "mcnemar_loss",
    "noninferiority",
    "probability_shift",
    "score_interval",
    "score_statistic",
    "score_test",
    "threshold_shift",
    "transfer_gain",
    "verify_arrays",
]
