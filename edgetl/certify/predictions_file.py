"""What ``predictions.npz`` holds: predictions as arrays, and back.

An answer that is one array lies under its model's name (``reference``, ``rung0`` …, ``deployed``), one of several under
``MODEL.NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.certify.checks import DEPLOYED, REFERENCE
from edgetl.certify.gain import Baseline
from edgetl.certify.probabilities import LogitEvidence, Step
from edgetl.tasks import Task, find_task

if TYPE_CHECKING:
    from edgetl.certify.predictions import Predictions

Array = npt.NDArray[Any]
_HEX = 64
#: What of a task's answers says everything that its metrics ask for, by the kind of label.
KEPT: Mapping[str, tuple[str, ...]] = {
    "class": ("class",),
    "classes": ("logits", "present"),
    "number": ("values",),
}


def kept(task: Task) -> tuple[str, ...]:
    """Names of the answers that are kept of a task, or of several, ``NAME.answer``."""
    if not task.parts:
        return KEPT[task.labels]
    return tuple(f"{name}.{each}" for name, part in task.parts.items() for each in kept(part))


def to_arrays(saved: Predictions) -> dict[str, Array]:
    """Predictions as named arrays."""
    rungs = [name for name in saved.models if name not in (REFERENCE, DEPLOYED)]
    arrays: dict[str, Array] = {
        "task": np.array(saved.task),
        "paths": np.array(saved.paths, dtype="<U"),
        "class_names": np.array(saved.class_names, dtype="<U" if saved.class_names else "<U1"),
        "rungs": np.array(rungs, dtype="<U" if rungs else "<U1"),
        "sha256": np.frombuffer(bytes.fromhex("".join(saved.sha256)), dtype=np.uint8).reshape(-1, 32),
        "labels": _compact(saved.labels),
    }
    keys = {REFERENCE: REFERENCE, **{name: f"rung{i}" for i, name in enumerate(rungs)}, DEPLOYED: DEPLOYED}
    for name, key in keys.items():
        answers = saved.models[name]
        arrays |= {_key(key, part, len(answers)): _compact(values) for part, values in answers.items()}
    if saved.baseline is not None:
        arrays["baseline"] = np.asarray(saved.baseline.predictions, dtype="<i4")
        arrays["baseline_kind"] = np.array(saved.baseline.kind)
    if saved.evidence is not None:
        steps = saved.evidence.steps
        arrays["steps"] = np.array(list(steps), dtype="<U" if steps else "<U1")
        arrays["distances"] = np.array([(s.logit_distance, s.kl) for s in steps.values()], "<f8").reshape(-1, 2)
    more = {
        "reference_logits": saved.reference_logits,
        "deployed_logits": saved.deployed_logits,
        "groups": None if saved.groups is None else _compact(saved.groups),
        "per_image": None if saved.evidence is None else saved.evidence.per_image,
    }
    return arrays | {name: values for name, values in more.items() if values is not None}


def from_arrays(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The fields of predictions; files from before there were tasks are of classification.

    Raises:
        KeyError, TypeError, ValueError, UnknownNameError: something is missing or of another kind.
    """
    digits = arrays["sha256"].tobytes().hex()
    task = find_task(str(arrays["task"]) if "task" in arrays else None)
    rungs = [str(name) for name in arrays["rungs"].tolist()]
    keys = {REFERENCE: REFERENCE, **{name: f"rung{i}" for i, name in enumerate(rungs)}, DEPLOYED: DEPLOYED}
    names = kept(task)
    return {
        "task": task.name,
        "labels": arrays["labels"],
        "models": {name: {part: arrays[_key(key, part, len(names))] for part in names} for name, key in keys.items()},
        "paths": tuple(map(str, arrays["paths"].tolist())),
        "sha256": tuple(digits[i : i + _HEX] for i in range(0, len(digits), _HEX)),
        "class_names": tuple(map(str, arrays["class_names"].tolist())),
        "reference_logits": arrays.get("reference_logits"),
        "deployed_logits": arrays.get("deployed_logits"),
        "baseline": Baseline(str(arrays["baseline_kind"]), arrays["baseline"]) if "baseline" in arrays else None,
        "evidence": _evidence(arrays) if "steps" in arrays else None,
        "groups": arrays.get("groups"),
    }


def _key(model: str, part: str, parts: int) -> str:
    return model if parts == 1 else f"{model}.{part}"


def _evidence(arrays: Mapping[str, Array]) -> LogitEvidence:
    pairs = zip(arrays["steps"].tolist(), arrays["distances"].tolist(), strict=True)
    return LogitEvidence(arrays.get("per_image"), {str(name): Step(*figures) for name, figures in pairs})


def _compact(values: Array) -> Array:
    """The same values in the fewest bytes that hold them, in an order of bytes that every machine reads."""
    if values.dtype.kind in "iu":
        return values.astype("<i4")
    if values.dtype.kind == "f":
        single = values.astype("<f4")
        return single if np.array_equal(single, values) else values.astype("<f8")
    return values
