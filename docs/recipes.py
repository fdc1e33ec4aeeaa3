"""Writes ``recipes.md`` from the text here and the results of ``benchmarks/recipe_sweep.py``.

python docs/recipes.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_name("recipes.md")
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("ort_x86", "no_vnni", "openvino_x86", "aarch64", "options")

sys.path.insert(0, str(ROOT))

INTRODUCTION = """\
# Recipes that were measured

Written by `python docs/recipes.py` from `benchmarks/results/recipe_sweep_*.json`; do not edit.

For each runtime and instruction set `calibration/recipes` holds one recipe. It is the winner of a sweep
(`benchmarks/recipe_sweep.py`) with EfficientNet-Lite0, ImageNet weights, batch 1: 128 of imagenet-sample's 1,000
photographs calibrate, the others judge. One model's sweep: `edgetl export` measures every export anew.

- **file**: the recipe, and what was changed in it; `nncf-onnx` is NNCF's quantization of the ONNX graph itself.
- **against float**: the paired difference of top-1 to the float model in the same runtime, with its 90 % interval;
  *lost* and *gained* are the images behind it.
- **logit noise**: RMS of what quantization changes in the logits, over the standard deviation of the float model's. It
  tells files apart that 872 images do not.
- **int8 MACs**: share of multiply-accumulates that the runtime says it executed in integers.
- **p50**, one thread, the file, the default and float ONNX Runtime taking turns in one process; **speed-up** is over float
  ONNX Runtime, **against default** the ratio of medians with a paired 95 % bootstrap interval. The default's own row
  is the default timed against itself: what the machine adds.

The default is beaten by a file that is faster by more than 2 % (the whole interval) and loses nothing beyond chance
(exact McNemar test), or that gains accuracy beyond chance and is not slower. The runner-up is the fastest of the others
that lose nothing beyond chance; of those within 2 % of it, the one with the least noise.

## The defaults

"""

VNNI = """\

## ONNX Runtime and OpenVINO on x86-64 without VNNI

AVX2 adds two products of u8 x s8 in 16 bits, which can saturate: a matter of accuracy, and one that this machine does
not show. ONNX Runtime ran on an emulated Haswell (`qemu-x86_64 -cpu Haswell`), OpenVINO with
`ONEDNN_MAX_CPU_ISA=AVX2`; times would mean nothing and were not taken. `x64quantprecision=1` is ONNX Runtime's own
remedy, which turns weights into u8 when it loads the file on such a CPU.

"""

OPENVINO = """\

## OpenVINO on x86-64, and NNCF against ONNX Runtime's quantizer

Each ONNX file also ran in the other runtime: `nncf-onnx` in ONNX Runtime stands in the first table, ONNX Runtime's
quantizer in OpenVINO in this one. `mixed` is NNCF's preset with asymmetric activations.

"""

ARM = """\

## 64-bit Arm: instructions, a proxy

aarch64 builds of both runtimes on an emulated {cpu} (qemu-user), one thread. **Instructions** are what one inference
executes (`benchmarks/instructions`): a *proxy* for work, and never a latency, since instructions differ in cost, and no
cache and no memory is modelled. The same number came out of two processes within {spread:.1%}. *Integer dot* are sdot, udot and
smmla, *widening* smull, smlal and umlal, *float* fmul, fmla and fmadd. Accuracy is on {n} images; *same answer* is the
agreement with the same file on x86-64.

"""

OPTIONS = """\

## Settings of the runtimes

The default files, edgetl's session against one with a setting changed, in turns; above 1 the change is faster.

"""


def page() -> str:
    """The whole page."""
    from benchmarks import recipe_tables as tables

    results = {part: _read(part) for part in PARTS}
    arm = results["aarch64"]
    counted = [row for row in arm["rows"].values() if "spread" in row]
    about = {
        "cpu": counted[0]["cpu"],
        "spread": max(row["spread"] for row in counted),
        "n": max(row.get("n", 0) for row in arm["rows"].values()),
    }
    texts = ("\n## ONNX Runtime on x86-64\n\n", VNNI, OPENVINO, ARM.format(**about), OPTIONS)
    sections = [text + tables.table(results[part]) + "\n" for text, part in zip(texts, PARTS, strict=True)]
    return INTRODUCTION + tables.defaults(results) + "\n\n" + _conditions(results) + "".join(sections)


def _read(part: str) -> Any:
    return json.loads((RESULTS / f"recipe_sweep_{part}.json").read_text(encoding="utf-8"))


def _conditions(results: Mapping[str, Any]) -> str:
    machine, versions = results["ort_x86"]["machine"], results["ort_x86"]["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    loads = [row["timing"]["load_before"] for result in results.values() for row in result["rows"].values()
             if "timing" in row]  # fmt: skip
    return (
        f"{machine['cores']} cores of {machine['cpu_model']} ({', '.join(machine['isa_features'])}), "
        f"load {min(loads):.1f} to {max(loads):.1f} before the timings; {listed}.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
