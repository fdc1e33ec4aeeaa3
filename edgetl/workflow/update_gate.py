"""May a new release take the place of the one in charge? Both answer the same samples, on the device, in pairs.

A bundle's certificate compares it with the model that it was made of. That the model is no worse than what a device
runs today is another question: the certify samples of the new bundle answer it, which neither its training nor its
compression has seen. What the old release was trained on is not known: where that were some of these samples, the test
would err on the side of the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl import devices
from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress
from edgetl.base.storage import sha256_json
from edgetl.base.wording import amount
from edgetl.certify import Facts, certify_answers
from edgetl.core.bundle import Bundle
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Verdict
from edgetl.core.data import LABEL_KINDS
from edgetl.core.tensors import Arrays
from edgetl.devices import Device
from edgetl.inputs import kind_of
from edgetl.runtime.installed import InCharge
from edgetl.tasks import Task, find_task
from edgetl.workflow.answers import certify_files
from edgetl.workflow.certify_bundle import Terms

#: Regressions that are named at most.
MOST_NAMED = 1000
#: Samples that are scored at once.
_ROWS = 512


@dataclass(frozen=True)
class Regression:
    """A sample on which the new release is worse.

    Attributes:
        path: of the sample in its data set.
        label: its truth.
        before, after: what the release in charge and the new one answer.
    """

    path: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Update:
    """The paired test of a new release against the one in charge.

    Attributes:
        replaces: the release in charge.
        verdict: pass: it is no worse by the margin, and no class collapsed; fail: it is worse; underpowered: too few
            samples to tell.
        metric: that decides.
        in_charge, new: its value of each.
        difference: gain in it: negative is a loss; with its one-sided bound.
        ci_low: one-sided 1 - alpha lower bound of that.
        margin, alpha: what it is held to.
        n, n_needed: samples, and how many a pass takes with probability 0.8.
        reasons: why, in sentences.
        regressions: the worst first where there are degrees.
        improvements: samples on which the new release is better.
    """

    replaces: str
    verdict: Verdict
    metric: str
    in_charge: float
    new: float
    difference: float
    ci_low: float
    margin: float
    alpha: float
    n: int
    n_needed: int | None
    reasons: tuple[str, ...]
    regressions: tuple[Regression, ...] = ()
    improvements: int = 0

    @property
    def said(self) -> str:
        """Why the release in charge stays, in a line."""
        return f"{' '.join(self.reasons)}{_named(self.regressions)}"


def _named(regressions: Sequence[Regression]) -> str:
    if not regressions:
        return ""
    shown = "; ".join(f"{r.path} ({r.label}): {r.before} before, {r.after} now" for r in regressions[:3])
    more = f"; {len(regressions) - 3} more: --json names them" if len(regressions) > 3 else ""
    return f" Worse on {shown}{more}."


@dataclass(frozen=True)
class Gate:
    """What a new release is asked, and what it is held to.

    Attributes:
        paths: of the bundle's certify samples, on this machine.
        terms: margin, level and metric.
    """

    paths: tuple[Path, ...]
    terms: Terms


def gate_of(bundle: Bundle, margin: float, data: str | Path | None, progress: Progress) -> Gate:
    """The gate of a bundle: its certify samples, and its certificate's metric and level at another margin.

    Args:
        bundle: the new release, opened and checked.
        margin: the greatest acceptable loss against the release in charge, in the metric's unit.
        data: where the samples lie now, as for :func:`edgetl.verify`.
        progress: told of each file.

    Raises:
        CertifyError: samples are missing or were changed, or the margin is out of range.
    """
    certificate = bundle.certificate
    alpha, metric = (0.05, None) if certificate is None else (certificate.alpha, certificate.metric)
    terms = Terms.of(bundle, margin, alpha, metric)
    return Gate(tuple(certify_files(bundle, data, progress)), terms)


def compare_with_current(bundle: Bundle, device: Device, name: str, gate: Gate, progress: Progress) -> Update | None:
    """Ask a new release and the one in charge the same samples on a device.

    Args:
        bundle: the new one, opened and checked.
        device: where both run.
        name: of what is deployed there.
        gate: the samples, and the terms.
        progress: told of each sample.

    Returns:
        None where nothing is in charge there, or this very bundle is.

    Raises:
        DeviceError: the release in charge is for another task or other classes; or see :meth:`Device.call`.
    """
    there = devices.current(device, name)
    if there.release is None or there.digest == bundle.digest:
        return None
    _check_alike(bundle, there, device)
    answered, before = devices.predict_current(device, name, bundle, gate.paths, progress=progress)
    _check_alike(bundle, answered, device)
    after = devices.predict(device, bundle, gate.paths, progress=progress)
    return judged(bundle, str(answered.release), {"reference": before, "deployed": after}, gate.terms)


def _check_alike(bundle: Bundle, there: InCharge, device: Device) -> None:
    task, names = bundle.manifest.task, bundle.labels
    if there.task == task and there.classes_sha256 == sha256_json(list(names)):
        return
    what = (
        f"is for {there.task}"
        if there.task != task
        else f"tells {there.classes} classes apart, which are not this bundle's {len(names)} in their order"
    )
    raise DeviceError(
        f"the release in charge on {device.name} {what}, so the two cannot be compared",
        "deploy it without --unless-worse, or under another --name",
    )


def judged(bundle: Bundle, replaces: str, outputs: Mapping[str, Arrays], terms: Terms) -> Update:
    """The test of the outputs, (n, …) by name, of the release in charge, "reference", and the new one, "deployed"."""
    task, dataset = find_task(bundle.manifest.task), bundle.dataset
    labels = dataset.labels("certify")
    models = {name: task.decode(given, task.options) for name, given in outputs.items()}
    found = certify_answers(
        task,
        labels,
        models,
        bundle.labels,
        metric=terms.metric,
        margin=terms.margin,
        alpha=terms.alpha,
        trained=dataset.labels("train") if dataset.split("train") else None,
        groups=dataset.groups("certify"),
        facts=Facts(sample=kind_of(bundle).noun),
    )
    before, after, difference = found.figures
    gains = _gains(task, models, labels, found.metric)
    worse = np.flatnonzero(gains < 0)
    order = worse[np.argsort(gains[worse], kind="stable")][:MOST_NAMED]
    return Update(
        replaces=replaces,
        verdict=found.verdict,
        metric=found.metric,
        in_charge=before,
        new=after,
        difference=difference,
        ci_low=found.ci_low,
        margin=found.margin,
        alpha=found.alpha,
        n=found.n,
        n_needed=found.n_needed,
        reasons=tuple(_reasons(found, task)),
        regressions=tuple(_regressions(bundle, models, order)),
        improvements=int(np.sum(gains > 0)),
    )


def _reasons(found: Certificate, task: Task) -> Iterator[str]:
    """As a certificate's, with what would have let it in."""
    yield from found.reasons
    if found.verdict == "underpowered" and found.ci_low < 0:
        unit = task.metrics[found.metric].unit if found.metric in task.metrics else ""
        yield f"A margin over {amount(-found.ci_low, unit)} would let it in."


def _gains(task: Task, models: Mapping[str, Arrays], labels: npt.NDArray[Any], metric: str) -> npt.NDArray[np.float64]:
    """By how much the new release is better on each sample, float64 [n]; 0 where a sample alone has no score."""
    n = len(labels)
    if task.parts or metric not in task.metrics:
        return np.zeros(n)
    held, gains = task.metrics[metric], np.zeros(n)
    evidence = [task.evidence(models[name], labels) for name in ("reference", "deployed")]
    for start in range(0, n, _ROWS):
        rows = slice(start, min(n, start + _ROWS))
        parts = [{key: values[rows] for key, values in found.items()} for found in evidence]
        alone = np.eye(rows.stop - rows.start)
        before, after = (held.score(part, alone) for part in parts)
        gains[rows] = np.nan_to_num(held.gain(before, after))
    return gains


def _regressions(bundle: Bundle, models: Mapping[str, Arrays], order: npt.NDArray[np.intp]) -> Iterator[Regression]:
    task, samples = find_task(bundle.manifest.task), bundle.dataset.split("certify")
    shown = LABEL_KINDS[task.labels].shown
    said = [
        task.describe({key: values[order] for key, values in models[name].items()}, bundle.labels, 1)
        for name in ("reference", "deployed")
    ]
    for index, before, after in zip(order, *said, strict=True):
        sample = samples[int(index)]
        yield Regression(sample.path, shown(sample.label, bundle.labels), _short(before), _short(after))


def _short(answer: Mapping[str, Any]) -> str:
    """What a person reads of one answer."""
    if "value" in answer:
        return f"{answer['value']:.4g}"
    if "label" in answer:
        return str(answer["label"])
    named = [str(entry["label"]) for entry in answer.get("labels", ())]
    return ", ".join(named) or "nothing"
