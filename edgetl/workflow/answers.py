"""What the models of a bundle say about the certify samples: where each runs, on which files, with which answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl import devices
from edgetl.base.errors import BundleError, CertifyError, DataError
from edgetl.base.progress import Progress
from edgetl.base.schema import to_json
from edgetl.core.bundle import REFERENCE, Bundle
from edgetl.core.bundle_files import NO_ROOT
from edgetl.core.data import located
from edgetl.core.npz import NUMBERS, read_npz
from edgetl.core.tensors import Arrays, rows
from edgetl.devices.c_runner import described, find_runner, predict_in_c
from edgetl.devices.placement import Placement, place
from edgetl.inputs import kind_of
from edgetl.runtime.predict import output_specs

#: The rungs of the ladder between the trained torch model and what runs on the device, in order.
FLOAT_RUNG, QDQ_RUNG, HOST_RUNG = "float ONNX", "Q/DQ in float", "host runtime"
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Answers:
    """The outputs of all rungs on the certify samples, (n, …) by name.

    Attributes:
        paths: the sample files.
        deployed: the artifact's.
        rungs: the models between reference and deployed, in order.
        facts: executed, runtime and executed_on, for the certificate.
        simulated: whether the artifact's arithmetic was only imitated; None for answers from elsewhere.
    """

    paths: tuple[Path, ...]
    deployed: Arrays
    rungs: Mapping[str, Arrays]
    facts: Mapping[str, Any]
    simulated: bool | None


def collect_answers(
    bundle: Bundle, data: str | Path | None, device: str | None, progress: Progress, runner: str | None = None
) -> tuple[Placement, Answers]:
    """Run the certify samples through the bundle, and through the rungs above it that this machine can run.

    Args:
        bundle, data, device, progress: see :func:`edgetl.verify`.
        runner: the C runner's program, through which the deployed model answers; None: Python's runtime.
    """
    at = place(bundle, device)
    program = None if runner is None else find_runner(runner)
    paths = certify_files(bundle, data, progress)
    here = devices.find_device("local")
    if program is None:
        deployed = devices.predict(at.device, bundle, paths, simulated=at.emulates, progress=progress)
    else:
        deployed = predict_in_c(at, bundle, paths, program, progress=progress)
    rungs = {FLOAT_RUNG: reference(bundle).exported}
    if bundle.precision == "int8" and not at.emulates and _has_pairs(bundle):
        rungs[QDQ_RUNG] = devices.predict(here, bundle, paths, simulated=True, progress=progress)
    if (at.device.kind != "local" or program is not None) and bundle.manifest.target.executes_on_host() == "host":
        rungs[HOST_RUNG] = devices.predict(here, bundle, paths, progress=progress)
    return at, Answers(tuple(paths), deployed, rungs, executed_facts(bundle, at, program), at.emulates)


def _has_pairs(bundle: Bundle) -> bool:
    """Whether it has a graph that says in float operators what is computed in integers: another tool's TFLite file
    has none."""
    return bundle.artifact().graph.suffix != ".tflite"


def read_answers(bundle: Bundle, predictions: Path) -> Answers:
    """The answers of a program of the user's own: an ``.npz`` with ``logits`` (n, classes) and ``sha256`` (n).

    Args:
        bundle: whose certify samples were answered, in any order.
        predictions: the file; ``sha256`` names each file's hash, or ``paths`` its path as in splits.json.

    Raises:
        CertifyError: the file is none, or certify samples are missing from it.
    """
    dataset, specs = bundle.dataset, output_specs(bundle)
    samples = dataset.split("certify")
    try:
        stored = read_npz(predictions)
        outputs = {spec.name: np.asarray(stored[spec.name], spec.dtype) for spec in specs}
        key = "sha256" if "sha256" in stored else "paths"
        names = [str(name) for name in np.atleast_1d(stored[key]).astype(str)]
    except (OSError, KeyError, ValueError) as error:
        wanted_names = ", ".join(spec.name for spec in specs)
        raise CertifyError(
            f"{predictions} holds no predictions ({error})", f"save {wanted_names} and sha256 with numpy.savez"
        ) from error
    rows_of = {name: row for row, name in enumerate(names)}
    wanted = [sample.sha256 if key == "sha256" else sample.path for sample in samples]
    missing = [name for name in wanted if name not in rows_of]
    wrong = next((s for s in specs if outputs[s.name].shape != (len(names), *s.shape[1:])), None)
    if missing or wrong:
        shown = wrong or specs[0]
        raise CertifyError(
            f"{predictions} has {shown.name} of shape {outputs[shown.name].shape} for {len(names)} samples, and lacks "
            f"{len(missing)} of the {len(wanted)} certify samples",
            f"give {shown} for every certify sample of splits.json",
        )
    _refuse_contradictions(predictions, names, outputs)
    facts = {
        "executed": "claimed",
        "runtime": f"a program of the user's own ({predictions.name})",
        "executed_on": {"device": ELSEWHERE},
    }
    rungs = {FLOAT_RUNG: reference(bundle).exported}
    paths = tuple(dataset.paths("certify"))
    return Answers(paths, rows(outputs, np.array([rows_of[name] for name in wanted], np.int64)), rungs, facts, None)


def _refuse_contradictions(predictions: Path, names: Sequence[str], outputs: Arrays) -> None:
    """A sample may stand there twice, with one answer: with two, which of them counts would be anybody's choice."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        earlier = first.setdefault(name, row)
        if any(not np.array_equal(values[row], values[earlier], equal_nan=True) for values in outputs.values()):
            raise CertifyError(
                f"{predictions} answers the sample {name!a:.100} twice, and not alike (rows {earlier} and {row})",
                "keep one answer for each sample",
            )


@dataclass(frozen=True)
class Reference:
    """What a bundle keeps of the models before compression: their outputs on the certify split, (n, …) by name.

    Attributes:
        reference: the trained model's.
        exported: its float ONNX file's, in ONNX Runtime.
        baseline: those of the model that the transfer is measured against; None without one.
        baseline_kind: scratch or probe; "" without one.
    """

    reference: Arrays
    exported: Arrays
    baseline: Arrays | None
    baseline_kind: str


def reference(bundle: Bundle) -> Reference:
    """Read what the bundle keeps of the models before compression.

    Raises:
        BundleError: it does not fit the certify split, or is none that this edgetl reads.
    """
    kept = _kept(bundle)
    models: dict[str, dict[str, npt.NDArray[Any]]] = {"reference": {}, "exported": {}, "baseline": {}}
    for key, values in kept.items():
        model, _, name = key.partition(".")
        if name and model in models:
            models[model][name] = values
    n = len(bundle.dataset.split("certify"))
    arrays = [values for outputs in models.values() for values in outputs.values()]
    fits = all(values.ndim and len(values) == n and values.dtype.kind in NUMBERS for values in arrays)
    if not fits or not models["reference"]:
        raise BundleError(f"{bundle.path / REFERENCE} does not fit the certify split", "export the bundle again")
    kind = str(kept["baseline_kind"]) if "baseline_kind" in kept else ""
    return Reference(models["reference"], models["exported"], models["baseline"] or None, kind)


def _kept(bundle: Bundle, *names: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names that a bundle keeps of the models before compression; all of them for no name."""
    file = bundle.file(REFERENCE)
    try:
        return read_npz(file, names=names or None)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is refused: {error}", "export the bundle again") from error


def reproduced(bundle: Bundle) -> tuple[float, float, int]:
    """Validation accuracy as training recorded it, as the weights gave it at export, and the number of samples."""
    found = _kept(bundle, "reproduced").get("reproduced")
    if found is None or found.shape != (3,) or found.dtype.kind not in NUMBERS or not np.isfinite(found).all():
        raise BundleError(f"{bundle.path / REFERENCE} tells no figure that training reached", "export the bundle again")
    recorded, measured, n = found.tolist()
    return recorded, measured, int(n)


def executed_facts(bundle: Bundle, at: Placement, program: Path | None = None) -> dict[str, Any]:
    """What a certificate says of where and by what the artifact ran: executed, runtime and executed_on."""
    backend = bundle.artifact().backend
    written_out = at.emulates and backend in ("tensorrt", "litert") and _has_pairs(bundle)
    runs = "onnxruntime" if written_out else backend
    plugins = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU" if at.emulates else bundle.artifact().device}
    runtime = " ".join(word for word in (runs, at.probe.packages.get(runs), plugins.get(runs)) if word)
    if runs != backend:
        runtime = f"{backend}, its Q/DQ graph in float by {runtime}"
    machine = {key: to_json(getattr(at.probe.machine, key)) for key in ("arch", "cpu_model", "board", "isa_features")}
    executed_on = {"device": at.device.name, **machine}
    if program is not None:
        runtime, executed_on = f"C runner, {runtime}", {**executed_on, "runner": described(program)}
    return {"executed": at.executed, "runtime": runtime, "executed_on": executed_on}


def certify_files(bundle: Bundle, data: str | Path | None, progress: Progress) -> list[Path]:
    """The certify split's files, each checked against its hash.

    Args:
        bundle: whose samples they are; their paths are relative to its data set's root.
        data: another folder, CSV or 'digits' in which the samples lie now, perhaps under other names.
        progress: told of each file.

    Raises:
        CertifyError: samples are missing or were changed.
    """
    noun = kind_of(bundle).noun
    if data is None and str(bundle.dataset.root) == NO_ROOT:
        raise CertifyError(f"a bundle does not say where its {noun}s lie", "say where they are: --data FOLDER")
    try:
        return located(bundle.dataset, data, {"certify"}, f"certify {noun}", progress).paths("certify")
    except DataError as error:
        raise CertifyError(error.what, error.remedy) from error
