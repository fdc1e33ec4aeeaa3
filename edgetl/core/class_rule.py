"""From the mean features of a class to its row of a linear head, by a rule that every class shares: numpy alone.

Distances to means, with any metric, are linear in the features but for a summand that all classes have in common. So a
class can be added with its pictures alone, and the rows of the others stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: Length below which a feature vector has no direction.
_NOTHING = 1e-12


@dataclass(frozen=True)
class ClassRule:
    """How the mean μ of a class becomes its weight and its bias.

    With z = μ - centre, of length 1 where ``unit``, and M the matrix: weight = gain M z, and
    bias = offset - weight·centre, less half of weight·z where ``quadratic``.

    Attributes:
        unit: features are of length 1 before their mean is taken, and the mean is brought to length 1.
        quadratic: whether it is a distance.
        gain: of the logits.
        offset: of the bias.
        centre: float32 (features,).
        matrix: float32: (0,) for the identity, (features,) for a diagonal one, or (features, features), symmetric.
    """

    unit: bool
    quadratic: bool
    gain: float
    offset: float
    centre: Floats
    matrix: Floats

    def prepared(self, features: Floats) -> Floats:
        """Features (n, d) as means are taken of them."""
        return _of_length_one(features.astype(np.float64)).astype(np.float32) if self.unit else features

    def rows(self, means: Floats) -> tuple[Floats, Floats]:
        """Weights (classes, features) and biases (classes,) for means (classes, features)."""
        centre = self.centre.astype(np.float64)
        z = means.astype(np.float64) - centre
        if self.unit:
            z = _of_length_one(z)
        weight = self.gain * self._by_matrix(z)
        bias = self.offset - weight @ centre - (0.5 * (weight * z).sum(1) if self.quadratic else 0.0)
        return weight.astype(np.float32), bias.astype(np.float32)

    def _by_matrix(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not self.matrix.size:
            return z
        matrix = self.matrix.astype(np.float64)
        return z * matrix if matrix.ndim == 1 else z @ matrix


def _of_length_one(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _NOTHING)
    return scaled
