"""Certificates for regression: two arrays of predicted values and the true ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import METHOD, score_test
from edgetl.certify.certificate import Certificate
from edgetl.certify.reasons import verdict_reasons

UNSEEN = (
    "No interval of a mean holds whatever the errors are: it is assumed that an image that was not seen is off by no "
    "more than one standard deviation of the labels, or the greatest change seen."
)


def certify_scores(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: str = "mae",
    margin: float = 0.01,
    alpha: float = 0.05,
) -> Certificate:
    """Test a deployed regression model against its reference on the same held-out images, by a paired bootstrap.

    Args:
        reference: values predicted by the trained model, floats [n].
        deployed: values predicted by the deployed model for the same images, floats [n].
        labels: true values, floats [n].
        metric: mae or rmse, in the labels' unit, or r2.
        margin: greatest acceptable loss (rise of mae or rmse, fall of r2), in the metric's unit.
        alpha: one-sided level, 0 < alpha < 0.5.

    Returns:
        A certificate without accuracies, classes and ladder, whose ``difference`` is negative for a loss.

    Raises:
        CertifyError: arrays that are empty, not one-dimensional, of unequal length, or not finite numbers; a margin or
            alpha out of range; r2 of labels that are all equal.
        UnknownNameError: no metric of that name.
    """
    arrays = {"labels": labels, "reference": reference, "deployed": deployed}
    truth, before, after = (_values(values, name) for name, values in arrays.items())
    if not len(truth) == len(before) == len(after):
        raise CertifyError(
            f"the arrays have different lengths (labels {len(truth)}, reference {len(before)}, deployed {len(after)})",
            "give one value for each image",
        )
    test = score_test(before, after, truth, metric, margin, alpha)
    return Certificate(
        verdict=test.verdict,
        reference_accuracy=None,
        deployed_accuracy=None,
        difference=test.difference,
        ci_low=test.ci_low,
        ci_high=test.ci_high,
        p_value=test.p_value,
        margin=test.margin,
        alpha=test.alpha,
        n=len(truth),
        n_needed=test.n_needed,
        flips={},
        classes={},
        reference_balanced_accuracy=None,
        deployed_balanced_accuracy=None,
        transfer_gain_retained=None,
        ladder=(),
        first_divergence=None,
        executed="host",
        runtime="",
        isa="",
        precision="",
        hashes={},
        reasons=tuple(verdict_reasons(test, len(truth), metric)),
        notes=(UNSEEN,),
        method=METHOD,
        metric=metric,
        reference_score=test.reference_score,
        deployed_score=test.deployed_score,
    )


def _values(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise CertifyError(f"{name} is not an array of numbers ({error})") from error
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "fiu":
        raise CertifyError(f"{name} is {array.dtype} of the shape {array.shape}", "give one number for each image")
    if not np.isfinite(array).all():
        raise CertifyError(f"{name} holds NaN or infinity", "give finite numbers")
    return array.astype(np.float64)
