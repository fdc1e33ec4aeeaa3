"""Three certified bundles against three commands of others, in turns on one machine.

    python -m benchmarks.peers_export RUN --work FOLDER [--rounds 3] [--out FILE]

RUN is an edgetl run of photographs with the backbone efficientnet_lite0. What somebody would do instead, with today's
defaults: load the same torch model, export it (torch.onnx), quantize it on the same calibration images, and compare
accuracies of the float and the int8 model on the same held-out images; once with ONNX Runtime's ``quantize_static``,
once with NNCF for OpenVINO, once with ONNX Runtime's symmetric Q/DQ for TensorRT, whose builder builds it. Each is a
process of its own that knows nothing of edgetl. edgetl exports x86-generic, intel-cpu and jetson in one command, with
repair and certificates, without timing; and once more without repair, as the others have none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

RESULT = Path(__file__).parent / "results" / "peers_export.json"
TARGETS = ("x86-generic", "intel-cpu", "jetson")
Floats = npt.NDArray[np.float32]


def job_of(run: Path, folder: Path) -> Path:
    """What the others are given: files, labels, weights and numbers of the preprocessing, in one JSON file."""
    from edgetl.core.run import load_run
    from edgetl.inputs import preprocess_of

    loaded = load_run(run)
    definition = preprocess_of(loaded)
    splits = {
        name: [[str(loaded.dataset.file(s)), int(label)] for s, label in zip(
            loaded.dataset.split(name), loaded.dataset.labels(name), strict=True)]
        for name in ("calibration", "certify")
    }  # fmt: skip
    content = {
        "weights": str((run / "weights.safetensors").resolve()),
        "classes": len(loaded.classes),
        "side": definition.height,
        "resize": definition.resize,
        "mean": definition.mean,
        "std": definition.std,
        **splits,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(content))
    return folder / "job.json"


def read(job: Mapping[str, Any], split: str) -> Iterator[tuple[Floats, int]]:
    """Images as the network takes them, float32 (1, 3, side, side), and their labels."""
    side, mean, std = job["side"], np.array(job["mean"], np.float32), np.array(job["std"], np.float32)
    for path, label in job[split]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scale = job["resize"] / min(image.size)
        width, height = (round(edge * scale) for edge in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
        planes = (np.asarray(resized, np.float32) / np.float32(255) - mean) / std
        yield np.ascontiguousarray(planes.transpose(2, 0, 1)[None], np.float32), label


def exported(job: Mapping[str, Any], out: Path) -> Any:
    """The torch model, written as ONNX."""
    import timm
    import torch
    from safetensors.torch import load_file

    model = timm.create_model("tf_efficientnet_lite0", num_classes=job["classes"])
    model.load_state_dict(load_file(job["weights"]))
    model.eval()
    example = torch.zeros(1, 3, job["side"], job["side"])
    torch.onnx.export(model, (example,), str(out), dynamo=True, external_data=False, input_names=["image"])
    return model


def accuracy(answer: Callable[[Floats], Any], job: Mapping[str, Any]) -> float:
    """Share of held-out images that are answered right."""
    return float(np.mean([int(np.asarray(answer(x)).argmax()) == label for x, label in read(job, "certify")]))


def of_ort(file: Path) -> Callable[[Floats], Any]:
    """An ONNX file in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0]


def _quantized(job: Mapping[str, Any], folder: Path, **options: Any) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = read(job, "calibration")

        def get_next(self) -> dict[str, Floats] | None:
            found = next(self.images, None)
            return None if found is None else {"image": found[0]}

    quant_pre_process(str(folder / "float.onnx"), str(folder / "ready.onnx"))
    quantize_static(str(folder / "ready.onnx"), str(folder / "int8.onnx"), Reader(), **options)
    return folder / "int8.onnx"


def ort(job: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """ONNX Runtime's quantizer."""
    exported(job, folder / "float.onnx")
    made = _quantized(job, folder)
    return {"float": accuracy(of_ort(folder / "float.onnx"), job), "int8": accuracy(of_ort(made), job)}


def tensorrt(job: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Symmetric Q/DQ by ONNX Runtime's quantizer, built by TensorRT."""
    import tensorrt_rtx as trt
    from onnxruntime.quantization import QuantType

    exported(job, folder / "float.onnx")
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True}
    made = _quantized(
        job, folder, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True,
        extra_options={**options, "QuantizeBias": False},
    )  # fmt: skip
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(made.read_bytes()):
        raise SystemExit(f"TensorRT: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit("TensorRT: no engine")
    return {"float": accuracy(of_ort(folder / "float.onnx"), job), "int8": accuracy(of_ort(made), job)}


def nncf(job: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """NNCF's post-training quantization, run by OpenVINO."""
    import nncf as library
    import openvino

    exported(job, folder / "float.onnx")
    core = openvino.Core()
    network = core.read_model(folder / "float.onnx")
    images = [x for x, _ in read(job, "calibration")]
    made = library.quantize(network, library.Dataset(images), subset_size=len(images))
    openvino.save_model(made, folder / "int8.xml")

    def answers(model: Any) -> Callable[[Floats], Any]:
        compiled = core.compile_model(model, "CPU")
        return lambda x: compiled(x)[0]

    return {"float": accuracy(answers(network), job), "int8": accuracy(answers(made), job)}


PEERS: Mapping[str, Callable[[Mapping[str, Any], Path], dict[str, float]]] = {
    "ort": ort,
    "nncf": nncf,
    "tensorrt": tensorrt,
}


def timed(command: Sequence[str], fine: Sequence[int]) -> dict[str, float]:
    """Run a command: seconds by the clock, and of all its processes on a core."""
    began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in fine:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    cpu = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(cpu, 1)}


def peer(name: str, job: Path, folder: Path) -> dict[str, Any]:
    """One of the others' commands in a process of its own: seconds and accuracies."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.peers_export", "--peer", name, "--work", str(folder), str(job)]
    return {**timed(command, [0]), **json.loads((folder / "outcome.json").read_text())}


def ours(run: Path, out: Path, *options: str) -> dict[str, Any]:
    """Three bundles in one command: seconds, and what their certificates say."""
    targets = [word for target in TARGETS for word in ("--target", target)]
    command = [sys.executable, "-m", "edgetl", "export", str(run), *targets, "--out", str(out), "--no-bench", "--quiet"]
    seconds = timed([*command, *options], [0, 3])
    told = {target: json.loads((out / target / "certificate.json").read_text()) for target in TARGETS}
    wanted = ("verdict", "reference_score", "deployed_score")
    return {**seconds, **{target: [of[name] for name in wanted] for target, of in told.items()}}


def rounds(run: Path, work: Path, count: int, out: Path) -> None:
    """Everything in turns; the file is written after each."""
    from edgetl.base.extras import version
    from edgetl.runtime.machine import machine

    job, here = job_of(run, work), machine()
    told: dict[str, Any] = {
        "machine": {name: here[name] for name in ("cpu_model", "cores")},
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino", "nncf", "tensorrt-rtx-cu13")},
        "rounds": [],
    }
    for number in range(count):
        folder = work / f"round-{number}"
        row: dict[str, Any] = {name: peer(name, job, folder / name) for name in PEERS}
        row["peers"] = {unit: round(sum(row[name][unit] for name in PEERS), 1) for unit in ("seconds", "cpu_seconds")}
        row["edgetl"] = ours(run, folder / "edgetl")
        row["edgetl_without_repair"] = ours(run, folder / "plain", "--no-repair")
        told["rounds"].append(row)
        out.write_text(json.dumps(told, indent=1) + "\n")
        print(json.dumps(row), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    os.environ.setdefault("ORT_LOGGING_LEVEL", "3")
    if options.peer:
        outcome = PEERS[options.peer](json.loads(options.run.read_text()), options.work)
        (options.work / "outcome.json").write_text(json.dumps(outcome))
    else:
        rounds(options.run, options.work, options.rounds, options.out)


if __name__ == "__main__":
    main()
