"""One artifact over images in a process of its own: under an emulator, or with another runtime's settings.

    python recipe_guest.py ARTIFACT BACKEND PRECISION IMAGES.npy OUT.npz [--marks K] [--config KEY=VALUE …]

Writes the logits of every image and what was executed. With ``--marks`` it runs K inferences of the
first image instead, each between two calls of getpriority(2), which ``instructions/count.c`` sees. Imports what a
device has: numpy and one runtime.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.core.bundle import Artifact
from edgetl.core.tensors import single
from edgetl.runtime import ort, ov
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import Session, open_session

#: Kernels are chosen, packed and jitted in the first inferences.
WARMUP = 2


class ConfiguredOrt(ort.OrtSession):
    """edgetl's ONNX Runtime session with some of its settings replaced.

    ``settings``: attributes of SessionOptions (``graph_optimization_level``, ``enable_cpu_mem_arena``, …) by name,
    config entries by their dotted key, ``disabled_optimizers`` as names joined by commas.
    """

    def __init__(self, path: Path, threads: int, settings: dict[str, str]) -> None:
        self._settings = settings
        super().__init__(path, threads, False)

    def _options(self) -> Any:
        options = super()._options()
        for key, value in self._settings.items():
            if "." in key:
                options.add_session_config_entry(key, value)
            elif key == "graph_optimization_level":
                options.graph_optimization_level = getattr(self._ort.GraphOptimizationLevel, value)
            elif key == "execution_mode":
                options.execution_mode = getattr(self._ort.ExecutionMode, value)
            elif key != "disabled_optimizers":
                setattr(options, key, value == "True")
        return options

    def _load(self, options: Any, *disabled: str) -> Any:
        more = self._settings.get("disabled_optimizers")
        return super()._load(options, *disabled, *(more.split(",") if more else ()))


class ConfiguredOpenVino(ov.OpenVinoSession):
    """edgetl's OpenVINO session with some properties of the CPU plugin replaced."""

    def __init__(self, artifact: Artifact, threads: int, settings: dict[str, str]) -> None:
        super().__init__(artifact, "CPU", threads, False)
        import openvino

        asked = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(self._model, "CPU", {**asked, **settings})
        self._request = self._compiled.create_infer_request()


def open_configured(artifact: Artifact, threads: int, settings: dict[str, str]) -> Session:
    """The artifact's session, with settings of its runtime replaced."""
    if not settings:
        return open_session(artifact, threads=threads)
    if artifact.backend == "openvino":
        return ConfiguredOpenVino(artifact, threads, settings)
    return ConfiguredOrt(artifact.path, threads, settings)


def _mark() -> None:
    os.getpriority(os.PRIO_PROCESS, 0)


def main() -> None:
    """Run, and write one file."""
    parser = argparse.ArgumentParser()
    for name in ("artifact", "backend", "precision", "images", "out"):
        parser.add_argument(name)
    parser.add_argument("--marks", type=int, default=0)
    parser.add_argument("--config", nargs="*", default=[])
    options = parser.parse_args()
    device = "CPU" if options.backend == "openvino" else ""
    artifact = Artifact(options.backend, Path(options.artifact), options.precision, device)
    session = open_configured(artifact, 1, dict(entry.split("=", 1) for entry in options.config))
    images = np.load(options.images, mmap_mode="r")
    feeds = {session.inputs[0].name: np.ascontiguousarray(images[:1])}
    if options.marks:
        for _ in range(WARMUP):
            session.run(feeds)
        for _ in range(options.marks):
            _mark()
            session.run(feeds)
            _mark()
        logits = np.empty((0, 0), np.float32)
    else:
        feeds_of = ({session.inputs[0].name: np.ascontiguousarray(image[None])} for image in images)
        logits = np.concatenate([single(infer(session, feeds)) for feeds in feeds_of])
    executed = json.dumps(vars(session.executed()))
    with Path(options.out).open("wb") as stream:
        np.savez(stream, logits=logits, executed=np.array(executed))


if __name__ == "__main__":
    main()
