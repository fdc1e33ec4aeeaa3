"""Milliseconds of each layer, as the runtime's own profiler tells them."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.openvino import read_network
from edgetl.compress.layers.arithmetic import REQUANTIZER, fed
from edgetl.compress.layers.topology import read_topology
from edgetl.extras import require

_ROUNDS, _WARMUP = 12, 3
#: What ONNX Runtime appends to the name of a node that it fused.
_FUSED = re.compile(r"_token_\d+$")
_BLOCKED = "_nchwc"


def profile_layers(
    path: Path, image: npt.NDArray[np.uint8], *, engine: str = "onnxruntime", threads: int = 1, rounds: int = _ROUNDS
) -> dict[str, float]:
    """Time every node of an artifact that this machine executes.

    Args:
        path: ``.onnx``, or ``.xml`` with engine ``openvino``.
        image: uint8 (1, H, W, 3).
        engine: ``onnxruntime`` or ``openvino``.
        threads: worker threads.
        rounds: inferences, of which the median is taken after a few that do not count.

    Returns:
        node name → milliseconds; what was fused into a layer is part of it.
    """
    timed = {"onnxruntime": _onnxruntime, "openvino": _openvino}[engine](path, image, threads, rounds + _WARMUP)
    times: dict[str, list[float]] = defaultdict(list)
    for one in list(timed)[_WARMUP:]:
        for name, milliseconds in one.items():
            times[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _onnxruntime(path: Path, image: npt.NDArray[np.uint8], threads: int, rounds: int) -> Iterable[dict[str, float]]:
    runtime = require("onnxruntime", "timing layers")
    with tempfile.TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=[REQUANTIZER]
        )
        for _ in range(rounds):
            session.run(None, fed(image, session))
        events = json.loads(Path(session.end_profiling()).read_text())
    resolve = _names(path)
    done: list[dict[str, float]] = []
    for event in events:
        if event.get("cat") == "Session" and event["name"] == "model_run":
            done.append({})
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    per_run = len(kernels) // rounds
    for number, event in enumerate(kernels[: per_run * rounds]):
        one = done[number // per_run]
        name = resolve(event["name"].removesuffix("_kernel_time"))
        one[name] = one.get(name, 0.0) + event["dur"] / 1e3
    return done


def _names(path: Path) -> Any:
    topology = read_topology(path)

    def resolve(name: str) -> str:
        plain = _FUSED.sub("", name)
        if plain in topology.nodes or not plain.endswith(_BLOCKED):
            return plain
        # A convolution in the blocked layout is called after the tensor that it writes, activation included.
        return topology.producer(plain.removesuffix(_BLOCKED)) or plain

    return resolve


def _openvino(path: Path, image: npt.NDArray[np.uint8], threads: int, rounds: int) -> Iterable[dict[str, float]]:
    openvino = require("openvino", "timing layers")
    config = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    network = read_network(path)
    compiled = openvino.Core().compile_model(network, "CPU", config)
    origins = {
        node.get_friendly_name(): str(node.get_rt_info()["originalLayersNames"].astype(str))
        for node in compiled.get_runtime_model().get_ops()
    }
    request = compiled.create_infer_request()
    size = compiled.input(0).get_partial_shape()[0]
    whole = np.repeat(image, size.get_length(), axis=0) if size.is_static else image
    for _ in range(rounds):
        request.infer({compiled.input(0).get_any_name(): whole})
        one: dict[str, float] = {}
        for entry in request.get_profiling_info():
            for name in origins.get(entry.node_name, entry.node_name).split(","):
                one[name] = one.get(name, 0.0) + entry.real_time.total_seconds() * 1e3
        yield one
