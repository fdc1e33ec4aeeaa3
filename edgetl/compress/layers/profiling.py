"""Milliseconds of each layer, as the runtime's own profiler tells them."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from edgetl.backends.openvino import read_network
from edgetl.base.extras import require
from edgetl.compress.batches import fed, filled
from edgetl.compress.engine_dynamic import DYNAMIC, PRODUCT
from edgetl.compress.layers.arithmetic import REQUANTIZER
from edgetl.compress.layers.topology import Topology, read_topology
from edgetl.core.tensors import Arrays
from edgetl.runtime.ov import core

_ROUNDS, _WARMUP = 12, 3
#: What ONNX Runtime appends to the name of a node that it fused.
_FUSED = re.compile(r"_token_\d+$")
_BLOCKED = "_nchwc"
#: What OpenVINO appends to a layer whose bias it adds in a node of its own.
_BARE = "/WithoutBiases"
#: The same and what follows it where products are in integers; what ONNX Runtime's dynamic quantizer appends.
_SUFFIXES = ("/DequantizationMultiply", _BARE, DYNAMIC, PRODUCT)


def profile_layers(
    path: Path,
    exported: Path,
    sample: Arrays,
    *,
    engine: str = "onnxruntime",
    threads: int = 1,
    rounds: int = _ROUNDS,
) -> dict[str, float]:
    """Time every node of an artifact that this machine executes.

    Args:
        path: ``.onnx``, or with engine ``openvino`` also ``.xml``.
        exported: the float ONNX file that it was made from, which may be ``path`` itself.
        sample: the inputs of one, (1, …) by name.
        engine: ``onnxruntime`` or ``openvino``.
        threads: worker threads.
        rounds: inferences, of which the median is taken after a few that do not count.

    Returns:
        node name, as in ``exported`` → milliseconds; what was fused into a layer is part of it.
    """
    resolve = _names(read_topology(exported))
    timed = ENGINES[engine](path, sample, threads, rounds + _WARMUP)
    times: dict[str, list[float]] = defaultdict(list)
    for one in list(timed)[_WARMUP:]:
        total: dict[str, float] = defaultdict(float)
        for name, milliseconds in one:
            total[resolve(name)] += milliseconds
        for name, milliseconds in total.items():
            times[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _names(topology: Topology) -> Callable[[str], str]:
    homes = dict(_biases(topology))

    def resolve(name: str) -> str:
        found = named(name)
        return homes.get(found, found)

    def named(name: str) -> str:
        plain = _FUSED.sub("", name)
        for suffix in _SUFFIXES:
            plain = plain.removesuffix(suffix)
        # A convolution in the blocked layout is called after the tensor that it writes, activation included, and
        # OpenVINO calls the last layer after the model's output.
        tensor = plain.removesuffix(_BLOCKED)
        return plain if plain in topology.nodes or tensor not in topology.makers else topology.producer(tensor) or plain

    return resolve


def _biases(topology: Topology) -> Iterator[tuple[str, str]]:
    """Additions of a constant to what a layer writes, and the layer: runtimes do both at once."""
    layers = {node.output[0]: node.name for node in topology.weighted()}
    for node in topology.nodes.values():
        first = [name for name in node.input if name in layers]
        if node.op_type == "Add" and len(first) == 1 and any(name in topology.constants for name in node.input):
            yield node.name, layers[first[0]]


def _onnxruntime(path: Path, sample: Arrays, threads: int, rounds: int) -> Iterable[list[tuple[str, float]]]:
    runtime = require("onnxruntime", "timing layers")
    with tempfile.TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=[REQUANTIZER]
        )
        for _ in range(rounds):
            session.run(None, fed(sample, session))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    each = len(kernels) // rounds
    for start in range(0, each * rounds, each):
        yield [(e["name"].removesuffix("_kernel_time"), e["dur"] / 1e3) for e in kernels[start : start + each]]


def _openvino(path: Path, sample: Arrays, threads: int, rounds: int) -> Iterable[list[tuple[str, float]]]:
    config = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    network = read_network(path)
    compiled = core().compile_model(network, "CPU", config)
    origins = {
        node.get_friendly_name(): str(node.get_rt_info()["originalLayersNames"].astype(str))
        for node in compiled.get_runtime_model().get_ops()
    }
    request = compiled.create_infer_request()
    size = compiled.input(0).get_partial_shape()[0]
    whole = filled(sample, size.get_length()) if size.is_static else dict(sample)
    for _ in range(rounds):
        request.infer(whole)
        yield [
            (name, entry.real_time.total_seconds() * 1e3)
            for entry in request.get_profiling_info()
            # A primitive that does several layers takes its time for each of them.
            for name in {n.removesuffix(_BARE) for n in origins.get(entry.node_name, entry.node_name).split(",")}
        ]


#: Runtimes that tell the time of each layer.
ENGINES: Mapping[str, Callable[..., Iterable[list[tuple[str, float]]]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
