"""What is known of a model that was trained elsewhere: where each fact came from, and what of it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgetl.base.schema import Json

#: Said of certificates of models whose preprocessing nobody checked, and whose training samples nobody named.
NOT_VERIFIED = (
    "The preprocessing was declared, not verified: no answers of the model's own program and no claim of its metric "
    "were given when it was adopted."
)
MAYBE_SEEN = (
    "The model may have been trained on these samples, for nobody named any that it was not: on samples of training "
    "its answers are surer than on new ones, so compression flips fewer, and this interval may be too optimistic."
)


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """How a model that was trained elsewhere became a run.

    Attributes:
        source: what it was read as: a key of the readers of ``edgetl adopt``.
        model: name of its file, or of its architecture.
        sha256: of the file; of all tensors for a module that was in memory.
        told_by: each field of the preprocessing → where it came from.
        names_told_by: where the names of the classes and their order came from.
        verified: by what it was checked that the model does here what it did elsewhere; "" for by nothing.
        evidence: of that check, figures by name.
        unseen: what named samples that the model was not trained on, in words; "" where nothing did.
        changes: what was done to the graph, a clause each.
        parity: largest difference between the graph that edgetl uses and the model as it was given, as a share of the
            range of its outputs, and the samples.
    """

    source: str
    model: str
    sha256: str
    told_by: Mapping[str, str] = field(default_factory=dict)
    names_told_by: str = ""
    verified: Literal["answers", "claim", ""] = ""
    evidence: Mapping[str, Json] = field(default_factory=dict)
    unseen: str = ""
    changes: tuple[str, ...] = ()
    parity: Mapping[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What every certificate of it has to say, a sentence each."""
        return (*([] if self.verified else [NOT_VERIFIED]), *([] if self.unseen else [MAYBE_SEEN]))
