"""Verifying a bundle: on which samples, and whether their answers are kept already."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.progress import Progress, silent
from edgetl.certify import Certificate
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.workflow.certify_bundle import Terms, certify_again, certify_bundle
from edgetl.workflow.certify_unlabelled import (
    Given,
    agreement_again,
    certify_unlabelled,
    refuse_without_images,
    terms_of,
)


def verify_bundle(
    bundle: str | Path | Bundle,
    *,
    data: str | Path | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    metric: str | None = None,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
    device: str | None = None,
    predictions: str | Path | None = None,
    corruptions: bool = False,
    runner: str | None = None,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    run: str | Path | None = None,
    public_key: str | Path | None = None,
    progress: Progress = silent,
) -> Certificate:
    """The test on a bundle's certify split, or on samples without labels; its ``certificate.json`` is written.

    Args:
        bundle: the bundle to test.
        data: where the certify samples lie now; they are recognised by their hashes. Saved predictions are
            judged again when neither ``data``, ``device``, ``predictions``, ``corruptions`` nor ``runner`` is given.
        margin, alpha, metric: see :func:`edgetl.certify.verify_arrays`; a margin of mae or rmse that is None is a
            hundredth of the standard deviation of the training labels.
        value_range: range of all labels and answers of a regression, whose verdict is conditional without it.
        sequential: the verdict is to hold however often it is read, while samples are added.
        device: name of the device to run on; this machine when None.
        predictions: an ``.npz`` with the answers of a program of your own: ``logits`` (n, classes) and ``sha256`` (n)
            of the files.
        corruptions: also test under blur, noise, JPEG, brightness and contrast: of images, where accuracy is a metric.
        runner: run the deployed model through the C runner: its program ``edgetl-run``, compiled for the device, or
            ``c`` for the one on the search path; Python's runtime when None.
        images: samples without labels, a folder or a CSV file with the column path or text, on which the two models
            are compared: where they agree no label matters. Those of the model's own splits are left out but for
            certify. Where labels decide, ``to_label.csv`` and ``to_label.html`` in the bundle ask for them.
        labels: that file, with labels.
        run: the run that the bundle was made from, whose trained model then answers for ``images``, not the float ONNX
            file that the bundle keeps.
        public_key: that must have signed the bundle: a file, or 64 hexadecimal digits.
        progress: told of each sample.

    Raises:
        CertifyError: a bad margin, or samples that are not there.
    """
    opened = load_bundle(bundle, public_key)
    elsewhere = data is not None or predictions is not None or corruptions
    if images is None:
        refuse_without_images(labels, run)
    else:
        given = Given.of(images, labels, device, run, runner, elsewhere=elsewhere)
        return certify_unlabelled(opened, terms_of(opened, margin, alpha, metric), given, progress)
    terms = Terms.of(opened, margin, alpha, metric, value_range, sequential)
    if not elsewhere and device is None and runner is None:
        again = None if sequential or value_range else agreement_again(opened, margin, alpha, metric)
        if again is not None or (again := certify_again(opened, terms)) is not None:
            return again
    return certify_bundle(
        opened,
        terms,
        data=data,
        device=device,
        predictions=None if predictions is None else Path(predictions),
        corruptions=corruptions,
        progress=progress,
        runner=runner,
    )
