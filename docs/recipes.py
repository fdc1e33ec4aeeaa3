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

sys.path.insert(0, str(ROOT))

INTRODUCTION = """\
# Recipes that were measured

Written by `python docs/recipes.py` from `benchmarks/results/recipe_sweep_*.json`; do not edit.

For each runtime and instruction set `calibration/recipes` holds one recipe. Those below were put to a sweep
(`benchmarks/recipe_sweep.py`) with EfficientNet-Lite0, ImageNet weights, batch 1: 128 of imagenet-sample's 1,000
photographs calibrate, the 872 others judge. It is one model's sweep: `edgetl export` verifies every export anew.

- **file**: the recipe, and what was changed in it; `nncf-onnx` is NNCF's quantization of the ONNX graph itself.
- **against float**: the paired difference of top-1 to the float model in the same runtime, with its 90 % interval;
  *lost* and *gained* are the images behind it.
- **logit noise**: RMS of what quantization changes in the logits, over the standard deviation of the float model's. It
  tells files apart that 872 images do not.
- **int8 MACs**: share of multiply-accumulates that the runtime says it executed in integers.
- **CPU time**, where it was taken: median processor time of an inference, one thread, the file, the default and float
  ONNX Runtime taking turns in one process; **against default** is the ratio of medians with a paired 95 % bootstrap
  interval. Where it was not, the share of integer MACs says which files are slower; the defaults' own speed is in
  `benchmarks/results/imagenet_speed.json`.

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
remedy, which turns weights into u8 when it loads the file: edgetl's sessions set it on CPUs without VNNI, where it
brings back the very answers of a CPU with it (on one with VNNI it would cost three fifths of the speed, see the
settings below). OpenVINO has no such switch: certify its int8 bundles on the device (`edgetl verify --device`).

"""

OPENVINO = """\

## OpenVINO on x86-64, and NNCF against ONNX Runtime's quantizer

Each ONNX file also ran in the other runtime: `nncf-onnx` in ONNX Runtime stands in the first table, ONNX Runtime's
quantizer in OpenVINO in this one. `mixed` is NNCF's preset with asymmetric activations.

"""

ARM = """\

## 64-bit Arm: instructions, a proxy

aarch64 builds of the runtimes on an emulated Cortex-A76 (qemu-user), one thread. **Instructions** are what one inference
executes (`benchmarks/instructions`): a *proxy* for work, and never a latency, since instructions differ in cost, and no
cache and no memory is modelled. *Spread* is the widest difference among six inferences in two processes. *Integer dot*
are sdot, udot and smmla, *widening* smull, smlal and umlal, *float* fmul, fmla and fmadd. The files are those of the
x86-64 table.

"""

OPTIONS = """\

## Settings of the runtimes

The default files, edgetl's session against one with a setting changed, in turns; above 1 the change is faster. With two
threads the clock is the one on the wall, taken while no other benchmark ran. *Spinning: goes on after a run* flatters
itself: its threads spin on while the other session has its turn, and slow it down (compare edgetl's own time there with
the row above it).

"""

RUNTIMES = """\

## Which runtime on 64-bit Arm

`benchmarks/arm_runtimes.py`: each runtime's float and int8 artifact of the same network as `edgetl export` compiles it;
top-1 on 500 photographs and p50 on the x86-64 machine above, one thread, all in turns; instructions on the emulated
Cortex-A76, and the share of 40 photographs on which its answer is that of x86-64. ONNX Runtime's int8 file is that with
unsigned activations; the recipe in use takes 75.2 M (see above).

"""
CHOICE = """\

`rpi5` and `arm64-generic` stay with ONNX Runtime. LiteRT takes 15 % fewer instructions in int8 and half as many in
float, with the same accuracy. By this proxy, which knows no cache and no memory, that is too little in int8 to give up
that ONNX Runtime takes every graph that exports, transformers too, while edgetl's converter to LiteRT refuses those; on
x86-64, where time could be taken, LiteRT was the slower one. `arm64-litert` is there for whoever measures it to be
faster on a board (`edgetl bench --device board`). OpenVINO's int8 layers fall back to float and reference code on this
CPU: 60 times the instructions of its own float network, so no Arm target takes it.
"""


def page() -> str:
    """The whole page: a section for each part that was measured."""
    from benchmarks import recipe_tables as tables

    results = {part: _read(part) for part in TEXTS if _file(part).is_file()}
    sections = [TEXTS[part] + tables.table(result) + "\n" for part, result in results.items()]
    runtimes = json.loads((RESULTS / "arm_runtimes.json").read_text(encoding="utf-8"))
    sections.append(RUNTIMES + tables.runtimes(runtimes) + "\n" + CHOICE)
    return INTRODUCTION + tables.defaults(results) + "\n\n" + _conditions(results["ort_x86"]) + "".join(sections)


TEXTS = {
    "ort_x86": "\n## ONNX Runtime on x86-64\n\n",
    "no_vnni": VNNI,
    "openvino_x86": OPENVINO,
    "aarch64": ARM,
    "options": OPTIONS,
}


def _file(part: str) -> Path:
    return RESULTS / f"recipe_sweep_{part}.json"


def _read(part: str) -> Any:
    return json.loads(_file(part).read_text(encoding="utf-8"))


def _conditions(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    listed = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{machine['cores']} cores of {machine['cpu_model']} ({', '.join(machine['isa_features'])}); {listed}.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
