"""What verifying costs: 50,000 saved predictions judged again, and memory for 1,000 and for 10,000 images.

    EDGETL_TEST_DATA=DATA python benchmarks/verify_scale.py RUN [--out FILE]

RUN is a run over the embedded digits; its weights are certified on MNIST's test images, as files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl import pipeline
from edgetl.base.storage import read_json, sha256_bytes, sha256_file, write_json
from edgetl.core.bundle import REFERENCE, SPLITS_FILE, load_bundle, write_manifest
from edgetl.core.data import Dataset, Sample
from edgetl.core.run import Run, load_run, write_run
from edgetl.inputs import input_of
from edgetl.runtime.machine import machine
from edgetl.workflow import audit

SAVED = 50_000
CHILD = """
import re, resource, sys, json, time
from pathlib import Path
from edgetl import pipeline
from edgetl.inputs import input_of
began = time.monotonic()
certificate = pipeline.verify(sys.argv[1], data=sys.argv[2])
# Linux hands ru_maxrss on through exec: this process would report its parent's memory.
own = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(json.dumps({"n": certificate.n, "seconds": time.monotonic() - began, "peak_rss_mb": own,
                  "peak_rss_mb_of_the_runtime": children, "verdict": certificate.verdict}))
"""


def mnist(data: Path, folder: Path) -> list[Sample]:
    """MNIST's test images as PNG files, in order."""
    raw = np.frombuffer(gzip.decompress((data / "mnist-test/t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((data / "mnist-test/t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index, (picture, label) in enumerate(zip(raw.reshape(-1, 28, 28), labels, strict=True)):
        file = folder / f"{index:05d}.png"
        Image.fromarray(picture).save(file)
        digest = sha256_file(file)
        samples.append(Sample(file.name, int(label), digest, digest, "certify"))
    return samples


def over(run: Run, samples: list[Sample], root: Path, out: Path, certify: int) -> Run:
    """The run's weights with other images to certify on; calibration, search and validation stay the run's own."""
    kept = []
    for sample in (s for s in run.dataset.samples if s.split in ("calibration", "search", "val")):
        name = f"own-{sample.path.replace('/', '-')}"
        (root / name).write_bytes((run.dataset.root / sample.path).read_bytes())
        kept.append(replace(sample, path=name))
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.safetensors").write_bytes(run.weights.read_bytes())
    dataset = Dataset(root.resolve(), run.classes, (*samples[:certify], *kept), mirror_safe=False)
    return write_run(
        out, backbone=run.backbone, strategy=run.strategy, dataset=dataset, input_record=input_of(run).to_json(),
        settings=run.settings, metrics=run.metrics, lineage=run.lineage,
    )  # fmt: skip


def memory(run: Run, data: Path, work: Path) -> list[dict[str, Any]]:
    """Peak resident memory of ``edgetl verify`` for two numbers of images; bundles that are there are used again."""
    samples = mnist(data, work / "mnist")
    rows = []
    for certify in (1_000, 10_000):
        other = over(run, samples, work / "mnist", work / f"run-{certify}", certify)
        (done,) = pipeline.export(
            other, targets=["x86-generic"], out=work / f"out-{certify}", bench=False, repair=False
        )
        command = [sys.executable, "-c", CHILD, str(done.bundle.path), str(work / "mnist")]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(told.stdout))
    return rows


def spent(command: list[str]) -> None:
    """Run a command to its end, whatever its status."""
    subprocess.run(command, capture_output=True, check=False)


def saved(run: Run, work: Path) -> dict[str, Any]:
    """Seconds to judge 50,000 saved predictions again: in a process that has them imported, and as a command."""
    (made,) = pipeline.export(run, targets=["x86-generic"], out=work / "out", bench=False, repair=False)
    folder, draw = made.bundle.path, np.random.default_rng(0)
    labels = draw.integers(0, len(run.classes), SAVED)
    logits = draw.normal(0, 1, (SAVED, len(run.classes))).astype(np.float32)
    logits[np.arange(SAVED), labels] += 4
    names = [sha256_bytes(str(i).encode()) for i in range(SAVED)]
    samples = [Sample(f"{i}.png", int(c), n, n, "certify") for i, (c, n) in enumerate(zip(labels, names, strict=True))]
    record = read_json(folder / SPLITS_FILE)
    others = [row for row in record["samples"] if row[-1] != "certify"]
    record["samples"] = others + [[s.path, s.label, s.sha256, s.pixels, s.split] for s in samples]
    write_json(folder / SPLITS_FILE, record)
    told = dict(np.load(folder / REFERENCE))
    np.savez(folder / REFERENCE, **{**told, "logits": logits, "exported": logits})
    write_manifest(folder, made.bundle.manifest, {role: made.bundle.artifact(role) for role in ("deployed", "float")})
    for name in ("certificate.json", "predictions.npz"):
        (folder / name).unlink()
    answers = logits + draw.normal(0, 0.1, logits.shape).astype(np.float32)
    np.savez(work / "answers.npz", logits=answers, sha256=np.array(names))
    pipeline.verify(folder, predictions=work / "answers.npz")
    timings: dict[str, list[float]] = {"verify": [], "check": [], "verify_command": [], "check_command": []}
    edgetl = [sys.executable, "-c", "from edgetl.cli import main; main()", "verify", str(folder), "--quiet"]
    for _ in range(5):
        for name, act in (
            ("verify", lambda: pipeline.verify(load_bundle(folder), margin=0.005)),
            ("check", lambda: audit.check(folder)),
            ("verify_command", lambda: spent([*edgetl, "--margin", "0.005"])),
            ("check_command", lambda: spent([*edgetl, "--check"])),
        ):
            began = time.perf_counter()
            act()
            timings[name].append(time.perf_counter() - began)
    return {"n": SAVED, "classes": len(run.classes), "seconds": {k: min(v) for k, v in timings.items()}}


def main() -> None:
    """Measure both and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verify_scale.json")
    chosen = parser.parse_args()
    run, data = load_run(chosen.run), Path(os.environ["EDGETL_TEST_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        result = {
            "saved": saved(run, work / "saved"),
            "memory": memory(run, data, work / "memory"),
            "machine": machine(),
        }
    write_json(chosen.out, {**result, "machine": machine()})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
