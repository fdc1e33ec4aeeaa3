"""Where the time of an export goes: seconds by the clock and of the cores, by its steps.

    python -m benchmarks.export_stages RUN --work FOLDER [--no-repair] [--out FILE]

One export of three targets in this process, without timing. Each step is a function that is watched; what the steps
within it take is not counted as its own. Processes that it starts count once they have ended.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers_export import TARGETS
from edgetl import pipeline
from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.runtime.machine import machine

RESULT = Path(__file__).parent / "results" / "export_stages.json"
#: Step → where it is looked up when it is called: module, and name within it.
STEPS: Mapping[str, tuple[str, str]] = {
    "loading the trained model and its parity": ("edgetl.workflow.reference", "TorchReference.export"),
    "exporting to ONNX": ("edgetl.compress.export", "export_onnx"),
    "the trained model's answers": ("edgetl.workflow.reference", "TorchReference.outputs"),
    "the float ONNX file's answers": ("edgetl.workflow.reference", "run_artifact"),
    "ranges of activations": ("edgetl.compress.calibration", "Calibration.ranges"),
    "the rest of quantizing": ("edgetl.workflow.candidates", "quantize"),
    "noise of each layer": ("edgetl.workflow.candidates", "Candidates.noises"),
    "attempts on search samples": ("edgetl.workflow.candidates", "Candidates.measure"),
    "features of the compressed backbone": ("edgetl.workflow.refit_head", "_features"),
    "mixed precision": ("edgetl.workflow.repair_search", "ranked"),
    "training the weights again": ("edgetl.workflow.train_quantized", "_train"),
    "the rest of repair": ("edgetl.workflow.repair_search", "_repaired"),
    "compiling": ("edgetl.workflow.build_bundle", "_compiled"),
    "the rest of the bundle": ("edgetl.pipeline", "build_bundle"),
    "the certify samples through the artifacts": ("edgetl.workflow.certify_bundle", "collect_answers"),
    "diagnosis": ("edgetl.workflow.certify_bundle", "diagnose"),
    "the rest of the certificate": ("edgetl.pipeline", "certify_bundle"),
}


class Watch:
    """Adds up what each step takes by itself."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {}
        self._within: list[list[float]] = []
        self._thread = threading.get_ident()

    def over(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, watched where the main thread calls it."""

        @functools.wraps(step)
        def watched(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return step(*args, **options)
            began = spent()
            self._within.append([0.0, 0.0])
            try:
                return step(*args, **options)
            finally:
                took = [after - before for before, after in zip(began, spent(), strict=True)]
                inner, own = self._within.pop(), self.steps.setdefault(name, [0.0, 0.0])
                for unit, (whole, part) in enumerate(zip(took, inner, strict=True)):
                    own[unit] += whole - part
                    if self._within:
                        self._within[-1][unit] += whole

        return watched

    def install(self) -> None:
        """Put the watched steps where the others look them up."""
        for name, (module, path) in STEPS.items():
            holder: Any = importlib.import_module(module)
            *outer, last = path.split(".")
            for each in outer:
                holder = getattr(holder, each)
            setattr(holder, last, self.over(name, getattr(holder, last)))


def spent() -> tuple[float, float]:
    """Seconds by the clock, and of this process and those that it started on a core."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--no-repair", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    watch, began = Watch(), spent()
    watch.install()
    made = pipeline.export(options.run, targets=TARGETS, out=options.work, bench=False, repair=not options.no_repair)
    total = [after - before for before, after in zip(began, spent(), strict=True)]
    here = machine()
    steps = {name: _told(took) for name, took in sorted(watch.steps.items(), key=lambda item: -item[1][1])}
    record = {
        "machine": {name: here[name] for name in ("cpu_model", "cores")},
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino", "nncf")},
        "repair": not options.no_repair,
        "verdicts": {each.bundle.target: each.certificate.verdict for each in made},
        "total": _told(total),
        "steps": steps,
    }
    write_json(options.out, record)
    for name, took in steps.items():
        print(f"{took['seconds']:7.1f} s {took['cpu_seconds']:7.1f} CPU s  {name}")


def _told(took: Sequence[float]) -> dict[str, float]:
    return {"seconds": round(took[0], 1), "cpu_seconds": round(took[1], 1)}


if __name__ == "__main__":
    main()
