"""Build a TensorRT engine on the device that will run it.

Stands alone: copy it with model.onnx to the device and run ``python3 build_engine.py``. It needs Python 3.8 or newer
and the device's own TensorRT, 10 or 11 (JetPack 6 brings 10), or TensorRT-RTX on a PC. Prints one JSON object.

A bundle holds a copy of this for people. edgetl runs its own, and keeps engines in a folder of its own: a bundle may
come from anybody, and an engine is a program.

The engine's name holds everything that it depends on: TensorRT's version, the GPU's compute capability and model, the
system release (L4T, from which JetPack's version follows), the batch, a limit of scratch memory and the model's
SHA-256. An engine of that name whose checksum lies beside it, and which this TensorRT loads, is used again; a damaged
one is built anew, and any other is left alone. TensorRT 8 is refused: it has no strongly typed networks, and it reads
models of opset 18 wrongly without a word.
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
from typing import Any, NamedTuple

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


def first_gpu() -> tuple[tuple[int, int], str]:
    """Compute capability, major and minor, and name of the first GPU, asked of the CUDA driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise SystemExit("no CUDA driver here: run this on the device") from None
    device, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    # 75 and 76 are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        or driver.cuDeviceGetName(name, 256, device)
    )
    if failed:
        raise SystemExit(f"the CUDA driver reports error {failed}: is there a GPU?")
    return (major.value, minor.value), name.value.decode(errors="replace")


def board(file: str = "/proc/device-tree/model") -> str | None:
    """A Jetson's model: boards of one compute capability differ in cores and memory, and the driver calls all Orin."""
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").strip("\x00\n ") or None
    except OSError:
        return None


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


class Identity(NamedTuple):
    """What an engine depends on. Kernel timings hold for every model on one GPU and version."""

    version: str
    capability: tuple[int, int]
    gpu: str
    release: str
    batch: int
    workspace_mb: int
    model_sha256: str

    @property
    def machine(self) -> str:
        """The device's share of it, as part of a file name."""
        parts = (f"trt{self.version}", "sm{}{}".format(*self.capability), self.gpu, self.release)
        return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts))

    def engine(self, folder: Path) -> Path:
        """Where the engine is kept."""
        limit = f"-w{self.workspace_mb}" if self.workspace_mb else ""
        return folder / f"model-{self.machine}-b{self.batch}{limit}-{self.model_sha256[:16]}.engine"


def identified(trt: Any, model: bytes, batch: int = 1, workspace_mb: int = 0) -> Identity:
    """What an engine of a model depends on, on this device.

    Raises:
        SystemExit: TensorRT is too old, or there is no GPU.
    """
    version = checked_version(trt.__name__, trt.__version__)
    capability, name = first_gpu()
    digest = hashlib.sha256(model).hexdigest()
    return Identity(version, capability, board() or name, system_release(), batch, workspace_mb, digest)


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


def loads(trt: Any, engine: Path) -> bool:
    """Whether TensorRT takes an engine: versions that differ in the build number alone refuse each other's."""
    return trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(engine.read_bytes()) is not None


def timings(config: Any, file: Path) -> Any:
    """The kernel timings kept in a file, put to use; none yet where it is another device's, or damaged."""
    for held in (file.read_bytes() if file.is_file() else b"", b""):
        cache = config.create_timing_cache(held)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None


def build(trt: Any, model: bytes, batch: int, workspace_mb: int, timing_cache: Path) -> bytes:
    """The serialized engine of an explicitly quantized, strongly typed ONNX model."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise SystemExit("the parser refuses it: " + "; ".join(" ".join(str(error).split()) for error in errors))
    config = builder.create_builder_config()
    if workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    add_profile(builder, network, config, batch)
    cache = timings(config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise SystemExit("TensorRT could not build the engine: see its messages above")
    if cache is not None:
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
    trt, data = load_tensorrt(), options.model.read_bytes()
    found = identified(trt, data, options.batch, options.workspace_mb)
    engine = found.engine(options.out)
    started, reused = time.perf_counter(), not options.rebuild and is_whole(engine) and loads(trt, engine)
    if not reused:
        options.out.mkdir(parents=True, exist_ok=True)
        timing_cache = (options.timings or options.out) / f"timing-{found.machine}.cache"
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
                "compute_capability": "{}.{}".format(*found.capability),
                "gpu": found.gpu,
                "system": found.release,
                "batch": options.batch,
                "model_sha256": found.model_sha256,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
