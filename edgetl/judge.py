"""Certifying a bundle: where it runs, on which images, against what, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.bundle import CERTIFICATE, PREDICTIONS, REFERENCE, Bundle, check_certificate
from edgetl.data import Dataset, write_digits
from edgetl.errors import BundleError, CertifyError, DeviceError
from edgetl.progress import Progress, tracked
from edgetl.splits import Sample
from edgetl.storage import sha256_file, sha256_json
from edgetl.targets import find_target

if TYPE_CHECKING:
    from edgetl.certify import Certificate, Predictions
    from edgetl.devices import Device

#: Name of the rung between the trained model and the deployed artifact.
FLOAT_RUNG = "float ONNX"


def place(bundle: Bundle, device: str | None) -> tuple[Device, str]:
    """Where a bundle runs, and what its results may be called: device, host or simulated.

    Raises:
        DeviceError: the device has another instruction set than the bundle was made for.
        UnknownNameError: no device of that name.
    """
    from edgetl.devices import find_device

    target = find_target(bundle.target)
    where = find_device(device or "local")
    if where.kind == "local":
        return where, target.executes_on_host()
    arch = where.arch or str(where.probe().machine.get("arch", ""))
    if arch and arch != target.arch:
        raise DeviceError(
            f"{where.name} is {arch}, and {bundle.path} is made for {target.name} ({target.arch})",
            "choose another device, or export for a target of this one",
        )
    if where.kind == "emulated" and target.executes_on_host(target.arch) == "simulated":
        raise DeviceError(f"{where.name} emulates a CPU, and {target.name} needs its accelerator", "use the device")
    return where, where.executed


def judge(
    bundle: Bundle, data: str | Path | None, margin: float, alpha: float, device: str | None, progress: Progress
) -> Certificate:
    """Run the certify images through the bundle, keep the predictions and write the certificate."""
    from edgetl import devices

    where, executed = place(bundle, device)
    paths = certify_files(bundle.dataset, data, progress)
    simulated = executed == "simulated" and where.kind == "local"
    deployed = devices.predict(where, bundle, paths, simulated=simulated, progress=progress)
    here = devices.find_device("local")
    # The float rung needs no device: its logits agree across machines to 1e-5 of their range.
    floats = devices.predict(here, bundle, paths, role="float", simulated=_no_float_here(bundle), progress=progress)
    saved = _saved(bundle, floats, deployed)
    # Should this be killed now, a missing certificate is better than one of other predictions.
    (bundle.path / CERTIFICATE).unlink(missing_ok=True)
    saved.save(bundle.path / PREDICTIONS)
    return _certificate(bundle, saved, _facts(bundle, where, executed), margin, alpha)


def judge_again(bundle: Bundle, margin: float, alpha: float) -> Certificate | None:
    """Judge the saved predictions with another margin, without inference; None if there are none.

    Raises:
        CertifyError: the certificate or the predictions were altered, or belong to another bundle.
    """
    from edgetl.certify import Predictions

    if bundle.record(CERTIFICATE) is None or not (bundle.path / PREDICTIONS).is_file():
        return None
    before = check_certificate(bundle)
    saved = Predictions.load(bundle.path / PREDICTIONS)
    return _certificate(bundle, saved, before, margin, alpha)


def certify_files(dataset: Dataset, data: str | Path | None, progress: Progress) -> list[Path]:
    """The certify split's image files, each checked against its hash.

    Args:
        dataset: the bundle's, with paths relative to its root.
        data: another folder, CSV or 'digits' in which the images lie now, perhaps under other names.
        progress: told of each file.

    Raises:
        CertifyError: images are missing or were changed.
    """
    samples = dataset.split("certify")
    root = dataset.root if data is None else _root(data, dataset)
    if not root.is_dir():
        raise CertifyError(f"the images of the bundle are not at {root}", "say where they are now: --data FOLDER")
    found = {s.sha256: root / s.path for s in tracked(samples, "checking images", progress) if _is(root, s)}
    if len(found) < len({s.sha256 for s in samples}) and data is not None:
        wanted = {s.sha256 for s in samples} - set(found)
        for file in (f for f in sorted(root.rglob("*")) if f.is_file()):
            if wanted and (digest := sha256_file(file)) in wanted:
                found[digest] = file
                wanted.discard(digest)
    missing = [s.path for s in samples if s.sha256 not in found]
    if missing:
        raise CertifyError(
            f"{len(missing)} of {len(samples)} certify images are missing from {root} or changed (first: {missing[0]})",
            "give the folder with the images that the run was trained from: --data FOLDER",
        )
    return [found[s.sha256] for s in samples]


def _root(data: str | Path, dataset: Dataset) -> Path:
    if str(data) == "digits":
        return dataset.root if dataset.root.is_dir() else write_digits(dataset.root)
    path = Path(data)
    return path.parent if path.is_file() else path


def _is(root: Path, sample: Sample) -> bool:
    file = root / sample.path
    return file.is_file() and sha256_file(file) == sample.sha256


def _no_float_here(bundle: Bundle) -> bool:
    return bundle.artifact("float").backend == "tensorrt" or bundle.artifact("float").device not in ("", "CPU")


def _reference(bundle: Bundle) -> npt.NDArray[np.float32]:
    with np.load(bundle.path / REFERENCE, allow_pickle=False) as stored:
        logits: npt.NDArray[np.float32] = stored["logits"]
    if len(logits) != len(bundle.dataset.split("certify")):
        raise BundleError(f"{bundle.path / REFERENCE} does not fit the certify split", "export the bundle again")
    return logits


def _saved(bundle: Bundle, floats: npt.NDArray[np.float32], deployed: npt.NDArray[np.float32]) -> Predictions:
    from edgetl.certify import Predictions

    samples = bundle.dataset.split("certify")
    return Predictions.from_logits(
        labels=bundle.dataset.labels("certify"),
        reference=_reference(bundle),
        deployed=deployed,
        # A CSV may name its files by absolute paths, which would mean nothing on another machine.
        paths=[s.path.lstrip("/") for s in samples],
        sha256=[s.sha256 for s in samples],
        classes=bundle.labels,
        rungs={FLOAT_RUNG: floats},
    )


def _facts(bundle: Bundle, where: Device, executed: str) -> dict[str, Any]:
    found, backend = where.probe(), bundle.artifact().backend
    runs = "onnxruntime" if executed == "simulated" and backend == "tensorrt" else backend
    runtime = f"{runs} {found.packages.get(runs) or ''}".strip()
    if runs != backend:
        runtime = f"{backend}, its Q/DQ graph in float by {runtime}"
    machine = {key: found.machine.get(key) for key in ("arch", "cpu_model", "board", "isa_features")}
    return {"executed": executed, "runtime": runtime, "executed_on": {"device": where.name, **machine}}


def _certificate(
    bundle: Bundle, saved: Predictions, facts: Mapping[str, Any], margin: float, alpha: float
) -> Certificate:
    from edgetl.certify import certify

    certificate = certify(
        saved.reference,
        saved.deployed,
        saved.labels,
        class_names=saved.class_names,
        margin=margin,
        alpha=alpha,
        rungs=saved.rungs,
        executed=facts["executed"],
        runtime=facts["runtime"],
        isa=find_target(bundle.target).isa,
        precision=bundle.precision,
        hashes=hashes(bundle),
        executed_on=facts["executed_on"],
    )
    bundle.write_record(CERTIFICATE, certificate.to_json())
    return certificate


def hashes(bundle: Bundle) -> dict[str, str]:
    """SHA-256 of everything that a certificate speaks of."""
    entries = bundle.manifest["files"]
    model = [entries[f.relative_to(bundle.path).as_posix()]["sha256"] for f in bundle.artifact().files]
    return {
        "model": sha256_json(model) if len(model) > 1 else model[0],
        "reference_weights": str(bundle.manifest["run"]["weights_sha256"]),
        "splits": bundle.dataset.digest,
        "preprocess": bundle.preprocess.digest,
        "manifest": bundle.digest,
        "predictions": sha256_file(bundle.path / PREDICTIONS),
    }
