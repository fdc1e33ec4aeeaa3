"""Did the transfer survive? Paired tests, the certificate, and the predictions behind it.

Needs numpy alone and reads no clock, so it also runs on a device.
"""

from edgetl.certify.certificate import EXECUTED, METHOD, Certificate
from edgetl.certify.classes import ClassOutcome, class_outcomes, holm, mcnemar_loss
from edgetl.certify.paired import (
    NonInferiority,
    PairedCounts,
    Verdict,
    check_margin,
    images_needed,
    noninferiority,
)
from edgetl.certify.predictions import Predictions
from edgetl.certify.score import score_interval, score_statistic
from edgetl.certify.unconditional import cautious_lower_bound
from edgetl.certify.verdict import certify

__all__ = [
    "EXECUTED",
    "METHOD",
    "Certificate",
    "ClassOutcome",
    "NonInferiority",
    "PairedCounts",
    "Predictions",
    "Verdict",
    "cautious_lower_bound",
    "certify",
    "check_margin",
    "class_outcomes",
    "holm",
    "images_needed",
    "mcnemar_loss",
    "noninferiority",
    "score_interval",
    "score_statistic",
]
