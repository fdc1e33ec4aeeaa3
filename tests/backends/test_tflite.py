"""ONNX operators converted to LiteRT, each against ONNX Runtime on the same image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgetl.backends.tflite import convert
from edgetl.base.errors import BackendError
from edgetl.core.bundle import Artifact
from edgetl.runtime.sessions import open_session
from tests.backends.networks import parsed
from tests.compress.models import logits_of

SIZE = 9
IMAGE = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
#: uint8 (1, 9, 9, 3) → x, float32 (1, 3, 9, 9) of size one
_BEFORE = """
    f = Cast<to=1>(image)
    t = Transpose<perm=[0, 3, 1, 2]>(f)
    c = Constant<value_float=127.5>()
    u = Sub(t, c)
    x = Div(u, c)
"""
#: y, of rank 4 → logits, where place and channel of every value count
_AFTER = "r = Flatten<axis=1>(y) logits = MatMul(r, last)"


def model(body: str, after: str = _AFTER, **weights: tuple[int, ...]) -> Any:
    """A graph whose operators stand in ONNX's textual syntax; initializers are drawn by shape."""
    draw = np.random.default_rng(1)
    head = '<ir_version: 10, opset_import: ["" : 18]> g (uint8[1, 9, 9, 3] image) => (float[1, 5] logits)'
    parsed = onnx.parser.parse_model(f"{head} {{ {_BEFORE} {body} {after} }}")
    arrays: dict[str, Any] = {name: draw.normal(0, 0.5, shape) for name, shape in weights.items()}
    for node in [node for node in parsed.graph.node if node.op_type == "Constant"]:
        arrays[node.output[0]] = onnx.helper.get_attribute_value(node.attribute[0])
        parsed.graph.node.remove(node)
    for name, value in arrays.items():
        stored = np.asarray(value if isinstance(value, float) else np.array(value))
        kind = np.int64 if stored.dtype.kind == "i" else np.float32
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(stored, kind), name))
    for index, node in enumerate(parsed.graph.node):
        node.name = f"{node.op_type}{index}"
    return parsed


def both(parsed: Any, folder: Path) -> tuple[Any, Any]:
    """Logits (1, 5) by ONNX Runtime and by LiteRT."""
    onnx.save(parsed, folder / "model.onnx")
    (folder / "model.tflite").write_bytes(convert(parsed))
    session = open_session(Artifact("litert", folder / "model.tflite", "fp32"))
    found = session.run({"image": IMAGE})["logits"]
    session.close()
    return logits_of(folder / "model.onnx", IMAGE), found


SAME = {"last": (4 * 81, 5)}
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "convolution": ("y = Conv<pads=[1, 1, 1, 1]>(x, w, b)", {"w": (4, 3, 3, 3), "b": (4,), **SAME}),
    "a pad that LiteRT has not": (
        "y = Conv<pads=[2, 0, 1, 3], strides=[2, 2]>(x, w)",
        {"w": (4, 3, 3, 3), "last": (4 * 5 * 5, 5)},
    ),
    "a dilation": ("y = Conv<dilations=[2, 2], pads=[2, 2, 2, 2]>(x, w)", {"w": (4, 3, 3, 3), **SAME}),
    "SAME_UPPER": (
        'y = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(x, w)',
        {"w": (4, 3, 3, 3), "last": (4 * 5 * 5, 5)},
    ),
    "depthwise, two outputs each": (
        "y = Conv<group=3, pads=[1, 1, 1, 1]>(x, w, b)",
        {"w": (6, 1, 3, 3), "b": (6,), "last": (6 * 81, 5)},
    ),
    "groups": (
        "a = Conv(x, v) y = Conv<group=2>(a, w)",
        {"v": (4, 3, 1, 1), "w": (4, 2, 1, 1), **SAME},
    ),
    "an activation merged": ("a = Conv(x, w) y = Relu(a)", {"w": (4, 3, 1, 1), **SAME}),
    "an activation of a value read twice": (
        "a = Conv(x, w) r0 = Relu(a) y = Add(a, r0)",
        {"w": (4, 3, 1, 1), **SAME},
    ),
    "ReLU6": (
        "a = Conv(x, w) low = Constant<value_float=0.0>() high = Constant<value_float=6.0>() y = Clip(a, low, high)",
        {"w": (4, 3, 1, 1), **SAME},
    ),
    "other limits": (
        "low = Constant<value_float=-0.25>() high = Constant<value_float=0.5>() y = Clip(x, low, high)",
        {"last": (3 * 81, 5)},
    ),
    "largest, padded": (
        "two = Constant<value_float=2.0>() n = Sub(x, two)"
        " y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(n)",
        {"last": (3 * 25, 5)},
    ),
    "average": ("y = AveragePool<kernel_shape=[3, 3], strides=[3, 3]>(x)", {"last": (3 * 9, 5)}),
    "hard swish": ("y = HardSwish(x)", {"last": (3 * 81, 5)}),
    "hard sigmoid": ("y = HardSigmoid<alpha=0.1666667, beta=0.5>(x)", {"last": (3 * 81, 5)}),
    "a gate by channel": (
        "m = GlobalAveragePool(x) s = Sigmoid(m) y = Mul(x, s)",
        {"last": (3 * 81, 5)},
    ),
    "batch normalisation": (
        "y = BatchNormalization<epsilon=2.0>(x, k, b, m, v)",
        {"k": (3,), "b": (3,), "m": (3,), "v": (3,), "last": (3 * 81, 5)},
    ),
    "a constant by channel": ("y = Mul(x, k)", {"k": (3, 1, 1), "last": (3 * 81, 5)}),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_operator_gives_what_onnx_runtime_gives(case: str, tmp_path: Path) -> None:
    body, weights = CASES[case]
    expected, found = both(model(body, **weights), tmp_path)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.ptp(expected)))


def test_a_mean_without_axes_kept_and_a_gemm(tmp_path: Path) -> None:
    body = "axes = Constant<value_ints=[2, 3]>() y = ReduceMean<keepdims=0>(x, axes)"
    after = "logits = Gemm<transB=1>(y, w, b)"
    expected, found = both(model(body, after, w=(5, 3), b=(5,)), tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("y = Erf(x)", "Erf"),
        ("y = Transpose<perm=[0, 1, 3, 2]>(x)", "Transpose by"),
        ("y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1>(x)", "AveragePool over padded"),
    ],
)
def test_what_is_not_converted_is_named(body: str, named: str) -> None:
    with pytest.raises(
        BackendError, match=rf"edgetl converts no {named}.* to LiteRT \(.*\): choose a target"
    ) as caught:
        convert(model(body, last=(3 * 81, 5)))
    assert "\n" not in str(caught.value)


def test_the_same_model_gives_the_same_bytes() -> None:
    body, weights = CASES["convolution"]
    assert convert(model(body, **weights)) == convert(model(body, **weights))


ARRAYS = {
    "a row of a table": (
        "g (float[n, 5] x) => (float[n, 1] y) "
        "{ s = Sub(x, m) d = Div(s, k) a = Gemm(d, w, b) c = Relu(a) y = Gemm(c, v) }",
        {"m": (1, 5), "k": (1, 5), "w": (5, 8), "b": (8,), "v": (8, 1)},
        (5,),
    ),
    "a spectrogram of two channels": (
        "g (float[n, 2, 9, 7] x) => (float[n, 3] y) { s = Sub(x, m) a = Conv<pads=[1, 1, 1, 1]>(s, w) "
        "p = GlobalAveragePool(a) q = Flatten(p) y = MatMul(q, v) }",
        {"m": (1, 2, 1, 1), "w": (6, 2, 3, 3), "v": (6, 3)},
        (2, 9, 7),
    ),
    "a spectrogram": (
        "g (float[n, 9, 7] x) => (float[n, 3] y) { s = Sub(x, m) u = Unsqueeze(s, axes) "
        "a = Conv<pads=[1, 1, 1, 1]>(u, w) p = GlobalAveragePool(a) q = Flatten(p) y = MatMul(q, v) }",
        {"m": (1, 9, 1), "w": (6, 1, 3, 3), "v": (6, 3)},
        (9, 7),
    ),
    "a map for each channel": (
        "g (float[n, 2, 9, 7] x) => (float[n, 6, 9, 7] y) { y = Conv<pads=[1, 1, 1, 1]>(x, w) }",
        {"w": (6, 2, 3, 3)},
        (2, 9, 7),
    ),
}


@pytest.mark.parametrize("case", sorted(ARRAYS))
def test_arrays_in_float_come_and_go_in_onnx_order(case: str, tmp_path: Path) -> None:
    text, shapes, size = ARRAYS[case]
    draw = np.random.default_rng(2)
    constants = {name: draw.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    network = parsed(text, **constants, **({"axes": np.array([1])} if "axes" in text else {}))
    onnx.save(network, tmp_path / "model.onnx")
    (tmp_path / "model.tflite").write_bytes(convert(network))
    feeds = {"x": draw.normal(size=(1, *size)).astype(np.float32)}
    files = {"litert": "model.tflite", "onnxruntime": "model.onnx"}
    artifacts = [Artifact(backend, tmp_path / name, "fp32") for backend, name in files.items()]
    found, expected = (open_session(artifact).run(feeds)["y"] for artifact in artifacts)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_matrix_is_split_into_its_columns(tmp_path: Path) -> None:
    after = """r = Flatten<axis=1>(y) m = MatMul(r, last) sizes = Constant<value_ints=[2, 3]>()
        a, b = Split<axis=1>(m, sizes) p = MatMul(a, one) q = MatMul(b, two) logits = Add(p, q)"""
    weights = {"last": (SIZE * SIZE * 3, 5), "one": (2, 5), "two": (3, 5)}
    expected, found = both(model("y = Relu(x)", after, **weights), tmp_path)
    assert found == pytest.approx(expected, abs=1e-3)
    turned = model("y, z = Split<axis=1, num_outputs=2>(x)", last=(SIZE * SIZE * 2, 5))
    with pytest.raises(BackendError, match="Split"):
        convert(turned)
