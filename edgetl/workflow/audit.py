"""Does a bundle's certificate follow from the bundle? Everything that can be worked out again is, and compared.

Whoever changes a certificate can seal it again, and whoever changes predictions can hash them again. Neither can be
made to follow from files that say otherwise. What no file of the bundle determines is taken on trust, unless it is
signed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import DIGEST_FIELD
from edgetl.certify import Predictions, departure
from edgetl.certify.departure import rounded
from edgetl.certify.unlabelled import Unlabelled
from edgetl.core.bundle import (
    AGREEMENT,
    CERTIFICATE,
    PREDICTIONS,
    REPAIR,
    SPLITS_FILE,
    Bundle,
    check_certificate,
    load_bundle,
)
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Rung
from edgetl.core.findings import Finding
from edgetl.core.seen import Seen
from edgetl.core.signature import is_signed
from edgetl.core.tensors import Arrays
from edgetl.diagnosis import OF_FILES_ALONE, UNREAD, of_files
from edgetl.reporting.papers import papers
from edgetl.tasks import find_task
from edgetl.workflow.answers import FLOAT_RUNG, reference
from edgetl.workflow.certify_bundle import Terms, certificate_of, earlier_findings, facts_of
from edgetl.workflow.certify_unlabelled import certificate_of_agreement
from edgetl.workflow.explain_loss import layers_behind

#: What of a certificate no file of its bundle determines: where its answers come from, and what took the samples.
CLAIMED = ("executed", "executed_on", "runtime", "robustness", "readings")
#: What is said of a claim that nobody signed.
TRUSTED = (*CLAIMED, "the deployed model's answers", "findings that took the samples", "what bench.json timed")
#: The same of samples that came without labels.
UNLABELLED = ("the trained model's answers to samples without labels", "the labels that were given since")
_BESIDE = frozenset({DIGEST_FIELD, "manifest", "findings"})
#: What a bootstrap's draws decide, which the same numpy makes alike: near what it should be is not good enough.
_DRAWN = frozenset({"ci_low", "ci_high", "p_value", "n_needed", "scores", "balanced", "probabilities", "transfer_gain"})
#: What certificates from before it was told do not hold.
LATER = frozenset({"units", "readings"})
#: Lists whose order says nothing.
_UNORDERED = frozenset({"reasons", "notes"})


@dataclass(frozen=True)
class Audit:
    """What became of checking a bundle's certificate.

    Attributes:
        problem: what is wrong, in a sentence; None where everything follows.
        signed: whether the bundle has a signature, by whomever.
        signed_by: the public key by which all of it is signed, 64 hexadecimal digits; "" where nobody asked for one.
        unlabelled: whether the certificate is of samples that came without labels.
    """

    problem: str | None
    signed: bool = False
    signed_by: str = ""
    unlabelled: bool = False

    @property
    def claimed(self) -> tuple[str, ...]:
        """What is taken on trust; nothing where somebody vouches for all of it."""
        return () if self.signed_by else (*TRUSTED, *(UNLABELLED if self.unlabelled else ()))

    @property
    def trust(self) -> str:
        """On what the certificate rests, in a sentence or two."""
        if self.signed_by:
            return f"All of it is signed by the key {self.signed_by}."
        what = "It has a signature, which --public-key would check." if self.signed else "Nobody signed it."
        claims = ", ".join(self.claimed)
        return f"{what} A seal is no signature: anybody can seal what they changed. Taken on trust: {claims}."


def audit(bundle: str | Path, public_key: str | Path | None = None) -> Audit:
    """Check that a bundle's certificate is its own and follows from its files.

    Args:
        bundle: its folder.
        public_key: that must have signed all of it: a file, or 64 hexadecimal digits; None asks for no signature.
    """
    try:
        opened = load_bundle(bundle, public_key)
        wrong = contradiction(opened)
    except EdgetlError as error:
        return Audit(str(error), is_signed(Path(bundle)))
    problem = wrong and f"the certificate of {bundle} is not this bundle's: {wrong}"
    record = None if wrong else opened.certificate
    unlabelled = record is not None and record.agreement is not None
    return Audit(problem, is_signed(opened.path), opened.signed_by, unlabelled)


def check(bundle: str | Path, public_key: str | Path | None = None) -> str | None:
    """Does the certificate belong to this very bundle, unaltered? None if so, else what is wrong."""
    return audit(bundle, public_key).problem


def contradiction(bundle: Bundle) -> str | None:
    """What in the bundle's certificate does not follow from the bundle, in a clause; None if all does.

    Raises:
        CertifyError: there is no certificate, or it was altered, or it belongs to another bundle.
        BundleError: a file that it speaks of is malformed.
    """
    record = check_certificate(bundle)
    saved = Predictions.load(bundle.path / PREDICTIONS)
    return next(
        (
            clause
            for clauses in (
                _of_predictions(bundle, saved),
                _of_certificate(bundle, record, saved),
                _of_findings(bundle, record),
                _of_records(bundle),
            )
            for clause in clauses
        ),
        None,
    )


def _of_predictions(bundle: Bundle, saved: Predictions) -> Iterator[str]:
    """What of the saved predictions is not what the bundle says of samples, labels and the trained model."""
    samples, kept, task = bundle.dataset.split("certify"), reference(bundle), find_task(bundle.manifest.task)
    told = {
        "task": (saved.task, task.name),
        "labels": (_listed(saved.labels), _listed(bundle.dataset.labels("certify"))),
        "hashes of samples": (saved.sha256, tuple(sample.sha256 for sample in samples)),
        "paths of samples": (saved.paths, tuple(sample.path.lstrip("/") for sample in samples)),
        "names of classes": (saved.class_names, bundle.labels),
        "groups": (_told_groups(saved.groups), _told_groups(bundle.dataset.groups("certify"))),
    }
    for name, (own, other) in told.items():
        if own != other:
            yield f"the {name} in {PREDICTIONS} are not the bundle's"
    known = {"reference": kept.reference, FLOAT_RUNG: kept.exported}
    for model, outputs in known.items():
        if outputs and model in saved.models and not _says(saved.models[model], task.decode(outputs, {})):
            yield f"the answers of '{model}' in {PREDICTIONS} are not those that the bundle keeps"
    baseline = kept.baseline if task.has_accuracy else None
    if (saved.baseline is None) != (baseline is None):
        yield f"the baseline in {PREDICTIONS} is not the bundle's"
    elif saved.baseline is not None and baseline is not None:
        own = task.decode(baseline, {})["class"]
        if saved.baseline.kind != kept.baseline_kind or not np.array_equal(saved.baseline.predictions, own):
            yield f"the baseline in {PREDICTIONS} is not the bundle's"
    for model, logits in (("reference", saved.reference_logits), ("deployed", saved.deployed_logits)):
        if logits is not None and not _names_the_highest(logits, saved.models[model]["class"]):
            yield f"the classes of '{model}' in {PREDICTIONS} are not those of its logits"


def _listed(labels: npt.NDArray[Any]) -> Any:
    """Labels as values that equal each other where they are alike: of several tasks some are NaN, for none."""
    if labels.dtype.kind != "f" or labels.ndim != 2:
        return labels.tolist()
    return [[None if math.isnan(value) else value for value in row] for row in labels.tolist()]


def _told_groups(groups: npt.NDArray[Any] | None) -> list[int] | None:
    return None if groups is None else groups.tolist()


def _says(saved: Arrays, decoded: Arrays) -> bool:
    """Whether saved answers are those that were decoded, but for how many digits were kept."""
    pairs = [(np.ravel(values), np.ravel(decoded[name])) for name, values in saved.items()]
    return all(len(own) == len(other) and np.allclose(own, other, rtol=1e-5, atol=1e-6) for own, other in pairs)


def _names_the_highest(logits: Any, classes: Any) -> bool:
    """Whether each class has the highest logit of its sample, as far as half precision tells."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1)
    chosen = wide[np.arange(len(classes)), classes]
    return bool((chosen >= highest - 2.0**-9 * np.maximum(np.abs(highest), 1)).all())


def _of_certificate(bundle: Bundle, record: Certificate, saved: Predictions) -> Iterator[str]:
    """Fields that are not what certifying the saved predictions again gives."""
    terms = Terms(record.margin, record.alpha, record.metric, record.value_range, record.sequential)
    again = certificate_of(bundle, saved, facts_of(record), _given(record), terms, _Explain(bundle, record))
    if record.agreement is not None:
        found = Unlabelled.load(bundle.path / AGREEMENT)
        yield from _of_unlabelled(bundle, found)
        again = certificate_of_agreement(bundle, again, found, facts_of(record))
    told, made = _completed(bundle.record(CERTIFICATE) or {}, record), again.to_json()
    if (wrong := departure(record, again)) is not None:
        yield f"its {wrong} does not follow from {PREDICTIONS}"
    for name in sorted(told.keys() | made.keys()):
        if name in CLAIMED or name in _BESIDE:
            continue
        if name not in made:
            yield f"it holds {name!a:.40}, which no certificate holds"
        elif _plain(name, told.get(name)) != _plain(name, _unsealed(name, made[name])):
            drawn = f", though numpy {np.__version__} may draw otherwise than another" if name in _DRAWN else ""
            yield f"its {name} does not follow from {PREDICTIONS} and the bundle{drawn}"
    kinds = [sorted(map(_finding, found)) for found in (record.findings, again.findings)]
    if kinds[0] != kinds[1]:
        yield f"its findings do not follow from {PREDICTIONS} and the bundle"
    if bundle.splits != bundle.dataset.digest:
        yield f"its hash of the splits does not follow from {SPLITS_FILE}"


def _completed(told: Mapping[str, Any], record: Certificate) -> dict[str, Any]:
    """A certificate's record with what one of an older version does not say, as it is read."""
    read = record.to_json()
    whole = {**{name: value for name, value in read.items() if name in LATER}, **told}
    if record.parts and isinstance(told.get("parts"), Mapping):
        parts = {name: _completed(told["parts"].get(name, {}), part) for name, part in record.parts.items()}
        # What a seal covers is compared field by field.
        whole["parts"] = {name: {k: v for k, v in part.items() if k != DIGEST_FIELD} for name, part in parts.items()}
    return whole


def _of_unlabelled(bundle: Bundle, found: Unlabelled) -> Iterator[str]:
    """What of the samples without labels is not what the bundle says of its model and of what that has seen."""
    if found.task != bundle.manifest.task or found.class_names != bundle.labels:
        yield f"the task or the classes in {AGREEMENT} are not the bundle's"
    seen = Seen(bundle)
    if any(digest in seen for digest in found.sha256) or len(set(found.sha256)) < found.n:
        yield f"{AGREEMENT} has samples twice, or some that the model has seen"


#: Findings that explain a loss: asked for anew wherever there is one.
_EXPLAINED = frozenset({"quantization-noise", "runtime"})


def _given(record: Certificate) -> list[Finding]:
    return [finding for finding in earlier_findings(record) if finding.kind not in _EXPLAINED]


@dataclass(frozen=True)
class _Explain:
    """What is behind a loss, as far as it can be told without samples: else, as the certificate says."""

    bundle: Bundle
    record: Certificate

    def __call__(self, rungs: Sequence[Rung]) -> list[Finding]:
        found = layers_behind(self.bundle, self.record.executed, None, rungs)
        return found or [finding for finding in self.record.findings if finding.kind == "runtime"]


def _of_findings(bundle: Bundle, record: Certificate) -> Iterator[str]:
    """Findings that the bundle's own files show and the certificate leaves out, or the other way around."""
    shown, told = of_files(bundle), {_finding(finding) for finding in record.findings}
    for finding in shown:
        if _finding(finding) not in told and finding.kind not in ("calibration-overlap", UNREAD):
            yield f"it leaves out the finding '{finding.kind}', which the bundle's files show"
    kinds = {finding.kind for finding in shown}
    if UNREAD in kinds:
        return
    for finding in record.findings:
        if finding.kind in OF_FILES_ALONE - kinds:
            yield f"it has the finding '{finding.kind}', which the bundle's files do not show"


def _of_records(bundle: Bundle) -> Iterator[str]:
    repair = bundle.repair
    for name, content in papers(bundle).items():
        file = bundle.path / name
        if file.is_file() and file.read_bytes() != content:
            yield f"{name} is not what this edgetl writes of its certificate: verify the bundle again"
    if bundle.record(REPAIR) is not None and (repair is None or repair.untimed() != bundle.manifest.repair):
        yield f"{REPAIR} is not what the manifest says of the repair"


def _unsealed(name: str, value: Any) -> Any:
    """The certificates of several tasks without their digests."""
    if name != "parts":
        return value
    return {task: {k: v for k, v in part.items() if k != DIGEST_FIELD} for task, part in value.items()}


def _finding(finding: Finding) -> str:
    return json.dumps(_plain("", finding.to_json()), sort_keys=True)


def _plain(name: str, value: Any) -> Any:
    """A certificate's field as it compares; a list whose order says nothing, sorted."""
    plain = rounded(value)
    return sorted(plain) if name in _UNORDERED and isinstance(plain, list) and _texts(plain) else plain


def _texts(values: Sequence[Any] | Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values)
