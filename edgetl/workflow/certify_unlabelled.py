"""Certifying a bundle on samples without labels: where its two models agree, no label matters."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetl import devices
from edgetl.base.errors import BundleError, CertifyError, DataError, RunError
from edgetl.base.progress import Progress
from edgetl.base.storage import sha256_file
from edgetl.certify import Certificate
from edgetl.certify.agreement import certify_agreement
from edgetl.certify.unlabelled import Unlabelled, comparable
from edgetl.core.bundle import AGREEMENT, BILL, CERTIFICATE, LABEL_PAGE, MODEL_CARD, TO_LABEL, Bundle
from edgetl.core.data import Dataset, Sample
from edgetl.core.data.walk import writable_name
from edgetl.core.run import load_run
from edgetl.core.seen import Seen
from edgetl.core.tensors import Arrays
from edgetl.devices.c_runner import find_runner, predict_in_c
from edgetl.devices.placement import place
from edgetl.inputs import kind_of
from edgetl.reporting.labelling.page import Asked, write_label_page
from edgetl.runtime.predict import predict, task_of
from edgetl.transfer.streams import unlabelled
from edgetl.workflow.answers import executed_facts
from edgetl.workflow.certify_bundle import Terms, facts_of, hashes, judged_again, write_certificate
from edgetl.workflow.label_file import has_labels, label_cell, read_label_file, write_label_file
from edgetl.workflow.network_reference import reference_of

#: What answers in the reference's place.
TRAINED, EXPORTED = "trained model", "float ONNX file of the trained model"


@dataclass(frozen=True)
class _File:
    """A file, its path below the source that was given, and its SHA-256."""

    file: Path
    path: str
    sha256: str


@dataclass(frozen=True)
class Given:
    """What samples without labels are compared with, and where.

    Attributes:
        images: a folder, or a CSV file with the column path or text.
        labels: a CSV file with labels of those on which the models differ; None without any.
        device: where the deployed model runs; this machine when None.
        run: the run that the bundle was made from, whose trained model then answers; the bundle's float ONNX file when
            None.
        runner: the C runner's program, through which the deployed model answers; Python's runtime when None.
    """

    images: Path
    labels: Path | None = None
    device: str | None = None
    run: Path | None = None
    runner: str | None = None

    @classmethod
    def of(
        cls,
        images: str | Path,
        labels: str | Path | None,
        device: str | None,
        run: str | Path | None,
        runner: str | None,
        *,
        elsewhere: bool,
    ) -> Given:
        """The same from what a user names.

        Args:
            images, labels, device, run, runner: see the class.
            elsewhere: whether samples or answers are named besides, which are of the labelled certify split.

        Raises:
            CertifyError: they are.
        """
        if elsewhere:
            what = "images without labels are compared by themselves"
            raise CertifyError(what, "leave data, predictions and corruptions out, or images")
        own, root = (None if path is None else Path(path) for path in (labels, run))
        return cls(Path(images), own, device, root, runner)


def refuse_without_images(labels: str | Path | None, run: str | Path | None) -> None:
    """Refuse what says nothing unless samples without labels are given.

    Raises:
        CertifyError: one of them is there.
    """
    if labels is not None:
        raise CertifyError("labels alone say nothing", "give the images that they are of, too: --images FOLDER")
    if run is not None:
        raise CertifyError("a run answers for images without labels alone", "give them: --images FOLDER")


def terms_of(bundle: Bundle, margin: float | None, alpha: float, metric: str | None) -> Terms:
    """What samples without labels are held to: the share of right answers, whatever the task's default metric is.

    Raises:
        CertifyError: margin or alpha is out of range, or the task or metric takes all labels.
        UnknownNameError: the task has no such metric.
    """
    return Terms.of(bundle, margin, alpha, comparable(task_of(bundle), metric))


def certify_unlabelled(bundle: Bundle, terms: Terms, given: Given, progress: Progress) -> Certificate:
    """Ask both models, test how far they agree, and write the certificate and what is to be labelled.

    With labels, answers that were kept for these very files are used again, so that labels belong to the answers that
    they were asked for.

    Raises:
        CertifyError: no certificate of labelled samples yet, or no sample that can be compared.
        DataError: unusable files, or a label file that does not fit.
        BundleError: it keeps no float model.
    """
    if bundle.certificate is None:
        what = f"{bundle.path} has no certificate of labelled samples, on which classes and faults still rest"
        raise CertifyError(what, "make it first: edgetl verify BUNDLE --data FOLDER")
    if given.labels is None and has_labels(bundle.path / TO_LABEL):
        what = f"{bundle.path / TO_LABEL} holds labels, which would be overwritten"
        raise CertifyError(what, f"give them: --labels {bundle.path / TO_LABEL}; or move the file away")
    with tempfile.TemporaryDirectory(prefix="edgetl-texts-") as texts:
        files, left_out = _files(bundle, given.images, Path(texts), progress)
        found, facts = _kept(bundle, files, left_out, given) or _asked(bundle, files, left_out, given, progress)
        if given.labels is not None:
            found = found.labelled(read_label_file(given.labels, found))
        base = judged_again(bundle, terms)
        # Should this be killed now, a missing certificate is better than one of other answers.
        for name in (CERTIFICATE, BILL, MODEL_CARD):
            (bundle.path / name).unlink(missing_ok=True)
        found.save(bundle.path / AGREEMENT)
        certificate = write_certificate(bundle, certificate_of_agreement(bundle, base, found, facts))
        _ask(bundle, certificate, found, files, terms)
    return certificate


def agreement_again(bundle: Bundle, margin: float | None, alpha: float, metric: str | None) -> Certificate | None:
    """Judge the kept answers to samples without labels on other terms; None where the certificate is of other samples.

    Raises:
        CertifyError: the certificate or the answers were altered, or the task or metric takes all labels.
    """
    record = bundle.certificate
    if record is None or record.agreement is None:
        return None
    terms = terms_of(bundle, margin, alpha, metric)
    base, found = judged_again(bundle, terms), Unlabelled.load(bundle.path / AGREEMENT)
    return write_certificate(bundle, certificate_of_agreement(bundle, base, found, facts_of(record)))


def certificate_of_agreement(
    bundle: Bundle, base: Certificate, found: Unlabelled, facts: Mapping[str, Any]
) -> Certificate:
    """The certificate that kept answers give, on top of the one of the certify split.

    Args:
        bundle: whose models answered; it keeps the answers already.
        base: on the terms that this one is held to.
        found: the answers, and labels where there are any.
        facts: executed, executed_on and runtime.
    """
    test, counted = found.tested(base.margin, base.alpha, base.n)
    agreement = replace(counted, training_known=Seen(bundle).complete)
    told = {name: facts[name] for name in ("executed", "executed_on", "runtime")}
    kept = {**hashes(bundle), "agreement": sha256_file(bundle.path / AGREEMENT)}
    return certify_agreement(base, agreement, test, found.n, {**told, "hashes": kept})


def _files(bundle: Bundle, images: Path, texts: Path, progress: Progress) -> tuple[list[_File], dict[str, int]]:
    """Files that can be compared, and how many are left out, by why."""
    kind = kind_of(bundle)
    if not images.exists():
        raise DataError(f"there is no {images}", f"give a folder of {kind.noun}s, or a CSV file with path or text")
    total, usable = unlabelled(images, kind.name, texts, progress)
    root = images if images.is_dir() else texts if any(texts.iterdir()) else images.parent
    seen = Seen(bundle)
    files: list[_File] = []
    known: set[str] = set()
    left_out = {"seen": 0, "copies": 0, "unusable": total - len(usable)}
    for file, content in usable:
        path, digest = _below(file, root), sha256_file(file)
        if not writable_name(path):
            left_out["unusable"] += 1
        elif content in seen or digest in seen:
            left_out["seen"] += 1
        elif content in known:
            left_out["copies"] += 1
        else:
            known.add(content)
            files.append(_File(file, path, digest))
    if not files:
        what = f"{images} holds no {kind.noun} that the model has not seen ({total} files)"
        raise DataError(what, f"give other {kind.noun}s; with the suffix {', '.join(kind.suffixes[:4])} or the like")
    return files, left_out


def _below(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def _kept(
    bundle: Bundle, files: Sequence[_File], left_out: Mapping[str, int], given: Given
) -> tuple[Unlabelled, Mapping[str, Any]] | None:
    """Answers that labels were asked for, where the bundle keeps them: of these very files, from the same place."""
    record = bundle.certificate
    if given.labels is None or given.runner is not None or record is None or record.agreement is None:
        return None
    if given.device not in (None, record.executed_on.get("device")):
        return None
    found = Unlabelled.load(bundle.path / AGREEMENT)
    if list(zip(found.paths, found.sha256, strict=True)) != [(each.path, each.sha256) for each in files]:
        return None
    if given.run is not None and found.answered_by != TRAINED:
        return None
    return replace(found.labelled({}), left_out=dict(left_out)), facts_of(record)


def _asked(
    bundle: Bundle, files: Sequence[_File], left_out: Mapping[str, int], given: Given, progress: Progress
) -> tuple[Unlabelled, Mapping[str, Any]]:
    """What both models answer now."""
    at, paths = place(bundle, given.device), [each.file for each in files]
    program = None if given.runner is None else find_runner(given.runner)
    answered_by, reference = _reference(bundle, given.run, files, progress)
    if program is None:
        deployed = devices.predict(at.device, bundle, paths, simulated=at.emulates, progress=progress)
    else:
        deployed = predict_in_c(at, bundle, paths, program, progress=progress)
    named = [(each.path, each.sha256) for each in files]
    found = Unlabelled.of(task_of(bundle), bundle.labels, named, (reference, deployed), answered_by, left_out)
    return found, executed_facts(bundle, at, program)


def _reference(bundle: Bundle, run: Path | None, files: Sequence[_File], progress: Progress) -> tuple[str, Arrays]:
    """What answers in the reference's place, in words, and its outputs."""
    if run is None:
        try:
            outputs = predict(bundle, [each.file for each in files], role="exported", progress=progress)
        except BundleError as error:
            raise BundleError(error.what, "name the run that it was exported from: --run RUN") from error
        return EXPORTED, outputs
    opened = load_run(run)
    if bundle.manifest.run is None or opened.digest != bundle.manifest.run.digest:
        raise RunError(f"{bundle.path} was not made from {run}", "name the run that it was exported from")
    own = opened.dataset
    samples = tuple(Sample(each.path, own.samples[0].label, each.sha256, "", "certify") for each in files)
    places = {each.path: each.file for each in files}
    asked = Dataset(own.root, own.classes, samples, label_kind=own.label_kind, places=places)
    return TRAINED, reference_of(replace(opened, dataset=asked)).outputs("certify", progress)


def _ask(bundle: Bundle, certificate: Certificate, found: Unlabelled, files: Sequence[_File], terms: Terms) -> None:
    """Write what is to be labelled, as a list and as a page, where labels decide; else take the page away."""
    page, agreement = bundle.path / LABEL_PAGE, certificate.agreement
    if certificate.verdict != "underpowered" or agreement is None or not agreement.unlabelled:
        page.unlink(missing_ok=True)
        if not has_labels(bundle.path / TO_LABEL):
            (bundle.path / TO_LABEL).unlink(missing_ok=True)
        return
    rows, names, kind = found.asked(terms.margin, terms.alpha), found.class_names, kind_of(bundle)
    write_label_file(bundle.path / TO_LABEL, found, rows)
    asked = [
        Asked(found.paths[row], files[row].file, label_cell(found, row), tuple(names[i] for i in found.offered[row]))
        for row in rows
    ]
    several, digest = found.labels.ndim == 2, sha256_file(bundle.path / AGREEMENT)
    write_label_page(page, names, asked, kind.name, kind.noun, several=several, digest=digest)
