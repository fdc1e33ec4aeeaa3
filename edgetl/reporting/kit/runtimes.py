"""What each backend's runtime takes on a device: in C, the one place that says which backends the runner serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CRuntime:
    """How the C runner comes by a runtime.

    Attributes:
        package: requirement of pip that brings its shared library; "" takes the version that made the bundle, and None
            says that the device's system brings it.
        library: the shared library, as a shell's pattern.
        headers: commands that bring headers which that package lacks; KIT is the kit's folder.
        options: of CMake, a word each, that lead to the headers.
        remark: what else there is to know, a sentence or none.
    """

    package: str | None
    library: str
    headers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    remark: str = ""


#: Module → what people call it.
TITLES: Mapping[str, str] = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "tensorrt": "TensorRT",
}
#: Backend → distribution of pip that runs it in Python, and the module that tells its version.
PYTHON: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
    "litert": ("ai-edge-litert", "ai_edge_litert"),
}
#: Where pip puts packages in the environment of the commands.
SITE = "runtime/lib/python3*/site-packages"
#: Backends that the C runner serves: a file in ``runner/src/backends`` each. All else follows from this.
IN_C: Mapping[str, CRuntime] = {
    "onnxruntime": CRuntime(
        "",
        f"{SITE}/onnxruntime/capi/libonnxruntime.so.*",
        headers=("sh KIT/runner/fetch_packages.sh header headers",),
        options=('-DONNXRUNTIME_INCLUDE_DIR="$PWD/headers/usr/include/onnxruntime"',),
        remark="`fetch_packages.sh` unpacks Debian's `libonnxruntime-dev` for its header, on Debian 12 and 13. On "
        "other systems take `onnxruntime_c_api.h` from the folder `include` of an ONNX Runtime release, 1.21 "
        "or newer, and name that folder; this was not tried.",
    ),
    "openvino": CRuntime(
        "",
        f"{SITE}/openvino/libs/libopenvino_c.so.*",
        options=(f'-DOPENVINO_INCLUDE_DIR="$(echo $PWD/{SITE}/openvino/include)"',),
        remark="The wheel brings headers, library and plugins.",
    ),
    "litert": CRuntime(
        "ai-edge-litert==2.3.*",
        f"{SITE}/ai_edge_litert/libLiteRt.so",
        remark="The library comes without headers, and the runner knows the functions of 2.3 alone.",
    ),
    "tensorrt": CRuntime(
        None,
        "/usr/lib/*-linux-gnu/libnvinfer.so.1?",
        options=("-DCUDA_INCLUDE=/usr/local/cuda/include",),
        remark="The headers and the library are the device's own, on a Jetson those of JetPack (`libnvinfer-dev`). The "
        "runner loads the engine that `edgetl bench` or the bundle's `build_engine.sh` has built there. It was "
        "compiled with the headers of TensorRT 10 and 11, and has not run on a GPU yet.",
    ),
}
