"""LiteRT, ONNX Runtime and OpenVINO on one model, EfficientNet-Lite0 with ImageNet weights: which for Arm CPUs?

    EDGETL_TEST_DATA=DATA python benchmarks/arm_runtimes.py [--device pi] [--images 500] [--emulated 40] [--out FILE]

On this machine, at one thread: top-1 on images that gave no ranges, and median latency, taking turns. On an emulated
64-bit Arm device (``edgetl devices create pi --arch arm64 --with-openvino --with-litert``): agreement with this
machine's answers, what was executed, and the number of instructions of one inference. Instructions are a *proxy*: they
cost differently, and no cache or memory is modelled. No emulated time is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.imagenet_speed import PREPROCESS, network
from benchmarks.instructions.count import missing, per_call
from edgetl.backends import BACKENDS
from edgetl.base.schema import to_json
from edgetl.base.storage import write_json
from edgetl.compress.export import check_parity, export_onnx
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.bundle import Artifact
from edgetl.core.targets import find_target
from edgetl.devices import find_device
from edgetl.devices.payload import write_payload
from edgetl.devices.rootfs import emulated_environment, emulated_python, read_marker
from edgetl.latency.stats import percentile, speedup
from edgetl.runtime.machine import machine
from edgetl.runtime.measure import interleave
from edgetl.runtime.sensors import state
from edgetl.runtime.sessions import open_session

BASELINE = "onnxruntime fp32"
CALIBRATION = 128
#: runtime → a target of it (whose file is the same for both instruction sets), and its recipe for aarch64
RUNTIMES = {
    "onnxruntime": ("arm64-generic", "ort-aarch64-int8"),
    "openvino": ("intel-cpu", "openvino-int8"),
    "litert": ("arm64-litert", "litert-int8"),
}
PACKAGES = ("onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "numpy")
Images = npt.NDArray[np.uint8]


def build(images: Images, chosen: npt.NDArray[np.int64], work: Path) -> dict[str, Artifact]:
    """Each runtime's float and int8 artifact, as ``edgetl export`` would compile them."""
    model = network()
    exported = export_onnx(model, PREPROCESS, work / "float.onnx")
    check_parity(exported, model, {"image": images[:16]})
    artifacts = {}
    for runtime, (name, recipe) in RUNTIMES.items():
        target, backend = find_target(name), BACKENDS[runtime]
        artifacts[f"{runtime} fp32"] = backend.compile(exported, target, work / runtime / "fp32")
        made = quantize(
            exported, load_recipe(recipe), ({"image": images[i : i + 1]} for i in chosen), work / runtime / "made"
        )
        artifacts[f"{runtime} int8"] = backend.compile(made.path, target, work / runtime / "int8")
    return artifacts


def answers(artifact: Artifact, images: Images) -> npt.NDArray[np.float32]:
    """Logits (n, 1000) on this machine."""
    with contextlib.closing(open_session(artifact, threads=1)) as session:
        return np.concatenate([session.run({"image": image[None]})["logits"] for image in images])


class Turn:
    """A lock file of a machine that several benchmarks share: held by all while they work, by one while it times."""

    def __init__(self, file: Path | None) -> None:
        self._held = file.open("a") if file else None
        self._take(fcntl.LOCK_SH)

    def _take(self, how: int) -> None:
        if self._held:
            fcntl.flock(self._held, how)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else works meanwhile."""
        self._take(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._take(fcntl.LOCK_SH)


def timings(artifacts: Mapping[str, Artifact], images: Images, seconds: float) -> dict[str, Any]:
    """Median latency on this machine at one thread, and the ratio of float ONNX Runtime's to it, with intervals."""
    sessions = {name: open_session(artifact, threads=1) for name, artifact in artifacts.items()}
    before = state()
    samples = interleave(sessions, [{"image": image[None]} for image in images[:64]], seconds=seconds)
    told: dict[str, Any] = {"before": before, "after": state(), "artifacts": {}}
    for name, session in sessions.items():
        median = percentile(samples[name], 0.5)
        told["artifacts"][name] = {
            "p50_ms": to_json(median),
            "speedup": to_json(speedup(samples[BASELINE], samples[name])),
            "n": len(samples[name]),
            "executed": vars(session.executed()),
        }
        session.close()
    return told


def emulated(root: Path, artifact: Artifact, images: Images, native: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What the artifact answers on an emulated Arm device, against this machine, and how many instructions it takes."""
    marker = read_marker(root)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        environment = emulated_environment(write_payload(work / "code"))
        np.save(work / "images.npy", images)
        guest = [str(Path(__file__).with_name("arm_guest.py")), str(artifact.path), artifact.backend]
        guest += [artifact.precision, str(work / "images.npy"), str(work / "out.npz")]
        command = [*emulated_python(root, marker["cpu"], marker["python"]), *guest, "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1]}
        with np.load(work / "out.npz") as stored:
            found, executed = stored["logits"], json.loads(str(stored["executed"]))
        told = {
            "n": len(images),
            "agreement": float((found.argmax(1) == native.argmax(1)).mean()),
            "max_difference": float(np.abs(found - native).max() / np.ptp(native)),
            "executed": executed,
        }
        return {**told, "instructions": _instructions(root, guest, work, environment)}


def _instructions(root: Path, guest: list[str], work: Path, environment: Mapping[str, str]) -> dict[str, Any] | None:
    return None if missing() else per_call(root, guest, work / "count", environment=environment)


def show(result: Mapping[str, Any]) -> None:
    """A table for reading along."""
    base = (result["emulated"].get(BASELINE) or {}).get("instructions")
    for name, entry in result["x86_64"]["timing"]["artifacts"].items():
        there = result["emulated"].get(name) or {}
        count = there.get("instructions")
        line = f"{name:18} x86-64 p50 {entry['p50_ms']['value']:6.2f} ms {entry['speedup']['value']:.2f}x"
        line += f"  top-1 {result['x86_64']['top1'][name]:.1f} %  {entry['executed']['precision']}"
        if count and base:
            share = base["instructions"] / count["instructions"]
            line += f"  | aarch64 {count['instructions'] / 1e6:7.1f} M instructions ({share:.2f}x fewer)"
            line += f", {count['integer_dot'] / 1e6:.1f} M dot products"
        print(line + f"  agreement {there.get('agreement', there.get('failed'))}")


def main() -> None:
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="timing of all artifacts together")
    parser.add_argument("--images", type=int, default=500, help="images for top-1, besides those that calibrate")
    parser.add_argument("--emulated", type=int, default=40, help="images for the emulated device")
    parser.add_argument("--device", help="name of an emulated device with all three runtimes")
    parser.add_argument("--lock", type=Path, help="lock file to hold while times are taken")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "arm_runtimes.json")
    options = parser.parse_args()
    data = os.environ.get("EDGETL_TEST_DATA")
    if not data:
        raise SystemExit("set EDGETL_TEST_DATA to the folder that holds imagenet-sample")
    turn = Turn(options.lock)
    files = sorted((Path(data) / "imagenet-sample").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(files))
    chosen, held = np.sort(order[:CALIBRATION]), order[CALIBRATION : CALIBRATION + options.images]
    images = PREPROCESS.batch([files[i] for i in [*chosen, *held]])["image"]
    with tempfile.TemporaryDirectory() as folder:
        artifacts = build(images, np.arange(CALIBRATION), Path(folder))
        tested = images[CALIBRATION:]
        print("built", *artifacts, sep=", ", file=sys.stderr)
        logits = {name: answers(artifact, tested) for name, artifact in artifacts.items()}
        print("answered", file=sys.stderr)
        with turn.alone():
            timing = timings(artifacts, tested, options.seconds)
        print("timed", file=sys.stderr)
        few = options.emulated
        root = Path(find_device(options.device).where) if options.device else None
        there = {n: emulated(root, a, tested[:few], logits[n][:few]) if root else None for n, a in artifacts.items()}
        result = {
            "model": "EfficientNet-Lite0, ImageNet weights, 224 px, batch 1, one thread",
            "baseline": BASELINE,
            "machine": machine(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "images": {"calibration": CALIBRATION, "top1": len(held), "emulated": few if root else 0},
            "recipes": {runtime: recipe for runtime, (_, recipe) in RUNTIMES.items()},
            "bytes": {name: artifact.size_bytes for name, artifact in artifacts.items()},
            "x86_64": {
                "top1": {name: 100 * float((found.argmax(1) == held).mean()) for name, found in logits.items()},
                "timing": timing,
            },
            "emulated": there,
        }
    write_json(options.out, result)
    show(result)


if __name__ == "__main__":
    main()
