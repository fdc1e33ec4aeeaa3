"""What is known of a model that was adapted to a target domain: by what it was chosen, and who labels its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgetl.base.wording import counted


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How a model came from a labelled source domain to a target domain, whose samples it is certified on.

    Attributes:
        target: name of the folder or file of the target's samples.
        labelled: whether the target's own labels certify; else the trained model's answers stand in their place.
        samples: of the target without labels, that training saw.
        validator: by what the epoch was chosen, in words; "" where there was nothing to choose.
        judged: target samples without labels that it was chosen on, which no gradient saw.
        statistics: which batch statistics the head was fitted under, and which the network ends with, in words; ""
            where the pretrained ones stay.
        search: scores of the finished model on the target's search split; empty without labels.
    """

    target: str
    labelled: bool
    samples: int
    validator: str = ""
    judged: int = 0
    statistics: str = ""
    search: Mapping[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What every certificate of it has to say, a sentence each."""
        beside = f"and {counted(self.samples, 'sample')} of the target without labels" if self.samples else "alone"
        domain = (
            f"Calibrated and certified on the target domain, {self.target}; "
            f"trained on a labelled source domain {beside}."
        )
        chosen = f"The epoch was chosen without a label of the target, by {self.validator}."
        agreement = [] if self.labelled else [ONLY_AGREEMENT]
        return (
            domain,
            *([chosen] if self.validator else []),
            *([self.statistics] if self.statistics else []),
            *agreement,
        )


#: Said of certificates on samples that nobody labelled.
ONLY_AGREEMENT = (
    "No sample of the target domain has a label: right is what the trained model answered, so that this certificate "
    "tells how often the deployed model agrees with it, and no more. Whether the trained model is right there, nobody "
    "knows."
)
