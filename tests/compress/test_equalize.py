from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress import equalize as module
from edgetl.compress.equalize import equalize
from edgetl.compress.graph import load, save
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from tests.compress.images import pictures
from tests.compress.models import logits_of

PROJECTIONS = ("body.4.layers.6", "body.5.layers.6")
EXPANSION, HEAD = "body.5.layers.0", "head"


def weights(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in load(path).graph.initializer}


def rewritten(path: Path, changed: dict[str, npt.NDArray[Any]], out: Path) -> Path:
    model = load(path)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return save(model, out)


@pytest.fixture(scope="module")
def hostile(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with the channels of its last residual stream scaled by 1/32 to 32; the same function."""
    factors = 32.0 ** np.random.default_rng(3).uniform(-1, 1, 24)
    own = weights(small_onnx)
    changed: dict[str, npt.NDArray[Any]] = {}
    for layer in PROJECTIONS:
        changed[f"{layer}.weight"] = own[f"{layer}.weight"] * factors[:, None, None, None]
        changed[f"{layer}.weight_bias"] = own[f"{layer}.weight_bias"] * factors
    changed[f"{EXPANSION}.weight"] = own[f"{EXPANSION}.weight"] / factors[None, :, None, None]
    changed["head.weight"] = own["head.weight"] / factors
    return rewritten(small_onnx, changed, tmp_path_factory.mktemp("hostile") / "hostile.onnx")


def int8_error(path: Path, out: Path, reference: Path, *, equalized: bool) -> float:
    recipe = with_changes(load_recipe("ort-x86-int8"), equalize=equalized)
    made = quantize(path, recipe, ({"image": image[None]} for image in pictures(24, seed=1)), out)
    images = pictures(40, seed=2)
    return float(np.sqrt(((logits_of(made.path, images) - logits_of(reference, images)) ** 2).mean()))


def test_it_undoes_a_rescaling_that_int8_cannot_bear(small_onnx: Path, hostile: Path, tmp_path: Path) -> None:
    plain = int8_error(small_onnx, tmp_path / "plain", small_onnx, equalized=False)
    broken = int8_error(hostile, tmp_path / "broken", small_onnx, equalized=False)
    mended = int8_error(hostile, tmp_path / "mended", small_onnx, equalized=True)
    assert broken > 3 * plain
    assert mended < 1.5 * plain


def test_the_rescaled_model_and_the_original_become_one(small_onnx: Path, hostile: Path, tmp_path: Path) -> None:
    equalize(small_onnx, tmp_path / "one.onnx")
    equalize(hostile, tmp_path / "other.onnx")
    one, other = weights(tmp_path / "one.onnx"), weights(tmp_path / "other.onnx")
    assert all(np.allclose(one[name], other[name], rtol=1e-3, atol=1e-6) for name in one)
    assert not np.allclose(one["head.weight"], weights(small_onnx)["head.weight"], rtol=0.1)


def test_function_and_names_stay(small_onnx: Path, hostile: Path, tmp_path: Path) -> None:
    images = pictures(20, seed=4)
    done = equalize(hostile, tmp_path / "done.onnx", ({"image": image[None]} for image in images))
    expected = logits_of(hostile, images)
    assert np.abs(logits_of(tmp_path / "done.onnx", images) - expected).max() < 1e-4 * np.ptp(expected)
    assert done.logit_range == pytest.approx(np.ptp(expected[:8]), rel=1e-4)
    assert done.max_abs < 1e-4 * done.logit_range
    before, after = load(hostile), load(tmp_path / "done.onnx")
    assert before.graph.node == after.graph.node
    assert [t.name for t in before.graph.initializer] == [t.name for t in after.graph.initializer]


def test_groups_and_their_record(small_onnx: Path, hostile: Path, tmp_path: Path) -> None:
    (group,) = equalize(hostile, tmp_path / "done.onnx").groups
    assert group.producers == tuple(f"{layer}/Conv" for layer in PROJECTIONS)
    assert group.readers == (f"{EXPANSION}/Conv", f"{HEAD}/Gemm")
    assert group.channels == 24
    assert group.spread > 100
    recipe = with_changes(load_recipe("ort-x86-int8"), equalize=True)
    made = quantize(hostile, recipe, [{"image": image[None]} for image in pictures(8)], tmp_path)
    assert made.record.equalization["groups"][0]["readers"] == list(group.readers)
    assert weights(tmp_path / "source.onnx").keys() == weights(hostile).keys()
    plain = quantize(
        hostile, load_recipe("ort-x86-int8"), [{"image": image[None]} for image in pictures(8)], tmp_path / "plain"
    )
    assert plain.record.equalization is None
    assert not (tmp_path / "plain" / "source.onnx").exists()


def test_largest_weights_of_both_sides_end_up_alike(hostile: Path, tmp_path: Path) -> None:
    equalize(hostile, tmp_path / "done.onnx")
    own = weights(tmp_path / "done.onnx")
    written = np.max([np.abs(own[f"{layer}.weight"]).max(axis=(1, 2, 3)) for layer in PROJECTIONS], axis=0)
    read = np.maximum(np.abs(own[f"{EXPANSION}.weight"]).max(axis=(0, 2, 3)), np.abs(own["head.weight"]).max(axis=0))
    assert np.allclose(written, read, rtol=1e-3)


def test_dead_channels_keep_their_scale(small_onnx: Path, tmp_path: Path) -> None:
    own = weights(small_onnx)
    silent = {f"{layer}.{kind}": own[f"{layer}.{kind}"].copy() for layer in PROJECTIONS for kind in ("weight",)}
    for array in silent.values():
        array[5] = 0
    unread = {name: own[name].copy() for name in (f"{EXPANSION}.weight", "head.weight")}
    for array in unread.values():
        array[:, 9] = 0
    dead = rewritten(small_onnx, {**silent, **unread}, tmp_path / "dead.onnx")
    equalize(dead, tmp_path / "done.onnx")
    before, after = weights(dead), weights(tmp_path / "done.onnx")
    assert all(np.isfinite(array).all() for array in after.values())
    assert (after["head.weight"][:, 5] == before["head.weight"][:, 5]).all()
    assert (after["body.4.layers.6.weight"][9] == before["body.4.layers.6.weight"][9]).all()
    assert not np.allclose(after["head.weight"][:, 0], before["head.weight"][:, 0])


def test_an_outcome_that_differs_is_refused(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARITY", 0.0)
    with pytest.raises(CompressionError, match=r"differs by .* in logits that span"):
        equalize(hostile, tmp_path / "done.onnx")


def network(nodes: Sequence[Any], out: Path, **constants: npt.NDArray[Any]) -> Path:
    """A graph from ``x``, the image as float planes (n, 3, 8, 8), to ``logits``."""
    head = [
        helper.make_node("Cast", ["image"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x"], "transpose", perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        [*head, *nodes],
        "made",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return save(onnx.shape_inference.infer_shapes(model, data_prop=True), out)


def drawn(*shape: int) -> npt.NDArray[np.float32]:
    """Random weights whose first axis has widely different scales."""
    draw = np.random.default_rng(sum(shape))
    scales = 8.0 ** draw.uniform(-1, 1, (shape[0], *[1] * (len(shape) - 1)))
    return (draw.normal(size=shape) * scales).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], output, **attributes)


FIRST = node("Conv", "x a ab", "one")
LAST = node("Conv", "two b", "logits")
ENDS = {"a": drawn(6, 3, 1, 1), "ab": drawn(6), "b": drawn(5, 6, 1, 1)}

FREE: dict[str, tuple[list[Any], dict[str, npt.NDArray[Any]], int]] = {
    "relu": ([FIRST, node("Relu", "one", "two"), LAST], ENDS, 1),
    "leaky": ([FIRST, node("LeakyRelu", "one", "two", alpha=0.2), LAST], ENDS, 1),
    "pooling": ([FIRST, node("MaxPool", "one", "two", kernel_shape=[2, 2], strides=[2, 2]), LAST], ENDS, 1),
    "padding": (
        [FIRST, node("Pad", "one pads", "two"), LAST],
        {**ENDS, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        1,
    ),
    "layer scale": ([FIRST, node("Mul", "one gamma", "two"), LAST], {**ENDS, "gamma": drawn(6, 1, 1)}, 1),
    "depthwise": (
        [FIRST, node("Relu", "one", "r"), node("Conv", "r d db", "m", group=6), node("Relu", "m", "two"), LAST],
        {**ENDS, "d": drawn(6, 1, 1, 1), "db": drawn(6)},
        2,
    ),
    "grouped": (
        [FIRST, node("Conv", "one g", "two", group=2), LAST],
        {**ENDS, "g": drawn(6, 3, 1, 1)},
        2,
    ),
    "transposed": (
        [FIRST, node("ConvTranspose", "one t tb", "two", group=2, strides=[2, 2]), LAST],
        {**ENDS, "t": drawn(6, 3, 2, 2), "tb": drawn(6)},
        2,
    ),
    "residual": (
        [FIRST, node("Relu", "one", "r"), node("Conv", "r s", "m"), node("Add", "r m", "two"), LAST],
        {**ENDS, "s": drawn(6, 6, 1, 1)},
        1,
    ),
    "head": (
        [
            FIRST, node("GlobalAveragePool", "one", "p"), node("Flatten", "p", "two"),
            node("Gemm", "two k kb", "three", transB=1), node("Relu", "three", "r"), node("Gemm", "r l lb", "four"),
            node("MatMul", "four m", "logits"),
        ],
        {**ENDS, "k": drawn(9, 6), "kb": drawn(9), "l": drawn(9, 4), "lb": drawn(1, 4), "m": drawn(4, 3)},
        3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_operators_that_let_factors_through(name: str, tmp_path: Path) -> None:
    nodes, constants, groups = FREE[name]
    used = {source for each in nodes for source in each.input}
    path = network(nodes, tmp_path / "model.onnx", **{k: v for k, v in constants.items() if k in used})
    done = equalize(path, tmp_path / "done.onnx")
    assert len(done.groups) == groups
    assert all(group.spread > 2 for group in done.groups)
    before, after = weights(path), weights(tmp_path / "done.onnx")
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    last = {"m"} if name == "head" else {"b"}
    assert changed >= ({"a", "ab"} | last)


BARRED: dict[str, tuple[list[Any], dict[str, npt.NDArray[Any]]]] = {
    "clip": ([FIRST, node("Clip", "one low high", "two"), LAST],
             {"low": np.zeros((), np.float32), "high": np.array(6, np.float32)}),
    "sigmoid": ([FIRST, node("Sigmoid", "one", "two"), LAST], {}),
    "swish": ([FIRST, node("HardSwish", "one", "two"), LAST], {}),
    "gate": ([FIRST, node("Sigmoid", "one", "s"), node("Mul", "one s", "two"), LAST], {}),
    "constant": ([FIRST, node("Add", "one shift", "two"), LAST], {"shift": drawn(6, 1, 1)}),
    "padding with ones": ([FIRST, node("Pad", "one pads ones", "two"), LAST],
                          {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "ones": np.ones((), np.float32)}),
    "transposition": ([FIRST, node("Transpose", "one", "t", perm=[0, 1, 3, 2]), node("Relu", "t", "two"), LAST], {}),
    "mean over channels": ([FIRST, node("ReduceMean", "one axes", "m"), node("Sub", "one m", "two"), LAST],
                           {"axes": np.array([1])}),
    "output": ([FIRST, node("Relu", "one", "logits")], {}),
    "shared weights": ([FIRST, node("Conv", "one c", "m"), node("Relu", "m", "n"), node("Conv", "n c", "two"),
                        node("Softmax", "two", "logits")], {"c": drawn(6, 6, 1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", BARRED)
def test_operators_that_do_not(name: str, tmp_path: Path) -> None:
    nodes, constants = BARRED[name]
    used = {source for each in nodes for source in each.input}
    own = {key: value for key, value in {**ENDS, **constants}.items() if key in used}
    path = network(nodes, tmp_path / "model.onnx", **own)
    assert equalize(path, tmp_path / "done.onnx").groups == ()
    before, after = weights(path), weights(tmp_path / "done.onnx")
    assert all(np.array_equal(before[key], after[key]) for key in before)
