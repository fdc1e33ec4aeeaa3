"""EfficientNet-Lite0 as int8 Q/DQ, strongly typed fp16 and fp32, parsed and built for every GPU on offer.

    EDGETL_TEST_DATA=DATA python benchmarks/tensorrt_builds.py [--out FILE]

Nothing runs: tensorrt_rtx builds engines without a GPU. It tells that the graphs are taken, for which compute
capabilities, how long a build takes on this machine and how large the engine is; it tells nothing of the speed on a
GPU. TensorRT-RTX is not the TensorRT of JetPack: what that one documents is told by the tables, whose verdicts are in
the result too. Ranges of the int8 graph come from 128 images of imagenet-sample.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.imagenet_speed import CALIBRATION, PREPROCESS, network
from edgetl.backends.tensorrt_check import build_for, builder_module, offered
from edgetl.backends.tensorrt_tables import tables
from edgetl.backends.tensorrt_verdict import compatibility
from edgetl.base.errors import BackendError
from edgetl.base.extras import version
from edgetl.base.storage import sha256_file, write_json
from edgetl.compress.export import export_onnx
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import load_recipe
from edgetl.runtime.machine import machine
from edgetl.runtime.sensors import state

#: GPUs that NVIDIA has numbered since Turing; those that the builder does not offer are on record as such.
CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.1", "10.3", "11.0", "12.0", "12.1")
#: Compute capability → precisions that TensorRT-RTX cannot build for it: it has no float32 GEMM for Turing, and the
#: classifier of the int8 graph stays in float32.
KNOWN = {"7.5": ("fp32", "int8")}
RECIPE = "tensorrt-int8"
REPEATS = 3
PACKAGES = ("tensorrt_rtx", "onnx", "onnxruntime", "torch", "timm", "numpy")


def graphs(data: Path, work: Path) -> dict[str, Path]:
    """The three ONNX files, as ``edgetl export --target jetson`` would make them."""
    files = sorted((data / "imagenet-sample").glob("*.jpg"))
    chosen = np.random.default_rng(0).permutation(len(files))[:CALIBRATION]
    exported = export_onnx(network(), PREPROCESS, work / "float.onnx")
    images = (
        {"image": image[None]} for image in PREPROCESS.batch([files[index] for index in np.sort(chosen)])["image"]
    )
    return {
        "int8": quantize(exported, load_recipe(RECIPE), images, work / "int8").path,
        "fp16": to_float(exported, "tensorrt", "fp16", work / "fp16").path,
        "fp32": exported,
    }


def built(model: Path, capability: str) -> dict[str, Any]:
    """Parse and build for one compute capability: seconds and bytes each time, warnings, or the builder's error."""
    seconds, sizes = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        try:
            check = build_for(model, capability, capability)
        except BackendError as error:
            return {"built": False, "error": str(error).replace(str(model), model.name)}
        seconds.append(time.perf_counter() - started)
        sizes.append(check.engine_bytes)
    return {
        "built": check.checked,
        "error": check.reason,
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
        "engine_bytes": sizes,
        "warnings": list(check.warnings),
    }


def main() -> int:
    """Build, write; exit status 1 where a graph cannot be built, other than those that are known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tensorrt_builds.json")
    options = parser.parse_args()
    data = os.environ.get("EDGETL_TEST_DATA")
    if not data:
        raise SystemExit("set EDGETL_TEST_DATA to the folder that holds imagenet-sample")
    if builder_module() is None or not offered():
        raise SystemExit("no builder that works without a GPU: pip install 'edgetl[tensorrt]'")
    before = state()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision, model in graphs(Path(data), Path(folder)).items():
            entry: dict[str, Any] = {"onnx_bytes": model.stat().st_size, "sha256": sha256_file(model), "builds": {}}
            entry["tables"] = {
                table.name: list(map(str, compatibility(model, table.name))) for table in tables().values()
            }
            for capability in offered():
                entry["builds"][capability] = built(model, capability)
                told = {k: v for k, v in entry["builds"][capability].items() if k != "warnings"}
                print(precision, capability, told, flush=True)
            results[precision] = entry
    failed = [f"{p} {c}" for p, e in results.items() for c, b in e["builds"].items() if not b["built"]]
    write_json(
        options.out,
        {
            "model": "EfficientNet-Lite0, ImageNet weights, 224 px, batch 1",
            "recipe": RECIPE,
            "executed": "built only, by TensorRT-RTX without a GPU",
            "offered": list(offered()),
            "not_offered": [capability for capability in CAPABILITIES if capability not in offered()],
            "graphs": results,
            "failed": failed,
            "machine": machine(),
            "state": {"before": before, "after": state()},
            "versions": {name: version(name) for name in PACKAGES},
        },
    )
    surprises = [one for one in failed if one.split()[0] not in KNOWN.get(one.split()[1], ())]
    print("\n".join(surprises) or "all built but those that are known", file=sys.stderr)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
