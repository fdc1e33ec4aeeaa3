"""Certifying a bundle: its answers against the trained model's, what is wrong with it, and what is kept of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.progress import Progress
from edgetl.base.storage import sha256_file, sha256_json, write_bytes
from edgetl.base.wording import amount
from edgetl.certify import Explain, Facts, Predictions, certify_answers, check_limits
from edgetl.core.bundle import AGREEMENT, BILL, CERTIFICATE, MODEL_CARD, PREDICTIONS, Bundle, check_certificate
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Reading
from edgetl.core.data import Dataset
from edgetl.core.findings import Finding
from edgetl.core.run import Run
from edgetl.core.tensors import packed
from edgetl.devices.placement import Placement
from edgetl.diagnosis import Observations, diagnose
from edgetl.inputs import input_of, kind_of
from edgetl.reporting.papers import papers
from edgetl.tasks import find_task
from edgetl.workflow.answers import (
    Answers,
    Reference,
    collect_answers,
    read_answers,
    reference,
    reproduced,
)
from edgetl.workflow.corruption_test import check_corruptible, under_corruptions
from edgetl.workflow.explain_loss import layers_behind
from edgetl.workflow.readings import before, enter, look_of, readings_before
from edgetl.workflow.sketch_bundle import write_sketch


@dataclass(frozen=True)
class Terms:
    """What a certificate is held to: the greatest tolerable loss, the one-sided level, and the metric; of a regression
    also the range of all values, where it is known; and whether it is to hold however often it is read."""

    margin: float = 0.01
    alpha: float = 0.05
    metric: str = "accuracy"
    value_range: tuple[float, float] | None = None
    sequential: bool = False

    @classmethod
    def of(
        cls,
        owner: Run | Bundle,
        margin: float | None = None,
        alpha: float = 0.05,
        metric: str | None = None,
        value_range: tuple[float, float] | None = None,
        sequential: bool = False,
    ) -> Terms:
        """What its certificates are held to: its task's default metric, and that metric's margin, where none is named.

        In the labels' own unit it is a hundredth of the standard deviation of those of training, which no certificate
        is about: 0.01 of it would be nothing to some labels, and everything to others. Of several tasks it is a
        hundredth, of a share or of that standard deviation, as each task's metric has it.

        Raises:
            CertifyError: margin or alpha is out of range.
            UnknownNameError: the task has no such metric.
        """
        known = find_task(owner.manifest.task if isinstance(owner, Bundle) else owner.task)
        name = known.find_metric(metric)
        held = known.metrics[known.metric if known.parts else name]
        wanted = held.margin_for(_scale(owner.dataset)) if margin is None else margin
        check_limits(held, wanted, alpha)
        return cls(wanted, alpha, name, value_range, sequential)


def _scale(dataset: Dataset) -> npt.NDArray[Any]:
    return dataset.labels("train" if dataset.split("train") else "certify")


def certify_bundle(
    bundle: Bundle,
    terms: Terms,
    *,
    data: str | Path | None,
    device: str | None,
    predictions: Path | None,
    corruptions: bool,
    progress: Progress,
    runner: str | None = None,
) -> Certificate:
    """Obtain answers for the certify samples, diagnose them, keep them and write the certificate.

    Raises:
        CertifyError: corruptions that cannot be tested, samples that are not there, or a runner with answers from
            elsewhere or corruptions.
    """
    if runner is not None and (corruptions or predictions is not None):
        raise CertifyError("the C runner answers the certify samples alone", "leave out predictions and corruptions")
    if corruptions:
        check_corruptible(bundle, predictions)
    at: Placement | None = None
    if predictions is not None:
        seen = read_answers(bundle, predictions)
    else:
        at, seen = collect_answers(bundle, data, device, progress, runner)
    kept = reference(bundle)
    outputs = {"reference": kept.reference, **seen.rungs, "deployed": seen.deployed}
    logits = {name: packed(found) for name, found in outputs.items()}
    labels = bundle.dataset.labels("certify")
    root = _root(seen.paths, bundle)
    observations = Observations(seen.paths, labels, logits, seen.simulated)
    findings = diagnose(bundle, observations, root=root, progress=progress)
    robustness = None
    if corruptions and at is not None:
        robustness = under_corruptions(bundle, at, seen.paths, (terms.margin, terms.alpha), progress)
    saved = _saved(bundle, kept, seen)
    known = readings_before(bundle)
    # Should this be killed now, a missing certificate is better than one of other predictions.
    _forget(bundle, CERTIFICATE, BILL, MODEL_CARD)
    saved.save(bundle.path / PREDICTIONS)
    write_sketch(bundle, seen.paths, seen.deployed)
    facts = {**seen.facts, "robustness": robustness}
    explain = partial(layers_behind, bundle, facts["executed"], root)
    return _written(bundle, partial(certificate_of, bundle, saved, facts, findings, terms, explain), known)


def certify_again(bundle: Bundle, terms: Terms) -> Certificate | None:
    """Judge the saved predictions on other terms, without inference; None if there are none.

    Raises:
        CertifyError: the certificate or the predictions were altered, or belong to another bundle.
    """
    if not all((bundle.path / name).is_file() for name in (CERTIFICATE, PREDICTIONS)):
        return None
    return _written(bundle, _made_again(bundle, terms), readings_before(bundle))


def judged_again(bundle: Bundle, terms: Terms) -> Certificate:
    """The certificate that the saved predictions of the certify split give on some terms; nothing is written.

    Raises:
        CertifyError: there is no certificate, or it or the predictions were altered, or belong to another bundle.
    """
    return _made_again(bundle, terms)()


def _made_again(bundle: Bundle, terms: Terms) -> Callable[..., Certificate]:
    record = check_certificate(bundle)
    saved = Predictions.load(bundle.path / PREDICTIONS)
    earlier = [finding for finding in earlier_findings(record) if finding.kind != "quantization-noise"]
    explain = partial(layers_behind, bundle, record.executed, None)
    return partial(certificate_of, bundle, saved, facts_of(record), earlier, terms, explain)


def facts_of(certificate: Certificate) -> dict[str, Any]:
    """What a certificate says that its predictions do not."""
    names = ("executed", "runtime", "executed_on", "robustness", "readings")
    return {name: getattr(certificate, name) for name in names}


def earlier_findings(certificate: Certificate) -> list[Finding]:
    """An earlier certificate's findings, but for those that follow from its predictions and will be found again."""
    return [finding for finding in certificate.findings if not finding.evidence.get("statistical")]


def _root(paths: Sequence[Path], bundle: Bundle) -> Path | None:
    """The folder under which the run's samples lie now, if they lie as they did; None if they do not."""
    samples = bundle.dataset.split("certify")
    if not paths or not paths[0].is_file():
        return None
    own = Path(samples[0].path)
    if own.is_absolute():  # older runs kept what a CSV said
        return Path(own.anchor)
    return paths[0].parents[len(own.parts) - 1] if paths[0].parts[-len(own.parts) :] == own.parts else None


def _saved(bundle: Bundle, kept: Reference, seen: Answers) -> Predictions:
    samples = bundle.dataset.split("certify")
    outputs = {"reference": kept.reference, **seen.rungs, "deployed": seen.deployed}
    return Predictions.from_outputs(
        find_task(bundle.manifest.task),
        labels=bundle.dataset.labels("certify"),
        outputs=outputs,
        # A CSV may name its files by absolute paths, which would mean nothing on another machine.
        paths=[s.path.lstrip("/") for s in samples],
        sha256=[s.sha256 for s in samples],
        classes=bundle.labels,
        baseline=None if kept.baseline is None else (kept.baseline_kind, kept.baseline),
        groups=bundle.dataset.groups("certify"),
    )


def certificate_of(
    bundle: Bundle,
    saved: Predictions,
    facts: Mapping[str, Any],
    findings: Sequence[Finding],
    terms: Terms,
    explain: Explain | None = None,
    readings: tuple[Reading, ...] | None = None,
) -> Certificate:
    """The certificate that saved predictions give on some terms, with what else is known of the bundle."""
    return certify_answers(
        **saved.arguments(),
        metric=terms.metric,
        margin=terms.margin,
        alpha=terms.alpha,
        value_range=terms.value_range,
        sequential=terms.sequential,
        trained=bundle.dataset.labels("train") if bundle.dataset.split("train") else None,
        reproduced=reproduced(bundle),
        findings=(*findings, *_refusal(bundle, terms)),
        explain=explain,
        facts=Facts(
            executed=facts["executed"],
            runtime=facts["runtime"],
            isa=bundle.manifest.target.isa,
            precision=bundle.precision,
            hashes=hashes(bundle),
            executed_on=facts["executed_on"],
            layers=bundle.layers,
            robustness=facts.get("robustness"),
            repair=bundle.manifest.repair,
            sample=kind_of(bundle).noun,
            labelled_by=_labelled_by(bundle),
            notes=_notes(bundle),
            readings=facts.get("readings", ()) if readings is None else readings,
        ),
    )


def _labelled_by(bundle: Bundle) -> Literal["owner", "model"]:
    adapted = bundle.manifest.run.adaptation if bundle.manifest.run is not None else None
    return "owner" if adapted is None or adapted.labelled else "model"


def _notes(bundle: Bundle) -> tuple[str, ...]:
    """What a certificate has to say of a model, or of an artifact, that was made elsewhere."""
    run, quantization = bundle.manifest.run, bundle.manifest.quantization
    foreign = quantization.foreign if quantization is not None else None
    return (*(() if run is None else run.notes), *([] if foreign is None else [foreign.note]))


def _refusal(bundle: Bundle, terms: Terms) -> list[Finding]:
    """Export refuses what it could not repair, unless its owner now tolerates more."""
    repair = bundle.manifest.repair
    if repair is None or repair.survived or terms.margin > repair.margin:
        return []
    what = f"{len(repair.measured)} attempts, and none was good enough."
    if (best := repair.best) is not None:
        expected = best.expected_difference
        noise = "" if expected is None else f" ({amount(-expected, repair.unit)} expected of its noise)"
        task = find_task(bundle.manifest.task)
        metric = task.metrics[task.find_metric(repair.metric)].title
        what = (
            f"{len(repair.measured)} attempts, and the best still lost {amount(-(best.difference or 0), repair.unit)} "
            f"of {metric}{noise} on {best.n} samples of the search split."
        )
    return [Finding("not-repaired", what, (), {"statistical": True})]


def _written(bundle: Bundle, made: Callable[..., Certificate], known: Sequence[Reading]) -> Certificate:
    """Make a certificate that quotes the readings before it, and enter it among them."""
    certificate = made(readings=())
    if earlier := before(look_of(bundle, certificate), known):
        certificate = made(readings=earlier)
    enter(bundle, certificate)
    return write_certificate(bundle, certificate)


def write_certificate(bundle: Bundle, certificate: Certificate) -> Certificate:
    """Write it and what follows from it, in the place of the bundle's earlier one; returned as it is."""
    _forget(bundle, BILL, MODEL_CARD, *((AGREEMENT,) if certificate.agreement is None else ()))
    bundle.write_record(CERTIFICATE, certificate.to_json())
    for name, content in papers(bundle).items():
        write_bytes(bundle.path / name, content)
    return certificate


def _forget(bundle: Bundle, *names: str) -> None:
    for name in names:
        (bundle.path / name).unlink(missing_ok=True)


def hashes(bundle: Bundle) -> dict[str, str]:
    """SHA-256 of everything that a certificate speaks of."""
    entries = bundle.manifest.files
    model = [entries[f.relative_to(bundle.path).as_posix()].sha256 for f in bundle.artifact().files]
    return {
        "model": sha256_json(model) if len(model) > 1 else model[0],
        "reference_weights": bundle.manifest.run.weights_sha256 if bundle.manifest.run else "",
        "splits": bundle.splits,
        "preprocess": input_of(bundle).digest,
        "manifest": bundle.digest,
        "predictions": sha256_file(bundle.path / PREDICTIONS),
    }
