"""How good logits are: the figures by which training chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Scores:
    """Attributes: share right, mean recall over the classes that occur, mean cross-entropy (nats), images."""

    accuracy: float
    balanced_accuracy: float
    loss: float
    n: int

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: balanced accuracy, ties by lower loss."""
        return (self.balanced_accuracy, -self.loss)

    def to_json(self) -> dict[str, float | int]:
        """As plain JSON values."""
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "n": self.n,
        }


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Scores:
    """Score logits, float32, shape (n, classes), against labels, int64, shape (n,)."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    loss = np.log(np.exp(x).sum(1)) - x[np.arange(len(labels)), labels]
    right = logits.argmax(1) == labels
    recalls = [float(right[labels == label].mean()) for label in np.unique(labels)]
    return Scores(float(right.mean()), float(np.mean(recalls)), float(loss.mean()), len(labels))
