"""Build a TensorRT engine on the device that will run it.

Stands alone: copy it with model.onnx to the device and run ``python3 build_engine.py``. It needs Python 3.8 or newer
and the device's own TensorRT, 10 or 11 (JetPack 6 brings 10), or TensorRT-RTX on a PC. Prints one JSON object.

A bundle holds a copy of this for people. edgetl runs its own, and keeps engines in a folder of its own: a bundle may
come from anybody, and an engine is a program.

The engine's name holds everything that it depends on: TensorRT's version, the GPU's compute capability, the system
release (L4T, from which JetPack's version follows), the batch and the model's SHA-256. An engine of that name whose
checksum lies beside it is used again; a damaged one is built anew, and any other is left alone. TensorRT 8 is refused:
it has no strongly typed networks, and it reads models of opset 18 wrongly without a word.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

#: Sizes of open axes other than the batch's, such as tokens of a text: the least, the usual one, and the most.
LENGTHS = (1, 64, 512)


def load_tensorrt() -> Any:
    """The installed TensorRT: the full one, or TensorRT-RTX."""
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return __import__(name)
        except ImportError:
            continue
    raise SystemExit("no TensorRT here: install JetPack's python3-libnvinfer, or tensorrt-rtx-cu13 on a PC")


def compute_capability() -> tuple[int, int]:
    """Major and minor number of the first GPU, asked of the CUDA driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise SystemExit("no CUDA driver here: run this on the device") from None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # 75 and 76 are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    )
    if failed:
        raise SystemExit(f"the CUDA driver reports error {failed}: is there a GPU?")
    return major.value, minor.value


def system_release(file: str = "/etc/nv_tegra_release") -> str:
    """The L4T release, such as ``l4t36.4.3``, or the kernel's system and machine where there is none."""
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.system()}-{platform.machine()}".lower()
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"l4t{found.group(1)}.{found.group(2)}" if found else "l4t-unknown"


def checked_version(module: str, version: str) -> str:
    """Version as '10.3.0': packages that differ in the build number alone share engines' names.

    Raises:
        SystemExit: it is too old for the models that edgetl makes.
    """
    numbers = version.split(".")
    if module == "tensorrt" and int(numbers[0]) < 10:
        raise SystemExit(f"TensorRT 10 or newer is needed, this is {version}: install JetPack 6.1 or newer")
    return ".".join(numbers[:3])


def engine_key(version: str, capability: tuple[int, int], release: str, batch: int, model_sha256: str) -> str:
    """Everything that an engine depends on, as part of a file name."""
    parts = (f"trt{version}", "sm{}{}".format(*capability), release, f"b{batch}", model_sha256[:16])
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts))


def write_whole(path: Path, data: bytes) -> None:
    """Write under another name, then rename: a reader never meets half an engine."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()


def checksum_file(engine: Path) -> Path:
    """Where the SHA-256 of a finished engine lies."""
    return engine.with_name(engine.name + ".sha256")


def is_whole(engine: Path) -> bool:
    """Whether the engine is there and is what was written."""
    try:
        recorded = checksum_file(engine).read_text(encoding="ascii").strip()
        return hashlib.sha256(engine.read_bytes()).hexdigest() == recorded
    except (OSError, ValueError):
        return False


def keep(engine: Path, data: bytes) -> None:
    """Write an engine, then its checksum: killed between the two, it counts as not built."""
    checksum = checksum_file(engine)
    if checksum.exists():
        checksum.unlink()
    write_whole(engine, data)
    write_whole(checksum, (hashlib.sha256(data).hexdigest() + "\n").encode("ascii"))


def network_flags(trt: Any) -> int:
    """Strongly typed; TensorRT 11 knows no other kind of network and may drop the flag."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def sized(shape: tuple[int, ...], batch: int, length: int) -> tuple[int, ...]:
    """A shape whose open axes have sizes: the first one the batch's."""
    return tuple(size if size >= 0 else length if axis else batch for axis, size in enumerate(shape))


def add_profile(builder: Any, network: Any, config: Any, batch: int) -> None:
    """Say which sizes the open axes of the network's inputs may have, if there are any."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    opened = [(tensor.name, tuple(tensor.shape)) for tensor in inputs if min(tuple(tensor.shape)) < 0]
    if not opened:
        return
    profile = builder.create_optimization_profile()
    for name, shape in opened:
        least, usual, most = (
            sized(shape, 1, LENGTHS[0]),
            sized(shape, batch, LENGTHS[1]),
            sized(shape, batch, LENGTHS[2]),
        )
        profile.set_shape(name, least, usual, most)
    config.add_optimization_profile(profile)


def build(trt: Any, model: bytes, batch: int, workspace_mb: int, timing_cache: Path) -> bytes:
    """The serialized engine of an explicitly quantized, strongly typed ONNX model."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise SystemExit("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    if workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    add_profile(builder, network, config, batch)
    cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.is_file() else b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise SystemExit("TensorRT could not build the engine: see its messages above")
    write_whole(timing_cache, bytes(cache.serialize()))
    return bytes(engine)


def main(arguments: list[str] | None = None) -> int:
    """Build the engine unless one of the same key is there."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=here / "model.onnx")
    parser.add_argument("--out", type=Path, default=here, help="folder for the engine")
    parser.add_argument("--timings", type=Path, help="folder for kernel timings; that of the engine by default")
    parser.add_argument("--batch", type=int, default=1, help="largest batch, and the one to optimise for")
    parser.add_argument("--workspace-mb", type=int, default=0, help="most scratch memory, MiB; 0: TensorRT's default")
    parser.add_argument("--rebuild", action="store_true", help="build even if an engine is there")
    options = parser.parse_args(arguments)
    if not options.model.is_file():
        raise SystemExit(f"there is no {options.model}: copy the whole folder of the bundle")
    trt = load_tensorrt()
    version = checked_version(trt.__name__, trt.__version__)
    capability, release, data = compute_capability(), system_release(), options.model.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    key = engine_key(version, capability, release, options.batch, digest)
    engine = options.out / f"model-{key}.engine"
    started, reused = time.perf_counter(), is_whole(engine) and not options.rebuild
    if not reused:
        options.out.mkdir(parents=True, exist_ok=True)
        # Kernel timings hold for every model on this GPU and version.
        timing_cache = (options.timings or options.out) / f"timing-{key.rsplit('-', 2)[0]}.cache"
        keep(engine, build(trt, data, options.batch, options.workspace_mb, timing_cache))
    print(
        json.dumps(
            {
                "engine": str(engine),
                "bytes": engine.stat().st_size,
                "reused": reused,
                "build_seconds": round(time.perf_counter() - started, 3),
                "module": trt.__name__,
                "tensorrt": trt.__version__,
                "compute_capability": "{}.{}".format(*capability),
                "system": release,
                "batch": options.batch,
                "model_sha256": digest,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
