"""What the answers of two models to samples without labels say, as a certificate holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A comparison on samples of which only those are labelled, or none, on which the two models differ.

    Attributes:
        disagreed: samples to which the two give different answers; the others add no difference, whatever their label.
        rate_high: exact one-sided 1 - alpha upper bound of the rate of such samples (C. J. Clopper and E. S. Pearson
            1934, Biometrika 26, 404-413).
        labelled: of those samples, how many have a label.
        lost, gained: of these, how many only the reference, or only the deployed model, gets right.
        reference: what answered in the reference's place: the trained model, or its float ONNX file.
        left_out: files that were not compared, how many by why.
        rests_on: labelled samples of the certify split that classes, ladder, probabilities and the transfer's gain are
            still those of; 0 where there are none.
        training_known: whether samples that the model was trained on were left out: not all bundles say which these
            are.
        lost_classes: classes of which more samples than chance explains were lost, among those labelled.

    Raises:
        ValueError: more are labelled than differ, or more lost and gained than labelled.
    """

    disagreed: int
    rate_high: float
    labelled: int
    lost: int
    gained: int
    reference: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    rests_on: int = 0
    training_known: bool = True
    lost_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.lost, self.gained) < 0 or not self.lost + self.gained <= self.labelled <= self.disagreed:
            raise ValueError("its samples do not add up")

    @property
    def unlabelled(self) -> int:
        """Samples on which the two differ and that have no label yet."""
        return self.disagreed - self.labelled
