"""What is forged, endless, odd or of another version is refused before it costs memory, time or somebody's file."""

from __future__ import annotations

import ctypes
import os
import threading
import zipfile
import zlib
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.storage import read_json, write_json
from edgetl.core.bundle import Artifact, Bundle, write_manifest
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from tests.runner import ugly
from tests.runner.built import Runner, pixel_bundle
from tests.runner.test_abi import INPUT, OK, USAGE, Model, Options, Tensor, opened
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runner.test_pixels import definition, written
from tests.runtime.tiny import HEIGHT, WIDTH, model, save_onnx, seal, tensor_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)


def sealed_again(bundle: Bundle) -> None:
    """Write the manifest anew, as whoever forges a bundle would."""
    write_manifest(bundle.path, Manifest(target=find_target("x86-generic")), {"deployed": bundle.artifact()})


class Longer(ctypes.Structure):
    """Options of a header that knows one field more."""

    _fields_ = (("known", Options), ("more", ctypes.c_uint64))


@pytest.mark.parametrize(
    ("changes", "more", "status"),
    [
        ({"size": ctypes.sizeof(Longer)}, 0, OK),
        ({"size": ctypes.sizeof(Longer)}, 1, USAGE),
        ({"size": Options.role.offset}, 1, OK),
        ({"size": 1 << 20}, 0, USAGE),
        ({"size": 0}, 0, USAGE),
        ({"flags": 1 | 1 << 31}, 0, USAGE),
    ],
    ids=["longer", "unknown-field", "shorter", "absurd-size", "no-size", "unknown-flag"],
)
def test_options_of_another_version(
    runner: Runner, tmp_path: Path, changes: dict[str, int], more: int, status: int
) -> None:
    folder = pixel_bundle(tmp_path / "bundle", definition()).path
    etl = ctypes.CDLL(str(runner.library))
    options = Longer(Options(**{"size": ctypes.sizeof(Options), "flags": 1, **changes}), more)
    handle = c_void_p()
    assert etl.etl_open(str(folder).encode(), byref(options), byref(handle)) == status
    etl.etl_close(handle)


def test_a_failed_run_leaves_no_answer(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    with opened(ort, ort_library, bundle.path) as handle:
        answers, count = handle.answers(), c_size_t()
        ask = handle.etl.etl_run_encoded
        assert handle.rgb(ugly.noise(30, 30), answers) == OK
        assert answers.count == 4
        assert ask(handle.handle, b"no picture", c_size_t(10), byref(answers)) == INPUT
        assert answers.count == 0
        assert handle.etl.etl_outputs(handle.handle, 0, None, c_size_t(0), byref(count)) == USAGE
        assert handle.rgb(ugly.noise(30, 30), answers) == OK
        assert handle.etl.etl_outputs(handle.handle, 0, None, c_size_t(0), byref(count)) == OK


def test_a_stride_that_no_memory_holds(ort: Runner, ort_library: Path, bundle: Bundle) -> None:
    pixels = ugly.noise(30, 30)
    with opened(ort, ort_library, bundle.path) as handle:
        given = (handle.handle, pixels.ctypes.data_as(c_void_p), 30, 30)
        for stride in (1 << 63, (1 << 64) - 90, (1 << 64) // 30 + 90):
            assert handle.etl.etl_run_rgb(*given, c_size_t(stride), None) == USAGE


def test_numbers_that_lie_askew(ort: Runner, ort_library: Path, tmp_path: Path) -> None:
    numbers = np.zeros(8, np.float32)
    with opened(ort, ort_library, tensor_bundle(tmp_path / "bundle").path) as handle:
        for shift, status in ((0, OK), (1, USAGE), (2, USAGE)):
            at = numbers.ctypes.data + shift
            inputs = (Tensor * 2)(Tensor(b"left", at, 16), Tensor(b"right", numbers.ctypes.data, 12))
            assert handle.etl.etl_run_tensor(handle.handle, inputs, c_size_t(2), None) == status


def test_errors_of_opening_belong_to_their_thread(runner: Runner, tmp_path: Path) -> None:
    first = Model(runner, tmp_path, tmp_path / "first")
    first.etl.etl_error.restype = ctypes.c_char_p

    def elsewhere() -> None:
        Model(runner, tmp_path, tmp_path / "second")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert b"/first" in first.etl.etl_error(None)


def test_a_pipe_that_nobody_writes_to(runner: Runner, ort_library: Path, bundle: Bundle, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    if not runner.compiled_with("EDGETL_ONNXRUNTIME"):
        pytest.skip("onnxruntime_c_api.h was not found, and apt does not offer libonnxruntime-dev here")
    with opened(runner, ort_library, bundle.path) as handle:
        assert handle.etl.etl_run_file(handle.handle, str(tmp_path / "pipe.jpg").encode(), None) == INPUT
        assert "is no file" in handle.error()


def test_a_strip_that_becomes_a_few_pixels(ort: Runner, ort_library: Path, tmp_path: Path) -> None:
    """Each place of the result takes pixels from all over it: their weights alone would take gigabytes."""
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(), folder / "model/model.onnx")
    squashed = definition(height=HEIGHT, width=WIDTH, resize=WIDTH, mode="squash", interpolation="lanczos")
    seal(folder, Artifact("onnxruntime", folder / "model/model.onnx", "fp32"), definition=squashed)
    strip = np.zeros((1, 30_000_000, 3), np.uint8)
    with opened(ort, ort_library, folder) as handle:
        assert handle.rgb(strip, handle.answers()) == INPUT
        assert "30000000x1" in handle.error()
        assert handle.rgb(strip[:, :10_000_000], handle.answers()) == OK


def test_texts_that_unpack_to_more_than_memory(runner: Runner, tmp_path: Path) -> None:
    text = ugly.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(60 << 20), 9))
    long = ugly.chunk(b"prIv", bytes(63 << 20))
    files = {
        "one.png": ugly.png(ugly.noise(20, 20), 2, 8, before=text),
        "many.png": ugly.png(ugly.noise(20, 20), 2, 8, before=text * 300),
        "long.png": ugly.png(ugly.noise(20, 20), 2, 8, before=long + text * 9),
        "cut.png": ugly.png(ugly.noise(20, 20), 2, 8, before=text * 300)[:-40],
    }
    paths = written(tmp_path / "pictures", files.items())
    lines = runner.lines("--pixels", pixel_bundle(tmp_path / "bundle", definition()).path, paths=paths)
    assert [line.get("status") for line in lines] == [None, 5, 5, 5]
    assert "too many texts" in lines[1]["error"]


def test_a_network_of_too_large_a_picture(runner: Runner, tmp_path: Path) -> None:
    bundle = pixel_bundle(tmp_path / "bundle", definition())
    record = read_json(bundle.path / "preprocess.json")
    write_json(bundle.path / "preprocess.json", {**record, "height": 65536, "width": 65536, "resize": 65536})
    sealed_again(bundle)
    done = runner.run("--pixels", bundle.path)
    assert done.returncode == 3
    assert "height times width" in done.stderr


@pytest.mark.parametrize("shape", ["(8796093022208, 1024, 2048, 1)", "(0, 32, 24, 3)", "()"])
def test_golden_vectors_of_a_forged_shape(ort: Runner, bundle: Bundle, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"x" * (shape == "()")
    with zipfile.ZipFile(bundle.path / "golden.npz", "w") as archive:
        archive.writestr("in.image.npy", content)
    sealed_again(bundle)
    done = ort.run("--self-test", bundle.path)
    assert done.returncode == 3
    assert "golden.npz" in done.stderr


def _external(path: Path) -> bytes:
    """A network one of whose tensors lies in another file."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(path))
    node = helper.make_node("Add", ["x", "w"], ["logits"])
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "logits"))
    return bytes(helper.make_model(helper.make_graph([node], "g", [given], [made], [tensor])).SerializeToString())


def _overlong(content: bytes) -> bytes:
    """The field of the graph under a number whose bits beyond 32 parsers drop."""
    proto = onnx.load_from_string(content)
    graph = bytes(proto.graph.SerializeToString())
    proto.ClearField("graph")
    size, left = b"", len(graph)
    while left >= 128:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes(proto.SerializeToString()) + b"\xba\x80\x80\x80\x70" + size + bytes([left]) + graph


@pytest.mark.parametrize(
    ("name", "backend", "change"),
    [
        ("model.onnx", "onnxruntime", _overlong),
        ("model.onnx", "onnxruntime", lambda content: b"\x0a\x10\0\0ORTM" + bytes(10) + content),
        ("model.xml", "openvino", lambda content: content),
    ],
    ids=["overlong-tag", "ort-format", "onnx-called-xml"],
)
def test_a_model_that_hides_names_of_files(
    runner: Runner, tmp_path: Path, name: str, backend: str, change: Any
) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / name).write_bytes(change(_external(tmp_path / "secret")))
    (folder / "model/model.bin").write_bytes(b"0")
    write_json(folder / "labels.json", ["one", "two"])
    artifact = Artifact(backend, folder / "model" / name, "fp32", "CPU" if backend == "openvino" else "")
    bundle = pixel_bundle(tmp_path / "other", definition())
    (folder / "preprocess.json").write_bytes((bundle.path / "preprocess.json").read_bytes())
    write_manifest(folder, Manifest(target=find_target("x86-generic")), {"deployed": artifact})
    done = runner.run("--pixels", folder)
    assert done.returncode in (3, 8), done.stderr
    assert "export" in done.stderr or "store them" in done.stderr


def _rows(values: npt.NDArray[Any], rows: int, path: Path) -> Path:
    """A network that gives some rows of its answer to a picture."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "w"], ["all"]),
        helper.make_node("Slice", ["all", "from", "to", "axis"], ["logits"]),
    ]
    constants = {"axes": np.array([1, 2]), "w": values, "from": np.array([0]), "to": np.array([rows])}
    given = {"image": (TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])}
    return save_onnx(path, nodes, given, {"logits": [rows, 4]}, {**constants, "axis": np.array([0])})


def test_an_output_without_samples(ort: Runner, openvino: Runner, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino", reason="openvino (edgetl[openvino]) makes and runs these")
    (picture,) = written(tmp_path, [("picture.png", ugly.saved(ugly.noise(40, 40), "PNG"))])
    for runner, backend, name in ((ort, "onnxruntime", "model.onnx"), (openvino, "openvino", "model.xml")):
        folder = tmp_path / backend
        path = _rows(np.ones((3, 4), np.float32), 0, folder / "model/model.onnx")
        if backend == "openvino":
            ov.save_model(ov.convert_model(path), folder / "model/model.xml", compress_to_fp16=False)
            path.unlink()
        artifact = Artifact(backend, folder / "model" / name, "fp32", "CPU" if backend == "openvino" else "")
        (line,) = runner.lines(seal(folder, artifact).path, paths=[picture])
        assert line["status"] in (3, 6), line


def test_answers_that_are_no_numbers(ort: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    values = np.zeros((3, 4), np.float32)
    values[:, 1], values[:, 2] = np.nan, np.inf
    path = _rows(values, 1, folder / "model/model.onnx")
    bundle = seal(folder, Artifact("onnxruntime", path, "fp32"))
    (picture,) = written(tmp_path, [("picture.png", ugly.saved(ugly.noise(40, 40), "PNG"))])
    (line,) = ort.lines("--outputs", bundle.path, paths=[picture])
    assert line["outputs"]["logits"][1] is None
    assert [entry["label"] for entry in line["answer"]["top"]] == ["cedar", "ash", "fir", "birch"]


@pytest.mark.parametrize("key", ["0" * 63, "0" * 63 + "x", "0x" * 32, " 1" * 32])
def test_a_key_that_is_none(runner: Runner, tmp_path: Path, key: str) -> None:
    done = runner.run("--key", key, "--pixels", tmp_path)
    assert done.returncode == 2
    assert "64 hexadecimal digits" in done.stderr
