"""Did the transfer survive? Paired tests, the certificate, and the predictions behind it.

Needs numpy alone and reads no clock, so it also runs on a device.
"""

from edgetl.certify.arrays import certify, certify_scores, verify_arrays
from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.classes import ClassOutcome, class_outcomes, holm
from edgetl.certify.departure import departure
from edgetl.certify.exact_power import images_needed, power_of
from edgetl.certify.expected import expected_difference, standard_error
from edgetl.certify.facts import Facts
from edgetl.certify.gain import Baseline, transfer_gain
from edgetl.certify.group_test import share_draws, sign_flip_loss
from edgetl.certify.groups import group_indexes, restricted, units
from edgetl.certify.metric_test import MetricTest, check_limits, paired_test
from edgetl.certify.paired import (
    METHOD,
    NonInferiority,
    PairedCounts,
    Verdict,
    check_margin,
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
from edgetl.certify.unconditional import cautious_lower_bound
from edgetl.certify.verdict import Explain, certify_answers
from edgetl.core.certificate import EXECUTED, Certificate
from edgetl.core.certificate_parts import TransferGain

__all__ = [
    "EXECUTED",
    "METHOD",
    "Baseline",
    "Certificate",
    "ClassOutcome",
    "Explain",
    "Facts",
    "LogitEvidence",
    "MetricTest",
    "NonInferiority",
    "PairedCounts",
    "Predictions",
    "Step",
    "TransferGain",
    "Verdict",
    "cautious_lower_bound",
    "certify",
    "certify_answers",
    "certify_scores",
    "check_limits",
    "check_margin",
    "class_outcomes",
    "departure",
    "expected_calibration_error",
    "expected_difference",
    "group_indexes",
    "holm",
    "images_needed",
    "logit_evidence",
    "mcnemar_loss",
    "noninferiority",
    "paired_test",
    "power_of",
    "probability_shift",
    "restricted",
    "score_interval",
    "score_statistic",
    "share_draws",
    "sign_flip_loss",
    "standard_error",
    "threshold_shift",
    "transfer_gain",
    "units",
    "verify_arrays",
]
