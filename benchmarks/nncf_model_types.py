"""What NNCF makes of a transformer that it is told about, and of one that it is not.

    python -m benchmarks.nncf_model_types BUNDLE … [--out FILE]

BUNDLE was exported for intel-cpu from a run of sentences. Its float model is quantized again with either setting, on
the same calibration sentences, and both answer the sentences held back for certification.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.core.bundle import Artifact, Bundle, load_bundle
from edgetl.core.tensors import joined, rows, single
from edgetl.inputs.kinds import input_of
from edgetl.runtime.machine import machine
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session

RESULT = Path(__file__).parent / "results" / "nncf_model_types.json"
RECIPE = "openvino-int8"
MODEL_TYPES = ("transformer", "none")


def logits(artifact: Artifact, inputs: list[Any]) -> Any:
    """Logits, float32 (n, classes), of inputs of one sample each."""
    session = open_session(artifact)
    try:
        return single(joined([infer(session, feeds) for feeds in inputs]))
    finally:
        session.close()


def compared(bundle: Bundle) -> dict[str, Any]:
    """Either setting against the float model in the same runtime."""
    definition, dataset = input_of(bundle), bundle.dataset
    chosen = definition.batch([dataset.root / sample.path for sample in bundle.calibration.samples])
    calibration = [rows(chosen, slice(i, i + 1)) for i in range(len(bundle.calibration.samples))]
    held = definition.batch(dataset.paths("certify"))
    inputs = [rows(held, slice(i, i + 1)) for i in range(len(dataset.labels("certify")))]
    reference = logits(bundle.artifact("float"), inputs).argmax(axis=1)
    found = {}
    for kind in MODEL_TYPES:
        with tempfile.TemporaryDirectory() as folder:
            recipe = with_changes(load_recipe(RECIPE), model_type=kind)
            made = quantize(bundle.source, recipe, calibration, Path(folder))
            deployed = logits(Artifact("openvino", made.path, "int8"), inputs).argmax(axis=1)
        certificate = verify_arrays(reference=reference, deployed=deployed, labels=dataset.labels("certify"))
        found[kind] = {
            name: getattr(certificate, name)
            for name in ("verdict", "n", "reference_score", "deployed_score", "difference", "ci_low", "ci_high")
        }
    return found


def main() -> None:
    """Compare each bundle that is named, beside what was compared before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    held = read_json(given.out)["cases"] if given.out.is_file() else {}
    for folder in given.bundles:
        held[folder.resolve().parent.name] = compared(load_bundle(folder))
        versions = {module: version(module) for module in ("edgetl", "nncf", "openvino")}
        write_json(given.out, {"machine": machine(), "versions": versions, "cases": held})


if __name__ == "__main__":
    main()
