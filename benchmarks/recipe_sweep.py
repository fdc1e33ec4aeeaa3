"""Which recipe is best for each runtime and instruction set, and with which settings: measured, not guessed.

    EDGETL_TEST_DATA=DATA python benchmarks/recipe_sweep.py [PART …] [--root ROOTFS] [--lock FILE] [--table]

EfficientNet-Lite0 with ImageNet weights; 128 photographs calibrate, the 872 others judge. Parts, each with its file
``results/recipe_sweep_PART.json``, in which a row that is there is not measured again:

``ort-x86``       variations of ONNX Runtime's recipe and NNCF's ONNX file, timed in turns with float and the default
``no-vnni``       the same files on x86-64 without VNNI: ONNX Runtime on an emulated Haswell, OpenVINO held to AVX2
``openvino-x86``  variations of OpenVINO's recipe, and the files of ONNX Runtime's quantizer and of NNCF-ONNX
``aarch64``       ONNX Runtime and OpenVINO on emulated Arm: instructions per inference, a proxy, and accuracy
``options``       threads, graph optimisations, arena, spinning, layout and hints, each against edgetl's own settings

``--root`` is the root folder of an emulated device (``edgetl devices create pi --arch arm64 --with-openvino``).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import recipe_measure as measure
from benchmarks.recipe_tables import table
from benchmarks.recipe_variants import FLOAT, NNCF_ONNX, OPTIONS, VARIATIONS, make, make_nncf_onnx
from edgetl.backends import BACKENDS
from edgetl.backends.base import STEM
from edgetl.base.storage import new_folder, read_json, write_json
from edgetl.core.bundle import Artifact
from edgetl.core.targets import find_target
from edgetl.runtime.machine import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
Row = Callable[[], dict[str, Any]]
#: What is tried on Arm, the most telling first: file, runtime.
ON_ARM = (
    ("ort-x86-int8: default", "onnxruntime"),
    ("ort-x86-int8: s8, symmetric", "onnxruntime"),
    ("openvino-int8: default", "openvino"),
    ("ort-x86-int8: s8, asymmetric", "onnxruntime"),
    ("nncf-onnx", "onnxruntime"),
    ("ort-x86-int8: s8, symmetric, merged", "onnxruntime"),
    ("openvino-int8: mixed", "openvino"),
)
#: Comparisons that are timed before others get the lock.
TOGETHER = 16


@dataclass(frozen=True)
class Part:
    """What is measured: by name, a row's facts; and, by the same name, what is timed in turns for it."""

    rows: Mapping[str, Row]
    timings: Mapping[str, Callable[[], measure.Timed]] = field(default_factory=dict)


class Models:
    """The artifacts, each made when first asked for, as ``edgetl export`` would compile them."""

    def __init__(self, bench: measure.Bench) -> None:
        self.bench = bench

    def __call__(self, name: str, backend: str = "onnxruntime") -> Artifact:
        """``RECIPE: VARIATION``, a key of NNCF_ONNX, or FLOAT, for a backend."""
        model = self._model(name)
        if backend == "onnxruntime":
            return Artifact(backend, model, "fp32" if name == FLOAT else "int8")
        # OpenVINO's fixes the batch, which matters to its times.
        compiled = self._folder(name) / "openvino"
        if not compiled.is_dir():
            with new_folder(compiled) as folder:
                BACKENDS[backend].compile(model, find_target("intel-cpu"), folder)
        return Artifact(backend, compiled / f"{STEM}.xml", "fp32" if name == FLOAT else "int8", "CPU")

    def _folder(self, name: str) -> Path:
        return self.bench.work / "models" / re.sub(r"[^\w.-]+", "-", name)

    def _model(self, name: str) -> Path:
        bench, folder = self.bench, self._folder(name)
        if name == FLOAT:
            return bench.source
        if name in NNCF_ONNX:
            return make_nncf_onnx(bench.source, NNCF_ONNX[name], bench.calibration, folder)
        recipe, variation = name.split(": ", 1)
        changes = VARIATIONS[recipe][variation]
        return make(bench.source, recipe, changes, bench.calibration, folder, bench.work / "ranges")


def judged(bench: measure.Bench, artifact: Artifact, models: Models) -> dict[str, Any]:
    """Size, accuracy against float in the same runtime, and what was executed, on this machine."""
    reference, _ = measure.answers(bench, models(FLOAT, artifact.backend))
    logits, executed = measure.answers(bench, artifact)
    compared = measure.compared(reference, logits, bench.labels)
    return {"bytes": artifact.size_bytes, "executed": executed, **compared}


def natively(bench: measure.Bench, models: Models, backend: str, recipe: str, names: Sequence[str]) -> Part:
    """Files in a runtime on this machine: judged; timed in turns with float ONNX Runtime and the default recipe."""
    first = f"{recipe}: default"

    def row(name: str) -> dict[str, Any]:
        artifact = models(name, backend)
        base, _ = measure.answers(bench, models(first, backend))
        logits, _ = measure.answers(bench, artifact)
        return {
            **judged(bench, artifact, models),
            "against_default": measure.compared(base, logits, bench.labels),
        }

    def comparison(name: str) -> measure.Timed:
        default, this = models(first, backend), models(name, backend)
        return {"default": (default, 1, {}), "this": (this, 1, {}), "float": (models(FLOAT), 1, {})}

    wanted = [f"{recipe}: {name}" for name in VARIATIONS[recipe]] + list(names)
    return Part({n: partial(row, n) for n in wanted}, {n: partial(comparison, n) for n in wanted})


def ort_x86(bench: measure.Bench, models: Models) -> Part:
    """ONNX Runtime on this machine."""
    return natively(bench, models, "onnxruntime", "ort-x86-int8", list(NNCF_ONNX))


def openvino_x86(bench: measure.Bench, models: Models) -> Part:
    """OpenVINO on this machine, the other quantizers' files among it."""
    others = ["ort-x86-int8: default", "ort-x86-int8: s8, symmetric"]
    return natively(bench, models, "openvino", "openvino-int8", [FLOAT, *NNCF_ONNX, *others])


def no_vnni(bench: measure.Bench, models: Models) -> Part:
    """Accuracy where u8 x s8 products are added in 16 bits; no times."""
    wide = {"session.x64quantprecision": "1"}
    cases: dict[str, tuple[str, str, measure.Settings]] = {
        "ort-x86-int8: default": ("ort-x86-int8: default", "onnxruntime", {}),
        "ort-x86-int8: default, x64quantprecision=1": ("ort-x86-int8: default", "onnxruntime", wide),
        "openvino-int8: default": ("openvino-int8: default", "openvino", {}),
        "openvino-int8: mixed": ("openvino-int8: mixed", "openvino", {}),
    }

    def row(model: str, backend: str, settings: measure.Settings) -> dict[str, Any]:
        artifact = models(model, backend)
        place = measure.openvino_avx2() if backend == "openvino" else measure.x86_without_vnni()
        reference, _ = measure.answers(bench, models(FLOAT, backend))
        here, _ = measure.answers(bench, artifact, settings)
        there, executed = measure.answers_elsewhere(bench, artifact, place, settings)
        first = here[: len(there)]
        return {
            "place": place.name,
            "settings": dict(settings),
            "executed": executed,
            **measure.compared(reference, there, bench.labels),
            "with_vnni": measure.compared(reference, first, bench.labels),
            "against_with_vnni": measure.compared(first, there, bench.labels),
        }

    return Part({name: partial(row, *case) for name, case in cases.items()})


def aarch64(bench: measure.Bench, models: Models, root: Path) -> Part:
    """Emulated Arm: first what is counted, then what takes long."""
    place = measure.arm(bench, root)
    counting = [*ON_ARM, (FLOAT, "onnxruntime"), (FLOAT, "openvino")]

    def counted(name: str, backend: str) -> dict[str, Any]:
        return measure.instructions(bench, models(name, backend), root)

    def accurate(name: str, backend: str) -> dict[str, Any]:
        artifact = models(name, backend)
        reference, _ = measure.answers(bench, models(FLOAT, backend))
        here, _ = measure.answers(bench, artifact)
        # OpenVINO's int8 layers take ten seconds an image there.
        few = place if backend == "onnxruntime" else replace(place, images=16)
        there, executed = measure.answers_elsewhere(bench, artifact, few)
        first = here[: len(there)]
        return {
            "executed": executed,
            **measure.compared(reference, there, bench.labels),
            "on_x86": measure.compared(reference, first, bench.labels),
            "against_x86": measure.compared(first, there, bench.labels),
        }

    rows = {f"count | {backend} | {name}": partial(counted, name, backend) for name, backend in counting}
    # An image takes half a second there.
    more = {f"accuracy | {backend} | {name}": partial(accurate, name, backend) for name, backend in ON_ARM}
    return Part({**rows, **more})


def options(_: measure.Bench, models: Models) -> Part:
    """Settings of the runtimes on each default recipe's file, in turns with edgetl's own."""
    rows: dict[str, Row] = {}
    timings: dict[str, Callable[[], measure.Timed]] = {}

    def add(name: str, backend: str, recipe: str, threads: tuple[int, int], settings: measure.Settings) -> None:
        def comparison() -> measure.Timed:
            artifact = models(f"{recipe}: default", backend)
            return {"default": (artifact, threads[0], {}), "this": (artifact, threads[1], settings)}

        key = f"{backend} | {threads[1]} | {name}"
        rows[key] = lambda: {"default_threads": threads[0], "threads": threads[1], "settings": dict(settings)}
        timings[key] = comparison

    for backend, recipe in (("onnxruntime", "ort-x86-int8"), ("openvino", "openvino-int8")):
        add("2 threads instead of 1", backend, recipe, (1, 2), {})
        for name, settings in OPTIONS[backend].items():
            threads = 2 if "spinning" in name or "pinned" in name else 1
            add(name, backend, recipe, (threads, threads), settings)
    return Part(rows, timings)


def run(part: str, todo: Part, bench: measure.Bench) -> None:
    """Measure what is missing and add it to the part's file, row by row; times last, many under one lock."""
    file = RESULTS / f"recipe_sweep_{part.replace('-', '_')}.json"
    done: dict[str, Any] = read_json(file)["rows"] if file.is_file() else {}

    def add(name: str, **found: Any) -> None:
        done[name] = {**done.get(name, {}), **found}
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        write_json(file, {
            "part": part, "model": "EfficientNet-Lite0, ImageNet weights, 224 px, batch 1", "machine": machine(),
            "versions": versions, "order": [key for key in todo.rows if key in done], "rows": done,
        })  # fmt: skip

    for name in [name for name in todo.rows if name not in done]:
        print(f"{part}: {name}", file=sys.stderr, flush=True)
        add(name, **todo.rows[name]())
    untimed = [name for name in todo.timings if "timing" not in done[name]]
    for start in range(0, len(untimed), TOGETHER):
        print(f"{part}: times of {len(untimed) - start}", file=sys.stderr, flush=True)
        compared = {name: todo.timings[name]() for name in untimed[start : start + TOGETHER]}
        with bench.alone(True) as undisturbed:
            for name, comparison in compared.items():
                if undisturbed or _single(comparison):
                    add(name, timing={"alone": undisturbed, **measure.timed(bench, comparison)})


def _single(comparison: measure.Timed) -> bool:
    """Whether processor time tells all, so that others may run meanwhile."""
    return all(threads == 1 for _, threads, _ in comparison.values())


def main() -> None:
    """Run the parts asked for, or all."""
    parts = ("ort-x86", "openvino-x86", "options", "no-vnni", "aarch64")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgetl-sweep")
    parser.add_argument("--root", type=Path, help="root folder of an emulated device, for aarch64")
    parser.add_argument("--seconds", type=float, default=4, help="for each timed comparison")
    parser.add_argument("--lock", type=Path, help="a file to lock, exclusively while times are taken")
    parser.add_argument(
        "--table", action="store_true", help="print what is in the results, as markdown, and measure nothing"
    )
    chosen = parser.parse_args()
    if chosen.table:
        print("\n\n".join(table(read_json(f)) for f in sorted(RESULTS.glob("recipe_sweep_*.json"))))
        return
    data = os.environ.get("EDGETL_TEST_DATA")
    if not data:
        raise SystemExit("set EDGETL_TEST_DATA to the folder that holds imagenet-sample")
    chosen.work.mkdir(parents=True, exist_ok=True)
    bench = measure.prepare(Path(data) / "imagenet-sample", chosen.work, chosen.seconds, chosen.lock)
    models = Models(bench)
    made: Mapping[str, Callable[[], Part]] = {
        "ort-x86": lambda: ort_x86(bench, models),
        "openvino-x86": lambda: openvino_x86(bench, models),
        "options": lambda: options(bench, models),
        "no-vnni": lambda: no_vnni(bench, models),
        "aarch64": lambda: aarch64(bench, models, chosen.root),
    }
    for part in chosen.parts or parts:
        if part not in made:
            raise SystemExit(f"no part '{part}': use one of {', '.join(parts)}")
        if part == "aarch64" and chosen.root is None:
            raise SystemExit("aarch64 needs --root: edgetl devices create pi --arch arm64 --with-openvino")
        run(part, made[part](), bench)


if __name__ == "__main__":
    main()
