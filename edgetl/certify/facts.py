"""What a certificate says of the comparison, beside what follows from the answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgetl.core.certificate_parts import Reading, Robustness
from edgetl.core.compression import LayerNoise, RepairRecord


@dataclass(frozen=True)
class Facts:
    """Where and how the comparison was made.

    Attributes:
        executed: where the deployed model ran: device, host, simulated or claimed.
        runtime: name and version of its runtime.
        isa: its instruction set.
        precision: precision that was executed.
        hashes: SHA-256 of model, splits, preprocess, manifest, predictions; those that are known.
        created: time stamp to record; no clock is read.
        executed_on: the machine it ran on, such as its name and kind; JSON values.
        layers: noise of each layer, the worst first.
        robustness: the same test under corruptions.
        repair: what was tried to mend the model.
        sample: what one sample is called, such as image; its plural ends in s.
        labelled_by: who says what is right: "owner", or "model" for the trained model itself.
        notes: what else has to be said of the comparison, a sentence each.
        readings: of the same samples that came before, the first one first.
    """

    executed: str = "claimed"
    runtime: str = ""
    isa: str = ""
    precision: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    executed_on: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[LayerNoise] = ()
    robustness: Robustness | None = None
    repair: RepairRecord | None = None
    sample: str = "image"
    labelled_by: Literal["owner", "model"] = "owner"
    notes: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()


def stated(facts: Facts) -> dict[str, Any]:
    """The fields that are told, not measured."""
    return {
        "executed": facts.executed,
        "executed_on": plain(facts.executed_on),
        "runtime": facts.runtime,
        "isa": facts.isa,
        "precision": facts.precision,
        "hashes": dict(facts.hashes),
        "created": facts.created,
        "layers": tuple(facts.layers),
        "robustness": facts.robustness,
        "repair": facts.repair,
        "sample": facts.sample,
        "labelled_by": facts.labelled_by,
        "readings": facts.readings,
    }


def plain(value: Any) -> Any:
    """A copy of plain JSON values: numbers of numpy as those of Python, tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
