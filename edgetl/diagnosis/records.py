"""What a bundle's own files contradict: labels, preprocessing and the choice of calibration images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError
from edgetl.base.wording import counted
from edgetl.core.bundle import Bundle
from edgetl.core.compression import Calibration, CalibrationSample
from edgetl.core.data import Dataset
from edgetl.core.findings import Finding
from edgetl.core.manifest import TrainedRun
from edgetl.inputs import input_of, kind_of
from edgetl.inputs.image import Preprocess

#: Fewer calibration images than this are reported.
FEWEST = 16


def read_records(bundle: Bundle, root: Path | None) -> tuple[Finding, ...]:
    """Findings from the files alone; ``root`` has the run's images, or is None."""
    run, dataset = bundle.manifest.run or TrainedRun(), bundle.dataset
    found = [*_labels(bundle.labels, run.classes or dataset.classes, dataset.classes)]
    definition = input_of(bundle)
    if run.input and isinstance(definition, Preprocess):
        found += preprocessing(Preprocess.from_json(run.input), definition)
    elif run.input and run.input != definition.to_json():
        what = "preprocess.json defines another input than training's."
        found.append(Finding("preprocessing", what, evidence=_both(dict(run.input), definition.to_json())))
    if bundle.precision == "int8":
        quantization = bundle.manifest.quantization
        found += _calibration(bundle.calibration, quantization.samples if quantization else 0, bundle, root)
    return tuple(found)


def _labels(labels: Sequence[str], trained: Sequence[str], split: Sequence[str]) -> Iterable[Finding]:
    for where, names in (("labels.json", labels), ("splits.json", split)):
        if tuple(names) == tuple(trained):
            continue
        pairs = list(zip(trained, names, strict=False))
        moved = [(row, own, other) for row, (own, other) in enumerate(pairs) if own != other]
        first = "; ".join(f"logit {row} is '{own}' and is called '{other}'" for row, own, other in moved[:3])
        more = f" ({len(moved)} names in all)" if len(moved) > 3 else ""
        what = f"{where} names the logits in another way than training: {first or 'names are missing'}{more}."
        evidence = {"file": where, "trained": list(trained), "found": list(names)}
        yield Finding("label-order", what, evidence=evidence)


def preprocessing(trained: Preprocess, found: Preprocess) -> Iterable[Finding]:
    """What differs between the preprocessing of training and that of ``preprocess.json``, each difference named."""
    where = "preprocess.json"
    if trained.interpolation != found.interpolation:
        what = f"{where} resizes by {found.interpolation}; training resized by {trained.interpolation}."
        yield Finding("interpolation", what, evidence=_both(trained.interpolation, found.interpolation))
    if (trained.height, trained.width) != (found.height, found.width):
        own, other = (trained.height, trained.width), (found.height, found.width)
        what = f"{where} crops {other[0]}x{other[1]} pixels; training cropped {own[0]}x{own[1]}."
        yield Finding("preprocessing", what, evidence=_both(own, other))
    elif trained.resize != found.resize:
        what = (
            f"{where} resizes to {found.resize} pixels before the crop (crop ratio {_ratio(found):.3f}); "
            f"training resized to {trained.resize} ({_ratio(trained):.3f})."
        )
        yield Finding("crop-ratio", what, evidence=_both(trained.resize, found.resize))
    for name in ("mode", "channels", "pad", "version"):
        if getattr(trained, name) != getattr(found, name):
            own, other = getattr(trained, name), getattr(found, name)
            what = f"{where} says {name} {other}; training used {own}."
            yield Finding("channel-order" if name == "channels" else "preprocessing", what, evidence=_both(own, other))
    if trained.channels != found.channels:
        return
    for name in ("mean", "std"):
        own, other = getattr(trained, name), getattr(found, name)
        if max(abs(a - b) for a, b in zip(own, other, strict=True)) > 1e-6:
            what = f"{where} says {name} {_numbers(other)}; training used {_numbers(own)}."
            yield Finding("normalisation", what, evidence={name: _both(own, other)})


def _ratio(preprocess: Preprocess) -> float:
    return min(preprocess.height, preprocess.width) / preprocess.resize


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


def _both(trained: Any, found: Any) -> dict[str, Any]:
    plain = [list(value) if isinstance(value, tuple) else value for value in (trained, found)]
    return {"trained": plain[0], "found": plain[1]}


def _calibration(record: Calibration, used: int, bundle: Bundle, root: Path | None) -> Iterable[Finding]:
    samples, dataset, noun = record.samples, bundle.dataset, kind_of(bundle).noun
    if not samples:
        return
    yield from _overlap(samples, bundle, root)
    count = min(len(samples), used or len(samples))
    if count < FEWEST:
        what = f"The activation ranges come from {counted(count, noun)}; {FEWEST} are the least that this trusts."
        yield Finding("calibration-too-few", what, evidence={"images": count, "fewest": FEWEST})
    labels = {str(sample.label) for sample in samples}
    if len(labels) == 1 and len(dataset.classes) > 1 and len(samples) > 1:
        name = _name(dataset, samples[0].label)
        what = f"All {len(samples)} calibration {noun}s are of the class '{name}', one of {len(dataset.classes)}."
        yield Finding("calibration-one-class", what, evidence={"class": name, "images": len(samples)})
    known = {sample.sha256 for sample in dataset.samples}
    foreign = [sample.path for sample in samples if sample.sha256 not in known]
    if foreign:
        what = f"{len(foreign)} of {len(samples)} calibration {noun}s are none of this run's (first: {foreign[0]})."
        yield Finding("calibration-stale", what, evidence={"images": len(foreign), "first": foreign[0]})


def _name(dataset: Dataset, label: object) -> str:
    if isinstance(label, int) and 0 <= label < len(dataset.classes):
        return dataset.classes[label]
    return str(label)


def _overlap(samples: Sequence[CalibrationSample], bundle: Bundle, root: Path | None) -> Iterable[Finding]:
    dataset = bundle.dataset
    certified = dataset.split("certify")
    files, pictures = {s.sha256 for s in certified}, {s.pixels for s in certified}
    known = {sample.sha256: sample.pixels for sample in dataset.samples}

    def is_certified(sample: CalibrationSample) -> bool:
        return sample.sha256 in files or (known.get(sample.sha256) or _pixels(bundle, root, sample.path)) in pictures

    shared = [sample.path for sample in samples if is_certified(sample)]
    if shared:
        what = (
            f"{len(shared)} of {len(samples)} calibration {kind_of(bundle).noun}s are of the certify split, too "
            f"(first: {shared[0]})."
        )
        yield Finding("calibration-overlap", what, evidence={"images": len(shared), "first": shared[0]})


def _pixels(bundle: Bundle, root: Path | None, path: str) -> str:
    """The hash by which samples are told apart whatever file they are in; "" where the file is not to be had."""
    if root is None:
        return ""
    try:
        return kind_of(bundle).fingerprint(root / path)
    except DataError:
        return ""
