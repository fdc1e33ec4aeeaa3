"""A network small enough to work out by hand, as ONNX, quantized ONNX and OpenVINO IR, inside a real bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.storage import write_json
from edgetl.core.bundle import Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.data import Dataset
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.inputs.image import Preprocess

HEIGHT, WIDTH, CLASSES = 32, 24, 4
PREPROCESS = Preprocess(HEIGHT, WIDTH, 36, "bilinear", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
#: Multiply-accumulates of each weighted layer: output positions times weights per output channel times channels.
MACS = {"stem": 16 * 12 * 10 * 27, "depthwise": 16 * 12 * 10 * 9, "pointwise": 16 * 12 * 20 * 10, "head": 20 * CLASSES}


def weights(seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Every parameter of the network, float32."""
    rng = np.random.default_rng(seed)
    shapes = {
        "stem.w": (10, 3, 3, 3),
        "stem.b": (10,),
        "depthwise.w": (10, 1, 3, 3),
        "depthwise.b": (10,),
        "pointwise.w": (20, 10, 1, 1),
        "pointwise.b": (20,),
        "head.w": (CLASSES, 20),
        "head.b": (CLASSES,),
    }
    values = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    scale = 1 / (255 * np.array(PREPROCESS.std))
    shift = -np.array(PREPROCESS.mean) / np.array(PREPROCESS.std)
    values["scale"] = scale.reshape(1, 3, 1, 1).astype(np.float32)
    values["shift"] = shift.reshape(1, 3, 1, 1).astype(np.float32)
    return values


def model(batch: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """uint8 (n, 32, 24, 3) → float32 logits (n, 4), with the preprocessing inside."""
    size: int | str = batch if batch is not None else "batch"

    def conv(name: str, source: str, **attributes: Any) -> list[onnx.NodeProto]:
        made = helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [f"{name}.raw"], name=name, **attributes)
        return [made, helper.make_node("Relu", [f"{name}.raw"], [name], name=f"{name}.relu")]

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        *conv("stem", "normal", strides=[2, 2], pads=[1, 1, 1, 1]),
        *conv("depthwise", "stem", pads=[1, 1, 1, 1], group=10),
        *conv("pointwise", "depthwise"),
        helper.make_node("GlobalAveragePool", ["pointwise"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["logits"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [size, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [size, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights(seed).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


def expected(images: npt.NDArray[np.uint8], seed: int = 0) -> npt.NDArray[np.float32]:
    """What the network answers, worked out with torch: uint8 (n, 32, 24, 3) → float32 (n, 4)."""
    import torch
    from torch.nn import functional

    w = {name: torch.from_numpy(value) for name, value in weights(seed).items()}
    planes = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    x = functional.conv2d((planes - mean) / std, w["stem.w"], w["stem.b"], stride=2, padding=1).relu()
    x = functional.conv2d(x, w["depthwise.w"], w["depthwise.b"], padding=1, groups=10).relu()
    x = functional.conv2d(x, w["pointwise.w"], w["pointwise.b"]).relu()
    return functional.linear(x.mean((2, 3)), w["head.w"], w["head.b"]).numpy()


def pictures(n: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random network inputs: uint8 (n, 32, 24, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3), dtype=np.uint8)


def seal(
    folder: Path,
    deployed: Artifact,
    floating: Artifact | None = None,
    *,
    golden: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None = None,
    more: Mapping[str, Artifact] | None = None,
) -> Bundle:
    """Add what every bundle holds beside its artifacts, and the manifest."""
    images = pictures(4, seed=9)
    stored = golden if golden is not None else (images, expected(images))
    np.savez(folder / "golden.npz", **{"in.image": stored[0], "out.logits": stored[1]})
    names = ("ash", "birch", "cedar", "fir")
    write_json(folder / "labels.json", list(names))
    write_json(folder / "preprocess.json", PREPROCESS.to_json())
    write_json(folder / "splits.json", Dataset(Path("/nowhere"), names, ()).to_json())
    artifacts = {"deployed": deployed} | ({"float": floating} if floating else {}) | dict(more or {})
    write_manifest(folder, Manifest(target=find_target("x86-generic")), artifacts)
    return load_bundle(folder)
