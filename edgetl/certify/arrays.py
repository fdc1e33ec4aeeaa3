"""The test on predictions from anywhere, without a bundle."""

from __future__ import annotations

import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import REGRESSION
from edgetl.certify.certificate import Certificate
from edgetl.certify.scores import certify_scores
from edgetl.certify.verdict import certify


def verify_arrays(
    *,
    reference: npt.ArrayLike | None = None,
    deployed: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    margin: float = 0.01,
    alpha: float = 0.05,
    metric: str = "accuracy",
) -> Certificate:
    """The test on what two models predicted, wherever that comes from.

    Args:
        reference, deployed: predictions of the trained and of the deployed model for the same samples: class indexes,
            integers [n], or numbers [n] for the metrics mae, rmse and r2.
        labels: the truth, likewise [n].
        margin: largest tolerable loss of the metric, 0 ≤ margin < 1 (for mae and rmse: in the labels' unit).
        alpha: probability of passing a model that lost the margin.
        metric: accuracy, balanced-accuracy, mae, rmse or r2.

    Raises:
        CertifyError: arrays that do not fit each other, or a bad margin.
    """
    if reference is None or deployed is None or labels is None:
        raise CertifyError("nothing to compare", "give a bundle, or reference, deployed and labels")
    if metric in REGRESSION:
        return certify_scores(reference, deployed, labels, metric=metric, margin=margin, alpha=alpha)
    return certify(reference, deployed, labels, metric=metric, margin=margin, alpha=alpha)
