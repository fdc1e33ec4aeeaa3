"""Networks with several inputs and outputs, and networks without a convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.base.errors import CompressionError
from edgetl.compress.batches import batched, fed, filled, grouped
from edgetl.compress.export import check_parity, export_onnx, run_onnx
from edgetl.compress.graph import kind_of, load
from edgetl.compress.layers.attribution import attribute
from edgetl.compress.layers.points import read_points
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, serving, siblings
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, TensorSpec, rows
from edgetl.runtime.sessions import open_session
from tests.compress.models import Joined, perceptron
from tests.compress.texts import Inputs

NAMES = ("logits", "values")
PAIR = Inputs((TensorSpec("row", "float32", (None, 6)), TensorSpec("window", "float32", (None, 2, 8))))
TABLE = Inputs((TensorSpec("x", "float32", (None, 6)),))


def pair(count: int, seed: int = 0) -> Arrays:
    draw = np.random.default_rng(seed)
    shapes = {"row": (count, 6), "window": (count, 2, 8)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def table(count: int, seed: int = 0) -> Arrays:
    return {"x": np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)}


@pytest.fixture(scope="module")
def joined_model() -> Joined:
    torch.manual_seed(0)
    return Joined().eval()


@pytest.fixture(scope="module")
def joined_onnx(joined_model: Joined, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(joined_model, PAIR, tmp_path_factory.mktemp("joined") / "model.onnx", outputs=NAMES)


@pytest.fixture(scope="module")
def table_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(perceptron(), TABLE, tmp_path_factory.mktemp("table") / "model.onnx")


def test_names_in_and_out(joined_onnx: Path) -> None:
    graph = load(joined_onnx).graph
    assert [value.name for value in graph.input] == ["row", "window"]
    assert {name: values.shape for name, values in run_onnx(joined_onnx, pair(19)).items()} == {
        "logits": (19, 3),
        "values": (19, 1),
    }


def test_parity_looks_at_every_output(joined_model: Joined, joined_onnx: Path) -> None:
    parity = check_parity(joined_onnx, joined_model, pair(20), outputs=NAMES)
    assert (parity.n, parity.agreement) == (20, 1.0)
    other = Joined().eval()
    other.load_state_dict(joined_model.state_dict())
    with torch.no_grad():
        other.values.bias.add_(0.1)
    with pytest.raises(CompressionError, match=r"differs from torch by 0\.1 in values that span"):
        check_parity(joined_onnx, other, pair(20), outputs=NAMES)


def test_agreement_is_the_tasks(joined_model: Joined, joined_onnx: Path, table_onnx: Path) -> None:
    told = check_parity(joined_onnx, joined_model, pair(4), outputs=NAMES, agreement=lambda one, other: 0.25)
    assert told.agreement == 0.25


def test_a_single_value_has_no_top(tmp_path: Path) -> None:
    model = torch.nn.Linear(6, 1).eval()
    path = export_onnx(model, TABLE, tmp_path / "model.onnx", outputs=("values",))
    assert check_parity(path, model, table(1), outputs=("values",)).agreement is None


def test_wrong_outputs_are_refused(joined_model: Joined, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="inputs and outputs"):
        export_onnx(joined_model, PAIR, tmp_path / "model.onnx")


def test_two_inputs_are_quantized(joined_onnx: Path, tmp_path: Path) -> None:
    samples = [rows(pair(24, seed=1), slice(i, i + 1)) for i in range(24)]
    made = quantize(joined_onnx, load_recipe("ort-x86-int8"), samples, tmp_path)
    exact, found = run_onnx(joined_onnx, pair(20)), run_onnx(made.path, pair(20))
    for name in NAMES:
        assert np.abs(found[name] - exact[name]).max() < 0.15 * np.ptp(exact[name])


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("ort-x86-int8", "onnxruntime"),
        ("ort-aarch64-int8", "onnxruntime"),
        ("tensorrt-int8", "onnxruntime"),
        ("openvino-int8", "openvino"),
    ],
)
def test_dense_models_are_quantized_statically(name: str, backend: str, table_onnx: Path, tmp_path: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    assert kind_of(load(table_onnx)) == "dense"
    samples = [table(1, seed) for seed in range(32)]
    made = quantize(table_onnx, serving(siblings(load_recipe(name)), "dense"), samples, tmp_path)
    exact = run_onnx(table_onnx, table(20, 99))["logits"]
    # Without VNNI, products in integers may saturate, which no recipe is to blame for.
    session = open_session(Artifact(backend, made.path, "int8", "CPU"), simulated=True)
    found = np.concatenate([session.run(rows(table(20, 99), slice(i, i + 1)))["logits"] for i in range(20)])
    assert np.abs(found - exact).max() < 0.1 * np.ptp(exact)
    points = read_points(made.path, table_onnx)
    assert all(point.weight is not None for point in points)
    assert attribute(table_onnx, points, samples[:4])


def test_batches_are_filled_and_counted() -> None:
    feeds = {"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}
    parts = list(batched(feeds, 2, 16))
    assert [size for _, size in parts] == [2, 2, 1]
    np.testing.assert_array_equal(parts[-1][0]["a"], [4, 4])
    assert [size for _, size in batched(feeds, "batch", 3)] == [3, 2]
    np.testing.assert_array_equal(filled(feeds, 7)["a"], [0, 1, 2, 3, 4, 4, 4])
    (only, last) = grouped([rows(feeds, slice(i, i + 1)) for i in range(3)], 2)
    np.testing.assert_array_equal(only["a"], [0, 1])
    np.testing.assert_array_equal(last["b"], [[4, 5], [4, 5]])


def test_a_missing_input_is_named(joined_onnx: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(joined_onnx), providers=["CPUExecutionProvider"])
    with pytest.raises(CompressionError, match="the model reads 'window', which is not among"):
        fed({"row": np.zeros((1, 6), np.float32)}, session)
