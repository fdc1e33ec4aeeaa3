"""A network small enough to work out by hand, as ONNX, quantized ONNX and OpenVINO IR, inside a real bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from edgetl.inputs import Input, Preprocess, Tensors, Text, write_input
from edgetl.inputs.tensor import ArraySpec

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
    definition: Input = PREPROCESS,
    vectors: Mapping[str, npt.NDArray[Any]] | None = None,
    names: Sequence[str] = ("ash", "birch", "cedar", "fir"),
    task: str = "classification",
) -> Bundle:
    """Add what every bundle holds beside its artifacts, and the manifest.

    Args:
        folder: of the bundle; holds its artifacts.
        deployed, floating, more: these, by role.
        golden: images and their logits.
        definition, vectors, names, task: of a network that is not the one above: its input, golden.npz and labels.
    """
    images = pictures(4, seed=9)
    stored = golden if golden is not None else (images, expected(images))
    np.savez(folder / "golden.npz", **dict(vectors or {"in.image": stored[0], "out.logits": stored[1]}))
    write_json(folder / "labels.json", list(names))
    write_input(folder, definition)
    write_json(folder / "splits.json", Dataset(Path("/nowhere"), tuple(names), ()).to_json())
    artifacts = {"deployed": deployed} | ({"float": floating} if floating else {}) | dict(more or {})
    write_manifest(folder, Manifest(target=find_target("x86-generic"), task=task), artifacts)
    return load_bundle(folder)


def save_onnx(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, Sequence[Any]],
    constants: Mapping[str, npt.NDArray[Any]],
) -> Path:
    """Write a network: inputs by name with ONNX type and shape, float32 outputs by name with their shape."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return path


WORDS = ("[PAD]", "[UNK]", "good", "bad", "film", "very", "a")


def text_input(length: int = 8) -> Text:
    """Words that are tokens; unknown ones are one token."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return Text(made.to_str().encode(), length, 0)


def text_scores(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the text network answers to the tokens of one text, (tokens,): logits (2,), of bad and good."""
    table = text_weights()
    return np.asarray(table["table"][ids].mean(axis=0) @ table["w"] + table["b"])


def text_weights() -> dict[str, npt.NDArray[np.float32]]:
    """An embedding, in which "good" and "bad" lie opposite each other, and a linear head."""
    table = np.random.default_rng(4).normal(0, 0.1, (len(WORDS), 5)).astype(np.float32)
    table[2, 0], table[3, 0] = 3, -3
    head = np.zeros((5, 2), np.float32)
    head[0] = (-1, 1)
    return {"table": table, "w": head, "b": np.array([0.1, 0.0], np.float32)}


def text_bundle(folder: Path) -> Bundle:
    """The mean of the words' vectors, padding left out, and a head: input_ids, attention_mask → logits."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "tokens"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "w", "b"], ["logits"]),
    ]
    constants = {**text_weights(), "last": np.array([2]), "tokens": np.array([1])}
    ids = {name: (TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")}
    path = save_onnx(folder / "model" / "model.onnx", nodes, ids, {"logits": ["n", 2]}, constants)
    definition = text_input()
    batch = definition.batch(["a good film", "bad"])
    expected_logits = np.stack([text_scores(definition.feeds(text)["input_ids"][0]) for text in ("a good film", "bad")])
    vectors = {**{f"in.{name}": values for name, values in batch.items()}, "out.logits": expected_logits}
    return seal(
        folder,
        Artifact("onnxruntime", path, "fp32"),
        task="text-classification",
        definition=definition,
        vectors=vectors,
        names=("bad", "good"),
    )


def tensor_bundle(folder: Path, task: str = "regression") -> Bundle:
    """Two inputs: y = sum of left + 2 * sum of right, as the value, or as logits y, -y and 0 of three labels."""
    outputs, names = ("values", ()) if task == "regression" else ("logits", ("up", "down", "still"))
    constants = {
        "one": np.ones((4, 1), np.float32),
        "two": np.full((3, 1), 2, np.float32),
        "head": np.array([[1, -1, 0]], np.float32) if names else np.ones((1, 1), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["left", "one"], ["a"]),
        helper.make_node("MatMul", ["right", "two"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
        helper.make_node("MatMul", ["y", "head"], [outputs]),
    ]
    inputs = {"left": (TensorProto.FLOAT, ["n", 4]), "right": (TensorProto.FLOAT, ["n", 3])}
    path = save_onnx(folder / "model" / "model.onnx", nodes, inputs, {outputs: ["n", len(names) or 1]}, constants)
    vectors = {
        "in.left": np.eye(4, dtype=np.float32),
        "in.right": np.ones((4, 3), np.float32),
        f"out.{outputs}": np.full((4, 1), 7, np.float32) @ constants["head"],
    }
    return seal(
        folder,
        Artifact("onnxruntime", path, "fp32"),
        task=task,
        definition=Tensors((ArraySpec("left", (4,)), ArraySpec("right", (3,)))),
        vectors=vectors,
        names=names,
    )
