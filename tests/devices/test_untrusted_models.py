"""Every file that a runtime would read is one of the bundle's: models, weights, and tensors kept in other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import BundleError, DeviceError
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.onnx_file import external_files
from edgetl.devices import Device, find_device
from tests.devices.forged import entry, forged, reseal

onnx = pytest.importorskip("onnx", reason="onnx (edgetl[train]) makes models that keep tensors elsewhere")

Put = Callable[[Any, Any], None]


def _initializer(model: Any, tensor: Any) -> None:
    model.graph.initializer.append(tensor)


def _constant(model: Any, tensor: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["kept"], value=tensor))


def _several(model: Any, tensor: Any) -> None:
    node = onnx.helper.make_node("Custom", [], ["kept"], domain="x")
    node.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    model.graph.node.append(node)


def _branch(model: Any, tensor: Any) -> None:
    branch = onnx.helper.make_graph([], "then", [], [], [tensor])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["kept"], then_branch=branch, else_branch=branch))


def _sparse(model: Any, tensor: Any) -> None:
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(tensor)
    model.graph.sparse_initializer.append(sparse)


def _function(model: Any, tensor: Any) -> None:
    node = onnx.helper.make_node("Constant", [], ["kept"], value=tensor)
    model.functions.append(onnx.helper.make_function("x", "f", [], ["kept"], [node], model.opset_import))


def _training(model: Any, tensor: Any) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


PLACES = (_initializer, _constant, _several, _branch, _sparse, _function, _training)


def keeping(path: Path, put: Put, location: str | None) -> None:
    """Add a tensor to a model whose data lie in the file ``location``."""
    model = onnx.load(path, load_external_data=False)
    tensor = onnx.TensorProto(dims=[4], data_type=onnx.TensorProto.FLOAT, name="kept")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if location is not None:
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value="16")
    put(model, tensor)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__.strip("_"))
def test_tensors_in_files_of_others_are_refused_wherever_they_stand(bundle: Bundle, tmp_path: Path, put: Put) -> None:
    folder = forged(bundle, tmp_path / "forged")
    keeping(folder / "float/model.onnx", put, "secret.bin")
    assert external_files(folder / "float/model.onnx") == ("secret.bin",)
    reseal(folder)
    with pytest.raises(BundleError, match=r"keeps tensors in 'secret\.bin', which is no file of the bundle"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "place", ["../secret.bin", "/etc/hostname", "", None, "a/../secret", "*/_ORT_MEM_ADDR_/*", "."]
)
def test_tensors_that_lie_elsewhere_are_refused(bundle: Bundle, tmp_path: Path, place: str | None) -> None:
    folder = forged(bundle, tmp_path / "forged")
    (folder / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    keeping(folder / "model/model.onnx", _initializer, place)
    reseal(folder, lambda record: record["files"].update({"secret.bin": entry(folder / "secret.bin")}))
    with pytest.raises(BundleError, match=r"model\.onnx keeps tensors in"):
        load_bundle(folder)
    with pytest.raises(DeviceError, match="keeps tensors in"):
        find_device("local").call(["selftest"], bundle=folder)


def test_tensors_in_a_file_that_the_manifest_lists_are_the_bundles_own(bundle: Bundle, tmp_path: Path) -> None:
    folder = forged(bundle, tmp_path / "forged")
    beside = folder / "float/weights.bin"
    beside.write_bytes(np.ones(4, np.float32).tobytes())
    keeping(folder / "float/model.onnx", _initializer, "weights.bin")
    reseal(folder, lambda record: record["files"].update({"float/weights.bin": entry(beside)}))
    assert load_bundle(folder)
    beside.write_bytes(np.zeros(4, np.float32).tobytes())
    with pytest.raises(BundleError, match=r"weights\.bin is altered"):
        load_bundle(folder)


def test_the_emulated_machine_refuses_them_too(emulated: Device, bundle: Bundle, tmp_path: Path) -> None:
    folder = forged(bundle, tmp_path / "forged")
    keeping(folder / "model/model.onnx", _initializer, "../../../../etc/hostname")
    reseal(folder)
    with pytest.raises(DeviceError, match=r"keeps tensors in .*which leads out of the folder"):
        emulated.call(["selftest"], bundle=folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"no model at all", b":\x0a\x01", b"\x3b\x3c", b"\x3a\xff\xff"])
def test_what_is_no_model_is_refused_before_a_runtime_sees_it(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    folder = forged(bundle, tmp_path / "forged")
    (folder / "float/model.onnx").write_bytes(content)
    reseal(folder)
    with pytest.raises(BundleError, match=r"model\.onnx is no ONNX file"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("backend", "file"),
    [("onnxruntime", "model/model.ort"), ("tensorrt", "model/model.engine"), ("openvino", "model/model.blob")],
)
def test_a_runtime_opens_the_kind_of_file_that_was_looked_into(
    bundle: Bundle, tmp_path: Path, backend: str, file: str
) -> None:
    folder = forged(bundle, tmp_path / "forged")
    (folder / file).write_bytes((folder / "model/model.onnx").read_bytes())

    def change(record: dict[str, Any]) -> None:
        record["files"][file] = entry(folder / file)
        record["artifacts"]["deployed"] |= {"backend": backend, "file": file}

    reseal(folder, change)
    with pytest.raises(BundleError, match=f"deployed model for {backend} that is no"):
        load_bundle(folder)


@pytest.mark.parametrize(("model", "beside"), [("model.xml", "model.bin"), ("model.tflite", "model.onnx")])
def test_what_is_opened_beside_a_model_is_listed(bundle: Bundle, tmp_path: Path, model: str, beside: str) -> None:
    folder = forged(bundle, tmp_path / "forged")
    for name in (model, beside):
        (folder / "model" / name).write_bytes((folder / "float/model.onnx").read_bytes())

    def change(record: dict[str, Any]) -> None:
        record["artifacts"]["deployed"] |= {
            "backend": {".xml": "openvino", ".tflite": "litert"}[Path(model).suffix],
            "file": f"model/{model}",
        }
        record["files"] = {n: value for n, value in record["files"].items() if n != f"model/{beside}"}
        record["files"][f"model/{model}"] = entry(folder / "model" / model)

    reseal(folder, change)
    with pytest.raises(BundleError, match=f"{model} needs model/{beside}, which the manifest does not list"):
        load_bundle(folder)
