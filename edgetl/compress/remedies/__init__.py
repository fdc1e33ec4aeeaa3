"""What may be tried where compression loses too much: a function a remedy, one line here, the cheapest first.

A remedy goes from the best attempt so far, and what it may call upon, to the attempts worth trying next, or to a
sentence that says why it does not apply (see :mod:`edgetl.compress.repair`).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.compress.remedies import settings, training, widening
from edgetl.compress.repair import Remedy

#: By the name that a trial has in the record.
REMEDIES: Mapping[str, Remedy] = {
    "head refit": training.head_refit,
    "calibration samples": settings.calibration_samples,
    "range estimator": settings.range_estimator,
    "asymmetric activations": settings.asymmetric_activations,
    "bias correction": settings.bias_correction,
    "cross-layer equalization": settings.equalization,
    # Settings move the features: the head that fitted before no longer does.
    "head refit again": training.head_refit,
    "mixed precision": widening.mixed_precision,
    "distillation": training.distillation,
    "quantization-aware training": training.quantization_aware,
    "half precision": widening.half_precision,
}
